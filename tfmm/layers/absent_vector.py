"""AbsentVector: what stands for a tower that has nothing to show."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class AbsentVector(keras.layers.Layer):
    """Replaces the vectors of products that a tower does not see by a learned one.

    `output = vector if absent else input`, with one `vector` for all products. It
    starts at zero. What `inputs` hold where the tower is absent changes nothing, and
    gets no gradient.

    Args:
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, d)`.
        present: bool tensor `(batch,)`.

    Returns:
        Float tensor `(batch, d)`.

    Raises:
        ValueError: If `inputs` is not of rank 2.

    Example:
    >>> layer = AbsentVector()
    >>> layer(ops.ones((2, 3)), ops.array([True, False])).numpy().tolist()
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """

    def build(self, inputs_shape, present_shape):
        if len(inputs_shape) != 2:
            raise ValueError(f"`inputs` must be of rank 2. Received: {inputs_shape}")
        self.vector = self.add_weight(
            shape=(inputs_shape[-1],), initializer="zeros", name="vector"
        )
        self.built = True

    def call(self, inputs, present):
        vector = ops.cast(self.vector, inputs.dtype)
        return ops.where(ops.expand_dims(present, -1), inputs, vector)

    def compute_output_shape(self, inputs_shape, present_shape):
        return inputs_shape
