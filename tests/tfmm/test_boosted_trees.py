import dataclasses

import keras
import lightgbm
import numpy as np
import pytest
import tensorflow as tf
from fused import NAMES, answer, examples, problem

from tfmm import metrics, train
from tfmm.errors import ExperimentError, RunError
from tfmm.heads.boosted_trees import boosted_trees
from tfmm.layers import LAYERS
from tfmm.settings import BoostedTrees

TASKS = ["single_label", "multi_label"]
FORMS = [(form, task) for form in ("shared", "per_label") for task in TASKS][:3]


def settings(**own):
    small = {"max_rounds": 40, "min_products_per_leaf": 5, "towers": list(NAMES)}
    return BoostedTrees(model="boosted_trees", **{**small, **own})


def made(task, products=400, **more):
    fit = examples(task, products, seed=1, **more)
    return problem(task, fit, examples(task, 150, seed=2, **more))


@pytest.mark.parametrize(("form", "task"), FORMS)
def test_trees_beat_every_tower(form, task):
    towers = made(task)
    asked = examples(task, 600, absent=0.0, seed=3)
    said = answer(boosted_trees(settings(form=form), towers), asked.inputs)["logits"]
    best = max(
        metrics.is_right(task, asked.targets, x["logits"]).mean()
        for x in asked.inputs.values()
    )
    assert metrics.is_right(task, asked.targets, said).mean() > best


def test_several_labels_are_asked_about_by_the_shared_form():
    with pytest.raises(ExperimentError, match="shared"):
        boosted_trees(settings(form="per_label"), made("multi_label"))


def test_what_is_held_out_stops_the_boosting_and_teaches_nothing():
    towers = made("single_label")
    shuffled = np.random.default_rng(0).permutation(towers.held_out.targets)
    poisoned = dataclasses.replace(towers.held_out, targets=shuffled)
    sizes = []
    for held_out in (towers.held_out, poisoned):
        head = boosted_trees(settings(), dataclasses.replace(towers, held_out=held_out))
        sizes.append(head.get_layer("trees").num_trees)
    # Trees are a matter of the fit products, so the fewer are the first of the more.
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(("form", "task"), FORMS[::2])
def test_a_label_without_a_product_keeps_its_place(form, task):
    towers = made(task, labels=5)
    targets = np.where(towers.fit.targets == 4, 0, towers.fit.targets)
    fit = dataclasses.replace(towers.fit, targets=targets.astype(np.int32))
    head = boosted_trees(settings(form=form), dataclasses.replace(towers, fit=fit))
    said = answer(head, fit.inputs)["logits"]
    assert said.shape == (400, 5)
    assert np.isfinite(said).all()


def test_labels_that_no_tower_puts_forward_get_the_least_probability():
    towers = made("multi_label", labels=12)
    head = boosted_trees(settings(num_candidates=2), towers)
    said = answer(head, towers.fit.inputs)["logits"]
    least = np.isclose(said, np.log(1e-7) - np.log1p(-1e-7), atol=1e-3)
    asked = np.zeros(said.shape, bool)
    for tower in towers.fit.inputs.values():
        first = np.argsort(-tower["logits"], axis=1)[:, :2]
        here = np.flatnonzero(tower["present"])
        asked[here[:, None], first[here]] = True
    assert least[~asked].all()
    assert not least[asked].any()


def test_the_same_seed_grows_the_same_trees_and_they_survive_saving(tmp_path):
    towers = made("single_label")
    heads = [boosted_trees(settings(), towers) for _ in range(2)]
    assert train.weights_hash(heads[0]) == train.weights_hash(heads[1])
    other = dataclasses.replace(towers, seed=7)
    assert train.weights_hash(boosted_trees(settings(), other)) != train.weights_hash(
        heads[0]
    )
    heads[0].save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects=LAYERS)
    np.testing.assert_array_equal(
        answer(loaded, towers.fit.inputs)["logits"],
        answer(heads[0], towers.fit.inputs)["logits"],
    )


def test_trees_take_the_threads_that_tensorflow_has_and_are_the_same(monkeypatch):
    towers = made("single_label")
    taken, hashes = [], []
    train_trees = lightgbm.train

    def watched(options, *rest, **more):
        taken.append(options["num_threads"])
        return train_trees(options, *rest, **more)

    monkeypatch.setattr(lightgbm, "train", watched)
    for given in (0, 1, 16):  # 0: TensorFlow chooses
        threading = tf.config.threading
        name = "get_intra_op_parallelism_threads"
        monkeypatch.setattr(threading, name, lambda given=given: given)
        hashes.append(train.weights_hash(boosted_trees(settings(), towers)))
    assert taken == [2, 1, 2]
    assert len(set(hashes)) == 1


@pytest.mark.parametrize("form", ["shared", "per_label"])
def test_products_that_fill_no_leaf_are_one_clear_error(form, capfd):
    few = settings(form=form, min_products_per_leaf=100_000)
    with pytest.raises(RunError, match=r"finds no split; .*_leaf = 100000"):
        boosted_trees(few, made("single_label"))
    assert "LightGBM" not in capfd.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_products_that_no_tower_sees_are_one_clear_error(task, capfd):
    towers = made(task)
    unseen = {
        name: {key: np.zeros_like(x) for key, x in tower.items()}
        for name, tower in towers.held_out.inputs.items()
    }
    unseen = dataclasses.replace(towers.held_out, inputs=unseen)
    with pytest.raises(RunError, match=r"no products that a tower sees; .* 0 rows"):
        boosted_trees(settings(), dataclasses.replace(towers, held_out=unseen))
    assert "LightGBM" not in capfd.readouterr().err


def test_towers_may_be_called_anything():
    # What trees read of a head called `product`, and of the product rule.
    names = ("title", "product")
    towers = problem(
        "single_label",
        examples("single_label", seed=1, names=names),
        examples("single_label", 60, seed=2, names=names),
    )
    head = boosted_trees(settings(towers=list(names)), towers)
    assert np.isfinite(answer(head, towers.fit.inputs)["logits"]).all()
