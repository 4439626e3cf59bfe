"""Live products, counted into the bins of the reference's measures."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from serving.drift.reference import Measure, Reference
from serving.drift.request_log import Product


class Tally:
    """What some live products are like; holds counts alone, whatever their number.

    Args:
        reference: `Reference` whose measures are counted.

    Attributes:
        requests: int.
        products: int.
        counts: dict from a measure's key to a list of int, one for each bin.
        sums: dict from a measure's key to the sum of its numbers.
        words, unknown: Counter from a measure's key to words.
    """

    def __init__(self, reference: Reference) -> None:
        self.requests = 0
        self.products = 0
        self.counts = {k: [0] * len(m.counts) for k, m in reference.measures.items()}
        self.sums = dict.fromkeys(reference.measures, 0.0)
        self.words: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self._reference = reference
        self._places = {
            key: {value: place for place, value in enumerate(measure.values)}
            for key, measure in reference.measures.items()
        }

    def add(self, products: Sequence[Product]) -> None:
        """Counts the products of a request."""
        self.requests += 1
        self.products += len(products)
        for product in products:
            for key, measure in self._reference.measures.items():
                value = self._value(key, measure, product)
                if isinstance(value, str):
                    self.counts[key][self._places[key][value]] += 1
                elif value is not None:
                    self.counts[key][bisect_left(measure.edges, value)] += 1
                    self.sums[key] += value

    def mean(self, key: str) -> float | None:
        """The mean of a measure of numbers; None without any."""
        counted = sum(self.counts[key])
        return self.sums[key] / counted if counted else None

    def unknown_share(self, key: str) -> float | None:
        """The share of all words that a vocabulary lacks; None without words."""
        return self.unknown[key] / self.words[key] if self.words[key] else None

    def _value(
        self, key: str, measure: Measure, product: Product
    ) -> str | float | int | None:
        """A product's value of a measure; None if it has none or the log not its."""
        if measure.name == "label":
            return product.label
        if measure.name == "score":
            return product.score
        if measure.name == "assigned":
            return "assigned" if product.assigned else "not assigned"
        assert measure.modality is not None
        given = product.inputs[measure.modality]
        if measure.name == "present":
            return "present" if given.present else "missing"
        if not given.present:
            return None
        if measure.name == "characters":
            return given.characters
        if measure.name == "bytes":
            return given.bytes
        if measure.name == "status":
            return product.image_status[self._reference.images.index(measure.modality)]
        return self._unknown_words(key, measure, given.text)

    def _unknown_words(
        self, key: str, measure: Measure, text: str | None
    ) -> float | None:
        if text is None or measure.vocabulary is None:
            return None
        vocabulary = self._reference.vocabularies[measure.vocabulary]
        words, unknown = vocabulary.count(text, self._reference.cleaning)
        self.words[key] += words
        self.unknown[key] += unknown
        return unknown / words if words else None
