"""Networks that see images, asked in the graph."""

from itertools import combinations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm import image
from tfmm.dataset import Inputs
from tfmm.networks import Network, Products, ask, without_texts
from tfmm.settings import Modality

MODALITIES = {
    "title": Modality(kind="text", columns=["title"]),
    "color": Modality(kind="text", columns=["color"]),
    "image": Modality(kind="image", columns=["image"]),
}


@keras.saving.register_keras_serializable(package="tests")
class Letters(keras.layers.Layer):
    """How long each text is, `(batch, 1)`."""

    def call(self, texts):
        return tf.cast(tf.strings.length(texts), "float32")[:, None]

    def compute_output_spec(self, texts):
        return keras.KerasTensor((*texts.shape, 1), dtype="float32")


def network():
    """Reads an image, and two texts beside it."""
    images = keras.Input((32, 32, 3), name="image")
    title = keras.Input((), dtype="string", name="title")
    color = keras.Input((), dtype="string", name="color")
    mean = keras.ops.mean(images, axis=(1, 2))
    features = keras.ops.concatenate([mean, Letters()(title), Letters()(color)], axis=1)
    model = keras.Model(
        {"image": images, "title": title, "color": color}, {"features": features}
    )
    reads = {"image": Inputs("image", 32), "title": Inputs("title")}
    return Network(model, {**reads, "color": Inputs("color")}, "image")


@pytest.fixture
def raw():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    picture = tf.io.encode_png(pixels).numpy()
    return {
        "title": tf.constant(["oak", "wool", "", "lamp"]),
        "color": tf.constant(["red", "", "blue", "red"]),
        "image": tf.constant([picture, picture, b"", b"no picture"]),
    }


def test_each_set_of_texts_beside_an_image_can_be_hidden():
    assert set(without_texts({"looking": network()})) == {
        ("looking", frozenset(some))
        for size in (1, 2)
        for some in combinations(("title", "color"), size)
    }
    alone = network()
    alone = Network(alone.model, {"image": Inputs("image", 32)}, "image")
    assert without_texts({"image": alone}) == {}


def test_a_hidden_text_is_one_that_no_product_has(raw):
    own = network()
    others = without_texts({"looking": own})
    said, statuses = ask({"looking": own, **others}, Products.of(raw, MODALITIES))
    assert [image.STATUSES[x] for x in statuses["image"]][:3] == [
        "used",
        "used",
        "missing",
    ]
    for (_, hidden), _ in others.items():
        empty = {name: tf.fill([4], "") for name in hidden}
        expected, _ = ask({"x": own}, Products.of({**raw, **empty}, MODALITIES))
        got = said["looking", hidden]
        np.testing.assert_array_equal(got["features"], expected["x"]["features"])
        np.testing.assert_array_equal(got["present"], [True, True, False, False])
    whole = said["looking"]["features"].numpy()
    np.testing.assert_array_equal(whole[:2, 3:], [[3, 3], [4, 0]])
    assert not whole[2:].any()


def test_images_are_decoded_once_however_often_texts_are_hidden(raw, monkeypatch):
    decoded = []
    decode = image.decode_batch

    def counted(encoded, size):
        decoded.append(size)
        return decode(encoded, size)

    monkeypatch.setattr(image, "decode_batch", counted)
    own = network()
    products = Products.of(raw, MODALITIES)
    ask({"looking": own, **without_texts({"looking": own})}, products)
    assert decoded == [32]
