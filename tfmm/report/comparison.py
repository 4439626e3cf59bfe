"""Models of one split against each other; arrays in, numbers out."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tfmm import metrics

# So many heads at the top are compared with each other.
TOP_HEADS = 5


def truth_of(task: str, targets: np.ndarray, num_labels: int) -> np.ndarray:
    """bool `(n, C)`: the labels that the products have."""
    if task == "single_label":
        return metrics.one_hot(targets, num_labels)
    return targets > 0


def f1(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`2 * right / total`: `right` of labels given, `total` those given plus due."""
    return 2.0 * right / np.maximum(total, 1)


def figures(
    task: str, targets: np.ndarray, probabilities: np.ndarray, given: np.ndarray
) -> dict[str, float]:
    """`top1`, `micro_f1` and `macro_f1` of decisions that were made already.

    Args:
        task: `single_label` or `multi_label`.
        targets: int `(n,)` or float `(n, C)`.
        probabilities: float `(n, C)`.
        given: bool `(n, C)`, the labels that are assigned.
    """
    truth = truth_of(task, targets, given.shape[1])
    right = (truth & given).sum(axis=0)
    total = truth.sum(axis=0) + given.sum(axis=0)
    occurring = truth.any(axis=0)
    return {
        "top1": float(metrics.is_right(task, targets, probabilities).mean()),
        "micro_f1": float(f1(right.sum(), total.sum())),
        "macro_f1": float(f1(right, total)[occurring].mean()),
    }


def rank(validation: Mapping[str, Mapping[str, float]], by: str) -> list[str]:
    """Names, the best figure `by` first; of equal ones that with the lower `loss`."""
    return sorted(
        validation, key=lambda name: (-validation[name][by], validation[name]["loss"])
    )


def micro_f1_draws(
    due: np.ndarray,
    counts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    groups: np.ndarray,
    seed: int,
) -> dict[str, np.ndarray]:
    """Micro-F1 of each model, first of all products, then of each bootstrap draw.

    Micro-F1 is no mean over products. Here whole groups are drawn with their counts,
    and each draw has a micro-F1 of its own. All models see the same draws, those of
    `metrics.interval`, so the differences of two models are paired.

    Args:
        due: int `(n,)`, how many labels each product has.
        counts: Model -> int `(n,)` how many of the labels that it gives are right,
            and int `(n,)` how many it gives.
        groups: int `(n,)`, from 0 without gaps.
        seed: Of the draws.

    Returns:
        Model -> float `(1 + draws,)`.
    """
    columns = [due, *(column for pair in counts.values() for column in pair)]
    table = np.stack([np.bincount(groups, weights=x) for x in columns], axis=1)
    generator = np.random.default_rng(seed)
    sums = [table.sum(axis=0)]
    for _ in range(metrics.BOOTSTRAP_DRAWS):
        drawn = generator.integers(len(table), size=len(table))
        sums.append(np.bincount(drawn, minlength=len(table)) @ table)
    all_due, *rest = np.array(sums).T
    return {
        name: f1(rest[2 * place], all_due + rest[2 * place + 1])
        for place, name in enumerate(counts)
    }


def edges(draws: np.ndarray) -> list[float]:
    """The 95 % interval of `(1 + draws,)` values, of which the first is no draw."""
    return [float(edge) for edge in np.percentile(draws[1:], (2.5, 97.5))]


def against_towers(
    name: str,
    towers: Sequence[str],
    right: Mapping[str, np.ndarray],
    groups: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """A head's gain over its best tower, its share of what was to be gained, and
    which products it gained and lost.

    Args:
        name: The head.
        towers: The towers that it hears.
        right: Model -> bool `(n,)`: whether its first choice is right.
        groups: int `(n,)`, from 0 without gaps.
        seed: Of the bootstrap's draws.
    """
    best = max(towers, key=lambda tower: right[tower].mean())
    gain = right[name].astype(float) - right[best].astype(float)
    oracle = np.any([right[tower] for tower in towers], axis=0)
    room = float(oracle.mean() - right[best].mean())
    return {
        "best_tower": best,
        "gain": float(gain.mean()),
        "gain_interval": metrics.interval(gain, groups, seed),
        "oracle_share": float(gain.mean()) / room if room > 0 else None,
        "rescued": _count(right[name] & ~right[best]),
        "broken_by_fusion": _count(~right[name] & right[best]),
    }


def against_towers_micro_f1(
    name: str, towers: Sequence[str], draws: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """A head's gain in micro-F1 over that of its towers with the best micro-F1.

    `draws` are those of `micro_f1_draws`.
    """
    best = max(towers, key=lambda tower: draws[tower][0])
    gain = draws[name] - draws[best]
    return {
        "best_tower_micro_f1": best,
        "gain_micro_f1": float(gain[0]),
        "gain_micro_f1_interval": edges(gain),
    }


def pairs(
    heads: Sequence[str],
    right: Mapping[str, np.ndarray],
    draws: Mapping[str, np.ndarray] | None,
    groups: np.ndarray,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """The first heads against each other.

    Args:
        heads: From the best on; `TOP_HEADS` of them are compared.
        right: Model -> bool `(n,)`: whether its first choice is right.
        draws: Those of `micro_f1_draws`; None to compare first choices alone.
        groups: int `(n,)`, from 0 without gaps.
        seed: Of the bootstrap's draws.

    Returns:
        `"a|b"` -> `top1`: a's minus b's, and `top1_interval`; with draws also
        `micro_f1` and `micro_f1_interval`.
    """
    result: dict[str, dict[str, Any]] = {}
    for first, second in combinations(heads[:TOP_HEADS], 2):
        difference = right[first].astype(float) - right[second].astype(float)
        found = {
            "top1": float(difference.mean()),
            "top1_interval": metrics.interval(difference, groups, seed),
        }
        if draws is not None:
            values = draws[first] - draws[second]
            found["micro_f1"] = float(values[0])
            found["micro_f1_interval"] = edges(values)
        result[f"{first}|{second}"] = found
    return result


def tower_pairs(
    towers: Sequence[str], heads: Sequence[str], right: Mapping[str, np.ndarray]
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
        result[f"{first}|{second}"] = _of_heads(members, heads, right)
    return result


def towers_right(
    towers: Sequence[str], heads: Sequence[str], right: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The products by how many of all towers are right.

    Returns:
        `none`, `one`, `several` (more than one, not all), `all` -> as in
        `tower_pairs`.
    """
    count = np.sum([right[tower] for tower in towers], axis=0)
    every = count == len(towers)
    members = {
        "none": count == 0,
        "one": (count == 1) & ~every,
        "several": (count > 1) & ~every,
        "all": every,
    }
    return _of_heads(members, heads, right)


def _of_heads(
    members: Mapping[str, np.ndarray],
    heads: Sequence[str],
    right: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    return {
        group: {
            **_count(inside),
            "right": {
                head: float(right[head][inside].mean())
                for head in heads
                if inside.any()
            },
        }
        for group, inside in members.items()
    }


def _count(inside: np.ndarray) -> dict[str, Any]:
    return {"products": int(inside.sum()), "share": float(inside.mean())}
