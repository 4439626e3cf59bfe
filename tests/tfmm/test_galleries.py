"""Which products a report shows, on answers made up here."""

import numpy as np
import pytest

from tfmm.report import galleries
from tfmm.report.answers import Truth, look
from tfmm.report.galleries import choose
from tfmm.report.numbers import Measured

LABELS, PRODUCTS = 4, 80


def measured(strengths, head="both", groups=None, task="single_label", seed=0):
    """What models of different strengths say of the same products."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(LABELS, size=PRODUCTS)
    if task == "multi_label":
        many = np.eye(LABELS)[targets]
        many[::3, 0] = 1.0
        truth = Truth.of(task, many, LABELS)
    else:
        truth = Truth.of(task, targets, LABELS)
    models, answers = {}, {}
    for name, strength in strengths.items():
        logits = strength * np.eye(LABELS)[targets]
        logits += generator.normal(size=logits.shape)
        said = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assigned = said == said.max(axis=1, keepdims=True)
        answers[name] = look(truth, said, assigned)
        missed = truth.support - truth.per_label(answers[name].found)
        models[name] = {
            "kind": "head" if name == head else "tower",
            "best_tower": "title",
            "worst": {"by_share": np.flatnonzero(missed).tolist()},
        }
    numbers = {
        "models": models,
        "label_names": list("abcd"),
        "ranking": sorted(models, key=lambda x: -strengths[x]),
    }
    if head in models:
        numbers["best_head"] = head
    groups = np.arange(PRODUCTS) if groups is None else groups
    return Measured(numbers, truth, answers, groups)


STRENGTHS = {"weak": 0.1, "image": 1.0, "title": 1.5, "both": 2.5}


@pytest.fixture
def found():
    return measured(STRENGTHS)


def by_kind(found, seed=0):
    return {x["kind"]: x for x in choose(found, seed)}


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_galleries_hold_what_they_say(task):
    case = measured(STRENGTHS, task=task)
    a, b, head = (case.answers[x].right for x in ("title", "image", "both"))
    members = {
        "both": a & b,
        "only_first": a & ~b,
        "only_second": ~a & b,
        "none": ~a & ~b,
        "rescued": head & ~a,
        "broken": ~head & a,
    }
    shown = by_kind(case)
    assert set(members) < set(shown)
    for kind, rows in members.items():
        assert shown[kind]["products"] == rows.sum()
        assert rows[shown[kind]["rows"]].all()
        assert 0 < len(shown[kind]["rows"]) <= 12
    assert shown["both"]["models"] == ["title", "image"]
    assert shown["rescued"]["models"] == ["both", "title"]


def test_products_that_a_label_was_missed_for_are_of_that_label(found):
    missed = [x for x in choose(found, 0) if x["kind"] == "worst_label"]
    judge = found.numbers["models"]["both"]
    assert [x["label"] for x in missed] == judge["worst"]["by_share"]
    answer, truth = found.answers["both"], found.truth
    for gallery in missed:
        rows = np.array(gallery["rows"])
        assert (truth.labels[rows] == gallery["label"]).all()
        assert not answer.found[rows].any()
        assert (np.diff(answer.probability[rows]) >= 0).all()
        assert f"Missed: {'abcd'[gallery['label']]}" == gallery["title"]


def test_the_surest_of_the_wrong_come_first(found):
    shown = by_kind(found)
    for kind, name in (
        *(("only_first", "image"), ("only_second", "title")),
        *(("rescued", "title"), ("broken", "both")),
    ):
        sure = found.answers[name].certainty[shown[kind]["rows"]]
        assert (np.diff(sure) <= 0).all()
    both = np.minimum(*(found.answers[x].certainty for x in ("title", "image")))
    assert (np.diff(both[shown["none"]["rows"]]) <= 0).all()


def test_no_label_fills_a_gallery(found):
    for gallery in choose(found, 0):
        labels = found.truth.labels[gallery["rows"]]
        if gallery["kind"] != "worst_label":
            assert np.bincount(labels).max() <= galleries.OF_A_LABEL


def test_no_two_products_of_a_group_are_shown_together():
    case = measured(STRENGTHS, groups=np.arange(PRODUCTS) // 4)
    for gallery in choose(case, 0):
        groups = case.groups[gallery["rows"]]
        assert len(set(groups)) == len(groups)


def test_the_seed_draws_what_is_usual_and_nothing_else(found):
    assert choose(found, 3) == choose(found, 3)
    one, other = by_kind(found, 0), by_kind(found, 1)
    assert {k for k in one if one[k]["rows"] != other[k]["rows"]} == {"both"}


def test_a_single_tower_is_right_or_wrong():
    case = measured({"title": 1.0})
    shown = by_kind(case)
    assert set(shown) == {"right", "wrong", "worst_label"}
    right = case.answers["title"].right
    assert shown["wrong"]["products"] == (~right).sum()
    assert right[shown["right"]["rows"]].all()


def test_what_holds_no_product_is_absent():
    shown = by_kind(measured({"image": 50.0, "title": 60.0, "both": 70.0}))
    assert set(shown) == {"both"}
