"""EmbeddingBag: the mean of the vectors of a text's rows."""

import keras
import tensorflow as tf

ROWS_AT_ONCE = 16_384


@keras.saving.register_keras_serializable(package="tfmm")
class EmbeddingBag(keras.layers.Layer):
    """Means of table rows, whose cost does not grow with the table.

    `output = mean over the ids of a text of table[id]`, zeros without ids. Ids of 0
    are padding and count for nothing. Rows start uniform in (-1/dim, 1/dim), as
    fastText's.

    Only the rows in use are read, each once, and the gradient is a
    `tf.IndexedSlices` that names each of them once. `keras.layers.Embedding` would
    read the whole table: TensorFlow copies a variable that is updated by rows
    whenever it is read as a whole.

    Always float32, whatever the dtype policy: bfloat16 would copy the table, too.

    Args:
        num_rows: int. Rows of the table, that of padding included; at least 1.
        dim: int. Size of a vector; at least 1.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        ids: int tensor `(batch, longest)`, each in [0, num_rows).

    Returns:
        float32 tensor `(batch, dim)`.

    Raises:
        ValueError: If `num_rows` or `dim` is below 1, or `ids` is not of rank 2.

    Example:
    >>> layer = EmbeddingBag(num_rows=3, dim=1)
    >>> layer.build((None, None))
    >>> rows = layer.embeddings.assign([[9.0], [1.0], [4.0]])
    >>> layer(tf.constant([[1, 2, 0], [2, 0, 0]])).numpy().tolist()
    [[2.5], [4.0]]
    """

    def __init__(self, num_rows: int, dim: int, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        if num_rows < 1 or dim < 1:
            raise ValueError(
                "`num_rows` and `dim` must be at least 1. "
                f"Received: num_rows={num_rows}, dim={dim}"
            )
        self.num_rows = num_rows
        self.dim = dim

    def build(self, ids_shape):
        if len(ids_shape) != 2:
            raise ValueError(f"`ids` must be of rank 2. Received: {ids_shape}")
        self.embeddings = self.add_weight(
            shape=(self.num_rows, self.dim),
            initializer="zeros",
            autocast=False,  # a cast, in a caller's scope, reads the whole table
            name="embeddings",
        )
        # In parts: a draw of the whole would take twice the table's memory again.
        for start in range(0, self.num_rows, ROWS_AT_ONCE):
            rows = tf.range(start, min(start + ROWS_AT_ONCE, self.num_rows))
            values = keras.random.uniform(
                (len(rows), self.dim), -1.0 / self.dim, 1.0 / self.dim
            )
            self.embeddings.value.scatter_update(tf.IndexedSlices(values, rows))

    def call(self, ids):
        in_use = tf.where(ids != 0)
        # With counts, because TensorFlow's optimiser of graphs takes `tf.unique` and
        # what follows for one lookup, and turns it into a read of the whole table.
        rows, position, _ = tf.unique_with_counts(tf.gather_nd(ids, in_use))
        vectors = tf.gather(self.embeddings.value, rows)
        means = tf.sparse.segment_mean(
            vectors, position, in_use[:, 0], num_segments=tf.shape(ids)[0]
        )
        return tf.ensure_shape(means, (None, self.dim))

    def compute_output_shape(self, ids_shape):
        return (ids_shape[0], self.dim)

    def compute_output_spec(self, ids):
        return keras.KerasTensor((ids.shape[0], self.dim), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "num_rows": self.num_rows, "dim": self.dim}
