"""logistic_stack: logistic regression on the towers' joined log-probabilities."""

import warnings

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from tfmm import metrics
from tfmm.errors import RunError
from tfmm.heads.inputs import Problem
from tfmm.heads.linear import linear_head, reader, with_hidden
from tfmm.settings import LogisticStack

# The strength is chosen on no more products than these; the regression sees all.
CHOOSE_ON = 1_500
LOWEST = -12.0  # log-probabilities below say no more
MOST_STEPS = 60


def logistic_stack(settings: LogisticStack, problem: Problem) -> keras.Model:
    """Fits a logistic regression on what the towers say, exported as one dense layer.

    It reads of every tower the calibrated log-probabilities (single_label) or logits
    (multi_label), cut off at -12 (and 12), and which towers are there. The penalty is
    chosen by cross-validation over whole groups; labels that never vary keep their
    share. So that it knows what to do without a tower, every product comes once more
    with towers hidden at random.

    `shrink_to = "zero"` is scikit-learn's regression: a multinomial one, or one a
    label. Its `towers * C * C` weights are many for a thousand products: the penalty
    that they need also holds down the few that matter, by which a tower's say on a
    label counts for that label.

    `shrink_to = "product"`, ours and the default, penalises what is beside those:

    `logits = sum_t a_t z_t + x D + b`, least `sum of losses + |D|^2 / (2 strength)`

    with `z_t` what tower `t` says, a free weight `a_t` for each tower, `x` everything
    that is read. With a strength of nothing and `a_t = 1` it is the product rule.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The task, the towers' shapes, the label shares, the fit products.

    Returns:
        Model as described in `tfmm.heads`.

    Raises:
        RunError: If the fit products are of fewer groups than `inner_folds`.
    """
    task, fit = problem.task, problem.fit

    def read(logits):
        if task == "single_label":
            return ops.maximum(ops.log_softmax(logits, axis=-1), LOWEST)
        return ops.clip(logits, LOWEST, -LOWEST)

    inputs, targets = with_hidden(fit, problem.seed)
    matrix = np.float64(reader(problem, read)(inputs))
    groups = np.concatenate([fit.groups, fit.groups])
    prior = np.asarray(problem.prior_logits)
    strength = _best_strength(settings, problem, matrix, targets, groups)
    kernel, bias = _regression(settings, task, strength, matrix, targets, prior)
    return linear_head(problem, read, kernel, bias, lambda said: said)


def _best_strength(
    settings: LogisticStack,
    problem: Problem,
    matrix: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
) -> float:
    """The strength with the least loss on products of groups left out."""
    if len(settings.strengths) == 1:
        return settings.strengths[0]
    half = len(targets) // 2
    rows = np.arange(half)
    if half > CHOOSE_ON:
        rows = np.random.default_rng(problem.seed).permutation(half)[:CHOOSE_ON]
    if len(np.unique(groups[rows])) < settings.inner_folds:
        raise RunError(
            f"a logistic_stack is fitted on {len(np.unique(groups[rows]))} groups of "
            f"products, which inner_folds = {settings.inner_folds} cannot cut"
        )
    folds = GroupKFold(settings.inner_folds, shuffle=True, random_state=problem.seed)
    losses = np.zeros(len(settings.strengths))
    prior = np.asarray(problem.prior_logits)
    for inside, outside in folds.split(rows, groups=groups[rows]):
        # The copies of a product go where it goes.
        seen = np.concatenate([rows[inside], rows[inside] + half])
        asked = rows[outside]
        for position, strength in enumerate(settings.strengths):
            kernel, bias = _regression(
                settings, problem.task, strength, matrix[seen], targets[seen], prior
            )
            said = matrix[asked] @ kernel + bias
            loss = metrics.log_loss(problem.task, targets[asked], said)
            losses[position] += loss * len(asked)
    return settings.strengths[int(np.argmin(losses))]


def _regression(
    settings: LogisticStack,
    task: str,
    strength: float,
    matrix: np.ndarray,
    targets: np.ndarray,
    prior: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(width, C)` and `(C,)`; labels that never vary keep `prior`."""
    kernel, bias = np.zeros((matrix.shape[1], len(prior))), prior.copy()
    if settings.shrink_to == "product":
        return _near_product(task, strength, matrix, targets, prior)
    model = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        # The last digits of the weights are not worth the time.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if task == "single_label":
            if len(np.unique(targets)) < 2:
                return kernel, bias
            fitted = model.fit(matrix, targets)
            rows, cut = fitted.coef_, fitted.intercept_
            if len(fitted.classes_) == 2:
                rows, cut = np.concatenate([-rows, rows]) / 2, np.append(-cut, cut) / 2
            # Labels without a product stay as far below as their share says.
            bias = prior - prior[fitted.classes_].max() + cut.max()
            kernel[:, fitted.classes_], bias[fitted.classes_] = rows.T, cut
            return kernel, bias
        for label in np.flatnonzero(targets.min(axis=0) < targets.max(axis=0)):
            fitted = model.fit(matrix, targets[:, label] > 0)
            kernel[:, label], bias[label] = fitted.coef_[0], fitted.intercept_[0]
    return kernel, bias


def _near_product(
    task: str,
    strength: float,
    matrix: np.ndarray,
    targets: np.ndarray,
    prior: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(width, C)` and `(C,)` held to a weighted product of the towers."""
    num_labels = len(prior)
    width = matrix.shape[1]
    num_towers = width // (num_labels + 1)
    x = np.float32(matrix)
    each = x[:, : num_towers * num_labels].reshape(len(x), num_towers, num_labels)
    truth = targets
    if task == "single_label":
        truth = metrics.one_hot(targets, num_labels)
    truth = np.float32(truth)
    # A label without a product would drift off without end.
    varies = truth.min(axis=0) < truth.max(axis=0)

    def parts(at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weights, rest = at[:num_towers], at[num_towers:].reshape(width + 1, num_labels)
        return np.float32(weights), np.float32(rest[:-1]), np.float32(rest[-1])

    def objective(at: np.ndarray) -> tuple[float, np.ndarray]:
        weights, beside, bias = parts(at)
        said = np.tensordot(each, weights, axes=(1, 0)) + x @ beside + bias
        if task == "single_label":
            log_p = log_softmax(said, axis=-1)
            loss, slope = -(truth * log_p).sum(), np.exp(log_p) - truth
        else:
            loss = (np.logaddexp(0.0, said) - truth * said).sum()
            slope = expit(said) - truth
        slope *= varies
        held = np.append(beside, bias[None], axis=0)
        of_rest = np.append(x.T @ slope, slope.sum(axis=0)[None], axis=0)
        of_rest += held / np.float32(strength)
        gradient = np.append(np.tensordot(each, slope, axes=((0, 2), (0, 1))), of_rest)
        penalty = (np.float64(held) ** 2).sum() / (2 * strength)
        return float(loss) + penalty, np.float64(gradient)

    start = np.zeros(num_towers + (width + 1) * num_labels)
    start[:num_towers] = 1.0
    options = {"maxiter": MOST_STEPS, "ftol": 1e-6, "maxcor": 20}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    weights, kernel, bias = parts(found.x)
    for tower, weight in enumerate(weights):
        own = np.arange(num_labels)
        kernel[tower * num_labels + own, own] += weight
    return kernel, np.where(varies, bias, prior)
