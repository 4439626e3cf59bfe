"""Misfiled listings: products whose labels models that never saw them doubt."""

from pathlib import Path
from typing import Any

from tfmm.experiment import Experiment
from tfmm.report.misfiled import listing
from tfmm.report.misfiled.page import draw
from tfmm.run import Run


def write(
    run: Run, settings: Experiment, split: str, numbers: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Writes `misfiled.csv` and `misfiled.html` of a report into its folder.

    Args:
        run: A run.
        settings: Its experiment.
        split: The split that is reported.
        numbers: The content of `report.json` so far: its `models` and its `ranking`.
        folder: Of the report.

    Returns:
        What goes into `report.json` as `misfiled`; empty if there is no product that a
        model can judge, and nothing is written then.

    Raises:
        RunError: If outputs or the run's products are missing, damaged or stale.
    """
    judges = listing.judges(run, settings, split, numbers)
    if not judges:
        return {}
    found = listing.judge(run, settings, judges)
    if not found.products:
        return {}
    names = run.read_labels()
    report = listing.numbers(run, settings, split, found, names)
    listing.write_csv(folder / "misfiled.csv", settings, found, names)
    draw(report, split, folder)
    return report
