"""PriorWhenAbsent: what a head says of a product that has nothing to show."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class PriorWhenAbsent(keras.layers.Layer):
    """Replaces the logits of products without any modality by fixed ones.

    Args:
        logits: `C` floats: the logits of the training label shares.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, C)`.
        present: bool tensor `(batch, towers)`.

    Returns:
        Float tensor `(batch, C)`: a row of `inputs` where any tower is present.

    Raises:
        ValueError: If `inputs` has not as many columns as `logits` has values.

    Example:
    >>> layer = PriorWhenAbsent(logits=[0.5, -0.5])
    >>> present = ops.array([[True, False], [False, False]])
    >>> layer(ops.ones((2, 2)), present).numpy().tolist()
    [[1.0, 1.0], [0.5, -0.5]]
    """

    def __init__(self, logits, **kwargs):
        super().__init__(**kwargs)
        self.logits = [float(value) for value in logits]

    def build(self, inputs_shape, present_shape):
        if inputs_shape[-1] != len(self.logits):
            raise ValueError(
                f"`inputs` must have {len(self.logits)} columns, one for each of "
                f"`logits`. Received: {inputs_shape}"
            )
        self.built = True

    def call(self, inputs, present):
        prior = ops.cast(ops.convert_to_tensor(self.logits), inputs.dtype)
        return ops.where(ops.any(present, axis=1, keepdims=True), inputs, prior)

    def compute_output_shape(self, inputs_shape, present_shape):
        return inputs_shape

    def get_config(self):
        return {**super().get_config(), "logits": self.logits}
