"""GroupedConvolution2D against the convolution of Keras that needs XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfmm.layers.grouped_convolution_2d import GroupedConvolution2D
from tfmm.layers.squeeze_excitation import SqueezeExcitation

IMAGES = np.random.default_rng(0).normal(size=(2, 6, 7, 64)).astype(np.float32)
CASES = {
    "as in SE-ResNeXt": {"padding": "valid", "use_bias": False},
    "strided": {"padding": "valid", "strides": 2, "use_bias": False},
    "padded, strided": {"padding": "same", "strides": 2},
    "dilated": {"padding": "same", "dilation_rate": 2},
    "one group": {"padding": "same", "groups": 1},
}


def with_gradients(layer, images):
    with tf.GradientTape() as tape:
        images = tf.constant(images)
        tape.watch(images)
        output = layer(images)
        loss = tf.reduce_sum(tf.sin(output))
    variables = [x.value for x in layer.trainable_variables]
    return [output, *tape.gradient(loss, [images, *variables])]


def pair(**options):
    """Ours and Keras's; ours takes Keras's weights as they are."""
    options = {"groups": 32, "kernel_size": 3, "filters": 96, **options}
    ours, theirs = GroupedConvolution2D(**options), keras.layers.Conv2D(**options)
    theirs.build(IMAGES.shape)
    ours.build(IMAGES.shape)
    ours.set_weights(theirs.get_weights())
    return ours, theirs


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_keras(case):
    ours, theirs = pair(**CASES[case])
    expected = with_gradients(theirs, IMAGES)
    assert len(expected) == 2 + len(theirs.weights)
    for a, b in zip(with_gradients(ours, IMAGES), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_unknown_batches_are_traced_and_exported_without_xla(tmp_path):
    layer = pair(padding="same", strides=2)[0]
    expected = layer(IMAGES)
    root = tf.Module()
    root.layer = layer
    root.call = tf.function(
        layer, input_signature=[tf.TensorSpec((None, 6, 7, 64), tf.float32)]
    )
    assert root.call.get_concrete_function().output_shapes.as_list() == [None, 3, 4, 96]
    np.testing.assert_allclose(root.call(IMAGES), expected, atol=1e-6)
    tf.saved_model.save(root, str(tmp_path))
    again = tf.saved_model.load(str(tmp_path))
    np.testing.assert_allclose(again.call(IMAGES), expected, atol=1e-6)
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((tmp_path / "saved_model.pb").read_bytes())
    functions = saved.meta_graphs[0].graph_def.library.function
    assert "Conv2D" in {node.op for f in functions for node in f.node_def}
    assert not [f for f in functions if "_XlaMustCompile" in f.attr]


@pytest.mark.parametrize(
    "layer",
    [
        GroupedConvolution2D(96, 3, groups=32, strides=2, padding="same"),
        SqueezeExcitation(reduction=8),
    ],
    ids=lambda x: type(x).__name__,
)
def test_layer_is_the_same_symbolic_and_loaded(layer, tmp_path):
    model = keras.Sequential([keras.Input((6, 7, 64)), layer])
    expected = model(IMAGES)
    assert model.output_shape == (None, *expected.shape[1:])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(IMAGES), expected, atol=1e-6)
    assert again.layers[0].get_config() == layer.get_config()


@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: GroupedConvolution2D(96, 3, groups=32, dtype=dtype),
        lambda dtype: SqueezeExcitation(dtype=dtype),
    ],
)
def test_layer_trains_in_mixed_precision(make):
    half, full = make("mixed_bfloat16"), make("float32")
    full.build(IMAGES.shape)
    half.build(IMAGES.shape)
    half.set_weights(full.get_weights())
    expected = with_gradients(full, IMAGES)
    said = with_gradients(half, IMAGES)
    assert said[0].dtype == tf.bfloat16
    for a, b in zip(said, expected, strict=True):
        scale = float(np.abs(b).max())
        np.testing.assert_allclose(tf.cast(a, tf.float32) / scale, b / scale, atol=0.05)


def test_squeeze_excitation_weighs_channels_by_their_means():
    layer = SqueezeExcitation(reduction=2)
    maps = np.array([[[[1.0, -2.0]], [[3.0, -6.0]]]], np.float32)
    layer.build(maps.shape)
    weights = [[[1.0], [1.0]], [4.0], [[1.0, -1.0]], [0.0, 0.0]]
    layer.set_weights([np.array(x, np.float32) for x in weights])
    hidden = 2.0 - 4.0 + 4.0
    factor = 1 / (1 + np.exp(-hidden * np.array([1.0, -1.0])))
    np.testing.assert_allclose(layer(maps), maps * factor, rtol=1e-5)


def test_layers_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="groups"):
        GroupedConvolution2D(30, 3, groups=32)
    with pytest.raises(ValueError, match="`reduction` must be at least 1"):
        SqueezeExcitation(0)
    with pytest.raises(ValueError, match="rank 4"):
        SqueezeExcitation()(np.ones((2, 3)))
