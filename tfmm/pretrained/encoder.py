"""The one graph that BERT, RoBERTa, CamemBERT, DistilBERT and FlauBERT share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfmm.errors import ExperimentError

LAYER = "transformer_layer_"


@dataclass(frozen=True)
class Pretrained:
    """A tokenizer and the network that reads its ids.

    Attributes:
        tokenizer: Keras layer: string `(batch,)` -> ragged int32 `(batch, tokens)`.
        backbone: Network named `backbone`: dict of int32 `(batch, T)` ->
            `(batch, T, width)`. Its inputs are among `token_ids`, `padding_mask` (1 for
            a token, 0 for padding) and `segment_ids`.
        start: Ids put before a text.
        end: Ids put behind it.
        padding: Id that texts are padded with.
        max_tokens: Positions that the network has; None if it has no limit.
        removed: Regular expression of characters that the tokenizer must not see.
        lowercase: Whether the tokenizer must be given lower case.
    """

    tokenizer: keras.layers.Layer
    backbone: keras.Model
    start: tuple[int, ...]
    end: tuple[int, ...]
    padding: int
    max_tokens: int | None
    removed: str = ""
    lowercase: bool = False


@dataclass(frozen=True)
class Sizes:
    """What an encoder is built from.

    Attributes:
        vocabulary: Rows of the token embedding.
        positions: Rows of the position embedding.
        width: Size of a hidden state.
        layers: How many transformer layers.
        heads: Attention heads of a layer.
        inner_width: Width of a layer's hidden dense layer.
        activation: Of that layer.
        epsilon: Added to the variance in every layer normalisation.
        dropout: Share dropped after the embedding, in attention and after each part of
            a layer.
        normalize_first: Whether a layer normalises what goes into its parts instead of
            what comes out.
    """

    vocabulary: int
    positions: int
    width: int
    layers: int
    heads: int
    inner_width: int
    activation: str
    epsilon: float
    dropout: float
    normalize_first: bool = False


def encoder(sizes: Sizes) -> keras.Model:
    """Builds an encoder with random weights.

    Its layers, in order: `embeddings` (tokens plus positions), `embeddings_layer_norm`,
    `embeddings_dropout`, `transformer_layer_0` and so on.

    Args:
        sizes: What it is built from.

    Returns:
        Network named `backbone`: `{"token_ids": int32 (batch, T), "padding_mask":
        int32 (batch, T)}` -> float `(batch, T, width)`.
    """
    import keras_hub  # slow; see the package

    token_ids = keras.Input(shape=(None,), dtype="int32", name="token_ids")
    padding_mask = keras.Input(shape=(None,), dtype="int32", name="padding_mask")
    initializer = keras.initializers.TruncatedNormal(stddev=0.02)
    states = keras_hub.layers.TokenAndPositionEmbedding(
        sizes.vocabulary,
        sizes.positions,
        sizes.width,
        embeddings_initializer=initializer,
        name="embeddings",
    )(token_ids)
    states = keras.layers.LayerNormalization(
        epsilon=sizes.epsilon, name="embeddings_layer_norm"
    )(states)
    states = keras.layers.Dropout(sizes.dropout, name="embeddings_dropout")(states)
    for number in range(sizes.layers):
        states = keras_hub.layers.TransformerEncoder(
            sizes.inner_width,
            sizes.heads,
            dropout=sizes.dropout,
            activation=sizes.activation,
            layer_norm_epsilon=sizes.epsilon,
            kernel_initializer=initializer,
            normalize_first=sizes.normalize_first,
            name=f"{LAYER}{number}",
        )(states, padding_mask=padding_mask)
    inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
    return keras.Model(inputs, states, name="backbone")


def fill(
    backbone: keras.Model,
    modules: Mapping[str, str],
    tensor: Callable[[str], np.ndarray],
    embeddings: Mapping[str, np.ndarray],
    source: str,
) -> None:
    """Puts a checkpoint's tensors into an encoder.

    PyTorch keeps the kernel of a dense layer as `(out, in)`, Keras as `(in, out)` with
    the heads of an attention on an axis of their own.

    Args:
        backbone: What `encoder` built.
        modules: Part of the encoder (`embeddings_layer_norm`, or a part of a
            transformer layer) -> the checkpoint's name of it, with `{}` for the number
            of the layer.
        tensor: Name -> the checkpoint's tensor.
        embeddings: `token_embedding` and `position_embedding`, `(rows, width)`.
        source: The checkpoint, for messages.

    Raises:
        ExperimentError: If a tensor has another shape than the encoder's.
    """
    for weight in backbone.weights:
        part, _, kind = weight.path.rpartition("/")
        layer, _, inside = part.partition("/")
        if layer == "embeddings":
            name, value = inside, embeddings[inside]
        else:
            module = modules[inside or layer].format(layer.removeprefix(LAYER))
            name = f"{module}.{'bias' if kind in ('bias', 'beta') else 'weight'}"
            value = tensor(name)
            if kind == "kernel":
                value = value.T
        if value.size != np.prod(weight.shape):
            raise ExperimentError(
                f"{source}: tensor {name} does not fit config.json, which makes it "
                f"{tuple(weight.shape)}. Received: {value.shape}"
            )
        weight.assign(np.reshape(value, weight.shape))
