"""When the learning rate changes, and when training stops."""

import math
from dataclasses import dataclass

from tfmm.settings import Optimization

MIN_IMPROVEMENT = 1e-5  # Algorithm 1 of paper B


@dataclass
class Schedule:
    """Algorithm 1 of paper B: when to halve the rate, when to stop.

    An epoch is better if its figure beats the best so far by `MIN_IMPROVEMENT`.
    After `patience` epochs in a row that are not better the rate is halved, at most
    `max_halvings` times; after that many again, training stops. An improvement sets
    the count back to zero (ours: the text's reading; the printed pseudo-code never
    does). With a patience of 0 it neither halves nor stops.

    Args:
        patience: Epochs.
        max_halvings: Times.

    Reference:
    - Åberg 2018, Algorithm 1.
    """

    patience: int
    max_halvings: int
    best: float = -math.inf
    best_epoch: int = 0
    stale: int = 0
    halvings: int = 0
    stopped: bool = False

    def after(self, epoch: int, figure: float) -> bool:
        """Takes an epoch's validation figure (more is better); True to halve now."""
        if figure > self.best + MIN_IMPROVEMENT:
            self.best, self.best_epoch, self.stale = figure, epoch, 0
            return False
        self.stale += 1
        if not self.patience or self.stale < self.patience:
            return False
        self.stale = 0
        if self.halvings == self.max_halvings:
            self.stopped = True
            return False
        self.halvings += 1
        return True


def rate_factor(
    optimization: Optimization, step: int, steps_per_epoch: int, halvings: int
) -> float:
    """What the learning rate is multiplied by at a step of a stage.

    It grows in equal steps up to 1 over `warmup_epochs`. After that, `plateau` leaves
    it, but for halvings; `linear` and `cosine` lower it to 0 at the end of
    `max_epochs`.

    Args:
        optimization: Of the stage.
        step: Updates made in the stage before this one.
        steps_per_epoch: Updates an epoch.
        halvings: How often the rate was halved (`plateau`).

    Example:
    >>> halfway = Optimization(schedule="cosine", max_epochs=2)
    >>> rate_factor(halfway, step=10, steps_per_epoch=10, halvings=0)
    0.5
    """
    warmup = round(optimization.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup * 0.5**halvings
    if optimization.schedule == "plateau":
        return 0.5**halvings
    rest = optimization.max_epochs * steps_per_epoch - warmup
    done = (step - warmup) / rest
    if optimization.schedule == "linear":
        return 1.0 - done
    return 0.5 + 0.5 * math.cos(math.pi * done)
