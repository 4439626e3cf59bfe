"""CrossProducts: every number of one vector times every number of another."""

from itertools import combinations

import keras
from keras import ops

from tfmm.settings.heads.early_fusion import MAX_PRODUCTS


@keras.saving.register_keras_serializable(package="tfmm")
class CrossProducts(keras.layers.Layer):
    """Joins the outer products of all pairs of vectors.

    `output = [a_i * b_j for all i, j]` for each pair `a`, `b` in the order of the
    inputs: what a layer on the vectors side by side cannot tell, that one holds this
    *and* the other that. There are `d_a * d_b` products for a pair, so that vectors
    had better be made narrow first; 16,384 of them is the limit.

    Args:
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: list of float tensors `(batch, d_i)`, at least two.

    Returns:
        Float tensor `(batch, sum of d_a * d_b over the pairs)`.

    Raises:
        ValueError: If there are fewer than two inputs, or over 16,384 products.

    Example:
    >>> pair = [ops.array([[1.0, 2.0]]), ops.array([[3.0, 5.0]])]
    >>> CrossProducts()(pair).numpy().tolist()
    [[3.0, 5.0, 6.0, 10.0]]

    Reference:
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534), section 5.
    """

    def build(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(
                f"`inputs` must be two or more vectors. Received: {input_shape}"
            )
        width = self.compute_output_shape(input_shape)[-1]
        if width > MAX_PRODUCTS:
            raise ValueError(
                f"`inputs` must have at most {MAX_PRODUCTS:,} products. "
                f"Received: {width:,} of {input_shape}"
            )
        self.built = True

    def call(self, inputs):
        products = []
        for a, b in combinations(inputs, 2):
            outer = ops.expand_dims(a, -1) * ops.expand_dims(b, -2)
            products.append(ops.reshape(outer, (-1, a.shape[-1] * b.shape[-1])))
        return ops.concatenate(products, axis=-1)

    def compute_output_shape(self, input_shape):
        pairs = combinations([x[-1] for x in input_shape], 2)
        return (input_shape[0][0], sum(a * b for a, b in pairs))
