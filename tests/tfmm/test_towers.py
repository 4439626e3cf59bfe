import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm.errors import ExperimentError
from tfmm.losses import loss_for
from tfmm.settings import TOWER_KINDS, ResNet50, TextCnn
from tfmm.towers import TOWERS
from tfmm.towers.resnet50 import resnet50
from tfmm.towers.text_cnn import text_cnn

TEXTS = [f"{a} {b}" for a in ("red", "blue") for b in ("lamp", "rug", "sofa", "bed")]
LABELS = np.arange(8) % 4


def text_settings(**settings):
    defaults = {
        "model": "text_cnn",
        "modality": "title",
        "max_words": 5,
        "kernel_sizes": [1, 2],
        "filters": 8,
        "embedding_dim": 8,
    }
    return TextCnn(**{**defaults, **settings})


def image_settings(**settings):
    return ResNet50(
        **{"model": "resnet50", "modality": "image", "image_size": 32, **settings}
    )


def overfit(model, inputs, steps, rate):
    model.compile(
        keras.optimizers.Adam(rate),
        loss={"logits": loss_for("single_label")},
        jit_compile=False,
    )
    model.fit(inputs, {"logits": LABELS}, batch_size=8, epochs=steps, verbose=0)
    return np.argmax(model.predict(inputs, verbose=0)["logits"], axis=1)


def test_every_tower_has_its_modality_and_its_builder():
    assert set(TOWERS) == set(TOWER_KINDS)


def test_text_cnn_overfits_eight_products():
    keras.utils.set_random_seed(0)
    model = text_cnn(text_settings(dropout=0.0), 4, TEXTS)
    inputs = {"title": tf.constant(TEXTS)}
    np.testing.assert_array_equal(overfit(model, inputs, 60, 0.05), LABELS)


def test_resnet50_overfits_eight_products():
    keras.utils.set_random_seed(0)
    model = resnet50(image_settings(batch_normalization_momentum=0.5), 4)
    images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3))
    inputs = {"image": images.astype(np.float32)}
    np.testing.assert_array_equal(overfit(model, inputs, 12, 1e-3), LABELS)


@pytest.mark.parametrize("max_words", [2, 3, 40])
def test_padding_does_not_change_logits(max_words):
    batch = {"title": tf.constant(["red lamp", "rug", ""])}
    short = text_cnn(text_settings(max_words=2), 4, TEXTS)
    other = text_cnn(text_settings(max_words=max_words), 4, TEXTS)
    other.set_weights(short.get_weights())
    expected = short(batch, training=False)["logits"]
    np.testing.assert_allclose(other(batch, training=False)["logits"], expected, 1e-6)


def test_text_cnn_has_the_parameters_of_paper_a():
    texts = [" ".join(f"w{i}" for i in range(98))]
    model = text_cnn(TextCnn(model="text_cnn", modality="title"), 7, texts)
    embedding = (98 + 2) * 100
    convolutions = sum(width * 100 * 128 + 128 for width in (3, 4, 5))
    assert model.count_params() == embedding + convolutions + (384 * 7 + 7)


def test_text_cnn_has_the_hidden_layer_of_paper_c():
    settings = text_settings(kernel_sizes=[5], filters=200, hidden_units=170)
    model = text_cnn(settings, 7, TEXTS)
    assert model.output["features"].shape == (None, 170)
    assert model.get_layer("hidden").activation is keras.activations.relu


def test_resnet50_has_the_published_parameters():
    model = resnet50(image_settings(), 7)
    assert model.count_params() == 23_587_712 + 2048 * 7 + 7
    assert model.output["features"].shape == (None, 2048)


@pytest.mark.parametrize("build", [text_cnn, resnet50])
def test_same_seed_same_weights(build):
    settings = text_settings() if build is text_cnn else image_settings()
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        models.append(build(settings, 4, TEXTS))
    for first, second in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(first, second)


def test_resnet50_scales_as_its_published_weights_expect():
    model = resnet50(image_settings(), 3)
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3))
    images = images.astype(np.float32)
    backbone = next(x for x in model.layers if isinstance(x, keras.Model))
    expected = backbone(keras.applications.resnet50.preprocess_input(images.copy()))
    features = model({"image": images}, training=False)["features"]
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    keras.utils.set_random_seed(11)
    backbone = keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(32, 32, 3), pooling="avg"
    )
    path = tmp_path_factory.mktemp("weights") / "resnet50_notop.weights.h5"
    backbone.save_weights(path)
    return path, backbone


def test_resnet50_takes_the_weights_of_a_file_and_trains_its_last_layers(weights_file):
    path, backbone = weights_file
    settings = image_settings(weights=str(path), trainable_layers=40)
    model = resnet50(settings, 3)
    inner = next(x for x in model.layers if isinstance(x, keras.Model))
    for ours, theirs in zip(inner.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [x.trainable for x in inner.layers] == [False] * 136 + [True] * 40
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32) * 255
    before = {w.path: np.asarray(w) for w in model.weights}
    model.compile("sgd", loss={"logits": loss_for("single_label")}, jit_compile=False)
    model.fit({"image": images}, {"logits": np.array([0, 1, 2, 0])}, verbose=0)
    changed = {w.path for w in model.weights if (before[w.path] != np.asarray(w)).any()}
    frozen = {w.path for layer in inner.layers[:136] for w in layer.weights}
    assert frozen
    assert not changed & frozen  # moving statistics included
    assert {w.path for w in model.trainable_weights} & changed


def test_weights_that_cannot_be_had_stop_with_a_reason(tmp_path):
    with pytest.raises(ExperimentError, match="does not hold the weights"):
        resnet50(image_settings(weights=str(tmp_path / "none.h5")), 3)
    wrong = tmp_path / "wrong.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(wrong)
    with pytest.raises(ExperimentError, match="does not hold the weights"):
        resnet50(image_settings(weights=str(wrong)), 3)
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(ExperimentError, match="does not hold the weights"):
        resnet50(image_settings(weights=str(tmp_path / "text.h5")), 3)
