"""Who may judge a product's labels: models that were not fitted on that product."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from tfmm import calibration, metrics, outputs, results
from tfmm.experiment import Experiment
from tfmm.run import Run
from tfmm.settings.wiring import fitted_on

# The parts of a run's own catalog that some model may never have been fitted on.
OWN_PARTS = ("train_oof", "fusion", "validation", "test")
BLOCK_ROWS = 4_096


@dataclass(frozen=True)
class Judge:
    """What judges the products of one split.

    Attributes:
        split: As in the outputs store: the towers of `train_oof` are those of folds.
        models: One model of the run; or several towers, whose answers are multiplied.
    """

    split: str
    models: tuple[str, ...]

    @property
    def name(self) -> str:
        """What to call it."""
        if len(self.models) == 1:
            return self.models[0]
        return f"product of {', '.join(self.models)}"


@dataclass(frozen=True)
class Opinion:
    """What a judge says of the products of a split.

    Attributes:
        ids: `(n,)` strings.
        targets: int `(n,)` or float `(n, C)`, the labels that the catalog gives.
        probabilities: float32 `(n, C)`, calibrated.
        present: bool `(n,)`, whether the judge had anything to look at.
    """

    ids: np.ndarray
    targets: np.ndarray
    probabilities: np.ndarray
    present: np.ndarray


def choose(
    run: Run,
    settings: Experiment,
    split: str,
    validation: Mapping[str, Mapping[str, float]],
    ranking: Sequence[str],
) -> Judge | None:
    """Chooses who judges a split; None if every model was fitted on its products.

    The first of the ranking that was not fitted on these products. A head that was
    has seen their labels, however few numbers it has to remember them by. If no head
    is left, the product of the towers stands for one, where it is better than the best
    tower on `validation`.

    Args:
        run: A run.
        settings: Its experiment.
        split: As in the outputs store.
        validation: Model -> its figures on `validation`, as in the report.
        ranking: Models, the best on `validation` first.
    """
    may = [
        name
        for name in ranking
        if (run.outputs / name / split).is_dir() and not knows(settings, name, split)
    ]
    towers = tuple(name for name in settings.towers if name in may)
    if not may:
        return None
    if len(towers) < 2 or any(name in settings.heads for name in may):
        return Judge(split, (may[0],))
    by = "top1" if settings.catalog.task == "single_label" else "micro_f1"
    together = Judge(split, towers)
    if _figure_on_validation(run, settings, towers, by) > validation[may[0]][by]:
        return together
    return Judge(split, (may[0],))


def knows(settings: Experiment, name: str, split: str) -> bool:
    """Whether a model, or one that it hears, was fitted on products of a split.

    What stops a training or calibrates its answers does not count as fitted on.
    """
    of_heads = fitted_on(name, settings.heads)
    if split == "train_oof":
        return bool(of_heads & {"train", "train_oof"})
    return split == "train" or split in of_heads


def ask(run: Run, settings: Experiment, judge: Judge) -> Opinion:
    """What a judge says of its split.

    Raises:
        RunError: If outputs are missing, truncated or stale.
    """
    targets, _ = outputs.read_targets(run.outputs, judge.split)
    first = judge.models[0]
    ids = np.asarray(results.read_outputs(run, settings, first, judge.split).ids)
    if len(judge.models) == 1:
        said, present = results.read_probabilities(run, settings, first, judge.split)
    else:
        fitted = _calibration(run, settings, judge.models)
        said, present = _multiplied(run, settings, judge.models, judge.split, fitted)
    return Opinion(ids, targets, said, present)


def _figure_on_validation(
    run: Run, settings: Experiment, towers: Sequence[str], by: str
) -> float:
    targets, _ = outputs.read_targets(run.outputs, "validation")
    fitted = _calibration(run, settings, towers)
    said, present = _multiplied(run, settings, towers, "validation", fitted)
    thresholds = np.float32(fitted.thresholds)
    task = settings.catalog.task
    return metrics.measures(task, targets, said, thresholds, present)[by]


def _calibration(
    run: Run, settings: Experiment, towers: Sequence[str]
) -> calibration.Calibration:
    """That of the product of towers, fitted where those of all models are."""
    targets, _ = outputs.read_targets(run.outputs, "validation")
    logits, present = _sum_of_logits(run, settings, towers, "validation")
    tree = results.hierarchy(run, settings)
    return calibration.fit(
        settings.catalog.task,
        targets[present],
        logits[present],
        "",
        settings.calibration,
        None if tree is None else tree.consistent,
    )


def _multiplied(
    run: Run,
    settings: Experiment,
    towers: Sequence[str],
    split: str,
    fitted: calibration.Calibration,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `(n, C)` of the product of towers, and `present` `(n,)`."""
    logits, present = _sum_of_logits(run, settings, towers, split)
    prior = np.float32(results.prior_logits(run, settings))
    tree = results.hierarchy(run, settings)
    for start in range(0, len(logits), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        applied = np.where(present[rows, None], fitted.apply(logits[rows]), prior)
        said = metrics.probabilities(settings.catalog.task, applied)
        logits[rows] = said if tree is None else tree.consistent(said)
    return logits, present


def _sum_of_logits(
    run: Run, settings: Experiment, towers: Sequence[str], split: str
) -> tuple[np.ndarray, np.ndarray]:
    """The rule `product` of towers as float32 `(n, C)`, and `present` `(n,)`."""
    stored = [results.read_outputs(run, settings, name, split) for name in towers]
    present = np.stack([np.asarray(x.present) for x in stored])
    total = np.zeros(stored[0].logits.shape, np.float32)
    for name, said, here in zip(towers, stored, present, strict=True):
        fitted = results.read_calibration(run, settings, name)
        for start in range(0, len(total), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            logits = fitted.apply(said.logits[rows])
            if settings.catalog.task == "single_label":
                logits = log_softmax(logits, axis=1)
            total[rows] += np.where(here[rows, None], logits, np.float32(0.0))
    return total, present.any(axis=0)
