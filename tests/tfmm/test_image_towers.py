"""Every image tower through one bench, and what is its own."""

import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format
from safetensors.numpy import save_file
from tensorflow.core.protobuf import saved_model_pb2

from tfmm import settings as tables
from tfmm.errors import ExperimentError
from tfmm.towers import TOWERS

LABELS = np.arange(8) % 4
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3))

# Settings of small towers. Those left out of QUICK take long to build or to save.
BENCH = {
    "compact_cnn": (tables.CompactCnn, {"widths": [8, 16], "dropout": 0.0}),
    "resnet50": (tables.ResNet50, {"batch_normalization_momentum": 0.5}),
    "inception_v3": (
        tables.InceptionV3,
        {"image_size": 75, "batch_normalization_momentum": 0.5},
    ),
    "vgg16": (tables.Vgg16, {"fully_connected_units": [32, 16], "dropout": 0.0}),
    "se_resnext50": (tables.SeResNeXt50, {"batch_normalization_momentum": 0.5}),
}
QUICK = ("compact_cnn", "vgg16")
ALL = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
    for name in BENCH
]


def settings(name, **own):
    kind, options = BENCH[name]
    head = {"model": name, "modality": "image", "image_size": 32}
    return kind(**{**head, **options, **own})


def build(name, num_classes=4, **own):
    return TOWERS[name](settings(name, **own), num_classes, ())


def images_for(model, count=8):
    side = model.input["image"].shape[1]
    images = keras.ops.image.resize(np.float32(IMAGES[:count]), (side, side))
    return {"image": np.asarray(images).round()}


def backbone_of(model):
    return model.get_layer("backbone")


def what_the_backbone_reads(model, images):
    """The tensor that a tower makes of images."""
    scaled = backbone_of(model)._inbound_nodes[-1].input_tensors[0]
    return np.asarray(keras.Model(model.input, scaled)(images))


def set_trainable(backbone, last):
    """As the trainer freezes a backbone's layers."""
    for position, layer in enumerate(backbone.layers):
        layer.trainable = position >= len(backbone.layers) - last


def trained(model, images, epochs=1, optimizer="sgd"):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss={"logits": loss}, jit_compile=False)
    labels = {"logits": LABELS[: len(images["image"])]}
    model.fit(images, labels, batch_size=8, epochs=epochs, verbose=0)
    return model


@pytest.fixture
def small_se_resnext50(monkeypatch):
    """Two blocks in place of sixteen."""
    file = sys.modules["tfmm.towers.se_resnext50"]
    monkeypatch.setattr(file, "BLOCKS", (1, 1))
    monkeypatch.setattr(file, "FILTERS", (64, 128))
    return file


# Numbers of weights


def test_compact_cnn_is_compact():
    own = tables.CompactCnn(model="compact_cnn", modality="image")
    assert 1_000_000 < TOWERS["compact_cnn"](own, 57, ()).count_params() < 2_000_000


def test_resnet50_has_the_published_parameters():
    assert build("resnet50", 7).count_params() == 23_587_712 + 2048 * 7 + 7


def test_inception_v3_has_the_published_parameters():
    assert build("inception_v3", 7).count_params() == 21_802_784 + 2048 * 7 + 7


def test_vgg16_has_the_published_convolutions():
    model = build("vgg16", 7)
    assert backbone_of(model).count_params() == 14_714_688
    fully_connected = (512 * 32 + 32) + (32 * 16 + 16) + (16 * 7 + 7)
    assert model.count_params() == 14_714_688 + fully_connected


@pytest.mark.slow  # takes 2 GB
def test_vgg16_has_the_published_parameters():
    options = {"image_size": 224, "fully_connected_units": [4096, 4096]}
    assert build("vgg16", 1000, **options).count_params() == 138_357_544


def test_se_resnext50_has_the_published_trainable_parameters():
    model = build("se_resnext50", 1000)
    counts = [int(np.prod(x.shape)) for x in model.trainable_weights]
    assert sum(counts) == 27_559_896
    assert sum(counts) - 2048 * 1000 - 1000 == 25_510_896


# One bench


def check_overfits_eight_products(name):
    keras.utils.set_random_seed(0)
    model = build(name)
    rate = 1e-4 if name == "vgg16" else 1e-3
    trained(model, images_for(model), 20, keras.optimizers.Adam(rate))
    logits = model.predict(images_for(model), verbose=0)["logits"]
    np.testing.assert_array_equal(np.argmax(logits, axis=1), LABELS)


def test_compact_cnn_overfits_eight_products():
    check_overfits_eight_products("compact_cnn")


def test_small_se_resnext50_overfits_eight_products(small_se_resnext50):
    check_overfits_eight_products("se_resnext50")


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCH)
def test_tower_overfits_eight_products(name):
    check_overfits_eight_products(name)


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_weights(name):
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        models.append(build(name))
    for first, second in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.fixture
def mixed_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", ALL)
def test_outputs_are_float32_in_mixed_precision(name, mixed_bfloat16):
    model = build(name)
    said = trained(model, images_for(model))(images_for(model), training=False)
    assert {str(x.dtype) for x in model.weights} == {"float32"}
    for output in said.values():
        assert output.dtype == tf.float32
        assert np.isfinite(output).all()
    kind = keras.layers.Conv2D
    convolutions = [x for x in model._flatten_layers() if isinstance(x, kind)]
    assert {x.compute_dtype for x in convolutions} == {"bfloat16"}


@pytest.mark.parametrize("name", ALL)
def test_whole_numbers_and_floats_are_the_same_image(name):
    model = build(name)
    images = images_for(model)
    expected = model(images, training=False)["logits"]
    whole = {"image": np.uint8(images["image"])}
    np.testing.assert_array_equal(model(whole, training=False)["logits"], expected)


def functions_of(path):
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].graph_def.library.function


def check_saved_and_exported(model, path):
    images = images_for(model, 3)
    expected = model(images, training=False)
    model.save(path / "model.keras")
    again = keras.saving.load_model(path / "model.keras")(images, training=False)
    shape = (None, *images["image"].shape[1:])
    root = tf.Module()
    root.model = model
    root.call = tf.function(
        lambda image: model({"image": image}, training=False),
        input_signature=[tf.TensorSpec(shape, tf.float32, name="image")],
    )
    tf.saved_model.save(root, str(path / "exported"))
    with tf.device("CPU"):
        served = tf.saved_model.load(str(path / "exported"))
        said = served.call(tf.constant(images["image"]))
    for name in ("features", "logits"):
        # Untrained towers put out large values, so relative to the largest.
        largest = max(1.0, float(np.abs(expected[name]).max()))
        for other in (again[name], said[name]):
            np.testing.assert_allclose(other, expected[name], 0, 1e-5 * largest)
    functions = functions_of(path / "exported")
    assert "Conv2D" in {node.op for f in functions for node in f.node_def}
    assert not [f for f in functions if "_XlaMustCompile" in f.attr]


@pytest.mark.parametrize("name", ALL)
def test_tower_is_the_same_saved_and_exported(name, tmp_path):
    check_saved_and_exported(build(name), tmp_path)


def test_small_se_resnext50_is_the_same_saved_and_exported(
    small_se_resnext50, tmp_path
):
    model = build("se_resnext50", features_from="layer1_0_out")
    trained(model, images_for(model))
    assert model.output["features"].shape == (None, 64)
    check_saved_and_exported(model, tmp_path)


# Scaling


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "vgg16"])
def test_images_are_scaled_as_the_published_weights_expect(name, monkeypatch):
    module = {"resnet50": "ResNet50", "inception_v3": "InceptionV3", "vgg16": "VGG16"}
    side = settings(name).image_size

    def tiny_network(**options):
        maps = keras.Sequential([keras.Input((side, side, 3)), keras.layers.Flatten()])
        return keras.Model(maps.inputs, maps.outputs[0])

    monkeypatch.setattr(keras.applications, module[name], tiny_network)
    model = build(name)
    images = images_for(model)
    preprocess = getattr(keras.applications, name).preprocess_input
    expected = preprocess(images["image"].copy())
    said = what_the_backbone_reads(model, images)
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-4)


def test_se_resnext50_scales_by_imagenets_mean_and_deviation(small_se_resnext50):
    model = build("se_resnext50")
    expected = keras.applications.imagenet_utils.preprocess_input(
        images_for(model)["image"].copy(), mode="torch"
    )
    said = what_the_backbone_reads(model, images_for(model))
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-4)


# Features from inside


@pytest.mark.parametrize(
    ("name", "layer", "channels"),
    [
        ("compact_cnn", "step1_block1", 8),
        ("vgg16", "fc1", 32),
        ("vgg16", "block4_pool", 512),
        ("resnet50", "conv4_block6_out", 1024),
        pytest.param("inception_v3", "mixed4", 768, marks=pytest.mark.slow),
        pytest.param("se_resnext50", "layer3_5_out", 1024, marks=pytest.mark.slow),
    ],
)
def test_features_from_an_inner_layer(name, layer, channels):
    model = build(name, features_from=layer)
    said = model(images_for(model), training=False)
    assert said["features"].shape == (8, channels)
    inside = [x for x in model._flatten_layers() if x.name == layer]
    assert len(inside) == 1
    if "backbone" in {x.name for x in model.layers} and layer != "fc1":
        backbone = backbone_of(model)
        maps = keras.Model(backbone.input, inside[0].output)(
            what_the_backbone_reads(model, images_for(model)), training=False
        )
        expected = np.mean(maps, axis=(1, 2))
        np.testing.assert_allclose(said["features"], expected, rtol=1e-4, atol=1e-4)


def test_features_from_a_layer_that_is_not_there_names_the_nearest():
    message = "vgg16: features_from = 'block4_pol' is none of its layers; did you mean"
    with pytest.raises(ExperimentError, match=f"{message} 'block4_pool'"):
        build("vgg16", features_from="block4_pol")


# Weights


@pytest.fixture(scope="module")
def resnet50_file(tmp_path_factory):
    keras.utils.set_random_seed(11)
    network = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    path = tmp_path_factory.mktemp("weights") / "resnet50_notop.weights.h5"
    network.save_weights(path)
    return path, network


def legacy_file(network, path):
    """Writes weights as Keras 2 did, and as the published files are."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    return str(path)


def check_same_weights(model, network):
    for ours, theirs in zip(backbone_of(model).weights, network.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_resnet50_takes_the_weights_of_a_file_and_trains_its_last_layers(resnet50_file):
    path, network = resnet50_file
    model = build("resnet50", weights=str(path), trainable_layers=40)
    check_same_weights(model, network)
    backbone = backbone_of(model)
    assert len(backbone.layers) == len(network.layers) == 176
    set_trainable(backbone, 40)
    before = {w.path: np.asarray(w) for w in model.weights}
    trained(model, images_for(model, 4))
    changed = {w.path for w in model.weights if (before[w.path] != np.asarray(w)).any()}
    frozen = {w.path for layer in backbone.layers[:136] for w in layer.weights}
    assert frozen
    assert not changed & frozen  # moving statistics included
    assert {w.path for w in model.trainable_weights} & changed
    assert {w.path for w in model.get_layer("logits").weights} <= changed


def test_published_files_of_keras_2_are_read(resnet50_file, tmp_path):
    path = legacy_file(resnet50_file[1], tmp_path / "resnet50_kernels_notop.h5")
    check_same_weights(build("resnet50", weights=path), resnet50_file[1])


@pytest.mark.parametrize(
    ("write", "file"),
    [(legacy_file, "vgg16.h5"), (keras.Model.save_weights, "vgg16.weights.h5")],
)
@pytest.mark.parametrize("classes", [0, 1000])
def test_vgg16_takes_the_fully_connected_layers_that_a_file_has(
    write, file, classes, tmp_path
):
    network = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    x = keras.layers.Flatten()(network.output)
    for name, units in (("fc1", 32), ("fc2", 16)):
        x = keras.layers.Dense(units, "relu", name=name)(x)
    top = keras.layers.Dense(classes, name="predictions")(x) if classes else x
    path = tmp_path / file
    write(keras.Model(network.input, top), path)
    model = build("vgg16", weights=str(path), trainable_layers=0)
    check_same_weights(model, keras.Model(network.input, x))
    set_trainable(backbone_of(model), 0)
    # Paper A: "only the last layer trained".
    assert model.trainable_weights == model.get_layer("logits").weights
    assert model.output["features"].shape == (None, 16)


def test_vgg16_puts_new_layers_on_a_file_without_any(tmp_path):
    network = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(48, 48, 3)
    )
    path = legacy_file(network, tmp_path / "vgg16_kernels_notop.h5")
    model = build("vgg16", weights=path, trainable_layers=0)
    check_same_weights(model, network)
    set_trainable(backbone_of(model), 0)
    new = [
        x for layer in ("fc1", "fc2", "logits") for x in model.get_layer(layer).weights
    ]
    assert model.trainable_weights == new


def test_vgg16_takes_imagenets_fully_connected_layers_where_they_fit(monkeypatch):
    made = []

    def published(weights, include_top=True, input_shape=(32, 32, 3)):
        assert weights in (None, "imagenet")
        network = real(weights=None, include_top=False, input_shape=input_shape)
        if include_top:
            x = keras.layers.Flatten()(network.output)
            for units in (32, 16, 1000):
                x = keras.layers.Dense(units)(x)
            network = keras.Model(network.input, x)
        if weights:
            made.append((include_top, network))
        return network

    real = keras.applications.VGG16
    monkeypatch.setattr(keras.applications, "VGG16", published)
    file = sys.modules["tfmm.towers.vgg16"]
    monkeypatch.setattr(file, "PUBLISHED_SIZE_PX", 32)
    monkeypatch.setattr(file, "PUBLISHED_UNITS", [32, 16])
    model = build("vgg16", weights="imagenet")
    assert [top for top, _ in made] == [True]
    for ours, theirs in zip(
        backbone_of(model).weights, made[0][1].weights[:-2], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    other = build("vgg16", weights="imagenet", fully_connected_units=[32])
    assert [top for top, _ in made] == [True, False]
    check_same_weights(other, made[1][1])


def pytorch_tensors(network):
    """Random values under the names and in the shapes that PyTorch saves."""
    draw = np.random.default_rng(5)
    tensors = {}

    def convolution(name, out, into, side):
        tensors[f"{name}.weight"] = draw.normal(size=(out, into, side, side))

    def normalization(name, channels):
        for part in ("weight", "bias", "running_mean"):
            tensors[f"{name}.{part}"] = draw.normal(size=channels)
        tensors[f"{name}.running_var"] = draw.uniform(0.5, 1.5, channels)
        tensors[f"{name}.num_batches_tracked"] = np.array(7)

    convolution("layer0.conv1", 64, 3, 7)
    normalization("layer0.bn1", 64)
    before = 64
    for stage, filters in enumerate(network.FILTERS, 1):
        for block in range(network.BLOCKS[stage - 1]):
            name, half = f"layer{stage}.{block}", filters // 2
            convolution(f"{name}.conv1", half, before, 1)
            convolution(f"{name}.conv2", half, half // 32, 3)
            convolution(f"{name}.conv3", filters, half, 1)
            for number, channels in enumerate((half, half, filters), 1):
                normalization(f"{name}.bn{number}", channels)
            convolution(f"{name}.se_module.fc1", filters // 16, filters, 1)
            convolution(f"{name}.se_module.fc2", filters, filters // 16, 1)
            tensors[f"{name}.se_module.fc1.bias"] = draw.normal(size=filters // 16)
            tensors[f"{name}.se_module.fc2.bias"] = draw.normal(size=filters)
            if before != filters:
                convolution(f"{name}.downsample.0", filters, before, 1)
                normalization(f"{name}.downsample.1", filters)
            before = filters
    tensors["last_linear.weight"] = draw.normal(size=(1000, before))
    tensors["last_linear.bias"] = draw.normal(size=1000)
    return {name: np.asarray(x, np.float32) for name, x in tensors.items()}


def test_se_resnext50_reads_pytorchs_weights(small_se_resnext50, tmp_path):
    tensors = pytorch_tensors(small_se_resnext50)
    path = tmp_path / "se_resnext50_32x4d.safetensors"
    save_file(tensors, path)
    network = backbone_of(build("se_resnext50", weights=str(path)))
    read = sum(not x.endswith("num_batches_tracked") for x in tensors) - 2
    assert len(network.weights) == read
    kernel = network.get_layer("layer2_0_conv2").kernel
    expected = tensors["layer2.0.conv2.weight"]
    assert kernel.shape == (3, 3, 2, 64)
    assert float(kernel[2, 1, 0, 5]) == expected[5, 0, 2, 1]
    squeeze = network.get_layer("layer1_0_se_module").squeeze.kernel
    expected = tensors["layer1.0.se_module.fc1.weight"]
    np.testing.assert_array_equal(squeeze, expected[:, :, 0, 0].T)
    variance = network.get_layer("layer2_0_downsample_1").moving_variance
    np.testing.assert_array_equal(
        variance, tensors["layer2.0.downsample.1.running_var"]
    )


def test_se_resnext50_says_what_a_safetensors_file_lacks(small_se_resnext50, tmp_path):
    path = tmp_path / "other.safetensors"
    tensors = pytorch_tensors(small_se_resnext50)
    name = "layer1.0.conv2.weight"
    save_file({**tensors, name: tensors[name][:, :, :1]}, path)
    with pytest.raises(ExperimentError, match=f"{name} must be"):
        build("se_resnext50", weights=str(path))
    del tensors[name]
    save_file(tensors, path)
    with pytest.raises(ExperimentError, match=f"it has no '{name}'"):
        build("se_resnext50", weights=str(path))
    path.write_bytes(b"no tensors")
    with pytest.raises(ExperimentError, match="does not hold the weights"):
        build("se_resnext50", weights=str(path))


def test_frozen_normalisation_of_se_resnext50_does_not_move(
    small_se_resnext50, tmp_path
):
    path = tmp_path / "se_resnext50.weights.h5"
    backbone_of(build("se_resnext50")).save_weights(path)
    model = build("se_resnext50", weights=str(path), trainable_layers=0)
    set_trainable(backbone_of(model), 0)
    before = backbone_of(model).get_weights()
    trained(model, images_for(model))
    for old, new in zip(before, backbone_of(model).get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.fixture
def no_network(monkeypatch):
    def fail(*args, **options):
        if options.get("weights") == "imagenet":
            raise Exception("URL fetch failure on a-host: None -- unreachable\nmore")
        raise AssertionError("this needs no network")

    for name in ("ResNet50", "InceptionV3", "VGG16"):
        monkeypatch.setattr(keras.applications, name, fail)


@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "vgg16"])
def test_imagenets_weights_that_cannot_be_had_stop_with_a_reason(name, no_network):
    with pytest.raises(ExperimentError, match="could not be downloaded") as caught:
        build(name, weights="imagenet")
    assert str(caught.value).startswith(f"{name}: weights = 'imagenet'")
    assert "unreachable" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_se_resnext50_has_no_imagenet_weights_to_download():
    with pytest.raises(ValueError, match="give the path of a"):
        build("se_resnext50", weights="imagenet")


@pytest.mark.parametrize("file", ["none.h5", "none.weights.h5", "wrong", "torn", "txt"])
def test_files_that_hold_other_weights_stop_with_a_reason(file, tmp_path):
    path = tmp_path / ("w.txt" if file == "txt" else f"{file}.weights.h5")
    if file == "wrong":
        other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        other.save_weights(path)
    elif file == "none.h5":
        path = tmp_path / file
    elif file != "none.weights.h5":
        path.write_bytes(b"not a file of weights")
    with pytest.raises(ExperimentError, match="does not hold the weights") as caught:
        build("vgg16", weights=str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_momentum_of_the_running_statistics_is_the_networks_own_or_ours():
    def momenta(**own):
        model = build("compact_cnn", **own)
        found = [x for x in model._flatten_layers() if hasattr(x, "moving_mean")]
        return {x.momentum for x in found}

    assert momenta() == {0.9}
    assert momenta(batch_normalization_momentum=0.7) == {0.7}


# keras-hub


@pytest.fixture(scope="module")
def resnet_preset(tmp_path_factory):
    """A preset folder of a little ResNet, its network and its image converter."""
    import keras_hub

    keras.utils.set_random_seed(4)
    network = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
    )
    converter = keras_hub.layers.ResNetImageConverter(
        scale=[0.01, 0.02, 0.03], offset=[-1.0, -2.0, -3.0], image_size=(32, 32)
    )
    folder = tmp_path_factory.mktemp("presets") / "resnet"
    network.save_to_preset(folder)
    converter.save_to_preset(folder)
    return folder, network, converter


@pytest.fixture(scope="module")
def vit_preset(tmp_path_factory):
    """A preset folder of a little vision transformer, its network and converter."""
    import keras_hub

    network = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=8,
    )
    converter = keras_hub.layers.ViTImageConverter(scale=1 / 127.5, offset=-1.0)
    folder = tmp_path_factory.mktemp("presets") / "vit"
    network.save_to_preset(folder)
    converter.save_to_preset(folder)
    return folder, network, converter


def keras_hub_tower(preset, **own):
    head = {"model": "keras_hub_image", "modality": "image", "image_size": 32}
    table = tables.KerasHubImage(**{**head, "preset": str(preset), **own})
    return TOWERS["keras_hub_image"](table, 4, ())


@pytest.mark.parametrize("preset", ["resnet_preset", "vit_preset"])
def test_keras_hub_image_is_the_preset_with_its_scaling(preset, request, tmp_path):
    folder, network, converter = request.getfixturevalue(preset)
    model = keras_hub_tower(folder)
    images = images_for(model)
    check_same_weights(model, network)
    maps = np.asarray(network(converter(images["image"]), training=False))
    expected = maps.mean(axis=tuple(range(1, maps.ndim - 1)))
    said = model(images, training=False)
    np.testing.assert_allclose(said["features"], expected, rtol=1e-4, atol=1e-4)
    check_saved_and_exported(model, tmp_path)


def test_keras_hub_image_follows_the_precision(resnet_preset, mixed_bfloat16):
    model = keras_hub_tower(resnet_preset[0])
    kinds = {x.compute_dtype for x in backbone_of(model).layers if x.weights}
    assert kinds == {"bfloat16"}
    assert model(images_for(model))["features"].dtype == tf.float32


def test_keras_hub_image_gives_features_from_inside(resnet_preset, tmp_path):
    folder, network, converter = resnet_preset
    model = keras_hub_tower(folder, features_from="pool1_pool")
    images = images_for(model)
    inner = keras.Model(network.input, network.get_layer("pool1_pool").output)
    expected = np.mean(inner(converter(images["image"])), axis=(1, 2))
    said = model(images, training=False)["features"]
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-4)
    check_saved_and_exported(model, tmp_path)


def test_keras_hub_image_draws_weights_on_request(resnet_preset):
    folder, network, _ = resnet_preset
    drawn = backbone_of(keras_hub_tower(folder, weights="none"))
    pairs = zip(drawn.trainable_weights, network.trainable_weights, strict=True)
    kernels = [(a, b) for a, b in pairs if len(a.shape) == 4]
    assert kernels
    assert all((np.asarray(a) != np.asarray(b)).any() for a, b in kernels)


def test_presets_that_cannot_be_had_stop_with_a_reason(tmp_path, monkeypatch):
    import keras_hub

    def fail(*args, **options):
        raise ConnectionError("no such host\nmore")

    cases = {
        "resnet_18_imagenett": "did you mean 'resnet_18_imagenet'",
        str(tmp_path / "absent"): "neither a folder nor a preset",
        str(tmp_path): "could not be loaded as an image backbone: Preset",
    }
    for preset, message in cases.items():
        with pytest.raises(ExperimentError, match=message) as caught:
            keras_hub_tower(preset)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(keras_hub.models.Backbone, "from_preset", fail)
    with pytest.raises(ExperimentError, match=r"image backbone: no such host$"):
        keras_hub_tower("resnet_18_imagenet")


class OnlySavedWhole(keras.layers.ReLU):
    """As some of keras-hub's layers: its config is more than it takes."""

    def get_config(self):
        return {**super().get_config(), "num_patches": 4}


def test_presets_that_do_not_fit_stop_with_a_reason(vit_preset, monkeypatch):
    import keras_hub

    folder = vit_preset[0]
    with pytest.raises(ExperimentError, match="must have image_size = 32"):
        keras_hub_tower(folder, image_size=64)
    message = "'vit_encoder' must be a layer with one vector"
    with pytest.raises(ExperimentError, match=message):
        keras_hub_tower(folder, features_from="vit_encoder")
    images = keras.Input((32, 32, 3))
    networks = {
        "does not go with features_from": keras.Model(
            images, keras.layers.Conv2D(2, 1)(OnlySavedWhole(name="inner")(images))
        ),
        "one feature map as output": keras.Model(
            images, keras.layers.Flatten()(images)
        ),
        "one image as input": keras.Model([images, keras.Input((1,))], images),
    }
    for message, network in networks.items():
        monkeypatch.setattr(
            keras_hub.models.Backbone, "from_preset", lambda *x, made=network, **y: made
        )
        with pytest.raises(ExperimentError, match=message):
            keras_hub_tower(folder, features_from="inner")
