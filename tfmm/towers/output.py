"""What every tower ends in: features, dropout, logits."""

import keras
import numpy as np
from keras import ops

from tfmm.errors import ExperimentError, did_you_mean
from tfmm.settings import Tower

OUTPUTS = ("features", "logits")


def finish(
    settings: Tower,
    inputs,
    features,
    num_classes: int,
    inner_features=None,
) -> keras.Model:
    """Puts the output on a tower.

    Args:
        settings: `[towers.NAME]` of the experiment.
        inputs: The tower's Keras input, named after its modality.
        features: Float tensor `(batch, d)` that the logits are computed from.
        num_classes: `C`.
        inner_features: Float tensor `(batch, e)` of the layer that `features_from`
            names, where the builder has found it, as in a backbone; else it is looked
            for among the tower's own layers.

    Returns:
        Model: `inputs` -> `{"features": float32, "logits": float32 (batch, C)}`,
        whatever the dtype policy.

    Raises:
        ExperimentError: If there is no such layer, or it has no vector to give.
    """
    dropped = keras.layers.Dropout(settings.dropout, name="dropout")(features)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(dropped)
    if settings.features_from and inner_features is None:
        inner_features = layer_vector(
            settings, keras.Model({settings.modality: inputs}, logits)
        )
    named = features if inner_features is None else inner_features
    named = keras.layers.Identity(dtype="float32", name="features")(named)
    return keras.Model(
        {settings.modality: inputs}, {"features": named, "logits": logits}
    )


def layer_vector(settings: Tower, model: keras.Model):
    """The output of the layer that `features_from` names, as one vector a product.

    Feature maps `(batch, H, W, channels)` are averaged over their cells.

    Args:
        settings: `[towers.NAME]` of the experiment.
        model: Where the layer is.

    Returns:
        Symbolic float tensor `(batch, e)`.

    Raises:
        ExperimentError: If there is no such layer, or it has no vector to give.
    """
    name = settings.features_from
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        raise ExperimentError(
            f"{settings.model}: features_from = {name!r} is none of its layers"
            f"{did_you_mean(name, layers)}"
        )
    output = layers[name].output
    shape = getattr(output, "shape", ())
    if len(shape) == 4:
        return ops.mean(output, axis=(1, 2))
    if len(shape) != 2 or not output.dtype.startswith(("float", "bfloat")):
        raise ExperimentError(
            f"{settings.model}: features_from = {name!r} must be a layer with one "
            f"vector or one feature map a product. Received: shape {tuple(shape)}"
        )
    return output


def initialize(model: keras.Model, stddev: float, seed: int, loaded: set[int]) -> None:
    """Draws kernels from a normal distribution cut off at two deviations.

    Every weight of two dimensions or more is drawn, whatever its layer's own way to
    start; biases and normalisations keep theirs.

    Args:
        model: A tower that was just built.
        stddev: Standard deviation before the cut.
        seed: The run's seed.
        loaded: `id` of the weights that came from a file and stay as they are.

    Reference:
    - Åberg 2018, "Shared training scheme".
    """
    for position, weight in enumerate(model.trainable_weights):
        if len(weight.shape) < 2 or id(weight) in loaded:
            continue
        draw = np.random.default_rng((seed, position))
        values = draw.standard_normal(weight.shape, np.float32)
        while (outside := np.abs(values) > 2.0).any():
            values[outside] = draw.standard_normal(int(outside.sum()), np.float32)
        weight.assign(values * np.float32(stddev))
