"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG_INTERVAL_S = 30.0


def say(message: str) -> None:
    """Prints one line of what is being done, on standard error."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Shows how far some work is.

    Args:
        description: What is being done.
        total: Steps there are; `None` if unknown.

    Yields:
        A function to call with the number of steps done so far, and with a few words
        on how it goes, if there are any.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda done, words="": bar.update(
                task, completed=done, description=f"{description} {words}".strip()
            )
        return
    last = time.monotonic()

    def log(done: int, words: str = "") -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_INTERVAL_S:
            last = time.monotonic()
            say(f"{description}: {done}" + (f" of {total}" if total else "") + words)

    yield log
