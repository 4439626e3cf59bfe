"""ConvolutionProjection: a vector brought to another width by one small kernel."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class ConvolutionProjection(keras.layers.Layer):
    """Slides one kernel along a vector, so that the result has `units` numbers.

    A dense layer from 2,048 to 768 numbers has 1.6 million weights. Here each output
    is the same weighted sum of its own stretch of the vector:

    `output_j = activation(sum over k of kernel_k * input_(j * stride + k) + bias)`.

    Stride and kernel follow from the widths. From a wider vector of `d` numbers:
    `stride = d // units`, `kernel_size = d - (units - 1) * stride`, which leaves
    nothing out; 514 weights for 2,048 to 768. From a narrower one: stride 1, zeros
    around it, and `kernel_size = units - d + 1`.

    Args:
        units: int. Width of the output; at least 1.
        activation: Keras activation; none if absent.
        kernel_initializer: Keras initializer.
        kernel_regularizer: Penalty on the kernel; none if absent.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, d)`.

    Returns:
        Float tensor `(batch, units)`.

    Raises:
        ValueError: If `units` is below 1, or `inputs` is not of rank 2.

    Example:
    >>> layer = ConvolutionProjection(units=2, kernel_initializer="ones")
    >>> layer(ops.array([[1.0, 2.0, 3.0, 4.0, 5.0]])).numpy().tolist()
    [[6.0, 12.0]]

    Reference:
    - Verma et al. 2020, "Joint representation"; strides and sizes are ours.
    """

    def __init__(
        self,
        units,
        activation=None,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"`units` must be at least 1. Received: {units}")
        self.units = units
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        if len(input_shape) != 2:
            raise ValueError(f"`inputs` must be of rank 2. Received: {input_shape}")
        width = input_shape[-1]
        if width >= self.units:
            self.stride, self.padding = width // self.units, 0
            size = width - (self.units - 1) * self.stride
        else:
            size = self.units - width + 1
            self.stride, self.padding = 1, size - 1
        self.kernel = self.add_weight(
            shape=(size, 1, 1),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs):
        steps = ops.expand_dims(inputs, -1)
        steps = ops.pad(steps, ((0, 0), (self.padding, self.padding), (0, 0)))
        sums = ops.conv(steps, self.kernel, strides=self.stride, padding="valid")
        return self.activation(ops.squeeze(sums, -1) + self.bias)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
