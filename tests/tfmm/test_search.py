import csv
import json
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from tiny import EXPERIMENT, command

from tfmm import experiment
from tfmm.errors import RunError
from tfmm.search import loop, stopping
from tfmm.search.journal import Journal, Record
from tfmm.search.loop import Search
from tfmm.search.trial import Outcome
from tfmm.search.worker import Worker

SPACE = """
[search.policy]
learning_rate = { low = 1e-4, high = 0.1, scale = "log" }
hidden_units = [[5], [8]]
batch_size = [16, 32]
max_epochs = 4
penalty = [{}, { dropout = { low = 0.1, high = 0.5 } }, { l2 = [0.01] }]
"""


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "search.toml"
    path.write_text(EXPERIMENT + SPACE, encoding="utf-8")
    return experiment.load(path)


class Pretended:
    """A pool whose trials end at once, in an order of its own, by a made-up rule.

    Args:
        slots: Trials at the same time.
        order: Seed of the order in which they end.
        left: Trials after which it fails as a killed process does.
    """

    def __init__(self, slots=1, order=0, left=10**9):
        self.slots, self.left = slots, left
        self.tasks, self.given, self.most = [], [], 0
        self.random = random.Random(order)

    def submit(self, task):
        self.tasks.append(task)
        self.given.append(task)
        self.most = max(self.most, len(self.tasks))

    def wait(self):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        task = self.tasks.pop(self.random.randrange(len(self.tasks)))
        own = task.data["heads"]["policy"]
        if own.get("batch_size") == 16 and "l2" in own:
            return task.number, Outcome("failed", reason="the loss is nan")
        rate = own.get("learning_rate", 1e-3)
        value = 1.0 - abs(np.log10(rate) + 2) / 4 + 0.01 * own["hidden_units"][0]
        curve = [value - 0.2, value - 0.1, value]
        return task.number, Outcome("done", value, {"micro_f1": value}, curve=curve)


def searched(settings, folder, pool, trials, algorithm="tpe", **limits):
    folder.mkdir(exist_ok=True)
    what = Search(
        *(settings, "policy", algorithm, 3, "micro_f1", folder, folder, ("", "")),
        folder,
    )
    journal = Journal(folder / "search.jsonl", {"seed": 3}, resume=True)
    budget = limits.get("time_budget", float("inf"))
    loop.run(what, journal, pool, trials, budget, lambda *told: None)
    return journal.records


def told(records):
    return {n: (x.point, x.values, x.status, x.value) for n, x in records.items()}


# ------------------------------------------------------------------- the loop


def test_the_first_trial_is_the_experiment_as_written(settings, tmp_path):
    pool = Pretended()
    records = searched(settings, tmp_path / "a", pool, 3)
    assert records[0].values == {}
    assert pool.given[0].data["heads"] == json.loads(
        json.dumps(settings.model_dump(mode="json", exclude_unset=True)["heads"])
    )
    # As written dropout is 0.2, which the second option holds.
    assert records[0].point["penalty"] == 1
    assert records[0].point["penalty.1.dropout"] == 0.2


@pytest.mark.parametrize("slots", [1, 3])
def test_a_search_that_was_killed_goes_on_as_if_it_was_not(settings, tmp_path, slots):
    whole = searched(settings, tmp_path / "a", Pretended(slots), 30)
    assert sorted(whole) == list(range(30))
    for left in (1, 9, 4):
        with pytest.raises(KeyboardInterrupt):
            searched(settings, tmp_path / "b", Pretended(slots, left, left), 30)
    resumed = searched(settings, tmp_path / "b", Pretended(slots, 7), 30)
    assert told(resumed) == told(whole)
    lines = (tmp_path / "b" / "search.jsonl").read_text().splitlines()
    assert len(lines) == 31


def test_what_is_suggested_does_not_depend_on_who_is_faster(settings, tmp_path):
    pools = [Pretended(4, order) for order in range(3)]
    found = [
        told(searched(settings, tmp_path / str(n), pool, 30))
        for n, pool in enumerate(pools)
    ]
    assert found[0] == found[1] == found[2]
    assert all(pool.most == 4 for pool in pools)


def test_a_failed_trial_is_told_and_the_search_goes_on(settings, tmp_path, capsys):
    records = searched(settings, tmp_path / "a", Pretended(), 40)
    failed = [x for x in records.values() if x.status == "failed"]
    assert failed
    assert all(x.value is None for x in failed)
    assert "failed (the loss is nan)" in capsys.readouterr().err
    # What fails is avoided: more of the first half fails than of the second.
    assert sum(x.number < 20 for x in failed) >= sum(x.number >= 20 for x in failed)
    assert stopping.best(list(records.values())).status == "done"


def test_a_search_ends_when_nothing_gets_better_or_time_is_over(tmp_path):
    path = tmp_path / "stale.toml"
    path.write_text(f"{EXPERIMENT}{SPACE}stale_trials = 5\n", encoding="utf-8")
    stale = experiment.load(path)
    records = searched(stale, tmp_path / "a", Pretended(), 200)
    leader = stopping.best(list(records.values()))
    assert len(records) == leader.number + 6
    # What is written is tried however little time there is.
    one = searched(stale, tmp_path / "b", Pretended(), 200, time_budget=0.0)
    assert list(one) == [0]


def test_trials_are_held_against_the_median_of_the_others(settings, tmp_path):
    pool = Pretended()
    records = searched(settings, tmp_path / "a", pool, 12)
    number = next(n for n in range(6, 12) if pool.given[n].floors)
    done = [x for x in map(records.get, range(number)) if x.status == "done"]
    assert len(done) >= stopping.FEWEST_TRIALS
    expected = np.median([x.outcome["curve"] for x in done], axis=0)
    floors = pool.given[number].floors
    assert floors[:2] == [None, None]
    assert floors[2] == pytest.approx(expected[2])
    assert not pool.given[4].floors
    assert stopping.floors(done, is_on=False) == []


def test_a_journal_of_another_search_or_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "search.jsonl"
    journal = Journal(path, {"seed": 1}, resume=False)
    for number in range(2):
        journal.add(Record(number, {}, {}, {"status": "done", "value": 0.5}, 1.0))
    with pytest.raises(RunError, match="add --resume"):
        Journal(path, {"seed": 1}, resume=False)
    with pytest.raises(RunError, match="its seed is 1, now it is 2"):
        Journal(path, {"seed": 2}, resume=True)
    # A line that a kill cut short is done again.
    text = path.read_text()
    path.write_text(text[:-9])
    assert list(Journal(path, {"seed": 1}, resume=True).records) == [0]
    assert path.read_text() == "".join(text.splitlines(keepends=True)[:2])
    path.write_text(text.replace('"number": 1', '"number": 0'))
    with pytest.raises(RunError, match="damaged: a trial is there twice"):
        Journal(path, {"seed": 1}, resume=True)
    path.write_text("no json\n")
    with pytest.raises(RunError, match="damaged"):
        Journal(path, {"seed": 1}, resume=True)


# ---------------------------------------------------------------- as a user would


@pytest.fixture(scope="module")
def run(fitted, tmp_path_factory, catalog_file):
    """A run in which the policy network was searched on half of the products."""
    path = tmp_path_factory.mktemp("search") / "run"
    shutil.copytree(fitted, path)
    file = path.parent / "search.toml"
    file.write_text(f"{EXPERIMENT}{SPACE}data_rate = 0.5\n", encoding="utf-8")
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
    file.write_text(EXPERIMENT + SPACE, encoding="utf-8")
    place = tmp_path / "run"
    done = command(*words(file, catalog_file, place), "--trials", "2", *flags)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert message in done.stderr
    assert not place.exists()


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
        assert len(outcome.curve) == 2
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
    file.write_text(EXPERIMENT + SPACE, encoding="utf-8")
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
