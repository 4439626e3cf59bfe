"""boosted_trees: LightGBM on what the towers say, compiled into TensorFlow."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import lightgbm
import numpy as np
import tensorflow as tf
from keras import ops

from tfmm import metrics
from tfmm.dataset import keep_some
from tfmm.errors import ExperimentError, RunError
from tfmm.head_data import hidden, one_output, take
from tfmm.heads.candidates import candidates
from tfmm.heads.inputs import (
    Examples,
    HeadInputs,
    Problem,
    head_inputs,
    to_logits,
    to_probabilities,
)
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.tree_ensemble import TreeEnsemble
from tfmm.layers.unit_features import UnitFeatures
from tfmm.settings import BoostedTrees

PRODUCTS_AT_ONCE = 256
MAX_THREADS = 2  # there is too little to do for more
HIDE_RATE = 0.5


def boosted_trees(
    settings: BoostedTrees,
    problem: Problem,
) -> keras.Model:
    """Fits LightGBM and returns its trees as plain TensorFlow operations.

    - `per_label`, paper D: trees for every label, reading the probabilities of all
      towers, NaN where a tower is absent; a softmax over the labels.
    - `shared`, ours, the default: one set of trees for all labels. It scores a label
      by what `tfmm.heads.candidates` tells of it. Only labels among the best of a
      tower that is present are asked about; the others get the least probability.
      `single_label`: the scores of a product's labels go through a softmax, whose
      log loss is what the trees are grown for. `multi_label`: each through a sigmoid.

    Boosting stops by the log loss of `problem.held_out`, from which nothing else is
    learnt. So that absence is learnt, `num_augmented` copies of the products are
    added in which every modality is hidden with probability 1/2, the last one never;
    copies in which nothing came to be hidden are left out.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The task, the towers' shapes, and the products to learn from.

    Returns:
        Fitted model as described in `tfmm.heads`; `features` are the towers'
        unit-length features, joined.

    Raises:
        ExperimentError: If `form` is `per_label` for a `multi_label` task.
        RunError: If no tower sees any of the products to fit on, or to stop by, or no
            split can be made of them.

    Reference:
    - Verma et al. 2020, "Boosted late fusion".
    """
    fit = _with_hidden_towers(problem, settings.num_augmented)
    towers = head_inputs(problem.shapes)
    if settings.form == "per_label":
        logits = _per_label(settings, problem, fit, towers)
    else:
        logits = _shared(settings, problem, fit, towers)
    prior = PriorWhenAbsent(problem.prior_logits, name="logits")
    logits = prior(logits, towers.present)
    features = UnitFeatures(name="features")(towers.features, towers.present)
    return keras.Model(towers.nested, {"features": features, "logits": logits})


def _per_label(
    settings: BoostedTrees, problem: Problem, fit: Examples, towers: HeadInputs
):
    """Logits `(batch, C)` by trees for each label."""
    if problem.task != "single_label":
        raise ExperimentError(
            "boosted_trees: form 'per_label' is for single_label tasks; expected "
            f"form = 'shared' for this one. Received: {problem.task!r}"
        )
    told = [
        ops.where(towers.present[:, i : i + 1], ops.softmax(x, axis=-1), float("nan"))
        for i, x in enumerate(towers.logits)
    ]
    features = ops.concatenate(told, axis=-1)
    teller = keras.Model(towers.nested, features)

    def data(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        read = one_output(teller, _nested(examples), PRODUCTS_AT_ONCE)
        return read, examples.targets

    def loss(probabilities: np.ndarray, _):
        logits = metrics.logits_of("single_label", probabilities)
        targets = problem.held_out.targets
        return _loss(metrics.log_loss("single_label", targets, logits))

    options = {"objective": "multiclass", "num_class": len(problem.prior_logits)}
    trees = _grow(
        settings, problem.seed, options, data(fit), data(problem.held_out), loss
    )
    return to_logits("single_label", ops.softmax(trees(features), axis=-1))


def _shared(
    settings: BoostedTrees, problem: Problem, fit: Examples, towers: HeadInputs
):
    """Logits `(batch, C)` by one set of trees for all labels."""
    task = problem.task
    told = candidates(task, towers, problem.prior_logits, settings.num_candidates)
    teller = keras.Model(towers.nested, {"told": told.features, "asked": told.asked})
    rows, held_out_rows = (
        _rows(teller, task, examples) for examples in (fit, problem.held_out)
    )
    grown = (rows.told, rows.right)
    held_out = (held_out_rows.told, held_out_rows.right)
    if task == "single_label":
        options = {"objective": rows.gradients}
        loss = held_out_rows.softmax_loss
    else:
        options = {"objective": "binary"}
        loss = held_out_rows.sigmoid_loss
    trees = _grow(settings, problem.seed, options, grown, held_out, loss)
    scores = trees(told.features, told.asked)[:, :, 0]
    if task == "single_label":
        scores = ops.where(told.asked, scores, -np.inf)
        # A product without towers asks about nothing; it gets the prior.
        scores = ops.where(ops.any(told.asked, axis=1, keepdims=True), scores, 0.0)
    probabilities = to_probabilities(task, scores)
    return to_logits(task, ops.where(told.asked, probabilities, 0.0))


@dataclass(frozen=True)
class _Rows:
    """Labels that are asked about, product by product.

    Attributes:
        told: float32 `(rows, F)`.
        right: float32 `(rows,)`, 1.0 where the product has the label.
        starts: int `(asking,)`: the first row of each product that has any.
        num_products: How many there are, those without a row included.
    """

    told: np.ndarray
    right: np.ndarray
    starts: np.ndarray
    num_products: int

    def softmax(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities that add up to 1 over each product's rows."""
        sizes = np.diff(self.starts, append=len(scores))
        largest = np.repeat(np.maximum.reduceat(scores, self.starts), sizes)
        parts = np.exp(scores - largest)
        return parts / np.repeat(np.add.reduceat(parts, self.starts), sizes)

    def gradients(self, scores: np.ndarray, _) -> tuple[np.ndarray, np.ndarray]:
        """First and second derivatives of the products' log losses.

        Products of which no row is right teach nothing: no score helps them. The
        second derivatives are doubled, as LightGBM's own softmax does for two labels.
        """
        p = self.softmax(scores)
        sizes = np.diff(self.starts, append=len(scores))
        known = np.repeat(np.add.reduceat(self.right, self.starts), sizes)
        return (p - self.right) * known, 2.0 * p * (1.0 - p) * known

    def softmax_loss(self, scores: np.ndarray, _) -> tuple[str, float, bool]:
        """Mean log loss of the products; the least probability without a right row."""
        p = np.clip(self.softmax(scores), metrics.PROBABILITY_FLOOR, 1.0)
        right = self.right > 0
        missed = self.num_products - right.sum()
        total = np.log(p[right]).sum() + missed * np.log(metrics.PROBABILITY_FLOOR)
        return _loss(-total / self.num_products)

    def sigmoid_loss(self, probabilities: np.ndarray, _) -> tuple[str, float, bool]:
        """Mean log loss of the rows; labels that are not asked about never change."""
        logits = metrics.logits_of("multi_label", probabilities)
        return _loss(metrics.log_loss("multi_label", self.right, logits))


def _rows(teller: keras.Model, task: str, examples: Examples) -> _Rows:
    """What the trees read of the products, a batch of products at a time."""
    # `keras.Model.predict_on_batch` would trace a graph for each size, and warn of it.
    ask = tf.function(teller, reduce_retracing=True)
    told, asked = [], []
    for start in range(0, len(examples.targets), PRODUCTS_AT_ONCE):
        part = slice(start, start + PRODUCTS_AT_ONCE)
        said = {k: x.numpy() for k, x in ask(_nested(examples, part)).items()}
        told.append(said["told"][said["asked"]])
        asked.append(said["asked"])
    product, label = np.nonzero(np.concatenate(asked))
    if task == "single_label":
        right = examples.targets[product] == label
    else:
        right = examples.targets[product, label] > 0
    return _Rows(
        told=np.concatenate(told),
        right=right.astype(np.float32),
        starts=np.unique(product, return_index=True)[1],
        num_products=len(examples.targets),
    )


def _nested(examples: Examples, rows: slice = slice(None)) -> dict:
    return {
        name: {key: array[rows] for key, array in tower.items()}
        for name, tower in examples.inputs.items()
    }


def _loss(value: float) -> tuple[str, float, bool]:
    """As LightGBM wants a measure; smaller is better."""
    return "log_loss", value, False


def _grow(
    settings: BoostedTrees,
    seed: int,
    options: dict,
    fit: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    loss: Callable,
) -> TreeEnsemble:
    """Boosts until `loss` no longer falls, and compiles the trees up to its best.

    Args:
        settings: `[heads.NAME]` of the experiment.
        seed: Of LightGBM's draws.
        options: Its objective.
        fit: float32 `(rows, F)` and the targets `(rows,)`.
        held_out: The same.
        loss: Of scores or probabilities and the data set, as LightGBM calls it.
    """
    common = {
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.num_leaves,
        "max_depth": settings.max_depth,
        "min_data_in_leaf": settings.min_products_per_leaf,
        "lambda_l2": settings.l2,
        "feature_fraction": settings.feature_rate,
        "metric": "None",
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": _threads(),
        "verbosity": -1,
    }
    # LightGBM stops with a message of its own where there is nothing to grow from.
    if not len(fit[1]) or not len(held_out[1]):
        raise RunError(
            "boosted_trees has no products that a tower sees; expected some to fit on "
            f"and some to stop by. Received: {len(fit[1])} and {len(held_out[1])} rows"
        )
    grown = lightgbm.Dataset(*fit, params=common).construct()
    if not any(map(grown.feature_num_bin, range(fit[0].shape[1]))):
        raise _no_split(settings)
    booster = lightgbm.train(
        {**common, **options},
        grown,
        settings.max_rounds,
        valid_sets=[lightgbm.Dataset(*held_out, reference=grown)],
        feval=loss,
        callbacks=[lightgbm.early_stopping(settings.patience_rounds, verbose=False)],
    )
    if not booster.feature_importance("split").any():
        raise _no_split(settings)
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    return TreeEnsemble.of_lightgbm(text, name="trees")


def _threads() -> int:
    """As many as TensorFlow may use here: two trials share a machine's cores."""
    given = tf.config.threading.get_intra_op_parallelism_threads()
    return min(MAX_THREADS, given or MAX_THREADS)


def _no_split(settings: BoostedTrees) -> RunError:
    return RunError(
        "boosted_trees finds no split; expected more products to fit on, or fewer "
        "min_products_per_leaf. Received: "
        f"min_products_per_leaf = {settings.min_products_per_leaf}"
    )


def _with_hidden_towers(problem: Problem, copies: int) -> Examples:
    """The products, and copies of them in which towers are hidden at random."""
    examples = problem.fit
    inputs = dict(examples.inputs)
    present = np.stack([tower["present"] for tower in inputs.values()], axis=1)
    parts = [(np.arange(len(present)), present)]
    for copy in range(copies):
        stays = keep_some(present, HIDE_RATE, (problem.seed, 4, copy), problem.units)
        changed = np.flatnonzero((stays != present).any(axis=1))
        parts.append((changed, stays[changed]))
    rows, stays = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Examples(
        hidden(take(inputs, rows), stays),
        examples.targets[rows],
        examples.groups[rows],
    )
