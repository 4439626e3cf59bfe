"""Numbers of each label: what is found, what is missed most, what an image adds."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import binomtest, false_discovery_control, norm

from tfmm.report.answers import Answer, Truth, rounded

NUM_WORST = 15
# Of towers in pairs, which makes six; more would make a report large.
PAIRED_TOWERS = 4


def per_label(truth: Truth, answer: Answer) -> dict[str, list]:
    """`found`, `given`, `precision`, `recall`, `f1` of every label."""
    right, given, due = truth.per_label(answer.found), answer.label_given, truth.support
    return {
        "found": right.tolist(),
        "given": given.tolist(),
        "precision": rounded(_shares(right, given)),
        "recall": rounded(_shares(right, due)),
        "f1": rounded(_shares(2 * right, given + due)),
    }


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """`parts / wholes`, NaN where there is no whole."""
    empty = np.full(len(parts), np.nan)
    return np.divide(parts, wholes, where=wholes > 0, out=empty)


def worst(missed: np.ndarray, support: np.ndarray) -> dict[str, list[int]]:
    """The labels that are missed most, by share (C) and by count (B, table 4.2).

    Args:
        missed: int `(C,)`, products of a label that are not given it.
        support: int `(C,)`, products of a label.
    """
    low, _ = wilson(missed, support)
    by_share = np.lexsort((np.arange(len(low)), -support, -low))
    by_count = np.lexsort((np.arange(len(low)), support, -missed))
    return {
        "by_share": [int(x) for x in by_share if missed[x]][:NUM_WORST],
        "by_count": [int(x) for x in by_count if missed[x]][:NUM_WORST],
    }


def wilson(successes: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges of 95 % Wilson intervals of shares; 0 and 1 of no trial.

    `trials` may be what others are worth together, and no whole number.
    """
    z = norm.ppf(0.975)
    n = np.maximum(trials, 1e-9)
    share = successes / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def towers_found(
    truth: Truth, towers: Sequence[str], answers: Mapping[str, Answer]
) -> dict[str, list[int]]:
    """`none`, `one`, `several`, `all` -> of each label, products for which so many
    towers found it.
    """
    count = np.sum([answers[tower].found for tower in towers], axis=0)
    every = count == len(towers)
    members = {
        "none": count == 0,
        "one": (count == 1) & ~every,
        "several": (count > 1) & ~every,
        "all": every,
    }
    return {key: truth.per_label(x).tolist() for key, x in members.items()}


def groups_per_label(
    truth: Truth, towers: Sequence[str], answers: Mapping[str, Answer]
) -> dict[str, dict[str, list[int]]]:
    """Of pairs of the first towers: who found a label, label by label."""
    result = {}
    for first, second in combinations(towers[:PAIRED_TOWERS], 2):
        a, b = answers[first].found, answers[second].found
        members = {
            "both": a & b,
            f"only_{first}": a & ~b,
            f"only_{second}": ~a & b,
            "none": ~a & ~b,
        }
        result[f"{first}|{second}"] = {
            key: truth.per_label(x).tolist() for key, x in members.items()
        }
    return result


def image_gain(
    truth: Truth, seen: Answer, hidden: Answer, groups: np.ndarray
) -> dict[str, Any]:
    """What images add to each label, by one model's answers with and without them.

    A fact counts where it is found with images and not without, or the other way
    round. Facts of one group are one piece of evidence, so the sign test takes a
    group's sum of them as one gain or one loss.

    Args:
        truth: What products have.
        seen: The answers with images.
        hidden: The same model's without.
        groups: int `(n,)`, from 0 without gaps.

    Returns:
        The arrays that docs/report.md lists under `image_gain`, and `all`.
    """
    gained, lost = seen.found & ~hidden.found, hidden.found & ~seen.found
    support = truth.support
    counts = truth.per_label(gained), truth.per_label(lost)
    recall = _shares(counts[0] - counts[1], support)
    f1 = [
        _shares(2 * truth.per_label(x.found), x.label_given + support)
        for x in (seen, hidden)
    ]
    change = gained.astype(int) - lost
    size = int(groups.max()) + 1
    rows = np.flatnonzero(change)
    p = _sign_tests(truth.labels[rows], groups[truth.rows[rows]], change[rows], size)
    tests = np.array([p.get(label, np.nan) for label in range(truth.num_labels)])
    adjusted = tests.copy()
    told = ~np.isnan(tests)
    if told.any():
        adjusted[told] = false_discovery_control(tests[told])
    order = np.lexsort((np.arange(len(recall)), -support, -np.nan_to_num(recall)))
    of_all = _sign_tests(
        np.zeros(len(rows), int), groups[truth.rows[rows]], change[rows], size
    )
    return {
        "gained": counts[0].tolist(),
        "lost": counts[1].tolist(),
        "recall": rounded(recall),
        "f1": rounded(f1[0] - f1[1]),
        "p": rounded(tests),
        "p_adjusted": rounded(adjusted),
        "order": [int(x) for x in order if support[x]],
        "all": {
            "gained": int(gained.sum()),
            "lost": int(lost.sum()),
            "recall": float(change.sum() / len(change)),
            "p": of_all.get(0),
        },
    }


def _sign_tests(
    kinds: np.ndarray, groups: np.ndarray, change: np.ndarray, num_groups: int
) -> dict[int, float]:
    """Kind -> p of the two-sided sign test of its groups' summed changes.

    A kind without a group whose sum is not zero is absent.
    """
    pairs, place = np.unique(kinds * num_groups + groups, return_inverse=True)
    sums = np.bincount(place, weights=change)
    pairs, sums = pairs[sums != 0], sums[sums != 0]
    kinds = pairs // num_groups
    up, total = np.bincount(kinds[sums > 0]), np.bincount(kinds)
    up = np.pad(up, (0, len(total) - len(up)))
    return {
        int(kind): float(binomtest(int(up[kind]), int(total[kind])).pvalue)
        for kind in np.flatnonzero(total)
    }
