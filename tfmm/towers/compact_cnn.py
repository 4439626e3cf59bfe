"""compact_cnn: a small residual network for small catalogs."""

from collections.abc import Sequence

import keras
from keras import layers

from tfmm.layers.squeeze_excitation import SqueezeExcitation
from tfmm.settings import CompactCnn
from tfmm.towers.output import finish

MOMENTUM = 0.9  # of running statistics: a small catalog has few updates to move them
REDUCTION = 8


def compact_cnn(
    settings: CompactCnn, num_classes: int, training_texts: Sequence[str] = ()
) -> keras.Model:
    """Builds a residual network that learns from a few thousand images.

    A 3 x 3 convolution halves the image, then come steps of `blocks` residual blocks
    each; every step but the first halves the side again. A block normalises and
    activates ahead of each of its two 3 x 3 convolutions and weighs its channels by
    squeeze and excitation; where it changes the shape, its shortcut takes the mean of
    2 x 2 cells and a 1 x 1 convolution. The mean over the last map is `features`.
    Blocks are named `step1_block1`, ...; `features_from` takes any of them.

    Args:
        settings: `[towers.NAME]` of the experiment.
        num_classes: `C`.
        training_texts: Not read.

    Returns:
        Model: `(batch, image_size, image_size, 3)` in [0, 255] ->
        `{"features": float32 (batch, widths[-1]), "logits": float32 (batch, C)}`.

    Raises:
        ExperimentError: If there is no layer `features_from`.

    Reference:
    - [He et al., 2016](https://arxiv.org/abs/1603.05027), normalisation first.
    - [He et al., 2018](https://arxiv.org/abs/1812.01187), the shortcut.
    - [Hu et al., 2017](https://arxiv.org/abs/1709.01507)
    """
    momentum = settings.batch_normalization_momentum
    momentum = MOMENTUM if momentum is None else momentum
    size = settings.image_size
    inputs = keras.Input(shape=(size, size, 3), name=settings.modality)
    x = _convolution(inputs / 127.5 - 1.0, settings.widths[0], 3, 2, "stem")
    for step, width in enumerate(settings.widths, start=1):
        for block in range(1, settings.blocks + 1):
            strides = 2 if step > 1 and block == 1 else 1
            x = _block(x, width, strides, momentum, f"step{step}_block{block}")
    x = _activation(x, momentum, "last")
    features = layers.GlobalAveragePooling2D(name="pooled")(x)
    return finish(settings, inputs, features, num_classes)


def _block(inputs, width: int, strides: int, momentum: float, name: str):
    x = _activation(inputs, momentum, f"{name}_1")
    shortcut = inputs
    if strides > 1 or inputs.shape[-1] != width:
        shortcut = x
        if strides > 1:
            shortcut = layers.AveragePooling2D(
                strides, padding="same", name=f"{name}_shortcut_mean"
            )(shortcut)
        shortcut = _convolution(shortcut, width, 1, 1, f"{name}_shortcut")
    x = _convolution(x, width, 3, strides, f"{name}_1_convolution")
    x = _activation(x, momentum, f"{name}_2")
    x = _convolution(x, width, 3, 1, f"{name}_2_convolution")
    x = SqueezeExcitation(REDUCTION, name=f"{name}_squeeze_excitation")(x)
    return layers.Add(name=name)([x, shortcut])


def _activation(x, momentum: float, name: str):
    x = layers.BatchNormalization(momentum=momentum, name=f"{name}_normalization")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _convolution(x, width: int, side: int, strides: int, name: str):
    return layers.Conv2D(
        width,
        side,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
