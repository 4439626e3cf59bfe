"""Fitting one head on stored outputs, or a joint network on the products."""

from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfmm import dataset, metrics, results, train
from tfmm.catalog import Catalog
from tfmm.dataset import Caches
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.head_data import array_batches, hide_towers, take
from tfmm.heads import HEADS, LESSONS
from tfmm.heads.early_fusion import early_fusion_lesson
from tfmm.heads.inputs import Examples, Problem, TowerShape
from tfmm.heads.joint import joint, rate_factors
from tfmm.losses import loss_for
from tfmm.run import Run
from tfmm.settings import FittedHead, Head, Joint, Training
from tfmm.settings.wiring import fitted_on
from tfmm.splits import thinned
from tfmm.stages import answers, keeping
from tfmm.stages.towers import untrained
from tfmm.train import Places

# Updates of heads take so little that calling each from Python would double it.
STEPS_PER_CALL = 16
# Of `validation`, after each epoch; for the same reason.
PRODUCTS_PER_CALL = 1_024


def fit_head(run: Run, settings: Experiment, catalog: Catalog, name: str) -> None:
    """Fits a head and writes its outputs and calibration, unless all is there."""
    head = settings.heads[name]
    mark = results.model_fingerprint(run, settings, name)
    caches: Caches = {}
    if isinstance(head, Joint):
        reads = results.reads(settings, name)
        caches = answers.caches_of(run, settings, catalog, reads)
    if not keeping.is_fitted(run, name, mark):
        train.deterministic(settings.seed)
        if isinstance(head, Joint):
            places = keeping.places(run, name)
            rows = joint_rows(settings, catalog, name, "train")
            model, result = fit_joint(
                run, settings, catalog, name, rows, mark, caches, places
            )
        else:
            problem = problem_of(run, settings, name)
            labels, places = run.read_labels(), keeping.places(run, name)
            try:
                model, result = fit(name, head, problem, labels, mark, places)
            except RunError as error:
                raise RunError(f"{run.path}: [heads.{name}] {error}") from None
        keeping.keep(run, name, mark, model, result)
    answers.write_all(run, settings, name, catalog, caches)


def problem_of(
    run: Run, settings: Experiment, name: str, data_rate: float = 1.0
) -> Problem:
    """What a head is fitted on and watched on; a rule is given what it ignores.

    Args:
        run: With the outputs of all that the head hears.
        settings: The experiment.
        name: A head; not a joint network.
        data_rate: Share of the products to fit it on, by label.
    """
    head = settings.heads[name]
    held_out = results.examples(run, settings, name, ["validation"])
    fit = held_out
    if "validation" in fitted_on(name, settings.heads):
        rows, rest = answers.cut_validation(run, settings)
        fit, held_out = _some(held_out, rows), _some(held_out, rest)
    if isinstance(head, FittedHead) and head.fit_splits != ("validation",):
        fit = results.examples(run, settings, name, head.fit_splits)
    if data_rate < 1.0:
        labels = labels_of(settings.catalog.task, fit.targets)
        kept = thinned(labels, fit.groups, data_rate)
        fit = _some(fit, np.flatnonzero(kept))
    return Problem(
        task=settings.catalog.task,
        shapes={
            heard: TowerShape(values["features"].shape[1], values["logits"].shape[1])
            for heard, values in fit.inputs.items()
        },
        modalities=_modalities(settings, fit.inputs),
        prior_logits=results.prior_logits(run, settings),
        seed=settings.seed,
        fit=fit,
        held_out=held_out,
    )


def labels_of(task: str, targets: np.ndarray) -> list[np.ndarray]:
    """Each product's labels, as indices, of targets `(n,)` or `(n, C)`."""
    if task == "single_label":
        return [np.array([label]) for label in targets]
    return [np.flatnonzero(row) for row in targets]


def _modalities(
    settings: Experiment, heard: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    return {name: tuple(settings.modalities_of(name)) for name in heard}


def _some(examples: Examples, rows: np.ndarray) -> Examples:
    groups = np.unique(examples.groups[rows], return_inverse=True)[1]
    return Examples(take(dict(examples.inputs), rows), examples.targets[rows], groups)


def fit(
    name: str,
    head: Head,
    problem: Problem,
    label_names: Sequence[str],
    mark: str,
    places: Places,
) -> tuple[keras.Model, dict]:
    """Builds a head and fits it on stored outputs.

    Args:
        name: For messages.
        head: `[heads.NAME]`; not a joint network.
        problem: What it is fitted on.
        label_names: The `C` labels.
        mark: Fingerprint of the head.
        places: Where the files of a training go.

    Returns:
        The head, and how its training went; nothing of one that is not trained.
    """
    model = HEADS[head.model](head, problem)
    if not isinstance(head, Training):
        return model, {}
    task, fit_on, held_out = problem.task, problem.fit, problem.held_out
    loss = loss_for(task, head, label_names, fit_on.targets)
    lesson = LESSONS[head.model](head, problem, model, loss)
    predict = results.predictor(model)

    def validate() -> dict[str, float]:
        batches = array_batches(dict(held_out.inputs), PRODUCTS_PER_CALL)
        logits = np.concatenate([predict(batch)["logits"] for batch in batches])
        return metrics.quick_measures(task, held_out.targets, logits)

    def epoch_data(epoch: int) -> tf.data.Dataset:
        seed = (problem.seed, epoch)
        rate = getattr(head, "modality_dropout", 0.0)
        seen = hide_towers(dict(fit_on.inputs), rate, seed, problem.units)
        return dataset.arrays_epoch(
            seen, lesson.targets, head.batch_size, seed, lesson.weights
        )

    result = keeping.trained(
        *(name, head, problem.seed, mark, lesson.model, lesson.losses),
        *(epoch_data, validate, places, STEPS_PER_CALL),
    )
    return model, result


def joint_rows(
    settings: Experiment, catalog: Catalog, name: str, split: str
) -> np.ndarray:
    """The rows of a split that a joint network has anything to look at of."""
    rows = catalog.rows(split)
    any_of = settings.modalities_of(name)
    here = [catalog.present(modality, rows) for modality in any_of]
    return rows[np.any(here, axis=0)]


def fit_joint(
    run: Run,
    settings: Experiment,
    catalog: Catalog,
    name: str,
    rows: np.ndarray,
    mark: str,
    caches: Caches,
    places: Places,
) -> tuple[keras.Model, dict]:
    """Trains towers and fusion as one network on the products `rows`."""
    head = settings.heads[name]
    reads = results.reads(settings, name)
    if head.start_from == "towers":
        towers = {x: results.load_model(run, x) for x in head.towers}
    else:
        towers = {x: untrained(run, settings, catalog, x) for x in head.towers}
    held_out = joint_rows(settings, catalog, name, "validation")
    targets, truth = catalog.targets(rows), catalog.targets(held_out)
    seen, watched = (
        Examples({}, x, np.arange(len(x), dtype=np.int32)) for x in (targets, truth)
    )
    problem = Problem(
        task=catalog.task,
        shapes={
            x: TowerShape(*(model.output[y].shape[1] for y in ("features", "logits")))
            for x, model in towers.items()
        },
        modalities=_modalities(settings, towers),
        prior_logits=results.prior_logits(run, settings),
        seed=settings.seed,
        fit=seen,
        held_out=watched,
    )
    keys = {x: settings.towers[x].modality for x in head.towers}
    model = joint(head, problem, towers, keys)
    loss = loss_for(catalog.task, head, run.read_labels(), targets)
    lesson = early_fusion_lesson(head, problem, model, loss)
    predict = results.predictor(model)

    def validate() -> dict[str, float]:
        data = dataset.batches(catalog, held_out, reads, answers.PREDICT_BATCH, caches)
        logits = np.concatenate([predict(batch)["logits"] for batch in data])
        return metrics.quick_measures(catalog.task, truth, logits)

    def epoch_data(epoch: int) -> tf.data.Dataset:
        seed = (settings.seed, epoch)
        whole = dataset.epoch(
            *(catalog, rows, reads, head.batch_size, seed, caches),
            head.modality_dropout,
        )
        # Every output of the lesson is held against the labels.
        return whole.map(
            lambda inputs, labels: (
                inputs,
                dict.fromkeys(lesson.losses, labels["logits"]),
            )
        )

    result = keeping.trained(
        *(name, head, settings.seed, mark, lesson.model, lesson.losses),
        *(epoch_data, validate, places),
        rate_factors=rate_factors(head, lesson.model),
    )
    return model, result
