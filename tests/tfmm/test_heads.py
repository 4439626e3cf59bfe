import dataclasses

import keras
import numpy as np
import pytest
from fused import NAMES, examples, problem
from scipy.special import expit, logit, softmax

from tfmm.heads import HEADS
from tfmm.settings import (
    BoostedTrees,
    EarlyFusion,
    Gate,
    LogisticStack,
    PolicyNetwork,
    Ridge,
    Rule,
    WeightedMean,
)

PRIOR = [0.1, -0.2, 0.3]
GENERATOR = np.random.default_rng(0)
LOGITS = {x: GENERATOR.normal(size=(4, 3)).astype(np.float32) for x in NAMES}


def head(model, task, **settings):
    kind = TABLES.get(model, Rule)
    keras.utils.set_random_seed(0)
    made_up = examples(task, labels=3, features=2)
    towers = dataclasses.replace(problem(task, made_up), prior_logits=PRIOR)
    return HEADS[model](kind(model=model, towers=list(NAMES), **settings), towers)


def answer(model, present, rows=slice(None)):
    """`present`: for each tower whether it is there, in every row."""
    inputs = {}
    for name, here in zip(NAMES, present, strict=True):
        logits = LOGITS[name][rows] * here
        inputs[name] = {
            "features": np.ones((len(logits), 2), np.float32) * here,
            "logits": logits,
            "present": np.full(len(logits), bool(here)),
        }
    return {k: np.asarray(v) for k, v in model(inputs, training=False).items()}


def by_hand(rule, task, towers):
    p = np.stack([LOGITS[x] for x in towers]).astype(np.float64)
    p = softmax(p, axis=-1) if task == "single_label" else expit(p)
    if rule == "max":
        fused = p.max(axis=0)
    elif rule == "mean":
        fused = p.mean(axis=0)
    elif rule == "mean_logits" and task == "single_label":
        fused = np.exp(np.log(p).mean(axis=0))
        fused /= fused.sum(axis=-1, keepdims=True)
    elif rule == "mean_logits":
        fused = expit(logit(p).mean(axis=0))
    elif task == "single_label":
        fused = p.prod(axis=0) / p.prod(axis=0).sum(axis=-1, keepdims=True)
    else:
        fused = p.prod(axis=0) / (p.prod(axis=0) + (1 - p).prod(axis=0))
    return np.log(fused) if task == "single_label" else logit(fused)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("rule", ["max", "mean", "product", "mean_logits"])
@pytest.mark.parametrize("present", [(1, 1, 1), (1, 0, 1), (0, 1, 0)])
def test_rules_are_what_paper_b_says_over_the_towers_that_are_there(
    rule, task, present
):
    towers = [name for name, here in zip(NAMES, present, strict=True) if here]
    logits = answer(head(rule, task), present)["logits"]
    np.testing.assert_allclose(logits, by_hand(rule, task, towers), atol=2e-5)


TABLES = {
    "boosted_trees": BoostedTrees,
    "early_fusion": EarlyFusion,
    "gate": Gate,
    "logistic_stack": LogisticStack,
    "policy_network": PolicyNetwork,
    "ridge": Ridge,
    "weighted_mean": WeightedMean,
}
EVERY_HEAD = [
    ("mean_logits", {}),
    ("weighted_mean", {}),
    ("weighted_mean", {"of": "log_probabilities"}),
    ("ridge", {}),
    ("logistic_stack", {"strengths": [0.01, 1.0]}),
    ("logistic_stack", {"strengths": [0.1], "shrink_to": "zero"}),
    ("gate", {}),
    ("boosted_trees", {"max_rounds": 10}),
    ("gate", {"choice": "soft", "inputs": "all", "hidden_units": []}),
    ("gate", {"inputs": "features", "l2": 1e-4, "dropout": 0.1}),
    ("policy_network", {"temperatures": {"image": 0.5}, "learn_temperatures": True}),
    ("early_fusion", {"projection_units": 6, "hidden_units": [5]}),
    ("max", {}),
    ("mean", {}),
    ("product", {}),
    ("policy_network", {"hidden_units": [4], "activations": ["tanh"], "l2": 1e-4}),
    ("policy_network", {"hidden_units": [], "activations": []}),
    ("policy_network", {"inputs": "probabilities", "start_from": "zero"}),
    ("policy_network", {"inputs": "log_probabilities", "start_from": "product"}),
    (
        "policy_network",
        {"hidden_units": [6, 5], "activations": ["sigmoid", "tanh"], "dropout": 0.5},
    ),
]


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize(("model", "settings"), EVERY_HEAD)
def test_every_head_answers_every_subset_and_gives_the_prior_without_any(
    model, settings, task
):
    built = head(model, task, **settings)
    for code in range(8):
        present = (code & 1, code >> 1 & 1, code >> 2 & 1)
        said = answer(built, present)
        assert said["logits"].shape == (4, 3)
        assert np.isfinite(said["logits"]).all()
        assert np.isfinite(said["features"]).all()
    np.testing.assert_allclose(answer(built, (0, 0, 0))["logits"], [PRIOR] * 4)


@pytest.mark.parametrize(("model", "settings"), EVERY_HEAD)
def test_an_answer_does_not_depend_on_the_batch(model, settings):
    built = head(model, "multi_label", **settings)
    whole = answer(built, (1, 1, 0))
    for row in range(4):
        alone = answer(built, (1, 1, 0), slice(row, row + 1))
        np.testing.assert_allclose(alone["logits"][0], whole["logits"][row], atol=1e-6)


@pytest.mark.parametrize(("model", "settings"), EVERY_HEAD)
def test_every_head_is_the_same_after_saving(model, settings, tmp_path):
    built = head(model, "single_label", **settings)
    built.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    for key, value in answer(built, (1, 1, 1)).items():
        np.testing.assert_array_equal(answer(loaded, (1, 1, 1))[key], value)
