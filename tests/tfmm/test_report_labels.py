"""Numbers of labels, confusion, coverage, images and modalities."""

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.stats import binomtest, false_discovery_control

from tfmm import blocks, bootstrap, calibration, metrics
from tfmm.errors import RunError
from tfmm.report import answers, confusion, coverage, labels
from tfmm.report.answers import Truth, look
from tfmm.report.confusion import Paths
from tfmm.report.learning import learning
from tfmm.report.leaving_out import left_out

TASKS = ("single_label", "multi_label")
PRODUCTS, LABELS = 40, 6
GROUPS = np.arange(PRODUCTS) // 2


def made_up(task, seed=0, products=PRODUCTS, num_labels=LABELS):
    """Truth, probabilities and what is assigned; the last label never occurs."""
    generator = np.random.default_rng(seed)
    if task == "single_label":
        targets = np.random.default_rng(9).integers(num_labels - 1, size=products)
        matrix = metrics.one_hot(targets, num_labels)
    else:
        matrix = np.random.default_rng(9).random((products, num_labels)) < 0.3
        matrix[:, -1] = False
        targets = np.float32(matrix)
    logits = generator.normal(size=matrix.shape) + 2.0 * matrix
    said = metrics.probabilities(task, logits)
    limit = 0.3 if task == "single_label" else 0.6
    given = metrics.assigned(task, said, np.full(num_labels, limit))
    return Truth.of(task, targets, num_labels), matrix, said, given


# ----------------------------------------------------------------------- labels


@pytest.mark.parametrize("task", TASKS)
def test_figures_of_each_label_are_scikit_learns(task):
    truth, matrix, said, given = made_up(task)
    found = labels.per_label(truth, look(truth, said, given))
    nan = {"zero_division": np.nan}
    each = sk.precision_recall_fscore_support(matrix, given, **nan)
    for key, expected in zip(("precision", "recall", "f1"), each[:3], strict=True):
        np.testing.assert_allclose(np.array(found[key], float), expected, atol=5.1e-5)
    assert found["recall"][-1] is None
    assert found["given"] == given.sum(axis=0).tolist()
    assert found["found"] == (given & matrix).sum(axis=0).tolist()


@pytest.mark.parametrize("task", TASKS)
def test_blocks_of_rows_change_nothing(task, monkeypatch):
    truth, _, said, given = made_up(task)

    def everything():
        answer = look(truth, said, given)
        ranks = metrics.ranks(truth.rows, truth.labels, said)
        sure = coverage.sureness(truth, answer, ranks, said, given, GROUPS)
        names = [f"{x % 2} > {x}" for x in range(LABELS)]
        near = Paths(names, " > ").nearness(truth, given)
        told = confusion.confused(truth, given)
        return [*vars(answer).values(), *vars(sure).values(), *near, told]

    whole = everything()
    monkeypatch.setattr(blocks, "BLOCK_NUMBERS", 4 * LABELS)
    for expected, found in zip(whole, everything(), strict=True):
        np.testing.assert_allclose(found, expected)


def test_measures_of_several_labels_are_scikit_learns():
    truth, matrix, said, given = made_up("multi_label")
    ranks = metrics.ranks(truth.rows, truth.labels, said)
    found = answers.measures(truth, look(truth, said, given), ranks, said)
    assert found["exact"] == pytest.approx(sk.accuracy_score(matrix, given))
    assert found["given"] == given.sum() / PRODUCTS
    assert found["unassigned"] == (~given.any(axis=1)).mean()
    first = np.argsort(-said, axis=1)[:, :3]
    hits = np.take_along_axis(matrix, first, axis=1).sum(axis=1)
    assert found["precision_at"]["3"] == pytest.approx(hits.mean() / 3)
    due = np.maximum(matrix.sum(axis=1), 1)
    assert found["recall_at"]["3"] == pytest.approx((hits / due).mean())


def test_the_worst_label_is_not_one_of_a_lone_product():
    missed, support = np.array([1, 45, 60, 0, 0]), np.array([1, 50, 400, 30, 0])
    found = labels.worst(missed, support)
    assert found == {"by_share": [1, 0, 2], "by_count": [2, 1, 0]}


def test_wilson_intervals_are_scipys():
    low, high = labels.wilson(np.array([0, 3, 20, 0]), np.array([5, 7, 20, 0]))
    for place, (k, n) in enumerate(((0, 5), (3, 7), (20, 20))):
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert (low[place], high[place]) == pytest.approx(tuple(expected))
    assert (low[3], high[3]) == pytest.approx((0.0, 1.0))


def test_who_found_each_label_worked_by_hand():
    # Labels 0, 0, 1, 1; first choices of three towers.
    truth = Truth.of("single_label", np.array([0, 0, 1, 1]), 2)
    said = {}
    for name, first in (("a", [0, 0, 1, 0]), ("b", [0, 1, 0, 0]), ("c", [0, 1, 1, 0])):
        given = metrics.one_hot(np.array(first), 2)
        said[name] = look(truth, given * 0.8 + 0.1, given)
    found = labels.towers_found(truth, ["a", "b", "c"], said)
    assert found == {"none": [0, 1], "one": [1, 0], "several": [0, 1], "all": [1, 0]}
    found = labels.groups_per_label(truth, ["a", "b"], said)
    assert found["a|b"] == {
        "both": [1, 0],
        "only_a": [1, 1],
        "only_b": [0, 0],
        "none": [0, 1],
    }


# ----------------------------------------------------------------------- images


def test_what_images_add_is_told_label_by_label():
    generator = np.random.default_rng(1)
    targets = generator.integers(2, size=60)
    truth = Truth.of("single_label", targets, 3)
    groups = np.arange(60) // 3
    # With images label 0 is always found, label 1 as often as without.
    seen = np.where(targets == 0, 0, np.where(generator.random(60) < 0.5, 1, 2))
    hidden = np.where(generator.random(60) < 0.4, targets, 2)
    both = []
    for first in (seen, hidden):
        given = metrics.one_hot(first, 3)
        both.append(look(truth, given * 0.8 + 0.1, given))
    found = labels.image_gain(truth, *both, groups)
    change = (seen == targets).astype(int) - (hidden == targets)
    tests = []
    for label in (0, 1):
        own = targets == label
        assert found["gained"][label] == (change[own] > 0).sum()
        assert found["lost"][label] == (change[own] < 0).sum()
        assert found["recall"][label] == pytest.approx(change[own].mean(), abs=5.1e-5)
        sums = np.bincount(groups[own], weights=change[own])
        tests.append(binomtest(int((sums > 0).sum()), int((sums != 0).sum())).pvalue)
    assert found["p"][:2] == pytest.approx(tests, abs=5.1e-5)
    adjusted = false_discovery_control(tests)
    assert found["p_adjusted"][:2] == pytest.approx(adjusted, abs=5.1e-5)
    f1 = [sk.f1_score(targets, x, average=None, labels=[0, 1]) for x in (seen, hidden)]
    assert found["f1"][:2] == pytest.approx(f1[0] - f1[1], abs=1.1e-4)
    # The third label has no product, so nothing is told of it.
    assert (found["recall"][2], found["p"][2], found["order"]) == (None, None, [0, 1])
    assert found["all"]["recall"] == pytest.approx(change.mean())


def test_images_that_change_nothing_have_no_test():
    truth, _, said, given = made_up("single_label")
    answer = look(truth, said, given)
    found = labels.image_gain(truth, answer, answer, GROUPS)
    assert set(found["p"]) == set(found["p_adjusted"]) == {None}
    assert found["all"] == {"gained": 0, "lost": 0, "recall": 0.0, "p": None}


# -------------------------------------------------------------------- confusion


def test_single_labels_are_confused_as_in_a_confusion_matrix():
    truth, matrix, _, given = made_up("single_label")
    some = given.any(axis=1)  # a product that is given nothing confuses nothing
    expected = sk.confusion_matrix(
        matrix[some].argmax(axis=1), given[some].argmax(axis=1), labels=range(LABELS)
    )
    np.fill_diagonal(expected, 0)
    found = confusion.confused(truth, given)
    counts = [count for *_, count in found]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == expected.sum() > 0
    assert all(expected[true, label] == count for true, label, count in found)


def test_of_several_labels_the_missed_are_paired_with_the_wrong_ones():
    # Product 0 has 0 and 1, is given 1, 2 and 3; product 1 has 0, is given 2.
    matrix = np.array([[1, 1, 0, 0], [1, 0, 0, 0]])
    given = np.array([[0, 1, 1, 1], [0, 0, 1, 0]], bool)
    truth = Truth.of("multi_label", np.float32(matrix), 4)
    assert confusion.confused(truth, given) == [[0, 2, 2], [0, 3, 1]]


def test_nearness_follows_the_paths():
    names = ["A", "A > B", "A > B > C", "A > B > D", "A > E", "F", "broken > "]
    paths = Paths(names, " > ")
    assert paths.any
    assert paths.has_parent.tolist() == [False, True, True, True, True, False, False]
    # The right label is A > B > C each time.
    truth = Truth.of("single_label", np.full(7, 2), 7)
    inside, top = paths.nearness(truth, np.eye(7, dtype=bool))
    assert inside.tolist() == [False, True, True, True, False, False, False]
    assert top.tolist() == [True, True, True, True, True, False, False]
    assert not Paths(["A", "B"], " > ").any


# --------------------------------------------------------------------- coverage


def sure(task, seed=0):
    truth, matrix, said, given = made_up(task, seed)
    ranks = metrics.ranks(truth.rows, truth.labels, said)
    answer = look(truth, said, given)
    found = coverage.sureness(truth, answer, ranks, said, given, GROUPS)
    return found, matrix, said, given


def test_thresholds_are_those_of_calibration():
    found, *_ = sure("single_label")
    for wanted in (0.5, 0.7, 0.9, 0.99):
        expected = calibration.precision_threshold(
            found.right, np.float32(found.certainty), wanted
        )
        threshold = coverage.lowest_threshold(
            found.certainty, found.right, found.filed, wanted
        )
        if expected == calibration.NEVER:
            assert threshold is None
        else:
            assert threshold == pytest.approx(expected)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_filed_suggested_and_left_to_people_is_everything(task):
    tested, matrix, said, given = sure(task)
    held_out, *_ = sure(task, seed=1)
    found = coverage.coverage(task, tested, held_out, seed=0)
    assert [plan["precision"] for plan in found["wanted"]] == list(coverage.WANTED)
    for plan in found["wanted"]:
        shares = plan["filed"] + plan["suggested"] + plan["person"]
        assert shares == pytest.approx(1.0)
        if plan["threshold"] is None:
            assert plan["filed"] == 0.0
            continue
        low, _ = plan["threshold_interval"]
        assert low is None or low <= plan["threshold"] + 0.2
        if task == "single_label":
            filed = said.max(axis=1) >= plan["threshold"]
            right = matrix[np.arange(PRODUCTS), said.argmax(axis=1)][filed]
        else:
            count = np.maximum(given.sum(axis=1), 1)
            mean = (said * given).sum(axis=1) / count
            filed = given.any(axis=1) & (mean >= plan["threshold"])
            right = matrix[filed][given[filed]]
        assert plan["filed"] == pytest.approx(filed.mean())
        if filed.any():
            assert plan["reached"] == pytest.approx(right.mean())
            low, high = plan["reached_interval"]
            assert low <= plan["reached"] <= high


def test_precision_falls_along_the_curve_as_counted():
    tested, matrix, said, _ = sure("single_label")
    found = coverage.curve("single_label", tested)
    order = np.argsort(-said.max(axis=1))
    right = matrix[np.arange(PRODUCTS), said.argmax(axis=1)][order]
    counts = np.round(np.array(found["filed"]) * PRODUCTS).astype(int)
    assert counts.tolist() == list(range(2, PRODUCTS + 1, 2))
    expected = [right[:count].mean() for count in counts]
    assert found["precision"] == pytest.approx(expected, abs=5.1e-5)


def test_products_of_equal_certainty_are_filed_together():
    ones = np.ones(4, int)
    tested = coverage.Sureness(
        certainty=np.array([0.9, 0.5, 0.5, coverage.NOTHING]),
        right=np.array([1, 1, 0, 0]),
        filed=np.array([1, 1, 1, 0]),
        due=2 * ones,
        hope=np.zeros(4),
        best=ones,
        groups=np.arange(4),
        suggestions=1,
    )
    found = coverage.curve("multi_label", tested)
    assert found["filed"] == [0.25, 0.75]  # the last is given nothing to file
    assert found["precision"] == [1.0, 0.6667]
    assert found["recall"] == [0.5, 0.3333]


def test_an_interval_of_one_group_is_that_of_one_answer():
    tested, *_ = sure("single_label")
    alone = coverage._interval(tested, np.arange(PRODUCTS) < 2)
    right = tested.right[:2].sum() / 2
    low, high = labels.wilson(np.array([right]), np.array([1.0]))
    assert alone == pytest.approx([low[0], high[0]])


def test_without_validation_no_threshold_is_told():
    tested, *_ = sure("single_label")
    assert set(coverage.coverage("single_label", tested, None, 0)) == {"curve"}


# ---------------------------------------------------------------------- the rest


def test_what_a_modality_adds_is_the_mean_over_products_that_have_it():
    truth, matrix, said, given = made_up("single_label")
    _, _, other, without = made_up("single_label", seed=4)
    has = np.arange(PRODUCTS) < 30
    seen, hidden = look(truth, said, given), look(truth, other, without)
    first = other[np.arange(PRODUCTS), seen.first]
    draws = bootstrap.Draws(GROUPS, 0)
    found = left_out(truth, seen, hidden, first, has, draws)
    assert found["products"] == 30
    fall = seen.right.astype(float) - hidden.right
    assert found["top1"] == pytest.approx(fall[has].mean())
    expected = bootstrap.interval(fall[has], GROUPS[has], 0)
    assert found["top1_interval"] == pytest.approx(expected, abs=0.1)
    assert found["true"] == pytest.approx((said - other)[has][matrix[has]].mean())
    expected = (said.max(axis=1) - first)[has].mean()
    assert found["first"] == pytest.approx(expected)
    changed = (said.argmax(axis=1) != other.argmax(axis=1))[has].mean()
    assert found["changed"] == changed
    nowhere = np.zeros(PRODUCTS, bool)
    assert left_out(truth, seen, hidden, first, nowhere, draws) == {"products": 0}


def test_a_log_is_read_epoch_by_epoch(tmp_path):
    log = tmp_path / "log.csv"
    assert learning(log) is None
    log.write_text("epoch,loss,train_loss\n0,1.23456789,\n1,nan,0.5\n")
    assert learning(log) == {
        "epoch": [0, 1],
        "loss": [1.23457, None],
        "train_loss": [None, 0.5],
    }


@pytest.mark.parametrize("text", ["epoch,loss\n0\n", "epoch,loss\n0,high\n"])
def test_a_damaged_log_is_named(tmp_path, text):
    log = tmp_path / "log.csv"
    log.write_text(text)
    with pytest.raises(RunError, match=r"log\.csv: damaged"):
        learning(log)


def test_a_calibration_curve_has_nothing_to_tell_of_empty_bins():
    said = np.array([[0.95, 0.05], [0.95, 0.05], [0.3, 0.7]])
    facts = metrics.facts("single_label", np.array([0, 1, 1]))
    bins = metrics.calibration_bins("single_label", *facts, said, bins=10)
    found = answers.calibration_curve(bins)
    assert found["count"] == [0] * 7 + [1, 0, 2]
    assert found["confidence"][7:] == [0.7, None, 0.95]
    assert found["right"][7:] == [1.0, None, 0.5]
