"""Trials at the same time, on a Spark.

Spark only says where: a trial is a job of one task, in which a worker process does
what it does on one machine. So one that crashes or takes too long has failed as it
would have there, and one whose executor is lost is done again by another.
"""

import json
import os
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tfmm import spark_context
from tfmm.errors import SparkError
from tfmm.search.pool import TRIALS_OF_A_WORKER
from tfmm.search.trial import Outcome, Task
from tfmm.search.worker import Worker


class Cluster:
    """A pool whose trials are done by the executors of a Spark.

    Args:
        context: A SparkContext.
        slots: Trials at the same time.
        fresh: Whether each trial gets a process of its own.
    """

    def __init__(self, context: Any, slots: int, fresh: bool):
        self.slots = slots
        self._context = context
        self._most = 1 if fresh else TRIALS_OF_A_WORKER
        self._ended: queue.Queue[tuple[int, Outcome] | Exception] = queue.Queue()

    def submit(self, task: Task) -> None:
        threading.Thread(target=self._do, args=[task], daemon=True).start()

    def _do(self, task: Task) -> None:
        most = self._most
        try:
            told = self._context.parallelize([json.dumps(asdict(task))], 1)
            (line,) = told.map(lambda text: _do_here(text, most)).collect()
        except Exception as error:  # raised where it can be told
            self._ended.put(error)
        else:
            self._ended.put((task.number, Outcome(**json.loads(line))))

    def wait(self) -> tuple[int, Outcome]:
        ended = self._ended.get()
        if isinstance(ended, Exception):
            raise ended
        return ended


@contextmanager
def cluster(master: str, slots: int, fresh: bool) -> Iterator[Cluster]:
    """A pool on the Spark at `master`; it is let go at the end.

    Raises:
        SparkError: If Spark cannot do it.
    """
    with spark_context.context(master, "tfmm.search") as context:
        yield Cluster(context, slots, fresh)


# An executor's Python process keeps its worker for the next trial.
_kept: list[Worker] = []


def _do_here(text: str, most: int) -> str:
    """What an executor does: a task in, an outcome out, as JSON."""
    from pyspark import TaskContext

    task = Task(**json.loads(text))
    for path in (task.run, task.catalog):
        if not os.path.exists(path):
            raise SparkError(
                f"an executor on {socket.gethostname()} sees no {path}: the run needs "
                "the same path on every machine"
            )
    context = TaskContext.get()
    threads = 1 if context is None else context.cpus()
    worker = _kept.pop() if _kept else Worker(threads)
    if not worker.is_alive:
        worker.close()
        worker = Worker(threads)
    outcome = worker.do(task)
    if worker.is_alive and worker.trials < most:
        _kept.append(worker)
    else:
        worker.kill()
        worker.close()
    # A standalone Spark's executors have a folder each.
    place = "/".join(Path.cwd().parts[-2:])
    where = f"{socket.gethostname()} {place} {os.getpid()}"
    return json.dumps(replace(outcome, where=where).as_dict())
