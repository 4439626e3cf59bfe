"""CategoryIds: the categories of a table's rows as rows of an embedding."""

import keras
import tensorflow as tf

from tfmm import cells, text


@keras.saving.register_keras_serializable(package="tfmm")
class CategoryIds(keras.layers.Layer):
    """Hashes the categories of a row: no list of them, so new ones work too.

    A cell is cleaned by `tfmm.text.clean` and hashed together with its column's
    name: `red` of `colour` and `red` of `brand` are two categories. Different
    categories share an id if their hashes do. The first `m` ids, one for each
    column, stand for its empty cell: what is not known of a product says something.

    Args:
        positions: Places of the `m` cells in a row, from 0.
        names: The `m` columns' names.
        buckets: int. Ids that categories are hashed to; at least 1.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor `(batch,)`, rows of a table.

    Returns:
        int32 tensor `(batch, m)`, below `num_ids`.

    Raises:
        ValueError: If there is no position, the names are more or fewer, or `buckets`
            is below 1.

    Example:
    >>> layer = CategoryIds([0, 2], ["brand", "colour"], buckets=100)
    >>> layer(tf.constant(["IKEA\\t1\\t", "Ikea \\t2\\t-"])).numpy().tolist()
    [[100, 1], [100, 1]]

    Reference:
    - [Weinberger et al., 2009](https://arxiv.org/abs/0902.2206)
    """

    def __init__(self, positions, names, buckets, **kwargs):
        super().__init__(**kwargs)
        self.positions = [int(x) for x in positions]
        self.names = list(names)
        self.buckets = buckets
        lengths = [len(self.positions), len(self.names)]
        if not self.positions or len(set(lengths)) != 1:
            raise ValueError(
                "`positions` and `names` must have one length, at least 1. "
                f"Received: {lengths}"
            )
        if buckets < 1:
            raise ValueError(f"`buckets` must be at least 1. Received: {buckets}")

    @property
    def num_ids(self) -> int:
        """How many ids there are, those of empty cells included."""
        return len(self.positions) + self.buckets

    def call(self, inputs):
        found = cells.split(inputs, max(self.positions) + 1)
        found = text.clean(tf.gather(found, self.positions, axis=1))
        columns = []
        for column, name in enumerate(self.names):
            category = found[:, column]
            named = tf.strings.join([name, category], separator="\t")
            bucket = tf.strings.to_hash_bucket_fast(named, self.buckets)
            bucket = tf.cast(bucket, tf.int32) + len(self.names)
            columns.append(tf.where(tf.equal(category, ""), column, bucket))
        return tf.stack(columns, axis=1)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((*inputs.shape, len(self.positions)), dtype="int32")

    def get_config(self):
        return {
            **super().get_config(),
            "positions": self.positions,
            "names": self.names,
            "buckets": self.buckets,
        }
