"""table: a small network over the cells of a table."""

from collections.abc import Sequence

import keras
from keras import ops

from tfmm.layers.category_ids import CategoryIds
from tfmm.layers.cell_numbers import CellNumbers, mean_and_deviation
from tfmm.settings import TableTower
from tfmm.towers.output import finish


def table(
    settings: TableTower, num_classes: int, training_texts: Sequence[str]
) -> keras.Model:
    """Builds a network over numbers and categories, from raw rows to logits.

    Numbers are scaled by the training products' mean and deviation; categories are
    hashed and become vectors; both, joined, go through the hidden layers, whose last
    is the `features`. A missing cell is an input like any other.

    With `n` numbers, `m` categories and one hidden layer of `h` units there are
    `(m + buckets) * embedding_dim + (2 * n + m * embedding_dim + 1) * h + (h + 1) * C`
    parameters.

    Args:
        settings: `[towers.NAME]` of an experiment, which tells the tower where the
            modality has its columns.
        num_classes: `C`.
        training_texts: Rows that mean and deviation are taken from.

    Returns:
        Model: string `(batch,)`, rows as `tfmm.catalog` joins them ->
        `{"features": (batch, hidden_units[-1]), "logits": (batch, C)}`.

    Reference:
    - Wirojwatanakul and Wangperawong 2019, "Multi-Label Product Categorization": any
        number of inputs.
    """
    inputs = keras.Input(shape=(), dtype="string", name=settings.modality)
    parts = []
    if settings.numbers:
        positions, log = settings.positions(settings.numbers), settings.log_numbers
        means, deviations = mean_and_deviation(training_texts, positions, log)
        numbers = CellNumbers(positions, means, deviations, log, name="numbers")
        parts.append(numbers(inputs))
    if settings.categories:
        positions = settings.positions(settings.categories)
        categories = CategoryIds(
            positions, settings.categories, settings.buckets, name="category_ids"
        )
        vectors = keras.layers.Embedding(
            categories.num_ids, settings.embedding_dim, name="embedding"
        )(categories(inputs))
        size = len(positions) * settings.embedding_dim
        parts.append(ops.reshape(vectors, (-1, size)))
    features = ops.concatenate(parts, axis=-1)
    for number, units in enumerate(settings.hidden_units, start=1):
        features = keras.layers.Dense(
            units, activation="relu", name=f"hidden_{number}"
        )(features)
    return finish(settings, inputs, features, num_classes)
