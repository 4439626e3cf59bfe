"""What `explain` and `embed` say, and a bundle that skips images."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
from commands import command

from tfmm import classifier, selective
from tfmm.explanation import contributions, orders_of
from tfmm.run import Run

assert tensorflow_text.__version__  # links the ops that the bundle needs


@pytest.fixture(scope="module")
def inputs(catalog_file):
    images = [(catalog_file.parent / f"images/{x}.jpg").read_bytes() for x in range(3)]
    titles = ["oak wood no 1", "soft wool no 2", "bright light"]
    return {
        "title": tf.constant([*titles, "", "oak wood", ""]),
        "image": tf.constant([*images, images[0], b"", b""]),
    }


@pytest.fixture(scope="module")
def validated(experiment_file, catalog_file, tmp_path_factory):
    """A run with enough products on validation to fit a rule on."""
    path = tmp_path_factory.mktemp("runs") / "validated"
    splits = "{ train = 0.4, fusion = 0.15, validation = 0.3, test = 0.15 }"
    words = ("-m", "tfmm.fit", experiment_file, "--catalog", catalog_file)
    done = command(*words, "--run", path, "--set", f"catalog.splits={splits}")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def budgeted(validated, tmp_path_factory):
    """A bundle that may look at a third of the images, and what the export printed."""
    models = tmp_path_factory.mktemp("models") / "tiny"
    done = command(
        *("-m", "export", validated, "--to", models, "--image-budget", "0.35")
    )
    assert done.returncode == 0, done.stderr
    return models / "1", done.stdout


def test_contributions_add_up_to_the_score_less_the_share(bundle, inputs, fitted):
    model = tf.saved_model.load(str(bundle))
    top = model.signatures["serving_default"](**inputs)
    said = model.signatures["explain"](**inputs)
    parts = said["contributions"].numpy()
    assert list(said) == ["contributions"]
    assert parts.shape == (6, 2, 2)
    nothing = model.signatures["probabilities"](
        title=tf.constant([""]), image=tf.constant([""])
    )["probabilities"][0].numpy()
    labels = Run(fitted).read_labels()
    for row, names in enumerate(top["labels"].numpy()):
        shares = [nothing[labels.index(name.decode())] for name in names]
        np.testing.assert_allclose(
            parts[row].sum(axis=0), top["scores"][row] - shares, atol=1e-6
        )
    assert (parts[3, 0] == 0).all()  # no title
    assert (parts[4, 1] == 0).all()  # no image
    assert (parts[5] == 0).all()
    assert np.abs(parts[:3]).min(axis=2).all()


def test_embeddings_have_unit_length_or_none(bundle, inputs):
    model = tf.saved_model.load(str(bundle))
    said = model.signatures["embed"](**inputs)["embedding"].numpy()
    lengths = np.linalg.norm(said, axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 1, 1, 0], atol=1e-6)
    alone = model.signatures["embed"](**{k: v[1:2] for k, v in inputs.items()})
    np.testing.assert_allclose(alone["embedding"][0], said[1], atol=1e-6)


def test_a_budget_skips_images_whose_words_suffice(budgeted, validated, inputs):
    bundle, printed = budgeted
    about = json.loads((bundle / "assets.extra" / "tfmm.json").read_text())
    assert about["image_rule"]["asked"] == "--image-budget 0.35"
    assert 0.0 <= about["image_rule"]["rule"]["images"] <= 0.35
    assert printed.count("\n") == len(selective.SHARES) + 4
    assert "--image-budget 0.35" in (bundle / "model_card.md").read_text()
    model = tf.saved_model.load(str(bundle))
    call = model.signatures["serving_default"]
    said = {key: value.numpy() for key, value in call(**inputs).items()}
    status = said["image_status"][:, 0].tolist()
    assert status[3:] == [b"used", b"missing", b"missing"]
    assert b"skipped" in status[:3]
    assert (said["image_used"][:, 0] == (np.array(status) == b"used")).all()
    whole = classifier.load(Run(validated))
    images = np.where(said["image_used"][:, 0], inputs["image"].numpy(), b"")
    as_if = whole.answer({"title": inputs["title"], "image": tf.constant(images)})
    np.testing.assert_allclose(said["scores"], as_if["scores"], atol=1e-6)
    assert (said["labels"] == as_if["labels"].numpy()).all()
    for row in range(6):
        alone = call(**{key: x[row : row + 1] for key, x in inputs.items()})
        np.testing.assert_allclose(alone["scores"][0], said["scores"][row], atol=1e-6)
        assert alone["image_status"][0, 0].numpy() == status[row]


def test_a_skipped_image_contributes_nothing_and_is_embedded(
    budgeted, validated, inputs
):
    model = tf.saved_model.load(str(budgeted[0]))
    whole = classifier.load(Run(validated))
    status = model.signatures["serving_default"](**inputs)["image_status"].numpy()
    parts = model.signatures["explain"](**inputs)["contributions"].numpy()
    skipped = status[:, 0] == b"skipped"
    assert (parts[skipped, 1] == 0).all()
    assert np.abs(parts[status[:, 0] == b"used", 1]).sum() > 0
    np.testing.assert_allclose(
        model.signatures["embed"](**inputs)["embedding"],
        whole.embed(inputs)["embedding"],
        atol=1e-6,
    )


def test_a_bundle_that_skips_passes_its_gate(budgeted):
    done = command("-m", "export.verify", budgeted[0])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--image-budget", "0.5", "--all-images"), "exclude one another"),
        (("--max-loss", "0.1", "--head", "title"), "or cannot answer without them"),
        (("--max-loss", "0.1", "--head", "image"), "or cannot answer without them"),
        (("--max-loss", "0.1", "--head", "polcy"), "did you mean 'policy'"),
        (("--max-loss", "0.1"), "expected at least 5 to fit a rule on"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(fitted, tmp_path, words, problem):
    done = command("-m", "export", fitted, "--to", tmp_path / "m", *words)
    assert done.returncode == 2
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "m").exists()


def test_shapley_values_of_a_game_worked_by_hand():
    # a alone 1, b alone 2, both 6, with c never anything more.
    worth = {"": 0.0, "a": 1.0, "b": 2.0, "ab": 6.0}

    def value(known):
        said = worth["".join(sorted(known & {"a", "b"}))]
        return tf.constant([[said, -1.0]])

    said = contributions(value, ["a", "b", "c"], 1).numpy()
    np.testing.assert_allclose(said[0, :, 0], [2.5, 3.5, 0.0])


def test_past_four_modalities_each_has_every_place_as_often():
    orders = orders_of("abcde")
    assert len(orders) == 10
    for place in range(5):
        assert sorted(order[place] for order in orders) == sorted("abcde" * 2)
