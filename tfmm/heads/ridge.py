"""ridge: ridge regression on the towers' joined probabilities."""

from functools import partial

import keras
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold

from tfmm import metrics
from tfmm.errors import RunError
from tfmm.heads.inputs import Problem, to_logits, to_probabilities
from tfmm.heads.linear import linear_head, reader, with_hidden
from tfmm.settings import Ridge

NUM_FOLDS = 4


def ridge(settings: Ridge, problem: Problem) -> keras.Model:
    """Fits paper C's ridge regression, exported as one dense layer.

    It reads every tower's probabilities, zeros where it is absent, and which towers
    are there, and predicts 1 for a product's labels and 0 for the others. One penalty
    for all labels is chosen by cross-validation over whole groups. So that it knows
    what to do without a tower, every product comes once more with towers hidden at
    random.

    Its prediction, clipped to [1e-7, 1 - 1e-7], is taken as the probability: only its
    order is meant, calibration follows. Of `single_label` the predictions add up to 1
    before they are clipped, so that the greatest is never clipped from below.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The task, the towers' shapes, the label shares, the fit products.

    Returns:
        Model as described in `tfmm.heads`.

    Raises:
        RunError: If the fit products are of too few groups to leave some out.

    Reference:
    - Wirojwatanakul and Wangperawong 2019, "Multi-Label Product Categorization", the
        ridge regression on concatenated outputs.
    """
    task = problem.task
    read = partial(to_probabilities, task)
    inputs, targets = with_hidden(problem.fit, problem.units, problem.seed)
    if task == "single_label":
        targets = metrics.one_hot(targets, len(problem.prior_logits))
    matrix = np.float64(reader(problem, read)(inputs))
    # A product's copy goes where the product goes.
    groups = np.concatenate([problem.fit.groups, problem.fit.groups])
    if len(np.unique(groups)) < NUM_FOLDS:
        raise RunError(
            f"a ridge is fitted on {len(np.unique(groups))} groups of products; "
            f"expected at least {NUM_FOLDS}"
        )
    folds = GroupKFold(NUM_FOLDS, shuffle=True, random_state=problem.seed)
    fitted = RidgeCV(
        alphas=settings.alphas,
        cv=list(folds.split(matrix, groups=groups)),
        scoring="neg_mean_squared_error",
    ).fit(matrix, np.float64(targets))
    return linear_head(
        problem, read, fitted.coef_.T, fitted.intercept_, partial(to_logits, task)
    )
