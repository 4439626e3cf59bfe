"""The population stability index, and whether chance alone would give as much."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.drift.reference import Measure

# The usual reading of the index: below the first nothing has changed, from the second
# on the population is another one.
SOME, DRIFTED = 0.1, 0.25
# How seldom chance may call a measure changed: several are looked at, window by window.
SIGNIFICANCE = 0.001
# What a bin must be expected to hold of the smaller sample for the test to be right.
FEWEST = 4.0
# More bins than this would make an index of this much by chance alone.
CHANCE = 0.05
FEWEST_BINS = 10

# No less says that nothing has changed.
FEWEST_PRODUCTS = 50

NONE, SOMEWHAT, DRIFT = "none", "some", "drifted"
TOO_FEW, NOT_MEASURED = "too few", "not measured"


def stability_index(reference: Sequence[int], live: Sequence[int]) -> float:
    """The population stability index of two samples over the same bins.

    `sum((q - p) * ln(q / p))` over the bins, `p` and `q` the shares of the two: the
    relative entropy both ways. Half a product is added to each bin, so that an empty
    one is not infinite.

    Args:
        reference: Sequence of int `(B,)`.
        live: Sequence of int `(B,)`.

    Returns:
        float, at least 0.

    Example:
    >>> round(stability_index([50, 50], [80, 20]), 2)
    0.41
    """
    total, bins = sum(reference) + len(reference) / 2, len(live)
    live_total = sum(live) + bins / 2
    return sum(
        ((q + 0.5) / live_total - (p + 0.5) / total)
        * math.log((q + 0.5) / live_total * total / (p + 0.5))
        for p, q in zip(reference, live, strict=True)
    )


def by_chance(reference: int, live: int, bins: int) -> float:
    """The index to expect of two samples of one population: `(B - 1) (1/n + 1/m)`."""
    return max(bins - 1, 1) * (1 / reference + 1 / live)


def significance(reference: Sequence[int], live: Sequence[int]) -> float:
    """How likely two samples of one population differ this much or more.

    By the likelihood ratio `G = 2 sum(count * ln(count / expected))` over the cells of
    both, which for one rare bin tells chance from change better than Pearson's sum.

    Args:
        reference: Sequence of int `(B,)`.
        live: Sequence of int `(B,)`; no bin is empty in both.

    Returns:
        float in [0, 1]; 1 with a single bin.
    """
    from scipy.special import chdtrc  # slow to import

    if len(live) < 2:
        return 1.0
    total, live_total = sum(reference), sum(live)
    ratio = 0.0
    for p, q in zip(reference, live, strict=True):
        share = (p + q) / (total + live_total)
        ratio += p * math.log(p / (share * total)) if p else 0.0
        ratio += q * math.log(q / (share * live_total)) if q else 0.0
    # Rounding may leave equal shares a little under zero.
    return float(chdtrc(len(live) - 1, max(2 * ratio, 0.0)))


@dataclass(frozen=True)
class Bin:
    """Some of a measure's bins, taken together.

    Attributes:
        first, last: int. Places of the first and the last of a number's bins, both
            included; of values the place of one, or None for the rest of them.
        reference, live: int. Products in it.
    """

    first: int | None
    last: int | None
    reference: int
    live: int


@dataclass(frozen=True)
class Comparison:
    """A measure of live products beside that of the reference.

    Attributes:
        measure: `Measure`.
        products: int. Live products that it was measured on.
        counts: tuple of int. Live products in each bin of the measure.
        bins: tuple of `Bin`. What was compared, small bins joined.
        index: float or None. The population stability index.
        chance: float or None. What it is on average if nothing has changed.
        p_value: float or None. How likely so great a difference is by chance.
        verdict: str. `none`, `some`, `drifted`, `too few` or `not measured`.
    """

    measure: Measure
    products: int
    counts: tuple[int, ...]
    bins: tuple[Bin, ...]
    index: float | None
    chance: float | None
    p_value: float | None
    verdict: str


def compare(measure: Measure, counts: Sequence[int]) -> Comparison:
    """Says whether live products differ from the reference in a measure.

    An index of 0.1 or more counts only if chance would hardly give such a
    difference; otherwise, where chance alone would often give 0.1, and below
    `FEWEST_PRODUCTS`, there are too few products to tell.

    Args:
        measure: `Measure`.
        counts: Sequence of int. Live products in each of its bins.

    Returns:
        `Comparison`.
    """
    live = sum(counts)
    if not live or not measure.products:
        nothing = (None, None, None)
        return Comparison(measure, live, tuple(counts), (), *nothing, NOT_MEASURED)
    bins = joined(measure, counts)
    before, now = [x.reference for x in bins], [x.live for x in bins]
    index = stability_index(before, now)
    chance = by_chance(measure.products, live, len(bins))
    p_value = significance(before, now)
    # Many values of which none is frequent enough to be looked at by itself.
    met = [p + q for p, q in zip(measure.counts, counts, strict=True) if p + q]
    lost = len(bins) == 1 and len(met) > 1
    verdict = NONE
    if index >= SOME:
        verdict = DRIFT if index >= DRIFTED else SOMEWHAT
        if p_value >= SIGNIFICANCE:
            verdict = TOO_FEW
    elif chance >= SOME or min(live, measure.products) < FEWEST_PRODUCTS or lost:
        verdict = TOO_FEW
    found = (index, chance, p_value, verdict)
    return Comparison(measure, live, tuple(counts), tuple(bins), *found)


def joined(measure: Measure, counts: Sequence[int]) -> list[Bin]:
    """A measure's bins, so that each holds enough products to be compared.

    Neighbours of a number are joined. Of values the most frequent stay, fewer of them
    where there are few products, and the others become one.
    """
    smaller = min(measure.products, sum(counts))
    pooled = measure.products + sum(counts)
    pairs = list(zip(measure.counts, counts, strict=True))

    def is_small(together: int) -> bool:
        return together * smaller / pooled < FEWEST

    if measure.values:
        return _frequent(pairs, is_small, measure.products, sum(counts))
    bins: list[Bin] = []
    first, before, now = 0, 0, 0
    for place, (p, q) in enumerate(pairs):
        before, now = before + p, now + q
        if not is_small(before + now):
            bins.append(Bin(first, place, before, now))
            first, before, now = place + 1, 0, 0
    if before + now or not bins:
        # What is left over at the end goes to the last.
        last = bins.pop() if bins else Bin(first, first, 0, 0)
        before, now = last.reference + before, last.live + now
        bins.append(Bin(last.first, len(pairs) - 1, before, now))
    return bins


def _frequent(
    pairs: list[tuple[int, int]],
    is_small: Callable[[int], bool],
    total: int,
    live: int,
) -> list[Bin]:
    most = max(FEWEST_BINS, int(CHANCE / (1 / total + 1 / live)))
    pooled = [p + q for p, q in pairs]
    order = sorted(range(len(pairs)), key=lambda place: -pooled[place])
    kept = [x for x in order[:most] if not is_small(pooled[x])]
    others = [x for x in order if x not in set(kept) and pooled[x]]
    bins = [Bin(x, x, *pairs[x]) for x in kept]
    if others:
        place = others[0] if len(others) == 1 else None
        rest = (sum(pairs[x][side] for x in others) for side in (0, 1))
        bins.append(Bin(place, place, *rest))
    return bins
