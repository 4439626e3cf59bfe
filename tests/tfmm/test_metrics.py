import math

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.special import expit, softmax

from tfmm import blocks, bootstrap, metrics

# Four products, three labels.
SAID = np.array(
    [[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], np.float32
)
ONE = np.array([0, 1, 1, 2])
MANY = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]], np.float32)


def drawn(task, num=60, labels=8):
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(num, labels)).astype(np.float32)
    if task == "single_label":
        return generator.integers(0, labels - 1, num), logits
    targets = (generator.random((num, labels)) < 0.3).astype(np.float32)
    targets[:, 5] = 0.0  # a label that no product has
    return targets, logits


# -------------------------------------------------------------- worked by hand


def test_single_label_measures_worked_by_hand():
    # First choices 0, 0, 1, 2 of labels 0, 1, 1, 2: three of four are right.
    # F1: label 0 = 2/(2+1), label 1 = 2/(1+2), label 2 = 1.
    found = metrics.measures("single_label", ONE, SAID)
    assert found["top1"] == found["micro_f1"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["mean_precision"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert found["mean_recall"] == pytest.approx((1 + 1 / 2 + 1) / 3)
    # Average precision: label 0 and 2 perfect; label 1: right at ranks 1 and 2.
    assert found["map"] == pytest.approx(1.0)
    assert "top5" not in found


def test_multi_label_measures_worked_by_hand():
    # At 0.5: product 0 {0}, 1 {0}, 2 {1}, 3 {2}: 2 of 4 right, 5 labels to find.
    found = metrics.measures("multi_label", MANY, SAID)
    assert found["top1"] == 0.5
    assert found["micro_f1"] == pytest.approx(2 * 2 / (4 + 5))
    # Label 2 never occurs and does not count. Label 0: 1 of 2 given right, 1 of 3
    # found; label 1: 1 of 1 right, 1 of 2 found.
    assert found["mean_precision"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["mean_recall"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 5 + 2 / 3) / 2)
    # Label 0 ranks 0 (right), 1, 3 (right), 2 (right): (1 + 2/3 + 3/4) / 3.
    # Label 1 ranks 2 (right), 1 (right): 1.
    assert found["map"] == pytest.approx(((1 + 2 / 3 + 3 / 4) / 3 + 1) / 2)


def test_thresholds_are_reached_by_equal_scores():
    given = metrics.assigned("multi_label", SAID[:2], np.float32([0.5, 0.3, 0.2]))
    assert given.tolist() == [[True, False, False], [True, True, True]]


def test_a_single_label_product_gets_its_first_choice_if_that_reaches_its_threshold():
    # First choices 0.7, 0.5, 0.8, 0.6 of labels 0, 0, 1, 2.
    given = metrics.assigned("single_label", SAID, np.zeros(3))
    assert given.sum(axis=1).tolist() == [1, 1, 1, 1]
    assert np.argmax(given, axis=1).tolist() == [0, 0, 1, 2]
    given = metrics.assigned("single_label", SAID, np.float32([0.5, 0.9, 0.6]))
    assert given.sum(axis=1).tolist() == [1, 1, 0, 1]
    given = metrics.assigned("single_label", SAID, np.full(3, 1.1))
    assert not given.any()


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_what_is_given_counts_and_nothing_is_given_of_nothing(task):
    targets = ONE if task == "single_label" else MANY
    perfect = metrics.one_hot(ONE, 3) if task == "single_label" else MANY > 0
    found = metrics.measures(task, targets, SAID, given=perfect)
    assert found["micro_f1"] == found["macro_f1"] == 1.0
    nothing = np.zeros(4, bool)
    found = metrics.measures(task, targets, SAID, present=nothing, given=perfect)
    assert found["micro_f1"] == 0.0
    assert perfect.any()


def test_top5_counts_a_product_once_and_needs_six_labels():
    said = np.tile(np.linspace(0.6, 0.1, 6), (3, 1))
    assert metrics.measures("single_label", np.array([4, 5, 0]), said)["top5"] == (
        pytest.approx(2 / 3)
    )
    targets = np.eye(6)[[4, 5, 0]]
    targets[1, :2] = 1
    assert metrics.measures("multi_label", targets, said)["top5"] == 1.0
    assert "top5" not in metrics.measures("single_label", np.array([0]), said[:1, :5])


# --------------------------------------------------------- against scikit-learn


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_measures_agree_with_scikit_learn(task):
    targets, logits = drawn(task)
    said = metrics.probabilities(task, logits)
    thresholds = np.full(8, 0.4 if task == "multi_label" else 0.0, np.float32)
    found = metrics.measures(task, targets, said, thresholds)
    if task == "single_label":
        truth, given = targets, np.argmax(said, axis=1)
        occurring = np.unique(targets)
        matrix = np.eye(8)[targets]
        assert found["top1"] == pytest.approx(sk.accuracy_score(truth, given))
        top5 = sk.top_k_accuracy_score(targets, said, k=5, labels=np.arange(8))
        assert found["top5"] == pytest.approx(top5)
    else:
        truth, given = targets.astype(int), (said >= 0.4).astype(int)
        occurring = [label for label in range(8) if label != 5]
        matrix = targets
    options = {"labels": occurring, "average": "macro", "zero_division": 0}
    assert found["macro_f1"] == pytest.approx(sk.f1_score(truth, given, **options))
    assert found["micro_f1"] == pytest.approx(
        sk.f1_score(truth, given, average="micro", zero_division=0)
    )
    assert found["mean_precision"] == pytest.approx(
        sk.precision_score(truth, given, **options)
    )
    assert found["mean_recall"] == pytest.approx(
        sk.recall_score(truth, given, **options)
    )
    each = [sk.average_precision_score(matrix[:, c], said[:, c]) for c in occurring]
    assert found["map"] == pytest.approx(np.mean(each))
    assert all(0.0 <= value <= 1.0 for value in found.values())


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_log_loss_agrees_with_scikit_learn(task):
    targets, logits = drawn(task)
    said = (softmax if task == "single_label" else expit)(
        logits.astype(np.float64), **({"axis": 1} if task == "single_label" else {})
    )
    if task == "single_label":
        expected = sk.log_loss(targets, said, labels=np.arange(8))
    else:
        expected = np.mean(
            [sk.log_loss(targets[:, c], said[:, c], labels=[0, 1]) for c in range(8)]
        )
    assert metrics.log_loss(task, targets, logits) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_quick_measures_are_those_of_the_report_at_one_half(task):
    targets, logits = drawn(task)
    quick = metrics.quick_measures(task, targets, logits)
    whole = metrics.measures(task, targets, metrics.probabilities(task, logits))
    for name in ("top1", "micro_f1", "macro_f1"):
        assert quick[name] == pytest.approx(whole[name])
    assert quick["loss"] == metrics.log_loss(task, targets, logits)
    assert set(quick) == {"loss", "top1", "micro_f1", "macro_f1"}


# ----------------------------------------------------------------------- edges


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_means_over_a_lone_label_are_that_labels(task):
    # All of one label, two of three found: precision 1, recall 2/3, F1 4/5.
    said = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
    targets = np.zeros(3, int) if task == "single_label" else np.eye(2)[[0, 0, 0]]
    found = metrics.measures(task, targets, said)
    assert found["macro_f1"] == pytest.approx(0.8)
    assert found["mean_precision"] == 1.0
    assert found["mean_recall"] == pytest.approx(2 / 3)
    assert found["map"] == 1.0


def test_a_model_that_assigns_nothing_scores_zero_without_a_warning():
    found = metrics.measures("multi_label", MANY, np.full((4, 3), 0.1, np.float32))
    assert found["micro_f1"] == found["macro_f1"] == found["mean_precision"] == 0.0


def test_one_product_can_be_measured():
    found = metrics.measures("multi_label", MANY[:1], SAID[:1])
    assert found["micro_f1"] == found["map"] == found["top1"] == 1.0


def test_huge_logits_stay_finite():
    logits = np.array([[1e4, -1e4]], np.float32)
    for task, targets in (("single_label", [1]), ("multi_label", [[0.0, 1.0]])):
        expected = 2e4 if task == "single_label" else 1e4
        assert metrics.log_loss(task, np.array(targets), logits) == expected
        said = metrics.probabilities(task, logits)
        assert said.tolist() == [[1.0, 0.0]]
        assert said.dtype == np.float32


def test_one_hot_marks_the_label():
    found = metrics.one_hot(np.array([2, 0]), 3)
    assert found.tolist() == [[False, False, True], [True, False, False]]


# ------------------------------------------------------------------ calibration


def test_the_calibration_error_worked_by_hand():
    # First choices 0.95 right, 0.85 wrong (10 bins: 9 and 8), 0.55 right and 0.57
    # wrong (bin 5): gaps 0.05, 0.85, |1.12 - 1|.
    said = np.array([[0.95, 0.05], [0.85, 0.15], [0.55, 0.45], [0.43, 0.57]])
    truth = metrics.one_hot(np.array([0, 1, 0, 0]), 2)
    found = metrics.calibration_error("single_label", truth, said, bins=10)
    assert found == pytest.approx((0.05 + 0.85 + 0.12) / 4)


def test_the_calibration_error_of_decisions_worked_by_hand():
    said = np.array([[0.95, 0.02], [0.91, 0.08]])
    truth = np.array([[True, False], [False, True]])
    # Bin 9: |1.86 - 1|, bin 0: |0.10 - 1|, four decisions.
    found = metrics.calibration_error("multi_label", truth, said, bins=10)
    assert found == pytest.approx((0.86 + 0.90) / 4)


def test_certainty_that_is_right_has_no_calibration_error():
    said = np.array([[1.0, 0.0], [0.0, 1.0]])
    for task in ("single_label", "multi_label"):
        assert metrics.calibration_error(task, said > 0, said) == 0.0


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_logits_give_their_probabilities_back(task):
    found = metrics.probabilities(task, metrics.logits_of(task, SAID))
    np.testing.assert_allclose(found, SAID, atol=1e-6)


def test_logits_of_certainty_are_clipped():
    found = metrics.logits_of("multi_label", np.array([0.0, 1.0]))
    edge = math.log(1e-7) - math.log1p(-1e-7)
    np.testing.assert_allclose(found, [edge, -edge], rtol=1e-6)
    found = metrics.logits_of("single_label", np.array([0.0, 1.0]))
    np.testing.assert_allclose(found, [math.log(1e-7), 0.0], atol=2e-7)


def test_interval_is_near_the_normal_one():
    values = np.array([0.0, 1.0] * 200)
    low, high = bootstrap.interval(values, np.arange(400), seed=0)
    # 1.96 * sqrt(0.25 / 400)
    assert (high - low) / 2 == pytest.approx(0.049, abs=0.005)


def test_an_interval_counts_groups_and_not_their_products():
    values = np.repeat([0.0, 1.0] * 50, 4)
    alone = bootstrap.interval(values, np.arange(400), seed=0)
    together = bootstrap.interval(values, np.arange(400) // 4, seed=0)
    # Four products that always agree are one: the interval is twice as wide.
    assert np.diff(together) == pytest.approx(2 * np.diff(alone), rel=0.15)


def test_an_interval_is_that_of_means_of_drawn_groups():
    groups, values = np.array([0, 0, 1, 2, 2, 2]), np.array([1, 0, 1, 1, 0, 0])
    generator, means = np.random.default_rng(5), []
    for _ in range(bootstrap.BOOTSTRAP_DRAWS):
        drawn = generator.integers(3, size=3)
        means.append(np.concatenate([values[groups == x] for x in drawn]).mean())
    expected = np.percentile(means, (2.5, 97.5)).tolist()
    assert bootstrap.interval(values, groups, seed=5) == expected


# ------------------------------------------------------------------------ facts


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_average_precision_of_equal_scores_is_scikit_learns(task):
    targets, logits = drawn(task, num=200, labels=20)
    said = np.round(metrics.probabilities(task, logits), 1)  # many are equal
    rows, labels = metrics.facts(task, targets)
    found = metrics.average_precisions(rows, labels, said)
    truth = np.eye(20)[targets] if task == "single_label" else targets
    for label in range(20):
        if truth[:, label].any():
            expected = sk.average_precision_score(truth[:, label], said[:, label])
            assert found[label] == pytest.approx(expected)
        else:
            assert np.isnan(found[label])


def test_ranks_are_places_in_a_stable_sort():
    targets, logits = drawn("multi_label", num=40)
    said = np.round(metrics.probabilities("multi_label", logits), 1)
    rows, labels = metrics.facts("multi_label", targets)
    order = np.argsort(-said, axis=1, kind="stable")
    found = metrics.ranks(rows, labels, said)
    assert (order[rows, found] == labels).all()


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_loss_of_facts_is_that_of_clipped_logits(task):
    targets, logits = drawn(task)
    said = metrics.probabilities(task, 30 * logits)  # some are cut at 1e-7
    found = metrics.loss_of(task, *metrics.facts(task, targets), said)
    expected = metrics.log_loss(task, targets, metrics.logits_of(task, said))
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_work_in_blocks_gives_the_same(task, monkeypatch):
    targets, logits = drawn(task, num=50, labels=20)
    whole = metrics.measures(task, targets, metrics.probabilities(task, logits))
    loss = metrics.log_loss(task, targets, logits)
    monkeypatch.setattr(blocks, "BLOCK_NUMBERS", 70)
    said = metrics.probabilities(task, logits)
    assert metrics.measures(task, targets, said) == pytest.approx(whole)
    assert metrics.log_loss(task, targets, logits) == pytest.approx(loss)
