"""The loop of a search, with trials that are made up."""

import contextlib
import json
import random

import numpy as np
import pytest
from tiny import EXPERIMENT, POLICY_SPACE

from tfmm import experiment
from tfmm.errors import RunError, SparkError
from tfmm.search import loop, stopping
from tfmm.search import outcome as outcomes
from tfmm.search.journal import Journal, Record
from tfmm.search.loop import Search
from tfmm.search.trial import Outcome


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "search.toml"
    path.write_text(EXPERIMENT + POLICY_SPACE, encoding="utf-8")
    return experiment.load(path)


class Pretended:
    """A pool whose trials end at once, in an order of its own, by a made-up rule.

    Args:
        slots: Trials at the same time.
        order: Seed of the order in which they end.
        left: Trials after which it fails as a killed process does.
        failing: Trials that fail at the start.
    """

    def __init__(self, slots=1, order=0, left=10**9, failing=0):
        self.slots, self.left, self.failing = slots, left, failing
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
        if 0 <= task.number < self.failing:
            return task.number, Outcome("failed", reason="no space left on device")
        if own.get("batch_size") == 16 and "l2" in own:
            return task.number, Outcome("failed", reason="the loss is nan")
        rate = own.get("learning_rate", 1e-3)
        value = 1.0 - abs(np.log10(rate) + 2) / 4 + 0.01 * own["hidden_units"][0]
        curve = [value - 0.2, value - 0.1, value]
        return task.number, Outcome("done", value, {"micro_f1": value}, curve=curve)


def made(settings, folder, algorithm="tpe"):
    folder.mkdir(exist_ok=True)
    return Search(
        *(settings, "policy", algorithm, 3, "micro_f1", ["title", "image"], False),
        *(folder, folder, ("", ""), folder),
    )


def searched(settings, folder, pool, trials, algorithm="tpe", **limits):
    what = made(settings, folder, algorithm)
    journal = Journal(folder / "search.jsonl", {"seed": 3}, resume=True)
    budget = limits.get("time_budget", float("inf"))
    loop.run(what, journal, pool, trials, budget, lambda *told: None)
    return journal.records


def told(records):
    return {n: (x.point, x.values, x.status, x.value) for n, x in records.items()}


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
    path.write_text(f"{EXPERIMENT}{POLICY_SPACE}stale_trials = 5\n", encoding="utf-8")
    stale = experiment.load(path)
    records = searched(stale, tmp_path / "a", Pretended(), 200)
    leader = stopping.best(list(records.values()))
    assert len(records) == leader.number + 6
    # What is written is tried however little time there is.
    one = searched(stale, tmp_path / "b", Pretended(), 200, time_budget=0.0)
    assert list(one) == [0]


def test_a_search_of_which_the_first_trials_all_fail_ends(settings, tmp_path, capsys):
    records = searched(settings, tmp_path / "a", Pretended(2, failing=99), 40)
    # And one that was at work.
    assert sorted(records) == list(range(stopping.FEWEST_TRIALS + 1))
    assert "ends after 6 trials: all failed" in capsys.readouterr().err
    # None is given up while one that may go through is at work.
    for slots in (1, 4):
        few = Pretended(slots, failing=stopping.FEWEST_TRIALS - (slots == 1))
        assert len(searched(settings, tmp_path / f"b{slots}", few, 20)) == 20


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
    nested = tmp_path / "nested.jsonl"
    Journal(nested, {"experiment": {"heads": {"a": {"l2": 0.0}}}}, resume=False)
    with pytest.raises(
        RunError, match=r"its experiment.heads.a.l2 is 0.0, now it is 1"
    ):
        Journal(nested, {"experiment": {"heads": {"a": {"l2": 1}}}}, resume=True)
    # A line that a kill cut short is done again.
    text = path.read_text()
    path.write_text(text[:-9])
    assert list(Journal(path, {"seed": 1}, resume=True).records) == [0]
    assert path.read_text() == "".join(text.splitlines(keepends=True)[:2])
    path.write_text(text.replace('"number": 1', '"number": 0'))
    with pytest.raises(RunError, match="damaged: a trial is there twice"):
        Journal(path, {"seed": 1}, resume=True)
    path.write_text(text.replace('"status"', '"state"'))
    with pytest.raises(RunError, match="damaged: a trial has no outcome"):
        Journal(path, {"seed": 1}, resume=True)
    path.write_text("no json\n")
    with pytest.raises(RunError, match="damaged"):
        Journal(path, {"seed": 1}, resume=True)


def test_without_a_pool_no_search_has_begun(tmp_path, monkeypatch):
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT + POLICY_SPACE, encoding="utf-8")
    what = made(experiment.load(path), tmp_path / "a")
    monkeypatch.setattr(outcomes, "_about", lambda what, parallel: {"seed": 3})

    def pool(*about):
        raise SparkError("no Spark master answers")

    monkeypatch.setattr(outcomes, "_pool", pool)
    with pytest.raises(SparkError, match="no Spark master answers"):
        outcomes.search(what, 3, 1, "spark://127.0.0.1:1", float("inf"), resume=False)
    assert not (what.folder / "search.jsonl").exists()


def test_what_is_better_after_more_trials_is_fitted_on_all_once_more(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "e.toml"
    path.write_text(f"{EXPERIMENT}{POLICY_SPACE}data_rate = 0.5\n", encoding="utf-8")
    what = made(experiment.load(path), tmp_path / "a")
    monkeypatch.setattr(outcomes, "_about", lambda what, parallel: {"seed": 3})
    pools = []

    def pool(*about):
        pools.append(Pretended())
        return contextlib.nullcontext(pools[-1])

    monkeypatch.setattr(outcomes, "_pool", pool)
    best = []
    for trials in (3, 30, 31):
        outcomes.search(what, trials, 1, None, float("inf"), trials > 3)
        lines = (what.folder / "search.jsonl").read_text().splitlines()[1:]
        records = [Record(**json.loads(line)) for line in lines]
        best.append(stopping.best([x for x in records if x.number >= 0]))
        refits = [x for x in records if x.number < 0]
        assert "best" in (said := capsys.readouterr().err)
        assert "of -1" not in said
        assert refits[-1].values == best[-1].values
        found = experiment.load(what.folder / "best.toml").heads["policy"]
        assert found.learning_rate == best[-1].values["learning_rate"]
    assert best[0].number < 3 <= best[1].number
    assert best[2].number == best[1].number
    # Trials on half of the products, refits on all; none where nothing was better.
    given = [[(x.number < 0, x.data_rate) for x in pool.given] for pool in pools]
    assert given[0] == [(False, 0.5)] * 3 + [(True, 1.0)]
    assert given[1] == [(False, 0.5)] * 27 + [(True, 1.0)]
    assert given[2] == [(False, 0.5)]
