"""vgg16: plain stacked convolutions over an image."""

from collections.abc import Sequence

import h5py
import keras
from keras import layers

from tfmm.settings import Vgg16
from tfmm.towers.backbone import apply_backbone, load_file, published, subtract_mean
from tfmm.towers.output import finish

# What ImageNet's fully connected layers are made for.
PUBLISHED_SIZE_PX = 224
PUBLISHED_UNITS = [4096, 4096]
PUBLISHED_CLASSES = 1000


def vgg16(
    settings: Vgg16, num_classes: int, training_texts: Sequence[str] = ()
) -> keras.Model:
    """Builds VGG-16 with its last layer replaced by one dense layer.

    Thirteen convolutions (14,714,688 parameters), fully connected layers `fc1`,
    `fc2`, ... with ReLU and dropout, and the output. The last fully connected layer
    gives `features`.

    Fully connected layers that are loaded belong to the backbone, so that
    `trainable_layers = 0` trains the last layer only, as in paper A. A file brings
    them if it holds any, ImageNet at 224 px with `fully_connected_units =
    [4096, 4096]`. Else they are new, stand on the backbone and always train.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Not read.

    Returns:
        Model: `(batch, image_size, image_size, 3)` in [0, 255] -> `{"features":
        float32 (batch, fully_connected_units[-1]), "logits": float32 (batch, C)}`.

    Raises:
        ExperimentError: If the weights cannot be had, or do not fit; if there is no
            layer `features_from`.

    Reference:
    - [Simonyan and Zisserman, 2014](https://arxiv.org/abs/1409.1556)
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534)
    """
    size = settings.image_size
    inputs = keras.Input(shape=(size, size, 3), name=settings.modality)
    images = subtract_mean(inputs)
    loaded = _dense_layers(settings)
    if loaded:
        network = _with_fully_connected(settings, loaded)
        features, inner = apply_backbone(settings, network, images)
        return finish(settings, inputs, features, num_classes, inner)
    network = published(settings, _convolutions(settings), "VGG-16 without its top")
    inside = settings
    if settings.features_from in _names(settings):  # which `finish` finds
        inside = settings.model_copy(update={"features_from": ""})
    maps, inner = apply_backbone(inside, network, images)
    features = _fully_connected(settings, maps)
    return finish(settings, inputs, features, num_classes, inner)


def _dense_layers(settings: Vgg16) -> int:
    """How many fully connected layers come with the weights."""
    if settings.weights == "none":
        return 0
    if settings.weights == "imagenet":
        fits = settings.image_size == PUBLISHED_SIZE_PX
        fits &= settings.fully_connected_units == PUBLISHED_UNITS
        return len(PUBLISHED_UNITS) + 1 if fits else 0
    try:
        with h5py.File(settings.weights) as file:
            # Keras 3 keeps layers by class in a folder of their own, Keras 2 by name.
            names = list(file.get("layers", file))
    except OSError:
        return 0  # loading it says what is wrong
    return sum(x.startswith(("dense", "fc", "predictions")) for x in names)


def _convolutions(settings: Vgg16):
    size = settings.image_size
    return lambda weights: keras.applications.VGG16(
        include_top=False, weights=weights, input_shape=(size, size, 3)
    )


def _with_fully_connected(settings: Vgg16, loaded: int) -> keras.Model:
    units = settings.fully_connected_units
    convolutions = _convolutions(settings)(None)
    features = _fully_connected(settings, convolutions.output)
    network = keras.Model(convolutions.input, features)
    if settings.weights == "imagenet":
        classifier = published(
            settings, lambda weights: keras.applications.VGG16(weights=weights), ""
        )
        network.set_weights(classifier.get_weights()[:-2])
        return network
    whole = network
    if loaded > len(units):
        top = layers.Dense(PUBLISHED_CLASSES, name="predictions")(features)
        whole = keras.Model(network.input, top)
    title = f"VGG-16 at {settings.image_size} px with fully_connected_units = {units}"
    load_file(settings, whole, title)
    return network


def _names(settings: Vgg16) -> list[str]:
    return [f"fc{i}" for i, _ in enumerate(settings.fully_connected_units, start=1)]


def _fully_connected(settings: Vgg16, maps):
    x = layers.Flatten(name="flatten")(maps)
    pairs = zip(_names(settings), settings.fully_connected_units, strict=True)
    for position, (name, units) in enumerate(pairs):
        if position:  # the last one's dropout is the output's
            x = layers.Dropout(settings.dropout, name=f"{name}_dropout")(x)
        x = layers.Dense(units, "relu", name=name)(x)
    return x
