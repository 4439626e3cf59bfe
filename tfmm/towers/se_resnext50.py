"""se_resnext50: a residual network of grouped convolutions over an image."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from tfmm.errors import ExperimentError
from tfmm.layers.grouped_convolution_2d import GroupedConvolution2D
from tfmm.layers.squeeze_excitation import SqueezeExcitation
from tfmm.settings import SeResNeXt50
from tfmm.towers.backbone import apply_backbone, first_line, published
from tfmm.towers.output import finish

# Of ImageNet's red, green and blue in [0, 1].
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STDDEV_RGB = (0.229, 0.224, 0.225)

BLOCKS = (3, 4, 6, 3)
FILTERS = (256, 512, 1024, 2048)  # that leave a block; its grouped half has half
GROUPS = 32
REDUCTION = 16
EPSILON = 1e-5
MOMENTUM = 0.9
TITLE = "SE-ResNeXt-50 (32 x 4d) without its top"


def se_resnext50(
    settings: SeResNeXt50, num_classes: int, training_texts: Sequence[str] = ()
) -> keras.Model:
    """Builds SE-ResNeXt-50 (32 x 4d) with its top replaced by one dense layer.

    ResNet-50 with two changes: its 3 x 3 convolutions have twice the channels in 32
    groups, and every block ends in squeeze and excitation. The mean over the last
    feature map is `features`; its 25,510,896 trainable parameters come from
    `weights`. Layers that stay frozen keep their batch normalisation in inference
    mode.

    Nobody publishes these weights for Keras. `weights` names a `.weights.h5` that
    the backbone was saved to, or PyTorch's `.safetensors` in the names of the first
    publication (`layer1.0.conv1.weight`, `layer1.0.se_module.fc1.weight`); its top,
    `last_linear`, is not read.

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
    - [Hu et al., 2017](https://arxiv.org/abs/1709.01507), table 1
    - Verma, Chakraborty and Motupalli 2020, "Deep Multi-level Boosted Fusion Learning
        Framework for Multi-modal Product Classification"
    """
    size = settings.image_size
    inputs = keras.Input(shape=(size, size, 3), name=settings.modality)
    mean = np.array(IMAGENET_MEAN_RGB, np.float32) * 255
    scaled = (inputs - mean) / (np.array(IMAGENET_STDDEV_RGB, np.float32) * 255)
    if settings.weights.endswith(".safetensors"):
        network = _network(size)
        _load_safetensors(network, settings.weights)
    else:
        network = published(settings, lambda weights: _network(size), TITLE)
    features, inner = apply_backbone(settings, network, scaled)
    return finish(settings, inputs, features, num_classes, inner)


def _network(size: int) -> keras.Model:
    """The network with PyTorch's padding and, `_` for `.`, PyTorch's names."""
    images = keras.Input(shape=(size, size, 3))
    x = layers.ZeroPadding2D(3, name="layer0_padding")(images)
    x = _convolution(x, 64, 7, 2, "layer0_conv1")
    x = layers.ReLU(name="layer0_relu1")(_normalization(x, "layer0_bn1"))
    # As PyTorch rounds up: a last window may reach past the right and lower edge.
    padding = "valid" if x.shape[1] % 2 else "same"
    x = layers.MaxPooling2D(3, 2, padding=padding, name="layer0_pool")(x)
    for stage, (blocks, filters) in enumerate(zip(BLOCKS, FILTERS, strict=True), 1):
        for block in range(blocks):
            strides = 2 if stage > 1 and block == 0 else 1
            x = _block(x, filters, strides, f"layer{stage}_{block}")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(images, x)


def _block(inputs, filters: int, strides: int, name: str):
    half = filters // 2
    x = _convolution(inputs, half, 1, 1, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(_normalization(x, f"{name}_bn1"))
    x = layers.ZeroPadding2D(1, name=f"{name}_padding")(x)
    x = _convolution(x, half, 3, strides, f"{name}_conv2", GROUPS)
    x = layers.ReLU(name=f"{name}_relu2")(_normalization(x, f"{name}_bn2"))
    x = _convolution(x, filters, 1, 1, f"{name}_conv3")
    x = _normalization(x, f"{name}_bn3")
    x = SqueezeExcitation(REDUCTION, name=f"{name}_se_module")(x)
    shortcut = inputs
    if strides > 1 or inputs.shape[-1] != filters:
        shortcut = _convolution(inputs, filters, 1, strides, f"{name}_downsample_0")
        shortcut = _normalization(shortcut, f"{name}_downsample_1")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_out")(x)


def _convolution(x, filters: int, side: int, strides: int, name: str, groups: int = 1):
    kind = GroupedConvolution2D if groups > 1 else layers.Conv2D
    return kind(
        filters,
        side,
        strides,
        groups=groups,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _normalization(x, name: str):
    return layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)(x)


def _load_safetensors(network: keras.Model, path: str) -> None:
    # Not for every run: safetensors is needed for such files only.
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        for name, weight in _pytorch_names(network):
            value = tensors[name]
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
            if name.endswith((".fc1.weight", ".fc2.weight")):
                value = value[0, 0]
            if value.shape != tuple(weight.shape):
                raise ValueError(
                    f"{name} must be {tuple(weight.shape)}. Received: {value.shape}"
                )
            weight.assign(value)
    except KeyError as error:
        reason = f"it has no {error}"
    except (OSError, ValueError, SafetensorError) as error:
        reason = first_line(error)
    else:
        return
    raise ExperimentError(
        f"se_resnext50: {path} does not hold the weights of {TITLE}: {reason}"
    )


def _pytorch_names(network: keras.Model):
    """Pairs of PyTorch's name and our weight."""
    for layer in network.layers:
        stem, _, rest = layer.name.partition("_")
        if stem != "layer0" and rest:
            block, _, rest = rest.partition("_")
            stem = f"{stem}.{block}"
        stem = f"{stem}.{rest}".replace("downsample_", "downsample.")
        match layer:
            case layers.BatchNormalization():
                yield f"{stem}.weight", layer.gamma
                yield f"{stem}.bias", layer.beta
                yield f"{stem}.running_mean", layer.moving_mean
                yield f"{stem}.running_var", layer.moving_variance
            case SqueezeExcitation():
                for number, dense in enumerate((layer.squeeze, layer.excite), 1):
                    yield f"{stem}.fc{number}.weight", dense.kernel
                    yield f"{stem}.fc{number}.bias", dense.bias
            case layers.Conv2D():
                yield f"{stem}.weight", layer.kernel
