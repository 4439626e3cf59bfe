"""GroupedConvolution2D: a convolution whose groups of channels do not mix."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfmm")
class GroupedConvolution2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D(groups=...)` without XLA.

    Group `g` of the input's channels is convolved with filters of its own, and the
    results stand side by side. Keras compiles a grouped convolution with XLA, which
    a stock TensorFlow Serving refuses to run. TensorFlow's own operation knows groups
    by the depth of the kernel, runs them everywhere, and is several times as fast as
    a convolution for each group (`tools/bench/grouped_convolution.py`).

    `groups = 1` is a plain convolution. `get_weights` of the one layer goes into
    `set_weights` of the other.

    Training on a CPU needs TensorFlow's oneDNN kernels, which are on by default on
    x86-64; without them, and in float16, it says that gradients of grouped
    convolutions are not supported.

    Args:
        filters: int. A multiple of `groups`.
        kernel_size: int or two ints, `(height, width)`.
        **kwargs: `groups`, `strides`, `padding` and the rest of
            `keras.layers.Conv2D`, but for `data_format`.

    Call arguments:
        inputs: Float tensor `(batch, H, W, channels)`, `channels` a multiple of
            `groups`.

    Returns:
        Float tensor `(batch, new H, new W, filters)`.

    Raises:
        ValueError: If `filters` or `channels` is not a multiple of `groups`.

    Example:
    >>> layer = GroupedConvolution2D(8, 3, groups=4, padding="same")
    >>> tuple(layer(keras.ops.ones((2, 5, 5, 12))).shape), tuple(layer.kernel.shape)
    ((2, 5, 5, 8), (3, 3, 3, 8))

    Reference:
    - [Xie et al., 2016](https://arxiv.org/abs/1611.05431), section 3.3.
    """

    def convolution_op(self, inputs, kernel):
        return tf.nn.conv2d(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding.upper(),
            dilations=self.dilation_rate,
        )
