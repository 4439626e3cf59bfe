"""How long a report takes, and how much memory, with many products and labels.

    python tools/bench/report.py RUN
    python tools/bench/report.py RUN --task multi_label --labels 1001

Makes up a run of three towers and three heads that holds what models say of products
and nothing else: outputs, answers with modalities hidden, calibrations. (Past 1,000
labels the targets of `multi_label` are stored sparse.) Then it makes the report of
`test` in this process and prints the seconds by the clock and of the processors, the
most memory that the process ever held, mapped files included, and the size of
`report.json`. RUN is made once, 11 GB at the default sizes.
"""

import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tfmm import calibration, experiment, outputs, report, results
from tfmm.calibration import Calibration
from tfmm.errors import command_line
from tfmm.experiment import Experiment
from tfmm.run import Run, write_json

FEATURES = 32
BATCH = 2_000
LABELS_OF_A_PRODUCT = 3
MODALITIES = {"title": 5.0, "description": 3.0, "image": 2.5}  # what each knows
HEADS = {"product": "product", "mean": "mean", "stack": "logistic_stack"}
ABSENT = 0.05


def settings_for(task: str) -> Experiment:
    """Three towers and heads that hear them all."""
    towers = list(MODALITIES)
    data = {
        "catalog": {"task": task},
        "modalities": {
            x: {"kind": "image" if x == "image" else "text", "columns": [x]}
            for x in towers
        },
        "towers": {
            x: {
                "model": "compact_cnn" if x == "image" else "text_cnn",
                "modality": x,
                **({"image_size": 32} if x == "image" else {}),
            }
            for x in towers
        },
        "heads": {x: {"model": model, "towers": towers} for x, model in HEADS.items()},
    }
    return experiment.check(data, "bench")


class Answers(Mapping[str, Mapping[str, np.ndarray]]):
    """What a model would say of products, by what is hidden from it; made when asked.

    Args:
        truth: int `(n, k)`, labels of each product.
        has: Modality -> bool `(n,)`, of those that the model reads.
        num_labels: `C`.
        hidden: Sets of modalities, by what answers without them are called.
        seed: Of what is noise in them.
    """

    def __init__(
        self,
        truth: np.ndarray,
        has: Mapping[str, np.ndarray],
        num_labels: int,
        hidden: Mapping[str, frozenset[str]],
        seed: int,
    ):
        self.truth, self.has, self.num_labels = truth, has, num_labels
        self.hidden, self.seed = hidden, seed

    def present(self, hidden: frozenset[str] = frozenset()) -> np.ndarray:
        return np.any([self.has[x] for x in self.has if x not in hidden], axis=0)

    def batches(
        self, hidden: frozenset[str] = frozenset()
    ) -> Iterator[dict[str, np.ndarray]]:
        """`features` and `logits` of the products that are present, in order."""
        generator = np.random.default_rng(self.seed)
        seen = [MODALITIES[x] * self.has[x] for x in self.has if x not in hidden]
        knows, present = np.sum(seen, axis=0), self.present(hidden)
        for start in range(0, len(self.truth), BATCH):
            rows = slice(start, start + BATCH)
            own = self.truth[rows]
            shape = (len(own), self.num_labels)
            logits = generator.standard_normal(shape, np.float32) - np.float32(5.0)
            logits[np.arange(len(own))[:, None], own] += knows[rows, None]
            logits = logits[present[rows]]
            yield {"features": np.ones((len(logits), FEATURES)), "logits": logits}

    def __getitem__(self, case: str) -> Mapping[str, np.ndarray]:
        present = self.present(self.hidden[case])
        logits = np.zeros((len(present), self.num_labels), np.float32)
        parts = [batch["logits"] for batch in self.batches(self.hidden[case])]
        logits[present] = np.concatenate(parts)
        return {"logits": logits, "present": present}

    def __iter__(self) -> Iterator[str]:
        return iter(self.hidden)

    def __len__(self) -> int:
        return len(self.hidden)


def make(folder: Path, task: str, products: int, num_labels: int) -> None:
    """Writes the run: `products` to test and to train, a tenth to validate."""
    settings, run = settings_for(task), Run(folder)
    run.write_start(settings, [], {"path": "", "sha256": "", "fingerprint": "made up"})
    run.catalog.mkdir()
    run.labels_file.write_text("".join(f"label {x:04}\n" for x in range(num_labels)))
    models = (*settings.towers, *settings.heads)
    for name in models:
        write_json(run.model_info_file(name), {"fingerprint": name, "weights": name})
    generator = np.random.default_rng(0)
    share = 1.0 / np.arange(10, num_labels + 10)
    sizes = {"train": products, "validation": products // 10, "test": products}
    for split, size in sizes.items():
        # The same label twice is one label less.
        count = 1 if task == "single_label" else LABELS_OF_A_PRODUCT
        truth = generator.choice(num_labels, (size, count), p=share / share.sum())
        targets = truth[:, 0].astype(np.int32)
        if task == "multi_label":
            targets = np.zeros((size, num_labels), np.float32)
            targets[np.arange(size)[:, None], truth] = 1.0
        outputs.write_targets(run.outputs, split, targets, "made up")
        # Some products are variants of one.
        groups = generator.integers(int(0.8 * size), size=size)
        outputs.write_groups(run.outputs, split, groups)
        if split == "train":
            continue
        has = {x: generator.random(size) >= ABSENT for x in MODALITIES}
        for seed, name in enumerate(models):
            mark = results.outputs_fingerprint(run, settings, name, "made up")
            hidden = {
                results.case_key(x): x for x in results.hidden_sets(settings, name)
            }
            heard = {x: has[x] for x in settings.towers_of(name)}
            said = Answers(truth, heard, num_labels, hidden, seed)
            place = run.outputs / name / split
            ids = np.arange(size).astype(str)
            outputs.write(place, mark, ids, said.present(), said.batches())
            if name in settings.heads:
                outputs.write_cases(run.cases(name, split), mark, said)
    for name in models:
        fitted = Calibration(
            results.calibration_fingerprint(run, settings, name),
            *((1.0,) * num_labels, (0.0,) * num_labels),
            ((0.5 if task == "multi_label" else 0.0),) * num_labels,
            1.0,
        )
        calibration.write(run.calibration_file(name), fitted)


def bench(
    run: Annotated[Path, typer.Argument(help="Made if it is not there.")],
    task: Annotated[str, typer.Option(help="single_label or multi_label.")] = (
        "single_label"
    ),
    products: Annotated[int, typer.Option(min=100)] = 100_000,
    labels: Annotated[int, typer.Option(min=10)] = 1_000,
    cores: Annotated[int, typer.Option(min=1, help="Processors to use.")] = 2,
) -> None:
    """Times the report of a made-up run."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if not run.exists():
        # In another process, whose memory is not the report's.
        making = multiprocessing.get_context("spawn").Process(
            target=make, args=(run, task, products, labels)
        )
        making.start()
        making.join()
        if making.exitcode:
            raise SystemExit(1)
    place = Run(run)
    settings = place.read_experiment()
    started, before = time.perf_counter(), time.process_time()
    page = report.write(place, settings, "test")
    taken, used = time.perf_counter() - started, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = page.with_name("report.json").stat().st_size
    print(f"{taken:.0f} s by the clock, {used:.0f} s of {cores} processors")
    print(f"peak {peak / 1e9:.2f} GB; report.json {size / 1e6:.2f} MB")


if __name__ == "__main__":
    command_line(bench, "python tools/bench/report.py")
