"""resnet50: a residual network over an image."""

from collections.abc import Sequence

import keras

from tfmm.settings import ResNet50
from tfmm.towers.backbone import apply_backbone, published, subtract_mean
from tfmm.towers.output import finish


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
        Model: `(batch, image_size, image_size, 3)` in [0, 255] ->
        `{"features": float32 (batch, 2048), "logits": float32 (batch, C)}`.

    Raises:
        ExperimentError: If the weights cannot be had, or do not fit; if there is no
            layer `features_from`.

    Reference:
    - [He et al., 2015](https://arxiv.org/abs/1512.03385)
    - Wirojwatanakul and Wangperawong 2019, "Multi-Label Product Categorization"
    """
    size = settings.image_size
    inputs = keras.Input(shape=(size, size, 3), name=settings.modality)
    network = published(
        settings,
        lambda weights: keras.applications.ResNet50(
            include_top=False,
            weights=weights,
            input_shape=(size, size, 3),
            pooling="avg",
        ),
        "ResNet-50 without its top",
    )
    features, inner = apply_backbone(settings, network, subtract_mean(inputs))
    return finish(settings, inputs, features, num_classes, inner)
