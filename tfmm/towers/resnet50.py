"""resnet50: a residual network over an image."""

import warnings
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from tfmm.errors import ExperimentError
from tfmm.settings import ResNet50

# Mean of ImageNet's blue, green and red, which the published weights expect removed.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)


def resnet50(
    settings: ResNet50, num_classes: int, training_texts: Sequence[str] = ()
) -> keras.Model:
    """Builds ResNet-50 with its top replaced by one dense layer.

    The mean over the last feature map is `features`; its 23,587,712 parameters come
    from `weights`. Paper C: `weights = "imagenet"`, `trainable_layers = 40`. Layers
    that stay frozen keep their batch normalisation in inference mode.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Not read.

    Returns:
        Model: float32 `(batch, image_size, image_size, 3)` in [0, 255] ->
        `{"features": (batch, 2048), "logits": (batch, C)}`.

    Raises:
        ExperimentError: If the weights cannot be had, or do not fit.

    Reference:
    - [He et al., 2015](https://arxiv.org/abs/1512.03385)
    - Wirojwatanakul and Wangperawong 2019, "Multi-Label Product Categorization"
    """
    size = settings.image_size
    inputs = keras.Input(shape=(size, size, 3), name=settings.modality)
    scaled = ops.flip(inputs, axis=-1) - np.array(IMAGENET_MEAN_BGR, np.float32)
    backbone = _backbone(settings.weights, size)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = settings.batch_normalization_momentum
    if settings.trainable_layers != "all":
        frozen = max(len(backbone.layers) - settings.trainable_layers, 0)
        for layer in backbone.layers[:frozen]:
            layer.trainable = False
    features = keras.layers.Identity(dtype="float32", name="features")(backbone(scaled))
    dropped = keras.layers.Dropout(settings.dropout)(features)
    logits = keras.layers.Dense(num_classes, dtype="float32", name="logits")(dropped)
    return keras.Model(
        {settings.modality: inputs}, {"features": features, "logits": logits}
    )


def _backbone(weights: str, size: int) -> keras.Model:
    options = {"include_top": False, "input_shape": (size, size, 3), "pooling": "avg"}
    if weights == "none":
        return keras.applications.ResNet50(weights=None, **options)
    if weights == "imagenet":
        try:
            return keras.applications.ResNet50(weights="imagenet", **options)
        except Exception as error:  # Keras raises a bare Exception if a download fails
            raise ExperimentError(
                "resnet50: weights = 'imagenet' could not be downloaded "
                f"({str(error).splitlines()[0]}); give the path of a local copy"
            ) from error
    backbone = keras.applications.ResNet50(weights=None, **options)
    try:
        with warnings.catch_warnings():
            # Keras only warns of layers that it leaves as they are.
            warnings.simplefilter("error")
            backbone.load_weights(weights)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise ExperimentError(
            f"resnet50: {weights} does not hold the weights of ResNet-50 without "
            f"its top: {str(error).splitlines()[0]}"
        ) from None
    return backbone
