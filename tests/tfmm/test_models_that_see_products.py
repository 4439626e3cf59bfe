"""A joint network and text-based attention, from the command to the exported bundle."""

import numpy as np
import pytest
import tensorflow as tf
from commands import command
from tiny import EXPERIMENT

from tfmm import audit, classifier, dataset, results
from tfmm.run import Run, read_json

pytestmark = pytest.mark.slow  # a ResNet-50 is built seven times

MORE = """
[towers.photo]
model = "resnet50"
modality = "image"
image_size = 32
batch_size = 16
max_epochs = 1
[towers.looking]
model = "tbva"
modality = "image"
image_tower = "photo"
text_tower = "title"
insert_at = "conv2"
batch_size = 16
learning_rate = 1e-3
max_epochs = 1
[heads.together]
model = "joint"
towers = ["title", "image"]
projection_units = 6
hidden_units = [5]
matching_weight = 0.1
rate_factors = { title = 0.5 }
learning_rate = 0.01
max_epochs = 2
[heads.both]
model = "product"
towers = ["title", "looking"]
[heads.over]
model = "max"
towers = ["together", "looking", "title"]
"""


@pytest.fixture(scope="module")
def seeing(catalog_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeing")
    file = folder / "experiment.toml"
    file.write_text(EXPERIMENT + MORE)
    done = command(
        *("-m", "tfmm.fit", file, "--catalog", catalog_file, "--run", folder / "run")
    )
    assert done.returncode == 0, done.stderr
    return Run(folder / "run")


@pytest.fixture(scope="module")
def products(seeing, catalog_file):
    return audit.audit(seeing.read_experiment(), catalog_file, None)


@pytest.mark.parametrize("name", ["looking", "together", "both", "over"])
def test_raw_products_get_the_stored_answers(seeing, products, name):
    settings = seeing.read_experiment()
    model = classifier.load(seeing, name)
    stored, _ = results.read_probabilities(seeing, settings, name, "test")
    rows = products.rows("test")
    images = [
        tf.io.read_file(x).numpy() if x else b"" for x in products.images["image"][rows]
    ]
    raw = {
        "title": tf.constant([x.encode() for x in products.texts["title"][rows]]),
        "image": tf.constant(images),
    }
    assert set(model.modalities) == set(raw)
    answer = model.answer(raw)
    np.testing.assert_allclose(answer["probabilities"], stored, atol=1e-5)


def test_answers_without_the_title_are_those_of_products_that_have_none(
    seeing, products
):
    settings = seeing.read_experiment()
    rows = products.rows("test")
    for name in ("looking", "together"):
        cases = results.read_cases(seeing, settings, name, "test")
        said, present = cases["without_title"]
        here = products.present("image", rows)
        np.testing.assert_array_equal(present, here)
        predict = results.predictor(results.load_model(seeing, name))
        reads = results.reads(settings, name)
        batches = dataset.batches(products, rows[here], reads, 64, hidden={"title"})
        logits = np.concatenate([predict(batch)["logits"] for batch in batches])
        calibration = results.read_calibration(seeing, settings, name)
        expected = 1 / (1 + np.exp(-np.float64(calibration.apply(logits))))
        np.testing.assert_allclose(said[here], expected, atol=1e-6)


def test_attention_starts_from_its_image_tower_and_is_a_map(seeing, products):
    settings = seeing.read_experiment()
    model = results.load_model(seeing, "looking")
    assert model.output["attention"].shape == (None, 8, 8)
    assert settings.starts_from("looking") == ["photo", "title"]
    rows = products.present_rows("image", "test")
    reads = results.reads(settings, "looking")
    (batch,) = dataset.batches(products, rows, reads, 64)
    attention = model(batch, training=False)["attention"].numpy()
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1.0, atol=1e-5)


def test_a_joint_network_is_trained_in_every_part(seeing):
    settings = seeing.read_experiment()
    together = results.load_model(seeing, "together")
    for tower in settings.heads["together"].towers:
        alone = results.load_model(seeing, tower)
        kept = {id(w): w for w in together.get_layer(f"{tower}_tower").weights}
        before = [w.numpy() for w in alone.trainable_weights]
        after = [w.numpy() for w in kept.values() if w.trainable]
        same = [
            any(x.shape == y.shape and np.array_equal(x, y) for y in before)
            for x in after
        ]
        assert not all(same)
    info = read_json(seeing.model_info_file("together"))
    assert info["epochs"] == 2


def test_a_head_over_both_is_exported_and_verified(seeing, tmp_path):
    done = command(
        "-m", "export", seeing.path, "--to", tmp_path / "models", "--head", "over"
    )
    assert done.returncode == 0, done.stderr
    done = command("-m", "export.verify", tmp_path / "models" / "1")
    assert done.returncode == 0, done.stderr


def test_towers_under_a_joint_network_are_hidden_by_their_modality(seeing):
    settings = seeing.read_experiment()
    report = read_json(seeing.report("test") / "report.json")
    everything, present = results.read_probabilities(
        seeing, settings, "together", "test"
    )
    first, each = everything.argmax(axis=1), np.arange(len(everything))
    without = results.read_cases(seeing, settings, "together", "test")
    for tower in ("title", "image"):
        hidden, _ = without[f"without_{tower}"]
        falls = (everything - hidden)[each, first][present]
        told = report["models"]["together"]["reasons"]["of"][tower]
        np.testing.assert_allclose(told, np.abs(falls).mean(), atol=1e-4)
    # A head over it: without the title, the joint network has the image alone.
    over = report["models"]["over"]["reasons"]["of"]
    assert set(over) == {"title", "image", "looking"}
    assert all(np.array(list(over.values())) >= 0)


def test_reports_show_where_towers_look(seeing, products):
    report = read_json(seeing.report("test") / "report.json")
    about = report["models"]["looking"]["attention"]
    assert about["products"] == len(products.present_rows("image", "test"))
    assert np.shape(about["mean"]) == (8, 8)
    assert about["expected"] == 28 / 64
    maps = [x["maps"] for x in report["shown"].values() if x.get("maps")]
    assert maps
    for shown in maps:
        assert shown["looking"]["kind"] == "attention"
        assert np.shape(shown["looking"]["grid"]) == (8, 8)
        assert shown["photo"]["kind"] == shown["image"]["kind"] == "grad_cam"
        assert np.shape(shown["photo"]["grid"])[0] >= 4
