"""Towers' features in two dimensions."""

import numpy as np
import pytest

from tfmm import results
from tfmm.outputs import Outputs
from tfmm.report import tsne
from tfmm.report.answers import Truth, look
from tfmm.report.numbers import Measured

PRODUCTS = 60
SIDES = np.arange(PRODUCTS) % 2


@pytest.fixture
def stored(monkeypatch):
    """Two towers: one keeps two kinds of products apart, one lacks every third."""
    generator = np.random.default_rng(0)
    apart = generator.normal(size=(PRODUCTS, 5)) + 50.0 * SIDES[:, None]
    present = np.arange(PRODUCTS) % 3 > 0
    features = {"title": apart, "image": generator.normal(size=(PRODUCTS, 70))}
    here = {"title": np.ones(PRODUCTS, bool), "image": present}

    def read_outputs(run, settings, name, split):
        empty = np.zeros((PRODUCTS, 2))
        return Outputs(np.arange(PRODUCTS), features[name], empty, here[name])

    monkeypatch.setattr(results, "read_outputs", read_outputs)
    return features


class Settings:
    seed = 4


def measured():
    truth = Truth.of("single_label", SIDES, 2)
    said = {"title": np.eye(2)[SIDES], "image": np.tile([0.9, 0.1], (PRODUCTS, 1))}
    answers = {x: look(truth, p, p > 0.5) for x, p in said.items()}
    models = {"title": {"kind": "tower"}, "image": {"kind": "tower"}}
    return Measured({"models": models}, truth, answers, np.arange(PRODUCTS))


def of_towers():
    return tsne.of_towers(None, Settings, "test", measured())


def test_the_same_products_lie_in_the_same_places_again(stored):
    assert of_towers() == of_towers()


def test_what_features_keep_apart_lies_apart(stored):
    title = of_towers()["title"]
    plane = np.column_stack([title["x"], title["y"]])
    side = SIDES[title["rows"]]
    middles = [plane[side == x].mean(axis=0) for x in (0, 1)]
    spread = max(plane[side == x].std() for x in (0, 1))
    assert np.linalg.norm(middles[0] - middles[1]) > 2 * spread


def test_products_are_grouped_by_who_is_right(stored):
    found = of_towers()
    assert set(found["title"]["group"]) == {"all_right", "only_this"}
    assert set(found["image"]["group"]) == {"all_right", "others_only"}
    for name, about in found.items():
        sides = SIDES[about["rows"]]
        alone = {"title": "only_this", "image": "others_only"}[name]
        expected = np.where(sides == 0, "all_right", alone)
        assert about["group"] == expected.tolist()


def test_products_that_a_tower_has_nothing_of_are_left_out(stored):
    image = of_towers()["image"]
    assert image["rows"] == [row for row in range(PRODUCTS) if row % 3]
    assert image["perplexity"] == 13.0


def test_several_others_may_be_right_in_part():
    right = np.array([True, True, True, False, False])
    others = [
        np.array([True, True, False, True, False]),
        np.array([True, False, False, False, False]),
    ]
    assert tsne.groups_of(right, others) == [
        *("all_right", "this_and_some", "only_this", "others_only", "none")
    ]


def test_features_that_say_nothing_have_no_plane(stored):
    stored["title"][:] = 1.0
    assert set(of_towers()) == {"image"}


def test_the_more_towers_the_fewer_products_of_each(stored, monkeypatch):
    monkeypatch.setattr(tsne, "PRODUCTS_IN_ALL", 50)
    assert len(of_towers()["title"]["rows"]) == 25
