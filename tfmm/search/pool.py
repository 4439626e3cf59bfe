"""Trials at the same time, in processes of this machine."""

import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tfmm.search.trial import Outcome, Task
from tfmm.search.worker import Worker

# A worker is replaced after so many trials, and whatever it has gathered with it.
TRIALS_OF_A_WORKER = 25


class Pool(Protocol):
    """Where trials are done: `slots` of them at the same time."""

    slots: int

    def submit(self, task: Task) -> None:
        """Starts a trial; never more than `slots` at once."""

    def wait(self) -> tuple[int, Outcome]:
        """Waits until a trial has ended: its number, and what became of it."""


class Processes:
    """A pool of worker processes.

    Args:
        slots: How many.
        fresh: Whether each trial gets a process of its own.
    """

    def __init__(self, slots: int, fresh: bool):
        self.slots = slots
        self._most = 1 if fresh else TRIALS_OF_A_WORKER
        self._threads = max(1, len(os.sched_getaffinity(0)) // slots)
        self._idle: list[Worker] = []
        self._all: set[Worker] = set()
        self._doing: list[threading.Thread] = []
        self._ended: queue.Queue[tuple[int, Outcome] | Exception] = queue.Queue()

    def submit(self, task: Task) -> None:
        worker = self._worker()
        doing = threading.Thread(target=self._do, args=[worker, task])
        self._doing.append(doing)
        doing.start()

    def _worker(self) -> Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                return worker
            worker.close()  # it was ended between two trials
            self._all.discard(worker)
        worker = Worker(self._threads)
        self._all.add(worker)
        return worker

    def _do(self, worker: Worker, task: Task) -> None:
        try:
            outcome = worker.do(task)
            if worker.is_alive and worker.trials < self._most:
                self._idle.append(worker)
            else:
                # TensorFlow may take its time to end, and has nothing more to say.
                worker.kill()
                worker.close()
                self._all.discard(worker)
        except Exception as error:  # a bug of ours, raised where it can be seen
            self._ended.put(error)
        else:
            self._ended.put((task.number, outcome))

    def wait(self) -> tuple[int, Outcome]:
        ended = self._ended.get()
        if isinstance(ended, Exception):
            raise ended
        return ended

    def end(self) -> None:
        """Ends all processes, whatever they are at."""
        for worker in list(self._all):
            worker.kill()
        for doing in self._doing:
            doing.join()
        for worker in self._idle:
            worker.close()


@contextmanager
def processes(slots: int, fresh: bool) -> Iterator[Processes]:
    """A pool whose processes are gone at the end, whatever they were at."""
    pool = Processes(slots, fresh)
    try:
        yield pool
    finally:
        pool.end()
