"""What shallow models reach on the same products as tfmm: the bar to clear.

    python tools/bench/shallow.py hparams/fashion.toml --catalog catalog.csv

reads the catalog, its labels and its splits as `tfmm.fit` does and trains

- one text tower: all text modalities joined, TF-IDF of words (1 and 2) and of
  characters within words (2 to 5), logistic regression;
- one image tower: histograms of oriented gradients and colour histograms of all
  image modalities, PCA, support vector machines with an RBF kernel;
- `max`, `mean` and `product` of their temperature-calibrated probabilities;
- `stack`: a logistic regression on the towers' out-of-fold probabilities and on
  which modalities are present.

Everything is fitted on the splits `train` and `fusion`, tuned on `validation`
(temperatures, the stack's strength, the one threshold of a multi-label model)
and reported on `test`. A product without a modality gets the label shares in
place of that tower's probabilities. The networks see less: their towers never
learn from `fusion`.

Needs scikit-image: `pip install -e '.[bench]'`. The models are in
`shallow_models.py`, with the letters and terms of both files.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from shallow_models import (
    NUM_FOLDS,
    RULES,
    Fit,
    Products,
    fit_image,
    fit_stack,
    fit_text,
    out_of_fold,
    prior_logits,
    read_pictures,
    read_texts,
    stack_inputs,
)

from tfmm import bootstrap, calibration, experiment, metrics
from tfmm.catalog import Catalog
from tfmm.catalog import load as load_catalog
from tfmm.errors import TfmmError, command_line
from tfmm.experiment import Experiment
from tfmm.options import CatalogFile, Changes, Hparams, ImagesFolder
from tfmm.progress import say
from tfmm.run import write_json
from tfmm.settings import CalibrationSettings


def fit_tower(
    name: str,
    fit: Fit,
    products: Products,
    catalog: Catalog,
    parts: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, np.ndarray]:
    """Trains a tower and asks it about the products of all parts.

    Args:
        name: For messages.
        fit: The way to train.
        products: What the tower reads.
        catalog: Where the targets and the groups are; a group stays in one fold.
        parts: Part -> rows of the catalog.
        seed: Of the folds.

    Returns:
        Part -> calibrated probabilities `(n, C)`. Those of `fit` are out-of-fold;
        products without the modality get the label shares.

    Raises:
        TfmmError: If too few products have the modality.
    """
    started = time.monotonic()
    task, num_labels = catalog.task, len(catalog.label_names)
    has = {part: rows[products.present[rows]] for part, rows in parts.items()}
    groups = catalog.groups[has["fit"]]
    num_groups = len(set(groups))
    if num_groups < NUM_FOLDS or not len(has["validation"]):
        raise TfmmError(
            f"{catalog.path}: expected at least {NUM_FOLDS} groups of products with "
            f"{name} to train on and one to validate. Received: {num_groups} and "
            f"{len(has['validation'])}"
        )
    seen, targets = products.inputs[has["fit"]], catalog.targets(has["fit"])
    predict = fit(seen, targets)
    logits = {
        part: predict(products.inputs[rows])
        for part, rows in has.items()
        if part != "fit" and len(rows)
    }
    logits["fit"] = out_of_fold(fit, seen, targets, groups, seed)
    temperature = calibration.fit(
        task,
        catalog.targets(has["validation"]),
        logits["validation"],
        fingerprint="",
        settings=CalibrationSettings(method="temperature"),
    ).temperature
    prior = prior_logits(task, catalog.targets(parts["fit"]), num_labels)
    probabilities = {}
    for part, rows in parts.items():
        whole = np.tile(prior, (len(rows), 1))
        if part in logits:
            whole[products.present[rows]] = logits[part] / temperature
        probabilities[part] = metrics.probabilities(task, whole)
    say(f"{name}: trained in {time.monotonic() - started:.0f} s")
    return probabilities


def measure(catalog: Catalog, settings: Experiment) -> dict[str, Any]:
    """Trains everything and measures it on `test`.

    Returns:
        What `numbers` returns.

    Raises:
        TfmmError: If a split is empty, or too few products have a modality.
    """
    task, num_labels = catalog.task, len(catalog.label_names)
    parts = {
        "fit": np.concatenate([catalog.rows("train"), catalog.rows("fusion")]),
        "validation": catalog.rows("validation"),
        "test": catalog.rows("test"),
    }
    for part, rows in parts.items():
        if not len(rows):
            raise TfmmError(f"{catalog.path}: no products to use for {part!r}")
    targets = {part: catalog.targets(rows) for part, rows in parts.items()}

    read = {}
    if catalog.images:
        read["image"] = read_pictures(catalog), fit_image(task, num_labels)
    if catalog.texts:
        read["text"] = read_texts(catalog), fit_text(task, num_labels)
    said = {
        name: fit_tower(name, fit, products, catalog, parts, settings.seed)
        for name, (products, fit) in read.items()
    }
    towers = list(said)
    if len(towers) > 1:
        joined = {part: np.stack([said[t][part] for t in towers]) for part in parts}
        for name, rule in RULES.items():
            said[name] = {part: rule(task, joined[part]) for part in parts}
        inputs = {
            part: stack_inputs(
                joined[part], np.stack([read[t][0].present[rows] for t in towers])
            )
            for part, rows in parts.items()
        }
        said["stack"] = fit_stack(task, num_labels, inputs, targets)
    groups = np.unique(catalog.groups[parts["test"]].astype(str), return_inverse=True)[
        1
    ]
    return numbers(task, towers, said, targets, groups, settings.seed)


def numbers(
    task: str,
    towers: Sequence[str],
    said: Mapping[str, Mapping[str, np.ndarray]],
    targets: Mapping[str, np.ndarray],
    groups: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """The report of what models said.

    Args:
        task: The task.
        towers: The names of the models that are towers.
        said: Model -> part -> probabilities `(n, C)`, for `validation` and `test`.
        targets: Part -> targets.
        groups: int `(n,)`, the groups of the test products, which are drawn whole.
        seed: Of the bootstrap.

    Returns:
        A report like tfmm's own `report.json`, with `top1_half_width` of each model
        and with `stack_minus_best_tower`.
    """
    truth = targets["test"]
    models, right = {}, {}
    for name, probabilities in said.items():
        model = {
            "kind": "tower" if name in towers else "head",
            "towers": [name] if name in towers else list(towers),
        }
        thresholds = None
        if task == "multi_label":
            threshold = calibration.best_threshold(
                targets["validation"], probabilities["validation"]
            )
            thresholds = np.full(truth.shape[1], threshold)
            model["threshold"] = threshold
        model |= metrics.measures(task, truth, probabilities["test"], thresholds)
        right[name] = metrics.is_right(task, truth, probabilities["test"])
        low, high = bootstrap.interval(right[name], groups, seed)
        models[name] = model | {"top1_half_width": (high - low) / 2}

    best = max(towers, key=lambda name: models[name]["top1"])
    oracle = float(np.any([right[name] for name in towers], axis=0).mean())
    to_gain = oracle - models[best]["top1"]
    for name, model in models.items():
        model["oracle_share"] = None
        if name not in towers and to_gain > 0:
            model["oracle_share"] = (model["top1"] - models[best]["top1"]) / to_gain
    result = {
        "split": "test",
        "task": task,
        "products": len(truth),
        "labels": said[best]["test"].shape[1],
        "models": models,
        "oracle": {"top1": oracle},
        "best_tower": best,
    }
    if "stack" in models:
        gain = right["stack"].astype(float) - right[best]
        low, high = bootstrap.interval(gain, groups, seed)
        difference = {"top1": float(gain.mean()), "low": low, "high": high}
        result["stack_minus_best_tower"] = difference
    return result


def format_table(report: Mapping[str, Any]) -> str:
    """The report as a plain table."""
    columns = ("top1", "macro_f1", "micro_f1", "oracle_share")
    lines = [
        f"{report['products']} test products, {report['labels']} labels, "
        f"{report['task']}; ± and [ ] are 95 % intervals over products",
        "",
        f"{'model':<10}{'top1':>8}{'':>8}" + "".join(f"{c:>14}" for c in columns[1:]),
    ]
    for name, model in report["models"].items():
        line = f"{name:<10}{model['top1']:>8.3f} ± {model['top1_half_width']:.3f}"
        for column in columns[1:]:
            value = model[column]
            line += f"{'' if value is None else format(value, '.3f'):>14}"
        lines.append(line.rstrip())
    lines.append(f"{'oracle':<10}{report['oracle']['top1']:>8.3f}")
    if "stack_minus_best_tower" in report:
        gain = report["stack_minus_best_tower"]
        lines += [
            "",
            f"stack - {report['best_tower']}: top1 {gain['top1']:+.3f} "
            f"[{gain['low']:+.3f}, {gain['high']:+.3f}]",
        ]
    return "\n".join(lines)


def shallow(
    hparams: Hparams,
    catalog: CatalogFile,
    images: ImagesFolder = None,
    set_: Changes = None,
    to: Annotated[
        Path | None, typer.Option(help="File for the numbers (JSON).")
    ] = None,
) -> None:
    """Trains shallow models on an experiment's catalog and prints what they reach."""
    started = time.monotonic()
    settings = experiment.load(hparams, set_ or [])
    if not catalog.is_file():
        raise TfmmError(f"{catalog}: no such catalog file")
    if to is not None and not to.parent.is_dir():
        raise TfmmError(
            f"--to: expected a file in a folder that exists. Received: {to}"
        )
    report = measure(load_catalog(catalog, settings, images), settings)
    report["seconds"] = round(time.monotonic() - started, 1)
    if to is not None:
        write_json(to, report)
    print(format_table(report))


if __name__ == "__main__":
    command_line(shallow, "python tools/bench/shallow.py")
