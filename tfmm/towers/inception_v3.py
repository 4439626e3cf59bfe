"""inception_v3: an Inception network over an image."""

from collections.abc import Sequence

import keras

from tfmm.settings import InceptionV3
from tfmm.towers.backbone import apply_backbone, published
from tfmm.towers.output import finish


def inception_v3(
    settings: InceptionV3, num_classes: int, training_texts: Sequence[str] = ()
) -> keras.Model:
    """Builds Inception v3 with its top replaced by one dense layer.

    The mean over the last feature map is `features`; its 21,802,784 parameters come
    from `weights`. Paper B: `weights = "imagenet"`, 299 px and two stages, the first
    with `trainable_layers = 0`, the second with `"all"`. `features_from = "mixed4"`
    takes features from the output of the fifth of its eleven modules. Layers that
    stay frozen keep their batch normalisation in inference mode.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Not read.

    Returns:
        Model: `(batch, image_size, image_size, 3)` in [0, 255] ->
        `{"features": float32 (batch, 2048), "logits": float32 (batch, C)}`.

    Raises:
        ExperimentError: If the weights cannot be had, or do not fit; if there is no
            layer `features_from`.

    Reference:
    - [Szegedy et al., 2015](https://arxiv.org/abs/1512.00567)
    - Åberg 2018, the image network.
    """
    size = settings.image_size
    inputs = keras.Input(shape=(size, size, 3), name=settings.modality)
    network = published(
        settings,
        lambda weights: keras.applications.InceptionV3(
            include_top=False,
            weights=weights,
            input_shape=(size, size, 3),
            pooling="avg",
        ),
        "Inception v3 without its top",
    )
    scaled = inputs / 127.5 - 1.0
    features, inner = apply_backbone(settings, network, scaled)
    return finish(settings, inputs, features, num_classes, inner)
