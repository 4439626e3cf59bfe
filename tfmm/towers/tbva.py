"""tbva: an image network that a text tells where to look."""

import keras
import numpy as np
from keras import layers, ops

from tfmm.errors import ExperimentError, did_you_mean
from tfmm.layers.has_text import HasText
from tfmm.layers.text_attention import TextAttention, query_size
from tfmm.settings import Tbva
from tfmm.towers.output import layer_vector

INCEPTION_MODULES = ("mixed2", "mixed4", "mixed7", "mixed9")
RESNET_STAGES = {
    "conv2": "conv2_block3_out",
    "conv3": "conv3_block4_out",
    "conv4": "conv4_block6_out",
}


def tbva(
    settings: Tbva,
    image_model: keras.Model,
    text_model: keras.Model,
    num_classes: int,
) -> keras.Model:
    """Puts text-based visual attention into a trained image tower.

    The features `t` of a trained text tower become a query, `q = t W_t`, by which
    `TextAttention` weighs the feature map that leaves one layer of the image network,
    on its way to the next. Points, with the map's cells at three image sizes and paper
    B's validation top-1 on 10 % of its ads:

    | insert_at | paper | 96 px | 128 px | 299 px | C | width/height | channel |
    |---|---|---|---|---|---|---|---|
    | `pool2` | a | 9 x 9 | 13 x 13 | 35 x 35 | 192 | 75.82 | 69.16 |
    | `mixed2` | b | 9 x 9 | 13 x 13 | 35 x 35 | 288 | 78.23 | 77.75 |
    | `mixed4` | c | 4 x 4 | 6 x 6 | 17 x 17 | 768 | 82.78 | 80.98 |
    | `mixed7` | d | 4 x 4 | 6 x 6 | 17 x 17 | 768 | 81.92 | 80.70 |
    | `mixed9` | e | 1 x 1 | 2 x 2 | 8 x 8 | 2048 | 82.29 | 69.92 |

    Of ResNet-50, `conv2`, `conv3` and `conv4` are the maps that leave its stages.

    `W_t` starts at zero, and `form` `scaled` or `average` then leaves every map as it
    is: the new tower answers as its image tower does, until training moves it.
    `initializer_stddev` draws `W_t` instead, as paper B does. A product without a text
    has a query of zeros for good.

    The image network is copied, with the attention inside, into the one layer
    `backbone`: its layers are counted and frozen as an image tower's. `W_t` is the
    layer `query` outside, which always trains. `text_model` is taken over as the layer
    `text_network`, to train as a whole (`train_text`) or in inference mode; a layer
    `backbone` inside becomes `text_backbone`.

    Paper B saw attention gather at the border, where the text leaves a code for later
    layers to read. `late_text` gives it another way: ReLU of a dense layer on `t`,
    zeros without a text, joins the pooled map ahead of the output, in `features` too.

    Args:
        settings: `[towers.NAME]` of the experiment.
        image_model: Trained tower, `inception_v3` or `resnet50`.
        text_model: Trained tower: string `(batch,)` -> `features` and `logits`.
        num_classes: `C`, as of both towers.

    Returns:
        Model with the inputs of both towers, by their names: `(batch, image_size,
        image_size, 3)` in [0, 255] and string `(batch,)` -> `{"features": (batch,
        2048), or 2048 + late_text_units; "logits": (batch, C); "attention": (batch, h,
        w), at least 0, summing to 1}`, all float32.

    Raises:
        ExperimentError: If the image tower is another network, has no such point, or
            a map of a single cell there; if there is no layer `features_from`.
        ValueError: If the image tower has another number of classes.

    Reference:
    - Åberg 2018, "Text Based Visual Attention".
    """
    network = _network(image_model)
    [(image_name, image_input)] = image_model.input.items()
    [(text_name, _)] = text_model.input.items()
    images = keras.Input(image_input.shape[1:], name=image_name)
    texts = keras.Input((), dtype="string", name=text_name)

    vector = _text(settings, text_model)({text_name: texts})
    has_text = ops.expand_dims(HasText(name="has_text")(texts), -1)
    vector = vector * ops.cast(has_text, vector.dtype)
    backbone = _attended(settings, network)
    query = layers.Dense(
        backbone.inputs[1].shape[-1],
        use_bias=False,
        kernel_initializer=_initializer(settings),
        name="query",
    )(vector)
    scaled = keras.Model(
        image_model.input,
        image_model.get_layer("backbone")._inbound_nodes[0].input_tensors[0],
        name="scale",
    )({image_name: images})
    features, attention, *inner = backbone([scaled, query])

    if settings.late_text:
        late = layers.Dense(settings.late_text_units, "relu", name="late_text")(vector)
        late = late * ops.cast(has_text, late.dtype)
        features = ops.concatenate([features, late], axis=-1)
    dropped = layers.Dropout(settings.dropout, name="dropout")(features)
    output = layers.Dense(num_classes, dtype="float32", name="logits")
    logits = output(dropped)
    _start_output(output, image_model.get_layer("logits"))
    named = {"features": inner[0] if inner else features, "attention": attention}
    return keras.Model(
        {image_name: images, text_name: texts},
        {
            "logits": logits,
            **{
                name: layers.Identity(dtype="float32", name=name)(tensor)
                for name, tensor in named.items()
            },
        },
    )


def _network(image_model: keras.Model) -> keras.Model:
    for layer in image_model.layers:
        if layer.name == "backbone" and _points(layer):
            return layer
    raise ExperimentError(
        "tbva: image_tower must be a tower of model inception_v3 or resnet50. "
        "Received: a tower of another network"
    )


def _points(network: keras.Model) -> dict[str, str]:
    """`insert_at` -> the layer whose output is attended to."""
    names = {layer.name for layer in network.layers}
    if "mixed10" in names:
        # Keras numbers them through all networks of a process.
        pools = [x for x in network.layers if isinstance(x, layers.MaxPooling2D)]
        return {"pool2": pools[1].name, **{x: x for x in INCEPTION_MODULES}}
    return {stage: name for stage, name in RESNET_STAGES.items() if name in names}


def _attended(settings: Tbva, network: keras.Model) -> keras.Model:
    """A copy: images and query -> pooled map, attention, and `features_from`."""
    points = _points(network)
    if settings.insert_at not in points:
        raise ExperimentError(
            f"tbva: insert_at = {settings.insert_at!r} is no point of "
            f"{settings.image_tower}{did_you_mean(settings.insert_at, points)}"
        )
    point = points[settings.insert_at]
    map_shape = network.get_layer(point).output.shape
    if map_shape[1:3] == (1, 1):
        raise ExperimentError(
            f"tbva: insert_at = {settings.insert_at!r} must have a map of more than "
            "one cell; use an earlier point or larger images. Received: one cell at "
            f"image_size = {network.inputs[0].shape[1]}"
        )
    attend = TextAttention(settings.attention, settings.form, name="text_attention")
    images = keras.Input(network.inputs[0].shape[1:], name="images")
    query = keras.Input((query_size(settings.attention, map_shape),), name="query")
    attention = []

    def copied(layer):
        policy = keras.config.dtype_policy().name
        return type(layer).from_config({**layer.get_config(), "dtype": policy})

    def call(layer, *args, **kwargs):
        output = layer(*args, **kwargs)
        if layer.name != point:
            return output
        output, _, shown = attend(output, query)
        attention.append(shown)
        return output

    copy = keras.models.clone_model(
        keras.Model([network.inputs[0], query], network.outputs[0]),
        [images, query],
        copied,
        call,
    )
    outputs = [copy.outputs[0], *attention]
    if settings.features_from:
        outputs.append(layer_vector(settings, copy))
    backbone = keras.Model([images, query], outputs, name="backbone")
    for layer in backbone.layers:
        if layer.weights:
            layer.set_weights(network.get_layer(layer.name).get_weights())
    return backbone


def _text(settings: Tbva, text_model: keras.Model):
    """A function from the text tower's input to its features."""
    text = keras.Model(
        text_model.input, text_model.output["features"], name="text_network"
    )
    for layer in text._flatten_layers():
        # Each by itself: Keras passes on no value that a model has already. Logits
        # may lie inside of a `network`, and are of no use here.
        layer.trainable = settings.train_text and layer.name != "logits"
        if layer.name == "backbone":  # which is what the trainer counts layers of
            layer.name = "text_backbone"
    return text if settings.train_text else lambda texts: text(texts, training=False)


def _initializer(settings: Tbva):
    if settings.initializer_stddev:
        return keras.initializers.TruncatedNormal(stddev=settings.initializer_stddev)
    return "zeros"


def _start_output(output: layers.Dense, trained: layers.Dense) -> None:
    """Starts from the image tower's output; the rows of the late text start at 0."""
    if output.units != trained.units:
        raise ValueError(
            f"`num_classes` must be {trained.units}, that of `image_model`. "
            f"Received: {output.units}"
        )
    kernel, bias = trained.get_weights()
    missing = output.kernel.shape[0] - kernel.shape[0]
    output.set_weights([np.pad(kernel, ((0, missing), (0, 0))), bias])
