"""Compiled trees are held against LightGBM itself."""

import keras
import lightgbm
import numpy as np
import pytest
import tensorflow as tf

from tfmm.layers import LAYERS
from tfmm.layers.tree_ensemble import TreeEnsemble
from tfmm.trees import read_trees

ROWS, FEATURES = 10_000, 8
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-36, -1e-36, 1e-35, 3e38)


def grow(seed=0, classes=3, rounds=25, missing=True, **options):
    """A booster, and its training rows with gaps and zeros among them."""
    generator = np.random.default_rng(seed)
    x = np.float32(generator.normal(size=(2_000, FEATURES)))
    x[generator.random(x.shape) < 0.1] = 0.0
    score = np.nansum(x[:, :3] * (1.0, -2.0, 0.5), axis=1) + x[:, 3] ** 2
    y = np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))
    if missing:
        x[generator.random(x.shape) < 0.15] = np.nan
    objective = {"objective": "multiclass", "num_class": classes}
    if classes == 2:
        objective = {"objective": "binary"}
    options = {
        **{"num_leaves": 15, "max_depth": 6, "verbosity": -1, "num_threads": 1},
        **{"deterministic": True, "force_row_wise": True, "seed": 0},
        **objective,
        **options,
    }
    return lightgbm.train(options, lightgbm.Dataset(x, y), rounds)


def splits_of(booster):
    """Feature and threshold, rounded to float32, of every split of every tree."""

    def numbers(key, kind):
        lines = booster.model_to_string().splitlines()
        found = [x.split("=")[1].split() for x in lines if x.startswith(f"{key}=")]
        return np.array([kind(x) for line in found for x in line])

    return numbers("split_feature", int), np.float32(numbers("threshold", float))


def asked(booster):
    """Rows with everything that trees could take another way among them."""
    generator = np.random.default_rng(1)
    rows = np.float32(generator.normal(size=(ROWS, FEATURES)))
    special = generator.random(rows.shape) < 0.2
    rows[special] = generator.choice(np.float32(SPECIAL), size=int(special.sum()))
    # Values exactly at thresholds, and the float32 neighbours of those that are none.
    columns, cuts = splits_of(booster)
    for row in generator.choice(ROWS, size=3_000, replace=False):
        cut = generator.integers(max(len(cuts), 1))
        if not len(cuts):
            break
        value = cuts[cut]
        side = generator.integers(3)
        if side:
            value = np.nextafter(value, np.float32([-np.inf, np.inf][side - 1]))
        rows[row, columns[cut]] = value
    rows[0], rows[1] = np.nan, 0.0
    return rows


BOOSTERS = {
    "several labels": {},
    "two labels": {"classes": 2},
    "nothing missing in training": {"missing": False},
    "missing values are not told apart": {"use_missing": False},
    "zero is missing": {"zero_as_missing": True},
    "one tree a label": {"rounds": 1},
    "stumps": {"num_leaves": 2},
    "a leaf and nothing else": {"min_data_in_leaf": 1_900, "rounds": 2},
    "more than 31 leaves": {"num_leaves": 60, "max_depth": -1},
}


@pytest.mark.parametrize("kind", BOOSTERS)
def test_scores_and_probabilities_are_lightgbms(kind):
    booster = grow(**BOOSTERS[kind])
    layer = TreeEnsemble.of_lightgbm(booster.model_to_string())
    rows = asked(booster)
    found = np.asarray(layer(rows), np.float64)
    expected = booster.predict(rows, raw_score=True).reshape(ROWS, -1)
    scale = np.maximum(np.abs(expected), 1.0)
    assert np.abs((found - expected) / scale).max() < 1e-6
    said = booster.predict(rows)
    if found.shape[1] == 1:
        probabilities = 1.0 / (1.0 + np.exp(-found[:, 0]))
    else:
        probabilities = np.asarray(tf.nn.softmax(found, axis=-1))
    np.testing.assert_allclose(probabilities, said, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def layer():
    return TreeEnsemble.of_lightgbm(grow().model_to_string(), name="trees")


def test_it_is_the_same_after_saving(layer, tmp_path):
    rows = np.float32(np.random.default_rng(2).normal(size=(50, FEATURES)))
    inputs = keras.Input((FEATURES,))
    keras.Model(inputs, layer(inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=LAYERS)
    np.testing.assert_array_equal(loaded(rows), layer(rows))


def test_any_batch_in_a_graph_and_exported(layer, tmp_path):
    rows = np.float32(np.random.default_rng(2).normal(size=(50, FEATURES)))
    root = tf.Module()
    root.held = [weight.value for weight in layer.weights]
    root.serve = tf.function(
        layer, input_signature=[tf.TensorSpec([None, FEATURES], tf.float32)]
    )
    tf.saved_model.save(root, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    for count in (0, 1, 50):
        said = loaded.serve(rows[:count])
        np.testing.assert_array_equal(said, layer(rows[:count]))
        assert said.shape == (count, 3)


def test_rows_that_are_not_asked_cost_nothing_and_say_nothing(layer):
    rows = np.float32(np.random.default_rng(2).normal(size=(4, 5, FEATURES)))
    where = np.random.default_rng(3).random((4, 5)) < 0.5
    some, all_of_them = np.asarray(layer(rows, where)), np.asarray(layer(rows))
    np.testing.assert_array_equal(some[where], all_of_them[where])
    assert not some[~where].any()


def test_training_leaves_the_trees_as_they_are(layer):
    assert not layer.trainable_weights
    assert {weight.dtype for weight in layer.weights} >= {"float64", "float32", "int32"}


def test_what_is_not_understood_is_refused():
    generator = np.random.default_rng(0)
    x = np.column_stack([generator.integers(5, size=400), generator.normal(size=400)])
    y = (x[:, 0] > 2).astype(int)
    quiet = {"objective": "binary", "verbosity": -1}
    kinds = {
        "categorical": lightgbm.train(
            {**quiet, "min_data_per_group": 1},
            lightgbm.Dataset(x, y, categorical_feature=[0]),
            2,
        ),
        "linear": lightgbm.train(
            {**quiet, "linear_tree": True}, lightgbm.Dataset(x, y), 2
        ),
        "average_output": lightgbm.train(
            {**quiet, "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
            lightgbm.Dataset(x, y),
            2,
        ),
    }
    for booster in kinds.values():
        with pytest.raises(ValueError, match=r"expected|Received"):
            read_trees(booster.model_to_string())
    with pytest.raises(ValueError, match="whole LightGBM text model"):
        read_trees(grow().model_to_string()[:500])
