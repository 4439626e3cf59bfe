import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from tfmm.errors import ExperimentError
from tfmm.losses import (
    WeightedSigmoidCrossEntropy,
    WeightedSoftmaxCrossEntropy,
    loss_for,
    weighted_sigmoid_cross_entropy,
)
from tfmm.settings import PolicyNetwork

LOGITS = np.array([[-100.0, -3.0, -1e-3], [0.5, 4.0, 100.0]], np.float32)
TARGETS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.3]], np.float32)


LABELS = ("lamp", "rug", "sofa")


def loss_of(task, targets=(0, 1), **own):
    """The loss of a head with these settings, for labels lamp, rug, sofa."""
    settings = PolicyNetwork(model="policy_network", towers=["a", "b"], **own)
    return loss_for(task, settings, LABELS, np.array(targets))


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
    ours = loss_of("multi_label")(TARGETS, LOGITS)
    theirs = keras.losses.BinaryCrossentropy(from_logits=True)(TARGETS, LOGITS)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_the_loss_is_the_mean_over_labels_and_products():
    each = weighted_sigmoid_cross_entropy(TARGETS, LOGITS, 4.0)
    found = loss_of("multi_label", positive_weight=4.0)(TARGETS, LOGITS)
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
    found = loss_of("single_label")(np.array([0, 2]), logits)
    expected = -(math.log(0.5) + math.log(0.1)) / 2
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_a_graph_with_unknown_batch_gives_the_same_loss():
    loss = loss_of("multi_label", positive_weight=4.0)
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


def test_a_sigmoid_weight_may_be_given_by_label():
    loss = loss_of("multi_label", positive_weight={"rug": 5.0})
    assert loss.positive_weight == [1.0, 5.0, 1.0]
    found = loss(np.array([[1.0, 1.0, 0.0]]), np.zeros((1, 3), np.float32))
    assert float(found) == pytest.approx(math.log(2) * (1 + 5 + 1) / 3, rel=1e-6)


@pytest.mark.parametrize(
    ("task", "key"),
    [("multi_label", "positive_weight"), ("single_label", "class_weights")],
)
def test_a_weight_of_an_unknown_label_names_the_nearest(task, key):
    with pytest.raises(ExperimentError, match=f"{key}: 'rugs'.*did you mean 'rug'"):
        loss_of(task, **{key: {"rugs": 2.0}})


def test_balanced_class_weights_are_scikit_learns():
    targets = np.array([0, 0, 0, 1, 2, 2])
    loss = loss_of("single_label", targets, class_weights="balanced")
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    np.testing.assert_allclose(loss.class_weights, expected)


def test_a_label_without_training_products_does_not_upset_the_balance():
    loss = loss_of("single_label", [0, 0, 0, 2], class_weights="balanced")
    assert np.isfinite(loss.class_weights).all()
    expected = compute_class_weight(
        "balanced", classes=np.array([0, 2]), y=[0, 0, 0, 2]
    )
    np.testing.assert_allclose(np.array(loss.class_weights)[[0, 2]], expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_softmax_smoothing_is_keras_own(smoothing):
    logits = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
    ours = WeightedSoftmaxCrossEntropy(label_smoothing=smoothing)(
        np.array([2, 1]), logits
    )
    theirs = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing
    )(np.array([[0, 0, 1], [0, 1, 0]]), logits)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_smoothing_is_keras_own(smoothing):
    loss = WeightedSigmoidCrossEntropy(label_smoothing=smoothing)
    theirs = keras.losses.BinaryCrossentropy(
        from_logits=True, label_smoothing=smoothing
    )(TARGETS, LOGITS)
    assert float(loss(TARGETS, LOGITS)) == pytest.approx(float(theirs), rel=1e-5)


def test_a_class_weight_counts_its_products_only():
    logits = np.zeros((2, 3), np.float32)
    loss = loss_of("single_label", class_weights={"sofa": 4.0})
    expected = math.log(3) * (1 + 4) / 2
    assert float(loss(np.array([0, 2]), logits)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_gradients_are_finite_at_logits_of_100(logit):
    sigmoid = WeightedSigmoidCrossEntropy([30.0, 1.0, 0.1], label_smoothing=0.1)
    softmax = WeightedSoftmaxCrossEntropy([30.0, 1.0, 0.1], label_smoothing=0.1)
    far = np.array([[logit, -logit, 0.0]], np.float32)
    for loss, target in (
        (sigmoid, np.array([[1.0, 0.0, 1.0]])),
        (softmax, np.array([0])),
    ):
        value, gradient = loss_and_gradient(lambda x, f=loss, t=target: f(t, x), far)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0 or value == 0


def test_the_softmax_loss_survives_its_config():
    loss = WeightedSoftmaxCrossEntropy([1.0, 2.0, 3.0], 0.1, name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    logits = np.array([[1.0, -2.0, 0.5]], np.float32)
    assert float(again(np.array([2]), logits)) == float(loss(np.array([2]), logits))


def test_smoothing_and_class_weights_out_of_range_are_refused():
    with pytest.raises(ValueError, match="`label_smoothing` must be in"):
        WeightedSigmoidCrossEntropy(label_smoothing=1.0)
    with pytest.raises(ValueError, match="`class_weights` must be above 0"):
        WeightedSoftmaxCrossEntropy([1.0, 0.0])
