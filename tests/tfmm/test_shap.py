"""SHAP values of boosted heads, held against LightGBM and against Shapley's formula."""

from itertools import combinations
from math import factorial

import keras
import lightgbm
import numpy as np
import pytest
from fused import NAMES, answer, examples, problem

from tfmm.errors import RunError
from tfmm.exhibits.shap import explain
from tfmm.heads.boosted_trees import boosted_trees
from tfmm.heads.candidates import OF_A_LABEL, OF_A_TOWER, TOGETHER, subjects
from tfmm.layers import LAYERS
from tfmm.settings import BoostedTrees

CASES = [
    ("shared", "single_label"),
    ("shared", "multi_label"),
    ("per_label", "single_label"),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda x: "-".join(x))
def case(request, tmp_path_factory):
    """A head as a run keeps it, products, their first labels, and what explains it."""
    form, task = request.param
    own = {"max_rounds": 12, "min_products_per_leaf": 5, "towers": list(NAMES)}
    settings = BoostedTrees(model="boosted_trees", form=form, **own)
    file = tmp_path_factory.mktemp("head") / "model.keras"
    boosted_trees(settings, problem(task, examples(task, 300, seed=1))).save(file)
    head = keras.saving.load_model(file, custom_objects=LAYERS)
    inputs = examples(task, 40, absent=0.2, seed=3).inputs
    logits = answer(head, inputs)["logits"]
    labels = logits.argmax(axis=1)
    found = explain(head, form, inputs, labels, "model.keras")
    return form, task, head, inputs, labels, found


def total(found):
    parts = [found.of.sum(axis=1), found.bias, *found.beside.values()]
    return np.sum(parts, axis=0)


def test_what_towers_do_adds_up_to_lightgbms_raw_score(case):
    *_, found = case
    assert found.asked.all()
    np.testing.assert_allclose(total(found), found.score, atol=1e-9)
    assert found.largest_gap < 1e-9
    assert found.score.std() > 0.01


def test_the_score_is_the_heads_own(case):
    form, task, head, inputs, labels, found = case
    logits = answer(head, inputs)["logits"][np.arange(len(labels)), labels]
    if task == "multi_label":
        np.testing.assert_allclose(found.score, logits, atol=1e-5)
    else:  # a softmax shifts the scores of a product, so labels must be compared
        second = answer(head, inputs)["logits"].argsort(axis=1)[:, -2]
        other = explain(head, form, inputs, second, "model.keras")
        both = other.asked
        ahead = logits - answer(head, inputs)["logits"][np.arange(len(labels)), second]
        np.testing.assert_allclose(
            (found.score[both] - other.score), ahead[both], atol=1e-4
        )


def test_what_is_told_of_no_tower_stands_apart(case):
    form, _, head, _, _, found = case
    width = head.get_layer("trees").num_features
    assert found.of.shape[1] == len(NAMES)
    if form == "shared":
        assert width == len(NAMES) * OF_A_TOWER + TOGETHER + OF_A_LABEL
        assert len(subjects(len(NAMES))) == width
        assert set(found.beside) == {"together", "label_share"}
    else:
        assert width == len(NAMES) * 4
        assert not found.beside


def test_values_are_shapleys():
    """On trees of two columns, summed by the formula over all orders."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(400, 2))
    y = x[:, 0] + 2.0 * (x[:, 1] > 0) * x[:, 0]
    options = {"num_leaves": 4, "verbosity": -1, "num_threads": 1, "seed": 0}
    booster = lightgbm.train(options, lightgbm.Dataset(x, y), 3)
    trees = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]

    def expected(node, row, known):
        if "leaf_value" in node:
            return node["leaf_value"]
        sides = node["left_child"], node["right_child"]
        if node["split_feature"] in known:
            went = row[node["split_feature"]] > node["threshold"]
            return expected(sides[int(went)], row, known)
        counts = [x.get("internal_count", x.get("leaf_count")) for x in sides]
        values = [expected(side, row, known) for side in sides]
        return np.average(values, weights=counts)

    def value(row, known):
        return sum(expected(tree, row, known) for tree in trees)

    found = booster.predict(x[:5], pred_contrib=True)
    for row, values in zip(x[:5], found, strict=True):
        for column in range(2):
            others = [other for other in range(2) if other != column]
            shapley = sum(
                factorial(size)
                * factorial(1 - size)
                / factorial(2)
                * (value(row, {*some, column}) - value(row, set(some)))
                for size in range(2)
                for some in combinations(others, size)
            )
            assert values[column] == pytest.approx(shapley, abs=1e-9)


def test_trees_of_another_head_are_refused(case):
    form, _, head, inputs, labels, _ = case
    trees = head.get_layer("trees")
    kept = trees.source
    values = kept.split("\nleaf_value=")[1].split("\n")[0]
    turned = " ".join(reversed(values.split()))  # of the same length, or it aborts
    trees.source = kept.replace(values, turned, 1)
    try:
        with pytest.raises(RunError, match="add up to its raw scores"):
            explain(head, form, inputs, labels, "model.keras")
    finally:
        trees.source = kept
