"""What a comparison found, in words."""

from serving.drift.reference import Measure, Reference
from serving.drift.stability import Bin, Comparison
from serving.drift.tally import Tally

NUM_VALUES = 3  # labels or statuses that a sentence names at most
PLACES = {
    "catalog": "in the catalog",
    "test": "in the test split",
    "texts": "in the test split",
}


def readable(key: str) -> str:
    """A measure's key for people: `image present`, `title unknown words`."""
    return key.replace(".", " ").replace("_", " ")


def sentence(found: Comparison, live: Tally, reference: Reference) -> str:
    """One line that says what is different, live products first.

    Args:
        found: `Comparison` that was made of enough products to be compared.
        live: `Tally` it was made from.
        reference: `Reference` it was compared with.
    """
    measure, there = found.measure, PLACES[found.measure.of]
    if measure.name == "present":
        place = measure.values.index("missing")
        now = found.counts[place] / found.products
        before = measure.counts[place] / measure.products
        return (
            f"{measure.modality} is missing in {percent(now)} of the products, "
            f"{percent(before)} {there}"
        )
    if measure.name == "assigned":
        place = measure.values.index("assigned")
        now = found.counts[place] / found.products
        before = measure.counts[place] / measure.products
        return (
            f"the first suggestion is assigned to {percent(now)} of the products, to "
            f"{percent(before)} {there}"
        )
    if measure.name == "unknown_words":
        return (
            f"{percent(live.unknown_share(measure.key))} of the words of "
            f"{measure.modality} are unknown to {measure.vocabulary}, "
            f"{percent(measure.share)} {there}"
        )
    if measure.name in ("label", "status"):
        what = "first suggestions"
        if measure.name == "status":
            what = f"{measure.modality}, where there is one"
        parts = [
            f"{_value(measure, x)} {percent(x.live / found.products)}, "
            f"{percent(x.reference / measure.products)} {there}"
            for x in _greatest(found)[:NUM_VALUES]
        ]
        return f"{what}: {'; '.join(parts)}"
    [most, *_] = _greatest(found)
    units = {"characters": "characters long", "bytes": "bytes large"}
    what = f"{measure.modality} is" if measure.modality else "the first score is"
    unit = f" {units[measure.name]}" if measure.modality else ""
    return (
        f"{what} {number(live.mean(measure.key))}{unit} on average, "
        f"{number(measure.mean)} {there}; {percent(most.live / found.products)} "
        f"{_span(measure, most)}, {percent(most.reference / measure.products)} {there}"
    )


def percent(share: float | None) -> str:
    """A share for people: `41 %`, `0.3 %`, `99.8 %`.

    Example:
    >>> percent(0.4123), percent(0.0031), percent(0.9984), percent(1.0)
    ('41 %', '0.3 %', '99.8 %', '100 %')
    """
    if share is None:
        return "none"
    near = 0 < share < 0.095 or 0.905 < share < 1
    return f"{share * 100:.{1 if near else 0}f} %"


def number(value: float | None) -> str:
    """A number for people, to three or four digits."""
    if value is None:
        return "none"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _greatest(found: Comparison) -> list[Bin]:
    """The bins whose shares differ most first; those that are alike left out."""
    total, live = found.measure.products, found.products

    def change(part: Bin) -> float:
        return abs(part.live / live - part.reference / total)

    ranked = sorted(found.bins, key=change, reverse=True)
    return [x for x in ranked if change(x) > 0] or ranked[:1]


def _value(measure: Measure, part: Bin) -> str:
    return "others" if part.first is None else measure.values[part.first]


def _span(measure: Measure, part: Bin) -> str:
    assert part.first is not None
    assert part.last is not None
    low = measure.edges[part.first - 1] if part.first else None
    high = measure.edges[part.last] if part.last < len(measure.edges) else None
    if low is None:
        return "are of any size" if high is None else f"at most {number(high)}"
    if high is None:
        return f"over {number(low)}"
    return f"over {number(low)} to {number(high)}"
