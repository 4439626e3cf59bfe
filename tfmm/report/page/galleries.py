"""Products to look at: pictures, texts, what models say of them and why."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tfmm.page import Fold, Section, Words
from tfmm.report.tables import best_model, count, in_order, percent, points
from tfmm.thumbnail import thumbnail

CELLS_A_FRAME = 6  # of a coarse map fewer than the ten strongest cells are framed
DARKEST = 205  # of 255: how dark what a model did not look at becomes
ABOUT = (
    "Beside each model its first labels with their probability in %; right ones have a "
    "tick. Over pictures: dark is what a tower does not go by, the strongest cells are "
    "framed. Bars: what a tower does for the head's answer, in points of "
    "probability or, of boosted trees, in their raw score."
)
KINDS = {"attention": "looks at", "grad_cam": "goes by"}


@dataclass(frozen=True)
class Map:
    """Where a tower looks, to lie over a picture.

    Attributes:
        about: What it is.
        picture: The product's, a data URI.
        shade: A data URI: black where the tower does not look, clear where it does.
        size: Columns, rows of the grid.
        strongest: `(column, row)` of the cells that count most.
    """

    about: str
    picture: str
    shade: str
    size: tuple[int, int]
    strongest: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Guess:
    """A label that a model says, its probability, and whether it is right."""

    label: str
    probability: str
    right: bool


@dataclass(frozen=True)
class Reason:
    """What a tower does for a head's answer, as a bar from the middle."""

    name: str
    value: str
    width: float
    against: bool


@dataclass(frozen=True)
class Card:
    """A product as a gallery shows it."""

    id: str
    labels: Sequence[str]
    texts: Sequence[str]
    pictures: Mapping[str, str]
    maps: Sequence[Map] = ()
    said: Mapping[str, Sequence[Guess]] = field(default_factory=dict)
    reasons: Sequence[tuple[str, str, Sequence[Reason]]] = ()


@dataclass(frozen=True)
class Cards:
    """Products side by side; `about` stands above them."""

    about: str
    cards: Sequence[Card]
    template: ClassVar[str] = "cards.html.jinja"


def section(numbers: Mapping[str, Any]) -> Section | None:
    """Every gallery, folded."""
    galleries, shown = numbers.get("galleries"), numbers.get("shown")
    if not galleries or not shown:
        return None
    known: dict[str, str] = {}
    blocks = []
    for gallery in galleries:
        rows = [str(x) for x in gallery["rows"] if str(x) in shown]
        cards = [card(numbers, shown[x], gallery, known) for x in rows]
        of = f"{len(cards)} of {count(gallery['products'])}"
        if len(cards) == gallery["products"]:
            of = f"all {len(cards)}"
        fold = Fold(f"{gallery['title']} ({of})", [Cards(gallery["about"], cards)])
        blocks.append(fold)
    return Section(
        "galleries",
        "Products to look at",
        "A few products of each group, with what the models say: ten minutes here tell "
        "more about why they fail than any table.",
        [Words(ABOUT), *blocks],
    )


def card(
    numbers: Mapping[str, Any],
    product: Mapping[str, Any],
    gallery: Mapping[str, Any],
    known: dict[str, str],
) -> Card:
    """A product; `known` keeps thumbnails by path."""
    pictures = {}
    for modality, path in product["images"].items():
        if path not in known:
            known[path] = thumbnail(path)
        if known[path]:
            pictures[modality] = known[path]
    names, labels = numbers["label_names"], product["labels"]
    order = [x for x in in_order(numbers) if x in product["said"]]
    said = {
        name: [
            Guess(names[label], percent(probability), label in labels)
            for label, probability in product["said"][name]
        ]
        for name in order
    }
    return Card(
        product["id"],
        [names[x] for x in labels],
        [x.replace("\t", " · ") for x in product["texts"].values() if x],
        pictures,
        _maps(numbers, product, pictures),
        said,
        _reasons(numbers, product, gallery),
    )


def _maps(
    numbers: Mapping[str, Any],
    product: Mapping[str, Any],
    pictures: Mapping[str, str],
) -> list[Map]:
    found = []
    for tower, told in product.get("maps", {}).items():
        # Of several images each map says which it is of.
        modality = told.get("modality", next(iter(product["images"]), ""))
        grid = np.asarray(told["grid"], float)
        if modality not in pictures or not grid.any():
            continue
        about = f"{tower} {KINDS[told['kind']]}"
        if "label" in told:
            about += f" for {numbers['label_names'][told['label']]}"
        found.append(
            Map(
                about,
                pictures[modality],
                shade(grid),
                (grid.shape[1], grid.shape[0]),
                [(x, y) for y, x in told["strongest"][: grid.size // CELLS_A_FRAME]],
            )
        )
    return found


def shade(grid: np.ndarray) -> str:
    """A map as a PNG in a data URI, a pixel a cell, that darkens what counts little.

    Args:
        grid: `(rows, columns)`; its largest cell is left clear.
    """
    most = max(float(grid.max()), 1e-9)
    dark = DARKEST * (1.0 - np.clip(grid / most, 0.0, 1.0))
    pixels = np.stack([np.zeros_like(dark), dark], axis=-1).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "LA").save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _reasons(
    numbers: Mapping[str, Any], product: Mapping[str, Any], gallery: Mapping[str, Any]
) -> list[tuple[str, str, list[Reason]]]:
    """Those of the gallery's head, else of the best, and of a head with SHAP values."""
    told = product.get("reasons", {})
    about = [*gallery.get("models", []), best_model(numbers), *told]
    heads = [x for x in about if x in told][:1]
    heads += [x for x in told if "score" in told[x] and x not in heads][:1]
    found = []
    for head in heads:
        own = told[head]
        parts = dict(own["of"])
        for key, title in (("together", "together"), ("label_share", "label share")):
            if key in own:
                parts[title] = own[key]
        most = max((abs(x) for x in parts.values()), default=0.0) or 1.0
        # SHAP values are of a raw score, the others of a probability.
        write = signed if "score" in own else points
        reasons = [
            Reason(name, write(value), 50.0 * abs(value) / most, value < 0)
            for name, value in parts.items()
        ]
        found.append((head, numbers["label_names"][own["label"]], reasons))
    return found


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")
