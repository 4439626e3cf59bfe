"""PoolTokens: the states of a text's tokens as one vector."""

from typing import Literal, get_args

import keras
from keras import ops

Pooling = Literal["first", "mean", "flatten"]


@keras.saving.register_keras_serializable(package="tfmm")
class PoolTokens(keras.layers.Layer):
    """Makes one vector of a text out of one vector for each of its tokens.

    `first` is the state of the first token, which BERT and its kin train to stand for
    the text. `mean` is the mean over the tokens that are no padding, special ones
    included. `flatten` is the states one after the other, with zeros where a text is
    padded; it needs texts of a fixed length.

    So padding changes nothing in any of them. The mean is taken in float32; the output
    has the layer's compute dtype.

    Args:
        pooling: `"first"`, `"mean"` or `"flatten"`.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        states: Float tensor `(batch, T, d)`.
        padding_mask: int tensor `(batch, T)`: 1 for a token, 0 for padding.

    Returns:
        Float tensor `(batch, d)`, or `(batch, T * d)` for `flatten`.

    Raises:
        ValueError: If there is no such pooling, or `flatten` meets an unknown `T`.

    Example:
    >>> states = ops.convert_to_tensor([[[1.0], [3.0], [9.0]]])
    >>> float(PoolTokens("mean")(states, ops.array([[1, 1, 0]]))[0, 0])
    2.0

    Reference:
    - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805), section 3, for `first`.
    - Verma et al. 2020, "Towers", for `flatten`.
    """

    def __init__(self, pooling: Pooling, **kwargs):
        super().__init__(**kwargs)
        if pooling not in get_args(Pooling):
            raise ValueError(
                f"`pooling` must be one of {get_args(Pooling)}. Received: {pooling}"
            )
        self.pooling = pooling

    def build(self, states_shape, padding_mask_shape):
        if self.pooling == "flatten" and states_shape[1] is None:
            raise ValueError(
                "`states` must have a fixed number of tokens for 'flatten'. "
                f"Received: {states_shape}"
            )
        self.built = True

    def call(self, states, padding_mask):
        if self.pooling == "first":
            return states[:, 0]
        mask = ops.expand_dims(padding_mask, -1)
        if self.pooling == "flatten":
            kept = states * ops.cast(mask, states.dtype)
            return ops.reshape(kept, (-1, states.shape[1] * states.shape[2]))
        mask = ops.cast(mask, "float32")
        total = ops.sum(ops.cast(states, "float32") * mask, axis=1)
        mean = total / ops.maximum(ops.sum(mask, axis=1), 1.0)
        return ops.cast(mean, self.compute_dtype)

    def compute_output_shape(self, states_shape, padding_mask_shape):
        batch, tokens, width = states_shape
        return (batch, tokens * width if self.pooling == "flatten" else width)

    def get_config(self):
        return {**super().get_config(), "pooling": self.pooling}
