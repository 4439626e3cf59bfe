"""Every product tested once: one run for each turn of the splits, one report of all.

    python tools/rotations.py HPARAMS.toml --catalog catalog.csv --to runs/turned

A catalog of a thousand products leaves two hundred for a test, which tells little. With
a test share of `1 / k`, `k` runs whose splits are turned (`catalog.rotation`) test
every product once, groups whole, and each by towers and heads that never saw it. The
runs are kept as `TO/0` to `TO/k-1`, ready ones are not made again, and `TO/report`
measures the joined answers as if they were of one run: figures, intervals, groups,
modalities missing.

A product that one turn tests is one that another turn validates on. So no head is
called the best by its mean over all turns. The best is what a user would have had: in
each turn the head that is best on that turn's `validation`, as one more head of the
report.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tfmm import experiment, outputs
from tfmm import fit as fitting
from tfmm.errors import ExperimentError, command_line
from tfmm.experiment import Experiment
from tfmm.options import CatalogFile, Changes, Hparams, ImagesFolder
from tfmm.report import numbers, page, write_numbers
from tfmm.report.said import Said, read
from tfmm.run import Run, read_json

# No head can have this name.
CHOSEN = "best of each turn"


def joined(parts: Sequence[Said]) -> Said:
    """What one model of each run says, row below row; validation figures averaged."""
    first = parts[0]
    validation = None
    if all(part.validation is not None for part in parts):
        validation = {
            key: float(np.mean([part.validation[key] for part in parts]))
            for key in first.validation
        }
    together = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("probabilities", "assigned", "present")
    }
    has = {
        modality: np.concatenate([part.has[modality] for part in parts])
        for modality in first.has
        if all(modality in part.has for part in parts)
    }
    cases = {
        case: tuple(
            np.concatenate([part.cases[case][place] for part in parts])
            for place in (0, 1)
        )
        for case in first.cases
        if all(case in part.cases for part in parts)
    }
    return Said(
        kind=first.kind,
        model=first.model,
        towers=first.towers,
        validation=validation,
        cases=cases,
        has=has,
        image_case=first.image_case,
        uncalibrated=lambda: np.concatenate([part.uncalibrated() for part in parts]),
        fit_on=first.fit_on,
        ranked_on_own_products=first.ranked_on_own_products,
        about=_about(parts),
        **together,
    )


def _about(parts: Sequence[Said]) -> dict[str, float]:
    """What the runs' models have in common to tell, averaged."""
    return {
        key: float(np.mean([part.about[key] for part in parts]))
        for key in parts[0].about
        if all(isinstance(part.about.get(key), int | float) for part in parts)
    }


def chosen(runs: Sequence[Run], settings: Sequence[Experiment]) -> Said | None:
    """What the heads say that each run's own report calls the best, if all have one."""
    names = [
        read_json(run.report("test") / "report.json").get("best_head") for run in runs
    ]
    if None in names:
        return None
    parts = [
        read(run, own, name, "test")
        for run, own, name in zip(runs, settings, names, strict=True)
    ]
    heard = {tower for part in parts for tower in part.towers}
    return replace(
        joined(parts),
        model=f"chosen by each turn's validation: {', '.join(names)}",
        towers=tuple(tower for tower in settings[0].towers if tower in heard),
        validation=None,
        fit_on=tuple(sorted({split for part in parts for split in part.fit_on})),
        about={},
    )


def pooled(runs: Sequence[Run]) -> dict:
    """The content of `report.json` of the test products of all runs.

    Args:
        runs: Fitted runs of one experiment on one catalog, turned.

    Raises:
        ExperimentError: If they have different labels, so that answers do not join.
    """
    settings = [run.read_experiment() for run in runs]
    labels = {run.read_labels() for run in runs}
    if len(labels) > 1:
        raise ExperimentError("the runs have different labels")
    targets, groups = [], []
    for run in runs:
        targets.append(outputs.read_targets(run.outputs, "test")[0])
        groups.append(outputs.read_groups(run.outputs, "test"))
    # Groups are whole, so no two runs have one in common.
    shifts = np.cumsum([0, *(x.max() + 1 for x in groups)])
    models: dict[str, Said] = {
        name: joined(
            [
                read(run, own, name, "test")
                for run, own in zip(runs, settings, strict=True)
            ]
        )
        for name in (*settings[0].towers, *settings[0].heads)
    }
    best = chosen(runs, settings)
    if best is not None:
        models[CHOSEN] = best
    about = numbers.Catalogued(
        split="test",
        task=settings[0].catalog.task,
        label_names=runs[0].read_labels(),
        path_separator=settings[0].catalog.path_separator,
    )
    report = numbers.measure(
        about,
        np.concatenate(targets),
        np.concatenate([x + y for x, y in zip(groups, shifts, strict=False)]),
        settings[0].seed,
        models,
    )
    report.pop("best_head", None)
    return {**report, **({} if best is None else {"best_head": CHOSEN})}


def rotations(
    hparams: Hparams,
    catalog: CatalogFile,
    to: Annotated[Path, typer.Option(help="Folder for the runs and the report.")],
    images: ImagesFolder = None,
    set_: Changes = None,
) -> None:
    """Fits an experiment once for each turn of its splits and reports all together."""
    settings = experiment.load(hparams, set_ or [])
    share = settings.catalog.splits.test
    count = round(1 / share) if share else 0
    if count < 2 or abs(share * count - 1) > 1e-6:
        raise ExperimentError(
            f"{hparams}: expected a test share of 1/2, 1/3, ... Received: {share:g}"
        )
    runs = [Run(to / str(turn)) for turn in range(count)]
    # The last first: a catalog whose split column forbids turning stops at once.
    for turn in reversed(range(count)):
        fitting.fit(
            *(hparams, catalog, runs[turn].path, images),
            set_=[*(set_ or []), f"catalog.rotation={turn * share:.9f}"],
            resume=runs[turn].exists,
        )
    report = pooled(runs)
    write_numbers(to / "report" / "report.json", report)
    page.draw(report, to / "report")
    print(to / "report" / "index.html")


if __name__ == "__main__":
    command_line(rotations, "python tools/rotations.py")
