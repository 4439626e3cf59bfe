"""keras_hub_image: any image network of keras-hub."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import keras
import numpy as np
from keras import layers

from tfmm.errors import ExperimentError
from tfmm.settings import KerasHubImage
from tfmm.towers.backbone import apply_backbone, first_line
from tfmm.towers.output import finish

# By the rank of what a backbone puts out: tokens or a feature map.
MEANS = {3: layers.GlobalAveragePooling1D, 4: layers.GlobalAveragePooling2D}


def keras_hub_image(
    settings: KerasHubImage, num_classes: int, training_texts: Sequence[str] = ()
) -> keras.Model:
    """Builds a tower on an image backbone of keras-hub.

    The mean over the backbone's last feature map, or over its tokens, is `features`.
    Images are scaled as the preset's image converter says; resizing, cropping and
    padding are not taken from it.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Not read.

    Returns:
        Model: `(batch, image_size, image_size, 3)` in [0, 255] ->
        `{"features": float32 (batch, d), "logits": float32 (batch, C)}`, `d` the
        backbone's last number of channels.

    Raises:
        ExperimentError: If the preset cannot be had, is no image backbone or wants
            another size; if there is no layer `features_from`.

    Reference:
    - [KerasHub](https://keras.io/keras_hub/presets/)
    """
    size = settings.image_size
    inputs = keras.Input(shape=(size, size, 3), name=settings.modality)
    network, scale, offset = _preset(settings)
    _check(settings, network)
    output, inner = apply_backbone(settings, network, inputs * scale + offset)
    if inner is not None:
        _check_saving(settings, network)
    features = MEANS[len(output.shape)](name="pooled")(output)
    return finish(settings, inputs, features, num_classes, inner)


def _preset(settings: KerasHubImage):
    """The backbone, and what images are multiplied by and shifted by."""
    # Not for every run: it takes seconds, and few towers need it.
    import keras_hub

    name = settings.preset
    known = keras_hub.models.Backbone.presets
    if "://" not in name and name not in known and not Path(name).is_dir():
        near = get_close_matches(name, known, n=1)
        raise ExperimentError(
            f"keras_hub_image: preset = {name!r} is neither a folder nor a preset of "
            "keras-hub" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    try:
        network = keras_hub.models.Backbone.from_preset(
            name,
            load_weights=settings.weights == "preset",
            dtype=keras.config.dtype_policy().name,
        )
        converter = keras_hub.layers.ImageConverter.from_preset(name)
    # Each way to a preset has its own exceptions: requests', kagglehub's, Keras's.
    except Exception as error:
        raise ExperimentError(
            f"keras_hub_image: preset = {name!r} could not be loaded as an image "
            f"backbone: {first_line(error)}"
        ) from error
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    return network, np.float32(scale), np.float32(offset)


def _check(settings: KerasHubImage, network: keras.Model) -> None:
    about = f"keras_hub_image: preset = {settings.preset!r}"
    shape = getattr(network.output, "shape", ())
    if not isinstance(network.input, keras.KerasTensor) or len(shape) not in MEANS:
        raise ExperimentError(
            f"{about} must have one image as input and one feature map as output. "
            f"Received: {type(network).__name__}"
        )
    sides = network.input.shape[1:3]
    if any(side not in (None, settings.image_size) for side in sides):
        raise ExperimentError(
            f"{about} must have image_size = {sides[0]}. "
            f"Received: {settings.image_size}"
        )


def _check_saving(settings: KerasHubImage, network: keras.Model) -> None:
    # keras-hub saves its backbones whole. Taken apart for a second output, one is
    # saved layer by layer, which not all of its layers can be (ViT's, in 0.32).
    taken_apart = keras.Model(network.input, network.output)
    try:
        keras.Model.from_config(taken_apart.get_config())
    except (TypeError, ValueError) as error:
        raise ExperimentError(
            f"keras_hub_image: preset = {settings.preset!r} does not go with "
            f"features_from, as {type(network).__name__} can only be saved whole"
        ) from error
