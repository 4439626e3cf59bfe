"""What shallow models reach on the same products as tfmm: the bar to clear.

    python tools/bench/shallow.py hparams/fashion.toml --catalog catalog.csv

reads the catalog, its labels and its splits as `tfmm.fit` does and trains

- one text tower: all text modalities joined, TF-IDF of words (1 and 2) and of
  characters within words (2 to 5), logistic regression;
- one image tower: histograms of oriented gradients and colour histograms of all
  image modalities, PCA, support vector machines with an RBF kernel;
- `max`, `mean` and `product` of their temperature-calibrated probabilities;
- `stack`: a logistic regression on the towers' out-of-fold probabilities and on
  which modalities are present.

Everything is fitted on the splits `train` and `fusion`, tuned on `validation`
(temperatures, the stack's strength, the one threshold of a multi-label model)
and reported on `test`. A product without a modality gets the label shares in
place of that tower's probabilities. The networks see less: their towers never
learn from `fusion`.

Needs scikit-image: `pip install -e '.[bench]'`.

In this file: `n` products, `C` labels; `task` is `single_label` or `multi_label`;
targets are what `Catalog.targets` gives; a part is `fit` (`train` and `fusion`
together), `validation` or `test`; a `Fit` trains on inputs and targets and returns
a function from inputs to logits `(n, C)`.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
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

from tfmm import calibration, experiment, metrics, tables
from tfmm.catalog import Catalog
from tfmm.catalog import load as load_catalog
from tfmm.errors import TfmmError, command_line
from tfmm.experiment import Experiment
from tfmm.progress import progress, say
from tfmm.run import write_json

NUM_FOLDS = 4
NUM_RESAMPLES = 2000
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


def read_groups(catalog: Catalog, settings: Experiment) -> np.ndarray:
    """The group of each product, by which the catalog's splits keep it; or its id."""
    table = tables.read(catalog.path)
    column = settings.catalog.group
    if column not in table:
        return catalog.ids
    cells = [cell.strip() for cell in table.text_column(column)]
    return np.array([c or i for c, i in zip(cells, catalog.ids, strict=True)], object)


def fit_tower(
    name: str,
    fit: Fit,
    products: Products,
    catalog: Catalog,
    parts: Mapping[str, np.ndarray],
    groups: np.ndarray,
    seed: int,
) -> dict[str, np.ndarray]:
    """Trains a tower and asks it about the products of all parts.

    Args:
        name: For messages.
        fit: The way to train.
        products: What the tower reads.
        catalog: Where the targets are.
        parts: Part -> rows of the catalog.
        groups: One for each product of the catalog; a group stays in one fold.
        seed: Of the folds.

    Returns:
        Part -> calibrated probabilities `(n, C)`. Those of `fit` are out-of-fold;
        products without the modality get the label shares.

    Raises:
        TfmmError: If too few products have the modality.
    """
    started = time.monotonic()
    task, num_labels = catalog.task, len(catalog.label_names)
    has = {part: rows[products.present[rows]] for part, rows in parts.items()}
    num_groups = len(set(groups[has["fit"]]))
    if num_groups < NUM_FOLDS or not len(has["validation"]):
        raise TfmmError(
            f"{catalog.path}: expected at least {NUM_FOLDS} groups of products with "
            f"{name} to train on and one to validate. Received: {num_groups} and "
            f"{len(has['validation'])}"
        )
    seen, targets = products.inputs[has["fit"]], catalog.targets(has["fit"])
    predict = fit(seen, targets)
    logits = {
        part: predict(products.inputs[rows])
        for part, rows in has.items()
        if part != "fit" and len(rows)
    }
    logits["fit"] = out_of_fold(fit, seen, targets, groups[has["fit"]], seed)
    temperature = calibration.fit(
        task,
        catalog.targets(has["validation"]),
        logits["validation"],
        fingerprint="",
    ).temperature
    prior = prior_logits(task, catalog.targets(parts["fit"]), num_labels)
    probabilities = {}
    for part, rows in parts.items():
        whole = np.tile(prior, (len(rows), 1))
        if part in logits:
            whole[products.present[rows]] = logits[part] / temperature
        probabilities[part] = metrics.probabilities(task, whole)
    say(f"{name}: trained in {time.monotonic() - started:.0f} s")
    return probabilities


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


def interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of `(n,)` values over products.

    Of the differences between two models, it is the paired interval.

    Example:
    >>> interval(np.ones(10), seed=0)
    (1.0, 1.0)
    """
    rng = np.random.default_rng(seed)
    size = len(values)
    means = [values[rng.integers(size, size=size)].mean() for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def measure(catalog: Catalog, settings: Experiment) -> dict[str, Any]:
    """Trains everything and measures it on `test`.

    Returns:
        What `numbers` returns.

    Raises:
        TfmmError: If a split is empty, or too few products have a modality.
    """
    task, num_labels = catalog.task, len(catalog.label_names)
    parts = {
        "fit": np.concatenate([catalog.rows("train"), catalog.rows("fusion")]),
        "validation": catalog.rows("validation"),
        "test": catalog.rows("test"),
    }
    for part, rows in parts.items():
        if not len(rows):
            raise TfmmError(f"{catalog.path}: no products to use for {part!r}")
    targets = {part: catalog.targets(rows) for part, rows in parts.items()}
    groups = read_groups(catalog, settings)

    read = {}
    if catalog.images:
        read["image"] = read_pictures(catalog), fit_image(task, num_labels)
    if catalog.texts:
        read["text"] = read_texts(catalog), fit_text(task, num_labels)
    said = {
        name: fit_tower(name, fit, products, catalog, parts, groups, settings.seed)
        for name, (products, fit) in read.items()
    }
    towers = list(said)
    if len(towers) > 1:
        joined = {part: np.stack([said[t][part] for t in towers]) for part in parts}
        for name, rule in RULES.items():
            said[name] = {part: rule(task, joined[part]) for part in parts}
        inputs = {
            part: stack_inputs(
                joined[part], np.stack([read[t][0].present[rows] for t in towers])
            )
            for part, rows in parts.items()
        }
        said["stack"] = fit_stack(task, num_labels, inputs, targets)
    return numbers(task, towers, said, targets, settings.seed)


def numbers(
    task: str,
    towers: Sequence[str],
    said: Mapping[str, Mapping[str, np.ndarray]],
    targets: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """The report of what models said.

    Args:
        task: The task.
        towers: The names of the models that are towers.
        said: Model -> part -> probabilities `(n, C)`, for `validation` and `test`.
        targets: Part -> targets.
        seed: Of the bootstrap.

    Returns:
        A report like tfmm's own `report.json`, with `top1_half_width` of each model
        and with `stack_minus_best_tower`.
    """
    truth = targets["test"]
    models, right = {}, {}
    for name, probabilities in said.items():
        model = {
            "kind": "tower" if name in towers else "head",
            "towers": [name] if name in towers else list(towers),
        }
        thresholds = None
        if task == "multi_label":
            threshold = calibration.best_threshold(
                targets["validation"], probabilities["validation"]
            )
            thresholds = np.full(truth.shape[1], threshold)
            model["threshold"] = threshold
        model |= metrics.measures(task, truth, probabilities["test"], thresholds)
        right[name] = metrics.is_right(task, truth, probabilities["test"])
        low, high = interval(right[name], seed)
        models[name] = model | {"top1_half_width": (high - low) / 2}

    best = max(towers, key=lambda name: models[name]["top1"])
    oracle = float(np.any([right[name] for name in towers], axis=0).mean())
    to_gain = oracle - models[best]["top1"]
    for name, model in models.items():
        model["oracle_share"] = None
        if name not in towers and to_gain > 0:
            model["oracle_share"] = (model["top1"] - models[best]["top1"]) / to_gain
    result = {
        "split": "test",
        "task": task,
        "products": len(truth),
        "labels": said[best]["test"].shape[1],
        "models": models,
        "oracle": {"top1": oracle},
        "best_tower": best,
    }
    if "stack" in models:
        gain = right["stack"].astype(float) - right[best]
        low, high = interval(gain, seed)
        difference = {"top1": float(gain.mean()), "low": low, "high": high}
        result["stack_minus_best_tower"] = difference
    return result


def format_table(report: Mapping[str, Any]) -> str:
    """The report as a plain table."""
    columns = ("top1", "macro_f1", "micro_f1", "oracle_share")
    lines = [
        f"{report['products']} test products, {report['labels']} labels, "
        f"{report['task']}; ± and [ ] are 95 % intervals over products",
        "",
        f"{'model':<10}{'top1':>8}{'':>8}" + "".join(f"{c:>14}" for c in columns[1:]),
    ]
    for name, model in report["models"].items():
        line = f"{name:<10}{model['top1']:>8.3f} ± {model['top1_half_width']:.3f}"
        for column in columns[1:]:
            value = model[column]
            line += f"{'' if value is None else format(value, '.3f'):>14}"
        lines.append(line.rstrip())
    lines.append(f"{'oracle':<10}{report['oracle']['top1']:>8.3f}")
    if "stack_minus_best_tower" in report:
        gain = report["stack_minus_best_tower"]
        lines += [
            "",
            f"stack - {report['best_tower']}: top1 {gain['top1']:+.3f} "
            f"[{gain['low']:+.3f}, {gain['high']:+.3f}]",
        ]
    return "\n".join(lines)


def shallow(
    hparams: Annotated[Path, typer.Argument(help="Experiment file (TOML).")],
    catalog: Annotated[Path, typer.Option(help="Table of products.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; the table's by default.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value over the file's; may be repeated."),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="File for the numbers (JSON).")
    ] = None,
) -> None:
    """Trains shallow models on an experiment's catalog and prints what they reach."""
    started = time.monotonic()
    settings = experiment.load(hparams, set_ or [])
    if not catalog.is_file():
        raise TfmmError(f"{catalog}: no such catalog file")
    if to is not None and not to.parent.is_dir():
        raise TfmmError(
            f"--to: expected a file in a folder that exists. Received: {to}"
        )
    report = measure(load_catalog(catalog, settings, images), settings)
    report["seconds"] = round(time.monotonic() - started, 1)
    if to is not None:
        write_json(to, report)
    print(format_table(report))


if __name__ == "__main__":
    command_line(shallow, "python tools/bench/shallow.py")
