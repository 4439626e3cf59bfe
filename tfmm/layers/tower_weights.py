"""TowerWeights: how much each tower counts in a mean over those that are there."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class TowerWeights(keras.layers.Layer):
    """Shares of fixed weights among the towers that a product has.

    `share_t = present_t weight_t / sum_s present_s weight_s`, so that they add up to 1
    whatever is missing; all are 0 where nothing is there. A tower of weight 0 still
    speaks where it is the only one.

    Args:
        weights: floats, at least 0, one for each tower.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, towers, 1)`: 1 where a tower is present, else 0.

    Returns:
        Float tensor `(batch, towers, 1)`.

    Raises:
        ValueError: If a weight is below 0.

    Example:
    >>> layer = TowerWeights(weights=[0.2, 0.6, 0.2])
    >>> layer(ops.array([[[1.0], [1.0], [0.0]]])).numpy().round(2).tolist()
    [[[0.25], [0.75], [0.0]]]
    """

    def __init__(self, weights, **kwargs):
        super().__init__(**kwargs)
        self.shares = [float(weight) for weight in weights]
        if min(self.shares) < 0:
            raise ValueError(f"`weights` must be at least 0. Received: {self.shares}")

    def call(self, inputs):
        # Small enough to change no mean, and more than nothing for a tower alone.
        weights = ops.maximum(ops.convert_to_tensor(self.shares, inputs.dtype), 1e-9)
        counted = inputs * ops.reshape(weights, (1, -1, 1))
        total = ops.sum(counted, axis=1, keepdims=True)
        return counted / ops.maximum(total, 1e-12)

    def compute_output_shape(self, inputs_shape):
        return inputs_shape

    def get_config(self):
        return {**super().get_config(), "weights": self.shares}
