"""Highway: a learned gate decides, number by number, which vector gets through."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class Highway(keras.layers.Layer):
    """Mixes vectors of one width by weights that it learns to draw from all of them.

    `gate_i = softmax over i of (joined @ kernel_i + bias_i)`, for each of the `d`
    numbers on its own, `output = sum over i of gate_i * vector_i`.

    Of two vectors this is `gate * first + (1 - gate) * second` with a sigmoid gate, a
    highway layer's transform and carry. Kernel and bias start at zero, so a new layer
    gives the mean. The softmax runs in the layer's compute dtype.

    Args:
        kernel_regularizer: Penalty on the kernel; none if absent.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: list of `N` float tensors `(batch, d)`, at least two.

    Returns:
        Float tensor `(batch, d)`.

    Raises:
        ValueError: If there are fewer than two inputs, or their shapes differ.

    Example:
    >>> layer = Highway()
    >>> layer([ops.array([[1.0, 4.0]]), ops.array([[3.0, 0.0]])]).numpy().tolist()
    [[2.0, 2.0]]

    Reference:
    - [Srivastava et al., 2015](https://arxiv.org/abs/1505.00387)
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534), section 5, "gating".
    """

    def __init__(self, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        if len(input_shape) < 2 or len({x[-1] for x in input_shape}) > 1:
            raise ValueError(
                "`inputs` must be two or more vectors of one width. "
                f"Received: {input_shape}"
            )
        width = len(input_shape) * input_shape[0][-1]
        self.kernel = self.add_weight(
            shape=(width, width),
            initializer="zeros",
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.bias = self.add_weight(shape=(width,), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs):
        shape = (-1, len(inputs), inputs[0].shape[-1])
        gate = ops.matmul(ops.concatenate(inputs, axis=-1), self.kernel) + self.bias
        gate = ops.softmax(ops.reshape(gate, shape), axis=1)
        return ops.sum(gate * ops.stack(inputs, axis=1), axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        penalty = keras.regularizers.serialize(self.kernel_regularizer)
        return {**super().get_config(), "kernel_regularizer": penalty}
