"""The words that a model's text towers know, and how many of a text they do not."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import tensorflow as tf

from tfmm import text
from tfmm.classifier import Classifier
from tfmm.layers.ngram_ids import NgramIds
from tfmm.text import Removal, WordIds

CHUNK = 4_096  # texts cleaned at a time


@dataclass(frozen=True)
class Vocabulary:
    """What one tower looks up.

    Attributes:
        tower: Its name.
        modality: What it reads.
        words: The words that it knows.
        max_words: Words read of a text; None: all.
        removal: What is taken out of a text before its words are looked up.
        table: The graph's own table.
        unknown: What that says of a word that it lacks.
    """

    tower: str
    modality: str
    words: tuple[str, ...]
    max_words: int | None
    removal: Removal
    table: tf.lookup.StaticHashTable
    unknown: int

    def count(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """int64 `(n,)` twice: the words read of each text, and the unknown of them."""
        words, unknown = [], []
        for start in range(0, len(texts), CHUNK):
            part = tf.constant(list(texts[start : start + CHUNK]), tf.string)
            read = text.split_words(part, self.removal)[:, : self.max_words]
            new = tf.equal(self.table.lookup(read.values), self.unknown)
            new = tf.reduce_sum(tf.cast(read.with_values(new), tf.int64), axis=1)
            words.append(read.row_lengths().numpy())
            unknown.append(new.numpy())
        nothing = [np.zeros(0, np.int64)]
        return np.concatenate(nothing + words), np.concatenate(nothing + unknown)

    @property
    def key(self) -> tuple:
        """What it knows and reads, whichever tower has it."""
        return self.modality, self.words, self.max_words, self.removal

    def about(self) -> dict:
        """For a file; without the words."""
        return {
            "modality": self.modality,
            "words": len(self.words),
            "max_words": self.max_words,
            **asdict(self.removal),
        }


def vocabularies(model: Classifier) -> list[Vocabulary]:
    """The vocabularies inside a model, each once.

    Towers with a tokenizer of their own have none: it cuts new words into known parts.
    """
    found: dict[tuple, Vocabulary] = {}
    for name, network in model.networks.items():
        for part in network.reads.values():
            if part.image_size or model.modalities[part.modality].kind != "text":
                continue
            for vocabulary in _inside(name, part.modality, network.model):
                # A tower and another that it has become a part of know the same.
                found.setdefault(vocabulary.key, vocabulary)
    return list(found.values())


def _inside(name: str, modality: str, network) -> Iterator[Vocabulary]:
    tower = name.rpartition("/")[2]  # HEAD/TOWER in a joint network
    for layer in network._flatten_layers():
        words = tuple(getattr(layer, "vocabulary", ()))
        if isinstance(layer, WordIds):
            known = (words, layer.max_words, layer.removal, layer.table)
            yield Vocabulary(tower, modality, *known, text.UNKNOWN_ID)
        elif isinstance(layer, NgramIds):
            known = (words, None, Removal(), layer.table)
            yield Vocabulary(tower, modality, *known, text.PADDING_ID)


def cleaning() -> dict:
    """How `tfmm.text` cleans a text, for what has no TensorFlow."""
    return {
        "markup": [list(pair) for pair in text.MARKUP],
        "words": list(text.WORD_CATEGORIES),
        "symbols": list(text.SYMBOL_CATEGORIES),
        "signs": list(text.SIGN_CATEGORIES),
    }
