"""What the server's process holds, and whether it grows."""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

INTERVAL_S = 1.0
# Threads and open files come and go with connections.
MAY_GROW = {"threads": 8, "files": 8}
MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """The process at one moment.

    Attributes:
        time_s: Seconds since the start of the load.
        rss: Bytes of memory that it occupies.
        threads: How many it has.
        files: How many it has open, connections included.
        settled: No version is being loaded or taken away.
    """

    time_s: float
    rss: int
    threads: int
    files: int
    settled: bool


class Sampler:
    """Looks at a process every second, from a thread of its own.

    Args:
        pid: The process.
        is_settled: Whether a sample is taken between two changes of version.
    """

    def __init__(self, pid: int, is_settled: Callable[[], bool]) -> None:
        self.samples: list[Sample] = []
        self._process = psutil.Process(pid)
        self._is_settled = is_settled
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        start_s = time.monotonic()
        while not self._stopped.wait(INTERVAL_S):
            try:
                with self._process.oneshot():
                    sample = Sample(
                        time.monotonic() - start_s,
                        self._process.memory_info().rss,
                        self._process.num_threads(),
                        self._process.num_fds(),
                        self._is_settled(),
                    )
            except psutil.Error:
                return  # the process has ended, and every request says so
            self.samples.append(sample)


def judge(
    samples: Sequence[Sample],
    duration_s: float,
    may_grow: float,
    warm_up_s: float = 0.0,
) -> dict[str, Any]:
    """Whether memory, threads and open files stay as they are.

    A server takes its memory during its first minutes, and a version that is being
    loaded is one more for a while. So only samples after the warm-up and between two
    changes of version count, and the last fifth of the time is held against the second
    one, by their medians. Of memory the share must not be above `may_grow`; of
    threads and files the number must not be above `MAY_GROW`.

    Args:
        samples: Sequence of `Sample`.
        duration_s: How long the load lasted, the warm-up left out.
        may_grow: Share of the memory, above 0.
        warm_up_s: How long the load lasted before that.

    Returns:
        Dict of `samples`, `highest_mib`, `rss_mib_by_minute` (medians, of the warm-up
        too, of minutes that have a sample that counts), for each of `rss_mib`,
        `threads` and `files` its `early` and `late` median, `rss_mib_per_hour` (the
        median of the slopes between the samples of the two fifths), and `problems`, a
        list of lines that is empty if nothing grows.
    """
    settled = [sample for sample in samples if sample.settled]
    first, second, last = (warm_up_s + x * duration_s / 5 for x in (1, 2, 4))
    early = [s for s in settled if first <= s.time_s < second]
    late = [s for s in settled if s.time_s >= last]
    found: dict[str, Any] = {
        "samples": len(samples),
        "highest_mib": max((s.rss for s in samples), default=0) / MIB,
        "rss_mib_by_minute": [
            round(statistics.median(minute) / MIB, 1)
            for _, minute in sorted(_by_minute(settled).items())
        ],
    }
    if not early or not late:
        return found | {
            "problems": [
                "memory cannot be judged: "
                f"{len(early)} samples in the second fifth, {len(late)} in the last"
            ]
        }
    medians = {
        name: (
            statistics.median(getattr(s, name) for s in early),
            statistics.median(getattr(s, name) for s in late),
        )
        for name in ("rss", "threads", "files")
    }
    problems = []
    before, after = medians["rss"]
    if after > before * (1 + may_grow):
        problems.append(
            f"memory grew from {before / MIB:.0f} to {after / MIB:.0f} MiB, "
            f"{after / before - 1:.1%}, over the {may_grow:.1%} that it may"
        )
    for name, limit in MAY_GROW.items():
        before, after = medians[name]
        if after > before + limit:
            problems.append(f"{name} grew from {before:.0f} to {after:.0f}")
    found["rss_mib"] = _pair(medians["rss"], MIB)
    for name in MAY_GROW:
        found[name] = _pair(medians[name])
    found["rss_mib_per_hour"] = _slope(early, late) * 3600 / MIB
    return found | {"problems": problems}


def _by_minute(samples: Sequence[Sample]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for sample in samples:
        found.setdefault(int(sample.time_s // 60), []).append(sample.rss)
    return found


def _pair(medians: tuple[float, float], unit: int = 1) -> dict[str, float]:
    return {"early": medians[0] / unit, "late": medians[1] / unit}


def _slope(early: Sequence[Sample], late: Sequence[Sample]) -> float:
    """Bytes a second, by Theil and Sen's median, from one group to the other."""
    return statistics.median(
        (after.rss - before.rss) / (after.time_s - before.time_s)
        for before in early
        for after in late
    )
