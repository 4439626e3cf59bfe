"""MaxOverTime: the strongest window of a text, padding left out."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class MaxOverTime(keras.layers.Layer):
    """Takes each filter's greatest value over the windows that hold words.

    A convolution of width `k` over `T` positions gives `T - k + 1` windows. Those
    that reach past a text's last word look at padding, and would let the length
    that texts are padded to change the answer. They are left out, but for the first
    window, which stays for texts shorter than `k`.

    Inputs must not be negative (ReLU), as windows are left out by setting them to
    zero. Computed in the layer's compute dtype.

    Args:
        kernel_size: int. `k`, at least 1.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        windows: Float tensor `(batch, T - k + 1, filters)`, not negative.
        ids: int tensor `(batch, T)`, 0 where padded; padding comes last.

    Returns:
        Float tensor `(batch, filters)`.

    Raises:
        ValueError: If `kernel_size` is below 1, or `windows` is not of rank 3.

    Example:
    >>> windows = ops.convert_to_tensor([[[1.0], [2.0], [9.0]]])
    >>> float(MaxOverTime(kernel_size=2)(windows, ops.array([[7, 7, 7, 0]]))[0, 0])
    2.0

    Reference:
    - [Kim, 2014](https://arxiv.org/abs/1408.5882), section 2, "max-over-time".
    """

    def __init__(self, kernel_size, **kwargs):
        super().__init__(**kwargs)
        if kernel_size < 1:
            raise ValueError(
                f"`kernel_size` must be at least 1. Received: {kernel_size}"
            )
        self.kernel_size = kernel_size

    def build(self, windows_shape, ids_shape):
        if len(windows_shape) != 3:
            raise ValueError(f"`windows` must be of rank 3. Received: {windows_shape}")
        self.built = True

    def call(self, windows, ids):
        words = ops.sum(ops.cast(ops.not_equal(ids, 0), "int32"), axis=1)
        whole = ops.maximum(words - self.kernel_size + 1, 1)
        position = ops.arange(windows.shape[1], dtype="int32")
        inside = ops.cast(position[None, :] < whole[:, None], windows.dtype)
        return ops.max(windows * inside[:, :, None], axis=1)

    def compute_output_shape(self, windows_shape, ids_shape):
        return (windows_shape[0], windows_shape[2])

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size}
