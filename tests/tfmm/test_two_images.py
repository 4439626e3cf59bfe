"""A rule that skips images, of products that have two."""

import csv

import numpy as np
import pytest
import tensorflow as tf
from commands import command
from tiny import EXPERIMENT

from tfmm import audit, classifier, selective
from tfmm.hiding import images_hidden
from tfmm.run import Run

FRONT_AND_BACK = """
[modalities.front]
kind = "image"
columns = ["image"]
[modalities.back]
kind = "image"
columns = ["back"]
[towers.front]
model = "compact_cnn"
modality = "front"
image_size = 32
widths = [4]
max_epochs = 1
[towers.back]
model = "compact_cnn"
modality = "back"
image_size = 32
widths = [4]
max_epochs = 1
[heads.all]
model = "mean"
towers = ["title", "front", "back"]
"""


@pytest.fixture(scope="module")
def catalog(catalog_file, tmp_path_factory):
    """Every product with another's picture as its back, but each fourth with none."""
    path = tmp_path_factory.mktemp("two") / "catalog.csv"
    with catalog_file.open(newline="", encoding="utf-8") as file:
        products = list(csv.DictReader(file))
    for number, product in enumerate(products):
        other = products[(number + 9) % len(products)]["image"]
        product["back"] = other if number % 4 else ""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(products[0]))
        writer.writeheader()
        writer.writerows(products)
    return path


@pytest.fixture(scope="module")
def run(catalog, catalog_file):
    text = EXPERIMENT[: EXPERIMENT.index("[modalities.image]")]
    tower = EXPERIMENT.index("[towers.title]"), EXPERIMENT.index("[towers.image]")
    file = catalog.parent / "experiment.toml"
    file.write_text(text + EXPERIMENT[slice(*tower)] + FRONT_AND_BACK)
    path = catalog.parent / "run"
    done = command(
        *("-m", "tfmm.fit", file, "--catalog", catalog, "--run", path),
        *("--images", catalog_file.parent, "--only", "towers", "--only", "heads"),
    )
    assert done.returncode == 0, done.stderr
    return Run(path)


@pytest.fixture(scope="module")
def products(catalog_file):
    """With both images, with either, with a broken one, with none, without words."""
    a, b = [(catalog_file.parent / f"images/{x}.jpg").read_bytes() for x in (0, 1)]
    titles = ["oak wood", "soft wool no 2", "bright light", "wood", "wool", "oak light"]
    return {
        "title": tf.constant([*titles, "", ""]),
        "front": tf.constant([a, b, b"", b"broken", b"", b, a, b""]),
        "back": tf.constant([b, b"", a, b, b"", b"broken", b"", b""]),
    }


def names(answer):
    return np.char.decode(answer["image_status"].numpy().astype("S"), "ascii")


def test_a_product_has_both_images_looked_at_or_neither(run, products):
    whole = classifier.load(run, "all")
    assert whole.images == ["front", "back"]
    seen = whole.answer(products)
    words = {**products, "front": tf.fill([8], ""), "back": tf.fill([8], "")}
    unseen = whole.answer(words)
    assert names(seen).tolist() == [
        ["used", "used"],
        ["used", "missing"],
        ["missing", "used"],
        ["not an image", "used"],
        ["missing", "missing"],
        ["used", "not an image"],
        ["used", "missing"],
        ["missing", "missing"],
    ]
    sure = selective.confidence("multi_label", unseen["probabilities"].numpy())
    # Between two that differ: words that training has not met are all alike.
    steps = np.unique(sure[:6])
    level = float(steps[len(steps) // 2 - 1 : len(steps) // 2 + 1].mean())
    rule = selective.Rule((level,) * len(whole.label_names), 0.0, 0.0, 0.0, 0)
    model = classifier.load(run, "all", rule)
    said = model.answer(products)
    has_words = np.arange(8) < 6
    skipped = has_words & (sure >= level)
    assert 0 < skipped.sum() < 6
    expected = np.where(
        skipped[:, None] & (names(seen) != "missing"), "skipped", names(seen)
    )
    np.testing.assert_array_equal(names(said), expected)
    np.testing.assert_array_equal(said["image_used"], expected == "used")
    for key in ("probabilities", "scores"):
        right = np.where(skipped[:, None], unseen[key], seen[key])
        np.testing.assert_allclose(said[key], right, atol=1e-6)
    np.testing.assert_allclose(
        model.embed(products)["embedding"], whole.embed(products)["embedding"]
    )
    for row in (3, 6):
        alone = model.answer({k: x[row : row + 1] for k, x in products.items()})
        np.testing.assert_array_equal(names(alone)[0], expected[row])
        np.testing.assert_allclose(
            alone["probabilities"][0], said["probabilities"][row], atol=1e-6
        )


def test_the_rule_is_fitted_on_answers_without_either_image(run, catalog, catalog_file):
    settings = run.read_experiment()
    assert images_hidden(settings, "all") == {"front", "back"}
    found = selective.evidence(run, settings, "all", "validation")
    listed = audit.audit(settings, catalog, catalog_file.parent)
    rows = listed.rows("validation")
    either = listed.present("front", rows) | listed.present("back", rows)
    np.testing.assert_array_equal(found.with_image, either)
    titles = [str(x).encode() for x in listed.texts["title"][rows]]
    here = np.array([bool(x) for x in titles])
    np.testing.assert_array_equal(found.decidable, either & here)
    nothing = tf.fill([len(rows)], "")
    words = {"title": tf.constant(titles), "front": nothing, "back": nothing}
    said = classifier.load(run, "all").answer(words)["probabilities"].numpy()
    np.testing.assert_array_equal(found.label, said.argmax(axis=1))
    sure = selective.confidence("multi_label", said)
    np.testing.assert_allclose(found.confidence, sure, rtol=1e-5)
