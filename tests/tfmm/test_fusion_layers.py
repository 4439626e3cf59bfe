"""Layers of early fusion, through the bench of layers with weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm.layers import LAYERS
from tfmm.layers.absent_vector import AbsentVector
from tfmm.layers.convolution_projection import ConvolutionProjection
from tfmm.layers.cross_products import CrossProducts
from tfmm.layers.highway import Highway

GENERATOR = np.random.default_rng(0)
A, B, C = (GENERATOR.normal(size=(2, 4)).astype(np.float32) for _ in range(3))
PRESENT = np.array([True, False])
# layer, arguments, shape of the output, shapes of the weights
BENCH = {
    "AbsentVector": (AbsentVector, {}, [A, PRESENT], (2, 4), [(4,)]),
    "ConvolutionProjection": (
        ConvolutionProjection,
        {"units": 3, "activation": "tanh", "kernel_regularizer": "l2"},
        [A],
        (2, 3),
        [(2, 1, 1), (1,)],
    ),
    "CrossProducts": (CrossProducts, {}, [[A, B, C[:, :1]]], (2, 24), []),
    "Highway": (
        Highway,
        {"kernel_regularizer": "l2"},
        [[A, B, C]],
        (2, 4),
        [(12, 12), (12,)],
    ),
}


def made(name, **options):
    kind, own, arguments, _, _ = BENCH[name]
    keras.utils.set_random_seed(0)
    layer = kind(**own, **options)
    layer(*arguments)
    for weight in layer.weights:
        weight.assign(weight + 0.1 * GENERATOR.normal(size=weight.shape))
    return layer


def specs(arguments):
    return keras.tree.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), arguments
    )


@pytest.mark.parametrize("name", BENCH)
def test_layer_is_the_same_eager_symbolic_traced_and_exported(name, tmp_path):
    _, _, arguments, shape, weights = BENCH[name]
    layer = made(name)
    assert [tuple(x.shape) for x in layer.weights] == weights
    expected = np.asarray(layer(*arguments))
    assert expected.shape == shape
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=str(x.dtype)), arguments
    )
    symbolic = layer(*inputs)
    assert symbolic.shape == (None, *shape[1:])
    root = tf.Module()
    root.layer = layer
    root.call = tf.function(layer, input_signature=specs(arguments))
    concrete = root.call.get_concrete_function()
    assert concrete.output_shapes.as_list() == [None, *shape[1:]]
    tf.saved_model.save(root, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for said in (root.call(*arguments), loaded.call(*arguments)):
        np.testing.assert_allclose(said, expected, rtol=1e-6)


@pytest.mark.parametrize("name", BENCH)
def test_layer_is_read_back_from_a_file(name, tmp_path):
    arguments = BENCH[name][2]
    layer = made(name)
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(x.shape[1:], dtype=str(x.dtype)), arguments
    )
    keras.Model(inputs, layer(*inputs)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects=LAYERS, compile=False
    )
    np.testing.assert_array_equal(loaded(arguments), layer(*arguments))
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert len(loaded.losses) == len(layer.losses)


@pytest.mark.parametrize("name", [x for x in BENCH if BENCH[x][4]])
def test_one_step_moves_every_weight(name):
    _, own, arguments, _, _ = BENCH[name]
    layer = BENCH[name][0](**own)
    layer(*arguments)
    before = [np.asarray(x) for x in layer.weights]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(*arguments) ** 2 + layer(*arguments))
    rule = keras.optimizers.SGD(0.1)
    rule.apply(tape.gradient(loss, layer.trainable_weights), layer.trainable_weights)
    for old, new in zip(before, layer.weights, strict=True):
        assert not np.array_equal(old, new)


@pytest.mark.parametrize("name", BENCH)
def test_layer_follows_a_half_precision_policy(name):
    arguments = BENCH[name][2]
    full, half = made(name), made(name, dtype="float16")
    for source, target in zip(full.weights, half.weights, strict=True):
        target.assign(source)
    said = half(*arguments)
    assert said.dtype == tf.float16
    np.testing.assert_allclose(np.float32(said), full(*arguments), atol=1e-2)


def test_an_absent_tower_gets_the_learned_vector_whatever_its_input():
    layer = made("AbsentVector")
    said = layer(A, PRESENT).numpy()
    np.testing.assert_array_equal(said[0], A[0])
    np.testing.assert_array_equal(said[1], layer.vector)
    other = np.where(PRESENT[:, None], A, np.nan)
    np.testing.assert_array_equal(layer(other, PRESENT), said)


def test_a_highway_of_two_is_transform_and_carry():
    layer = Highway()
    layer([A, B])
    kernel, bias = GENERATOR.normal(size=(8, 8)), GENERATOR.normal(size=8)
    layer.set_weights([kernel, bias])
    scores = np.concatenate([A, B], axis=1) @ kernel + bias
    gate = 1 / (1 + np.exp(scores[:, 4:] - scores[:, :4]))
    np.testing.assert_allclose(layer([A, B]), gate * A + (1 - gate) * B, atol=1e-6)


def test_a_new_highway_is_the_mean():
    np.testing.assert_allclose(Highway()([A, B, C]), (A + B + C) / 3, atol=1e-6)


def test_cross_products_are_those_of_numpy_for_every_pair():
    pairs = [(A, B), (A, C), (B, C)]
    outer = [np.einsum("bi,bj->bij", x, y).reshape(2, -1) for x, y in pairs]
    np.testing.assert_array_equal(
        CrossProducts()([A, B, C]), np.concatenate(outer, axis=1)
    )


def test_a_wide_vector_is_convolved_as_by_keras():
    wide = GENERATOR.normal(size=(2, 11)).astype(np.float32)
    layer = ConvolutionProjection(3)
    said = layer(wide)
    # 11 // 3 = 3 apart; 11 - 2 * 3 = 5 wide, so that the last ends at the end.
    reference = keras.layers.Conv1D(1, 5, strides=3)
    reference.build((None, 11, 1))
    reference.set_weights(layer.get_weights())
    np.testing.assert_allclose(said, reference(wide[..., None])[..., 0], atol=1e-6)


def test_a_narrow_vector_is_convolved_with_zeros_around_it():
    layer = ConvolutionProjection(4)
    layer(np.ones((1, 2), np.float32))
    layer.set_weights([np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1), np.array([0.5])])
    said = layer(np.array([[1.0, 2.0]], np.float32)).numpy()
    assert said.tolist() == [[100.5, 210.5, 21.5, 2.5]]


@pytest.mark.parametrize(("units", "weights"), [(768, 515), (2048, 2), (3000, 954)])
def test_a_convolution_has_few_weights_and_every_width(units, weights):
    layer = ConvolutionProjection(units)
    assert layer(np.ones((1, 2048), np.float32)).shape == (1, units)
    assert layer.count_params() == weights


def test_layers_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="`units` must be at least 1"):
        ConvolutionProjection(0)
    with pytest.raises(ValueError, match="rank 2"):
        ConvolutionProjection(2)(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="rank 2"):
        AbsentVector()(np.ones((2, 3, 4)), PRESENT)
    with pytest.raises(ValueError, match="vectors of one width"):
        Highway()([A, B[:, :2]])
    with pytest.raises(ValueError, match="two or more"):
        CrossProducts()([A])
    wide = np.ones((1, 200), np.float32)
    with pytest.raises(ValueError, match=r"at most 16,384 products. Received: 40,000"):
        CrossProducts()([wide, wide])
