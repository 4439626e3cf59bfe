"""Models of one split against each other; arrays in, numbers out."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tfmm import bootstrap

# So many heads at the top are compared with each other.
TOP_HEADS = 5


def f1(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """`2 * right / total`: `right` of labels given, `total` those given plus due."""
    return 2.0 * right / np.maximum(total, 1)


def rank(validation: Mapping[str, Mapping[str, float]], by: str) -> list[str]:
    """Names, the best figure `by` first; of equal ones that with the lower `loss`."""
    return sorted(
        validation, key=lambda name: (-validation[name][by], validation[name]["loss"])
    )


def best_heads(
    models: Mapping[str, Mapping[str, Any]], ranking: Sequence[str]
) -> list[str]:
    """The heads of a ranking that are not fitted on `validation`, nor hear one that is.

    What a head was fitted on does not tell how good it is.
    """
    return [
        name
        for name in ranking
        if models[name]["kind"] == "head"
        and not models[name].get("ranked_on_own_products")
    ]


def top1_draws(
    right: Mapping[str, np.ndarray], draws: bootstrap.Draws
) -> dict[str, np.ndarray]:
    """Top-1 of each model, first of all products, then of each bootstrap draw.

    Args:
        right: Model -> bool `(n,)`: whether its first choice is right.
        draws: The same for all models, so differences of two models are paired.

    Returns:
        Model -> float `(1 + draws,)`.
    """
    sums = draws.sums(np.stack(list(right.values()), axis=1))
    return dict(zip(right, (sums / draws.sizes[:, None]).T, strict=True))


def micro_f1_draws(
    due: np.ndarray,
    counts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    draws: bootstrap.Draws,
) -> dict[str, np.ndarray]:
    """Micro-F1 of each model, first of all products, then of each bootstrap draw.

    Micro-F1 is no mean over products: groups are drawn with their counts, and each
    draw has a micro-F1 of its own.

    Args:
        due: int `(n,)`, how many labels each product has.
        counts: Model -> int `(n,)` how many of the labels that it gives are right,
            and int `(n,)` how many it gives.
        draws: As in `top1_draws`.

    Returns:
        Model -> float `(1 + draws,)`.
    """
    columns = [due, *(column for pair in counts.values() for column in pair)]
    all_due, *rest = draws.sums(np.stack(columns, axis=1)).T
    return {
        name: f1(rest[2 * place], all_due + rest[2 * place + 1])
        for place, name in enumerate(counts)
    }


def against_towers(
    name: str,
    towers: Sequence[str],
    right: Mapping[str, np.ndarray],
    draws: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """A head's gain over its best tower, its share of what was to be gained, and
    which products it gained and lost.

    Args:
        name: The head.
        towers: The towers that it hears.
        right: Model -> bool `(n,)`: whether its first choice is right.
        draws: Those of `top1_draws`.
    """
    best = max(towers, key=lambda tower: right[tower].mean())
    gain = float(right[name].mean() - right[best].mean())
    oracle = np.any([right[tower] for tower in towers], axis=0)
    room = float(oracle.mean() - right[best].mean())
    return {
        "best_tower": best,
        "gain": gain,
        "gain_interval": bootstrap.edges(draws[name] - draws[best]),
        "oracle_share": gain / room if room > 0 else None,
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
        "gain_micro_f1_interval": bootstrap.edges(gain),
    }


def pairs(
    heads: Sequence[str],
    top1: Mapping[str, np.ndarray],
    micro_f1: Mapping[str, np.ndarray] | None,
) -> dict[str, dict[str, Any]]:
    """The first heads against each other.

    Args:
        heads: From the best on; `TOP_HEADS` of them are compared.
        top1: Those of `top1_draws`.
        micro_f1: Those of `micro_f1_draws`; None to compare first choices alone.

    Returns:
        `"a|b"` -> `top1`: a's minus b's, and `top1_interval`; with the others also
        `micro_f1` and `micro_f1_interval`.
    """
    figures = {"top1": top1, **({} if micro_f1 is None else {"micro_f1": micro_f1})}
    result: dict[str, dict[str, Any]] = {}
    for first, second in combinations(heads[:TOP_HEADS], 2):
        found = result[f"{first}|{second}"] = {}
        for figure, draws in figures.items():
            difference = draws[first] - draws[second]
            found[figure] = float(difference[0])
            found[f"{figure}_interval"] = bootstrap.edges(difference)
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
