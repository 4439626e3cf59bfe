"""The published network inside an image tower: its weights, and its outputs."""

import warnings
from collections.abc import Callable
from zipfile import BadZipFile

import keras
import numpy as np
from keras import ops

from tfmm.errors import ExperimentError
from tfmm.settings import Backbone
from tfmm.towers.output import layer_vector

# Mean of ImageNet's blue, green and red, which the first published weights of ResNet
# and VGG expect removed.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


def subtract_mean(images):
    """Turns RGB `(batch, H, W, 3)` in [0, 255] into BGR without ImageNet's mean."""
    return ops.flip(images, axis=-1) - np.array(IMAGENET_MEAN_BGR, np.float32)


def published(
    settings: Backbone, build: Callable[[str | None], keras.Model], title: str
) -> keras.Model:
    """Builds a network with the weights that the experiment asks for.

    Args:
        settings: `[towers.NAME]` of the experiment.
        build: `"imagenet"`, or None for weights drawn at random -> the network.
        title: What a file of weights must hold, for messages.

    Returns:
        The network.

    Raises:
        ExperimentError: If the weights cannot be had, or do not fit.
    """
    if settings.weights == "none":
        return build(None)
    if settings.weights == "imagenet":
        try:
            return build("imagenet")
        except Exception as error:  # Keras raises a bare Exception if a download fails
            raise ExperimentError(
                f"{settings.model}: weights = 'imagenet' could not be downloaded "
                f"({first_line(error)}); give the path of a local copy"
            ) from error
    network = build(None)
    load_file(settings, network, title)
    return network


def load_file(settings: Backbone, network: keras.Model, title: str) -> None:
    """Fills a network from the file that `weights` names.

    Args:
        settings: `[towers.NAME]` of the experiment.
        network: Takes the weights.
        title: What the file must hold, for messages.

    Raises:
        ExperimentError: If it cannot be read, or holds other weights.
    """
    try:
        with warnings.catch_warnings():
            # Keras only warns of layers that it leaves as they are.
            warnings.simplefilter("error", UserWarning)
            network.load_weights(settings.weights)
    except (ValueError, OSError, KeyError, UserWarning, BadZipFile) as error:
        raise ExperimentError(
            f"{settings.model}: {settings.weights} does not hold the weights of "
            f"{title}: {first_line(error)}"
        ) from None


def apply_backbone(settings: Backbone, network: keras.Model, images):
    """Puts a network into a tower, as its one layer `backbone`.

    Args:
        settings: `[towers.NAME]` of the experiment.
        network: With one input and one output.
        images: What it reads: float tensor `(batch, H, W, 3)`, scaled.

    Returns:
        The network's output, and the vector `(batch, e)` of the layer inside it that
        `features_from` names, None if it names none.

    Raises:
        ExperimentError: If there is no such layer, or it has no vector to give.
    """
    if settings.batch_normalization_momentum is not None:
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = settings.batch_normalization_momentum
    if not settings.features_from:
        network.name = "backbone"
        return network(images), None
    vector = layer_vector(settings, network)
    backbone = keras.Model(network.input, [network.output, vector], name="backbone")
    return backbone(images)


def first_line(error: Exception) -> str:
    """The first line of an error's text; its kind if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
