"""Several runs on one page: `comparison.json` first, the page from it."""

from collections.abc import Mapping
from pathlib import Path

from tfmm.experiment import Experiment
from tfmm.report import write_numbers
from tfmm.report.runs.numbers import compute
from tfmm.report.runs.page import draw
from tfmm.run import Run


def names(paths: list[Path]) -> list[str]:
    """What to call runs: by their folders, or by their paths if these are alike."""
    short = [path.resolve().name for path in paths]
    return short if len({*short}) == len(short) else [str(path) for path in paths]


def write(runs: Mapping[str, tuple[Run, Experiment]], split: str, to: Path) -> Path:
    """Compares runs by their stored outputs and draws the page.

    Args:
        runs: What to call each run -> where it is, and its experiment.
        split: A split, or the name that all runs have for another labelled catalog.
        to: Folder for `comparison.json` and `index.html`.

    Returns:
        The path of `index.html`.

    Raises:
        ExperimentError: If the runs have different tasks.
        RunError: If they have no labels in common, or outputs are missing, damaged or
            stale.
    """
    numbers = compute(runs, split)
    write_numbers(to / "comparison.json", numbers)
    draw(numbers, to)
    return to / "index.html"
