"""The load itself: clients, changes of version, samples, and the verdict."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from soaking import FIRST, memory
from soaking.clients import SoakClient
from soaking.products import Pool
from soaking.server import DevelopmentServer, Swapper
from soaking.tally import Tally
from soaking.ways import Server
from tfmm_client import Client

PROGRESS_S = 30.0
POLL_S = 0.2


@dataclass(frozen=True)
class Options:
    """How a server is kept busy.

    Attributes:
        duration_s: How long.
        clients: How many at once.
        think_s: Mean of the time between two requests of a client.
        swap_every_s: Time from one version to the next; 0 for none.
        timeout_s: Limit of one request.
        may_grow: Share by which memory may grow.
        seed: Of everything that is drawn.
        warm_up_s: How long it is kept busy before that; only memory is not judged then.
    """

    duration_s: float
    clients: int = 3
    think_s: float = 0.3
    swap_every_s: float = 0.0
    timeout_s: float = 60.0
    may_grow: float = 0.05
    seed: int = 0
    warm_up_s: float = 0.0

    @property
    def whole_s(self) -> float:
        """Both together."""
        return self.warm_up_s + self.duration_s


@dataclass(frozen=True)
class Where:
    """A server, and what may be done to it.

    Attributes:
        grpc: `HOST:PORT`.
        rest: `HOST:PORT`.
        model: Name of the served model.
        base_path: Folder of its versions, or None if it gets no new ones.
        pid: Its process on this machine, or None if it is not watched.
        process: The server, if it is of the soak's own.
    """

    grpc: str
    rest: str
    model: str
    base_path: Path | None = None
    pid: int | None = None
    process: DevelopmentServer | None = None


def load(
    where: Where,
    pool: Pool,
    bundles: Sequence[Path],
    options: Options,
    say: Callable[[str], None],
    enough: Callable[[Tally], bool] = lambda tally: False,
) -> dict[str, Any]:
    """Keeps a server busy, and says what became of it.

    Args:
        where: The server.
        pool: What is sent, and the answers of `bundles`.
        bundles: What new versions are copies of, in turn; the version that is
            served at the beginning is one of the first.
        options: `Options`.
        say: Takes a line of progress.
        enough: Ends the load before its time, as soon as it says so.

    Returns:
        Dict of `lasted_s`, `requests` (kind -> outcome -> count), `by_way` (kind ->
        way -> outcome -> count), `examples` of what went wrong, `swaps`, `memory`
        (as `memory.judge`; None if no process is watched) and `problems`, the
        lines of everything that must not be; empty if nothing is wrong.
    """
    server = Server(
        where.grpc, where.rest, where.model, tuple(pool.images), options.timeout_s
    )
    tally, swapper, sampler = Tally(), None, None
    with Client(
        f"grpc://{where.grpc}", where.model, timeout_s=options.timeout_s
    ) as control:
        if options.swap_every_s and where.base_path is not None:
            swapper = Swapper(
                where.base_path, bundles, control, every_s=options.swap_every_s
            )
        bundle_of = swapper.bundle_of if swapper else lambda _: FIRST
        if where.pid is not None:
            settled = swapper.is_settled if swapper else lambda: True
            sampler = memory.Sampler(where.pid, settled)
        clients = [
            SoakClient(number, server, pool, tally, bundle_of, options)
            for number in range(options.clients)
        ]
        parts = [x for x in (sampler, swapper) if x is not None]
        for part in (*parts, *clients):
            part.start()
        start_s = time.monotonic()

        def is_over() -> bool:
            dead = where.process is not None and not where.process.is_alive()
            return dead or enough(tally) or any(client.bug for client in clients)

        def tell(now_s: float) -> None:
            line = f"{now_s:.0f} of {options.whole_s:.0f} s: {tally.line()}"
            if swapper is not None:
                line += f", version {swapper.version}"
            if sampler is not None and sampler.samples:
                line += f", {sampler.samples[-1].rss / memory.MIB:.0f} MiB"
            say(line)

        try:
            _wait(options.whole_s, is_over, tell)
        finally:
            lasted_s = time.monotonic() - start_s
            for client in clients:
                client.stop()
            for client in clients:
                client.join()
            for part in parts:
                part.stop()
    problems = tally.problems()
    problems += [f"client {n} ended: {x.bug}" for n, x in enumerate(clients) if x.bug]
    if where.process is not None:
        if not where.process.is_alive():
            problems.append(f"the server ended by itself after {lasted_s:.0f} s")
        if count := where.process.tracebacks():
            problems.append(f"the server wrote down {count} errors of its own")
    if swapper is not None and swapper.problem:
        problems.append(f"a change of version failed: {swapper.problem}")
    held = None
    if sampler is not None:
        judged_s = max(lasted_s - options.warm_up_s, 0.0)
        held = memory.judge(
            sampler.samples, judged_s, options.may_grow, options.warm_up_s
        )
        problems += held.pop("problems")
    return {
        "lasted_s": round(lasted_s, 1),
        **tally.result(),
        "swaps": [asdict(x) for x in swapper.swaps] if swapper else [],
        "memory": held,
        "problems": problems,
    }


def _wait(
    duration_s: float, is_over: Callable[[], bool], tell: Callable[[float], None]
) -> None:
    """Waits for the end, and tells how it goes."""
    start_s = time.monotonic()
    told_s = 0.0
    while (now_s := time.monotonic() - start_s) < duration_s and not is_over():
        time.sleep(min(POLL_S, duration_s - now_s))
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            tell(now_s)
