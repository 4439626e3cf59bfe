"""When a trial, and when a search, is not worth more time."""

from collections.abc import Sequence

import numpy as np

from tfmm.search.journal import Record

# Trials that must have gone through before any is held against them, or have failed
# before all are given up; and epochs that every trial may have.
FEWEST_TRIALS = 5
FREE_EPOCHS = 2


def floors(known: Sequence[Record], is_on: bool) -> list[float | None]:
    """By epoch, from 1: what a trial's best so far must reach to go on.

    The median of what the trials that were done had reached at that epoch; one that
    had fewer epochs counts with its best. `None` for epochs that all may have.

    Args:
        known: Earlier trials.
        is_on: Whether the rule is wanted.

    Reference:
    - [Golovin et al., 2017](https://doi.org/10.1145/3097983.3098043), section 3.2.2,
      with the best value of the trial instead of its running average.
    """
    curves = [
        np.maximum.accumulate(x.outcome["curve"])
        for x in known
        if x.status == "done" and x.outcome["curve"]
    ]
    if not is_on or len(curves) < FEWEST_TRIALS:
        return []
    longest = max(map(len, curves))
    padded = np.array([np.pad(x, (0, longest - len(x)), mode="edge") for x in curves])
    found = np.median(padded, axis=0)
    free = [None] * min(FREE_EPOCHS, longest)
    return [*free, *found[FREE_EPOCHS:].tolist()]


def best(known: Sequence[Record]) -> Record | None:
    """The trial that is done and has the highest value; the first of equal ones.

    The refit of the best is none.
    """
    done = [x for x in known if x.status == "done" and x.number >= 0]
    return max(done, key=lambda x: (x.value, -x.number), default=None)


def is_stale(known: Sequence[Record], stale_trials: int) -> bool:
    """Whether the last `stale_trials` trials brought nothing better; 0: never."""
    leader = best(known)
    if not stale_trials or leader is None:
        return False
    return sum(x.number > leader.number for x in known) >= stale_trials


def is_in_vain(known: Sequence[Record]) -> bool:
    """Whether there were several trials and all failed, the first among them."""
    return len(known) >= FEWEST_TRIALS and all(x.status == "failed" for x in known)
