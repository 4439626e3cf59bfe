"""Which split a product belongs to, and which fold of the training products."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from tfmm.errors import CatalogError, did_you_mean
from tfmm.settings import SPLITS, Catalog, Splits
from tfmm.tables import Table


def splits(
    table: Table, options: Catalog, groups: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Each product's split, and the groups that the split column itself spreads.

    A product without a split of its own goes where its group is, if that is one
    split, and else where the group's hash says.
    """
    named = [""] * len(groups)
    if options.split in table or "split" in options.model_fields_set:
        named = [cell.strip() for cell in table.text_column(options.split)]
    homes: dict[str, set[str]] = {}
    for row, (group, name) in enumerate(zip(groups, named, strict=True)):
        if name and name not in SPLITS:
            raise CatalogError(
                f"{table.where(row)}: {options.split!r} names an unknown split. "
                f"Received: {name!r}{did_you_mean(name, SPLITS)}"
            )
        if name and options.rotation:
            raise CatalogError(
                f"{table.where(row)}: {options.split!r} says {name!r}, which no "
                f"rotation turns; expected an empty column, or rotation = 0. Received: "
                f"rotation = {options.rotation:g}"
            )
        if name:
            homes.setdefault(str(group), set()).add(name)

    def home(group: str) -> str:
        names = homes.get(group, set())
        if len(names) == 1:
            return next(iter(names))
        return split_of(group, options.splits, options.rotation)

    split = [name or home(str(g)) for g, name in zip(groups, named, strict=True)]
    spread = tuple(sorted(group for group, names in homes.items() if len(names) > 1))
    return np.array(split, dtype="<U10"), spread


def split_of(group: str, shares: Splits, rotation: float = 0.0) -> str:
    """The split of a group, from nothing but its name, the shares and the rotation.

    The name's hash is a number in [0, 1); the shares cut that range in the order
    train, fusion, validation, test. So rows that come or go move nobody, and
    neither does the seed. `rotation` in [0, 1) turns the range as a wheel.

    Example:
    >>> split_of("MALM", Splits()) == split_of("MALM", Splits())
    True
    """
    position = (_position(group) + rotation) % 1.0
    edge = 0.0
    for name in SPLITS:
        edge += getattr(shares, name)
        if position < edge:
            return name
    return next(name for name in reversed(SPLITS) if getattr(shares, name))


def thinned(
    label_indices: Sequence[np.ndarray], groups: np.ndarray, rate: float
) -> np.ndarray:
    """Which products to keep of a share of them, label by label, groups whole.

    A group counts for the rarest of its labels. Of each label's groups those are kept
    whose names' hashes are the lowest, until they hold `rate` of its products; at
    least one. So a smaller share is a part of a larger one.

    Args:
        label_indices: Each product's labels, as indices.
        groups: `(n,)` names.
        rate: Share in (0, 1].

    Returns:
        bool `(n,)`.

    Example:
    >>> labels = [np.array([0])] * 4 + [np.array([1])]
    >>> thinned(labels, np.array(list("abcde")), 0.5).tolist()
    [False, False, True, True, True]
    """
    counts = np.bincount(np.concatenate([np.zeros(0, int), *label_indices]))
    rarest: dict[str, tuple[int, int]] = {}
    sizes: Counter[str] = Counter()
    for group, labels in zip(groups.astype(str), label_indices, strict=True):
        sizes[group] += 1
        own = [(int(counts[label]), int(label)) for label in labels]
        rarest[group] = min([*own, *([rarest[group]] if group in rarest else [])])
    strata: dict[int, list[str]] = {}
    for group in sorted(rarest, key=lambda x: _position(f"data of {x}")):
        strata.setdefault(rarest[group][1], []).append(group)
    kept = set()
    for members in strata.values():
        wanted = rate * sum(sizes[group] for group in members)
        held = 0
        for group in members:
            # Rounding must not keep one more than the share says.
            if held and held >= wanted - 1e-9:
                break
            kept.add(group)
            held += sizes[group]
    return np.array([group in kept for group in groups.astype(str)], bool)


def fold_of(group: str, folds: int) -> int:
    """The fold of a training group, from its name alone; in [0, folds)."""
    return int(_position(f"fold of {group}") * folds)


def folds_of(groups: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each product, int `(n,)`, from its group `(n,)`."""
    return np.array([fold_of(str(group), folds) for group in groups], int)


def _position(name: str) -> float:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
