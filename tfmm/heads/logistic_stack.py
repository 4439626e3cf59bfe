"""logistic_stack: logistic regression on the towers' joined log-probabilities."""

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax
from sklearn.model_selection import GroupKFold

from tfmm import metrics
from tfmm.errors import RunError
from tfmm.heads.inputs import Problem
from tfmm.heads.linear import linear_head, reader, with_hidden
from tfmm.settings import LogisticStack

# The strength is chosen on no more products than these; the regression sees all.
CHOOSE_ON = 2_000
LOWEST = -12.0  # log-probabilities below say no more
# What a product's copy with hidden towers counts. At 1 the towers are believed as one
# alone should be, which is too much where all of them are there.
HIDDEN_WEIGHT = 0.3
TOLERANCE = 1e-6  # of the loss, relative
ROUGH_TOLERANCE = 1e-4  # the same while the strength is chosen
MAX_STEPS = 200


def logistic_stack(settings: LogisticStack, problem: Problem) -> keras.Model:
    """Fits a logistic regression on what the towers say, exported as one dense layer.

    It reads of every tower `x_t`: the calibrated log-probabilities (single_label) or
    logits (multi_label), cut off at -12 (and 12), zeros where it is absent; and
    `present_t`. One multinomial regression, or one regression a label:

    `logits = sum_t a_t x_t + z V`, penalty `|V|^2 / (2 strength)`,

    `z` a 1, `present_t`, and `x_t` less its mean, in units of the spread of all `x`.

    `shrink_to = "product"` (ours, the default): weights `a_t`, one for each tower and
    without penalty, so that the less the products tell, the nearer it comes to a
    product of the probabilities, each to its power. With `"zero"` `a_t` is 0 and
    this is the common stack, scikit-learn's `LogisticRegression` on `z`, which first
    has to learn that a tower's label and the product's are the same; with few
    products a label it never does, and is worse than fixed rules.

    The strength is chosen by cross-validation over whole groups. So that it knows what
    to do without a tower, every product comes once more, counting less, with towers
    hidden at random. Labels that no fit product has are answered too: by the
    towers' word for them, brought down a little.

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

    inputs, targets = with_hidden(fit, problem.units, problem.seed)
    num_labels, num_products = len(problem.prior_logits), len(fit.targets)
    if task == "single_label":
        targets = metrics.one_hot(targets, num_labels)
    regression = Regression(
        task,
        np.float64(reader(problem, read)(inputs)),
        np.float64(targets),
        np.repeat([1.0, HIDDEN_WEIGHT], num_products),
        settings.shrink_to == "product",
    )
    strength = _best_strength(settings, problem, regression)
    found = regression.fit(strength, np.arange(2 * num_products))
    return linear_head(problem, read, *regression.dense(found), lambda said: said)


class Regression:
    """Weighted, penalised logistic regression around a weighted sum of the towers.

    Args:
        task: `single_label` or `multi_label`.
        matrix: float64 `(n, towers * C + towers)`, what a linear head reads.
        targets: float64 `(n, C)` of zeros and ones.
        weights: `(n,)`: how much each row counts.
        around_sum: Whether `V` is a deviation from `sum_t a_t x_t`, or from nothing.
    """

    def __init__(
        self,
        task: str,
        matrix: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray,
        around_sum: bool,
    ):
        num_labels = targets.shape[1]
        self.num_towers = matrix.shape[1] // (num_labels + 1)
        self.task, self.around_sum = task, around_sum
        self.targets, self.weights = targets, weights
        said, here = np.split(matrix, [self.num_towers * num_labels], axis=1)
        shape = (-1, self.num_towers, num_labels)
        self.towers = np.moveaxis(said.reshape(shape), 1, 0)
        counts = np.maximum(here.sum(axis=0), 1.0)
        self.means = self.towers.sum(axis=1) / counts[:, None]
        centred = (self.towers - self.means[:, None]) * here.T[..., None]
        spread = np.sqrt(np.square(centred).sum() / (counts.sum() * num_labels))
        self.spread = float(spread) or 1.0
        ones = np.ones((len(matrix), 1))
        self.inputs = np.concatenate([*(centred / self.spread), here, ones], axis=1)

    def fit(
        self,
        strength: float,
        rows: np.ndarray,
        start: np.ndarray | None = None,
        tolerance: float = TOLERANCE,
    ) -> np.ndarray:
        """`a_t`, then `V` `(towers * (C + 1) + 1, C)`, in one vector.

        Args:
            strength: Inverse penalty, scikit-learn's `C`.
            rows: The rows that it is fitted on.
            start: From what it sets out; a mean of the towers if absent.
            tolerance: Of the loss, relative, at which it stops.
        """
        towers, inputs = self.towers[:, rows], self.inputs[rows]
        targets, weights = self.targets[rows], self.weights[rows, None]
        total = weights.sum()
        penalty = 1.0 / (strength * total)

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            each, matrix = self._parts(parameters)
            said = inputs @ matrix + np.tensordot(each, towers, axes=1)
            if self.task == "single_label":
                logs = log_softmax(said, axis=1)
                entropy, given = -targets * logs, np.exp(logs)
            else:
                entropy = -log_expit(said) + (1.0 - targets) * said
                given = expit(said)
            error = weights * (given - targets) / total
            towers_slope = np.zeros(self.num_towers)
            if self.around_sum:
                towers_slope = np.tensordot(towers, error, axes=2)
            slope = inputs.T @ error + penalty * matrix
            value = (weights * entropy).sum() / total
            value += penalty / 2 * np.square(matrix).sum()
            return value, np.concatenate([towers_slope, slope.ravel()])

        if start is None:
            start = np.zeros(self.num_towers + inputs.shape[1] * targets.shape[1])
            start[: self.num_towers] = self.around_sum / self.num_towers
        options = {"maxiter": MAX_STEPS, "ftol": tolerance, "gtol": tolerance / 10}
        return minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x

    def logits(self, parameters: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """`(rows, C)`, what is said of some rows."""
        each, matrix = self._parts(parameters)
        return self.inputs[rows] @ matrix + np.tensordot(
            each, self.towers[:, rows], axes=1
        )

    def dense(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same as one layer on the uncentred matrix: kernel and bias `(C,)`."""
        each, matrix = self._parts(parameters)
        num_labels = matrix.shape[1]
        count = self.num_towers * num_labels
        blocks = matrix[:count].reshape(self.num_towers, num_labels, -1) / self.spread
        flags = matrix[count:-1] - np.einsum("ti,tij->tj", self.means, blocks)
        blocks = blocks + each[:, None, None] * np.eye(num_labels)
        kernel = np.concatenate([blocks.reshape(count, -1), flags])
        return kernel, matrix[-1]

    def _parts(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        each, matrix = np.split(parameters, [self.num_towers])
        return each, matrix.reshape(self.inputs.shape[1], -1)


def _best_strength(
    settings: LogisticStack, problem: Problem, regression: Regression
) -> float:
    """The strength with the least loss on products of groups left out.

    Strengths are tried from the least on, each from where the one before arrived, and
    no further once the loss grows.
    """
    strengths = settings.strengths_to_try
    if len(strengths) == 1:
        return strengths[0]
    count = len(problem.fit.targets)
    rows = np.arange(count)
    if count > CHOOSE_ON:
        generator = np.random.default_rng(problem.seed)
        rows = generator.permutation(count)[:CHOOSE_ON]
    groups = problem.fit.groups[rows]
    num_groups = len(np.unique(groups))
    if num_groups < settings.inner_folds:
        raise RunError(
            f"a logistic_stack is fitted on {num_groups} groups of "
            f"products, which inner_folds = {settings.inner_folds} cannot cut"
        )
    folds = GroupKFold(settings.inner_folds, shuffle=True, random_state=problem.seed)
    parts = [(rows[a], rows[b]) for a, b in folds.split(rows, groups=groups)]
    found = [None] * len(parts)
    best_strength, best_loss = strengths[0], np.inf
    for strength in strengths:
        loss = 0.0
        for position, (inside, outside) in enumerate(parts):
            # The copies of a product go where it goes.
            seen = np.concatenate([inside, inside + count])
            found[position] = regression.fit(
                strength, seen, found[position], ROUGH_TOLERANCE
            )
            said = regression.logits(found[position], outside)
            asked = problem.fit.targets[outside]
            loss += metrics.log_loss(problem.task, asked, said) * len(outside)
        if loss >= best_loss:
            break
        best_strength, best_loss = strength, loss
    return best_strength
