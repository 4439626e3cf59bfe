import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfmm import settings as tables
from tfmm.errors import ExperimentError
from tfmm.exhibits import maps
from tfmm.layers import LAYERS
from tfmm.towers import TOWERS
from tfmm.towers.tbva import tbva
from tfmm.train import set_trainable

TEXTS = ["oak left", "oak right", "", "<br> "]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
PRODUCTS = {"image": tf.constant(IMAGES), "title": tf.constant(TEXTS)}
POINTS = {
    "inception_v3": ("pool2", "mixed2", "mixed4", "mixed7", "mixed9"),
    "resnet50": ("conv2", "conv3", "conv4"),
}


def tiny_network(weights, include_top, input_shape, pooling):
    """What `tbva` must find of ResNet-50, with maps of 8 x 8, 4 x 4 and 2 x 2."""
    images = keras.Input(input_shape)
    x = layers.Rescaling(1 / 64, name="rescaling")(images)
    for name, side in (("conv2_block3", 4), ("conv3_block4", 2), ("conv4_block6", 2)):
        x = layers.Conv2D(8, max(side, 3), side, padding="same", name=f"{name}_conv")(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        x = layers.Activation("relu", name=f"{name}_out")(x)
    x = layers.Conv2D(6, 1, name="conv5_block3_out")(x)
    return keras.Model(images, layers.GlobalAveragePooling2D(name="avg_pool")(x))


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(keras.applications, "ResNet50", tiny_network)


def image_tower(model="resnet50", size=32, **own):
    kind = {"resnet50": tables.ResNet50, "inception_v3": tables.InceptionV3}[model]
    made = kind(model=model, modality="image", image_size=size, **own)
    tower = TOWERS[model](made, 3, ())
    generator = np.random.default_rng(1)
    for layer in tower._flatten_layers():  # as if it had been trained
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            layer.moving_mean.assign(generator.normal(0, 0.1, size))
            layer.moving_variance.assign(generator.uniform(0.5, 1.5, size))
    return tower


def text_tower(**own):
    common = {"model": "text_cnn", "modality": "title", "max_words": 4}
    sizes = {"kernel_sizes": [1], "filters": 6, "embedding_dim": 4}
    return TOWERS["text_cnn"](tables.TextCnn(**common, **sizes, **own), 3, TEXTS)


def settings(insert_at="conv3", **own):
    common = {"model": "tbva", "modality": "image"}
    towers = {"image_tower": "photo", "text_tower": "title"}
    return tables.Tbva(**common, **towers, insert_at=insert_at, **own)


def build(image_model=None, text_model=None, **own):
    return tbva(
        settings(**own), image_model or image_tower(), text_model or text_tower(), 3
    )


def answer(model, products=PRODUCTS):
    return {k: np.asarray(v) for k, v in model(products, training=False).items()}


def moved_query(model):
    """As if training had moved `W_t`."""
    kernel = model.get_layer("query").kernel
    kernel.assign(np.random.default_rng(2).normal(0, 3, kernel.shape))
    return model


def trained(model, rate=0.1, targets=(0, 1, 2, 0)):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(rate)
    model.compile(optimizer, loss={"logits": loss}, jit_compile=False)
    model.fit(PRODUCTS, {"logits": np.array(targets)}, batch_size=4, verbose=0)
    return model


def values(weights):
    return {weight.path: weight.numpy() for weight in weights}


def check_starts_as_its_image_tower(image_model, images, **own):
    products = {"image": tf.constant(images), "title": tf.constant(TEXTS)}
    said = answer(build(image_model, **own), products)
    expected = answer(image_model, {"image": tf.constant(images)})
    np.testing.assert_allclose(said["logits"], expected["logits"], 1e-5, 1e-5)
    features = said["features"][:, : expected["features"].shape[1]]
    np.testing.assert_allclose(features, expected["features"], 1e-5, 1e-5)
    _, height, width = said["attention"].shape
    assert height * width > 1
    if own.get("attention") != "channel":
        np.testing.assert_allclose(said["attention"], 1 / (height * width), rtol=1e-5)


# Start


@pytest.mark.parametrize("insert_at", POINTS["resnet50"])
@pytest.mark.parametrize("attention", ["width_height", "channel"])
@pytest.mark.parametrize("own", [{"form": "scaled"}, {"late_text": True}])
def test_a_new_tower_answers_as_its_image_tower(tiny, insert_at, attention, own):
    check_starts_as_its_image_tower(
        image_tower(), IMAGES, insert_at=insert_at, attention=attention, **own
    )


def test_an_inception_v3_with_attention_answers_as_without():
    images = keras.ops.image.resize(IMAGES, (75, 75))
    check_starts_as_its_image_tower(
        image_tower("inception_v3", 75), images, insert_at="mixed4", form="scaled"
    )


@pytest.mark.parametrize(("attention", "size"), [("width_height", 8), ("channel", 16)])
def test_only_the_query_and_the_late_text_are_new(tiny, attention, size):
    image_model, text_model = image_tower(), text_tower()
    logits = text_model.get_layer("logits").count_params()
    old = image_model.count_params() + text_model.count_params() - logits
    model = build(image_model, text_model, attention=attention)
    assert model.count_params() == old + 6 * size
    late = {"late_text": True, "late_text_units": 5}
    model = build(image_model, text_model, attention=attention, **late)
    assert model.count_params() == old + 6 * size + (6 * 5 + 5) + 5 * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "insert_at"),
    [
        *(("inception_v3", 128, point) for point in POINTS["inception_v3"]),
        *(("resnet50", 64, point) for point in POINTS["resnet50"]),
    ],
)
@pytest.mark.parametrize("attention", ["width_height", "channel"])
def test_every_point_of_the_published_networks(
    model, size, insert_at, attention, tmp_path
):
    images = keras.ops.image.resize(IMAGES, (size, size))
    own = {"insert_at": insert_at, "attention": attention}
    image_model = image_tower(model, size)
    check_starts_as_its_image_tower(image_model, images, form="scaled", **own)
    products = {"image": tf.constant(images), "title": tf.constant(TEXTS)}
    made = moved_query(build(image_model, **own))
    made.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects=LAYERS)
    for name, said in answer(made, products).items():
        np.testing.assert_allclose(answer(again, products)[name], said, 1e-5, 1e-6)


def test_points_are_where_paper_b_has_them(tiny):
    cells = {
        point: answer(build(insert_at=point))["attention"].shape[1:]
        for point in POINTS["resnet50"]
    }
    assert cells == {"conv2": (8, 8), "conv3": (4, 4), "conv4": (2, 2)}


@pytest.mark.slow
def test_maps_of_inception_v3_are_as_large_as_the_docs_say():
    text_model = text_tower()
    for size, sides in ((96, (9, 9, 4, 4)), (128, (13, 13, 6, 6, 2))):
        image_model = image_tower("inception_v3", size)
        for point, side in zip(POINTS["inception_v3"], sides, strict=False):
            made = build(image_model, text_model, insert_at=point)
            assert made.output["attention"].shape == (None, side, side)
        if size == 96:
            with pytest.raises(ExperimentError, match="one cell at image_size = 96"):
                build(image_model, text_model, insert_at="mixed9")


def test_the_papers_form_and_the_residual_change_the_start(tiny):
    image_model = image_tower()
    expected = answer(image_model, {"image": PRODUCTS["image"]})["logits"]
    for form in ("paper", "residual"):
        said = answer(build(image_model, form=form))["logits"]
        assert np.abs(said - expected).max() > 1e-3


def test_initializer_stddev_draws_the_query(tiny):
    kernel = np.asarray(build(initializer_stddev=0.01).get_layer("query").kernel)
    assert 0.002 < kernel.std() < 0.01
    assert np.abs(kernel).max() <= 0.0201


# Texts


def test_a_product_without_a_text_gets_the_image_towers_answer(tiny):
    image_model = image_tower()
    model = moved_query(build(image_model, late_text=True))
    model.get_layer("logits").kernel.assign_add(
        np.pad(np.ones((200, 3), np.float32), ((6, 0), (0, 0)))
    )
    said = answer(model)
    expected = answer(image_model, {"image": PRODUCTS["image"]})
    np.testing.assert_allclose(said["logits"][2:], expected["logits"][2:], 1e-5, 1e-5)
    np.testing.assert_array_equal(said["features"][2:, 6:], 0)
    np.testing.assert_allclose(said["attention"][2:], 1 / 16, rtol=1e-5)
    assert np.ptp(said["attention"][0]) > 0.01
    assert np.abs(said["features"][:2, 6:]).max() > 0
    assert np.abs(said["logits"] - expected["logits"])[:2].max() > 1e-3


def test_an_answer_does_not_depend_on_the_batch(tiny):
    model = moved_query(build())
    whole = answer(model)
    for row in range(4):
        one = slice(row, row + 1)
        products = {name: value[one] for name, value in PRODUCTS.items()}
        for name, value in answer(model, products).items():
            np.testing.assert_allclose(value, whole[name][one], 1e-5, 1e-6)


def test_the_text_network_trains_only_if_told(tiny):
    for train_text in (False, True):
        text_model = text_tower()
        text_model.get_layer("embedding").trainable = False
        before = values(text_model.weights)
        model = moved_query(build(text_model=text_model, train_text=train_text))
        set_trainable(model, "all")
        trained(model)
        after = values(text_model.weights)
        moved = {path for path in before if (before[path] != after[path]).any()}
        names = {"embedding/embeddings", "convolution_1/kernel", "convolution_1/bias"}
        assert moved == (names if train_text else set())


def test_a_text_network_with_a_backbone_stays_frozen_and_uncounted(tiny):
    texts = keras.Input((), dtype="string", name="title")
    numbers = keras.ops.cast(layers.Hashing(4)(texts), "float32")
    inner = keras.Input((1,))
    network = keras.Model(inner, layers.Dense(5)(inner), name="backbone")
    vector = network(numbers[:, None])
    outputs = {"features": vector, "logits": layers.Dense(3)(vector)}
    text_model = keras.Model({"title": texts}, outputs)
    model = build(text_model=text_model)
    set_trainable(model, "all")
    assert not [w for w in model.trainable_weights if w.path in values(network.weights)]
    assert len([x for x in model._flatten_layers() if x.name == "backbone"]) == 1


# Training


def test_trainable_layers_are_counted_as_in_an_image_tower(tiny):
    image_model = image_tower()
    model = build(image_model)
    free = {"query/kernel", "logits/kernel", "logits/bias"}
    set_trainable(model, 0)
    assert {w.path for w in model.trainable_weights} == free
    set_trainable(image_model, 4)
    set_trainable(model, 4)
    ours = {w.path for w in model.get_layer("backbone").trainable_weights}
    theirs = {w.path for w in image_model.get_layer("backbone").trainable_weights}
    assert ours == theirs
    assert {path.split("/")[0] for path in ours} == {
        "conv4_block6_bn",
        "conv5_block3_out",
    }
    set_trainable(model, "all")
    backbone = image_model.get_layer("backbone")
    assert len(model.trainable_weights) == 3 + len(backbone.weights) - 6


def test_training_moves_every_weight_and_not_the_image_tower(tiny):
    image_model = image_tower()
    model = build(image_model, late_text=True)
    moved_query(model)
    before, theirs = values(model.weights), values(image_model.weights)
    set_trainable(model, "all")
    trained(trained(model))  # the late text's rows start at zero
    after = values(model.weights)
    stays = {path for path in before if (before[path] == after[path]).all()}
    assert stays == set(values(model.get_layer("text_network").weights))
    for path, value in values(image_model.weights).items():
        np.testing.assert_array_equal(value, theirs[path])


def test_same_seed_same_weights(tiny):
    image_model, text_model = image_tower(), text_tower()
    runs = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        made = build(image_model, text_model, late_text=True, initializer_stddev=0.01)
        runs.append(made.get_weights())
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)


def test_attention_goes_to_the_half_that_the_text_names(tiny):
    """The label is the colour of one half; only the text says of which."""
    combinations = list(itertools.product(["left", "right"], range(2), range(2)))
    images = np.zeros((8, 32, 32, 3), np.float32)
    labels = []
    for row, (side, *colors) in enumerate(combinations):
        images[row, :, :16, colors[0]] = 255
        images[row, :, 16:, colors[1]] = 255
        labels.append(colors[side == "right"])
    words = [side for side, *_ in combinations]
    products = {"image": tf.constant(images), "title": tf.constant(words)}
    image_model = image_tower(batch_normalization_momentum=0.5)
    model = build(image_model, insert_at="conv4")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rule = keras.optimizers.Adam(0.03)
    model.compile(rule, loss={"logits": loss}, jit_compile=False)
    batch = (products, {"logits": np.array(labels)})
    model.fit(tf.data.Dataset.from_tensors(batch).repeat(150), shuffle=False, verbose=0)
    said = answer(model, products)
    np.testing.assert_array_equal(said["logits"].argmax(axis=1), labels)
    left = said["attention"][:, :, 0].sum(axis=1)
    named = np.where([side == "left" for side in words], left, 1 - left)
    assert (named > 0.5).all()
    differ = [one != other for _, one, other in combinations]
    assert (named[differ] > 0.6).all()


# Files


@pytest.fixture
def mixed_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


def test_the_copy_computes_in_the_precision_of_the_training(tiny, mixed_bfloat16):
    keras.config.set_dtype_policy("float32")
    image_model, text_model = image_tower(), text_tower()
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = trained(build(image_model, text_model))
    for value in model(PRODUCTS, training=False).values():
        assert value.dtype == tf.float32
        assert np.isfinite(value).all()
    backbone = model.get_layer("backbone")
    assert {x.compute_dtype for x in backbone.layers if x.weights} == {"bfloat16"}
    keras.config.set_dtype_policy("float32")
    plain = build(image_model, text_model)
    plain.set_weights(model.get_weights())
    assert {x.compute_dtype for x in plain.layers} == {"float32"}


@pytest.mark.parametrize("attention", ["width_height", "channel"])
def test_tower_is_the_same_saved_and_exported(tiny, attention, tmp_path):
    own = {"late_text": True, "train_text": attention == "channel"}
    model = moved_query(build(attention=attention, **own))
    expected = answer(model)
    assert set(expected) == {"features", "logits", "attention"}
    np.testing.assert_allclose(expected["attention"].sum(axis=(1, 2)), 1, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=LAYERS)
    root = tf.Module()
    root.model = loaded
    root.call = tf.function(
        lambda image, title: loaded({"image": image, "title": title}, training=False),
        input_signature=[
            tf.TensorSpec((None, 32, 32, 3), tf.float32, name="image"),
            tf.TensorSpec((None,), tf.string, name="title"),
        ],
    )
    tf.saved_model.save(root, str(tmp_path / "exported"))
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    served = exported.call(**PRODUCTS)
    again = answer(loaded)
    for name, value in expected.items():
        np.testing.assert_allclose(again[name], value, 1e-5, 1e-6)
        np.testing.assert_allclose(served[name], value, 1e-5, 1e-6)


def test_features_from_an_inner_layer_on_either_side(tiny):
    image_model = image_tower(features_from="conv4_block6_out")
    expected = answer(image_model, {"image": PRODUCTS["image"]})
    same = answer(build(image_model, features_from="conv4_block6_out"))
    for name in ("features", "logits"):
        np.testing.assert_allclose(same[name], expected[name], 1e-5, 1e-5)
    assert same["features"].shape == (4, 8)
    assert answer(build(image_model))["features"].shape == (4, 6)
    with pytest.raises(ExperimentError, match="features_from = 'conv9' is none of its"):
        build(image_model, features_from="conv9")


# Errors


def test_a_point_that_is_not_there_names_the_nearest(tiny):
    message = "insert_at = 'mixed4' is no point of photo; expected one of 'conv2'"
    with pytest.raises(ExperimentError, match=message):
        build(insert_at="mixed4")
    with pytest.raises(ExperimentError, match="did you mean 'conv4'"):
        build(insert_at="conv44")


def test_a_map_of_one_cell_is_refused(tiny, monkeypatch):
    def smaller(**options):
        images = keras.Input((32, 32, 3))
        x = layers.AveragePooling2D(32, name="conv2_block3_out")(images)
        return keras.Model(images, layers.GlobalAveragePooling2D()(x))

    monkeypatch.setattr(keras.applications, "ResNet50", smaller)
    message = "'conv2' must have a map of more than one cell; .* image_size = 32"
    with pytest.raises(ExperimentError, match=message):
        build(insert_at="conv2")


def test_other_networks_are_refused():
    own = {"model": "compact_cnn", "modality": "image", "image_size": 32}
    small = TOWERS["compact_cnn"](tables.CompactCnn(**own, widths=[4]), 3, ())
    with pytest.raises(ExperimentError, match="model inception_v3 or resnet50"):
        build(small)


def test_another_number_of_classes_is_refused(tiny):
    with pytest.raises(ValueError, match="`num_classes` must be 3"):
        tbva(settings(), image_tower(), text_tower(), 4)


def test_maps_that_reports_show_are_the_weights_of_the_layer(tiny):
    model = build(insert_at="conv2", initializer_stddev=0.5)
    shown = maps.attention(model)(PRODUCTS, None)
    inside = model.get_layer("backbone")
    layer = inside.get_layer("text_attention")
    parts = keras.Model(inside.inputs, [*layer.input, layer.output[1]])
    to_backbone = keras.Model(
        model.input, inside._inbound_nodes[0].input_tensors, name="to_backbone"
    )
    cells, query, weights = parts(to_backbone(PRODUCTS))
    cells = np.reshape(cells, (len(TEXTS), 64, -1))
    scores = np.einsum("nkd,nd->nk", cells, query) / cells.shape[-1] ** 0.5
    by_hand = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, by_hand, rtol=1e-4)
    np.testing.assert_allclose(np.reshape(shown, by_hand.shape), by_hand, rtol=1e-4)
    assert by_hand[0].std() > 1e-4
