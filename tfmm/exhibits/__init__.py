"""What a report shows that needs models and not their outputs alone.

RUN/exhibits/SPLIT/exhibits.json
    fingerprint   of the models, their calibrations, the catalog and the products shown
    models        model -> `reasons` or `attention`, added to `models` of the report
    shown         product -> `reasons` and `maps`, added to `shown` of the report
"""

from typing import Any

import numpy as np

from tfmm import outputs, results
from tfmm.catalog import Catalog
from tfmm.errors import RunError
from tfmm.exhibits.maps import maps_of
from tfmm.exhibits.reasons import reasons_of
from tfmm.experiment import Experiment
from tfmm.run import Run, fingerprint, read_json, write_json

# Raised when the same models would give other exhibits.
VERSION = 1


def write(
    run: Run, settings: Experiment, catalog: Catalog, split: str, numbers: dict
) -> None:
    """Makes the exhibits of a split, unless the run has them.

    Args:
        run: A run whose models have outputs of the split.
        settings: Its experiment.
        catalog: The products; `test` of it for a split that is not of the run.
        split: One of the run's, or what another catalog is called.
        numbers: The content of `report.json`: `models` and `shown`.

    Raises:
        RunError: If a model or its outputs are missing, damaged or stale.
    """
    mark = _fingerprint(run, settings, split, numbers)
    path = run.exhibits_file(split)
    if path.exists() and _read(run, split)["fingerprint"] == mark:
        return
    rows = np.array(sorted(map(int, numbers["shown"])), int)
    names = list(numbers["models"])
    models: dict[str, dict[str, Any]] = {}
    shown: dict[str, dict[str, Any]] = {}
    parts = {
        "reasons": reasons_of(run, settings, split, names, rows),
        "maps": maps_of(run, settings, catalog, split, names, rows),
    }
    for key, found in parts.items():
        for name, of_all, of_each in found:
            models.setdefault(name, {}).update(of_all)
            for row, about in of_each.items():
                shown.setdefault(str(row), {}).setdefault(key, {})[name] = about
    write_json(path, {"fingerprint": mark, "models": models, "shown": shown})


def add(run: Run, settings: Experiment, split: str, numbers: dict) -> None:
    """Puts a split's exhibits, if the run has any, into the numbers of its report.

    Args:
        run: A run.
        settings: Its experiment.
        split: The split that is reported.
        numbers: The content of `report.json`, changed in place.

    Raises:
        RunError: If they are damaged, or made from other models, outputs or products
            than are reported.
    """
    path = run.exhibits_file(split)
    if not path.exists():
        return
    stored = _read(run, split)
    if stored["fingerprint"] != _fingerprint(run, settings, split, numbers):
        again = (
            "run tfmm.fit --resume --only report"
            if split == "test"
            else f"delete it, or measure {split} again"
        )
        raise RunError(f"{path}: stale: made from other models or outputs; {again}")
    for model, about in stored["models"].items():
        numbers["models"][model].update(about)
    for row, about in stored["shown"].items():
        numbers["shown"][row].update(about)


def _read(run: Run, split: str) -> dict[str, Any]:
    path = run.exhibits_file(split)
    stored = read_json(path)
    if not isinstance(stored, dict) or not {"fingerprint", "models", "shown"} <= set(
        stored
    ):
        raise RunError(f"{path}: not what exhibits hold; delete it")
    return stored


def _fingerprint(run: Run, settings: Experiment, split: str, numbers: dict) -> str:
    _, catalog, _ = outputs.targets_info(run.outputs, split)
    models = [
        [
            name,
            results.outputs_fingerprint(run, settings, name, catalog),
            results.calibration_fingerprint(run, settings, name),
        ]
        for name in numbers["models"]
    ]
    return fingerprint("exhibits", VERSION, split, models, sorted(numbers["shown"]))
