"""`assets.extra/reference.json` of a bundle, and the words that its towers know."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from serving.drift.words import Cleaning, Vocabulary

# In a bundle. The export writes them by these names too.
FILE = Path("assets.extra") / "reference.json"
FOLDER = Path("assets.extra") / "vocabularies"
FORMAT = 1
NAMES = (
    *("present", "characters", "bytes", "unknown_words", "status"),
    *("label", "score", "assigned"),
)


class ReferenceError(ValueError):
    """A bundle without usable reference statistics; one line of text."""


@dataclass(frozen=True)
class Measure:
    """One thing that is told of products, and how it is spread over them.

    Attributes:
        name: str. One of `NAMES`.
        modality: str or None. The input it is told of; None for the answer.
        vocabulary: str or None. The tower whose words are counted.
        of: str. The products it was measured on: "catalog", "test" or "texts".
        values: tuple of str, a bin each; empty for a number.
        edges: tuple of float, ascending: between the bins of a number, which belongs
            to the bin below an edge if it equals it.
        counts: tuple of int. Products in each bin.
        mean: float or None. Of a number.
        share: float or None. For unknown words, their share of all words.
    """

    name: str
    modality: str | None
    vocabulary: str | None
    of: str
    values: tuple[str, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    mean: float | None
    share: float | None

    @property
    def key(self) -> str:
        """Unique: `image.present`, `title.unknown_words.TOWER`, `score`."""
        return ".".join(x for x in (self.modality, self.name, self.vocabulary) if x)

    @property
    def products(self) -> int:
        """How many products it was measured on."""
        return sum(self.counts)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Measure":
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: If it is no such measure.
        """
        share = None
        if content["name"] == "unknown_words":
            share = content["unknown"] / max(content["words"], 1)
        measure = cls(
            content["name"],
            content["modality"],
            content.get("vocabulary"),
            content["of"],
            tuple(content.get("values", ())),
            tuple(content.get("edges", ())),
            tuple(content["counts"]),
            content.get("mean"),
            share,
        )
        where = f"the measure {measure.key}"
        if measure.name not in NAMES:
            raise ValueError(f"unknown measure {measure.name!r}")
        bins = len(measure.values) or len(measure.edges) + 1
        if len(measure.counts) != bins:
            raise ValueError(f"{where} has {bins} bins and other counts")
        if not all(type(x) is int and x >= 0 for x in measure.counts):
            raise ValueError(f"{where} has counts that are none")
        if not all(type(x) in (int, float) for x in measure.edges):
            raise ValueError(f"{where} has edges that are no numbers")
        if any(low >= high for low, high in pairwise(measure.edges)):
            raise ValueError(f"{where} has edges that do not ascend")
        return measure


@dataclass(frozen=True)
class Reference:
    """What requests of a bundle look like while nothing has changed.

    Attributes:
        bundle: Path. `MODELS/NAME/N`.
        inputs: tuple of str. The model's inputs.
        images: tuple of str. Those that are images, in the order of `image_status`.
        labels: tuple of str. The labels, in the order of `assets/labels.txt`.
        products: dict from "catalog", "test" and "texts" to how many there were.
        measures: dict from key to `Measure`.
        label_shares: dict from label to the share of the catalog's products with it.
        cleaning: How texts are cleaned.
        vocabularies: dict from tower to `Vocabulary`.
    """

    bundle: Path
    inputs: tuple[str, ...]
    images: tuple[str, ...]
    labels: tuple[str, ...]
    products: dict[str, int]
    measures: dict[str, Measure]
    label_shares: dict[str, float]
    cleaning: Cleaning
    vocabularies: dict[str, Vocabulary]

    @property
    def model(self) -> str:
        """What the bundle's model is called where it is served by its folder."""
        return self.bundle.resolve().parent.name

    @property
    def version(self) -> int:
        """Its version."""
        return int(self.bundle.resolve().name)


def read_reference(bundle: Path) -> Reference:
    """Reads and checks it.

    Args:
        bundle: `MODELS/NAME/N`, as `python -m export` wrote it.

    Raises:
        ReferenceError: If it is not there, damaged, or does not fit the bundle.
    """
    path = bundle / FILE
    if not (bundle / "saved_model.pb").is_file() or not bundle.resolve().name.isdigit():
        raise ReferenceError(f"{bundle}: expected a version directory, MODELS/NAME/N")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReferenceError(
            f"{path}: no such file; the bundle is older than monitoring: export its "
            "run again, after tfmm.fit --resume"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ReferenceError(f"{path}: cannot be read: {_line(error)}") from None
    try:
        if content["format"] != FORMAT:
            raise ValueError(
                f"format {content['format']!r}; this version reads {FORMAT}"
            )
        return _checked(bundle, content)
    except ReferenceError:
        raise
    except KeyError as error:
        raise ReferenceError(f"{path}: damaged: has no {_line(error)}") from None
    except (AttributeError, OSError, TypeError, ValueError, re.error) as error:
        raise ReferenceError(f"{path}: damaged: {_line(error)}") from None


def _checked(bundle: Path, content: Mapping[str, Any]) -> Reference:
    text = (bundle / "assets" / "labels.txt").read_text(encoding="utf-8")
    labels = tuple(text.split("\n")[:-1])
    measures = [Measure.read(x) for x in content["measures"]]
    by_key = {measure.key: measure for measure in measures}
    products = {name: int(content["products"][name]) for name in ("catalog", "test")}
    products["texts"] = int(content["products"]["texts"])
    inputs = tuple(x.modality for x in measures if x.name == "present" and x.modality)
    for name in ("label", "score", "assigned"):
        if by_key[name].products != products["test"]:
            raise ValueError(f"{name} is not of all {products['test']} test products")
    for name in inputs:
        if by_key[f"{name}.present"].products != products["catalog"]:
            raise ValueError(f"{name}.present is not of the whole catalog")
    counts = content["catalog_labels"]
    if by_key["label"].values != labels or len(counts) != len(labels):
        raise ValueError("its labels are not those of assets/labels.txt")
    images = tuple(content["images"])
    for name in images:
        if f"{name}.status" not in by_key:
            raise ValueError(f"has no measure {name}.status")
    vocabularies = {}
    for tower, about in content["vocabularies"].items():
        vocabularies[tower] = _vocabulary(bundle, tower, about)
        if f"{about['modality']}.unknown_words.{tower}" not in by_key:
            raise ValueError(f"has no measure of the vocabulary {tower}")
    return Reference(
        bundle=bundle,
        inputs=inputs,
        images=images,
        labels=labels,
        products=products,
        measures=by_key,
        label_shares={
            label: count / max(products["catalog"], 1)
            for label, count in zip(labels, counts, strict=True)
        },
        cleaning=Cleaning.read(content["cleaning"]),
        vocabularies=vocabularies,
    )


def _vocabulary(bundle: Path, tower: str, about: Mapping[str, Any]) -> Vocabulary:
    path = bundle / FOLDER / f"{tower}.txt"
    try:
        words = path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, ValueError) as error:
        raise ReferenceError(f"{path}: cannot be read: {_line(error)}") from None
    if len(words) != about["words"]:
        raise ReferenceError(
            f"{path}: expected {about['words']} words. Received: {len(words)}"
        )
    return Vocabulary(
        modality=about["modality"],
        words=frozenset(words),
        max_words=about["max_words"],
        punctuation=about["punctuation"],
        digits=about["digits"],
        max_word_characters=about["max_word_characters"],
        stop_words=frozenset(about["stop_words"]),
    )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
