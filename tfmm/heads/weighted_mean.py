"""weighted_mean: a mean of the towers' answers with fitted weights."""

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize
from scipy.special import log_expit, log_softmax, softmax

from tfmm import metrics
from tfmm.heads.inputs import Problem, head_inputs, to_logits, to_probabilities
from tfmm.heads.rules import product_logits
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.tower_weights import TowerWeights
from tfmm.layers.unit_features import UnitFeatures
from tfmm.settings import WeightedMean

# In the exponent, no tower counts less than this part of the strongest.
WEAKEST = 12.0
FIT_ON = 2_000  # products; more place a handful of weights no better


def weighted_mean(settings: WeightedMean, problem: Problem) -> keras.Model:
    """Builds a mean whose weights have the least cross-entropy on the fit products.

    `probabilities`: `p = sum_t w_t p_t`. `log_probabilities`: `log p` is
    `sum_t w_t log p_t` (single_label, then normalised) or the same of the calibrated
    logits (multi_label); with equal weights the rule `mean_logits`. Weights are at
    least 0 and add up to 1 over the towers that a product has. A mean is less sure of
    itself than what it is made of, and weights that only undid that would be no better
    at choosing: they are fitted together with a temperature of the mean. That is
    dropped again, since calibration follows.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The task, the towers' shapes, the label shares, the fit products.

    Returns:
        Model as described in `tfmm.heads`; `features` are the towers' unit-length
        features, joined.
    """
    task = problem.task
    weights = fit_weights(settings, problem)
    towers = head_inputs(problem.shapes)
    here = ops.expand_dims(ops.cast(towers.present, "float32"), -1)
    layer = TowerWeights(name="weights")
    shares = layer(here)
    layer.set_weights([np.float32(weights)])
    if settings.of == "probabilities":
        each = ops.stack([to_probabilities(task, x) for x in towers.logits], axis=1)
        logits = to_logits(task, ops.sum(each * shares, axis=1))
    else:
        logits = product_logits(task, towers.logits, shares)
    logits = PriorWhenAbsent(problem.prior_logits, name="logits")(
        logits, towers.present
    )
    features = UnitFeatures(name="features")(towers.features, towers.present)
    return keras.Model(towers.nested, {"features": features, "logits": logits})


def fit_weights(settings: WeightedMean, problem: Problem) -> np.ndarray:
    """The towers' weights `(towers,)`, at least 0, adding up to 1."""
    task, fit = problem.task, problem.fit
    draws = np.random.default_rng(problem.seed).permutation(len(fit.targets))
    rows = draws[:FIT_ON]
    present = np.stack([x["present"][rows] for x in fit.inputs.values()], axis=1)
    logits = np.stack([x["logits"][rows] for x in fit.inputs.values()], axis=1)
    if task == "single_label":
        logs = log_softmax(np.float64(logits), axis=-1)
    else:
        logs = np.float64(logits)
    truth = fit.targets[rows]

    def loss(at: np.ndarray) -> float:
        weights = softmax(np.append(0.0, at[:-1]))
        shares = present * np.maximum(weights, 1e-9)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
        if settings.of == "probabilities":
            each = np.exp(logs if task == "single_label" else log_expit(logs))
            mean = metrics.logits_of(task, (each * shares[..., None]).sum(axis=1))
        else:
            mean = (logs * shares[..., None]).sum(axis=1)
        return metrics.log_loss(task, truth, mean * np.exp(at[-1]))

    count = present.shape[1]
    found = minimize(
        loss,
        np.zeros(count),
        method="Powell",
        bounds=[(-WEAKEST, WEAKEST)] * count,
        options={"xtol": 1e-3, "ftol": 1e-6},
    )
    return softmax(np.append(0.0, found.x[:-1]))
