"""What one model says of a split: all that a report needs of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tfmm import metrics, outputs, results, selective
from tfmm.blocks import over_rows
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.hiding import case_names, images_hidden
from tfmm.report.answers import Truth, figures, look
from tfmm.report.coverage import Sureness, sureness
from tfmm.report.learning import learning
from tfmm.run import Run, read_json
from tfmm.settings.wiring import fitted_on

TRAINING_KEYS = ("parameters", "epochs", "best_epoch", "seconds", "epoch_seconds")


@dataclass(frozen=True)
class Said:
    """What one model says of `n` products, and what is to be told beside it.

    Decisions are given, not thresholds: products of several runs, each with its own
    thresholds, can be joined row by row.

    Attributes:
        kind: `tower` or `head`.
        model: The builder, as in the experiment.
        towers: The towers that it hears, also by way of other heads; itself of a tower.
        probabilities: float `(n, C)`, calibrated.
        assigned: bool `(n, C)`, the labels that it gives; for `single_label` the most
            probable one or none.
        present: bool `(n,)`, whether it had anything to look at.
        uncalibrated: Makes the same before calibration, float `(n, C)`, if known. Twice
            as much need never be held.
        validation: `top1`, `micro_f1` and `loss` on `validation`, if known; models
            without it are not ranked.
        cases: `without_MODALITY` or `only_MODALITY` -> probabilities `(n, C)` and
            `assigned` `(n, C)`; may read each when it is asked for.
        has: Modality -> bool `(n,)`: the products that have it.
        image_case: The case in which all images are hidden, if it is known and
            something else is left.
        held_out: How sure it is of `validation`, if known.
        fit_on: Splits that a head was fitted on.
        ranked_on_own_products: Whether a head, or one that it hears, was fitted on
            products of `validation`.
        image_curve: What `tfmm.selective.curve` returns of these products, for a head
            that can answer without images and has enough products of `validation`.
        about: More keys of the model's part of the report.
    """

    kind: str
    model: str
    towers: tuple[str, ...]
    probabilities: np.ndarray
    assigned: np.ndarray
    present: np.ndarray
    uncalibrated: Callable[[], np.ndarray] | None = None
    validation: Mapping[str, float] | None = None
    cases: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    has: Mapping[str, np.ndarray] = field(default_factory=dict)
    image_case: str | None = None
    held_out: Sureness | None = None
    fit_on: tuple[str, ...] = ()
    ranked_on_own_products: bool = False
    image_curve: Sequence[Mapping[str, float]] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


class Stored(Mapping[str, Said]):
    """The models of a run by name, each read when it is asked for.

    So a report holds one model's probabilities at a time.
    """

    def __init__(self, run: Run, settings: Experiment, split: str, names: list[str]):
        self._place = (run, settings, split)
        self._names = names

    def __getitem__(self, name: str) -> Said:
        run, settings, split = self._place
        return read(run, settings, name, split)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def measured(run: Run, settings: Experiment, split: str) -> list[str]:
    """The models that have outputs of a split, and whose towers have; some are there.

    Raises:
        RunError: If there is none.
    """

    def has_outputs(name: str) -> bool:
        return (run.outputs / name / split).is_dir()

    names = [
        name
        for name in (*settings.towers, *settings.heads)
        if has_outputs(name) and all(map(has_outputs, settings.towers_of(name)))
    ]
    if not names:
        raise RunError(f"{run.path}: no outputs of {split!r}; run tfmm.fit --resume")
    return names


def read(run: Run, settings: Experiment, name: str, split: str) -> Said:
    """Reads what a model of a run says of a split.

    Raises:
        RunError: If its outputs of the split or of `validation`, or its calibration,
            are missing, damaged or stale.
    """
    task = settings.catalog.task
    is_tower = name in settings.towers
    # These look at other answers, one after the other, before any are kept.
    validation, held_out = on_validation(run, settings, name)
    image_curve = _image_curve(run, settings, name, split)
    calibration = results.read_calibration(run, settings, name)
    thresholds = np.float32(calibration.thresholds)
    about: dict[str, Any] = {}
    # Labels with scales of their own have no temperature in common.
    if calibration.temperature is not None:
        about["temperature"] = calibration.temperature
    if task == "multi_label":
        about["threshold"] = float(np.median(thresholds))
    info = read_json(run.model_info_file(name))
    about |= {key: info[key] for key in TRAINING_KEYS if key in info}
    if split in info.get("policy_accuracy", {}):
        about["policy_accuracy"] = info["policy_accuracy"][split]
    log = learning(run.log_file(name))
    if log is not None:
        about["learning"] = log
    cases: Mapping[str, tuple[np.ndarray, np.ndarray]] = {}
    image_case = None
    if not is_tower:
        cases = Cases(run, settings, name, split)
        images = images_hidden(settings, name)
        without = [
            case
            for case, hidden in case_names(settings, name).items()
            if images and hidden == images and case in cases
        ]
        image_case = without[0] if without else None
    has = {
        modality: results.has_any(run, settings, name, split, frozenset([modality]))
        for modality in {settings.towers[x].modality for x in settings.towers_of(name)}
    }
    probabilities, present = results.read_probabilities(run, settings, name, split)
    return Said(
        kind="tower" if is_tower else "head",
        model=settings.model_settings(name).model,
        towers=tuple(settings.towers_of(name)),
        probabilities=probabilities,
        assigned=results.assigned(run, settings, name, probabilities, present),
        present=present,
        uncalibrated=partial(_uncalibrated, run, settings, name, split),
        validation=validation,
        cases=cases,
        has=has,
        image_case=image_case,
        held_out=held_out,
        fit_on=tuple(sorted(fitted_on(name, settings.heads))),
        ranked_on_own_products="validation" in fitted_on(name, settings.heads),
        image_curve=image_curve,
        about=about,
    )


class Cases(Mapping[str, tuple[np.ndarray, np.ndarray]]):
    """Probabilities and what is assigned with modalities hidden, one at a time."""

    def __init__(self, run: Run, settings: Experiment, name: str, split: str):
        self._model = (run, settings, name)
        self._said = results.read_cases(run, settings, name, split)

    def __getitem__(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        said, present = self._said[case]
        return said, results.assigned(*self._model, said, present)

    def __iter__(self) -> Iterator[str]:
        return iter(self._said)

    def __len__(self) -> int:
        return len(self._said)


def _image_curve(
    run: Run, settings: Experiment, name: str, split: str
) -> list[dict[str, float]] | None:
    known = all(run.cases(name, x).exists() for x in ("validation", split))
    if not known or "validation" in fitted_on(name, settings.heads):
        return None
    held_out = selective.evidence(run, settings, name, "validation")
    if held_out is None or not selective.enough(held_out):
        return None
    tested = selective.evidence(run, settings, name, split)
    assert tested is not None
    return selective.curve(selective.Risks(held_out), tested)


def _uncalibrated(run: Run, settings: Experiment, name: str, split: str) -> np.ndarray:
    stored = results.read_outputs(run, settings, name, split)
    present = np.asarray(stored.present)
    prior = np.float32(results.prior_logits(run, settings))
    said = np.empty(stored.logits.shape, np.float32)

    def fill(rows: slice) -> None:
        logits = np.where(present[rows, None], stored.logits[rows], prior)
        said[rows] = metrics.probabilities(settings.catalog.task, logits)

    over_rows(fill, said.shape)
    return said


def on_validation(
    run: Run, settings: Experiment, name: str
) -> tuple[dict[str, float], Sureness]:
    """`top1`, `micro_f1` and `loss` of a model on `validation`, and how sure it is.

    Raises:
        RunError: If its outputs or its calibration are missing, damaged or stale.
    """
    task = settings.catalog.task
    targets, _ = outputs.read_targets(run.outputs, "validation")
    said, present = results.read_probabilities(run, settings, name, "validation")
    given = results.assigned(run, settings, name, said, present)
    truth = Truth.of(task, targets, said.shape[1])
    answer = look(truth, said, given)
    found = figures(truth, answer)
    ranks = metrics.ranks(truth.rows, truth.labels, said)
    groups = outputs.read_groups(run.outputs, "validation")
    return (
        {
            "top1": found["top1"],
            "micro_f1": found["micro_f1"],
            "loss": metrics.loss_of(task, truth.rows, truth.labels, said),
        },
        sureness(truth, answer, ranks, said, given, groups),
    )
