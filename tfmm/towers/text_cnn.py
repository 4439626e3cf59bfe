"""text_cnn: convolutions over the words of a text."""

from collections.abc import Sequence

import keras
from keras import ops

from tfmm import text
from tfmm.layers.max_over_time import MaxOverTime
from tfmm.settings import TextCnn

EMBEDDING_RANGE = 0.25  # Kim's: random vectors about as spread as pretrained ones


def text_cnn(
    settings: TextCnn, num_classes: int, training_texts: Sequence[str]
) -> keras.Model:
    """Builds Kim's text CNN, from raw texts to logits.

    Words become vectors, filters of each width in `kernel_sizes` slide over them,
    each filter keeps its greatest value. Those values, or a hidden layer over them,
    are the `features`; after dropout a dense layer gives the logits. How far texts
    are padded changes nothing.

    Paper A is the default. Paper C: `kernel_sizes = [5]`, `filters = 200`,
    `hidden_units = 170`, 57 words for titles and 300 for descriptions.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Raw texts that the vocabulary is taken from.

    Returns:
        Model: string `(batch,)` -> `{"features": (batch, d), "logits": (batch, C)}`,
        `d` the number of filters or `hidden_units`.

    Reference:
    - [Kim, 2014](https://arxiv.org/abs/1408.5882)
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534), section 4
    - Wirojwatanakul and Wangperawong 2019, "Multi-Label Product Categorization"
    """
    vocabulary = text.build_vocabulary(
        training_texts, settings.vocabulary_size, settings.min_word_count
    )
    words = text.WordIds(vocabulary, settings.max_words, name="word_ids")
    inputs = keras.Input(shape=(), dtype="string", name=settings.modality)
    ids = words(inputs)
    vectors = keras.layers.Embedding(
        words.num_ids,
        settings.embedding_dim,
        embeddings_initializer=keras.initializers.RandomUniform(
            -EMBEDDING_RANGE, EMBEDDING_RANGE
        ),
        name="embedding",
    )(ids)
    is_word = ops.cast(ops.not_equal(ids, text.PADDING_ID), vectors.dtype)
    vectors = vectors * ops.expand_dims(is_word, -1)
    strongest = []
    for size in settings.kernel_sizes:
        windows = keras.layers.Conv1D(
            settings.filters, size, activation="relu", name=f"convolution_{size}"
        )(vectors)
        strongest.append(MaxOverTime(size, name=f"max_over_time_{size}")(windows, ids))
    features = ops.concatenate(strongest, axis=-1)
    if settings.hidden_units:
        features = keras.layers.Dense(
            settings.hidden_units, settings.hidden_activation, name="hidden"
        )(features)
    features = keras.layers.Identity(dtype="float32", name="features")(features)
    dropped = keras.layers.Dropout(settings.dropout)(features)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(dropped)
    return keras.Model(
        {settings.modality: inputs}, {"features": features, "logits": logits}
    )
