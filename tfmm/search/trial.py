"""One trial, in the process that calls: settings in, a record out."""

import math
import pickle
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmm import audit, experiment, metrics, stages
from tfmm.catalog import Catalog
from tfmm.errors import RunError, TfmmError
from tfmm.experiment import Experiment
from tfmm.report.answers import Truth, look, measures
from tfmm.run import Run
from tfmm.stages.apart import Apart, fit_apart
from tfmm.train import Enough

# What training measures after every epoch; the others only the end tells.
CURVES = ("top1", "micro_f1", "macro_f1", "loss")
SMALL_IS_GOOD = ("loss", "ece")
# What a trial leaves in its folder and nobody needs: its own run, checkpoints.
BULKY = ("run", "training")


@dataclass(frozen=True)
class Task:
    """What one trial is to do.

    Attributes:
        number: Of the trial; -1 of the best one's refit.
        data: The experiment, as plain data.
        target: The model.
        measure: What it is judged by.
        cuts_validation: Whether that is of the part of `validation` on which no head
            is fitted, whatever this one is fitted on.
        data_rate: Share of the products to learn from.
        floors: By epoch, from 1: what its best epoch so far must reach to go on, the
            larger the better; nothing where it is `None`, and past the last.
        curve: The figure that floors are of.
        seconds: How long it may take.
        folder: The trial's.
        run: The run that it starts from.
        catalog: The pickled products of that run.
        source: The catalog's file, and the folder of its images or `""`.
        is_whole: Whether its experiment differs from the run's in more than the model,
            so that all that the model hears is made anew.
    """

    number: int
    data: Mapping[str, Any]
    target: str
    measure: str
    cuts_validation: bool
    data_rate: float
    floors: Sequence[float | None]
    curve: str
    seconds: float
    folder: str
    run: str
    catalog: str
    source: tuple[str, str]
    is_whole: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        status: `done`, `stopped` (by the median of the others) or `failed`.
        value: The measure of its best epoch, larger is better; absent if failed.
        measures: All measures of that epoch.
        reason: Why it failed or was stopped.
        curve: By epoch, from 1, the figure that floors are of, larger is better.
        epochs, best_epoch: Of its training.
        seconds: It took.
        where: Who did it; empty in this machine's own processes.
    """

    status: str
    value: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    curve: Sequence[float] = ()
    epochs: int | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    where: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def perform(task: Task) -> Outcome:
    """Does a trial; whatever fails is told in the outcome."""
    started = time.monotonic()
    curve: list[float] = []
    stopped = ""
    sign = -1.0 if task.curve in SMALL_IS_GOOD else 1.0

    def watch(figures: Mapping[str, float]) -> None:
        nonlocal stopped
        if not math.isfinite(figures["loss"]):
            raise RunError(f"the validation loss is {figures['loss']}")
        if not figures["epoch"]:
            return
        curve.append(sign * float(figures[task.curve]))
        best = max(curve)
        floor = [None, *task.floors, *[None] * len(curve)][len(curve)]
        if floor is not None and best < floor:
            stopped = (
                f"after epoch {len(curve)} the best {task.curve} was "
                f"{sign * best:.4f}; the median of the others' was {sign * floor:.4f}"
            )
            raise Enough

    def told(status: str, **about: Any) -> Outcome:
        seconds = round(time.monotonic() - started, 2)
        rounded = [round(x, 6) for x in curve]
        return Outcome(status, curve=rounded, seconds=seconds, **about)

    try:
        settings = experiment.check(dict(task.data), f"trial {task.number}")
        said = _fit(task, settings, watch)
        found = measures_of(settings.catalog.task, said)
        value = found.get(task.measure)
        if value is None or not math.isfinite(value):
            return told("failed", reason=f"{task.measure} is {value}")
        if task.measure in SMALL_IS_GOOD:
            value = -value
        return told(
            "stopped" if stopped else "done",
            reason=stopped,
            value=value,
            measures=found,
            epochs=said.training.get("epochs"),
            best_epoch=said.training.get("best_epoch"),
        )
    except Exception as error:  # whatever it is, the search goes on
        return told("failed", reason=_line(error))
    finally:
        keras.backend.clear_session()
        for name in BULKY:
            shutil.rmtree(Path(task.folder) / name, ignore_errors=True)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, TfmmError) else f"{type(error).__name__}: "
    return f"{kind}{text}"[:400]


def _fit(task: Task, settings: Experiment, watch) -> Apart:
    folder = Path(task.folder)
    run = Run(Path(task.run))
    rate = task.data_rate

    def products() -> Catalog:
        return _pickled(task.catalog)

    if task.is_whole:
        place = Run(folder / "run")
        whole = _prepared(place, run, settings, task)

        def products() -> Catalog:
            return whole

        run, rate = place, 1.0  # the catalog's data_rate is what the task's was
    given = (run, settings, task.target, products, folder)
    return fit_apart(*given, rate, task.cuts_validation, watch)


@cache
def _pickled(path: str) -> Catalog:
    with open(path, "rb") as file:
        return pickle.load(file)


def without_test(catalog: Catalog) -> Catalog:
    """The catalog as a search sees it: the products of `test` are in no split."""
    return replace(catalog, split=np.where(catalog.split == "test", "", catalog.split))


def _prepared(place: Run, base: Run, settings: Experiment, task: Task) -> Catalog:
    """A run of the trial's own, with all that its model hears."""
    path, images = task.source
    seen = audit.inspect(settings, Path(path), Path(images) if images else None, base)
    catalog = without_test(seen.catalog)
    stages.check(settings, catalog)
    audit.write(place, catalog)
    about = {
        "path": path,
        "sha256": catalog.sha256,
        "fingerprint": catalog.fingerprint(),
    }
    place.write_start(settings, ["tfmm.search"], about)
    stages.fit_heard(place, settings, catalog, task.target)
    return catalog


def measures_of(task: str, said: Apart) -> dict[str, float]:
    """The measures of the report that are one number, and a finite one."""
    truth = Truth.of(task, said.targets, said.probabilities.shape[1])
    ranks = metrics.ranks(truth.rows, truth.labels, said.probabilities)
    answer = look(truth, said.probabilities, said.assigned)
    found = measures(truth, answer, ranks, said.probabilities)
    facts = truth.rows, truth.labels
    bins = metrics.calibration_bins(task, *facts, said.probabilities)
    found["loss"] = metrics.loss_of(task, *facts, said.probabilities)
    found["ece"] = metrics.expected_error(bins)
    return {
        key: value
        for key, value in found.items()
        if isinstance(value, float) and math.isfinite(value)
    }
