"""TreeEnsemble: LightGBM's trees in plain TensorFlow operations."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmm.trees import ZERO, read_trees

SOURCE_FILE = "lightgbm.txt"


@keras.saving.register_keras_serializable(package="tfmm")
class TreeEnsemble(keras.layers.Layer):
    """Sums what the leaves of boosted trees say, as LightGBM's raw scores.

    LightGBM walks each row down each tree. Here all rows and all trees are asked their
    first split at once, then their second, and so on; `tfmm.trees.Trees` says how the
    answers add up to a leaf. This costs as many steps as the largest tree has splits,
    each without jumps through memory.

    `TreeEnsemble.of_lightgbm(text)` makes one with its weights set. The config holds
    the sizes alone; the trees are weights, which training leaves as they are. A saved
    model also keeps the text, from which LightGBM can explain its scores.

    Leaves are summed in float64 and the sums rounded to float32, whatever the dtype
    policy. NaN, infinities and numbers within 1e-35 of zero go where LightGBM sends
    them.

    Args:
        num_features: int. Values in a row.
        num_columns: int. Different ways in which splits read them.
        num_splits: int. Of the largest tree; 1 to 62.
        num_trees: int. A multiple of `num_classes`.
        num_classes: int. Scores of a row.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(..., num_features)`.
        where: bool tensor `(...)`: the rows to score; all of them if absent.

    Attributes:
        source: What `lightgbm.Booster.model_to_string` returned; `""` if the layer was
            made otherwise, or saved before the text was kept.

    Returns:
        float32 tensor `(..., num_classes)`, zeros for rows that are not scored.

    Raises:
        ValueError: If a size is out of bounds, or rows do not have `num_features`.

    Example:
    >>> layer = TreeEnsemble(
    ...     num_features=2, num_columns=1, num_splits=1, num_trees=1, num_classes=1
    ... )
    >>> tuple(layer(tf.zeros((3, 2))).shape)
    (3, 1)

    Reference:
    - Lucchese et al. 2015, "QuickScorer", section 3.
    """

    def __init__(
        self,
        num_features: int,
        num_columns: int,
        num_splits: int,
        num_trees: int,
        num_classes: int,
        **kwargs,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        sizes = (num_features, num_columns, num_splits, num_trees, num_classes)
        if min(sizes) < 1 or num_splits > 62 or num_trees % num_classes:
            raise ValueError(
                "Sizes of at least 1, `num_splits` of at most 62 and `num_trees` that "
                "is a multiple of `num_classes` were expected. "
                f"Received: num_features={num_features}, num_columns={num_columns}, "
                f"num_splits={num_splits}, num_trees={num_trees}, "
                f"num_classes={num_classes}"
            )
        self.num_features = num_features
        self.num_columns = num_columns
        self.num_splits = num_splits
        self.num_trees = num_trees
        self.num_classes = num_classes
        self.source = ""

    @classmethod
    def of_lightgbm(cls, text: str, **kwargs) -> "TreeEnsemble":
        """A built layer with the trees of what `model_to_string` returned."""
        trees = read_trees(text)
        num_splits, num_trees = trees.columns.shape
        layer = cls(
            num_features=trees.num_features,
            num_columns=len(trees.features),
            num_splits=num_splits,
            num_trees=num_trees,
            num_classes=trees.num_classes,
            **kwargs,
        )
        layer.build((None, trees.num_features))
        for name, _, dtype in layer._arrays():
            getattr(layer, name).assign(getattr(trees, name).astype(dtype))
        layer.source = text
        return layer

    def _arrays(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, as in `Trees`, shape and dtype of each weight."""
        kinds, splits = (self.num_columns,), (self.num_splits, self.num_trees)
        # Half the memory to move, where the leaves fit.
        bits = "int32" if self.num_splits < 31 else "int64"
        return [
            ("features", kinds, "int32"),
            ("ceilings", kinds, "float32"),
            ("at_zero", kinds, "float32"),
            ("at_nan", kinds, "float32"),
            ("columns", splits, "int32"),
            ("thresholds", splits, "float32"),
            ("leaves_left", splits, bits),
            ("values", (self.num_trees, self.num_splits + 1), "float64"),
        ]

    def build(self, inputs_shape, where_shape=None):
        if inputs_shape[-1] != self.num_features:
            raise ValueError(
                f"Rows of {self.num_features} features were expected. "
                f"Received: {inputs_shape}"
            )
        for name, shape, dtype in self._arrays():
            weight = self.add_weight(
                shape=shape,
                dtype=dtype,
                initializer="zeros",
                trainable=False,
                autocast=False,
                name=name,
            )
            setattr(self, name, weight)

    def save_assets(self, dir_path):
        (Path(dir_path) / SOURCE_FILE).write_text(self.source, encoding="utf-8")

    def load_assets(self, dir_path):
        self.source = (Path(dir_path) / SOURCE_FILE).read_text(encoding="utf-8")

    def call(self, inputs, where=None):
        if where is not None:
            places = tf.where(where)
            scores = self._scores(tf.gather_nd(inputs, places))
            shape = tf.concat(
                [tf.shape(inputs, tf.int64)[:-1], [self.num_classes]], axis=0
            )
            scores = tf.scatter_nd(places, scores, shape)
        else:
            rows = tf.reshape(inputs, (-1, self.num_features))
            scores = self._scores(rows)
            shape = tf.concat([tf.shape(inputs)[:-1], [self.num_classes]], axis=0)
            scores = tf.reshape(scores, shape)
        return tf.ensure_shape(scores, (*inputs.shape[:-1], self.num_classes))

    def _scores(self, rows):
        """float32 `(n, num_classes)` of `(n, num_features)`."""
        found = tf.gather(rows, self.features.value, axis=1)
        cut = tf.minimum(found, self.ceilings.value)
        cut = tf.where(tf.abs(found) <= ZERO, self.at_zero.value, cut)
        cut = tf.where(tf.math.is_nan(found), self.at_nan.value, cut)
        columns = tf.transpose(cut)

        def ask(split, left):
            """Takes what one split rules out from the leaves left, `(trees, n)`."""
            asked = tf.gather(columns, self.columns.value[split])
            yes = asked > self.thresholds.value[split][:, tf.newaxis]
            stay = self.leaves_left.value[split][:, tf.newaxis]
            return split + 1, tf.bitwise.bitwise_and(left, tf.where(yes, stay, -1))

        left = tf.fill([self.num_trees, tf.shape(rows)[0]], np.int64(-1))
        left = tf.cast(left, self.leaves_left.dtype)
        # A loop, so that only one split's answers are in memory.
        _, left = tf.while_loop(
            lambda split, _: split < self.num_splits,
            ask,
            (0, left),
            parallel_iterations=1,
        )
        first = tf.bitwise.bitwise_and(left, -left)
        leaf = tf.cast(tf.raw_ops.PopulationCount(x=first - 1), tf.int32)
        start = tf.range(self.num_trees)[:, tf.newaxis] * (self.num_splits + 1)
        said = tf.gather(tf.reshape(self.values.value, [-1]), leaf + start)
        said = tf.reshape(said, (-1, self.num_classes, tf.shape(rows)[0]))
        return tf.cast(tf.transpose(tf.reduce_sum(said, axis=0)), tf.float32)

    def compute_output_shape(self, inputs_shape, where_shape=None):
        return (*inputs_shape[:-1], self.num_classes)

    def compute_output_spec(self, inputs, where=None):
        return keras.KerasTensor(
            (*inputs.shape[:-1], self.num_classes), dtype="float32"
        )

    def get_config(self):
        return {
            **super().get_config(),
            "num_features": self.num_features,
            "num_columns": self.num_columns,
            "num_splits": self.num_splits,
            "num_trees": self.num_trees,
            "num_classes": self.num_classes,
        }
