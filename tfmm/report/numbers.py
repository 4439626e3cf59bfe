"""Every number of a report; docs/report.md lists them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmm import metrics, outputs
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.report import comparison
from tfmm.report.said import Said, Stored
from tfmm.run import Run


def compute(run: Run, settings: Experiment, split: str) -> dict[str, Any]:
    """Computes `report.json` of one split from stored outputs.

    Models are those of the experiment whose outputs are there, and their towers'.

    Returns:
        The content of `report.json`; measures that a task or a model does not have
        are absent.

    Raises:
        RunError: If no model has outputs, the split is empty, or outputs are damaged
            or stale.
    """
    targets, _ = outputs.read_targets(run.outputs, split)
    if not len(targets):
        raise RunError(f"{run.path}: the split {split!r} holds no products")

    def has_outputs(name: str) -> bool:
        return (run.outputs / name / split).is_dir()

    names = [
        name
        for name in (*settings.towers, *settings.heads)
        if has_outputs(name) and all(map(has_outputs, settings.towers_of(name)))
    ]
    if not any(name in settings.towers for name in names):
        raise RunError(f"{run.path}: no outputs of {split!r}; run tfmm.fit --resume")
    return measure(
        split,
        settings.catalog.task,
        targets,
        outputs.read_groups(run.outputs, split),
        settings.seed,
        Stored(run, settings, split, names),
    )


def measure(
    split: str,
    task: str,
    targets: np.ndarray,
    groups: np.ndarray,
    seed: int,
    models: Mapping[str, Said],
) -> dict[str, Any]:
    """Computes the content of `report.json` from what models say.

    Reads no file, so products of several runs can be measured together.

    Args:
        split: What to call these products.
        task: `single_label` or `multi_label`.
        targets: int `(n,)` or float `(n, C)`; at least one product.
        groups: int `(n,)`, from 0 without gaps: products that are drawn together.
        seed: Of the bootstrap's draws.
        models: Name -> what it says of the products, in the order to report them;
            with every head the towers that it hears. Each is asked for once.
    """
    found: dict[str, dict[str, Any]] = {}
    right: dict[str, np.ndarray] = {}
    counts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, said in models.items():
        num_labels = said.probabilities.shape[1]
        truth = comparison.truth_of(task, targets, num_labels)
        right[name] = metrics.is_right(task, targets, said.probabilities)
        counts[name] = ((truth & said.assigned).sum(axis=1), said.assigned.sum(axis=1))
        found[name] = {
            **_own(task, targets, truth, said),
            "top1_interval": metrics.interval(right[name], groups, seed),
        }
    towers = [name for name in found if found[name]["kind"] == "tower"]
    heads = [name for name in found if found[name]["kind"] == "head"]
    draws = None
    if task == "multi_label":
        draws = comparison.micro_f1_draws(truth.sum(axis=1), counts, groups, seed)
    for name, model in found.items():
        if draws is not None:
            model["micro_f1_interval"] = comparison.edges(draws[name])
        model["oracle_share"] = None
        if name in heads:
            beneath = model["towers"]
            model |= comparison.against_towers(name, beneath, right, groups, seed)
            if draws is not None:
                model |= comparison.against_towers_micro_f1(name, beneath, draws)
    by = "top1" if task == "single_label" else "micro_f1"
    known = {name: x["validation"] for name, x in found.items() if "validation" in x}
    ranking = comparison.rank(known, by)
    # What a head was fitted on does not tell how good it is.
    honest = [x for x in heads if not found[x].get("ranked_on_own_products")]
    best = [name for name in ranking if name in honest]
    oracle = np.any([right[tower] for tower in towers], axis=0)
    return {
        "split": split,
        "task": task,
        "products": len(targets),
        "labels": num_labels,
        "models": found,
        "ranked_by": by,
        "ranking": ranking,
        **({"best_head": best[0]} if best else {}),
        "pairs": comparison.pairs(best, right, draws, groups, seed),
        "oracle": {"top1": float(oracle.mean())},
        "towers_right": comparison.towers_right(towers, heads, right),
        "groups": comparison.tower_pairs(towers, heads, right),
    }


def _own(
    task: str, targets: np.ndarray, truth: np.ndarray, said: Said
) -> dict[str, Any]:
    """A model's figures that need no other model."""
    # Decisions that were made already, as thresholds that make them again.
    thresholds = np.where(said.assigned, np.float32(0.0), np.float32(np.inf))
    gives = said.assigned.any(axis=1)
    found: dict[str, Any] = {
        "kind": said.kind,
        "model": said.model,
        "towers": list(said.towers),
        "present": int(said.present.sum()),
        **metrics.measures(task, targets, said.probabilities, thresholds, gives),
    }
    if said.uncalibrated is not None:
        error = metrics.calibration_error(task, truth, said.uncalibrated)
        found["ece_uncalibrated"] = error
    if said.validation is not None:
        found["validation"] = dict(said.validation)
    if said.kind == "head":
        found["ranked_on_own_products"] = said.ranked_on_own_products
    if said.fit_on:
        found["fit_on"] = list(said.fit_on)
    if said.cases:
        cases = {"all": (said.probabilities, said.assigned), **said.cases}
        found["missing"] = {
            case: comparison.figures(task, targets, *decided)
            for case, decided in cases.items()
        }
    if said.image_curve is not None:
        found["image_curve"] = [dict(point) for point in said.image_curve]
    return {**found, **said.about}
