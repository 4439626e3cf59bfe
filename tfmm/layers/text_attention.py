"""TextAttention: a query made from a text weighs the parts of a feature map."""

from typing import Literal, get_args

import keras
from keras import ops

Attention = Literal["width_height", "channel"]
Form = Literal["paper", "scaled", "residual", "average"]

# Far below any map that a network makes; keeps an all-zero one from dividing by zero.
SMALLEST_SHARE = 1e-12


@keras.saving.register_keras_serializable(package="tfmm")
class TextAttention(keras.layers.Layer):
    """Scaled dot-product attention over the cells or the channels of a feature map.

    Of a map of `H x W` cells and `C` channels, `width_height` takes `L = H * W` keys
    of `d = C` numbers, one for each cell; `channel` takes `L = C` keys of `d = H * W`
    numbers, one for each channel. The query `q` says how much each key `a_i` counts:

    `alpha = softmax(q a_i / sqrt(d))`, and the output is, by `form`,

    | form | output | with uniform weights |
    |---|---|---|
    | `paper` | `alpha_i a_i` | `a / L` |
    | `scaled` | `L alpha_i a_i` | `a` |
    | `residual` | `a_i + L alpha_i a_i` | `2 a` |
    | `average` | `(a_i + L alpha_i a_i) / 2` | `a` |

    A query of zeros makes the weights uniform. So `scaled` and `average` leave a
    pretrained network as it is until the query moves, while `paper` divides its
    activations by `L` (289 at `mixed4` of a 299 px Inception v3) and `residual`
    doubles them. `scaled` can black a cell out, `average` halves it at the most.

    The query comes ready: paper B's `q = t W_t` is a dense layer without a bias on
    the text's vector `t`. Zeros stand for a text that is not there.

    Masks are neither read nor produced. Scores, softmax and weights are in float32
    whatever the compute dtype.

    Args:
        attention: `"width_height"` or `"channel"`.
        form: `"paper"`, `"scaled"`, `"residual"` or `"average"`.
        **kwargs: `name`, `dtype` and the rest of `keras.layers.Layer`.

    Call arguments:
        feature_map: Float tensor `(batch, H, W, C)`. `H` and `W` may differ from call
            to call for `width_height`; `channel` needs them fixed.
        query: Float tensor `(batch, d)`.

    Returns:
        Tuple of three tensors: the map, `(batch, H, W, C)`; `alpha`, float32
        `(batch, L)`, cells row by row; and what there is to show, float32
        `(batch, H, W)`, at least 0, summing to 1: `alpha` for `width_height`, for
        `channel` each cell's share of the sum over the channels of `|alpha_c a_c|`.

    Raises:
        ValueError: If there is no such attention or form, `feature_map` is not of
            rank 4, `channel` meets an unknown size, or `query` is not `d` wide.

    Example:
    >>> layer = TextAttention("width_height", "scaled")
    >>> cells = ops.reshape(ops.array([1.0, 3.0]), (1, 1, 2, 1))
    >>> attended, weights, attention = layer(cells, ops.array([[0.5]]))
    >>> print(weights.numpy().round(2), attended.numpy().ravel().round(2))
    [[0.27 0.73]] [0.54 4.39]

    Reference:
    - Åberg 2018, "Text Based Visual Attention".
    - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2.1.
    """

    def __init__(
        self, attention: Attention = "width_height", form: Form = "average", **kwargs
    ):
        super().__init__(**kwargs)
        for name, value, known in (
            ("attention", attention, get_args(Attention)),
            ("form", form, get_args(Form)),
        ):
            if value not in known:
                raise ValueError(f"`{name}` must be one of {known}. Received: {value}")
        self.attention = attention
        self.form = form

    def build(self, feature_map_shape, query_shape):
        if len(feature_map_shape) != 4:
            raise ValueError(
                f"`feature_map` must be of rank 4. Received: {feature_map_shape}"
            )
        size = query_size(self.attention, feature_map_shape)
        if len(query_shape) != 2 or query_shape[-1] != size:
            raise ValueError(
                f"`query` must have the shape (batch, {size}). Received: {query_shape}"
            )
        self.built = True

    def call(self, feature_map, query):
        batch, height, width, channels = ops.shape(feature_map)
        cells = ops.reshape(feature_map, (batch, height * width, channels))
        cells, query = ops.cast(cells, "float32"), ops.cast(query, "float32")
        if self.attention == "channel":
            scores = ops.matmul(query[:, None, :], cells)[:, 0]
        else:
            scores = ops.matmul(cells, query[:, :, None])[..., 0]
        weights = ops.softmax(scores / query.shape[-1] ** 0.5)
        if self.attention == "channel":
            factors = weights[:, None, None, :]
            shown = ops.matmul(ops.abs(cells), weights[:, :, None])[..., 0]
            shown += SMALLEST_SHARE
            shown /= ops.sum(shown, axis=-1, keepdims=True)
        else:
            factors = ops.reshape(weights, (batch, height, width, 1))
            shown = weights
        factors = self._factors(factors, ops.shape(weights)[1])
        attended = feature_map * ops.cast(factors, feature_map.dtype)
        return attended, weights, ops.reshape(shown, (batch, height, width))

    def _factors(self, weights, count):
        """What the map is multiplied by."""
        if self.form == "paper":
            return weights
        scaled = weights * ops.cast(count, "float32")
        match self.form:
            case "residual":
                return 1.0 + scaled
            case "average":
                return (1.0 + scaled) / 2.0
        return scaled

    def compute_output_shape(self, feature_map_shape, query_shape):
        batch, height, width, channels = feature_map_shape
        keys = channels
        if self.attention == "width_height":
            keys = None if None in (height, width) else height * width
        return feature_map_shape, (batch, keys), (batch, height, width)

    def compute_output_spec(self, feature_map, query):
        shapes = self.compute_output_shape(feature_map.shape, query.shape)
        dtypes = (self.compute_dtype, "float32", "float32")
        return tuple(
            keras.KerasTensor(shape, dtype=dtype)
            for shape, dtype in zip(shapes, dtypes, strict=True)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "attention": self.attention,
            "form": self.form,
        }


def query_size(attention: Attention, feature_map_shape) -> int:
    """How long a query must be: `C` for `width_height`, `H * W` for `channel`.

    Args:
        attention: `"width_height"` or `"channel"`.
        feature_map_shape: `(batch, H, W, C)`.

    Raises:
        ValueError: If the map leaves it open.
    """
    _, height, width, channels = feature_map_shape
    if attention == "width_height":
        return channels
    if None in (height, width):
        raise ValueError(
            "`feature_map` must have a fixed height and width for 'channel'. "
            f"Received: {feature_map_shape}"
        )
    return height * width
