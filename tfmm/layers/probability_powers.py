"""ProbabilityPowers: how much each tower's confidence is worth."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class ProbabilityPowers(keras.layers.Layer):
    """Raises each tower's probabilities to a power of its own.

    A power `t` above 1 sharpens what a tower says, one below 1 flattens it. The layer
    works on logarithms, where a power is a factor:

    `output[:, i] = t_i * inputs[:, i]`, so `exp(output) = exp(inputs) ** t`.

    Nothing is divided by a sum afterwards. With all powers 1 it changes nothing.

    Masks are neither read nor produced. Computed in the layer's compute dtype.

    Args:
        powers: `towers` floats above 0.
        lowest: float. Training takes no power below it; above 0.
        highest: float. Training takes no power above it.
        **kwargs: `name`, `dtype`, `trainable` (whether the powers are learned) and
            the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: Float tensor `(batch, towers, C)`: log-probabilities.

    Returns:
        Float tensor `(batch, towers, C)`.

    Raises:
        ValueError: If a power is not above 0, `lowest` and `highest` are no range
            above 0, or `inputs` has not as many towers as there are powers.

    Example:
    >>> layer = ProbabilityPowers(powers=[1.0, 2.0])
    >>> p = layer(ops.log(ops.array([[[0.5, 0.5], [0.5, 0.5]]])))
    >>> ops.exp(p).numpy().round(2).tolist()
    [[[0.5, 0.5], [0.25, 0.25]]]

    Reference:
    - Åberg 2018, "temperature" of late fusion, where the powers are called tau.
    """

    def __init__(self, powers, lowest=0.1, highest=4.0, **kwargs):
        super().__init__(**kwargs)
        self.powers = [float(power) for power in powers]
        if not all(power > 0 for power in self.powers):
            raise ValueError(f"`powers` must be above 0. Received: {powers}")
        if not 0 < lowest < highest:
            raise ValueError(
                "`lowest` and `highest` must be a range above 0. "
                f"Received: {lowest}, {highest}"
            )
        self.lowest, self.highest = lowest, highest

    def build(self, input_shape):
        if len(input_shape) != 3 or input_shape[1] != len(self.powers):
            raise ValueError(
                f"`inputs` must be of shape (batch, {len(self.powers)}, C). "
                f"Received: {input_shape}"
            )
        self.factors = self.add_weight(
            shape=(len(self.powers), 1),
            initializer=lambda shape, dtype: ops.reshape(
                ops.cast(self.powers, dtype), shape
            ),
            constraint=lambda value: ops.clip(value, self.lowest, self.highest),
            name="powers",
        )
        self.built = True

    def call(self, inputs):
        return inputs * self.factors

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "powers": self.powers,
            "lowest": self.lowest,
            "highest": self.highest,
        }
