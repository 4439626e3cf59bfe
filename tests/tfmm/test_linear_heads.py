"""Heads that a library fits: ridge, logistic stack, weighted mean."""

import dataclasses

import keras
import numpy as np
import pytest
from fused import NAMES, answer, examples, problem
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from tfmm import metrics, train
from tfmm.errors import RunError
from tfmm.heads.linear import with_hidden
from tfmm.heads.logistic_stack import HIDDEN_WEIGHT, Regression, logistic_stack
from tfmm.heads.ridge import ridge
from tfmm.heads.weighted_mean import fit_weights, weighted_mean
from tfmm.settings import LogisticStack, WeightedMean
from tfmm.settings import Ridge as RidgeSettings

TASKS = ["single_label", "multi_label"]


def settings(kind, model, **own):
    return kind(model=model, towers=list(NAMES), **own)


def read_by_hand(task, inputs, function):
    """Joined readings `(n, towers * C + towers)`, zeros where a tower is absent."""
    here = np.stack([x["present"] for x in inputs.values()], axis=1)
    visible = [
        function(np.float64(x["logits"])) * x["present"][:, None]
        for x in inputs.values()
    ]
    return np.concatenate([*visible, here], axis=1)


def test_ridge_is_scikit_learns_on_the_same_products():
    made = problem("single_label")
    head = ridge(settings(RidgeSettings, "ridge", alphas=[1.0]), made)
    inputs, targets = with_hidden(made.fit, made.units, made.seed)
    # One penalty to choose from: the choice is another test.
    fitted = Ridge(alpha=1.0).fit(
        read_by_hand("single_label", inputs, lambda x: softmax(x, axis=-1)),
        np.float64(metrics.one_hot(targets, 4)),
    )
    asked = made.held_out.inputs
    predicted = fitted.predict(
        read_by_hand("single_label", asked, lambda x: softmax(x, axis=-1))
    )
    expected = np.log(np.clip(predicted, 1e-7, 1 - 1e-7))
    np.testing.assert_allclose(answer(head, asked)["logits"], expected, atol=2e-4)


def test_the_penalty_is_chosen_on_groups_left_out():
    """A product's hidden copy in the fit would make the weakest penalty the best."""
    made = problem("single_label", examples("single_label", products=80, seed=5))
    noise = np.random.default_rng(0).integers(4, size=80).astype(np.int32)
    senseless = dataclasses.replace(made.fit, targets=noise)
    own = settings(RidgeSettings, "ridge", alphas=[1e-3, 1e4])
    heads = [
        ridge(own, dataclasses.replace(made, fit=fit)) for fit in (made.fit, senseless)
    ]
    sizes = [np.abs(x.get_layer("regression").get_weights()[0]).max() for x in heads]
    assert sizes[0] > 0.1
    assert sizes[1] < 0.02


def test_ridge_of_one_label_adds_up_to_one():
    made = problem("single_label")
    head = ridge(settings(RidgeSettings, "ridge"), made)
    dense = head.get_layer("regression")
    said = keras.Model(head.input, dense.output)(dict(made.held_out.inputs))
    np.testing.assert_allclose(np.asarray(said).sum(axis=1), 1.0, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_a_logistic_stack_towards_zero_is_scikit_learns(task):
    made = problem(task)
    own = settings(LogisticStack, "logistic_stack", strengths=[0.3], shrink_to="zero")
    head = logistic_stack(own, made)
    function = {
        "single_label": lambda x: log_softmax(x, axis=-1),
        "multi_label": lambda x: np.clip(x, -12, 12),
    }[task]
    inputs, targets = with_hidden(made.fit, made.units, made.seed)
    hot = targets if task == "multi_label" else metrics.one_hot(targets, 4)
    weights = np.repeat([1.0, HIDDEN_WEIGHT], len(made.fit.targets))
    seen = Regression(
        *(task, read_by_hand(task, inputs, function), np.float64(hot), weights, False)
    )
    asked = read_by_hand(task, made.held_out.inputs, function)
    said = answer(head, made.held_out.inputs)["logits"]
    # The same matrix; the column of ones at its end is ours for an intercept.
    flags = np.stack([x["present"] for x in made.held_out.inputs.values()], axis=1)
    centred = [
        (asked[:, 4 * t : 4 * t + 4] - seen.means[t]) * flags[:, [t]] / seen.spread
        for t in range(3)
    ]
    matrix = np.concatenate([*centred, flags, np.ones((len(asked), 1))], axis=1)
    for label in range(4 if task == "multi_label" else 1):
        model = LogisticRegression(C=0.3, fit_intercept=False, tol=1e-6, max_iter=2000)
        truth = targets[:, label] if task == "multi_label" else targets
        expected = model.fit(seen.inputs, truth, weights).decision_function(matrix)
        found = said[:, label] if task == "multi_label" else said
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_strength_is_chosen_on_groups_left_out():
    """Where only the targets of whole groups are random, a weak model is best."""
    made = problem("single_label", examples("single_label", products=80, seed=5))
    noise = np.random.default_rng(0).integers(4, size=80).astype(np.int32)
    senseless = dataclasses.replace(made.fit, targets=noise)
    own = {"strengths": [1e-4, 100.0], "shrink_to": "zero"}
    heads = [
        logistic_stack(
            settings(LogisticStack, "logistic_stack", **own),
            dataclasses.replace(made, fit=fit),
        )
        for fit in (made.fit, senseless)
    ]
    sizes = [np.abs(x.get_layer("regression").get_weights()[0]).max() for x in heads]
    assert sizes[0] > 0.5
    assert sizes[1] < 0.05


@pytest.mark.parametrize("task", TASKS)
def test_a_stack_held_hard_is_a_weighted_product(task):
    made = problem(task)
    own = settings(LogisticStack, "logistic_stack", strengths=[1e-9])
    kernel, bias = logistic_stack(own, made).get_layer("regression").get_weights()
    blocks = kernel[:12].reshape(3, 4, 4)
    for block in blocks:
        np.testing.assert_allclose(block, block[0, 0] * np.eye(4), atol=1e-4)
    assert (blocks[:, 0, 0] > 0.05).all()
    np.testing.assert_allclose(bias, 0.0, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_a_stack_near_the_product_learns_from_few_products(task):
    few = examples(task, products=60, labels=16, seed=3)
    asked = examples(task, products=400, labels=16, seed=4)
    loss = {}
    for shrink_to in ("product", "zero"):
        own = settings(LogisticStack, "logistic_stack", shrink_to=shrink_to)
        head = logistic_stack(own, problem(task, few))
        said = answer(head, asked.inputs)["logits"]
        loss[shrink_to] = metrics.log_loss(task, asked.targets, said)
    assert loss["product"] < loss["zero"]


def test_too_few_groups_for_the_inner_folds_are_told():
    made = problem("single_label")
    one = dataclasses.replace(made.fit, groups=np.zeros(len(made.fit.groups), int))
    with pytest.raises(RunError, match="1 groups of products, which inner_folds = 3"):
        logistic_stack(
            settings(LogisticStack, "logistic_stack"),
            dataclasses.replace(made, fit=one),
        )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("build", "kind"), [(ridge, RidgeSettings), (logistic_stack, LogisticStack)]
)
def test_a_label_without_a_product_has_its_place_and_is_never_first(task, build, kind):
    made = problem(task, examples(task, labels=5))
    targets = made.fit.targets.copy()
    targets[..., targets == 4] = 0
    if task == "multi_label":
        targets = made.fit.targets.copy()
        targets[:, 4] = 0.0
    fit = dataclasses.replace(made.fit, targets=targets)
    made = dataclasses.replace(made, fit=fit, prior_logits=[0.0, 0, 0, 0, -9.0])
    said = answer(build(settings(kind, build.__name__), made), fit.inputs)
    assert said["logits"].shape == (len(targets), 5)
    assert np.isfinite(said["logits"]).all()
    assert (said["logits"].argmax(axis=1) != 4).mean() > 0.98


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("of", ["probabilities", "log_probabilities"])
def test_fitted_weights_are_no_worse_than_equal_ones_nor_than_a_tower(task, of):
    made = problem(task, examples(task, absent=0.0))
    own = settings(WeightedMean, "weighted_mean", of=of)
    weights = fit_weights(own, made)
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] == max(weights)  # the title knows most

    def loss(logits):
        sharpness = np.exp(np.linspace(-1.5, 1.5, 31))
        return min(
            metrics.log_loss(task, made.fit.targets, logits * x) for x in sharpness
        )

    fused = loss(answer(weighted_mean(own, made), made.fit.inputs)["logits"])
    each = [loss(x["logits"]) for x in made.fit.inputs.values()]
    assert fused <= min(each) + 1e-3


def test_other_weights_are_another_model_to_the_store():
    hashes = set()
    for seed in (1, 2):
        made = problem("single_label", examples("single_label", seed=seed))
        head = weighted_mean(settings(WeightedMean, "weighted_mean"), made)
        hashes.add(train.weights_hash(head))
    assert len(hashes) == 2


def test_a_tower_alone_answers_as_by_itself_whatever_its_weight():
    made = problem("single_label")
    head = weighted_mean(settings(WeightedMean, "weighted_mean"), made)
    inputs = {
        name: {key: value * (name == "image") for key, value in said.items()}
        for name, said in made.fit.inputs.items()
    }
    for said in inputs.values():
        said["present"] = said["present"].astype(bool)
    logits = answer(head, inputs)["logits"]
    here = inputs["image"]["present"]
    expected = log_softmax(inputs["image"]["logits"], axis=-1)
    np.testing.assert_allclose(logits[here], expected[here], atol=1e-4)
