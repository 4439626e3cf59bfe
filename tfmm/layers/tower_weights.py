"""TowerWeights: how much each tower counts in a mean over those that are there."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class TowerWeights(keras.layers.Layer):
    """Shares of given weights among the towers that a product has.

    `share_t = present_t weight_t / sum_s present_s weight_s`, so that they add up to 1
    whatever is missing; all are 0 where nothing is there. A tower of weight 0 still
    speaks where it is the only one.

    The weights are variables that are not trained, equal until they are set: what a
    model was fitted to is then in its weights, by which the store tells models apart.

    Args:
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, towers, 1)`: 1 where a tower is present, else 0.

    Returns:
        Float tensor `(batch, towers, 1)`.

    Example:
    >>> layer = TowerWeights()
    >>> layer.build((None, 3, 1))
    >>> layer.set_weights([ops.array([0.2, 0.6, 0.2])])
    >>> layer(ops.array([[[1.0], [1.0], [0.0]]])).numpy().round(2).tolist()
    [[[0.25], [0.75], [0.0]]]
    """

    def build(self, inputs_shape):
        self.shares = self.add_weight(
            shape=(inputs_shape[1],), initializer="ones", trainable=False, name="shares"
        )

    def call(self, inputs):
        # Small enough to change no mean, and more than nothing for a tower alone.
        weights = ops.maximum(ops.cast(self.shares, inputs.dtype), 1e-9)
        counted = inputs * ops.reshape(weights, (1, -1, 1))
        total = ops.sum(counted, axis=1, keepdims=True)
        return counted / ops.maximum(total, 1e-12)

    def compute_output_shape(self, inputs_shape):
        return inputs_shape
