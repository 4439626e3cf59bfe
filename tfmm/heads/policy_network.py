"""policy_network: a small network that learns how to weigh the towers."""

import keras
import numpy as np
from keras import ops

from tfmm import metrics
from tfmm.heads.inputs import Lesson, Problem, head_inputs
from tfmm.heads.rules import product_logits
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.probability_powers import ProbabilityPowers
from tfmm.layers.unit_features import UnitFeatures
from tfmm.settings import PolicyNetwork
from tfmm.settings.heads.policy_network import POWER_RANGE


def policy_network(
    settings: PolicyNetwork,
    problem: Problem,
) -> keras.Model:
    """Builds a network from the towers' joined probabilities to logits.

    Each tower also says whether it is present; the inputs of an absent one are zeros.
    Its flag's weights in the first layer are then all that it adds there, which is
    what a learned vector in place of the missing input would add.

    Paper B: `inputs = "probabilities"`, `start_from = "zero"`, one hidden layer,
    `hidden_units = [100]`, tanh. Paper C: the same with `hidden_units = [200, 150]`,
    `activations = ["sigmoid", "tanh"]`.

    `temperatures` raise each tower's probabilities to a power `tau` before the network
    reads them, and before the product rule does; they are not divided by their sum
    again, as paper B writes `o ** tau`. `log_probabilities` reads `tau log p` then, or
    `tau` times the calibrated logits (multi-label).

    Ours, the default: `inputs = "log_probabilities"` reads log p (single-label) or the
    calibrated logits (multi-label), which late fusion adds up; `start_from = "product"`
    adds the network's output to the product rule's logits, and the output layer starts
    at zero, so that training starts from that rule instead of from nothing.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The task, the towers' shapes and the label shares.

    Returns:
        Model as described in `tfmm.heads`; `features` are the last hidden layer, or
        without one the towers' unit-length features, joined.

    Reference:
    - Åberg 2018, the late-fusion network and its "temperature".
    - Wirojwatanakul and Wangperawong 2019, "Multi-Label Product Categorization", the
        tri-modal network.
    """
    task, prior_logits = problem.task, problem.prior_logits
    towers = head_inputs(problem.shapes)
    # (batch, towers, 1), to go with (batch, towers, C)
    here = ops.expand_dims(ops.cast(towers.present, "float32"), -1)
    logits = ops.stack(towers.logits, axis=1)
    log_p = _log_probabilities(task, logits)
    if settings.temperatures or settings.learn_temperatures:
        lowest, highest = POWER_RANGE
        powers = ProbabilityPowers(
            [settings.temperatures.get(name, 1.0) for name in problem.shapes],
            lowest,
            highest,
            trainable=settings.learn_temperatures,
            name="temperatures",
        )
        log_p, logits = powers(log_p), powers(logits)
    if settings.inputs == "probabilities":
        read = ops.exp(log_p)
    else:
        read = log_p if task == "single_label" else logits
    visible = read * here
    visible = [visible[:, position] for position in range(len(problem.shapes))]
    hidden = ops.concatenate([*visible, here[:, :, 0]], axis=-1)
    joined = hidden

    penalty = keras.regularizers.L2(settings.l2) if settings.l2 else None

    def dense(units, activation, initializer, name):
        return keras.layers.Dense(
            units,
            activation,
            kernel_initializer=initializer,
            kernel_regularizer=penalty,
            name=name,
        )

    small = keras.initializers.TruncatedNormal(stddev=settings.initializer_stddev)
    layers = zip(settings.hidden_units, settings.activations, strict=True)
    for position, (units, activation) in enumerate(layers, start=1):
        hidden = dense(units, activation, small, f"hidden_{position}")(hidden)
        last = hidden
        if settings.dropout:
            hidden = keras.layers.Dropout(settings.dropout)(hidden)
    if hidden is joined:
        features = UnitFeatures(name="features")(towers.features, towers.present)
    else:
        features = keras.layers.Identity(name="features")(last)
    from_rule = settings.start_from == "product"
    initializer = "zeros" if from_rule else small
    fused = dense(len(prior_logits), "linear", initializer, "output")(hidden)
    if from_rule:
        each = [logits[:, position] for position in range(len(problem.shapes))]
        fused = fused + product_logits(task, each, here)
    fused = PriorWhenAbsent(prior_logits, name="logits")(fused, towers.present)
    return keras.Model(towers.nested, {"features": features, "logits": fused})


def _log_probabilities(task: str, logits):
    """log p by the task, in the graph."""
    if task == "single_label":
        return ops.log_softmax(logits, axis=-1)
    return ops.log_sigmoid(logits)


def policy_lesson(
    settings: PolicyNetwork,
    problem: Problem,
    model: keras.Model,
    loss: keras.losses.Loss,
) -> Lesson:
    """What a policy network learns: the labels, some products more than others.

    See `boosted_weights`; without a boosted tower all products count the same.
    """
    return Lesson(
        model=keras.Model(model.input, {"logits": model.output["logits"]}),
        losses={"logits": loss},
        targets={"logits": problem.fit.targets},
        weights=boosted_weights(settings, problem) if settings.boosted_tower else None,
    )


def boosted_weights(settings: PolicyNetwork, problem: Problem) -> np.ndarray:
    """How much each product counts, so that one tower's strengths are learned.

    With boost constant `c`, a product for which the boosted tower's first choice is
    right (multi-label: is one of its labels) counts

    - `c` times if `boost = "constant"`,
    - `1 + (1 - p) c` times if `boost = "proportional"`, `p` the mean of the
      probabilities that the other towers give its label, or its labels: over those
      that are present, 0 if there is none;

    and every other product once. Paper B has two towers and boosts the image. That
    `proportional` too counts only where the boosted tower is right is our reading: its
    formula does not say so, but its network gained the products that the image alone
    had right and none that both had wrong.

    Args:
        settings: With a `boosted_tower`.
        problem: What the head is fitted on; towers count as present that are so
            there, whichever training hides.

    Returns:
        float32 `(n,)`.

    Reference:
    - Åberg 2018, "image-boost" and "image-boost-prop".
    """
    task, targets = problem.task, problem.fit.targets
    boosted = problem.fit.inputs[settings.boosted_tower]
    right = boosted["present"] & metrics.is_right(task, targets, boosted["logits"])
    if settings.boost == "constant":
        return np.where(right, settings.boost_constant, 1.0).astype(np.float32)
    labels = targets
    if task == "single_label":
        labels = metrics.one_hot(targets, boosted["logits"].shape[1])
    others = [
        tower
        for name, tower in problem.fit.inputs.items()
        if name != settings.boosted_tower
    ]
    given = sum(
        tower["present"]
        * (metrics.probabilities(task, tower["logits"]) * labels).sum(axis=1)
        for tower in others
    )
    count = labels.sum(axis=1) * sum(tower["present"].astype(int) for tower in others)
    boost = 1.0 + (1.0 - given / np.maximum(count, 1)) * settings.boost_constant
    return np.where(right, boost, 1.0).astype(np.float32)
