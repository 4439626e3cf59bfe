"""Which products of several runs can be compared, matched by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from tfmm.report.runs.side import Labels, Side, among
from tfmm.settings import SPLITS


@dataclass(frozen=True)
class Match:
    """The `m` products on which several runs are compared, in the order of their ids.

    Attributes:
        labels: The labels that all runs have; answers are compared among them.
        rows: Of each run, int `(m,)`: the products' rows in its split.
        groups: int `(m,)`, from 0 without gaps: products that any of the runs has in
            one group.
        due: int `(m,)`, how many of the labels each product has.
        left_out: Why products of the split of all runs are not compared -> how many:
            `learned_from`, of another file, which one of the runs has in `train`,
            `fusion` or `validation`; `relabelled`, whose labels are not the same in
            all runs; `without_label`, that have none of the labels.
    """

    labels: Labels
    rows: tuple[np.ndarray, ...]
    groups: np.ndarray
    due: np.ndarray
    left_out: dict[str, int]

    def __len__(self) -> int:
        return len(self.groups)


def match(sides: Sequence[Side]) -> Match:
    """Finds the products that all runs have in the split, and may be compared on."""
    labels = shared_labels(sides)
    ids = reduce(np.intersect1d, (side.ids for side in sides))
    rows = [_places(side.ids, ids) for side in sides]
    known = np.concatenate(
        [
            side.elsewhere[split]
            for side in sides
            for split in SPLITS
            if split != "test" and split in side.elsewhere
        ]
        or [ids[:0]]
    )
    facts = [_facts(side, own, labels) for side, own in zip(sides, rows, strict=True)]
    learned_from = np.isin(ids, known)
    relabelled = np.zeros(len(ids), bool)
    for other in facts[1:]:
        odd = np.setxor1d(facts[0], other, assume_unique=True)
        relabelled[odd // max(len(labels), 1)] = True
    due = np.bincount(facts[0] // max(len(labels), 1), minlength=len(ids))
    without = due == 0
    fit = ~(learned_from | relabelled | without)
    return Match(
        labels=labels,
        rows=tuple(own[fit] for own in rows),
        groups=_joined(
            [side.groups[own[fit]] for side, own in zip(sides, rows, strict=True)]
        ),
        due=due[fit],
        left_out={
            "learned_from": int(learned_from.sum()),
            "relabelled": int((relabelled & ~learned_from).sum()),
            "without_label": int((without & ~relabelled & ~learned_from).sum()),
        },
    )


def shared_labels(sides: Sequence[Side]) -> Labels:
    """The labels that all runs have."""
    return reduce(frozenset.__and__, (frozenset(side.label_names) for side in sides))


def _places(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where each of `wanted` is among `ids`."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _facts(side: Side, rows: np.ndarray, labels: Labels) -> np.ndarray:
    """What the products `rows` have of `labels`, as numbers that are the same in every
    run: `place * number of labels + place of the label`, rising."""
    chosen = np.array([x in labels for x in side.label_names], bool)
    part = among(side.truth, chosen)
    names = [x for x in side.label_names if x in labels]
    number = np.argsort(np.argsort(names))
    place = np.full(part.products, -1)
    place[rows] = np.arange(len(rows))
    own = place[part.rows]
    here = own >= 0
    return np.sort(own[here] * len(names) + number[part.labels[here]])


def _joined(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Groups that hold together what any of `groups` holds together.

    They are numbered in the order of the products, so that the same products are drawn
    in the same way whatever the runs call their groups.
    """
    first, *others = groups
    if not len(first):
        return first
    starts = np.cumsum([0, *(x.max() + 1 for x in groups)])
    heads = np.concatenate([first for _ in others])
    tails = np.concatenate(
        [x + start for x, start in zip(others, starts[1:-1], strict=True)]
    )
    edges = scipy.sparse.coo_matrix(
        (np.ones(len(heads), bool), (heads, tails)), shape=(starts[-1], starts[-1])
    )
    component = connected_components(edges, directed=False)[1][first]
    _, places, numbers = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(places))[numbers]
