"""What a page is made of, as text; the templates named after them lay it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol


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
        words: Whether it is set as words, to the left.
    """

    text: str = ""
    note: str = ""
    best: bool = False
    order: float | None = None
    bar: float | None = None
    words: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted.

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
    template: ClassVar[str] = "table.html.jinja"


@dataclass(frozen=True)
class Picture:
    """A picture that `tfmm.page.drawing` drew.

    Attributes:
        svg: Its markup, which is not escaped again.
        about: What it shows, for those who hear the page.
        title: What stands above it.
        width: In pixels, as it was drawn.
    """

    svg: str
    about: str
    title: str = ""
    width: float = 0
    template: ClassVar[str] = "picture.html.jinja"


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side as far as there is room."""

    pictures: Sequence[Picture]
    template: ClassVar[str] = "pictures.html.jinja"


@dataclass(frozen=True)
class Words:
    """A paragraph; `heading` makes it a heading."""

    text: str
    heading: bool = False
    template: ClassVar[str] = "words.html.jinja"


@dataclass(frozen=True)
class Links:
    """Links to files that lie beside the page: name -> what is there."""

    files: Mapping[str, str]
    template: ClassVar[str] = "links.html.jinja"


@dataclass(frozen=True)
class Fold:
    """Blocks that one opens; `title` stays to be seen."""

    title: str
    blocks: Sequence["Block"]
    open: bool = False
    template: ClassVar[str] = "fold.html.jinja"


@dataclass(frozen=True)
class Tile:
    """A figure that is said first.

    Attributes:
        figure: Large.
        about: What it is of, below.
        note: Small: its interval, or what it is measured on.
        level: `good`, `look` or `""`: how it is to be taken.
        to: Where a link leads.
    """

    figure: str
    about: str
    note: str = ""
    level: str = ""
    to: str = ""


class Block(Protocol):
    """Anything that names the template that lays it out, as `block`."""

    template: ClassVar[str]


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading and a place among the contents.

    Attributes:
        key: Its `id` on the page.
        title: The heading.
        about: One sentence: what it tells, and what to do about it.
        blocks: What it shows, in order. A report has blocks of its own, too.
    """

    key: str
    title: str
    about: str
    blocks: Sequence["Block"] = field(default_factory=list)
