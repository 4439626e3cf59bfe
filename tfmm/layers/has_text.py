"""HasText: whether a product has a text at all."""

import keras

from tfmm import text


@keras.saving.register_keras_serializable(package="tfmm")
class HasText(keras.layers.Layer):
    """Tells the texts of which `tfmm.text.clean` leaves something from the others.

    Args:
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor of any shape.

    Returns:
        bool tensor of the same shape.

    Example:
    >>> HasText()(keras.ops.convert_to_tensor(["oak", "", "<br>"])).numpy().tolist()
    [True, False, False]
    """

    def call(self, inputs):
        return text.present(inputs)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="bool")
