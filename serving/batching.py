"""Server-side batching: requests of one signature are joined and run together.

As in TensorFlow Serving, every signature of every version has a queue of batches
of its own, and all queues share a few threads. The last batch of a queue is open:
requests join it until it is full or its time is up. Then a thread joins the
inputs along their first dimension, runs the graph once and cuts the outputs
apart again. An error ends every request of its batch.
"""

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from serving.batch_arrays import (
    check_output,
    merged_inputs,
    num_rows,
    padded_size,
)
from serving.metrics import Metrics, microseconds_since
from serving.parameters import BatchingParameters
from serving.status import StatusError

Arrays = Mapping[str, np.ndarray]
# Runs the graph on inputs by tensor name, within milliseconds (None: no limit).
Run = Callable[[Arrays, int | None], Arrays]
# Takes a function to call when the client gives up; False if it already has.
OnCancel = Callable[[Callable[[], None]], bool]


class Task:
    """A request, or a piece of a large one, that waits for its batch.

    Args:
        inputs: dict from tensor name to array, all of `num_rows` rows.
        num_rows: int.
        deadline_s: float or None. When it stops to matter, by `time.monotonic`.
    """

    def __init__(self, inputs: Arrays, num_rows: int, deadline_s: float | None) -> None:
        self.inputs = inputs
        self.num_rows = num_rows
        self.deadline_s = deadline_s
        self.enqueued_s = time.monotonic()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._outputs: Arrays = {}
        self._error: StatusError | None = None

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def finish(self, outputs: Arrays, error: StatusError | None = None) -> None:
        """Ends the wait; only the first call counts."""
        with self._lock:
            if not self._done.is_set():
                self._outputs, self._error = outputs, error
                self._done.set()

    def cancel(self) -> None:
        """Ends the wait with CANCELLED, unless it has ended."""
        self.finish({}, StatusError("CANCELLED", "The client has cancelled the call."))

    def wait(self) -> Arrays:
        """The outputs by tensor name, once they are there."""
        self._done.wait()
        if self._error is not None:
            # A new one for each waiter: many threads raise the same error.
            raise StatusError(self._error.code, self._error.message) from self._error
        return self._outputs

    def pieces(self, first_rows: int, most_rows: int) -> list["Task"]:
        """The rows as tasks of `most_rows` at most, the first of `first_rows`."""
        starts = [0, *range(first_rows or most_rows, self.num_rows, most_rows)]
        ends = [*starts[1:], self.num_rows]
        return [
            Task(
                {name: array[start:end] for name, array in self.inputs.items()},
                end - start,
                self.deadline_s,
            )
            for start, end in zip(starts, ends, strict=True)
        ]


class Batch:
    """The tasks that run together.

    Attributes:
        tasks: list of `Task`.
        num_rows: int. Rows of all tasks.
        started_s: float. When the first task came, by `time.monotonic`.
    """

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.num_rows = 0
        self.started_s = 0.0

    def add(self, task: Task) -> None:
        """Adds a task."""
        if not self.tasks:
            self.started_s = task.enqueued_s
        self.tasks.append(task)
        self.num_rows += task.num_rows


class BatchQueue:
    """The batches of one signature of one version.

    Args:
        scheduler: `BatchScheduler` whose threads run the batches.
        parameters: `BatchingParameters`.
        run: Callable that runs the graph.
    """

    def __init__(
        self, scheduler: "BatchScheduler", parameters: BatchingParameters, run: Run
    ) -> None:
        self._scheduler = scheduler
        self._parameters = parameters
        self._run = run
        # Never empty; the last one is open. Guarded by the scheduler's condition.
        self._batches = deque([Batch()])

    def call(
        self,
        inputs: Arrays,
        timeout_ms: int | None,
        on_cancel: OnCancel | None = None,
    ) -> Arrays:
        """Runs one request as a part of a batch.

        Args:
            inputs: dict from tensor name to array of shape `(rows, ...)`.
            timeout_ms: int or None. A batch whose requests are all past their
                time is not run.
            on_cancel: `OnCancel`, which ends the wait, or None.

        Returns:
            Dict from tensor name to array of shape `(rows, ...)`.

        Raises:
            StatusError: INVALID_ARGUMENT for inputs that cannot be joined or are
                too many, UNAVAILABLE when the queue is full, RESOURCE_EXHAUSTED
                when time ran out in the queue, FAILED_PRECONDITION for shapes
                that do not fit the other requests of the batch; otherwise the
                status that the graph ended in.
        """
        rows = num_rows(inputs)
        now = time.monotonic()
        deadline_s = None if timeout_ms is None else now + timeout_ms / 1000
        tasks = self._enqueue(Task(inputs, rows, deadline_s))
        if on_cancel is not None:
            for task in tasks:
                if not on_cancel(task.cancel):
                    task.cancel()
        outputs = [task.wait() for task in tasks]
        if len(outputs) == 1:
            return outputs[0]
        return {
            name: np.concatenate([piece[name] for piece in outputs])
            for name in outputs[0]
        }

    def _enqueue(self, task: Task) -> list[Task]:
        parameters, rows = self._parameters, task.num_rows
        most_rows = parameters.rows_per_batch
        with self._scheduler.condition:
            self._scheduler.check_open()
            self._check_room(rows)
            batches, tasks = self._batches, [task]
            room = most_rows - batches[-1].num_rows
            if parameters.enable_large_batch_splitting and rows > room:
                tasks = task.pieces(room, most_rows)
            for piece in tasks:
                if batches[-1].num_rows + piece.num_rows > most_rows:
                    batches.append(Batch())
                batches[-1].add(piece)
            self._scheduler.condition.notify()
        return tasks

    def _check_room(self, rows: int) -> None:
        parameters, batches = self._parameters, self._batches
        if rows > parameters.max_batch_size:
            raise StatusError(
                "INVALID_ARGUMENT",
                f"Task size {rows} is larger than maximum input batch size "
                f"{parameters.max_batch_size}",
            )
        full = "The batch scheduling queue to which this task was submitted is full; "
        most, open_rows = parameters.max_enqueued_batches, batches[-1].num_rows
        if parameters.enable_large_batch_splitting:
            room = (most - len(batches) + 1) * parameters.rows_per_batch - open_rows
            if rows > room:
                raise StatusError(
                    "UNAVAILABLE",
                    f"{full}task size is {rows} but scheduling capacity is only {room} "
                    f"(num_enqueued_batches={len(batches)}, "
                    f"max_enqueued_batches={most}, open_batch_size={open_rows}, "
                    f"max_execution_batch_size={parameters.rows_per_batch})",
                )
        elif open_rows + rows > parameters.max_batch_size and len(batches) >= most:
            raise StatusError(
                "UNAVAILABLE",
                f"{full}currently {len(batches)} batches enqueued and "
                f"max_enqueued_batches is {most}",
            )

    def ready_s(self) -> float | None:
        """When the first batch may run; None while there is none."""
        first = self._batches[0]
        if not first.tasks:
            return None
        if len(self._batches) > 1 or first.num_rows >= self._parameters.rows_per_batch:
            return first.started_s
        return first.started_s + self._parameters.batch_timeout_micros / 1e6

    def pop(self) -> Batch:
        """Takes the first batch out, for a thread to run."""
        batch = self._batches.popleft()
        if not self._batches:
            self._batches.append(Batch())
        return batch

    def process(self, batch: Batch) -> None:
        """Runs a batch and ends the wait of its tasks; never raises."""
        tasks = [task for task in batch.tasks if not task.is_done]
        try:
            if tasks:
                self._process(tasks)
        except StatusError as error:
            for task in tasks:
                task.finish({}, error)
        except Exception as error:
            # Those who wait must hear of a bug, or they would wait for ever.
            traceback.print_exc()
            for task in tasks:
                task.finish({}, StatusError("INTERNAL", f"{error!r} in a batch"))

    def _process(self, tasks: list[Task]) -> None:
        now = time.monotonic()
        for task in tasks:
            self._scheduler.observe_wait(task)
        deadlines = [task.deadline_s for task in tasks]
        timeout_ms = None
        if None not in deadlines:
            left_s = max(deadline for deadline in deadlines if deadline) - now
            if left_s <= 0:
                raise StatusError(
                    "RESOURCE_EXHAUSTED",
                    "Run() timeout exceeded while waiting in batching queue",
                )
            timeout_ms = max(1, int(left_s * 1000))
        rows = sum(task.num_rows for task in tasks)
        size = padded_size(rows, self._parameters.allowed_batch_sizes)
        inputs = merged_inputs(
            [task.inputs for task in tasks],
            size - rows,
            pad=self._parameters.pad_variable_length_inputs,
        )
        self._scheduler.metrics.processed_batch_size.observe(size)
        outputs = self._run(inputs, timeout_ms)
        for array in outputs.values():
            check_output(array, size)
        start = 0
        for task in tasks:
            end = start + task.num_rows
            task.finish({name: array[start:end] for name, array in outputs.items()})
            start = end


class BatchScheduler:
    """The threads that run the batches of every queue.

    Args:
        parameters: `BatchingParameters`. Its threads; a queue has parameters of its
            own for the rest.
        metrics: `Metrics` to record in.
    """

    def __init__(self, parameters: BatchingParameters, metrics: Metrics) -> None:
        self.parameters = parameters
        self.metrics = metrics
        self.condition = threading.Condition()
        self._queues: list[BatchQueue] = []
        self._is_open = True
        self._threads = [
            threading.Thread(target=self._work, name=parameters.thread_pool_name)
            for _ in range(parameters.num_batch_threads or os.cpu_count() or 1)
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def add_queue(self, parameters: BatchingParameters, run: Run) -> BatchQueue:
        """A new queue for a signature that `run` runs."""
        queue = BatchQueue(self, parameters, run)
        with self.condition:
            self._queues.append(queue)
        return queue

    def remove_queue(self, queue: BatchQueue) -> None:
        """Forgets a queue that nothing waits in."""
        with self.condition:
            self._queues.remove(queue)

    def check_open(self) -> None:
        """Raises UNAVAILABLE once the scheduler is closed."""
        if not self._is_open:
            raise StatusError("UNAVAILABLE", "The server is stopping.")

    def observe_wait(self, task: Task) -> None:
        """Records how long a task has waited."""
        waited = microseconds_since(task.enqueued_s, time.monotonic)
        self.metrics.queuing_latency.observe(waited, self.parameters.thread_pool_name)

    def close(self) -> None:
        """Cancels what waits and lets the threads end."""
        with self.condition:
            self._is_open = False
            for queue in self._queues:
                while batch := queue.pop().tasks:
                    for task in batch:
                        task.cancel()
            self.condition.notify_all()

    def _work(self) -> None:
        while (work := self._next()) is not None:
            queue, batch = work
            queue.process(batch)

    def _next(self) -> tuple[BatchQueue, Batch] | None:
        """Waits for a batch that may run; None once the scheduler is closed."""
        with self.condition:
            while self._is_open:
                times = [(queue.ready_s(), queue) for queue in self._queues]
                ready = [(when, queue) for when, queue in times if when is not None]
                if not ready:
                    self.condition.wait()
                    continue
                when, queue = min(ready, key=lambda pair: pair[0])
                if when <= time.monotonic():
                    batch = queue.pop()
                    # Another thread may have something to do as well.
                    self.condition.notify()
                    return queue, batch
                self.condition.wait(when - time.monotonic())
        return None
