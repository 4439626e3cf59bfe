"""gate: a small network that learns which tower to believe."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from tfmm import metrics
from tfmm.head_data import one_output
from tfmm.heads.inputs import (
    HeadInputs,
    Lesson,
    Problem,
    head_inputs,
    to_logits,
    to_probabilities,
)
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.unit_features import UnitFeatures
from tfmm.losses import WeightedSigmoidCrossEntropy
from tfmm.settings import Gate

# The score of a tower that is absent; its softmax is 0.
ABSENT_SCORE = -1e9
NUM_GREATEST = {"top_1": 1, "top_3": 3}


def gate(settings: Gate, problem: Problem) -> keras.Model:
    """Builds a network that scores the towers, and answers by the scores.

    The first tower is believed unless another one promises more: its score is 0, and
    the network gives one to each of the others, which learns to be high where that
    tower is right and the first is not. Absent towers are out of the choice.

    `choice = "hard"` answers with the logits of one tower, as they are: of the one
    with the highest score, of the first only if all other scores are below 0.
    `choice = "soft"` (ours) answers with the mean of the towers' probabilities,
    weighted by the softmax of the scores.

    Paper A is two towers, `choice = "hard"`, `fit_on = "validation"`: the second is
    believed where the sigmoid of its score is at least 0.5. More towers are ours.

    The network reads of each tower its greatest probability, its greatest three, or
    all, in descending order (the order is ours, the paper names none), or its
    features; and who is present. Probabilities are the softmax of the logits in both
    tasks, as in paper A; ours are calibrated. Features stand for A's policies on the
    text and on the image, which were networks of their own on the raw product; here
    they read what the trained towers make of it, and the towers stay as they are.
    Inputs of absent towers are zeros.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The task, the towers' shapes and the label shares.

    Returns:
        Model as described in `tfmm.heads`, with a layer `gate`: the scores, float32
        `(batch, towers)`, -1e9 where absent. `features` are the towers' unit-length
        features, joined.

    Reference:
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534), decision-level fusion.
    """
    towers = head_inputs(problem.shapes)
    here = ops.cast(towers.present, "float32")
    hidden = ops.concatenate([*_looks_at(settings, towers, here), here], axis=-1)
    penalty = keras.regularizers.L2(settings.l2) if settings.l2 else None
    for position, units in enumerate(settings.hidden_units, start=1):
        hidden = keras.layers.Dense(
            units, "relu", kernel_regularizer=penalty, name=f"hidden_{position}"
        )(hidden)
        if settings.dropout:
            hidden = keras.layers.Dropout(settings.dropout)(hidden)
    others = keras.layers.Dense(
        len(problem.shapes) - 1, kernel_regularizer=penalty, name="output"
    )(hidden)
    scores = ops.concatenate([ops.zeros_like(here[:, :1]), others], axis=1)
    scores = ops.where(towers.present, scores, ABSENT_SCORE)
    scores = keras.layers.Identity(name="gate")(scores)
    logits = ops.stack(towers.logits, axis=1)
    if settings.choice == "hard":
        switch = ops.max(scores[:, 1:], axis=1) >= scores[:, 0]
        best = ops.where(switch, 1 + ops.argmax(scores[:, 1:], axis=1), 0)
        weights = ops.one_hot(best, len(problem.shapes))
        fused = ops.sum(logits * ops.expand_dims(weights, -1), axis=1)
    else:
        weights = ops.expand_dims(ops.softmax(scores, axis=1), -1)
        each = to_probabilities(problem.task, logits)
        fused = to_logits(problem.task, ops.sum(each * weights, axis=1))
    return keras.Model(
        towers.nested,
        {
            "features": UnitFeatures(name="features")(towers.features, towers.present),
            "logits": PriorWhenAbsent(problem.prior_logits, name="logits")(
                fused, towers.present
            ),
        },
    )


def _looks_at(settings: Gate, towers: HeadInputs, here) -> list:
    """What the network reads of each tower, `(batch, anything)`."""
    names = list(towers.nested)
    if settings.inputs == "features":
        chosen = settings.features_of or names
        return [
            x for name, x in zip(names, towers.features, strict=True) if name in chosen
        ]
    read = []
    for position, logits in enumerate(towers.logits):
        labels, probabilities = logits.shape[-1], ops.softmax(logits, axis=-1)
        count = min(NUM_GREATEST.get(settings.inputs, labels), labels)
        greatest = ops.top_k(probabilities, count)[0]
        read.append(greatest * here[:, position : position + 1])
    return read


def gate_lesson(
    settings: Gate, problem: Problem, model: keras.Model, loss: keras.losses.Loss
) -> Lesson:
    """What a gate learns: the scores, by which towers are right.

    The loss of the labels plays no part; see `GateCrossEntropy`.
    """
    scores = model.get_layer("gate").output
    return Lesson(
        model=keras.Model(model.input, {"gate": scores}),
        losses={
            "gate": GateCrossEntropy(settings.positive_weight, settings.label_smoothing)
        },
        targets={"gate": _right(problem.task, problem.fit.inputs, problem.fit.targets)},
    )


class GateCrossEntropy(keras.losses.Loss):
    """Weighted sigmoid cross-entropy of a gate's scores.

    The label of a tower other than the first is 1 where it is right and the first is
    not, else 0; an absent tower is not right. A tower has no say in the loss where it
    is absent, or no other is there to choose between. Presence is read off the
    scores, so that the label fits what the network saw when towers are hidden from it.

    With two towers and both present it is `WeightedSigmoidCrossEntropy` of paper A's
    label.

    Args:
        positive_weight: float above 0.
        label_smoothing: float in [0, 1).
        **kwargs: `name`, `reduction`, `dtype`.

    Call arguments:
        y_true: Float tensor `(batch, towers)`: 1 where the tower is right, else 0.
        y_pred: Float tensor `(batch, towers)`: the scores of the layer `gate`.
    """

    def __init__(self, positive_weight=1.0, label_smoothing=0.0, **kwargs):
        super().__init__(**kwargs)
        self.each = WeightedSigmoidCrossEntropy(positive_weight, label_smoothing)

    def call(self, y_true, y_pred):
        scores = ops.convert_to_tensor(y_pred)
        counts, labels = _counts_and_labels(ops.cast(y_true, "bool"), scores, ops)
        # Where it does not count the score may be -1e9; 0 keeps the gradient finite.
        logits = ops.where(counts, scores[:, 1:], 0.0)
        # A label of its own each, or the mean over them would be taken first.
        loss = self.each.call(labels[..., None], logits[..., None])
        return ops.mean(ops.where(counts, loss, 0.0), axis=-1)


def policy_accuracy(
    settings: Gate,
    task: str,
    inputs: Mapping[str, Mapping[str, np.ndarray]],
    targets: np.ndarray,
    model: keras.Model,
) -> float | None:
    """How often a gate is right about which tower to believe.

    The share of its yes or no (a score of at least 0, which is a sigmoid of at least
    0.5) that agree with the labels of `GateCrossEntropy`, over all towers but the
    first and all products that count there. With two towers it is paper A's "policy
    accuracy".

    Args:
        settings: `[heads.NAME]` of the experiment.
        task: `single_label` or `multi_label`.
        inputs: Tower -> `features` `(n, d)`, calibrated `logits` `(n, C)`, `present`
            `(n,)`.
        targets: int32 `(n,)` or float32 `(n, C)`.
        model: What `gate` built, trained, or read back from its file.

    Returns:
        In [0, 1]; `None` if there is no product with a choice between towers.
    """
    if not len(targets):
        return None
    ordered = {name: dict(inputs[name]) for name in settings.towers}
    score = keras.Model(model.input, model.get_layer("gate").output)
    scores = one_output(score, ordered)
    right = _right(task, ordered, targets) > 0
    counts, labels = _counts_and_labels(right, scores, np)
    agrees = (scores[:, 1:] >= 0) == labels
    return float(agrees[counts].mean()) if counts.any() else None


def _right(task: str, inputs: Mapping, targets: np.ndarray) -> np.ndarray:
    """float32 `(n, towers)`: 1 where a tower is present and its first choice right."""
    right = [
        x["present"] & metrics.is_right(task, targets, x["logits"])
        for x in inputs.values()
    ]
    return np.stack(right, axis=1).astype(np.float32)


def _counts_and_labels(right, scores, library):
    """Whether each tower but the first counts, and its label; bool `(n, towers - 1)`.

    Args:
        right: bool `(n, towers)`.
        scores: float `(n, towers)`.
        library: `numpy`, or `keras.ops` for tensors.
    """
    present = scores > ABSENT_SCORE / 2
    several = library.sum(present, axis=1, keepdims=True) > 1
    return present[:, 1:] & several, right[:, 1:] & ~(right[:, :1] & present[:, :1])
