"""policy_network: a small network that learns how to weigh the towers."""

import keras
from keras import ops

from tfmm.heads.inputs import Problem, head_inputs, to_probabilities
from tfmm.heads.rules import product_logits
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.unit_features import UnitFeatures
from tfmm.settings import PolicyNetwork


def policy_network(
    settings: PolicyNetwork,
    problem: Problem,
) -> keras.Model:
    """Builds a network from the towers' joined probabilities to logits.

    Each tower also says whether it is present; the inputs of an absent one are zeros.
    Paper B: `inputs = "probabilities"`, `start_from = "zero"`, one hidden layer,
    `hidden_units = [100]`, tanh. Paper C: the same with `hidden_units = [200, 150]`,
    `activations = ["sigmoid", "tanh"]`.

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
    - Åberg 2018, the late-fusion network.
    - Wirojwatanakul and Wangperawong 2019, "Multi-Label Product Categorization", the
        tri-modal network.
    """
    task, prior_logits = problem.task, problem.prior_logits
    towers = head_inputs(problem.shapes)
    here = ops.expand_dims(ops.cast(towers.present, "float32"), -1)
    if settings.inputs == "probabilities":
        each = [to_probabilities(task, x) for x in towers.logits]
    elif task == "single_label":
        each = [ops.log_softmax(x, axis=-1) for x in towers.logits]
    else:
        each = towers.logits
    visible = [x * here[:, position] for position, x in enumerate(each)]
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
    logits = dense(len(prior_logits), "linear", initializer, "output")(hidden)
    if from_rule:
        logits = logits + product_logits(task, towers.logits, here)
    logits = PriorWhenAbsent(prior_logits, name="logits")(logits, towers.present)
    return keras.Model(towers.nested, {"features": features, "logits": logits})
