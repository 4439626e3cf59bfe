"""Where trials are done: processes of this machine, executors of a Spark."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest
from tiny import EXPERIMENT, POLICY_SPACE

from tfmm.errors import SparkError
from tfmm.search import cluster, pool
from tfmm.search.cluster import Cluster
from tfmm.search.pool import TRIALS_OF_A_WORKER, processes
from tfmm.search.trial import Outcome, Task


class Pretended:
    """A worker of made-up trials: 2 takes too long, 3 raises, 8 waits for 9."""

    made = 0
    together = threading.Barrier(2, timeout=60)

    def __init__(self, threads):
        Pretended.made += 1
        self.me, self.threads = Pretended.made, threads
        self.trials, self.is_alive, self.is_closed = 0, True, False

    def do(self, task):
        self.trials += 1
        if task.number == 2:
            self.is_alive = False
            return Outcome("failed", reason="took longer than trial_seconds = 1")
        if task.number == 3:
            raise ZeroDivisionError("a bug")
        if task.number in (8, 9):
            self.together.wait()
        return Outcome("done", float(self.me))

    def kill(self):
        self.is_alive = False

    def close(self):
        self.is_closed = True


@pytest.fixture(autouse=True)
def _pretend(request, monkeypatch):
    if request.node.get_closest_marker("slow"):
        return
    Pretended.made = 0
    monkeypatch.setattr(pool, "Worker", Pretended)
    monkeypatch.setattr(cluster, "Worker", Pretended)
    monkeypatch.setattr(cluster, "_kept", [])


def task(number, run="/", catalog="/"):
    return Task(
        *(number, {}, "policy", "top1", False, 1.0, [], "top1", 1.0, "/none"),
        *(run, catalog, ("", ""), False),
    )


def done(place, number, **about):
    place.submit(task(number, **about))
    return place.wait()


# ------------------------------------------------------------------- processes


def test_a_worker_that_took_too_long_is_replaced():
    with processes(1, fresh=False) as place:
        assert done(place, 0) == (0, Outcome("done", 1.0))
        assert done(place, 1) == (1, Outcome("done", 1.0))
        number, outcome = done(place, 2)
        assert (number, outcome.status) == (2, "failed")
        assert "took longer" in outcome.reason
        assert done(place, 4) == (4, Outcome("done", 2.0))


def test_a_worker_that_died_between_two_trials_is_replaced():
    with processes(1, fresh=False) as place:
        done(place, 0)
        (worker,) = place._all
        worker.is_alive = False
        assert done(place, 1) == (1, Outcome("done", 2.0))
        assert worker.is_closed


@pytest.mark.parametrize(("fresh", "most"), [(True, 1), (False, TRIALS_OF_A_WORKER)])
def test_a_worker_does_so_many_trials_and_no_more(fresh, most):
    with processes(1, fresh) as place:
        who = [done(place, 10 + i)[1].value for i in range(2 * most)]
    assert who == [1.0] * most + [2.0] * most


def test_trials_at_the_same_time_have_a_worker_each_and_share_the_cores():
    with processes(2, fresh=False) as place:
        for number in (8, 9):
            place.submit(task(number))
        ended = dict(place.wait() for _ in range(2))
        assert {number: x.status for number, x in ended.items()} == {
            8: "done",
            9: "done",
        }
        assert {x.value for x in ended.values()} == {1.0, 2.0}
        cores = len(os.sched_getaffinity(0))
        assert {x.threads for x in place._all} == {max(1, cores // 2)}


def test_a_bug_is_raised_where_it_can_be_seen():
    with pytest.raises(ZeroDivisionError), processes(1, fresh=False) as place:
        done(place, 3)


# ----------------------------------------------------------------------- Spark


class Jobs:
    """Does a SparkContext's jobs at once, here."""

    def parallelize(self, items, parts):
        assert parts == len(items) == 1
        self.items = items
        return self

    def map(self, function):
        self.function = function
        return self

    def collect(self):
        return [self.function(x) for x in self.items]


def test_an_executor_keeps_its_worker_until_it_dies_or_has_done_enough():
    place = Cluster(Jobs(), 1, fresh=False)
    who = [done(place, number)[1].value for number in (0, 1)]
    number, outcome = done(place, 2)
    assert (number, outcome.status) == (2, "failed")
    assert who == [1.0, 1.0]
    assert outcome.where
    assert done(place, 4)[1].value == 2.0
    cluster._kept[0].is_alive = False  # between two trials
    assert done(place, 5)[1].value == 3.0
    alone = Cluster(Jobs(), 1, fresh=True)
    assert [done(alone, number)[1].value for number in (20, 21, 22)] == [3.0, 4.0, 5.0]


def test_what_fails_on_a_spark_is_told_here(tmp_path):
    place = Cluster(Jobs(), 1, fresh=False)
    with pytest.raises(ZeroDivisionError):
        done(place, 3)
    missing = str(tmp_path / "run")
    with pytest.raises(SparkError, match=f"sees no {missing}: the run needs the same"):
        done(place, 0, run=missing)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_a_spark_does_the_trials_that_processes_do(fitted, catalog_file, tmp_path):
    file = tmp_path / "e.toml"
    file.write_text(EXPERIMENT + POLICY_SPACE, encoding="utf-8")
    found, where = [], set()
    for name, flags in (("here", []), ("spark", ["--spark", "local[2]"])):
        path = tmp_path / name
        shutil.copytree(fitted, path)
        call = ["-m", "tfmm.search", file, "--catalog", catalog_file, "--run", path]
        call += ["--target", "policy", "--trials", 5, "--parallel", 2, *flags]
        subprocess.run([sys.executable, *map(str, call)], check=True)
        journal = (path / "search" / "policy" / "search.jsonl").read_text()
        outcomes = {}
        for record in map(json.loads, journal.splitlines()[1:]):
            outcome = record["outcome"]
            kept = [outcome[key] for key in ("status", "value", "curve", "measures")]
            outcomes[record["number"]] = record["values"], kept
            where.add(outcome["where"])
        found.append(outcomes)
    assert sorted(found[0]) == list(range(5))
    assert found[0] == found[1]
    assert "" in where
    assert len(where) == 3  # and two Python processes of Spark's
