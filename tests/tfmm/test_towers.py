"""Claims about every tower, whatever it reads."""

import keras
import numpy as np
import pytest
from keras import ops

from tfmm.errors import ExperimentError
from tfmm.settings import TOWER_KINDS, ResNet50, TextCnn
from tfmm.towers import TOWERS
from tfmm.towers.output import finish, initialize


def settings(**own):
    return ResNet50(model="resnet50", modality="image", image_size=32, **own)


def small_tower(own):
    """A tower of three dense layers over a little image."""
    inputs = keras.Input((4, 4, 3), name="image")
    maps = keras.layers.Conv2D(5, 1, name="maps")(inputs)
    hidden = keras.layers.Dense(6, "relu", name="hidden")(ops.mean(maps, (1, 2)))
    return finish(own, inputs, hidden, num_classes=7)


def test_every_tower_has_its_modality_and_its_builder():
    # tbva is built on two trained towers, by a door of its own.
    assert set(TOWERS) | {"tbva"} == set(TOWER_KINDS)


def test_features_are_what_the_logits_are_made_from():
    model = small_tower(settings())
    images = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    said = model({"image": images}, training=False)
    kernel, bias = model.get_layer("logits").get_weights()
    expected = np.asarray(said["features"]) @ kernel + bias
    np.testing.assert_allclose(said["logits"], expected, rtol=1e-5)


def test_features_from_takes_an_inner_layer_and_leaves_the_logits():
    images = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    keras.utils.set_random_seed(1)
    plain = small_tower(settings())
    keras.utils.set_random_seed(1)
    inner = small_tower(settings(features_from="maps"))
    said = inner({"image": images}, training=False)
    maps = inner.get_layer("maps")(images)
    np.testing.assert_allclose(said["features"], ops.mean(maps, (1, 2)), rtol=1e-5)
    expected = plain({"image": images}, training=False)["logits"]
    np.testing.assert_allclose(said["logits"], expected, rtol=1e-6)


def test_features_from_a_layer_that_is_not_there_names_the_nearest():
    message = "'hiden' is none of its layers; did you mean 'hidden'"
    with pytest.raises(ExperimentError, match=message):
        small_tower(settings(features_from="hiden"))


def test_features_from_a_layer_without_one_vector_a_product_stop():
    inputs = keras.Input((4, 3), name="image")
    steps = keras.layers.Dense(5, name="each_step")(inputs)
    own = settings(features_from="each_step")
    with pytest.raises(ExperimentError, match="one vector or one feature map"):
        finish(own, inputs, ops.mean(steps, 1), num_classes=7)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float16"])
def test_outputs_are_float32_whatever_the_policy(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small_tower(settings())
    finally:
        keras.config.set_dtype_policy("float32")
    assert {x.dtype for x in model.output.values()} == {"float32"}
    said = model({"image": np.ones((2, 4, 4, 3), np.float32)})
    assert {str(x.dtype.name) for x in said.values()} == {"float32"}


def test_first_weights_of_paper_b_are_cut_off_at_two_deviations():
    model = small_tower(settings())
    kept = model.get_layer("maps").weights
    before = [np.asarray(x).copy() for x in kept]
    biases = [np.asarray(x) for x in model.weights if len(x.shape) == 1]
    initialize(model, 0.01, seed=3, loaded={id(x) for x in kept})
    for first, second in zip(before, kept, strict=True):
        np.testing.assert_array_equal(first, second)
    drawn = np.concatenate(
        [np.asarray(model.get_layer(x).kernel).ravel() for x in ("hidden", "logits")]
    )
    assert np.abs(drawn).max() <= 0.02
    # A normal cut off at two deviations spreads 0.88 of it.
    assert 0.006 < drawn.std() < 0.011
    after = [np.asarray(x) for x in model.weights if len(x.shape) == 1]
    for first, second in zip(biases, after, strict=True):
        np.testing.assert_array_equal(first, second)
    again = small_tower(settings())
    initialize(again, 0.01, seed=3, loaded=set())
    np.testing.assert_array_equal(
        again.get_layer("logits").kernel, model.get_layer("logits").kernel
    )


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"stages": [{"trainable_layers": 3}]},
            "stage 1: 'trainable_layers' must be \"all\" where no weights are loaded",
        ),
        (
            {"stages": [{}, {"optimizer": "adam", "momentum": 0.9}]},
            "stage 2: 'momentum' goes with rmsprop or sgd",
        ),
        ({"warmup_epochs": 9.0, "max_epochs": 3}, "must not exceed max_epochs = 3"),
        ({"optimizer": "sgd", "epsilon": 0.1}, "'epsilon' does not go with sgd"),
    ],
)
def test_stages_that_contradict_themselves_are_refused(own, message):
    with pytest.raises(ValueError, match=message):
        settings(**own)


def test_a_stage_inherits_what_it_does_not_say():
    own = settings(
        weights="imagenet",
        optimizer="rmsprop",
        momentum=0.9,
        epsilon=0.1,
        learning_rate=1e-3,
        stages=[{"trainable_layers": 0}, {"learning_rate": 1e-4, "max_epochs": 7}],
    )
    (first_layers, first), (second_layers, second) = own.stage_plan()
    assert (first_layers, second_layers) == (0, "all")
    assert (first.learning_rate, second.learning_rate) == (1e-3, 1e-4)
    assert first.epsilon == second.epsilon == 0.1
    assert second.max_epochs == 7


def test_a_network_without_a_backbone_has_no_layers_to_freeze():
    with pytest.raises(ValueError, match="needs a network with a backbone"):
        TextCnn(model="text_cnn", modality="title", stages=[{"trainable_layers": 1}])
