"""Stops at what makes a catalog unusable, and opens every image once."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfmm import cells, image, text
from tfmm.audit import pictures
from tfmm.audit.pictures import Checked, Pictures
from tfmm.catalog import BadImage, Catalog
from tfmm.catalog import load as load_catalog
from tfmm.errors import CatalogError, ExperimentError, RunError, did_you_mean
from tfmm.experiment import Experiment
from tfmm.progress import progress, say
from tfmm.run import Run, fingerprint, read_json
from tfmm.settings import SPLITS, Tower

CHECK_BATCH = 4096
VERSION = 1  # of the audit; to be raised when it finds other things


@dataclass(frozen=True)
class Inspection:
    """A catalog that was checked, and what was seen on the way.

    Attributes:
        catalog: It, with images that cannot be used turned into missing ones.
        key: Fingerprint of all that an audit depends on but the images' bytes.
        checked: Of each image modality, what cannot be used.
        pictures: Of each image modality, what was seen.
        before: The run's `audit.json` if it tells of this very catalog; `pictures` is
            empty then.
    """

    catalog: Catalog
    key: str
    checked: dict[str, Checked]
    pictures: dict[str, Pictures]
    before: dict[str, Any] | None


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
    return inspect(settings, path, images).catalog


def inspect(
    settings: Experiment, path: Path, images: Path | None, run: Run | None = None
) -> Inspection:
    """The same as `audit`, with what was seen on the way.

    Args:
        settings: The experiment.
        path: The catalog.
        images: Folder of its images; its own by default.
        run: Where an earlier audit may lie. If it is one of this catalog, and the
            images are byte for byte the same, they are not decoded again.
    """
    for name, tower in settings.towers.items():
        _check_files(name, tower)
    catalog = load_catalog(path, settings, images)
    key = _key(settings, catalog)
    before = None if run is None else _earlier(run, key)
    checked, seen = _look(catalog, before)
    catalog = _usable(catalog, checked)
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
    for split in SPLITS:
        if not len(catalog.rows(split)) and split in needed_splits(settings):
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
    if catalog.thinned_out:
        say(
            f"catalog: {len(catalog.thinned_out)} products of train and fusion set "
            f"aside, for data_rate = {settings.catalog.data_rate:g}"
        )
    if catalog.split_groups:
        say(
            f"catalog: {len(catalog.split_groups)} groups lie in several splits, as "
            f"the split column says; the first: {catalog.split_groups[0]}"
        )
    if not seen and before is not None:
        return Inspection(catalog, key, checked, {}, before)
    return Inspection(catalog, key, checked, seen, None)


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


def needed_splits(settings: Experiment) -> set[str]:
    """The splits that an experiment cannot do without."""
    fitted = (split for head in settings.heads.values() for split in head.fit_splits)
    return {"train", "validation", "test", *fitted}


def check_inputs(catalog: Catalog) -> Catalog:
    """Opens every image and cleans every text; what is of no use becomes missing."""
    return _usable(catalog, _look(catalog, None)[0])


def _key(settings: Experiment, catalog: Catalog) -> str:
    """A fingerprint of all that an audit depends on but the images' bytes."""
    return fingerprint(
        VERSION,
        image.DECODER_VERSION,
        tf.__version__,
        catalog.fingerprint(),
        list(catalog.left_out),
        settings.catalog.hierarchy,
        {name: x.model_dump() for name, x in settings.modalities.items()},
        {name: getattr(x, "image_size", 0) for name, x in settings.towers.items()},
    )


def _earlier(run: Run, key: str) -> dict[str, Any] | None:
    """The run's `audit.json` if it is of this catalog and whole; else it is redone."""
    if not run.audit_file.exists():
        return None
    try:
        found = read_json(run.audit_file)
    except RunError:
        return None
    is_ours = isinstance(found, dict) and found.get("fingerprint") == key
    return found if is_ours else None


def _look(
    catalog: Catalog, before: dict[str, Any] | None
) -> tuple[dict[str, Checked], dict[str, Pictures]]:
    """Looks at every image, unless the audit before saw the very same ones."""
    checked: dict[str, Checked] = {}
    if before is not None:
        for name, paths in catalog.images.items():
            with progress(f"{name}: comparing images", len(paths)) as show:
                digest = pictures.digest_of(paths, show)
            bad = dict(before["images"][name]["bad"])
            checked[name] = Checked(bad, digest)
        stored = {name: x["digest"] for name, x in before["images"].items()}
        if {name: x.digest for name, x in checked.items()} == stored:
            return checked, {}
    seen = {}
    for name, paths in catalog.images.items():
        with progress(f"{name}: checking images", len(paths)) as show:
            seen[name] = pictures.look(paths, show)
    return {name: x.checked for name, x in seen.items()}, seen


def _usable(catalog: Catalog, checked: dict[str, Checked]) -> Catalog:
    bad = [
        BadImage(row, str(catalog.ids[row]), name, str(paths[row]), reason)
        for name, paths in catalog.images.items()
        for row, reason in checked[name].bad.items()
    ]
    digests = [checked[name].digest for name in catalog.images]
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
