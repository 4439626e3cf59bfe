"""Catalog + rows -> tf.data, in the shape that towers take."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import tensorflow as tf

from tfmm import augmentation, image
from tfmm.catalog import Catalog
from tfmm.settings import Augmentation


@dataclass(frozen=True)
class Inputs:
    """What a model reads of a product by one of its inputs.

    Attributes:
        modality: The modality's name.
        image_size: Side in pixels if it is an image; 0 if it is a string.
        load_size: Side in pixels that training reads an image at, before it is
            augmented to `image_size`; `image_size` if absent.
        augmentation: Random changes of training images.
        flagged: Whether the model is also told where it is missing.
    """

    modality: str
    image_size: int = 0
    load_size: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    flagged: bool = False

    @property
    def sizes(self) -> set[int]:
        """Sides in pixels at which images are read, in training or out of it."""
        return {self.image_size, self.load_size or self.image_size} - {0}


Reads = Mapping[str, Inputs]
Caches = Mapping[tuple[str, int], np.ndarray]


def batches(
    catalog: Catalog,
    rows: np.ndarray,
    reads: Reads,
    batch_size: int,
    caches: Caches | None = None,
    hidden: Collection[str] = (),
) -> tf.data.Dataset:
    """The inputs of some products in the order of `rows`, batch by batch.

    Images are never augmented here.

    Args:
        catalog: A checked catalog.
        rows: `(n,)` indices of products.
        reads: Input of the model -> what to read for it.
        batch_size: Products a batch; the last one may be smaller.
        caches: (modality, side in pixels) -> what `tfmm.image_cache.ready` returns for
            it. What is not there is decoded from the files, to the same pixels.
        hidden: Modalities that are given as if no product had them.

    Returns:
        Dataset of dicts: each input -> string `(batch,)`, `""` where missing, or
        float32 `(batch, image_size, image_size, 3)` in [0, 255], black where missing;
        for flagged inputs also `INPUT_present` -> bool `(batch,)`.
    """
    parts = {}
    for key, inputs in reads.items():
        size = inputs.image_size
        here = catalog.present(inputs.modality, rows)
        here &= inputs.modality not in hidden
        parts[key] = _values(catalog, rows, here, inputs, size, batch_size, caches)
        if inputs.flagged:
            parts[f"{key}_present"] = _flags(here, batch_size)
    return tf.data.Dataset.zip(parts).prefetch(2)


def epoch(
    catalog: Catalog,
    rows: np.ndarray,
    reads: Reads,
    batch_size: int,
    seed: tuple[int, int],
    caches: Caches | None = None,
    modality_dropout: float = 0.0,
    always: Collection[str] = (),
) -> tf.data.Dataset:
    """One shuffled pass over some products with their targets; images augmented.

    Args:
        catalog: A checked catalog.
        rows: `(n,)` indices of products that have labels.
        reads: As in `batches`.
        batch_size: Products a batch.
        seed: The run's seed and the epoch. Order and augmentation depend on nothing
            else, so an epoch that is repeated after a kill is the same epoch.
        caches: As in `batches`.
        modality_dropout: Chance that a product is given without a modality that it
            has; never without the last one.
        always: Inputs that are not hidden.

    Returns:
        Dataset of pairs: the dict of `batches`, and `{"logits": targets}` with
        float32 `(batch, C)` or int32 `(batch,)`.
    """
    rows = np.random.default_rng(seed).permutation(rows)
    present = np.stack(
        [catalog.present(inputs.modality, rows) for inputs in reads.values()], axis=1
    )
    units = units_of(inputs.modality for inputs in reads.values())
    kept = keep_some(present, modality_dropout, (*seed, 2), units)
    kept[:, [key in always for key in reads]] = True
    kept &= present
    parts = {}
    for position, (key, inputs) in enumerate(reads.items()):
        here = kept[:, position]
        size, changes = inputs.image_size, inputs.augmentation
        load_size = inputs.load_size or size
        values = _values(catalog, rows, here, inputs, load_size, batch_size, caches)
        if size and changes != Augmentation():
            generator = np.random.default_rng((*seed, 1))
            draws = augmentation.draw(changes, len(rows), load_size, size, generator)
            draws = tf.data.Dataset.from_tensor_slices(draws).batch(batch_size)
            values = tf.data.Dataset.zip(values, draws).map(
                partial(_augment, changes, size),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
        parts[key] = values
        if inputs.flagged:
            parts[f"{key}_present"] = _flags(here, batch_size)
    targets = tf.data.Dataset.from_tensor_slices(catalog.targets(rows))
    pairs = tf.data.Dataset.zip(parts, {"logits": targets.batch(batch_size)})
    return pairs.prefetch(2)


def _augment(changes: Augmentation, size: int, images, drawn):
    return augmentation.augment(changes, images, drawn, size)


def _flags(here: np.ndarray, batch_size: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(here).batch(batch_size)


def _values(
    catalog: Catalog,
    rows: np.ndarray,
    here: np.ndarray,
    inputs: Inputs,
    size: int,
    batch_size: int,
    caches: Caches | None,
) -> tf.data.Dataset:
    """Batches of strings, or of images `size` pixels wide; empty where not `here`."""
    if not size:
        texts = np.where(here, catalog.texts[inputs.modality][rows], "")
        return tf.data.Dataset.from_tensor_slices(texts).batch(batch_size)
    cache = (caches or {}).get((inputs.modality, size))
    if cache is None:
        paths = np.where(here, catalog.images[inputs.modality][rows], "")
        return image.decode_files(paths, size).batch(batch_size)

    def pixels(some_rows, some_here):
        return cache[some_rows] * some_here[:, None, None, None].astype(np.uint8)

    def read(some_rows, some_here):
        # Not stateful, or TensorFlow would read batches one after the other.
        images = tf.numpy_function(
            pixels, [some_rows, some_here], tf.uint8, stateful=False
        )
        images = tf.ensure_shape(images, [None, size, size, 3])
        return tf.cast(images, tf.float32)

    numbers = tf.data.Dataset.from_tensor_slices((rows, here)).batch(batch_size)
    return numbers.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def arrays_epoch(
    inputs: Mapping,
    targets: Mapping[str, np.ndarray],
    batch_size: int,
    seed: tuple[int, int],
    weights: np.ndarray | None = None,
) -> tf.data.Dataset:
    """One shuffled pass over arrays: what heads are trained on.

    Args:
        inputs: Nested dict of arrays `(n, ...)`.
        targets: Output -> array `(n, ...)`.
        batch_size: Products a batch.
        seed: The run's seed and the epoch.
        weights: float32 `(n,)`: how much each product counts.

    Returns:
        Dataset of pairs `(inputs, targets)`, or of triples with the weights.
    """
    parts = [dict(inputs), dict(targets)]
    if weights is not None:
        parts.append(dict.fromkeys(targets, weights))
    count = len(next(iter(targets.values())))
    order = np.random.default_rng(seed).permutation(count)
    shuffled = tf.nest.map_structure(lambda array: array[order], tuple(parts))
    return tf.data.Dataset.from_tensor_slices(shuffled).batch(batch_size).prefetch(2)


def keep_some(
    present: np.ndarray, rate: float, seed: tuple[int, ...], units: Sequence[int]
) -> np.ndarray:
    """Which inputs products are given with, when some are hidden at random.

    Args:
        present: bool `(n, inputs)`.
        rate: Chance of each unit to be hidden; never the last one of a product.
        seed: Of the draws.
        units: For each input a number; those of one number come and go together, as
            those of one modality do.

    Returns:
        bool `(n, inputs)`, true in no place where `present` is not.
    """
    if not rate:
        return present.copy()
    shape = (len(present), max(units) + 1)
    draws = np.random.default_rng(seed).random(shape)[:, np.asarray(units)]
    kept = present & (draws >= rate)
    # Where all would be hidden, the unit with the greatest draw stays.
    luckiest = np.where(present, draws, -1.0).max(axis=1, keepdims=True)
    none = ~kept.any(axis=1, keepdims=True)
    return kept | (present & none & (draws == luckiest))


def units_of(modalities: Iterable[Hashable]) -> list[int]:
    """A number for each input: the same where they look at the same modalities.

    Example:
    >>> units_of(["title", "title", "image"])
    [0, 0, 1]
    """
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(x, len(numbers)) for x in modalities]
