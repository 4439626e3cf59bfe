"""Every number of a report, from outputs on disk; docs/report.md lists them."""

from itertools import combinations
from typing import Any

import numpy as np

from tfmm import metrics, outputs, results
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.run import Run, read_json


def compute(run: Run, settings: Experiment, split: str) -> dict[str, Any]:
    """Computes `report.json` of one split.

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
    groups = outputs.read_groups(run.outputs, split)
    task = settings.catalog.task

    def has_outputs(name: str) -> bool:
        return (run.outputs / name / split).is_dir()

    names = [
        name
        for name in (*settings.towers, *settings.heads)
        if has_outputs(name) and all(map(has_outputs, settings.towers_of(name)))
    ]
    if not any(name in settings.towers for name in names):
        raise RunError(f"{run.path}: no outputs of {split!r}; run tfmm.fit --resume")
    right: dict[str, np.ndarray] = {}
    models: dict[str, dict[str, Any]] = {}
    present: dict[str, int] = {}
    for name in names:
        said, seen = results.read_probabilities(run, settings, name, split)
        calibration = results.read_calibration(run, settings, name)
        thresholds = np.float32(calibration.thresholds)
        right[name] = metrics.is_right(task, targets, said)
        present[name] = int(seen.sum())
        models[name] = {
            "kind": "tower" if name in settings.towers else "head",
            "model": settings.model_settings(name).model,
            "towers": settings.towers_of(name),
            "present": present[name],
            **metrics.measures(task, targets, said, thresholds, seen),
            "top1_interval": metrics.interval(right[name], groups, settings.seed),
            "temperature": calibration.temperature,
            "oracle_share": None,
        }
        if task == "multi_label":
            models[name]["threshold"] = float(thresholds[0])
        models[name] |= _training(run, name)
    for name in names:
        if models[name]["kind"] == "head":
            towers = models[name]["towers"]
            models[name] |= _against_towers(name, towers, right, groups, settings.seed)
    towers = [name for name in names if name in settings.towers]
    oracle = np.any([right[tower] for tower in towers], axis=0)
    return {
        "split": split,
        "task": task,
        "products": len(targets),
        "labels": len(run.read_labels()),
        "models": models,
        "oracle": {"top1": float(oracle.mean())},
        "groups": _groups(towers, [n for n in names if n not in towers], right),
    }


def _training(run: Run, name: str) -> dict[str, Any]:
    info = read_json(run.model_info_file(name))
    kept = ("parameters", "epochs", "best_epoch", "seconds", "epoch_seconds")
    return {key: info[key] for key in kept if key in info}


def _against_towers(
    name: str,
    towers: list[str],
    right: dict[str, np.ndarray],
    groups: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """A head's gain over its best tower, and its share of what was to be gained."""
    best = max(towers, key=lambda tower: right[tower].mean())
    gain = right[name].astype(float) - right[best].astype(float)
    oracle = np.any([right[tower] for tower in towers], axis=0)
    room = float(oracle.mean() - right[best].mean())
    return {
        "best_tower": best,
        "gain": float(gain.mean()),
        "gain_interval": metrics.interval(gain, groups, seed),
        "oracle_share": float(gain.mean()) / room if room > 0 else None,
    }


def _groups(
    towers: list[str], heads: list[str], right: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The four right/wrong groups of every pair of towers.

    Returns:
        `"a|b"` -> `both`, `only_a`, `only_b`, `none` -> the number of `products`,
        their `share`, and `right`: of them, the share that each head gets right.
    """
    result = {}
    for first, second in combinations(towers, 2):
        a, b = right[first], right[second]
        members = {
            "both": a & b,
            f"only_{first}": a & ~b,
            f"only_{second}": ~a & b,
            "none": ~a & ~b,
        }
        result[f"{first}|{second}"] = {
            group: {
                "products": int(inside.sum()),
                "share": float(inside.mean()),
                "right": {
                    head: float(right[head][inside].mean())
                    for head in heads
                    if inside.any()
                },
            }
            for group, inside in members.items()
        }
    return result
