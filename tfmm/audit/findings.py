"""What a finding is, and what all of them need to know of a catalog."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from tfmm.catalog import Catalog

LEVELS = ("fix", "look", "note")  # the worst first
FIX_RATE = 0.01  # a fault that this share of products has is to be put right
NUM_EXAMPLES = 8
SHOWN_LETTERS = 80
LEARNED = ("train", "fusion", "validation")


@dataclass(frozen=True)
class Row:
    """One product, or one label, that a finding concerns.

    Attributes:
        id: The product's id, or the label.
        others: The products or labels that it is found with.
        detail: What was found, in a few words.
    """

    id: str
    others: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that was found in a catalog.

    Attributes:
        name: Of the kind of finding, such as `image_twins`.
        modality: The modality, `""` if it is none's.
        level: `fix`, `look` or `note`.
        title: What was found, to be read after `3 of 40 products:`.
        count: Of how many products, or labels.
        of: Out of how many.
        unit: Of what.
        advice: Why it matters and what to do about it.
        rows: All that it concerns, those to be shown first in front.
    """

    name: str
    modality: str
    level: str
    title: str
    count: int
    of: int
    unit: str
    advice: str
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        """As in `audit.json`, with a few examples."""
        return {
            "name": self.name,
            "modality": self.modality,
            "level": self.level,
            "title": self.title,
            "count": self.count,
            "of": self.of,
            "unit": self.unit,
            "advice": self.advice,
            "examples": [
                {"id": row.id, "with": list(row.others), "detail": row.detail}
                for row in self.rows[:NUM_EXAMPLES]
            ],
        }


def fix_if_many(count: int, of: int) -> str:
    """`fix` from `FIX_RATE` on, else `look`."""
    return "fix" if count >= FIX_RATE * of else "look"


def rate(count: int, of: int) -> float:
    """A share; 0 of nothing is 0."""
    return count / of if of else 0.0


def percent(count: int, of: int) -> str:
    """A share for a reader.

    Example:
    >>> percent(1, 3), percent(1, 9_000), percent(9_000, 9_000)
    ('33.3 %', 'under 0.1 %', '100 %')
    """
    share = 100 * count / of if of else 0.0
    if 0 < share < 0.1:
        return "under 0.1 %"
    return f"{share:.1f} %" if count < of else "100 %"


def labels_of(catalog: Catalog, row: int) -> str:
    """The labels of a product, for a reader."""
    names = [catalog.label_names[x] for x in catalog.label_indices[row]]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def about(catalog: Catalog, row: int) -> str:
    """The split and the labels of a product, for a reader."""
    return f"{catalog.split[row] or 'left out'}: {labels_of(catalog, row) or 'none'}"


def rows_of(catalog: Catalog, rows: Iterable[int], detail=about) -> list[Row]:
    """A `Row` for each product; `detail(catalog, row)` says what was found."""
    return [Row(str(catalog.ids[x]), (), detail(catalog, x)) for x in rows]


def label_matrix(catalog: Catalog) -> sparse.csr_array:
    """0 and 1 `(n, C)`: which product has which label."""
    counts = [len(x) for x in catalog.label_indices]
    columns = np.concatenate([np.zeros(0, int), *catalog.label_indices])
    rows = np.repeat(np.arange(len(catalog)), counts)
    ones = np.ones(len(rows), np.int32)
    shape = (len(catalog), len(catalog.label_names))
    return sparse.csr_array((ones, (rows, columns)), shape=shape)


def label_keys(catalog: Catalog) -> np.ndarray:
    """int `(n,)`: equal for products with exactly the same labels."""
    keys = {x.tobytes(): i for i, x in enumerate(catalog.label_indices)}
    number = {key: position for position, key in enumerate(keys)}
    return np.array([number[x.tobytes()] for x in catalog.label_indices], int)
