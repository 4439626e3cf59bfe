import json

import numpy as np
import pytest
from commands import command
from tiny import EXPERIMENT

from tfmm import results
from tfmm.run import Run

SPLITS = "catalog.splits={ train = 0.3, fusion = 0.1, validation = 0.1, test = 0.5 }"


@pytest.fixture(scope="module")
def turned(catalog_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("turned")
    file = folder / "experiment.toml"
    file.write_text(EXPERIMENT)
    done = command(
        *("tools/rotations.py", file, "--catalog", catalog_file, "--to", folder / "to"),
        *("--set", SPLITS, "--set", "towers.title.max_epochs=1"),
    )
    assert done.returncode == 0, done.stderr
    return folder / "to"


def test_every_product_is_tested_once_and_measured_together(turned):
    report = json.loads((turned / "report" / "report.json").read_text())
    runs = [Run(turned / str(turn)) for turn in (0, 1)]
    ids, right = [], []
    for run in runs:
        settings = run.read_experiment()
        stored = results.read_outputs(run, settings, "product", "test")
        ids += stored.ids.tolist()
        own = json.loads((run.report("test") / "report.json").read_text())
        right.append(own["models"]["product"]["top1"] * own["products"])
    assert len(ids) == len(set(ids)) == report["products"] == 48
    pooled = report["models"]["product"]
    assert pooled["top1"] == pytest.approx(np.sum(right) / 48)
    temperatures = [
        results.read_calibration(run, run.read_experiment(), "product").temperature
        for run in runs
    ]
    if None not in temperatures:
        assert pooled["temperature"] == pytest.approx(np.mean(temperatures))
    assert report["models"]["title"]["epochs"] == 1
    best = [
        json.loads((run.report("test") / "report.json").read_text())["best_head"]
        for run in runs
    ]
    assert report["best_head"] == "best of each turn"
    own = report["models"]["best of each turn"]
    assert own["model"].endswith(", ".join(best))
    assert "validation" not in own
    if best[0] == best[1]:
        assert own["top1"] == report["models"][best[0]]["top1"]
    assert "best of each turn" not in report["ranking"]
    assert set(pooled["missing"]) == {"all", "without_title", "without_image"}
    assert (turned / "report" / "index.html").is_file()


def test_a_share_that_no_turns_fill_is_refused(catalog_file, experiment_file, tmp_path):
    done = command(
        *("tools/rotations.py", experiment_file, "--catalog", catalog_file),
        *("--to", tmp_path / "to"),
    )
    assert done.returncode == 2
    assert "expected a test share of 1/2, 1/3, ... Received: 0.15" in done.stderr
    assert not (tmp_path / "to").exists()


def test_a_split_column_is_found_before_any_training(catalog_file, tmp_path):
    catalog = catalog_file.with_name("with_splits.csv")
    header, *rows = catalog_file.read_text().splitlines()
    lines = [f"{header},split", *(f"{row},train" for row in rows)]
    catalog.write_text("\n".join(lines))
    file = tmp_path / "experiment.toml"
    file.write_text(EXPERIMENT)
    done = command(
        *("tools/rotations.py", file, "--catalog", catalog, "--to", tmp_path / "to"),
        *("--set", SPLITS),
    )
    assert done.returncode == 2
    assert "'split' says 'train', which no rotation turns" in done.stderr
    assert "epoch" not in done.stdout + done.stderr
