"""fasttext: the mean over a text's words and n-grams, and one dense layer."""

import sys
from collections.abc import Sequence

import keras
from keras import ops

from tfmm import text
from tfmm.layers.embedding_bag import EmbeddingBag
from tfmm.layers.ngram_ids import NgramIds
from tfmm.settings import FastText
from tfmm.towers.output import finish


def fasttext(
    settings: FastText, num_classes: int, training_texts: Sequence[str]
) -> keras.Model:
    """Builds fastText's classifier, from raw texts to logits.

    A text is the rows of its words, of its n-grams and of its end (see `NgramIds`);
    the mean of their vectors is `features`, one dense layer on it gives the logits.
    That layer starts at zero, as fastText's.

    It is made of two layers, so that training can look the rows of all texts up once:
    `prepare`, string `(batch,)` -> int32 `(batch, longest)`, and `network`, a model
    from those ids to the outputs. `tfmm.prepared` makes the ids that `network` is
    trained on.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Raw texts that the vocabulary is taken from.

    Returns:
        Model: string `(batch,)` -> `{"features": (batch, embedding_dim), "logits":
        (batch, C)}`.

    Reference:
    - [Joulin et al., 2016](https://arxiv.org/abs/1607.01759)
    - Åberg 2018, the text tower
    """
    vocabulary = text.build_vocabulary(
        training_texts, sys.maxsize, settings.min_word_count
    )
    hashes = settings.word_ngrams > 1 or settings.max_character_ngram > 0
    prepare = NgramIds(
        vocabulary,
        settings.buckets if hashes else 0,
        settings.word_ngrams,
        settings.min_character_ngram,
        settings.max_character_ngram,
        name="prepare",
    )
    ids = keras.Input(shape=(None,), dtype="int32", name=settings.modality)
    bag = EmbeddingBag(prepare.num_rows, settings.embedding_dim, name="embedding")
    outputs = finish(settings, ids, bag(ids), num_classes).output
    network = keras.Model(ids, outputs, name="network")
    kernel = network.get_layer("logits").kernel
    kernel.assign(ops.zeros_like(kernel))
    inputs = keras.Input(shape=(), dtype="string", name=settings.modality)
    return keras.Model({settings.modality: inputs}, network(prepare(inputs)))
