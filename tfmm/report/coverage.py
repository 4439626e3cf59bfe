"""What could be filed automatically, what suggested, and what a person must see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmm import bootstrap, metrics
from tfmm.blocks import over_rows
from tfmm.calibration import UNSEEN_WRONG
from tfmm.report.answers import Answer, Truth, rounded
from tfmm.report.labels import wilson

WANTED = (0.90, 0.95, 0.98, 0.99)  # precisions of what is filed
WANTED_OF_SUGGESTIONS = 0.90  # share that hold one of the product's labels
SUGGESTIONS = 5
SHARES = tuple(np.round(np.arange(0.05, 1.01, 0.05), 2).tolist())
THRESHOLD_DRAWS = 200
DRAWS_AT_ONCE = 20  # which bounds the memory
NOTHING = -1.0  # the certainty of a product that is given no label


@dataclass(frozen=True)
class Sureness:
    """How sure a model is of each product, and whether it is right.

    Attributes:
        certainty: float `(n,)`; `NOTHING` where there is nothing to file.
        right: int `(n,)`, how many of the labels to file are right.
        filed: int `(n,)`, how many labels there are to file.
        due: int `(n,)`, how many labels the product has.
        hope: float `(n,)`, the probability that one of the first `SUGGESTIONS` labels
            is the product's; of several labels, were they independent.
        best: int `(n,)`, the rank of the first label that is the product's.
        groups: int `(n,)`.
        suggestions: How many labels are suggested.
    """

    certainty: np.ndarray
    right: np.ndarray
    filed: np.ndarray
    due: np.ndarray
    hope: np.ndarray
    best: np.ndarray
    groups: np.ndarray
    suggestions: int


def sureness(
    truth: Truth,
    answer: Answer,
    ranks: np.ndarray,
    probabilities: np.ndarray,
    assigned: np.ndarray,
    groups: np.ndarray,
) -> Sureness:
    """How sure an answer is.

    Args:
        truth: What products have.
        answer: What `look` makes of the next but one two.
        ranks: What `metrics.ranks` says of the facts.
        probabilities: float `(n, C)`.
        assigned: bool `(n, C)`.
        groups: int `(n,)`, from 0 without gaps.
    """
    single = truth.task == "single_label"
    suggestions = min(SUGGESTIONS, truth.num_labels - 1)

    def of(rows: slice) -> np.ndarray:
        own = probabilities[rows]
        place = own.shape[1] - suggestions
        first = np.partition(own, place, axis=1)[:, place:].astype(np.float64)
        if single:
            return np.stack([first.sum(axis=1), own.max(axis=1)])
        given = assigned[rows]
        count = np.count_nonzero(given, axis=1)
        mean = np.where(given, own, 0.0).sum(axis=1) / np.maximum(count, 1)
        certainty = np.where(count, mean, NOTHING)
        return np.stack([1.0 - np.prod(1.0 - first, axis=1), certainty])

    hope, certainty = np.concatenate(over_rows(of, probabilities.shape), axis=1)
    right = truth.per_product(answer.found).astype(int)
    ones = np.ones(truth.products, int)
    return Sureness(
        certainty=certainty,
        right=answer.right.astype(int) if single else right,
        filed=ones if single else answer.given,
        due=truth.due,
        hope=hope,
        best=metrics.best_ranks(truth.rows, ranks, truth.products),
        groups=groups,
        suggestions=suggestions,
    )


def coverage(
    task: str, tested: Sureness, held_out: Sureness | None, seed: int
) -> dict[str, Any]:
    """The part of a report that docs/report.md calls `coverage`.

    Args:
        task: `single_label` or `multi_label`.
        tested: Of the products that are reported.
        held_out: Of `validation`, on which thresholds are fitted; None if unknown.
        seed: Of the draws.
    """
    found: dict[str, Any] = {"curve": curve(task, tested)}
    if held_out is not None and len(held_out.certainty):
        intervals = threshold_intervals(held_out, seed)
        found["wanted"] = [
            {"precision": wanted, **_plan(wanted, tested, held_out, interval)}
            for wanted, interval in zip(WANTED, intervals, strict=True)
        ]
    return found


def curve(task: str, tested: Sureness) -> Mapping[str, list]:
    """Precision by the share of products that are filed, the surest first."""
    order, right, filed, cuts = _surest_first(
        tested.certainty, tested.right, tested.filed
    )
    wanted = np.ceil(np.array(SHARES) * len(order) - 1e-9).astype(int) - 1
    # Those of equal certainty go together; there is nothing to file past the last.
    if len(cuts):
        places = np.searchsorted(cuts, wanted)
        cuts = cuts[np.unique(np.minimum(places, len(cuts) - 1))]
    found = {
        "filed": rounded((cuts + 1) / len(order)),
        "precision": rounded(right[cuts] / filed[cuts]),
        "certainty": rounded(tested.certainty[order][cuts], 6),
    }
    if task == "multi_label":
        due = np.cumsum(tested.due[order])
        found["recall"] = rounded(right[cuts] / due[cuts])
    return found


def _surest_first(
    certainty: np.ndarray, right: np.ndarray, filed: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The order, right and filed labels so far, and after which products a cut can be.

    A cut never parts products of equal certainty, nor takes one without labels.
    """
    order = np.argsort(-certainty, kind="stable")
    sorted_ = certainty[order]
    possible = np.append(sorted_[:-1] != sorted_[1:], True) & (sorted_ > NOTHING)
    cuts = np.flatnonzero(possible)
    return order, np.cumsum(right[order]), np.cumsum(filed[order]), cuts


def lowest_threshold(
    certainty: np.ndarray, right: np.ndarray, filed: np.ndarray, wanted: float
) -> float | None:
    """The lowest certainty from which at least `wanted` of what is filed is right.

    As of `tfmm.calibration.precision_threshold`: as many labels more as `UNSEEN_WRONG`
    are taken for wrong, and the threshold lies halfway to the next certainty below.

    Example:
    >>> certainty, ones = np.array([0.9, 0.8, 0.6, 0.4, 0.2]), np.ones(5, int)
    >>> lowest_threshold(certainty, np.array([1, 1, 1, 0, 1]), ones, 0.75)
    0.5
    """
    order, so_far, filed_so_far, cuts = _surest_first(certainty, right, filed)
    good = cuts[so_far[cuts] >= wanted * (filed_so_far[cuts] + UNSEEN_WRONG)]
    if not len(good):
        return None
    return _halfway(certainty[order], int(good[-1]))


def _halfway(falling: np.ndarray, cut: int) -> float:
    below = falling[cut + 1] if cut + 1 < len(falling) else 0.0
    middle = (falling[cut] + max(below, 0.0)) / 2
    return float(middle if middle > below else falling[cut])


def threshold_intervals(
    held_out: Sureness, seed: int
) -> list[tuple[float | None, float | None]]:
    """Of each of `WANTED`, the 95 % interval of `lowest_threshold` over draws."""
    draws = bootstrap.Draws(held_out.groups, seed, THRESHOLD_DRAWS)
    order, _, _, cuts = _surest_first(
        held_out.certainty, held_out.right, held_out.filed
    )
    falling = held_out.certainty[order]
    # Never: over all that a threshold can be.
    found = np.full((len(WANTED), THRESHOLD_DRAWS), np.inf)
    for start in range(0, THRESHOLD_DRAWS, DRAWS_AT_ONCE):
        counts = draws.counts[start : start + DRAWS_AT_ONCE]
        times = counts[:, held_out.groups[order]].astype(np.float64)
        right = np.cumsum(times * held_out.right[order], axis=1)[:, cuts]
        filed = np.cumsum(times * held_out.filed[order], axis=1)[:, cuts]
        for place, wanted in enumerate(WANTED):
            good = right >= wanted * (filed + UNSEEN_WRONG)
            last = good.shape[1] - 1 - np.argmax(good[:, ::-1], axis=1)
            for draw in np.flatnonzero(good.any(axis=1)):
                cut = int(cuts[last[draw]])
                found[place, start + draw] = _halfway(falling, cut)
    edges = np.quantile(found, (0.025, 0.975), axis=1, method="inverted_cdf")
    return [
        tuple(None if np.isinf(x) else round(float(x), 6) for x in pair)
        for pair in edges.T
    ]


def _plan(
    wanted: float,
    tested: Sureness,
    held_out: Sureness,
    interval: tuple[float | None, float | None],
) -> dict[str, Any]:
    threshold = lowest_threshold(
        held_out.certainty, held_out.right, held_out.filed, wanted
    )
    filed = _at_least(tested.certainty, threshold)
    found: dict[str, Any] = {
        "threshold": threshold,
        "threshold_interval": list(interval),
        "filed": float(filed.mean()),
    }
    if filed.any():
        right, labels = tested.right[filed].sum(), tested.filed[filed].sum()
        found["reached"] = float(right / labels)
        found["reached_interval"] = _interval(tested, filed)
    rest = ~_at_least(held_out.certainty, threshold)
    holds = (held_out.best < held_out.suggestions)[rest].astype(int)
    hope = lowest_threshold(
        held_out.hope[rest], holds, np.ones(len(holds), int), WANTED_OF_SUGGESTIONS
    )
    suggested = ~filed & _at_least(tested.hope, hope)
    found["suggestions"] = tested.suggestions
    found["suggested"] = float(suggested.mean())
    if suggested.any():
        best = tested.best[suggested]
        numbers = [k for k in (1, 3, SUGGESTIONS) if k <= tested.suggestions]
        found["contains"] = {str(k): float((best < k).mean()) for k in numbers}
    found["person"] = float((~filed & ~suggested).mean())
    return found


def _at_least(values: np.ndarray, threshold: float | None) -> np.ndarray:
    return np.zeros(len(values), bool) if threshold is None else values >= threshold


def _interval(tested: Sureness, filed: np.ndarray) -> list[float]:
    """The Wilson interval of the filed labels' precision.

    Labels of one group count together, `(sum m)^2 / sum m^2` for groups of `m` labels:
    Kish's effective number. Without groups, and with one label each, that is how many
    there are. A bootstrap would call the precision certain where none is wrong.
    """
    sizes = np.bincount(tested.groups[filed], weights=tested.filed[filed])
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    share = tested.right[filed].sum() / sizes.sum()
    low, high = wilson(np.array([share * effective]), np.array([effective]))
    return [float(low[0]), float(high[0])]
