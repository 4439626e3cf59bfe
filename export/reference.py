"""What requests look like while nothing has changed: `assets.extra/reference.json`.

`serving.monitor` holds live requests against it; docs/serving.md explains the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.stored import Stored
from export.vocabulary import Vocabulary, cleaning, vocabularies
from serving.drift.reference import FILE, FOLDER, FORMAT
from tfmm import audit, image, outputs, results
from tfmm.classifier import Classifier
from tfmm.run import Run, read_json, write_json
from tfmm.settings import SPLITS

SHARES = np.arange(1, 10) / 10  # of the products below each edge
DECIMALS = 3  # of an edge between scores, which two machines compute alike


@dataclass(frozen=True)
class Reference:
    """Statistics of the products that a model was made from.

    Attributes:
        content: What the file holds.
        vocabularies: Those that live texts are looked up in.
    """

    content: dict
    vocabularies: list[Vocabulary]

    def write(self, bundle: Path) -> None:
        """Writes the file, and a file of words for each vocabulary, into a bundle."""
        write_json(bundle / FILE, self.content)
        for vocabulary in self.vocabularies:
            path = bundle / FOLDER / f"{vocabulary.tower}.txt"
            path.parent.mkdir(exist_ok=True)
            words = "".join(f"{word}\n" for word in vocabulary.words)
            path.write_text(words, encoding="utf-8")


def reference(run: Run, model: Classifier, stored: Stored) -> Reference:
    """Measures a run as `serving.monitor` measures a log of requests.

    What products are like is of all products of the catalog that have a label. What
    the model says of them is of `test`, on which nothing was fitted: of products that
    it was trained on it would be surer than it ever is when served.

    Args:
        run: The run.
        model: The classifier.
        stored: What it says of the test products.

    Raises:
        RunError: If something is missing or damaged in the run.
    """
    sizes = audit.read_sizes(run)
    in_catalog = sizes.split != ""
    texts = read_json(run.test_texts_file)
    found = vocabularies(model)
    measures = []
    for name, about in model.modalities.items():
        given = sizes.of[name][in_catalog]
        there = {"present": given > 0, "missing": given == 0}
        measures.append(_shares("present", name, "catalog", there))
        unit = "bytes" if about.kind == "image" else "characters"
        whole = _spread(given[given > 0], 0)
        measures.append(_about(unit, name, "catalog", **whole))
        for vocabulary in found:
            if vocabulary.modality == name:
                measures.append(_unknown_words(vocabulary, texts[name]))
        if about.kind == "image":
            measures.append(_statuses(run, model, stored, sizes, name))
    measures += _answers(run, model, stored)
    content = {
        "format": FORMAT,
        "model": model.name,
        "products": {
            "catalog": int(in_catalog.sum()),
            "test": len(stored.ids),
            "texts": max(map(len, texts.values()), default=0),
        },
        "images": model.images,
        "measures": measures,
        "catalog_labels": _label_counts(run, len(model.label_names)),
        "cleaning": cleaning(),
        "vocabularies": {x.tower: x.about() for x in found},
    }
    return Reference(content, found)


def _about(name: str, modality: str | None, of: str, **rest) -> dict:
    return {"name": name, "modality": modality, "of": of, **rest}


def _shares(name: str, modality: str | None, of: str, values: dict) -> dict:
    """A measure with a value for each product; value -> which products have it."""
    counts = [int(np.sum(x)) for x in values.values()]
    return _about(name, modality, of, values=list(values), counts=counts)


def _spread(values: np.ndarray, decimals: int) -> dict:
    """A measure of numbers: edges between tenths of them, each in the bin below."""
    edges: Sequence[float] = []
    if len(values):
        edges = np.quantile(values, SHARES, method="inverted_cdf")
        edges = np.unique(np.round(np.float64(edges), decimals)).tolist()
    bins = np.searchsorted(edges, values, side="left")
    return {
        "edges": edges,
        "counts": np.bincount(bins, minlength=len(edges) + 1).tolist(),
        "mean": float(np.mean(values)) if len(values) else None,
    }


def _unknown_words(vocabulary: Vocabulary, texts: list[str]) -> dict:
    words, unknown = vocabulary.count(texts)
    some = words > 0
    return _about(
        *("unknown_words", vocabulary.modality, "texts"),
        vocabulary=vocabulary.tower,
        **_spread(unknown[some] / words[some], DECIMALS),
        words=int(words.sum()),
        unknown=int(unknown.sum()),
    )


def _statuses(
    run: Run, model: Classifier, stored: Stored, sizes: audit.Sizes, name: str
) -> dict:
    """What becomes of the images that test products have."""
    size = dict(zip(sizes.ids, sizes.of[name], strict=True))
    bad = audit.read_bad_images(run)
    said = []
    for product, sure in zip(stored.ids.astype(str), stored.sure, strict=True):
        if size[product]:
            seen = bad.get((product, name), image.STATUSES[image.USED])
            said.append(image.STATUSES[image.SKIPPED] if sure else seen)
    kinds = [x for x in image.STATUSES if x != image.STATUSES[image.MISSING]]
    # What no server is sent: files that cannot be read.
    read = np.array([x for x in said if x in kinds], str)
    return _shares("status", name, "test", {x: read == x for x in kinds})


def _answers(run: Run, model: Classifier, stored: Stored) -> list[dict]:
    """Measures of the first suggestion."""
    settings = run.read_experiment()
    first = stored.probabilities.argmax(axis=1)
    rows = np.arange(len(first))
    given = results.assigned(
        run, settings, model.name, stored.probabilities, stored.present
    )[rows, first]
    names = enumerate(model.label_names)
    scores = stored.probabilities[rows, first]
    return [
        _shares("label", None, "test", {name: first == i for i, name in names}),
        _about("score", None, "test", **_spread(scores, DECIMALS)),
        _shares("assigned", None, "test", {"assigned": given, "not assigned": ~given}),
    ]


def _label_counts(run: Run, num_labels: int) -> list[int]:
    """Products of the catalog by their true labels."""
    counts = np.zeros(num_labels, np.int64)
    for split in SPLITS:
        targets, _ = outputs.read_targets(run.outputs, split)
        if targets.ndim == 1:
            counts += np.bincount(targets, minlength=num_labels)
        else:
            counts += np.int64(targets.sum(axis=0))
    return counts.tolist()
