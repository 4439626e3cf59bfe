"""What one model says of a split: all that a report needs of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmm import metrics, outputs, results, selective
from tfmm.experiment import Experiment
from tfmm.report.comparison import figures
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
        uncalibrated: float `(n, C)`, the same before calibration, if known.
        validation: `top1`, `micro_f1` and `loss` on `validation`, if known; models
            without it are not ranked.
        cases: `without_MODALITY` or `only_MODALITY` -> probabilities `(n, C)` and
            `assigned` `(n, C)`.
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
    uncalibrated: np.ndarray | None = None
    validation: Mapping[str, float] | None = None
    cases: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
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


def read(run: Run, settings: Experiment, name: str, split: str) -> Said:
    """Reads what a model of a run says of a split.

    Raises:
        RunError: If its outputs of the split or of `validation`, or its calibration,
            are missing, damaged or stale.
    """
    task = settings.catalog.task
    is_tower = name in settings.towers
    probabilities, present = results.read_probabilities(run, settings, name, split)
    calibration = results.read_calibration(run, settings, name)
    thresholds = np.float32(calibration.thresholds)
    about = {}
    # Labels with scales of their own have no temperature in common.
    if calibration.temperature is not None:
        about["temperature"] = calibration.temperature
    if task == "multi_label":
        about["threshold"] = float(np.median(thresholds))
    info = read_json(run.model_info_file(name))
    about |= {key: info[key] for key in TRAINING_KEYS if key in info}
    if split in info.get("policy_accuracy", {}):
        about["policy_accuracy"] = info["policy_accuracy"][split]
    return Said(
        kind="tower" if is_tower else "head",
        model=settings.model_settings(name).model,
        towers=tuple(settings.towers_of(name)),
        probabilities=probabilities,
        assigned=results.assigned(run, settings, name, probabilities, present),
        present=present,
        uncalibrated=_uncalibrated(run, settings, name, split),
        validation=_validation(run, settings, name),
        cases={} if is_tower else _cases(run, settings, name, split),
        fit_on=tuple(sorted(fitted_on(name, settings.heads))),
        ranked_on_own_products="validation" in fitted_on(name, settings.heads),
        image_curve=_image_curve(run, settings, name, split),
        about=about,
    )


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
    prior = np.float32(results.prior_logits(run, settings))
    logits = np.where(np.asarray(stored.present)[:, None], stored.logits, prior)
    return metrics.probabilities(settings.catalog.task, logits)


def _validation(run: Run, settings: Experiment, name: str) -> dict[str, float]:
    task = settings.catalog.task
    targets, _ = outputs.read_targets(run.outputs, "validation")
    said, present = results.read_probabilities(run, settings, name, "validation")
    given = results.assigned(run, settings, name, said, present)
    found = figures(task, targets, said, given)
    return {
        "top1": found["top1"],
        "micro_f1": found["micro_f1"],
        "loss": metrics.log_loss(task, targets, metrics.logits_of(task, said)),
    }


def _cases(
    run: Run, settings: Experiment, name: str, split: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        case: (said, results.assigned(run, settings, name, said, present))
        for case, (said, present) in results.read_cases(
            run, settings, name, split
        ).items()
    }
