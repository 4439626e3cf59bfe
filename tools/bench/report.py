"""How long a report takes, and how much memory, with many products and labels.

    python tools/bench/report.py RUN
    python tools/bench/report.py RUN --task multi_label --labels 1001

Makes up a run of three towers and three heads that holds products and what models say
of them: outputs, answers with modalities hidden, calibrations; no model, no image. Of
the products 3 % are misfiled. (Past 1,000 labels the targets of `multi_label` are
stored sparse.) Then it makes the report of `test` in this process and prints the
seconds by the clock and of the processors, the most memory that the process ever held,
mapped files included, and the size of `report.json`. RUN is made once, 11 GB at the
default sizes.
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

from tfmm import calibration, experiment, outputs, products, report, results
from tfmm.calibration import Calibration
from tfmm.catalog import Catalog
from tfmm.errors import command_line
from tfmm.experiment import Experiment
from tfmm.hiding import case_key, hidden_sets
from tfmm.run import Run, write_json

FEATURES = 32
BATCH = 2_000
LABELS_OF_A_PRODUCT = 3
MODALITIES = {"title": 5.0, "description": 3.0, "image": 2.5}  # what each knows
HEADS = {"product": "product", "mean": "mean", "stack": "logistic_stack"}
ABSENT, MISFILED = 0.05, 0.03
TEXT = "two panels of a soft and washable fabric, lined, with a hem that is sewn twice"


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


def make(folder: Path, task: str, num_products: int, num_labels: int) -> None:
    """Writes the run: `num_products` to test and to train, a tenth to validate."""
    settings, run = settings_for(task), Run(folder)
    generator = np.random.default_rng(0)
    sizes = {
        "train": num_products,
        "validation": num_products // 10,
        "test": num_products,
    }
    catalog = make_catalog(task, sizes, num_labels, generator)
    made_of = catalog.fingerprint()
    about = {"path": "", "sha256": "", "fingerprint": made_of}
    run.write_start(settings, [], about)
    run.catalog.mkdir()
    run.labels_file.write_text("".join(f"{x}\n" for x in catalog.label_names))
    products.write(run, catalog)
    models = (*settings.towers, *settings.heads)
    for name in models:
        write_json(run.model_info_file(name), {"fingerprint": name, "weights": name})
    for split in sizes:
        rows = catalog.rows(split)
        outputs.write_targets(run.outputs, split, catalog.targets(rows), made_of)
        outputs.write_groups(run.outputs, split, catalog.groups[rows])
        if split == "train":
            continue
        truth = np.stack([catalog.label_indices[row] for row in rows])
        misfiled = generator.random(len(rows)) < MISFILED
        truth[misfiled, 0] = generator.integers(num_labels, size=misfiled.sum())
        has = {x: catalog.present(x, rows) for x in MODALITIES}
        for seed, name in enumerate(models):
            mark = results.outputs_fingerprint(run, settings, name, made_of)
            hidden = {case_key(x): x for x in hidden_sets(settings, name)}
            heard = {x: has[x] for x in settings.towers_of(name)}
            said = Answers(truth, heard, num_labels, hidden, seed)
            place = run.outputs / name / split
            outputs.write(
                place, mark, catalog.ids[rows], said.present(), said.batches()
            )
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


def make_catalog(
    task: str,
    sizes: Mapping[str, int],
    num_labels: int,
    generator: np.random.Generator,
) -> Catalog:
    """Products of each split; some lack a modality, some are variants of one."""
    share = 1.0 / np.arange(10, num_labels + 10)
    count = 1 if task == "single_label" else LABELS_OF_A_PRODUCT
    split = np.repeat(list(sizes), list(sizes.values()))
    ids = np.array([f"P{number:07}" for number in range(len(split))])
    # The same label twice is one label less.
    labels = generator.choice(num_labels, (len(ids), count), p=share / share.sum())
    has = {x: generator.random(len(ids)) >= ABSENT for x in MODALITIES}
    values = {
        x: np.array(
            [
                "" if not known else f"/nowhere/{name}.jpg" if x == "image" else TEXT
                for name, known in zip(ids, own, strict=True)
            ],
            object,
        )
        for x, own in has.items()
    }
    groups = [
        f"{name}-{generator.integers(int(0.8 * size))}"
        for name, size in sizes.items()
        for _ in range(size)
    ]
    return Catalog(
        path=Path("made up"),
        sha256="",
        task=task,
        ids=ids,
        texts={x: own for x, own in values.items() if x != "image"},
        images={"image": values["image"]},
        label_names=tuple(f"label {x:04}" for x in range(num_labels)),
        label_indices=tuple(labels.astype(np.int32)),
        groups=np.array(groups),
        split=split,
        left_out={},
    )


def bench(
    run: Annotated[Path, typer.Argument(help="Made if it is not there.")],
    task: Annotated[str, typer.Option(help="single_label or multi_label.")] = (
        "single_label"
    ),
    num_products: Annotated[int, typer.Option("--products", min=100)] = 100_000,
    labels: Annotated[int, typer.Option(min=10)] = 1_000,
    cores: Annotated[int, typer.Option(min=1, help="Processors to use.")] = 2,
) -> None:
    """Times the report of a made-up run."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if not run.exists():
        # In another process, whose memory is not the report's.
        making = multiprocessing.get_context("spawn").Process(
            target=make, args=(run, task, num_products, labels)
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
