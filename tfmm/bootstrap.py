"""Intervals by the bootstrap, over groups of products that belong together."""

import numpy as np

from tfmm.blocks import over_rows

BOOTSTRAP_DRAWS = 2_000


class Draws:
    """Bootstrap draws of whole groups, the same for every model.

    Products of one group share texts: variants that are right together are one piece
    of evidence, not several. All that is summed over one `Draws` sees the same draws,
    so differences of two models are paired.

    Args:
        groups: int `(n,)`, from 0 without gaps; all different for no groups.
        seed: Of the draws.
        number: How many.
    """

    def __init__(self, groups: np.ndarray, seed: int, number: int = BOOTSTRAP_DRAWS):
        self.groups = groups
        self.num_groups = int(groups.max()) + 1
        generator = np.random.default_rng(seed)
        # How often each draw has each group: 256 times has a chance of 1 in 10^500.
        self.counts = np.empty((number, self.num_groups), np.uint8)
        for row in self.counts:
            drawn = generator.integers(self.num_groups, size=self.num_groups)
            row[:] = np.bincount(drawn, minlength=self.num_groups)
        self.sizes = self.sums(np.ones((len(groups), 1)))[:, 0]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over all products, and then over those of each draw.

        Args:
            values: `(n, v)` booleans or numbers.

        Returns:
            float `(1 + draws, v)`; exact if the values are whole numbers.
        """
        table = np.stack(
            [np.bincount(self.groups, weights=column) for column in values.T], axis=1
        )
        parts = over_rows(
            lambda rows: self.counts[rows].astype(np.float64) @ table,
            self.counts.shape,
        )
        return np.concatenate([table.sum(axis=0, keepdims=True), *parts])

    def interval(self, values: np.ndarray) -> list[float]:
        """The 95 % interval of the mean of `(n,)` values."""
        return edges(self.sums(values[:, None])[:, 0] / self.sizes)


def edges(draws: np.ndarray) -> list[float]:
    """The 95 % interval of `(1 + draws,)` values, of which the first is no draw."""
    return [float(edge) for edge in np.percentile(draws[1:], (2.5, 97.5))]


def interval(values: np.ndarray, groups: np.ndarray, seed: int) -> list[float]:
    """The 95 % bootstrap interval of a mean, drawing whole groups.

    With the differences of two models as values it is the paired interval.

    Args:
        values: `(n,)` booleans or numbers.
        groups: As of `Draws`.
        seed: Of the draws.

    Returns:
        The lower and the upper edge.

    Example:
    >>> interval(np.ones(10), np.arange(10), seed=0)
    [1.0, 1.0]
    """
    return Draws(groups, seed).interval(np.asarray(values))
