"""A process that does one trial after another, and its handle.

`python -m tfmm.search.worker` reads tasks from standard input, a line of JSON each, and
answers with outcomes on the file descriptor that its argument names. What a trial
prints goes to `output.txt` in its folder. It ends when its input does, and when its
parent is gone.
"""

import contextlib
import functools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfmm.search.trial import Outcome, Task

PARENT_POLL_S = 0.5
POLL_S = 60.0
START_S = 600.0  # for TensorFlow, on a machine that is busy
STARTED = "started"


class Worker:
    """A handle on one such process.

    Args:
        threads: That TensorFlow may use there.
    """

    def __init__(self, threads: int):
        self._answers, write = os.pipe()
        self._unread = b""
        # What it says before a trial has a file for that.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        # For NumPy's libraries, which read it when they are loaded.
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tfmm.search.worker", str(write), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            text=True,
            pass_fds=[write],
            env=environment,
        )
        os.close(write)
        self.trials = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, task: "Task") -> "Outcome":
        """Has a trial done; a process that dies or takes too long has failed it.

        Then the worker is dead; see `is_alive`. The time counts from when the process
        is ready.
        """
        from tfmm.search.trial import Outcome

        self.trials += 1
        started = time.monotonic()
        with contextlib.suppress(BrokenPipeError):
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asdict(task)) + "\n")
            self._process.stdin.flush()
        line = self._line(START_S)
        if line is None:
            self.kill()
            return Outcome("failed", reason=f"its process took {START_S:g} s to start")
        if line == STARTED:
            started = time.monotonic()
            line = self._line(task.seconds)
        seconds = round(time.monotonic() - started, 2)
        if line is None:
            self.kill()
            reason = f"took longer than trial_seconds = {task.seconds:g}"
            return Outcome("failed", reason=reason, seconds=seconds)
        if not line:
            return Outcome("failed", reason=self._death(), seconds=seconds)
        return Outcome(**json.loads(line))

    def _line(self, seconds: float) -> str | None:
        """The next line; empty if the process has ended, None if it takes too long."""
        until = time.monotonic() + seconds
        # Unlike `select`, which knows small descriptors only.
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0:
                return None
            if not poll.poll(1000 * min(left, POLL_S)):
                continue
            read = os.read(self._answers, 65536)
            if not read:
                return ""
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def _death(self) -> str:
        status = self._process.wait()
        if status >= 0:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").split("\n")
            last = ([x.strip() for x in lines if x.strip()] or ["see output.txt"])[-1]
            return f"its process ended with status {status}: {last[:300]}"
        known = {x.value for x in signal.Signals}
        name = signal.Signals(-status).name if -status in known else f"signal {-status}"
        hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends the process at once; `do` returns, and `close` is still to be called."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends the process, after the trial at which it is, and gives back all."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):  # it is dead already
                self._process.stdin.close()
        self._process.wait()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
            self._errors.close()


def _write(folder: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    (folder / "trial.json").write_text(text, encoding="utf-8")


def main(descriptor: int, threads: int) -> None:
    """Does the tasks of standard input."""
    threading.Thread(target=_end_with, args=[os.getppid()], daemon=True).start()
    answers = os.fdopen(descriptor, "w")
    for line in sys.stdin:
        content = json.loads(line)
        folder = Path(content["folder"])
        # What a killed process left there must not be gone on with.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write(folder, content)
        output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.close(output)
        perform, make = _loaded(threads)
        print(STARTED, file=answers, flush=True)
        outcome = perform(make(**content))
        _write(folder, {**content, "outcome": outcome.as_dict()})
        print(json.dumps(outcome.as_dict()), file=answers, flush=True)


@functools.cache
def _loaded(threads: int) -> tuple[Callable[..., "Outcome"], Callable[..., "Task"]]:
    """What does a trial; loaded with the first one, so that its output tells of it."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from tfmm.search.trial import Task, perform

    return perform, Task


def _end_with(parent: int) -> None:
    """Ends this process once its parent is gone, in whatever trial it may be."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
