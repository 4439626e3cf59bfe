"""Every layer through one bench."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm.layers.max_over_time import MaxOverTime
from tfmm.layers.pool_tokens import PoolTokens
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.unit_features import UnitFeatures

PRESENT = np.array([[True, False], [False, False]])
BENCH = {
    "MaxOverTime": (
        lambda dtype: MaxOverTime(kernel_size=2, dtype=dtype),
        [
            np.random.default_rng(0).random((2, 3, 5), np.float32),
            np.array([[4, 5, 6, 0], [3, 0, 0, 0]], np.int32),
        ],
        (2, 5),
    ),
    "PoolTokens": (
        lambda dtype: PoolTokens("mean", dtype=dtype),
        [
            np.random.default_rng(0).random((2, 3, 4), np.float32),
            np.array([[1, 1, 0], [1, 0, 0]], np.int32),
        ],
        (2, 4),
    ),
    "PriorWhenAbsent": (
        lambda dtype: PriorWhenAbsent([0.5, -0.5, 0.0], dtype=dtype),
        [np.ones((2, 3), np.float32), PRESENT],
        (2, 3),
    ),
    "UnitFeatures": (
        lambda dtype: UnitFeatures(dtype=dtype),
        [[np.ones((2, 4), np.float32), np.ones((2, 1), np.float32)], PRESENT],
        (2, 5),
    ),
}


def specs(arguments):
    return keras.tree.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), arguments
    )


@pytest.mark.parametrize("name", BENCH)
def test_layer_is_the_same_eager_symbolic_traced_and_from_its_config(name):
    make, arguments, shape = BENCH[name]
    layer = make("float32")
    expected = np.asarray(layer(*arguments))
    assert expected.shape == shape
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=str(x.dtype)), arguments
    )
    symbolic = make("float32")(*inputs)
    assert symbolic.shape == (None, *shape[1:])
    traced = tf.function(layer, input_signature=specs(arguments))
    assert traced.get_concrete_function().output_shapes.as_list() == [None, *shape[1:]]
    np.testing.assert_array_equal(traced(*arguments), expected)
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(again(*arguments), expected)
    assert not layer.weights


@pytest.mark.parametrize("name", BENCH)
def test_layer_is_the_same_in_a_saved_model(name, tmp_path):
    make, arguments, _ = BENCH[name]
    layer = make("float32")
    expected = np.asarray(layer(*arguments))
    root = tf.Module()
    root.call = tf.function(layer, input_signature=specs(arguments))
    tf.saved_model.save(root, str(tmp_path))
    np.testing.assert_array_equal(
        tf.saved_model.load(str(tmp_path)).call(*arguments), expected
    )


@pytest.mark.parametrize("name", BENCH)
def test_layer_follows_a_half_precision_policy(name):
    make, arguments, _ = BENCH[name]
    half = make("float16")(*arguments)
    assert half.dtype == tf.float16
    full = make("float32")(*arguments)
    np.testing.assert_allclose(np.float32(half), full, atol=1e-3)


def test_max_over_time_leaves_windows_on_padding_out():
    windows = np.array([[[1.0], [2.0], [9.0]]], np.float32)
    three_words = np.array([[7, 7, 7, 0]])
    assert MaxOverTime(2)(windows, three_words).numpy() == [[2.0]]
    one_word = np.array([[7, 0, 0, 0]])
    assert MaxOverTime(2)(windows, one_word).numpy() == [[1.0]]
    no_word = np.array([[0, 0, 0, 0]])
    assert MaxOverTime(2)(windows, no_word).numpy() == [[1.0]]


def test_unit_features_have_length_one_or_zero():
    vectors = [np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)] * 2
    present = np.array([[True, False], [False, False]])
    lengths = np.linalg.norm(UnitFeatures()(vectors, present), axis=1)
    np.testing.assert_allclose(lengths, [1.0, 0.0], atol=1e-6)


def test_layers_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="kernel_size"):
        MaxOverTime(0)
    with pytest.raises(ValueError, match="rank 3"):
        MaxOverTime(1)(np.ones((2, 3)), np.ones((2, 3), int))
    with pytest.raises(ValueError, match="3 columns"):
        PriorWhenAbsent([1, 2, 3])(np.ones((2, 2)), PRESENT)
