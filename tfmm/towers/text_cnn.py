"""text_cnn: convolutions over the words of a text."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from keras import ops

from tfmm import text, vectors
from tfmm.layers.max_over_time import MaxOverTime
from tfmm.progress import say
from tfmm.settings import TextCnn
from tfmm.towers.output import finish

EMBEDDING_RANGE = 0.25  # Kim's: random vectors about as spread as pretrained ones


def text_cnn(
    settings: TextCnn, num_classes: int, training_texts: Sequence[str]
) -> keras.Model:
    """Builds Kim's text CNN, from raw texts to logits.

    Words, less what `remove` takes out, become vectors, filters of each width in
    `kernel_sizes` slide over them, each filter keeps its greatest value. Those
    values, or a hidden layer over them, are the `features`; after dropout a dense
    layer gives the logits. How far texts are padded changes nothing. A text of which
    no word stays gets the answer of an empty one.

    Vectors are drawn at random, or taken from the file that `embedding` names; then
    words that it does not have are drawn as far spread as those that it has (Kim),
    and how many it has is printed (paper C). `embedding_trainable = false` freezes
    both kinds.

    Paper A is the default. Paper C: `kernel_sizes = [5]`, `filters = 200`,
    `hidden_units = 170`, vectors of a file, 57 words for titles and 300 for
    descriptions, and in `remove` all four, but no stop words for titles.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Raw texts that the vocabulary is taken from.

    Returns:
        Model: string `(batch,)` -> `{"features": (batch, d), "logits": (batch, C)}`,
        `d` the number of filters or `hidden_units`.

    Raises:
        ExperimentError: If the stop words or the word vectors cannot be had.

    Reference:
    - [Kim, 2014](https://arxiv.org/abs/1408.5882)
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534), section 4
    - Wirojwatanakul and Wangperawong 2019, "Multi-Label Product Categorization"
    """
    removes = removal(settings)
    vocabulary = text.build_vocabulary(
        training_texts, settings.vocabulary_size, settings.min_word_count, removes
    )
    words = text.WordIds(vocabulary, settings.max_words, removes, name="word_ids")
    inputs = keras.Input(shape=(), dtype="string", name=settings.modality)
    ids = words(inputs)
    embedded = _embedding(settings, vocabulary)(ids)
    is_word = ops.cast(ops.not_equal(ids, text.PADDING_ID), embedded.dtype)
    embedded = embedded * ops.expand_dims(is_word, -1)
    strongest = []
    for size in settings.kernel_sizes:
        windows = keras.layers.Conv1D(
            settings.filters, size, activation="relu", name=f"convolution_{size}"
        )(embedded)
        strongest.append(MaxOverTime(size, name=f"max_over_time_{size}")(windows, ids))
    features = ops.concatenate(strongest, axis=-1)
    if settings.hidden_units:
        features = keras.layers.Dense(
            settings.hidden_units, settings.hidden_activation, name="hidden"
        )(features)
    return finish(settings, inputs, features, num_classes)


def removal(settings: TextCnn) -> text.Removal:
    """What a tower with these settings takes out of its texts.

    Raises:
        ExperimentError: If the stop words cannot be had.
    """
    remove = settings.remove
    return text.Removal(
        punctuation="punctuation" in remove,
        digits="digits" in remove,
        max_word_characters=(
            settings.max_word_characters if "long_words" in remove else 0
        ),
        stop_words=(
            text.stop_words(settings.stop_words) if "stop_words" in remove else ()
        ),
    )


def _embedding(settings: TextCnn, vocabulary: Sequence[str]) -> keras.layers.Layer:
    """The layer that turns word ids into vectors."""
    num_ids, dim = len(vocabulary) + text.FIRST_WORD_ID, settings.embedding_dim
    spread, found = EMBEDDING_RANGE, None
    if settings.embedding != "random":
        found = vectors.read(Path(settings.embedding), vocabulary, dim)
        say(
            f"{settings.modality}: word vectors cover {found.covered.mean():.1%} of "
            f"{len(vocabulary):,} words"
        )
        # The uniform distribution in +-a has a deviation of a / sqrt(3).
        spread = float(np.sqrt(3.0) * found.values[found.covered].std())
    layer = keras.layers.Embedding(
        num_ids,
        dim,
        embeddings_initializer=keras.initializers.RandomUniform(-spread, spread),
        trainable=settings.embedding_trainable,
        name="embedding",
    )
    layer.build()
    if found is not None:
        values = layer.embeddings.numpy()
        values[text.FIRST_WORD_ID :][found.covered] = found.values[found.covered]
        layer.embeddings.assign(values)
    return layer
