"""Fixed rules on the towers' answers: max, mean, product, mean_logits."""

from collections.abc import Sequence

import keras
from keras import ops

from tfmm.heads.inputs import Problem, head_inputs, to_logits, to_probabilities
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.unit_features import UnitFeatures
from tfmm.settings import Rule


def rule(
    settings: Rule,
    problem: Problem,
) -> keras.Model:
    """Builds one of paper B's rules; nothing in it is trained.

    - `max`: each label's greatest probability over the towers that are present.
    - `mean`: its mean over them, so the same order as B's sum.
    - `product`: the probabilities multiplied, and divided by what makes them add up
      to 1: over the labels for `single_label`; over yes and no of each label for
      `multi_label` (ours; B is single-label), which is the sum of the logits.
    - `mean_logits`: the mean of the log-probabilities, normalised (`single_label`), or
      of the logits (`multi_label`): the order of `product`, less sure of itself.

    One tower alone answers as it would by itself.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The task, the towers' shapes and the label shares.

    Returns:
        Model as described in `tfmm.heads`; `features` are the towers' unit-length
        features, joined.

    Reference:
    - Åberg 2018, "max", "sum-max" and "product-max" of late fusion.
    """
    task, prior_logits = problem.task, problem.prior_logits
    towers = head_inputs(problem.shapes)
    # (batch, towers, 1), to go with (batch, towers, C)
    here = ops.expand_dims(ops.cast(towers.present, "float32"), -1)
    each = ops.stack([to_probabilities(task, x) for x in towers.logits], axis=1)
    if settings.model == "max":
        logits = to_logits(task, ops.max(each * here, axis=1))
    elif settings.model == "mean":
        count = ops.maximum(ops.sum(here, axis=1), 1.0)
        logits = to_logits(task, ops.sum(each * here, axis=1) / count)
    elif settings.model == "mean_logits":
        count = ops.maximum(ops.sum(here, axis=1, keepdims=True), 1.0)
        logits = product_logits(task, towers.logits, here / count)
    else:
        logits = product_logits(task, towers.logits, here)
    logits = PriorWhenAbsent(prior_logits, name="logits")(logits, towers.present)
    features = UnitFeatures(name="features")(towers.features, towers.present)
    return keras.Model(towers.nested, {"features": features, "logits": logits})


def product_logits(task: str, logits: Sequence, powers):
    """A product of the towers' answers, each to a power, as logits `(batch, C)`.

    With a power of 1 it is the product rule, with one of `1 / towers` the rule
    `mean_logits`.

    Args:
        task: `single_label` or `multi_label`.
        logits: For each tower `(batch, C)`.
        powers: `(batch, towers, 1)`, 0 where a tower is absent.
    """
    each = ops.stack(list(logits), axis=1)
    if task == "single_label":
        total = ops.sum(ops.log_softmax(each, axis=-1) * powers, axis=1)
    else:
        total = ops.sum(each * powers, axis=1)
    return to_logits(task, to_probabilities(task, total))
