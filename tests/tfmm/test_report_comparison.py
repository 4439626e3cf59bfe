import numpy as np
import pytest
from sklearn.metrics import f1_score

from tfmm import bootstrap, metrics
from tfmm.report import answers, comparison

PRODUCTS, LABELS = 30, 4
GROUPS = np.arange(PRODUCTS) // 2


def decisions(seed, rate=0.4):
    generator = np.random.default_rng(seed)
    return generator.random((PRODUCTS, LABELS)) < rate


def counts(truth, given):
    return (truth & given).sum(axis=1), given.sum(axis=1)


def right(*rows):
    return {name: np.array([x == "1" for x in row]) for name, row in rows}


def figures(task, targets, said, given):
    truth = answers.Truth.of(task, targets, said.shape[1])
    return answers.figures(truth, answers.look(truth, said, given))


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_figures_are_scikit_learns(task):
    generator = np.random.default_rng(1)
    said = generator.random((PRODUCTS, LABELS))
    if task == "single_label":
        targets = generator.integers(LABELS - 1, size=PRODUCTS)  # the last never occurs
        truth = metrics.one_hot(targets, LABELS)
    else:
        truth = decisions(2)
        truth[:, -1] = False
        targets = np.float32(truth)
    given = metrics.assigned(task, said, np.full(LABELS, 0.6))
    given[:3] = False
    found = figures(task, targets, said, given)
    assert found["micro_f1"] == pytest.approx(f1_score(truth, given, average="micro"))
    macro = f1_score(truth, given, average="macro", labels=range(LABELS - 1))
    assert found["macro_f1"] == pytest.approx(macro)
    assert found["top1"] == metrics.is_right(task, targets, said).mean()


def test_figures_of_no_decision_are_zero():
    targets, nothing = np.array([0, 1]), np.zeros((2, 3), bool)
    found = figures("single_label", targets, np.eye(3)[:2], nothing)
    assert found == {"top1": 1.0, "micro_f1": 0.0, "macro_f1": 0.0}


def test_every_draw_of_micro_f1_is_scikit_learns_on_the_drawn_groups():
    truth, first, second = decisions(0), decisions(1), decisions(2)
    given = {"first": first, "second": second}
    found = comparison.micro_f1_draws(
        truth.sum(axis=1),
        {name: counts(truth, x) for name, x in given.items()},
        bootstrap.Draws(GROUPS, seed=3, number=20),
    )
    generator = np.random.default_rng(3)
    drawn = [np.arange(PRODUCTS)]
    for _ in range(20):
        groups = generator.integers(15, size=15)
        drawn.append(
            np.concatenate([np.flatnonzero(np.isin(GROUPS, x)) for x in groups])
        )
    for name, x in given.items():
        expected = [f1_score(truth[i], x[i], average="micro") for i in drawn]
        np.testing.assert_allclose(found[name], expected)


def test_with_one_label_each_the_interval_is_that_of_the_share_right():
    targets = np.random.default_rng(0).integers(LABELS, size=PRODUCTS)
    chosen = np.random.default_rng(1).integers(2, size=PRODUCTS)
    truth = metrics.one_hot(targets, LABELS)
    given = metrics.one_hot(chosen, LABELS)
    found = comparison.micro_f1_draws(
        truth.sum(axis=1), {"a": counts(truth, given)}, bootstrap.Draws(GROUPS, seed=5)
    )
    expected = bootstrap.interval(targets == chosen, GROUPS, seed=5)
    assert bootstrap.edges(found["a"]) == pytest.approx(expected)


def test_gain_in_micro_f1_is_over_the_tower_that_is_best_in_it():
    draws = {
        "title": np.array([0.5, 0.4, 0.6]),
        "image": np.array([0.3, 0.3, 0.3]),
        "head": np.array([0.7, 0.5, 0.9]),
    }
    found = comparison.against_towers_micro_f1("head", ["image", "title"], draws)
    assert found["best_tower_micro_f1"] == "title"
    assert found["gain_micro_f1"] == pytest.approx(0.2)
    # The draws' gains are 0.1 and 0.3.
    expected = [0.1 + 0.025 * 0.2, 0.3 - 0.025 * 0.2]
    assert found["gain_micro_f1_interval"] == pytest.approx(expected)


def test_ranking_is_by_the_figure_and_then_by_the_loss():
    validation = {
        "worst": {"top1": 0.2, "micro_f1": 0.9, "loss": 0.1},
        "second": {"top1": 0.5, "micro_f1": 0.1, "loss": 0.8},
        "first": {"top1": 0.5, "micro_f1": 0.2, "loss": 0.7},
    }
    assert comparison.rank(validation, "top1") == ["first", "second", "worst"]
    assert comparison.rank(validation, "micro_f1") == ["worst", "first", "second"]


def test_pairs_worked_by_hand():
    first = right(("a", "111100"), ("b", "100001"), ("c", "111100"))
    top1 = comparison.top1_draws(first, bootstrap.Draws(np.arange(6), 0))
    found = comparison.pairs(["a", "b", "c"], top1, None)
    assert list(found) == ["a|b", "a|c", "b|c"]
    assert found["a|b"]["top1"] == pytest.approx(2 / 6)
    difference = np.array([0, 1, 1, 1, 0, -1])
    expected = bootstrap.interval(difference, np.arange(6), 0)
    assert found["a|b"]["top1_interval"] == pytest.approx(expected)
    assert found["a|c"] == {"top1": 0.0, "top1_interval": [0.0, 0.0]}


def test_only_the_first_heads_are_compared():
    names = [f"head_{number}" for number in range(7)]
    found = comparison.pairs(names, {name: np.ones(2) for name in names}, None)
    assert len(found) == 10
    assert not [pair for pair in found if "head_5" in pair or "head_6" in pair]


def test_towers_right_worked_by_hand():
    said = right(
        ("title", "110010"), ("text", "111000"), ("image", "100000"), ("head", "101101")
    )
    found = comparison.towers_right(["title", "text", "image"], ["head"], said)
    products = {key: group["products"] for key, group in found.items()}
    assert products == {"none": 2, "one": 2, "several": 1, "all": 1}
    shares = {key: group["right"]["head"] for key, group in found.items()}
    assert shares == {"none": 1.0, "one": 0.5, "several": 0.0, "all": 1.0}
    assert sum(group["share"] for group in found.values()) == pytest.approx(1.0)


def test_of_one_tower_all_or_none_are_right():
    found = comparison.towers_right(["title"], [], right(("title", "110")))
    products = {key: group["products"] for key, group in found.items()}
    assert products == {"none": 1, "one": 0, "several": 0, "all": 2}
