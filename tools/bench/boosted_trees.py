"""Compiled trees beside `lightgbm.predict`.

    python tools/bench/boosted_trees.py [--labels 27] [--rounds 100]

Two ensembles on the same made-up rows: one tree a label and round (paper D's form, of
four columns a label), and a single small set of trees as the shared form has. Both
programs answer the same batches in turn, on all cores; printed are the medians' ratio,
compiled by LightGBM, and the greatest difference of raw scores. How long the head takes
to be fitted: `tools/bench/heads.py --only boosted_trees`.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import lightgbm
import numpy as np
import tensorflow as tf
import typer

from tfmm.errors import command_line
from tfmm.layers.tree_ensemble import TreeEnsemble
from tfmm.settings import BoostedTrees
from tfmm.trees import read_trees

BATCHES = (1, 32, 256)
DEFAULTS = BoostedTrees(model="boosted_trees", towers=["title", "image"])
TURNS = 15


def grow(labels: int, rounds: int, columns: int) -> lightgbm.Booster:
    """Trees of the head's default size; a tenth of the values are missing."""
    generator = np.random.default_rng(0)
    rows = np.float32(generator.normal(size=(4_000, columns)))
    truth = rows[:, :labels].argmax(axis=1) if labels > 2 else rows[:, 0] > rows[:, 1]
    rows[generator.random(rows.shape) < 0.1] = np.nan
    objective = {"objective": "multiclass", "num_class": labels}
    return lightgbm.train(
        {
            **(objective if labels > 2 else {"objective": "binary"}),
            **{"num_leaves": DEFAULTS.num_leaves, "max_depth": DEFAULTS.max_depth},
            **{"verbosity": -1, "seed": 0},
        },
        lightgbm.Dataset(rows, truth),
        rounds,
    )


def in_turn(first: Callable, second: Callable) -> tuple[float, float]:
    """Median seconds of two calls that are made in turn."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for call in (first, second):
        call()  # the first call traces
    for _ in range(TURNS):
        for call, spent in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            call()
            spent.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def answer(compiled: Callable, rows: tf.Tensor) -> np.ndarray:
    """What a graph says, in NumPy as LightGBM's answer is."""
    return compiled(rows).numpy()


def compare(name: str, booster: lightgbm.Booster, rows_a_product: int) -> None:
    """Prints a line for each batch size; a product is so many rows."""
    layer = TreeEnsemble.holding(read_trees(booster.model_to_string()))
    columns = booster.num_feature()
    signature = [tf.TensorSpec([None, columns], tf.float32)]
    compiled = tf.function(layer, input_signature=signature)
    for batch in BATCHES:
        generator = np.random.default_rng(batch)
        rows = np.float32(generator.normal(size=(batch * rows_a_product, columns)))
        rows[generator.random(rows.shape) < 0.1] = np.nan
        asked = tf.constant(rows)
        ours, theirs = in_turn(
            partial(answer, compiled, asked), partial(booster.predict, rows)
        )
        raw = booster.predict(rows, raw_score=True).reshape(len(rows), -1)
        difference = float(np.abs(compiled(asked).numpy() - raw).max())
        print(
            f"{name:<10} batch {batch:>3}: compiled {1000 * ours:7.1f} ms, LightGBM "
            f"{1000 * theirs:7.1f} ms, ratio {ours / theirs:5.2f}, difference "
            f"{difference:.1e}",
            flush=True,
        )


def boosted_trees(
    labels: Annotated[int, typer.Option(min=3)] = 27,
    rounds: Annotated[int, typer.Option(min=1)] = 100,
) -> None:
    """Times compiled trees beside LightGBM's own."""
    compare("per_label", grow(labels, rounds, 4 * labels), 1)
    compare("shared", grow(2, rounds, 20), labels)


if __name__ == "__main__":
    command_line(boosted_trees, "python tools/bench/boosted_trees.py")
