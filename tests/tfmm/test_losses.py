import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm.losses import (
    WeightedSigmoidCrossEntropy,
    loss_for,
    weighted_sigmoid_cross_entropy,
)

LOGITS = np.array([[-100.0, -3.0, -1e-3], [0.5, 4.0, 100.0]], np.float32)
TARGETS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.3]], np.float32)


def loss_and_gradient(function, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = function(logits)
    return loss.numpy(), tape.gradient(loss, logits).numpy()


@pytest.mark.parametrize("weight", [0.2, 1.0, 30.0])
def test_the_loss_and_its_gradient_are_tensorflows(weight):
    ours = loss_and_gradient(
        lambda x: weighted_sigmoid_cross_entropy(TARGETS, x, weight), LOGITS
    )
    theirs = loss_and_gradient(
        lambda x: tf.nn.weighted_cross_entropy_with_logits(TARGETS, x, weight), LOGITS
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert np.isfinite(mine).all()
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_the_loss_worked_by_hand():
    # s(ln 3) = 3/4: positives cost q ln(4/3), negatives ln 4.
    logits = [[math.log(3), math.log(3)]]
    found = weighted_sigmoid_cross_entropy([[1.0, 0.0]], logits, 5.0)
    expected = [[5 * math.log(4 / 3), math.log(4)]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_far_logits_cost_their_distance_and_keep_their_gradient():
    targets = [[1.0, 0.0, 1.0, 0.0]]
    loss, gradient = loss_and_gradient(
        lambda x: weighted_sigmoid_cross_entropy(targets, x, 2.0),
        np.array([[-100.0, 100.0, 100.0, -100.0]], np.float32),
    )
    assert loss.tolist() == [[200.0, 100.0, 0.0, 0.0]]
    assert gradient.tolist() == [[-2.0, 1.0, 0.0, 0.0]]


def test_the_gradient_at_zero_is_that_of_the_formula():
    # d/dx = (1 - z) s(x) - q z (1 - s(x)), s(0) = 1/2. TensorFlow's own has 1 and 0.
    _, gradient = loss_and_gradient(
        lambda x: weighted_sigmoid_cross_entropy([[0.0, 1.0]], x, 3.0),
        np.zeros((1, 2), np.float32),
    )
    np.testing.assert_allclose(gradient, [[0.5, -1.5]])


def test_weight_1_is_binary_cross_entropy():
    ours = loss_for("multi_label")(TARGETS, LOGITS)
    theirs = keras.losses.BinaryCrossentropy(from_logits=True)(TARGETS, LOGITS)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_the_loss_is_the_mean_over_labels_and_products():
    each = weighted_sigmoid_cross_entropy(TARGETS, LOGITS, 4.0)
    found = loss_for("multi_label", 4.0)(TARGETS, LOGITS)
    assert float(found) == pytest.approx(float(np.mean(each)), rel=1e-6)


def test_a_weight_may_differ_by_label():
    weights = tf.constant([1.0, 2.0, 3.0])
    found = weighted_sigmoid_cross_entropy(TARGETS[:1], np.zeros((1, 3), "f"), weights)
    np.testing.assert_allclose(found, np.log(2) * np.array([[1, 1, 3]]), rtol=1e-6)


def test_the_weight_touches_positives_only():
    light = weighted_sigmoid_cross_entropy(np.zeros_like(TARGETS), LOGITS, 1.0)
    heavy = weighted_sigmoid_cross_entropy(np.zeros_like(TARGETS), LOGITS, 9.0)
    np.testing.assert_array_equal(light, heavy)


def test_the_single_label_loss_is_softmax_cross_entropy_on_logits():
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32))
    found = loss_for("single_label")(np.array([0, 2]), logits)
    expected = -(math.log(0.5) + math.log(0.1)) / 2
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_graph_with_unknown_batch_gives_the_same_loss():
    loss = loss_for("multi_label", 4.0)
    spec = tf.TensorSpec([None, 3], tf.float32)
    graph = tf.function(lambda z, x: loss(z, x), input_signature=[spec, spec])
    found = graph(tf.constant(TARGETS), tf.constant(LOGITS))
    assert float(found) == pytest.approx(float(loss(TARGETS, LOGITS)), rel=1e-6)


def test_a_loss_survives_its_config():
    loss = WeightedSigmoidCrossEntropy(7.5, name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, WeightedSigmoidCrossEntropy)
    assert (again.positive_weight, again.name) == (7.5, "mine")
    assert float(again(TARGETS, LOGITS)) == float(loss(TARGETS, LOGITS))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_that_is_not_above_zero_is_refused(weight):
    with pytest.raises(ValueError, match="`positive_weight` must be above 0"):
        WeightedSigmoidCrossEntropy(weight)
