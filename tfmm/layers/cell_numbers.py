"""CellNumbers: the numbers of a table's rows, ready for a network."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfmm import cells

FARTHEST = 5.0  # deviations from the mean; what lies beyond is put there


@keras.saving.register_keras_serializable(package="tfmm")
class CellNumbers(keras.layers.Layer):
    """Reads the numbers of a row and says of each how unusual it is.

    Cells are read by `tfmm.cells.numbers`. With `log` a number `x` becomes
    `sign(x) * log(1 + |x|)`: prices spread over powers of ten, and differences
    between cheap things would drown otherwise. Then

    `output = clip((x - mean) / deviation, -5, 5)`,

    and 0 where there is no number, which a flag of its own tells from the mean.
    Computed in float64, given in the layer's compute dtype.

    Args:
        positions: Places of the `n` cells in a row, from 0.
        means: `n` floats, after the logarithm.
        deviations: `n` floats above 0, after the logarithm.
        log: bool. Whether the logarithm is taken.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor `(batch,)`, rows of a table.

    Returns:
        Float tensor `(batch, 2 * n)`: the numbers, then 1 for each that is missing.

    Raises:
        ValueError: If there is no position, the three have different lengths, or a
            deviation is not above 0.

    Example:
    >>> layer = CellNumbers([1], means=[10.0], deviations=[5.0], log=False)
    >>> layer(tf.constant(["IKEA\\t20", "IKEA\\t"])).numpy().tolist()
    [[2.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, positions, means, deviations, log, **kwargs):
        super().__init__(**kwargs)
        self.positions = [int(x) for x in positions]
        self.means = [float(x) for x in means]
        self.deviations = [float(x) for x in deviations]
        self.log = log
        lengths = [len(x) for x in (self.positions, self.means, self.deviations)]
        if not self.positions or len(set(lengths)) != 1:
            raise ValueError(
                "`positions`, `means` and `deviations` must have one length, at least "
                f"1. Received: {lengths}"
            )
        if not all(x > 0.0 for x in self.deviations):
            raise ValueError(
                f"`deviations` must be above 0. Received: {self.deviations}"
            )

    def call(self, inputs):
        values = read(inputs, self.positions, self.log)
        means = tf.constant(self.means, tf.float64)
        deviations = tf.constant(self.deviations, tf.float64)
        missing = tf.math.is_nan(values)
        scaled = tf.clip_by_value((values - means) / deviations, -FARTHEST, FARTHEST)
        scaled = tf.where(missing, tf.zeros_like(scaled), scaled)
        joined = tf.concat([scaled, tf.cast(missing, tf.float64)], axis=1)
        return tf.cast(joined, self.compute_dtype)

    def compute_output_spec(self, inputs):
        shape = (*inputs.shape, 2 * len(self.positions))
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "positions": self.positions,
            "means": self.means,
            "deviations": self.deviations,
            "log": self.log,
        }


def read(rows: tf.Tensor, positions: Sequence[int], log: bool) -> tf.Tensor:
    """The numbers of rows, not scaled yet.

    Args:
        rows: string `(batch,)`.
        positions: Places of the `n` cells.
        log: Whether the logarithm is taken.

    Returns:
        float64 `(batch, n)`, NaN where there is no number.
    """
    found = tf.gather(cells.split(rows, max(positions) + 1), positions, axis=1)
    values = cells.numbers(found)
    return tf.sign(values) * tf.math.log1p(tf.abs(values)) if log else values


def mean_and_deviation(
    rows: Sequence[str], positions: Sequence[int], log: bool, chunk: int = 4096
) -> tuple[list[float], list[float]]:
    """What `CellNumbers` takes, measured on the rows that a tower is trained on.

    Args:
        rows: Rows of a table.
        positions: Places of the `n` cells.
        log: Whether the logarithm is taken.
        chunk: Rows read at a time.

    Returns:
        `n` means and `n` standard deviations of the numbers that are there; 0 where
        there is none, and a deviation of 1 where all are the same.
    """
    parts = [
        read(tf.constant(rows[start : start + chunk], tf.string), positions, log)
        for start in range(0, len(rows), chunk)
    ]
    values = np.concatenate([np.zeros((0, len(positions))), *parts])
    means, deviations = [], []
    for column in values.T:
        column = column[~np.isnan(column)]
        means.append(float(column.mean()) if len(column) else 0.0)
        # Equal numbers may differ in their last bit once a mean was taken off.
        varied = len(column) > 0 and column.min() < column.max()
        deviations.append(float(column.std()) if varied else 1.0)
    return means, deviations
