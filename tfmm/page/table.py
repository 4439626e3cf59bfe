"""A table of a page, as text; the page only lays it out."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it says.
        note: What stands small below it.
        best: Whether it is the best of its column.
        order: What its column is sorted by; by default the number that `text` begins
            with, else `text`. Cells without any text come last.
        bar: A share in [0, 1], drawn behind the text.
        to: Where a link leads, a place on the page (`#label-3`).
        words: Whether it is set as words, to the left.
    """

    text: str = ""
    note: str = ""
    best: bool = False
    order: float | None = None
    bar: float | None = None
    to: str = ""
    words: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a page.

    Attributes:
        title: What it is of, for those who hear the page; shown where it stands in a
            fold of its own.
        columns: Headings.
        rows: Cells, as many as columns.
        marked: Number of the row of the best head, if it is in the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    marked: int | None = None
