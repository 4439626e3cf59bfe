"""Searches as a user runs them."""

import csv
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import command
from tiny import EXPERIMENT, POLICY_SPACE

from tfmm import experiment, outputs
from tfmm.run import Run
from tfmm.search.worker import Worker
from tfmm.stages import answers
from tfmm.stages.apart import fit_apart


@pytest.fixture(scope="module")
def run(fitted, tmp_path_factory, catalog_file):
    """A run in which the policy network was searched on half of the products."""
    path = tmp_path_factory.mktemp("search") / "run"
    shutil.copytree(fitted, path)
    file = path.parent / "search.toml"
    file.write_text(f"{EXPERIMENT}{POLICY_SPACE}data_rate = 0.5\n", encoding="utf-8")
    done = command(*words(file, catalog_file, path), "--trials", "3")
    assert done.returncode == 0, done.stderr
    return path, file, done


def words(file, catalog_file, run):
    place = ("--catalog", catalog_file, "--run", run, "--target", "policy")
    return "-m", "tfmm.search", file, *place


def test_a_search_leaves_its_trials_and_an_experiment_that_fit_takes(run):
    path, _, done = run
    folder = path / "search" / "policy"
    assert done.stdout.strip() == str(folder / "search.html")
    head, *lines = map(json.loads, (folder / "search.jsonl").read_text().splitlines())
    assert head["target"] == "policy"
    assert [x["number"] for x in lines] == [0, 1, 2, -1]
    assert [x["outcome"]["status"] for x in lines] == ["done"] * 4
    for record in lines:
        name = "refit" if record["number"] < 0 else f"{record['number']:04d}"
        kept = json.loads((folder / "trials" / name / "trial.json").read_text())
        assert kept["outcome"] == record["outcome"]
        log = (folder / "trials" / name / "log.csv").read_text().splitlines()
        assert len(list(csv.DictReader(log))) == record["outcome"]["epochs"] + 1
        assert (
            "policy: epoch 1" in (folder / "trials" / name / "output.txt").read_text()
        )
        assert not (folder / "trials" / name / "training").exists()
    best = experiment.load(folder / "best.toml")
    leader = max(lines[:3], key=lambda x: x["outcome"]["value"])
    found = best.heads["policy"].model_dump(mode="json")
    assert {k: found[k] for k, v in leader["values"].items() if v is not None} == {
        k: v for k, v in leader["values"].items() if v is not None
    }
    text = (folder / "best.toml").read_text()
    assert re.match(r"# policy: trial \d of 3 on 50% of the products: micro_f1", text)
    assert "# Fitted once more on all products: " in text


def test_a_trial_says_what_fit_and_report_say(run, catalog_file, tmp_path):
    path, _, _ = run
    folder = path / "search" / "policy"
    place = ("--catalog", catalog_file, "--run", path, "--resume")
    done = command("-m", "tfmm.fit", folder / "best.toml", *place)
    assert done.returncode == 0, done.stderr
    report = json.loads((path / "report" / "test" / "report.json").read_text())
    told = report["models"]["policy"]["validation"]
    refit = json.loads((folder / "search.jsonl").read_text().splitlines()[-1])
    for measure in ("micro_f1", "top1", "loss"):
        assert refit["outcome"]["measures"][measure] == pytest.approx(told[measure])


def test_a_search_sees_no_product_of_test(run):
    path, _, _ = run
    with (path / "search" / "policy" / "catalog.pickle").open("rb") as file:
        products = pickle.load(file)
    assert not (products.split == "test").any()
    assert (products.split == "validation").any()


def test_a_search_that_is_there_is_gone_on_with_only_if_one_says_so(run, catalog_file):
    path, file, _ = run
    again = command(*words(file, catalog_file, path), "--trials", "3")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "add --resume to go on with it" in again.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--target", "polici"), "did you mean 'policy'"),
        (("--target", "product"), "has no ready space"),
        (("--algorithm", "tpa"), "did you mean 'tpe'"),
        (("--set", "search.policy.measure='top9'"), "did you mean 'top"),
        (("--set", "search.policy.dropout={low=0.5,high=1.5}"), "drawn in two places"),
        (("--set", "search.policy.label_smoothing=[2.0]"), "label_smoothing = 2.0"),
        (("--spark", "local[2]"), "--spark needs --parallel"),
        (("--trials", "0"), "--trials"),
    ],
)
def test_what_cannot_be_searched_stops_before_any_work(
    flags, message, tmp_path, catalog_file
):
    file = tmp_path / "e.toml"
    file.write_text(EXPERIMENT + POLICY_SPACE, encoding="utf-8")
    place = tmp_path / "run"
    done = command(*words(file, catalog_file, place), "--trials", "2", *flags)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert message in done.stderr
    assert not place.exists()


def test_models_that_a_search_would_make_anew_are_not_lost(run, catalog_file):
    path, file, _ = run
    files = [path / "experiment.toml", *path.glob("models/*/model.*")]
    kept = [x.read_bytes() for x in files]
    flags = ("--trials", "3", "--resume", "--set", "towers.title.filters=5")
    done = command(*words(file, catalog_file, path), *flags)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "title was made from other settings than it now has" in done.stderr
    assert len(files) > 4
    assert [x.read_bytes() for x in files] == kept


def test_trials_are_measured_on_what_no_head_is_fitted_on(fitted, tmp_path):
    place = Run(fitted)
    settings = place.read_experiment()
    rest = answers.cut_validation(place, settings)[1]
    targets, _ = outputs.read_targets(place.outputs, "validation")
    assert 0 < len(rest) < len(targets)
    for cut, expected in ((False, targets), (True, targets[rest])):
        given = (place, settings, "product", None, tmp_path, 1.0, cut)
        said = fit_apart(*given, lambda figures: None)
        np.testing.assert_array_equal(said.targets, expected)
        assert len(said.probabilities) == len(said.assigned) == len(expected)


def test_a_worker_tells_what_fails_and_outlives_it(run, tmp_path):
    path, _, _ = run
    kept = path / "search" / "policy" / "trials" / "0001" / "trial.json"
    from tfmm.search.trial import Task

    content = json.loads(kept.read_text())
    content.pop("outcome")
    task = Task(**{**content, "folder": str(tmp_path / "t")})
    worker = Worker(threads=1)
    try:
        bad = {**task.data, "heads": {}}
        outcome = worker.do(Task(**{**task.__dict__, "data": bad}))
        assert (outcome.status, outcome.value) == ("failed", None)
        assert "trial 1" in outcome.reason
        outcome = worker.do(Task(**{**task.__dict__, "floors": [None, 1e9]}))
        assert outcome.status == "stopped"
        assert "after epoch 2 the best micro_f1 was" in outcome.reason
        assert len(outcome.curve) == outcome.epochs == 2
        # Like those that are done: calibrated, and of the epoch that is kept.
        assert outcome.value == outcome.measures["micro_f1"]
        whole = {**task.data["heads"]["policy"], "max_epochs": 2}
        heads = {**task.data["heads"], "policy": whole}
        whole = Task(**{**task.__dict__, "data": {**task.data, "heads": heads}})
        assert worker.do(whole).measures == outcome.measures
        assert worker.is_alive
        outcome = worker.do(Task(**{**task.__dict__, "seconds": 0.01}))
        assert outcome.reason == "took longer than trial_seconds = 0.01"
        assert not worker.is_alive
    finally:
        worker.close()


@pytest.mark.slow
def test_a_key_of_what_the_target_hears_makes_that_anew(catalog_file, tmp_path):
    file = tmp_path / "e.toml"
    text = """[search.policy]
hidden_units = [[5], [8]]
"towers.title.filters" = [2, 6]
data_rate = 0.5
"""
    file.write_text(f"{EXPERIMENT}\n{text}", encoding="utf-8")
    path = tmp_path / "run"
    done = command(*words(file, catalog_file, path), "--trials", "2")
    assert done.returncode == 0, done.stderr
    folder = path / "search" / "policy"
    kept = json.loads((folder / "trials" / "0001" / "trial.json").read_text())
    assert kept["is_whole"]
    assert kept["data"]["catalog"]["data_rate"] == 0.5
    assert kept["outcome"]["status"] == "done"
    said = (folder / "trials" / "0001" / "output.txt").read_text()
    assert "title: epoch 1" in said
    assert not (folder / "trials" / "0001" / "run").exists()


@pytest.mark.slow
def test_a_search_that_is_killed_by_the_system_is_resumed(
    fitted, catalog_file, tmp_path
):
    file = tmp_path / "e.toml"
    file.write_text(EXPERIMENT + POLICY_SPACE, encoding="utf-8")
    found = []
    for name in ("whole", "killed"):
        path = tmp_path / name
        shutil.copytree(fitted, path)
        journal = path / "search" / "policy" / "search.jsonl"
        flags = ("--trials", "6", "--parallel", "2")
        call = [sys.executable, *map(str, (*words(file, catalog_file, path), *flags))]
        if name == "killed":
            process = subprocess.Popen(call)
            while not journal.exists() or journal.read_text().count("\n") < 4:
                assert process.poll() is None  # else there is nothing to wait for
                time.sleep(0.1)
            process.send_signal(signal.SIGKILL)
            process.wait()
            call.append("--resume")
        subprocess.run(call, check=True)
        lines = map(json.loads, journal.read_text().splitlines()[1:])
        kept = ("status", "value", "curve")
        found.append(
            {x["number"]: (x["values"], [x["outcome"][k] for k in kept]) for x in lines}
        )
    assert sorted(found[0]) == list(range(6))
    assert found[0] == found[1]
