"""Catalog + rows -> tf.data, in the shape that towers take."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from tfmm import augmentation, image
from tfmm.catalog import Catalog
from tfmm.settings import Augmentation


@dataclass(frozen=True)
class Inputs:
    """What one tower reads of a product.

    Attributes:
        modality: The modality's name.
        image_size: Side in pixels if it is an image; 0 if it is a string.
        load_size: Side in pixels that training reads an image at, before it is
            augmented to `image_size`; `image_size` if absent.
        augmentation: Random changes of training images.
    """

    modality: str
    image_size: int = 0
    load_size: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def sizes(self) -> set[int]:
        """Sides in pixels at which images are read, in training or out of it."""
        return {self.image_size, self.load_size or self.image_size} - {0}


def batches(
    catalog: Catalog,
    rows: np.ndarray,
    inputs: Inputs,
    batch_size: int,
    caches: Mapping[int, np.ndarray] | None = None,
) -> tf.data.Dataset:
    """The inputs of some products in the order of `rows`, batch by batch.

    Images are never augmented here.

    Args:
        catalog: A checked catalog.
        rows: `(n,)` indices of products that have the modality.
        inputs: What to read of them.
        batch_size: Products a batch; the last one may be smaller.
        caches: Side in pixels -> what `tfmm.image_cache.ready` returns for it. A side
            that is not there is decoded from the files, to the same pixels.

    Returns:
        Dataset of dicts: the modality's name -> string `(batch,)` or float32
        `(batch, image_size, image_size, 3)` in [0, 255].
    """
    values = _values(catalog, rows, inputs, inputs.image_size, batch_size, caches)
    return values.map(lambda value: {inputs.modality: value}).prefetch(2)


def epoch(
    catalog: Catalog,
    rows: np.ndarray,
    inputs: Inputs,
    batch_size: int,
    seed: tuple[int, int],
    caches: Mapping[int, np.ndarray] | None = None,
) -> tf.data.Dataset:
    """One shuffled pass over some products with their targets; images augmented.

    Args:
        catalog: A checked catalog.
        rows: `(n,)` indices of products that have the modality and labels.
        inputs: What to read of them.
        batch_size: Products a batch.
        seed: The run's seed and the epoch. Order and augmentation depend on nothing
            else, so an epoch that is repeated after a kill is the same epoch.
        caches: As in `batches`.

    Returns:
        Dataset of pairs: the dict of `batches`, and `{"logits": targets}` with
        float32 `(batch, C)` or int32 `(batch,)`.
    """
    rows = np.random.default_rng(seed).permutation(rows)
    size, changes = inputs.image_size, inputs.augmentation
    load_size = inputs.load_size or size
    values = _values(catalog, rows, inputs, load_size, batch_size, caches)
    if size and changes != Augmentation():
        generator = np.random.default_rng((*seed, 1))
        draws = augmentation.draw(changes, len(rows), load_size, size, generator)
        draws = tf.data.Dataset.from_tensor_slices(draws).batch(batch_size)
        values = tf.data.Dataset.zip(values, draws).map(
            lambda images, drawn: augmentation.augment(changes, images, drawn, size),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    targets = tf.data.Dataset.from_tensor_slices(catalog.targets(rows))
    return (
        tf.data.Dataset.zip(values, targets.batch(batch_size))
        .map(lambda value, target: ({inputs.modality: value}, {"logits": target}))
        .prefetch(2)
    )


def _values(
    catalog: Catalog,
    rows: np.ndarray,
    inputs: Inputs,
    size: int,
    batch_size: int,
    caches: Mapping[int, np.ndarray] | None,
) -> tf.data.Dataset:
    """Batches of strings, or of images `size` pixels wide."""
    if not size:
        texts = catalog.texts[inputs.modality][rows]
        return tf.data.Dataset.from_tensor_slices(texts).batch(batch_size)
    if not caches or size not in caches:
        paths = catalog.images[inputs.modality][rows]
        return image.decode_files(paths, size).batch(batch_size)
    cache = caches[size]

    def read(some_rows):
        # Not stateful, or TensorFlow would read batches one after the other.
        images = tf.numpy_function(
            cache.__getitem__, [some_rows], tf.uint8, stateful=False
        )
        images = tf.ensure_shape(images, [None, size, size, 3])
        return tf.cast(images, tf.float32)

    rows = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
    return rows.map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def arrays_epoch(
    inputs: Mapping, targets: np.ndarray, batch_size: int, seed: tuple[int, int]
) -> tf.data.Dataset:
    """One shuffled pass over arrays: what heads are trained on.

    Args:
        inputs: Nested dict of arrays `(n, ...)`.
        targets: float32 `(n, C)` or int32 `(n,)`.
        batch_size: Products a batch.
        seed: The run's seed and the epoch.

    Returns:
        Dataset of pairs `(inputs, {"logits": targets})`.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    shuffled = tf.nest.map_structure(lambda array: array[order], dict(inputs))
    pairs = (shuffled, {"logits": targets[order]})
    return tf.data.Dataset.from_tensor_slices(pairs).batch(batch_size).prefetch(2)
