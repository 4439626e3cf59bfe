"""SqueezeExcitation: lets what a whole image shows weigh each channel."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class SqueezeExcitation(keras.layers.Layer):
    """Scales each channel of a feature map by a factor drawn from the whole map.

    A convolution sees a small neighbourhood. Here the mean over all cells passes a
    narrow hidden layer, and what comes out weighs the channels everywhere:

    `factor = sigmoid(relu(mean @ squeeze + b) @ excite + c)`, `output = map * factor`.

    Masks are neither read nor produced. Computed in the layer's compute dtype.

    Args:
        reduction: int. The hidden layer has `channels // reduction` units, at least
            1.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, H, W, channels)`.

    Returns:
        Float tensor `(batch, H, W, channels)`.

    Raises:
        ValueError: If `reduction` is below 1, or `inputs` is not of rank 4.

    Example:
    >>> layer = SqueezeExcitation(reduction=2)
    >>> tuple(layer(ops.ones((2, 5, 5, 8))).shape), layer.count_params()
    ((2, 5, 5, 8), 76)

    Reference:
    - [Hu et al., 2017](https://arxiv.org/abs/1709.01507), section 3.
    """

    def __init__(self, reduction=16, **kwargs):
        super().__init__(**kwargs)
        if reduction < 1:
            raise ValueError(f"`reduction` must be at least 1. Received: {reduction}")
        self.reduction = reduction

    def build(self, input_shape):
        if len(input_shape) != 4:
            raise ValueError(f"`inputs` must be of rank 4. Received: {input_shape}")
        channels = input_shape[-1]
        hidden = max(channels // self.reduction, 1)
        options = {"dtype": self.dtype_policy}
        self.squeeze = keras.layers.Dense(hidden, "relu", name="squeeze", **options)
        self.excite = keras.layers.Dense(channels, "sigmoid", name="excite", **options)
        self.squeeze.build((None, channels))
        self.excite.build((None, hidden))
        self.built = True

    def call(self, inputs):
        factor = self.excite(self.squeeze(ops.mean(inputs, axis=(1, 2))))
        return inputs * factor[:, None, None, :]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "reduction": self.reduction}
