"""SHAP values of boosted trees, by LightGBM itself, summed by what they tell of."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import lightgbm
import numpy as np

from tfmm.errors import RunError
from tfmm.head_data import array_batches
from tfmm.heads.candidates import subjects

PRODUCTS_AT_ONCE = 256
# LightGBM answers for every label at once: so many float64 in memory.
NUMBERS_AT_ONCE = 2**25
# What SHAP values may differ from the raw score by, of the larger of it and 1; and what
# that score, in float64, from what the head's own trees say in float32.
LARGEST_GAP, LARGEST_DIFFERENCE = 1e-6, 1e-4


@dataclass(frozen=True)
class ShapValues:
    """Why trees score `m` products' labels as they do.

    Attributes:
        asked: bool `(n,)`: the `m` of the products that have a score for their label.
        of: float `(m, towers)`: what the trees are told of each model that they hear.
        beside: In form `shared`, float `(m,)` each: `together`, of what they are told
            of all models at once, and `label_share`, of how frequent the label was.
        bias: float `(m,)`: the mean score where the trees were grown.
        score: float `(m,)`: LightGBM's raw score.
        largest_gap: Between the score and the sum of all the others.
    """

    asked: np.ndarray
    of: np.ndarray
    beside: Mapping[str, np.ndarray]
    bias: np.ndarray
    score: np.ndarray
    largest_gap: float


def explain(
    model: keras.Model,
    form: str,
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    labels: np.ndarray,
    where: str,
) -> ShapValues:
    """Takes the raw scores of products' labels apart.

    Args:
        model: What `tfmm.heads.boosted_trees` built, with the trees' source.
        form: `shared` or `per_label`.
        inputs: What the head hears of `n` products.
        labels: int `(n,)`, a label of each.
        where: The model's file, for messages.

    Raises:
        RunError: If the values do not add up to the scores, or the scores are not
            those of the head's trees.

    Reference:
    - [Lundberg et al., 2018](https://arxiv.org/abs/1802.03888)
    """
    trees = model.get_layer("trees")
    told, asked, own = _told(model, form, inputs, labels)
    booster = lightgbm.Booster(model_str=trees.source)
    num_towers = len(inputs)
    if form == "shared":
        kinds, places = subjects(num_towers), np.zeros(len(told), int)
    else:
        kinds = np.repeat(np.arange(num_towers), told.shape[1] // num_towers)
        places = labels[asked]
    values, score = _values(booster, told, places, trees.num_classes)
    gap = np.abs(values.sum(axis=1) - score)
    apart = np.abs(own - score) > LARGEST_DIFFERENCE * np.maximum(np.abs(score), 1.0)
    if (gap > LARGEST_GAP * np.maximum(np.abs(score), 1.0)).any() or apart.any():
        raise RunError(
            f"{where}: LightGBM's SHAP values must add up to its raw scores, and these "
            "be those of the head's trees. Received: differences of up to "
            f"{gap.max():.2g} and {np.abs(own - score).max():.2g}"
        )
    sums = np.zeros((len(told), int(kinds.max(initial=0)) + 1))
    np.add.at(sums.T, kinds, values[:, :-1].T)
    beside = {}
    if form == "shared":
        beside = {"together": sums[:, -2], "label_share": sums[:, -1]}
    return ShapValues(
        asked=asked,
        of=sums[:, :num_towers],
        beside=beside,
        bias=values[:, -1],
        score=score,
        largest_gap=float(gap.max(initial=0.0)),
    )


def _told(
    model: keras.Model,
    form: str,
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    labels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the trees are told of each product's label: float32 `(m, F)`; which of the
    products have a score for it; and that score by the head's own trees `(m,)`.
    """
    trees = model.get_layer("trees")
    teller = keras.Model(model.input, [trees.input, trees.output])
    rows, has, scores = [], [], []
    start = 0
    for batch in array_batches(dict(inputs), PRODUCTS_AT_ONCE):
        read, said = teller(batch, training=False)
        size = len(said)
        own = labels[start : start + size]
        each = np.arange(size)
        if form == "shared":
            told, asked = (x.numpy() for x in read)
            here = asked[each, own]
            rows.append(told[each, own][here])
            scores.append(said.numpy()[each, own, 0][here])
        else:
            here = np.ones(size, bool)
            rows.append(read.numpy())
            scores.append(said.numpy()[each, own])
        has.append(here)
        start += size
    return np.concatenate(rows), np.concatenate(has), np.concatenate(scores)


def _values(
    booster: lightgbm.Booster, told: np.ndarray, places: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """SHAP values float64 `(m, F + 1)`, the last one the bias, and scores `(m,)`."""
    width = told.shape[1] + 1
    step = max(1, NUMBERS_AT_ONCE // (width * num_classes))
    values, scores = [], []
    for start in range(0, len(told), step):
        rows = told[start : start + step]
        each, place = np.arange(len(rows)), places[start : start + step]
        said = booster.predict(rows, pred_contrib=True)
        values.append(said.reshape(len(rows), num_classes, width)[each, place])
        said = booster.predict(rows, raw_score=True)
        scores.append(said.reshape(len(rows), num_classes)[each, place])
    return np.concatenate(values), np.concatenate(scores)
