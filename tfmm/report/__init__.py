"""The report of a split: `report.json` first, the pictures and the page from it."""

import json
import re
from pathlib import Path
from typing import Any

from tfmm import exhibits
from tfmm.catalog import Catalog
from tfmm.experiment import Experiment
from tfmm.report import galleries, misfiled, tsne
from tfmm.report.numbers import of_run
from tfmm.report.page import draw
from tfmm.run import Run, replacing


def write(
    run: Run,
    settings: Experiment,
    split: str,
    to: Path | None = None,
    catalog: Catalog | None = None,
) -> Path:
    """Computes a split's report from stored outputs and draws its page.

    What needs models rather than outputs is read from the run's exhibits, if the split
    has any.

    Args:
        run: A run whose models have outputs of the split.
        settings: Its experiment.
        split: A split, or the name given to another labelled catalog.
        to: Folder; `RUN/report/SPLIT` by default.
        catalog: The products themselves; if given, exhibits are made first.

    Returns:
        The path of `index.html`.

    Raises:
        RunError: If outputs are missing, truncated or stale.
    """
    folder = to or run.report(split)
    measured = of_run(run, settings, split)
    numbers = measured.numbers
    numbers["galleries"] = galleries.choose(measured, settings.seed)
    numbers["shown"] = galleries.show(run, settings, split, numbers)
    of_towers = tsne.of_towers(run, settings, split, measured)
    if of_towers:
        numbers["tsne"] = of_towers
    if catalog is not None:
        exhibits.write(run, settings, catalog, split, numbers)
    exhibits.add(run, settings, split, numbers)
    listed = misfiled.write(run, settings, split, numbers, folder)
    if listed:
        numbers["misfiled"] = listed
    numbers["modalities"] = {x: m.kind for x, m in settings.modalities.items()}
    write_numbers(folder / "report.json", numbers)
    draw(numbers, folder)
    return folder / "index.html"


def write_numbers(path: Path, numbers: dict[str, Any]) -> None:
    """Writes `report.json` in one move, each array of numbers on a line of its own."""
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    # A line break in a string is written as two letters, so these are of the layout.
    text = re.sub(
        r"\[\n[^\[\]{}\"]*\n *\]", lambda x: re.sub(r"\s+", " ", x.group()), text
    )
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
