"""One model fitted apart from the run's own, and what it is worth on validation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmm import calibration, dataset, outputs, results, train
from tfmm.catalog import Catalog
from tfmm.experiment import Experiment
from tfmm.head_data import array_batches, take
from tfmm.run import Run
from tfmm.settings import Joint
from tfmm.settings.wiring import fitted_on
from tfmm.splits import thinned
from tfmm.stages import answers
from tfmm.stages.heads import fit, fit_joint, joint_rows, problem_of
from tfmm.stages.towers import fit_on
from tfmm.train import Places


@dataclass(frozen=True)
class Apart:
    """What a model that was fitted apart says of products of `validation`.

    Attributes:
        training: What `tfmm.train.train` returns; empty if nothing was trained.
        targets: int `(n,)` or float `(n, C)`, of the products that it may be measured
            on: not those that it was fitted on.
        probabilities: float32 `(n, C)`, calibrated.
        assigned: bool `(n, C)`.
    """

    training: Mapping[str, Any]
    targets: np.ndarray
    probabilities: np.ndarray
    assigned: np.ndarray


def fit_apart(
    run: Run,
    settings: Experiment,
    name: str,
    catalog: Callable[[], Catalog],
    folder: Path,
    data_rate: float,
    cuts_validation: bool,
    watch: Callable[[Mapping[str, float]], None],
) -> Apart:
    """Fits a model without touching the run, and asks it about `validation`.

    Args:
        run: With the labels, the targets, and all that the model hears.
        settings: The experiment, in which that model may differ from the run's.
        name: A tower or a head.
        catalog: Gives the products; called for a model that sees them.
        folder: Where the files of a training go.
        data_rate: Share of the products to learn from, by label.
        cuts_validation: Whether to leave out the products of `validation` that a head
            may be fitted on, also if this one is not.
        watch: As `Places.watch`.
    """
    parts = ("log.csv", "tensorboard", "training")
    places = Places(*(folder / part for part in parts), watch)
    mark = results.model_fingerprint(run, settings, name)
    train.deterministic(settings.seed)
    if settings.sees_products(name):
        model, training, logits, present = _of_products(
            run, settings, name, catalog(), places, data_rate, mark
        )
    else:
        problem = problem_of(run, settings, name, data_rate)
        labels = run.read_labels()
        head = settings.heads[name]
        model, training = fit(name, head, problem, labels, mark, places)
        inputs, _ = results.head_inputs(run, settings, name, "validation")
        present = np.any([x["present"] for x in inputs.values()], axis=0)
        some = take(inputs, np.flatnonzero(present))
        logits = _said(model, array_batches(some, answers.PREDICT_BATCH), present)
    train.forget_checkpoint(places)
    cut = cuts_validation or "validation" in fitted_on(name, settings.heads)
    return _measured(run, settings, name, training, logits, present, cut)


def _of_products(
    run: Run,
    settings: Experiment,
    name: str,
    catalog: Catalog,
    places: Places,
    data_rate: float,
    mark: str,
) -> tuple[keras.Model, dict, np.ndarray, np.ndarray]:
    model_settings = settings.model_settings(name)
    reads = results.reads(settings, name)
    caches = answers.caches_of(run, settings, catalog, reads)
    if isinstance(model_settings, Joint):
        rows = joint_rows(settings, catalog, name, "train")
    else:
        rows = catalog.present_rows(model_settings.modality, "train")
    if data_rate < 1.0:
        labels = [catalog.label_indices[row] for row in rows]
        rows = rows[thinned(labels, catalog.groups[rows], data_rate)]
    given = (run, settings, catalog, name, rows)
    if isinstance(model_settings, Joint):
        model, training = fit_joint(*given, mark, caches, places)
    else:
        model, training = fit_on(*given, caches, mark, places)
    held_out = catalog.rows("validation")
    present = answers.present_of(settings, name, catalog, held_out)
    batches = dataset.batches(
        catalog, held_out[present], reads, answers.PREDICT_BATCH, caches
    )
    return model, training, _said(model, batches, present), present


def _said(model: keras.Model, batches, present: np.ndarray) -> np.ndarray:
    """Logits `(n, C)`, zero where nothing is present."""
    predict = results.predictor(model)
    logits = np.zeros((len(present), model.output["logits"].shape[1]), np.float32)
    logits[present] = np.concatenate([predict(batch)["logits"] for batch in batches])
    return logits


def _measured(
    run: Run,
    settings: Experiment,
    name: str,
    training: Mapping[str, Any],
    logits: np.ndarray,
    present: np.ndarray,
    cut: bool,
) -> Apart:
    task = settings.catalog.task
    targets, _ = outputs.read_targets(run.outputs, "validation")
    if cut:
        rest = answers.cut_validation(run, settings)[1]
        targets, logits, present = targets[rest], logits[rest], present[rest]
    tree = results.hierarchy(run, settings)
    fitted = calibration.fit(
        *(task, targets[present], logits[present], "", settings.calibration),
        None if tree is None else tree.consistent,
    )
    prior = results.prior_logits(run, settings)
    said = calibration.probabilities(task, fitted, tree, prior, logits, present)
    given = calibration.assigned(task, fitted, tree, said, present)
    return Apart(training, targets, said, given)
