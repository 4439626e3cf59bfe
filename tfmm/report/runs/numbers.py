"""Every number of a comparison of runs; docs/report.md lists them."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tfmm import bootstrap
from tfmm.errors import ExperimentError, RunError
from tfmm.experiment import Experiment
from tfmm.report import comparison
from tfmm.report.runs.differing import differing
from tfmm.report.runs.matching import Match, match, shared_labels
from tfmm.report.runs.side import Labels, Side, read
from tfmm.run import Run

# Fewer labels leave nothing to choose between.
FEWEST_LABELS = 2


def compute(runs: Mapping[str, tuple[Run, Experiment]], split: str) -> dict[str, Any]:
    """Computes `comparison.json` of a split from the stored outputs of runs.

    Args:
        runs: What to call each run -> where it is, and its experiment; two or more.
        split: A split, or the name that all runs have for another labelled catalog.

    Raises:
        ExperimentError: If the runs have different tasks.
        RunError: If no two runs have two labels in common, or outputs are missing,
            damaged or stale.
    """
    _check_tasks(runs)
    label_sets = {name: frozenset(run.read_labels()) for name, (run, _) in runs.items()}
    _check_labels(runs, label_sets)
    common = frozenset.intersection(*label_sets.values())
    sides = []
    for name, (run, settings) in runs.items():
        own = label_sets[name]
        sets = {common, *(own & other for other in label_sets.values())}
        wanted = [x for x in sets if len(x) >= FEWEST_LABELS]
        sides.append(read(name, run, settings, split, wanted))
    seed = sides[0].settings.seed
    draws = Drawn(seed)
    found: dict[str, Any] = {
        "split": split,
        "task": sides[0].settings.catalog.task,
        "ranked_by": sides[0].numbers["ranked_by"],
        "runs": {
            side.name: {k: v for k, v in side.numbers.items() if k != "ranked_by"}
            for side in sides
        },
        "settings": differing({name: settings for name, (_, settings) in runs.items()}),
        "versions": _versions(sides),
        "pairs": [_pair(a, b, draws) for a, b in combinations(sides, 2)],
    }
    if len(set(label_sets.values())) > 1:
        found["label_names"] = _label_names(label_sets)
    curve = _learning_curve(sides, draws)
    if curve is not None:
        found["learning_curve"] = curve
    return found


class Drawn:
    """Bootstrap draws, made once for products that are grouped alike."""

    def __init__(self, seed: int):
        self._seed = seed
        self._last: tuple[np.ndarray, bootstrap.Draws] | None = None

    def of(self, groups: np.ndarray) -> bootstrap.Draws:
        if self._last is None or not np.array_equal(self._last[0], groups):
            self._last = groups, bootstrap.Draws(groups, self._seed)
        return self._last[1]


def _check_tasks(runs: Mapping[str, tuple[Run, Experiment]]) -> None:
    (first, settings), *others = runs.values()
    for run, other in others:
        if other.catalog.task != settings.catalog.task:
            raise ExperimentError(
                f"{run.path}: expected the task of {first.path}, "
                f"{settings.catalog.task!r}. Received: {other.catalog.task!r}"
            )


def _check_labels(
    runs: Mapping[str, tuple[Run, Experiment]], label_sets: Mapping[str, Labels]
) -> None:
    most = max(len(a & b) for a, b in combinations(label_sets.values(), 2))
    if most < FEWEST_LABELS:
        paths = ", ".join(str(run.path) for run, _ in runs.values())
        raise RunError(
            f"{paths}: expected runs with at least {FEWEST_LABELS} labels in common, "
            f"by name. Received: {most}"
        )


def _versions(sides: Sequence[Side]) -> dict[str, dict[str, str]]:
    """What the runs were not all made with in the same version."""
    infos = {side.name: side.run.read_info() for side in sides}
    found = {
        name: {"tfmm": info["tfmm"], "python": info["python"], **info["versions"]}
        for name, info in infos.items()
    }
    keys = dict.fromkeys(key for versions in found.values() for key in versions)
    table = {
        key: {
            name: versions[key] for name, versions in found.items() if key in versions
        }
        for key in keys
    }
    # A library that an older run did not note is no difference that is known.
    return {key: values for key, values in table.items() if len({*values.values()}) > 1}


def _label_names(label_sets: Mapping[str, Labels]) -> dict[str, Any]:
    common = frozenset.intersection(*label_sets.values())
    return {
        "shared": len(common),
        "others": {name: sorted(own - common) for name, own in label_sets.items()},
    }


def _pair(first: Side, second: Side, drawn: Drawn) -> dict[str, Any]:
    """One run against another, on the products that both may be compared on."""
    labels = shared_labels((first, second))
    found: dict[str, Any] = {
        "runs": [first.name, second.name],
        "same_table": first.numbers["table"] == second.numbers["table"],
        "same_catalog": first.numbers["catalog"] == second.numbers["catalog"],
        "labels": len(labels),
        "elsewhere": {
            first.name: _elsewhere(first, second),
            second.name: _elsewhere(second, first),
        },
    }
    if len(labels) < FEWEST_LABELS:
        return found
    matched = match((first, second))
    found |= {"products": len(matched), "left_out": matched.left_out}
    if not len(matched):
        return found
    draws = drawn.of(matched.groups)
    found["groups"] = draws.num_groups
    said = [side.said[matched.labels] for side in (first, second)]
    same = [name for name in said[0] if name in said[1]]
    best = tuple(side.numbers["best"] for side in (first, second))
    wanted = dict.fromkeys([best, *((name, name) for name in same)])
    told = {pair: _told_apart(pair, (first, second), matched, draws) for pair in wanted}
    found["best"] = told[best]
    found["models"] = {name: told[name, name] for name in same}
    return found


def _elsewhere(side: Side, other: Side) -> dict[str, int]:
    """Where another run has the products of a run that it has not in this split."""
    rest = np.setdiff1d(side.ids, other.ids)
    found = {
        split: int(np.isin(rest, ids).sum()) for split, ids in other.elsewhere.items()
    }
    return {**found, "nowhere": len(rest) - sum(found.values())}


def _told_apart(
    models: tuple[str, str],
    sides: tuple[Side, Side],
    matched: Match,
    draws: bootstrap.Draws,
) -> dict[str, Any]:
    """A model of the first run minus one of the second, with intervals."""
    figures = _figures(models, sides, matched, draws)
    right = [
        side.said[matched.labels][model].right[rows]
        for side, model, rows in zip(sides, models, matched.rows, strict=True)
    ]
    found: dict[str, Any] = {"models": list(models)}
    for figure, (a, b) in figures.items():
        found[figure] = float(a[0] - b[0])
        found[f"{figure}_interval"] = bootstrap.edges(a - b)
        found[f"{figure}_of"] = [float(a[0]), float(b[0])]
    found["only"] = [
        int((right[0] & ~right[1]).sum()),
        int((right[1] & ~right[0]).sum()),
    ]
    return found


def _figures(
    models: Sequence[str],
    sides: Sequence[Side],
    matched: Match,
    draws: bootstrap.Draws,
) -> dict[str, list[np.ndarray]]:
    """`top1`, of several labels also `micro_f1` -> of each model `(1 + draws,)`."""
    kept = [
        (side.said[matched.labels][model], rows)
        for side, model, rows in zip(sides, models, matched.rows, strict=True)
    ]
    right = {str(place): x.right[rows] for place, (x, rows) in enumerate(kept)}
    found = {"top1": list(comparison.top1_draws(right, draws).values())}
    if sides[0].settings.catalog.task == "multi_label":
        counts = {
            str(place): (x.found[rows], x.given[rows])
            for place, (x, rows) in enumerate(kept)
        }
        micro_f1 = comparison.micro_f1_draws(matched.due, counts, draws)
        found["micro_f1"] = list(micro_f1.values())
    return found


def _learning_curve(sides: Sequence[Side], drawn: Drawn) -> dict[str, Any] | None:
    """Figures over the number of training products, for models of the same name.

    None if all runs were trained on as many products, or have none in common here.
    """
    trained = {side.name: side.numbers["split_products"]["train"] for side in sides}
    if len({*trained.values()}) < 2 or len(shared_labels(sides)) < FEWEST_LABELS:
        return None
    sides = sorted(sides, key=lambda side: trained[side.name])
    matched = match(sides)
    if not len(matched):
        return None
    draws = drawn.of(matched.groups)
    said = [side.said[matched.labels] for side in sides]
    models: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(x for own in said for x in own):
        places = [place for place, own in enumerate(said) if name in own]
        own = [sides[place] for place in places]
        train = [trained[side.name] for side in own]
        if len({*train}) < 2:
            continue
        rows = tuple(matched.rows[place] for place in places)
        part = Match(matched.labels, rows, matched.groups, matched.due, {})
        figures = _figures([name] * len(own), own, part, draws)
        models[name] = {"runs": [side.name for side in own], "train": train}
        for figure, values in figures.items():
            gain = values[-1] - values[0]
            models[name] |= {
                figure: [float(x[0]) for x in values],
                f"{figure}_interval": [bootstrap.edges(x) for x in values],
                f"gain_{figure}": float(gain[0]),
                f"gain_{figure}_interval": bootstrap.edges(gain),
            }
    return {
        "products": len(matched),
        "groups": draws.num_groups,
        "labels": len(matched.labels),
        "models": models,
    }
