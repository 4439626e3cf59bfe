"""Stored outputs of several towers as what a head is trained and asked on."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfmm.dataset import keep_some


def take(inputs: dict, rows: np.ndarray) -> dict:
    """Some rows of nested arrays `(n, ...)`."""
    return tf.nest.map_structure(lambda array: array[rows], inputs)


def array_batches(inputs: dict, size: int) -> Iterator[dict]:
    """The towers' outputs in order, `size` products at a time."""
    count = len(next(iter(inputs.values()))["present"])
    for start in range(0, count, size):
        yield take(inputs, np.arange(start, min(start + size, count)))


def one_output(model: keras.Model, inputs: dict, size: int = 1_024) -> np.ndarray:
    """The one output `(n, ...)` of a model of stored outputs, `size` products a time.

    `keras.Model.predict` would trace a graph for each of the many small models of
    heads, and warn of it.
    """
    return np.concatenate([model(x).numpy() for x in array_batches(inputs, size)])


def hide_towers(
    inputs: dict, rate: float, seed: tuple[int, int], units: Sequence[int]
) -> dict:
    """Hides towers from a random share of the products; see `dataset.keep_some`."""
    if not rate:
        return inputs
    present = np.stack([x["present"] for x in inputs.values()], axis=1)
    return hidden(inputs, keep_some(present, rate, (*seed, 2), units))


def hidden(inputs: dict, kept: np.ndarray) -> dict:
    """The towers' outputs with zeros where `kept`, bool `(n, towers)`, is false."""
    return {
        tower: {
            "features": values["features"] * kept[:, position, None],
            "logits": values["logits"] * kept[:, position, None],
            "present": kept[:, position],
        }
        for position, (tower, values) in enumerate(inputs.items())
    }
