"""The rule that skips images: what it is cut by, and what it promises."""

from dataclasses import replace

import numpy as np
import pytest

from tfmm import selective
from tfmm.errors import RunError
from tfmm.selective import NEVER, Evidence, Risks, curve, looked_at


def parts(right):
    return np.stack([right, np.ones(len(right)), np.ones(len(right))], axis=1) * 1.0


def evidence(products=2_000, seed=0):
    """Answers by words are right as often as they are sure; images are always right.

    The words of label 1 are trusted too much: it is right half as often.
    """
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.2, 1.0, products)
    label = generator.integers(0, 3, products)
    trust = np.where(label == 1, 0.5, 1.0) * confidence
    right = generator.uniform(size=products) < trust
    with_image = generator.uniform(size=products) < 0.9
    return Evidence(
        confidence=confidence,
        label=label,
        with_image=with_image,
        decidable=with_image & (generator.uniform(size=products) < 0.95),
        seen=np.where(with_image[:, None], parts(np.ones(products)), parts(right)),
        skipped=parts(right),
        groups=np.arange(products) // 2,
        num_labels=3,
    )


def test_a_budget_is_kept_on_other_products():
    risks, others = Risks(evidence()), evidence(seed=1)
    for budget in (0.2, 0.5, 0.8):
        rule = risks.rule(image_budget=budget)
        assert budget - 0.01 < rule.images <= budget
        share = looked_at(others, rule).sum() / others.with_image.sum()
        assert share == pytest.approx(budget, abs=0.06)


def test_a_loss_is_kept():
    found = evidence()
    rule = Risks(found).rule(max_loss=0.02)
    assert rule.full - 0.02 <= rule.measure < rule.full
    assert 0.3 < rule.images < 1.0
    more = Risks(found).rule(max_loss=0.1)
    assert more.images < rule.images


def test_the_ends_are_all_images_and_none():
    found = evidence()
    risks = Risks(found)
    whole = risks.rule(image_budget=1.0)
    assert set(whole.thresholds) == {NEVER}
    assert (looked_at(found, whole) == found.with_image).all()
    assert whole.measure == whole.full == found.measured(found.with_image)
    none = risks.rule(image_budget=0.0)
    # What has nothing but an image is always looked at.
    only = found.with_image & ~found.decidable
    assert (looked_at(found, none) == only).all()


def test_a_label_that_is_trusted_too_much_needs_more():
    thresholds = Risks(evidence()).rule(image_budget=0.5).thresholds
    assert thresholds[1] > max(thresholds[0], thresholds[2]) + 0.1


def test_it_beats_one_threshold_for_all():
    risks, others = Risks(evidence()), evidence(seed=2)
    used = looked_at(others, risks.rule(image_budget=0.5))
    rows = np.flatnonzero(others.decidable)
    least = rows[np.argsort(others.confidence[rows])]
    plain = others.with_image & ~others.decidable
    plain[least[: used.sum() - plain.sum()]] = True
    assert plain.sum() == used.sum()
    assert others.measured(used) > others.measured(plain) + 0.005


def test_images_that_change_nothing_are_skipped():
    found = evidence()
    found = replace(found, seen=found.skipped)
    rule = Risks(found).rule(max_loss=0.0)
    assert rule.images < 0.2  # only what has nothing else
    assert rule.measure == rule.full


def test_a_curve_goes_from_words_to_everything():
    found, others = evidence(), evidence(seed=3)
    points = curve(Risks(found), others)
    assert [x["budget"] for x in points] == list(selective.SHARES)
    assert points[-1]["images"] == 1.0
    assert points[-1]["measure"] == others.measured(others.with_image)
    assert points[0]["measure"] < points[10]["measure"] < points[-1]["measure"]


def test_several_labels_are_measured_by_micro_f1():
    found = evidence(4)
    seen = np.array([[1, 2, 1], [2, 2, 3], [0, 1, 1], [1, 1, 1]], float)
    found = replace(found, seen=seen, skipped=np.zeros((4, 3)))
    assert found.measured(np.ones(4, bool)) == pytest.approx(2 * 4 / (6 + 6))
    assert found.measured(np.zeros(4, bool)) == 0.0


def test_the_confidence_of_several_labels_is_that_of_all_decisions():
    said = np.array([[0.9, 0.2], [0.5, 0.5]], np.float32)
    np.testing.assert_allclose(
        selective.confidence("multi_label", said), [0.72, 0.25], rtol=1e-6
    )
    np.testing.assert_allclose(selective.confidence("single_label", said), [0.9, 0.5])


def test_a_label_that_is_wrongly_certain_is_looked_at():
    found = evidence()
    certain = np.arange(len(found.label)) % 2 == 0
    right = np.where(certain & (found.label == 1), False, found.skipped[:, 0] > 0)
    found = replace(
        found,
        confidence=np.where(certain, 1.0, found.confidence),
        skipped=parts(right),
    )
    risks = Risks(found)
    for budget in (0.5, 0.8):
        rule = risks.rule(image_budget=budget)
        used = looked_at(found, rule)
        assert used[found.with_image].mean() <= budget
        assert found.measured(used) == rule.measure
    assert risks.rule(max_loss=0.0).thresholds[1] == NEVER
    assert used[certain & (found.label == 1) & found.with_image].mean() > 0.99


def test_confidence_that_says_nothing_leaves_the_label_to_decide():
    found = evidence()
    generator = np.random.default_rng(5)
    lost = (found.label == 2) & (generator.uniform(size=2_000) < found.confidence)
    found = replace(found, skipped=parts(~lost), seen=parts(np.ones(2_000)))
    rule = Risks(found).rule(image_budget=0.5)
    assert set(rule.thresholds) <= {0.0, NEVER}
    assert rule.thresholds[0] == rule.thresholds[1] == 0.0
    assert rule.thresholds[2] == NEVER


def test_too_few_groups_are_refused():
    found = replace(evidence(8), groups=np.zeros(8, int))
    with pytest.raises(RunError, match="expected at least 5"):
        Risks(found)
