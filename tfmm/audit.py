"""What is wrong with a catalog, before any training; and what a run keeps of it."""

import base64
import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmm import cells, image, outputs, products, text
from tfmm.catalog import BadImage, Catalog
from tfmm.catalog import load as load_catalog
from tfmm.errors import CatalogError, ExperimentError, RunError, did_you_mean
from tfmm.experiment import Experiment
from tfmm.progress import progress, say
from tfmm.run import Run, replacing, write_json
from tfmm.settings import SPLITS, Tower

CHECK_BATCH = 4096
NUM_SAMPLES = 8
NUM_TEXTS = 5_000  # test products whose texts are kept


def audit(settings: Experiment, path: Path, images: Path | None) -> Catalog:
    """Checks what can be known before any work: weights, catalog, every image.

    Returns:
        The catalog, with images that cannot be used turned into missing ones.

    Raises:
        ExperimentError: If a file that a tower names is not there, or its preset is
            neither a folder nor known to keras-hub.
        CatalogError: For what `tfmm.catalog.load` refuses, more bad images than
            `max_bad_image_rate` allows, or a split that is needed and empty.
    """
    for name, tower in settings.towers.items():
        _check_files(name, tower)
    catalog = check_inputs(load_catalog(path, settings, images))
    named = sum(bool(p) for paths in catalog.images.values() for p in paths)
    named += len(catalog.bad_images)
    limit = settings.catalog.max_bad_image_rate
    if named and len(catalog.bad_images) / named > limit:
        first = catalog.bad_images[0]
        raise CatalogError(
            f"{path}: {len(catalog.bad_images)} of {named} images cannot be used, more "
            f"than max_bad_image_rate = {limit:g} allows. The first: {first.path!r} "
            f"(product {first.id!r}): {first.reason}"
        )
    needed = {"train", "validation", "test"}
    needed.update(*(head.fit_splits for head in settings.heads.values()))
    for split in SPLITS:
        count = len(catalog.rows(split))
        if not count and split in needed:
            raise CatalogError(f"{path}: no product falls into the split {split!r}")
    for tower in settings.towers.values():
        for split in ("train", "validation"):
            catalog.present_rows(tower.modality, split)
    counts = ", ".join(f"{split} {len(catalog.rows(split))}" for split in SPLITS)
    say(
        f"catalog: {len(catalog)} products, {len(catalog.label_names)} labels; {counts}"
        f"; left out for want of a label {len(catalog.left_out)}"
        f"; images that cannot be used {len(catalog.bad_images)}"
    )
    if catalog.split_groups:
        say(
            f"catalog: {len(catalog.split_groups)} groups lie in several splits, as "
            f"the split column says; the first: {catalog.split_groups[0]}"
        )
    return catalog


# What the keys that name files may hold besides a path.
WORDS = {"weights": ("none", "imagenet", "preset"), "embedding": ("random",)}


def _check_files(name: str, tower: Tower) -> None:
    for key, words in WORDS.items():
        value = getattr(tower, key, words[0])
        if value not in words and not Path(value).is_file():
            allowed = ", ".join(f'"{word}"' for word in words if word != "preset")
            raise ExperimentError(
                f"[towers.{name}] {key}: expected {allowed} or the path of a file. "
                f"Received: {value!r}"
            )
    if "stop_words" in getattr(tower, "remove", ()):
        try:
            text.stop_words(tower.stop_words)
        except ExperimentError as error:
            raise ExperimentError(f"[towers.{name}] {error}") from None
    preset = getattr(tower, "preset", "")
    if preset and not Path(preset).is_dir() and "://" not in preset:
        import keras_hub  # slow, and needed for such names only

        known = keras_hub.models.Backbone.presets
        if preset not in known:
            near = did_you_mean(preset, known)
            raise ExperimentError(
                f"[towers.{name}] preset: expected a folder or a preset of keras-hub. "
                f"Received: {preset!r}" + (near if near.startswith("; did") else "")
            )


def check_inputs(catalog: Catalog) -> Catalog:
    """Opens every image and cleans every text; what is of no use becomes missing."""
    bad: list[BadImage] = []
    digests = []
    for name, paths in catalog.images.items():
        with progress(f"{name}: checking images", len(paths)) as show:
            reasons, digest = image.check_files(paths, show)
        digests.append(digest)
        bad += [
            BadImage(row, str(catalog.ids[row]), name, str(paths[row]), reason)
            for row, reason in reasons.items()
        ]
    worded = {
        name: _worded(texts, catalog.num_cells.get(name, 0))
        for name, texts in catalog.texts.items()
    }
    return replace(
        catalog.without_images(bad, "".join(digests)),
        sizes={
            **{k: np.array(list(map(len, x))) for k, x in catalog.texts.items()},
            **{
                k: np.array(list(map(image.file_bytes, x)))
                for k, x in catalog.images.items()
            },
        },
        texts={
            name: np.where(worded[name], texts, "").astype(object)
            for name, texts in catalog.texts.items()
        },
    )


def _worded(texts: np.ndarray, num_cells: int) -> np.ndarray:
    """bool `(n,)`: which texts or rows hold a word, as the graph sees it."""
    parts = np.split(texts, range(CHECK_BATCH, len(texts), CHECK_BATCH))
    return np.concatenate(
        [cells.present(tf.constant(x), num_cells).numpy() for x in parts]
    )


def write(run: Run, catalog: Catalog) -> None:
    """Writes the labels, the splits and what was left out into the run."""
    with replacing(run.labels_file) as file:
        lines = "".join(f"{name}\n" for name in catalog.label_names)
        file.write_text(lines, encoding="utf-8")
    splits = zip(catalog.ids, catalog.split, strict=True)
    _write_csv(run.splits_file, ("id", "split"), splits)
    write_left_out(run.catalog, catalog)
    write_json(run.samples_file, _samples(catalog))
    sizes = zip(catalog.ids, catalog.split, *catalog.sizes.values(), strict=True)
    _write_csv(run.sizes_file, ("id", "split", *catalog.sizes), sizes)
    write_json(run.test_texts_file, _test_texts(catalog))
    products.write(run, catalog)
    for split in SPLITS:
        write_targets(run, catalog, split, split)


def _samples(catalog: Catalog) -> list[dict]:
    """Raw inputs of a few test products, one that lacks something among them.

    An export keeps them, with their stored answers, as its golden requests.
    """
    rows = catalog.rows("test")
    names = (*catalog.texts, *catalog.images)
    whole = np.all([catalog.present(name, rows) for name in names], axis=0)
    spread = np.linspace(0, len(rows) - 1, min(NUM_SAMPLES, len(rows))).astype(int)
    chosen = {*spread.tolist(), *np.flatnonzero(whole)[:1], *np.flatnonzero(~whole)[:1]}
    samples = []
    for position in sorted(map(int, chosen)):
        row = rows[position]
        values = {name: texts[row].encode() for name, texts in catalog.texts.items()}
        for name, paths in catalog.images.items():
            values[name] = Path(paths[row]).read_bytes() if paths[row] else b""
        inputs = {k: base64.b64encode(v).decode() for k, v in values.items()}
        samples.append({"id": str(catalog.ids[row]), "row": position, "inputs": inputs})
    return samples


def _test_texts(catalog: Catalog) -> dict[str, list[str]]:
    """Modality -> texts of the test products, or of `NUM_TEXTS` spread over them.

    No tower has met their words, so an export can tell how many are new to it.
    """
    rows = catalog.rows("test")
    rows = rows[np.linspace(0, len(rows) - 1, min(NUM_TEXTS, len(rows))).astype(int)]
    return {
        name: texts[rows].tolist()
        for name, texts in catalog.texts.items()
        if name not in catalog.num_cells
    }


@dataclass(frozen=True)
class Sizes:
    """How much a catalog's products have of each modality, as they were given.

    Attributes:
        ids: `(n,)` strings.
        split: `(n,)` strings, `""` for a product that was left out.
        of: Modality name -> int64 `(n,)`: characters of texts, bytes of image files,
            0 where there is none.
    """

    ids: np.ndarray
    split: np.ndarray
    of: dict[str, np.ndarray]


def read_sizes(run: Run) -> Sizes:
    """What `write` kept of the sizes; `RunError` if it is missing or damaged."""
    path = run.sizes_file
    (_, _, *names), rows = _read_csv(path)
    try:
        ids, split, *columns = zip(*rows, strict=True)
        of = {
            name: np.array(column, np.int64)
            for name, column in zip(names, columns, strict=True)
        }
    except ValueError as error:
        raise RunError(f"{path}: damaged: {error}; run tfmm.fit --resume") from None
    return Sizes(np.array(ids, object), np.array(split, object), of)


def read_bad_images(run: Run) -> dict[tuple[str, str], str]:
    """(id, modality) -> why the image cannot be used."""
    _, rows = _read_csv(run.catalog / "bad_images.csv")
    return {(product, modality): reason for product, modality, _, reason in rows}


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; run tfmm.fit --resume") from None
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path}: damaged: {error}; run tfmm.fit --resume") from None
    if any(len(row) != len(header) for row in rows):
        raise RunError(f"{path}: damaged: rows differ; run tfmm.fit --resume")
    return header, rows


def write_left_out(folder: Path, catalog: Catalog) -> None:
    """Lists the products and images that nobody could use, with the reasons."""
    _write_csv(folder / "left_out.csv", ("id", "reason"), catalog.left_out.items())
    _write_csv(
        folder / "bad_images.csv",
        ("id", "modality", "path", "reason"),
        ((x.id, x.modality, x.path, x.reason) for x in catalog.bad_images),
    )


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with replacing(path) as partial_file:
        partial_file.write_text(text.getvalue(), encoding="utf-8")


def write_targets(run: Run, catalog: Catalog, split: str, name: str) -> None:
    """Writes the targets of a catalog's split into the store, as split `name`."""
    rows = catalog.rows(split)
    targets = catalog.targets(rows)
    outputs.write_targets(run.outputs, name, targets, catalog.fingerprint())
    outputs.write_groups(run.outputs, name, catalog.groups[rows])
