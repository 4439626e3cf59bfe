"""Catalog + rows -> tf.data, in the shape that towers take."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfmm import image
from tfmm.catalog import Catalog


@dataclass(frozen=True)
class Inputs:
    """What one tower reads of a product.

    Attributes:
        modality: The modality's name.
        image_size: Side in pixels if it is an image; 0 for a text.
        random_flip: Whether training mirrors half of the images.
    """

    modality: str
    image_size: int = 0
    random_flip: bool = False


def batches(
    catalog: Catalog, rows: np.ndarray, inputs: Inputs, batch_size: int
) -> tf.data.Dataset:
    """The inputs of some products in the order of `rows`, batch by batch.

    Args:
        catalog: A checked catalog.
        rows: `(n,)` indices of products that have the modality.
        inputs: What to read of them.
        batch_size: Products a batch; the last one may be smaller.

    Returns:
        Dataset of dicts: the modality's name -> string `(batch,)` or float32
        `(batch, image_size, image_size, 3)` in [0, 255].
    """
    return (
        _values(catalog, rows, inputs)
        .batch(batch_size)
        .map(lambda value: {inputs.modality: value})
        .prefetch(2)
    )


def epoch(
    catalog: Catalog,
    rows: np.ndarray,
    inputs: Inputs,
    batch_size: int,
    seed: tuple[int, int],
) -> tf.data.Dataset:
    """One shuffled pass over some products with their targets.

    Args:
        catalog: A checked catalog.
        rows: `(n,)` indices of products that have the modality and labels.
        inputs: What to read of them.
        batch_size: Products a batch.
        seed: The run's seed and the epoch. Order and augmentation depend on nothing
            else, so an epoch that is repeated after a kill is the same epoch.

    Returns:
        Dataset of pairs: the dict of `batches`, and `{"logits": targets}` with
        float32 `(batch, C)` or int32 `(batch,)`.
    """
    rows = np.random.default_rng(seed).permutation(rows)
    values = _values(catalog, rows, inputs)
    if inputs.image_size and inputs.random_flip:
        seeds = np.random.default_rng((*seed, 1)).integers(2**31, size=(len(rows), 2))
        values = tf.data.Dataset.zip(
            values, tf.data.Dataset.from_tensor_slices(seeds.astype(np.int32))
        ).map(image.random_flip, num_parallel_calls=tf.data.AUTOTUNE)
    targets = tf.data.Dataset.from_tensor_slices(catalog.targets(rows))
    return (
        tf.data.Dataset.zip(values, targets)
        .batch(batch_size)
        .map(lambda value, target: ({inputs.modality: value}, {"logits": target}))
        .prefetch(2)
    )


def _values(catalog: Catalog, rows: np.ndarray, inputs: Inputs) -> tf.data.Dataset:
    if not inputs.image_size:
        texts = catalog.texts[inputs.modality][rows]
        return tf.data.Dataset.from_tensor_slices(texts)
    paths = catalog.images[inputs.modality][rows]
    return tf.data.Dataset.from_tensor_slices(paths).map(
        lambda path: image.decode_file(path, inputs.image_size),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


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
