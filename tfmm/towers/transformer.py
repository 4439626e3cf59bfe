"""transformer: a pretrained encoder of texts."""

from collections.abc import Sequence

import keras
from keras import ops

from tfmm.errors import ExperimentError, did_you_mean
from tfmm.layers.pool_tokens import PoolTokens
from tfmm.layers.without_markup import WithoutMarkup
from tfmm.pretrained import presets
from tfmm.pretrained.encoder import Pretrained
from tfmm.pretrained.text_tokens import TextTokens
from tfmm.settings import Transformer
from tfmm.towers.output import finish


def transformer(
    settings: Transformer, num_classes: int, training_texts: Sequence[str] = ()
) -> keras.Model:
    """Builds a tower around a pretrained encoder, from raw texts to logits.

    HTML is taken out of a text and nothing else; what becomes of case and signs is the
    tokenizer's business. The encoder gives a state for each token, pooling makes one
    vector of them, and that, or a hidden layer over it, is the `features`. How far
    texts are padded changes nothing. The saved tower holds the tokenizer's files.

    Paper D: FlauBERT with the defaults; CamemBERT with `pooling = "flatten"` and
    `hidden_units = 768`. AdamW at 2e-5, 256 tokens, batches of 32, 12 epochs.

    `features_from` may also name a layer of the encoder, `transformer_layer_8` say;
    its states are pooled the same way.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Not read: the vocabulary is the preset's.

    Returns:
        Model: string `(batch,)` -> `{"features": (batch, d), "logits": (batch, C)}`,
        `d` the encoder's width, `max_tokens` times that for `flatten`, or
        `hidden_units`.

    Raises:
        ExperimentError: If the preset cannot be had, or has fewer positions than
            `max_tokens`; if there is no layer `features_from`.

    Reference:
    - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805)
    - Verma, Chakraborty and Motupalli 2020, "Towers"
    """
    pretrained = presets.load(settings.preset, settings.load_weights)
    if pretrained.max_tokens and settings.max_tokens > pretrained.max_tokens:
        raise ExperimentError(
            f"transformer: {settings.preset} reads {pretrained.max_tokens} tokens at "
            f"most. Received: max_tokens = {settings.max_tokens}"
        )
    inputs = keras.Input(shape=(), dtype="string", name=settings.modality)
    tokens = TextTokens(
        pretrained.tokenizer,
        settings.max_tokens,
        pretrained.start,
        pretrained.end,
        pretrained.padding,
        removed=pretrained.removed,
        lowercase=pretrained.lowercase,
        fixed_length=settings.pooling == "flatten",
        name="tokens",
    )(WithoutMarkup(name="without_markup")(inputs))
    mask = tokens["padding_mask"]
    states, inner = _states(settings, pretrained, tokens)
    features = PoolTokens(settings.pooling, name="pooling")(states, mask)
    if settings.hidden_units:
        features = keras.layers.Dense(
            settings.hidden_units, settings.hidden_activation, name="hidden"
        )(features)
    if inner is not None:
        inner = PoolTokens(settings.pooling, name="inner_pooling")(inner, mask)
    return finish(settings, inputs, features, num_classes, inner)


def _states(settings: Transformer, pretrained: Pretrained, tokens):
    """The encoder's states `(batch, T, d)`, and those of its layer `features_from`."""
    backbone = pretrained.backbone
    read = {name: tokens.get(name) for name in backbone.input}
    if "segment_ids" in read:  # a text is one segment
        read["segment_ids"] = ops.zeros_like(tokens["token_ids"])
    name = settings.features_from
    outside = ("pooling", "hidden") if settings.hidden_units else ("pooling",)
    if not name or name in outside:
        return backbone(read), None
    layers = {layer.name: layer for layer in backbone.layers}
    if name not in layers:
        raise ExperimentError(
            f"transformer: features_from = {name!r} is none of its layers"
            f"{did_you_mean(name, [*outside, *layers])}"
        )
    inner = layers[name].output
    shape = getattr(inner, "shape", ())
    if len(shape) != 3:
        raise ExperimentError(
            f"transformer: features_from = {name!r} must be a layer with one state a "
            f"token. Received: shape {tuple(shape)}"
        )
    for layer in layers.values():
        # Keras builds such a layer only as a part of its own network, so another
        # network of it could be saved but not loaded.
        if layer.weights and type(layer).build is keras.layers.Layer.build:
            raise ExperimentError(
                f"transformer: features_from = {name!r} cannot be had from inside "
                f"{settings.preset}, as keras-hub's {type(layer).__name__} does not "
                f"allow it; expected one of {', '.join(outside)}"
            )
    both = keras.Model(backbone.input, [backbone.output, inner], name="backbone")
    return both(read)
