"""What shallow models reach on the same products as tfmm: the bar to clear.

    python tools/bench/shallow.py hparams/fashion.toml --catalog catalog.csv

reads the catalog, its labels and its splits as `tfmm.fit` does and trains

- one text tower: all text modalities joined, TF-IDF of words (1 and 2) and of
  characters within words (2 to 5), logistic regression;
- one image tower: histograms of oriented gradients and colour histograms of all
  image modalities, PCA, a support vector machine with an RBF kernel;
- `max`, `mean` and `product` of their temperature-calibrated probabilities;
- `stack`: a logistic regression on the towers' out-of-fold probabilities and on
  which modalities are present.

Everything is fitted on the splits `train` and `fusion`, tuned on `validation`
(temperatures, the stack's strength, the one threshold of a multi-label model)
and reported on `test`. A product without a modality gets the label shares in
place of that tower's probabilities. The networks see less: their towers never
learn from `fusion`.

Needs scikit-image: `pip install -e '.[bench]'`.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tfmm import calibration, experiment, metrics
from tfmm import catalog as catalogs
from tfmm.errors import TfmmError, command_line

NUM_FOLDS = 4
NUM_RESAMPLES = 2000
PICTURE_PX = 64
NUM_COMPONENTS = 200
STACK_STRENGTHS = (0.03, 0.3, 3.0, 30.0)

Predict = Callable[[Any], np.ndarray]
Fit = Callable[[Any, np.ndarray], Predict]


@dataclass(frozen=True)
class Tower:
    """What one modality says of every product of the catalog.

    Args:
        logits: Dict of split to float array `(n, C)`: `fit` (out-of-fold),
            `validation` and `test`.
        present: Dict of split to bool array `(n,)`.
    """

    logits: dict[str, np.ndarray]
    present: dict[str, np.ndarray]


def fit_text(task: str, num_labels: int) -> Fit:
    """A way to train TF-IDF and logistic regression.

    Args:
        task: str. `single_label` or `multi_label`.
        num_labels: int.

    Returns:
        Function of texts `(n,)` and targets that trains, and returns a function
        of texts to logits `(n, num_labels)`.
    """

    def fit(texts: np.ndarray, targets: np.ndarray) -> Predict:
        weigh = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(
                analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2
            ),
        )
        weights = weigh.fit_transform(texts)
        predict = fit_logistic(task, num_labels, strength=10.0)(weights, targets)
        return lambda texts: predict(weigh.transform(texts))

    return fit


def fit_image(task: str, num_labels: int) -> Fit:
    """A way to train PCA and support vector machines with an RBF kernel.

    `multi_label`: one machine a label, its margins read as logits;
    `single_label`: one machine a pair of labels, made into logits by `couple`.
    Margins have no unit; the temperature that the caller fits gives them one.

    Args:
        task: str. `single_label` or `multi_label`.
        num_labels: int.

    Returns:
        Function of features `(n, d)` and targets that trains, and returns a
        function of features to logits `(n, num_labels)`.
    """

    def fit(features: np.ndarray, targets: np.ndarray) -> Predict:
        reduce = make_pipeline(
            StandardScaler(),
            PCA(
                min(NUM_COMPONENTS, *features.shape),
                svd_solver="randomized",
                random_state=0,
            ),
        )
        reduced = reduce.fit_transform(features)
        predict = _fit_labels(
            task,
            num_labels,
            SVC(C=10.0, decision_function_shape="ovo", cache_size=500),
            couple,
        )(reduced, targets)
        return lambda features: predict(reduce.transform(features))

    return fit


def fit_logistic(task: str, num_labels: int, strength: float) -> Fit:
    """A way to train logistic regression.

    `multi_label`: one model a label; `single_label`: one multinomial model.

    Args:
        task: str. `single_label` or `multi_label`.
        num_labels: int.
        strength: float. scikit-learn's `C`, the inverse of the penalty.

    Returns:
        Function of inputs `(n, d)` and targets that trains, and returns a function
        of inputs to logits `(n, num_labels)`.
    """
    # liblinear is many times faster on wide sparse inputs, and knows two classes only.
    solver = "liblinear" if task == "multi_label" else "lbfgs"
    model = LogisticRegression(C=strength, solver=solver, max_iter=200, tol=1e-3)

    def of_classes(scores: np.ndarray, num_classes: int) -> np.ndarray:
        if num_classes == 2:
            return np.stack([-scores / 2, scores / 2], axis=1)
        return scores

    return _fit_labels(task, num_labels, model, of_classes)


def _fit_labels(
    task: str,
    num_labels: int,
    model: Any,
    of_classes: Callable[[np.ndarray, int], np.ndarray],
) -> Fit:
    """Trains copies of a scikit-learn model; labels without products keep a prior.

    `of_classes` turns what a model of k classes decides into k logits.
    """

    def fit(inputs: Any, targets: np.ndarray) -> Predict:
        prior = prior_logits(task, targets, num_labels)
        columns = [targets] if task == "single_label" else (targets > 0).T
        models = {}
        with warnings.catch_warnings():
            # A bar to clear need not be polished to the last digit.
            warnings.simplefilter("ignore", ConvergenceWarning)
            for label, column in enumerate(columns):
                if len(np.unique(column)) > 1:
                    models[label] = clone(model).fit(inputs, column)

        def predict(inputs: Any) -> np.ndarray:
            logits = np.tile(prior, (inputs.shape[0], 1))
            for label, fitted in models.items():
                decided = fitted.decision_function(inputs)
                if task == "multi_label":
                    logits[:, label] = decided
                else:
                    classes = fitted.classes_
                    logits[:, classes] = of_classes(decided, len(classes))
            return logits

        return predict

    return fit


def couple(margins: np.ndarray, num_labels: int) -> np.ndarray:
    """Label logits from the margins of all pairs of labels.

    `logit_i = sum_j log sigmoid(margin_ij) * num_labels / (num_labels - 1)` with
    `margin_ji = -margin_ij`.

    Args:
        margins: Float array `(n, num_labels * (num_labels - 1) / 2)`, pairs in the
            order 01, 02, ..., 12, ...; positive for the first of the pair. For two
            labels `(n,)`, positive for the second, as scikit-learn has it.
        num_labels: int. At least 2.

    Returns:
        Float array `(n, num_labels)`.

    Example:
    >>> couple(np.array([0.0]), 2).round(3).tolist()
    [[-1.386, -1.386]]
    """
    if margins.ndim == 1:
        margins = -margins[:, None]
    first, second = np.triu_indices(num_labels, k=1)
    won = -np.logaddexp(0.0, -margins)
    lost = won - margins
    # A matrix of zeros and ones adds up the pairs of each label.
    is_first = np.equal.outer(first, np.arange(num_labels)).astype(np.float64)
    is_second = np.equal.outer(second, np.arange(num_labels)).astype(np.float64)
    return (won @ is_first + lost @ is_second) * num_labels / (num_labels - 1)


def prior_logits(task: str, targets: np.ndarray, num_labels: int) -> np.ndarray:
    """The label shares as logits `(num_labels,)`."""
    if task == "single_label":
        targets = metrics.one_hot(targets, num_labels)
    return metrics.logits_of(task, np.mean(targets, axis=0))


def out_of_fold(
    fit: Fit, inputs: Any, targets: np.ndarray, groups: np.ndarray, seed: int
) -> np.ndarray:
    """Logits for training products, each from a model that did not see it.

    Args:
        fit: A way to train, as `fit_text` and `fit_image` give them.
        inputs: Array `(n, ...)`.
        targets: Array `(n,)` or `(n, C)`.
        groups: Array `(n,)`. Products of one group stay in one fold.
        seed: int.

    Returns:
        Float array `(n, C)`.
    """
    folds = GroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    logits = None
    for seen, unseen in folds.split(inputs, groups=groups):
        predicted = fit(inputs[seen], targets[seen])(inputs[unseen])
        if logits is None:
            logits = np.empty((len(targets), predicted.shape[1]))
        logits[unseen] = predicted
    return logits
