import numpy as np
import pytest
from cleanlab import count, rank

from tfmm import metrics
from tfmm.report.misfiled import doubts
from tfmm.report.misfiled.doubts import Confidence


def answers(products=300, labels=5, seed=0):
    """Labels, a tenth of them wrong, and probabilities that mostly know better."""
    generator = np.random.default_rng(seed)
    right = generator.integers(labels, size=products)
    logits = 2.5 * np.eye(labels)[right] + generator.normal(size=(products, labels))
    given = np.where(generator.random(products) < 0.1, (right + 1) % labels, right)
    return given.astype(np.int32), metrics.probabilities("single_label", logits)


def several(products=200, labels=4, seed=0):
    generator = np.random.default_rng(seed)
    right = generator.random((products, labels)) < 0.4
    noise = generator.normal(size=right.shape)
    given = right ^ (generator.random(right.shape) < 0.08)
    said = metrics.probabilities("multi_label", 4.0 * (right - 0.5) + noise)
    return given.astype(np.float32), said


def both_passes(task, targets, said):
    confidence = Confidence(task, said.shape[1])
    confidence.learn(targets, said)
    return confidence, confidence.doubt(targets, said)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_thresholds_joint_and_rate_are_those_of_cleanlab(seed):
    given, said = answers(seed=seed)
    confidence, _ = both_passes("single_label", given, said)
    thresholds = count.get_confident_thresholds(given, said)
    np.testing.assert_allclose(confidence.thresholds[0], thresholds, atol=2e-6)
    joint = count.compute_confident_joint(given, said, calibrate=False)
    np.testing.assert_array_equal(confidence.joint, joint)
    estimated = count.estimate_joint(given, said, confident_joint=joint)
    rate = confidence.error_rates()["wrong_rate"]
    # Which rounds to whole products.
    assert rate == pytest.approx(1.0 - np.trace(estimated), abs=1 / len(given))
    assert 0.1 < rate < 0.2


def test_confident_products_are_those_off_the_diagonal_of_the_joint():
    given, said = answers()
    confidence, found = both_passes("single_label", given, said)
    off = confidence.joint.sum() - np.trace(confidence.joint)
    assert found.confident.sum() == off > 10
    _, indices = count.compute_confident_joint(
        given, said, return_indices_of_off_diagonals=True
    )
    assert np.flatnonzero(found.confident).tolist() == sorted(indices)


def test_products_are_ranked_by_self_confidence_as_cleanlab_has_it():
    given, said = answers()
    _, found = both_passes("single_label", given, said)
    scores = rank.get_label_quality_scores(given, said, method="self_confidence")
    np.testing.assert_allclose(np.exp(-found.surprise), scores, rtol=1e-5)


def test_a_joint_worked_by_hand():
    given = np.array([0, 0, 1, 1], np.int32)
    said = np.float32([[0.9, 0.1], [0.3, 0.7], [0.2, 0.8], [0.5, 0.5]])
    confidence, found = both_passes("single_label", given, said)
    # Means of 0.9 and 0.3, of 0.8 and 0.5; the last product is confidently neither.
    np.testing.assert_allclose(confidence.thresholds, [[0.6, 0.65]], atol=2e-6)
    assert confidence.joint.tolist() == [[1, 1], [0, 1]]
    # Half of label 0's two products belong elsewhere, none of label 1's.
    assert confidence.error_rates() == {"wrong_rate": 0.25}
    assert found.wrong.rows.tolist() == found.missing.rows.tolist() == [1]
    assert (found.wrong.labels.tolist(), found.missing.labels.tolist()) == ([0], [1])
    np.testing.assert_allclose(found.wrong.probabilities, [0.3])
    np.testing.assert_allclose(found.missing.probabilities, [0.7])
    assert found.confident.tolist() == [False, True, False, False]
    np.testing.assert_allclose(found.surprise, -np.log([0.9, 0.3, 0.8, 0.5]), rtol=1e-6)


def test_a_label_without_products_is_never_confident():
    given = np.array([0, 1, 0, 1], np.int32)
    said = np.float32([[0.1, 0.1, 0.8]] * 4)
    confidence, found = both_passes("single_label", given, said)
    assert np.isinf(confidence.thresholds[0, 2])
    assert confidence.joint[:, 2].sum() == 0
    assert found.missing.labels.tolist() == [2] * 4
    assert not found.confident[[0, 2]].any()


def test_judges_that_agree_list_nothing():
    given, _ = answers()
    said = np.float32(0.1 + 0.5 * np.eye(5)[given])
    confidence, found = both_passes("single_label", given, said)
    assert confidence.error_rates() == {"wrong_rate": 0.0}
    assert not len(found.wrong.rows)
    assert not found.confident.any()


@pytest.mark.parametrize("label", range(4))
def test_each_of_several_labels_is_a_question_of_its_own(label):
    given, said = several()
    confidence, _ = both_passes("multi_label", given, said)
    own = (given[:, label] > 0).astype(int)
    both = np.stack([1.0 - said[:, label], said[:, label]], axis=1)
    thresholds = count.get_confident_thresholds(own, both)
    np.testing.assert_allclose(confidence.thresholds[:, label], thresholds, atol=2e-6)
    joint = count.compute_confident_joint(own, both, calibrate=False)
    np.testing.assert_array_equal(confidence.joint[label], joint)


def test_rates_of_several_labels_are_told_to_one_that_is_given():
    given, said = several(products=2000)
    confidence, _ = both_passes("multi_label", given, said)
    wrong = missing = 0.0
    for label in range(4):
        own = (given[:, label] > 0).astype(int)
        both = np.stack([1.0 - said[:, label], said[:, label]], axis=1)
        estimated = count.estimate_joint(own, both) * len(own)
        wrong, missing = wrong + estimated[1, 0], missing + estimated[0, 1]
    rates = confidence.error_rates()
    one_product = 4 / float(given.sum())
    assert rates["wrong_rate"] == pytest.approx(wrong / given.sum(), abs=one_product)
    assert rates["missing_rate"] == pytest.approx(
        missing / given.sum(), abs=one_product
    )


def test_doubts_of_several_labels_worked_by_hand():
    given = np.float32([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    said = np.float32([[0.1, 0.8, 0.2], [0.3, 0.9, 0.1], [0.8, 0.6, 0.0]])
    _, found = both_passes("multi_label", given, said)
    assert (found.wrong.rows.tolist(), found.wrong.labels.tolist()) == ([0], [0])
    assert (found.missing.rows.tolist(), found.missing.labels.tolist()) == ([0], [1])
    np.testing.assert_allclose(found.wrong.probabilities, [0.1])
    np.testing.assert_allclose(found.missing.probabilities, [0.8])
    # The first label given, the first that is lacking, the second given.
    np.testing.assert_allclose(np.exp(-found.surprise), [0.1, 0.7, 0.6], rtol=1e-5)


@pytest.mark.parametrize("made", [answers, several])
def test_blocks_and_splits_change_nothing(monkeypatch, made):
    targets, said = made()
    task = "single_label" if targets.ndim == 1 else "multi_label"
    whole, found = both_passes(task, targets, said)
    monkeypatch.setattr(doubts, "BLOCK_ROWS", 7)
    parts = Confidence(task, said.shape[1])
    for rows in (slice(0, 60), slice(60, None)):
        parts.learn(targets[rows], said[rows])
    np.testing.assert_allclose(parts.thresholds, whole.thresholds)
    again = [parts.doubt(targets[x], said[x]) for x in (slice(0, 60), slice(60, None))]
    np.testing.assert_array_equal(parts.joint, whole.joint)
    surprise = np.concatenate([x.surprise for x in again])
    np.testing.assert_array_equal(surprise, found.surprise)
    for side in ("wrong", "missing"):
        rows = [getattr(x, side).rows + y for x, y in zip(again, (0, 60), strict=True)]
        assert np.concatenate(rows).tolist() == getattr(found, side).rows.tolist()
        confident = np.concatenate([getattr(x, side).confident for x in again])
        assert confident.tolist() == getattr(found, side).confident.tolist()


def test_a_probability_of_zero_is_a_finite_surprise():
    given = np.array([0, 1], np.int32)
    _, found = both_passes("single_label", given, np.float32([[0, 1], [0, 1]]))
    assert np.isfinite(found.surprise).all()
    assert found.surprise[0] > 80
