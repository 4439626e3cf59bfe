"""UnitFeatures: the features of a head that has no hidden layer of its own."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class UnitFeatures(keras.layers.Layer):
    """Joins the towers' feature vectors, each scaled to length 1; zeros if absent.

    Args:
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: list of float tensors `(batch, d_i)`, one for each tower.
        present: bool tensor `(batch, towers)`.

    Returns:
        Float tensor `(batch, sum of d_i)`.

    Example:
    >>> vectors = [ops.array([[3.0, 4.0]]), ops.array([[2.0]])]
    >>> joined = UnitFeatures()(vectors, ops.array([[True, False]]))
    >>> print(joined.numpy().round(2))
    [[0.6 0.8 0. ]]
    """

    def call(self, inputs, present):
        parts = []
        for position, vectors in enumerate(inputs):
            here = ops.cast(present[:, position : position + 1], vectors.dtype)
            parts.append(ops.normalize(vectors, axis=-1) * here)
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, inputs_shape, present_shape):
        return (inputs_shape[0][0], sum(shape[-1] for shape in inputs_shape))
