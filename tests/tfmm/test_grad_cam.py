"""Grad-CAM held against networks whose maps can be worked out by hand."""

import keras
import numpy as np
import pytest
from keras import layers

from tfmm.exhibits.grad_cam import grad_cam
from tfmm.settings import CompactCnn
from tfmm.towers import TOWERS

SIDE, CHANNELS, LABELS = 8, 4, 3


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, SIDE, SIDE, 3)).astype(np.float32)


def tower(inputs, features):
    logits = layers.Dense(LABELS, name="logits")(features)
    return keras.Model({"image": inputs}, {"features": features, "logits": logits})


def linear(x):
    """A map of cells, each seeing one pixel."""
    return layers.Conv2D(CHANNELS, 1, name="cells")(x)


def by_hand(model, cells, images, labels):
    """The map where a mean over the cells and a dense layer follow it."""
    kernel = model.get_layer("logits").kernel.numpy()
    found = np.asarray(cells({"image": images}))
    weights = kernel[:, labels].T[:, None, None, :] / SIDE**2
    return np.maximum((weights * found).sum(axis=-1), 0.0)


def test_a_linear_network_shows_what_each_cell_adds_to_the_logit(images):
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    cells = linear(inputs)
    model = tower(inputs, layers.GlobalAveragePooling2D()(cells))
    labels = np.array([0, 1, 2, 1, 0])
    found = grad_cam(model)({"image": images}, labels)
    whole = keras.Model(model.input, cells)
    np.testing.assert_allclose(
        found, by_hand(model, whole, images, labels), rtol=1e-4, atol=1e-7
    )
    assert found.max() > 0
    # What the cells add, also where it is negative, and the bias are the logit.
    kernel = model.get_layer("logits").kernel.numpy()
    added = (np.asarray(whole({"image": images})) @ kernel).mean(axis=(1, 2))
    logits = model({"image": images})["logits"]
    np.testing.assert_allclose(added, logits, rtol=1e-4, atol=1e-6)


def test_networks_inside_are_looked_into(images):
    inside = keras.Input((SIDE, SIDE, 3))
    cells = linear(inside)
    pooled = layers.GlobalAveragePooling2D()(cells)
    # As a tower with `features_from`: a second output, and an earlier one.
    backbone = keras.Model(inside, [pooled, layers.Flatten()(inside)], name="backbone")
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    features, _ = backbone(inputs / 2.0)
    model = tower(inputs, features)
    labels = np.array([2, 2, 1, 0, 0])
    found = grad_cam(model)({"image": images}, labels)
    whole = keras.Model(inside, cells)
    expected = by_hand(model, lambda x: whole(x["image"] / 2.0), images, labels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_a_map_of_few_cells_gives_way_to_an_earlier_one(images):
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    x = linear(inputs)
    x = layers.Conv2D(CHANNELS, 3, 4, padding="same")(x)  # 2 x 2
    model = tower(inputs, layers.GlobalAveragePooling2D()(x))
    assert grad_cam(model)({"image": images}, np.zeros(5, int)).shape == (5, 8, 8)


def test_a_branch_is_no_map_since_other_paths_lead_around_it():
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    before = layers.Conv2D(5, 1, 2, name="before")(inputs)
    branches = [layers.Conv2D(6, 1)(before), layers.Conv2D(7, 1)(before)]
    pooled = [layers.GlobalAveragePooling2D()(x) for x in branches]
    model = tower(inputs, layers.Concatenate()(pooled))
    assert grad_cam(model).before[-1].output.shape == (None, 4, 4, 5)


def test_a_network_without_a_map_has_none():
    inputs = keras.Input((SIDE, SIDE, 3), name="image")
    assert grad_cam(tower(inputs, layers.Flatten()(inputs / 255.0))) is None


def test_our_own_tower_shows_its_last_map_also_after_saving(tmp_path):
    own = {"model": "compact_cnn", "modality": "image", "image_size": 32}
    model = TOWERS["compact_cnn"](CompactCnn(**own, widths=[8, 12, 16]), LABELS)
    batch = {"image": np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3))}
    batch = {"image": np.float32(batch["image"])}
    labels = np.array([0, 2, 1])
    cut = grad_cam(model)
    assert cut.before[-1].output is model.get_layer("last_relu").output
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    found = cut(batch, labels)
    assert found.shape == (3, 4, 4)
    np.testing.assert_allclose(found, grad_cam(loaded)(batch, labels), rtol=1e-5)
    # The layers cut apart are the tower.
    said = batch
    for part in (*cut.before, *cut.after):
        said = part(said, training=False)
    logits = model(batch, training=False)["logits"]
    np.testing.assert_allclose(said, logits, rtol=1e-5, atol=1e-6)
