"""Ways for tests to run the commands."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

# Imported once in the process that commands are forked from. Importing these takes a
# command longer than most of what tests ask of it.
PRELOADED = ("tensorflow", "keras", "keras_hub", "lightgbm", "sklearn", "scipy.stats")


def process(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Runs `python WORDS` as a user would, in a new process."""
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=cwd
    )


def command(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Runs `python -m MODULE WORDS`, or a file, in a process with libraries imported.

    Only that is different from `process`: the command is forked from a process that
    has imported them and done nothing else.
    """
    words = tuple(map(str, words))
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        child = _server().Process(
            target=_run,
            args=(words, str(cwd or Path.cwd()), dict(os.environ), out, err),
        )
        child.start()
        child.join()
        code = child.exitcode
        child.close()
        return subprocess.CompletedProcess(
            [sys.executable, *words],
            code,
            out.read_text(encoding="utf-8"),
            err.read_text(encoding="utf-8"),
        )


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _run(
    words: tuple[str, ...], cwd: str, environment: dict[str, str], out: Path, err: Path
) -> None:
    """What a forked process does: as `python WORDS`, its output into files."""
    for path, number in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if words[0] == "-m":
        sys.argv = list(words[1:])
        sys.path.insert(0, cwd)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")
