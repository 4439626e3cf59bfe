import shutil

import numpy as np
import pytest
import tensorflow as tf
from commands import command
from tiny import EXPERIMENT

from tfmm import audit, classifier, experiment, metrics, results
from tfmm.errors import ExperimentError, RunError
from tfmm.fusion import Fusion
from tfmm.run import Run

MORE = """
[heads.learned]
model = "policy_network"
towers = ["title", "image"]
fit_on = ["train_oof", "fusion"]
hidden_units = []
activations = []
max_epochs = 2
[heads.together]
model = "joint"
towers = ["title", "image"]
projection_units = 6
hidden_units = [5]
matching_weight = 0.1
rate_factors = { title = 0.5 }
learning_rate = 0.01
max_epochs = 1
[heads.everything]
model = "mean"
towers = ["learned", "policy", "title"]
[heads.over]
model = "max"
towers = ["together", "title"]
"""


@pytest.fixture(scope="module")
def folded(catalog_file, tmp_path_factory):
    """A run with two folds, a head fitted out of fold and a head of heads."""
    folder = tmp_path_factory.mktemp("folded")
    file = folder / "experiment.toml"
    text = EXPERIMENT.replace("[catalog]", "[catalog]\nfolds = 2").replace(
        "[heads.policy]", '[heads.policy]\nfit_on = "fusion"'
    )
    file.write_text(text + MORE)
    run = folder / "run"
    done = command(
        *("-m", "tfmm.fit", file, "--catalog", catalog_file, "--run", run),
        *("--only", "towers", "--only", "heads"),
    )
    assert done.returncode == 0, done.stderr
    return Run(run)


def test_every_training_product_is_answered_by_a_tower_that_never_saw_it(folded):
    settings = folded.read_experiment()
    for name in ("title", "image"):
        kept = results.read_outputs(folded, settings, name, "train")
        held_out = results.read_outputs(folded, settings, name, "train_oof")
        np.testing.assert_array_equal(held_out.ids, kept.ids)
        np.testing.assert_array_equal(held_out.present, kept.present)
        assert not held_out.logits[~held_out.present].any()
        # In one epoch the image tower finds nothing better than its first weights.
        if name == "title":
            different = (held_out.logits != kept.logits).any(axis=1)
            assert different[kept.present].all()
    assert not folded.fold("title", 0).parent.exists()


def test_a_head_is_fitted_on_several_splits(folded):
    settings = folded.read_experiment()
    both = results.examples(folded, settings, "learned", ["train_oof", "fusion"])
    parts = [
        results.examples(folded, settings, "learned", [split])
        for split in ("train_oof", "fusion")
    ]
    assert len(both.targets) == sum(len(part.targets) for part in parts)
    assert len(set(both.groups)) == sum(len(set(part.groups)) for part in parts)
    assert settings.has_out_of_fold("learned")
    results.read_outputs(folded, settings, "learned", "train_oof")


def test_a_head_of_heads_is_what_its_parts_say(folded):
    settings = folded.read_experiment()
    assert settings.inputs_of("everything") == ["learned", "policy", "title"]
    assert settings.towers_of("everything") == ["title", "image"]
    inputs, _ = results.head_inputs(folded, settings, "everything", "test")
    said, _ = results.read_probabilities(folded, settings, "everything", "test")
    present = np.stack([x["present"] for x in inputs.values()])
    each = np.stack(
        [metrics.probabilities("multi_label", x["logits"]) for x in inputs.values()]
    )
    mean = (each * present[..., None]).sum(axis=0) / present.sum(axis=0)[:, None]
    calibration = results.read_calibration(folded, settings, "everything")
    logits = calibration.apply(metrics.logits_of("multi_label", mean))
    some = present.any(axis=0)
    expected = metrics.probabilities("multi_label", logits)
    np.testing.assert_allclose(said[some], expected[some], atol=1e-5)


@pytest.mark.parametrize(
    "name", ["everything", "learned", "product", "title", "together", "over"]
)
def test_raw_products_get_the_stored_answers(folded, name, catalog_file):
    settings = folded.read_experiment()
    model = classifier.load(folded, name)
    stored, _ = results.read_probabilities(folded, settings, name, "test")
    products = audit.audit(settings, catalog_file, None)
    rows = products.rows("test")
    raw = {
        "title": tf.constant([x.encode() for x in products.texts["title"][rows]]),
        "image": tf.constant(
            [
                tf.io.read_file(x).numpy() if x else b""
                for x in products.images["image"][rows]
            ]
        ),
    }
    answer = model.answer({key: raw[key] for key in model.modalities})
    np.testing.assert_allclose(answer["probabilities"], stored, atol=1e-5)


@pytest.mark.parametrize("name", ["everything", "policy", "product"])
def test_answers_without_a_modality_are_stored_as_if_no_product_had_it(folded, name):
    settings = folded.read_experiment()
    cases = results.read_cases(folded, settings, name, "test")
    assert set(cases) == {"without_title", "without_image"}
    fusion = Fusion(folded, settings, name)
    calibration = results.read_calibration(folded, settings, name)
    prior = np.float32(results.prior_logits(folded, settings))
    heard = {
        tower: results.calibrated(
            folded,
            settings,
            tower,
            results.read_outputs(folded, settings, tower, "test"),
        )
        for tower in settings.towers_of(name)
    }
    heard["title"] = tf.nest.map_structure(np.zeros_like, heard["title"])
    said = fusion(tf.nest.map_structure(tf.constant, heard))
    logits = np.where(
        said["present"][:, None], calibration.apply(said["logits"]), prior
    )
    expected = metrics.probabilities("multi_label", logits)
    np.testing.assert_allclose(cases["without_title"][0], expected, atol=1e-6)


def test_damaged_cases_are_told(folded, tmp_path):
    shutil.copytree(folded.path, tmp_path / "run")
    run = Run(tmp_path / "run")
    settings = run.read_experiment()
    file = run.cases("policy", "test") / "title.npz"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunError, match=r"title\.npz: truncated"):
        results.read_cases(run, settings, "policy", "test")["without_title"]


REFUSED = {
    "heads.policy.fit_on=train_oof": 'fit_on = "train_oof" needs [catalog] folds',
    "heads.policy.fit_on=['train', 'train_oof']": "which are the same products",
    "heads.policy.fit_on=['validation', 'fusion']": "takes no other beside",
    "heads.policy.fit_on=['fusion', 'fusion']": "names a split twice",
    "heads.product.towers=['title', 'product']": "hears itself: product",
    "heads.more={model='ridge', towers=['policy', 'title']}": (
        "hears 'policy', which is fitted on the same products (fusion)"
    ),
    "heads.more={model='joint', towers=['policy', 'title']}": (
        "trains towers themselves. Received: the head 'policy'"
    ),
    "catalog.folds=1": "must be 0 or at least 2",
    "heads.trees={model='boosted_trees', form='per_label', "
    "towers=['title', 'image']}": (
        "[heads.trees] form = 'per_label' is for single_label; expected 'shared'"
    ),
    "towers.look={model='tbva', modality='image', image_tower='image', "
    "text_tower='title'}": "image_tower must be an inception_v3 or a resnet50",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_leaks_or_circles_is_refused(tmp_path, override):
    file = tmp_path / "e.toml"
    file.write_text(EXPERIMENT)
    with pytest.raises(ExperimentError) as error:
        experiment.load(file, [override])
    assert REFUSED[override] in str(error.value)
    assert "\n" not in str(error.value)


def test_attention_stands_where_the_network_has_a_place_for_it(tmp_path):
    file = tmp_path / "e.toml"
    text = EXPERIMENT.replace('model = "compact_cnn"', 'model = "resnet50"')
    file.write_text(text.replace("widths = [8, 16]\n", ""))
    tower = "modality='image', image_tower='image', text_tower='title'"
    with pytest.raises(ExperimentError, match="'mixed4' is no layer of resnet50"):
        experiment.load(file, [f"towers.look={{model='tbva', {tower}}}"])
    good = f"towers.look={{model='tbva', insert_at='conv3', {tower}}}"
    assert experiment.load(file, [good]).towers_in_order()[-1] == "look"


def test_features_of_folds_are_not_mixed(tmp_path):
    file = tmp_path / "e.toml"
    file.write_text(EXPERIMENT)
    early = (
        "heads.early={model='early_fusion', towers=['title', 'image'], "
        "fit_on='train_oof'}"
    )
    with pytest.raises(ExperimentError, match="spaces of their own"):
        experiment.load(file, ["catalog.folds=3", early])
    fused = experiment.load(file, ["catalog.folds=3", early.replace("_oof", "")])
    assert not fused.has_out_of_fold("early")
    assert fused.has_out_of_fold("policy")


def test_more_folds_than_groups_is_found_before_any_training(
    catalog_file, experiment_file, tmp_path
):
    run = tmp_path / "run"
    done = command(
        *("-m", "tfmm.fit", experiment_file, "--catalog", catalog_file, "--run", run),
        *("--set", "catalog.folds=100"),
    )
    assert done.returncode == 2
    assert "of 100 folds of the training groups, " in done.stderr
    assert "have no product for title; expected fewer folds or more" in done.stderr
    assert not run.exists()
