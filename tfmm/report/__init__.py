"""The report of a split: `report.json` first, the pictures and the page from it."""

from pathlib import Path

from tfmm.experiment import Experiment
from tfmm.report import misfiled
from tfmm.report.numbers import compute
from tfmm.report.page import draw
from tfmm.run import Run, write_json


def write(run: Run, settings: Experiment, split: str, to: Path | None = None) -> Path:
    """Computes a split's report from stored outputs and draws its page.

    Args:
        run: A run whose models have outputs of the split.
        settings: Its experiment.
        split: A split, or the name given to another labelled catalog.
        to: Folder; `RUN/report/SPLIT` by default.

    Returns:
        The path of `index.html`.

    Raises:
        RunError: If outputs are missing, truncated or stale.
    """
    folder = to or run.report(split)
    numbers = compute(run, settings, split)
    listed = misfiled.write(run, settings, split, numbers, folder)
    if listed:
        numbers["misfiled"] = listed
    write_json(folder / "report.json", numbers)
    draw(numbers, folder)
    return folder / "index.html"
