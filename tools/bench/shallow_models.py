"""The shallow models of `shallow.py`: features, classifiers, out-of-fold, fusion.

In this file: `n` products, `C` labels; `task` is `single_label` or `multi_label`;
targets are what `Catalog.targets` gives; a part is `fit` (`train` and `fusion`
together), `validation` or `test`; a `Fit` trains on inputs and targets and returns
a function from inputs to logits `(n, C)`.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import expit
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_union
from sklearn.svm import SVC

from tfmm import metrics
from tfmm.catalog import Catalog
from tfmm.errors import TfmmError
from tfmm.progress import progress, say

NUM_FOLDS = 4
PICTURE_PX = 64
NUM_FEATURES = 7 * 7 * 2 * 2 * 9 + 4 * 128
NUM_COMPONENTS = 200
PAIR_STEEPNESS = 4.0  # support vectors lie at margins of -1 and 1
COUPLED_AT_ONCE = 256  # products; bounds the memory of the pairs' matrices
STACK_STRENGTHS = (0.03, 0.3, 3.0, 30.0)

Predict = Callable[[Any], np.ndarray]
Fit = Callable[[Any, np.ndarray], Predict]


def fit_text(task: str, num_labels: int) -> Fit:
    """TF-IDF and logistic regression, for texts `(n,)`."""

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
    """PCA and support vector machines with an RBF kernel, for features `(n, d)`.

    `multi_label`: one machine a label, its margins read as logits;
    `single_label`: one machine a pair of labels, made into logits by `couple`.
    Margins have no unit; the temperature that the caller fits gives them one.
    """

    def fit(features: np.ndarray, targets: np.ndarray) -> Predict:
        num_components = min(NUM_COMPONENTS, *features.shape)
        reduce = PCA(num_components, svd_solver="randomized", random_state=0)
        reduced = reduce.fit_transform(features)
        machine = SVC(C=10.0, decision_function_shape="ovo", cache_size=500)
        predict = _fit_labels(task, num_labels, machine, couple)(reduced, targets)
        return lambda features: predict(reduce.transform(features))

    return fit


def fit_logistic(task: str, num_labels: int, strength: float) -> Fit:
    """Logistic regression on inputs `(n, d)`; `strength` is scikit-learn's `C`.

    `multi_label`: one model a label; `single_label`: one multinomial model.
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
    """Copies of a scikit-learn model; labels that never vary keep their share.

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

    A pair's margin gives the chance `r_ij = sigmoid(PAIR_STEEPNESS * margin_ij)`
    of label i if it is i or j. The labels' probabilities are those that agree
    best with all pairs: they minimise `sum_ij (r_ji p_i - r_ij p_j)^2` under
    `sum_i p_i = 1`, which is one linear system a product. Adding up won pairs
    would choose as well and say nothing of how sure the choice is.

    Args:
        margins: Float array `(n, num_labels * (num_labels - 1) / 2)`, pairs in the
            order 01, 02, ..., 12, ...; positive for the first of the pair. For two
            labels `(n,)`, positive for the second, as scikit-learn has it.
        num_labels: int. At least 2.

    Returns:
        Float array `(n, num_labels)`, the logarithms of the probabilities.

    Example:
    >>> np.exp(couple(np.array([0.0]), 2)).round(3).tolist()
    [[0.5, 0.5]]

    Reference:
    - Wu, Lin and Weng, 2004, "Probability estimates for multi-class classification
        by pairwise coupling", second approach.
    """
    if margins.ndim == 1:
        margins = -margins[:, None]
    first, second = np.triu_indices(num_labels, k=1)
    diagonal = np.arange(num_labels)
    logits = np.empty((len(margins), num_labels))
    for start in range(0, len(margins), COUPLED_AT_ONCE):
        rows = slice(start, start + COUPLED_AT_ONCE)
        chances = expit(PAIR_STEEPNESS * margins[rows])
        wins = np.zeros((len(chances), num_labels, num_labels))
        wins[:, first, second] = chances
        wins[:, second, first] = 1.0 - chances
        # The last row and column hold the multiplier of the constraint.
        system = np.zeros((len(chances), num_labels + 1, num_labels + 1))
        system[:, :-1, :-1] = -wins * wins.transpose(0, 2, 1)
        system[:, diagonal, diagonal] = np.square(wins).sum(axis=1)
        system[:, -1, :-1] = system[:, :-1, -1] = 1.0
        wanted = np.zeros((len(chances), num_labels + 1, 1))
        wanted[:, -1] = 1.0
        solved = np.linalg.solve(system, wanted)[:, :-1, 0]
        logits[rows] = metrics.logits_of("single_label", solved)
    return logits


def prior_logits(task: str, targets: np.ndarray, num_labels: int) -> np.ndarray:
    """The label shares as logits `(num_labels,)`."""
    if task == "single_label":
        targets = metrics.one_hot(targets, num_labels)
    return metrics.logits_of(task, np.mean(targets, axis=0))


def out_of_fold(
    fit: Fit, inputs: Any, targets: np.ndarray, groups: np.ndarray, seed: int
) -> np.ndarray:
    """Logits `(n, C)` for training products, each from a model that did not see it.

    Products of one group `(n,)` stay in one fold: variants share their text.
    """
    folds = GroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    logits = None
    for seen, unseen in folds.split(inputs, groups=groups):
        predicted = fit(inputs[seen], targets[seen])(inputs[unseen])
        if logits is None:
            logits = np.empty((len(targets), predicted.shape[1]))
        logits[unseen] = predicted
    return logits


def picture_features(path: str) -> np.ndarray | None:
    """Shape and colour of a picture, `(NUM_FEATURES,)`; `None` if it is unreadable.

    Histograms of oriented gradients (9 directions, cells of 8 px, blocks of 2 x 2
    cells) of the picture at `PICTURE_PX`, and for each quarter the square roots of
    the shares of 128 colours (hue 8 x saturation 4 x value 4).

    Raises:
        TfmmError: If scikit-image is not installed.
    """
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise TfmmError(
            "image features need scikit-image: pip install -e '.[bench]'. "
            f"Received: {error}"
        ) from None
    try:
        with Image.open(path) as file:
            size = (PICTURE_PX, PICTURE_PX)
            picture = file.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    shape = hog(
        np.asarray(picture),
        orientations=9,
        pixels_per_cell=(8, 8),
        cells_per_block=(2, 2),
        channel_axis=-1,
    )
    hue, saturation, value = np.moveaxis(np.asarray(picture.convert("HSV"), int), 2, 0)
    colours = hue // 32 * 16 + saturation // 64 * 4 + value // 64
    half = PICTURE_PX // 2
    shares = [
        np.bincount(quarter.ravel(), minlength=128) / quarter.size
        for rows in (colours[:half], colours[half:])
        for quarter in (rows[:, :half], rows[:, half:])
    ]
    return np.concatenate([shape, *np.sqrt(shares)]).astype(np.float32)


@dataclass(frozen=True)
class Products:
    """What a tower reads of every product of the catalog.

    Attributes:
        inputs: `(n, ...)`; anything where a product has nothing to read.
        present: bool `(n,)`.
    """

    inputs: np.ndarray
    present: np.ndarray


def read_texts(catalog: Catalog) -> Products:
    """All text modalities, joined by spaces."""
    rows = zip(*catalog.texts.values(), strict=True)
    texts = np.array([" ".join(filter(None, row)) for row in rows], object)
    return Products(texts, texts != "")


def read_pictures(catalog: Catalog) -> Products:
    """The features of all image modalities side by side, zeros for a missing one."""
    blocks, present = [], np.zeros(len(catalog.ids), bool)
    for name, paths in catalog.images.items():
        found = {}
        with progress(f"features of {name}", len(paths)) as report:
            for row, path in enumerate(paths):
                features = picture_features(path) if path else None
                if features is not None:
                    found[row] = features
                report(row + 1)
        num_bad = np.count_nonzero(paths != "") - len(found)
        say(f"{name}: {len(found)} images, {num_bad} that cannot be read")
        block = np.zeros((len(paths), NUM_FEATURES), np.float32)
        for row, features in found.items():
            block[row] = features
            present[row] = True
        blocks.append(block)
    return Products(np.hstack(blocks), present)


def by_max(task: str, towers: np.ndarray) -> np.ndarray:
    """Each label's greatest probability, from `(towers, n, C)`."""
    return towers.max(axis=0)


def by_mean(task: str, towers: np.ndarray) -> np.ndarray:
    """Each label's mean probability, from `(towers, n, C)`."""
    return towers.mean(axis=0)


def by_product(task: str, towers: np.ndarray) -> np.ndarray:
    """The probabilities multiplied, and divided by what makes them add up to 1.

    Over the labels for `single_label`, over yes and no of each label for
    `multi_label`; from `(towers, n, C)`.

    Example:
    >>> towers = np.array([[[0.5, 0.25]], [[0.5, 0.5]]])
    >>> by_product("multi_label", towers).round(3).tolist()
    [[0.5, 0.25]]
    """
    logits = metrics.logits_of(task, towers).astype(np.float64)
    return metrics.probabilities(task, logits.sum(axis=0))


RULES = {"max": by_max, "mean": by_mean, "product": by_product}


def fit_stack(
    task: str,
    num_labels: int,
    inputs: Mapping[str, np.ndarray],
    targets: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The stack's probabilities `(n, C)` for `validation` and `test`.

    Args:
        task: The task.
        num_labels: `C`.
        inputs: Part -> what `stack_inputs` gives.
        targets: Part -> targets.

    Returns:
        Part -> probabilities, at the strength with the least validation loss.
    """
    best_loss, best = np.inf, {}
    for strength in STACK_STRENGTHS:
        fit = fit_logistic(task, num_labels, strength)
        predict = fit(inputs["fit"], targets["fit"])
        logits = {part: predict(inputs[part]) for part in ("validation", "test")}
        loss = metrics.log_loss(task, targets["validation"], logits["validation"])
        if loss < best_loss:
            best_loss, best = loss, logits
    return {part: metrics.probabilities(task, x) for part, x in best.items()}


def stack_inputs(probabilities: np.ndarray, present: np.ndarray) -> np.ndarray:
    """What the stack reads, `(n, towers * (C + 1))`.

    First each tower's probabilities `(towers, n, C)`, then `present` `(towers, n)`.
    """
    return np.hstack([*probabilities, present.T])
