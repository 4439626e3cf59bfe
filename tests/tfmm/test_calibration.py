import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from tfmm import calibration, metrics
from tfmm.calibration import (
    PLATT_SPREAD,
    Calibration,
    best_threshold,
    precision_threshold,
    thresholds_for,
)
from tfmm.errors import RunError
from tfmm.metrics import log_loss
from tfmm.run import write_json
from tfmm.settings import CalibrationSettings

TEMPERATURE = CalibrationSettings(method="temperature")


def drawn(task, temperature, num=4_000, labels=3):
    """Logits, and targets drawn from them at a temperature."""
    generator = np.random.default_rng(5)
    logits = generator.normal(0, 3, (num, labels)).astype(np.float32)
    if task == "single_label":
        noise = generator.gumbel(size=logits.shape)
        return np.argmax(logits / temperature + noise, axis=1), logits
    chance = 1 / (1 + np.exp(-logits / temperature))
    return (generator.random(logits.shape) < chance).astype(np.float32), logits


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found_again(task, temperature):
    targets, logits = drawn(task, temperature)
    found = calibration.fit(task, targets, logits, "mark", TEMPERATURE)
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.scales == (float(np.float32(1 / found.temperature)),) * 3
    assert found.shifts == (0.0,) * 3
    assert found.fingerprint == "mark"
    assert len(found.thresholds) == 3


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_no_other_temperature_has_a_smaller_loss(task):
    targets, logits = drawn(task, 2.0, num=200)
    found = calibration.fit(task, targets, logits, "mark", TEMPERATURE).temperature
    least = log_loss(task, targets, logits / found)
    for other in np.geomspace(0.05, 20, 60):
        assert log_loss(task, targets, logits / other) >= least - 1e-6


def test_a_temperature_stays_within_its_bounds():
    logits = np.array([[5.0, -5.0], [-5.0, 5.0]], np.float32)
    always_right = calibration.fit("single_label", np.array([0, 1]), logits, "")
    always_wrong = calibration.fit("single_label", np.array([1, 0]), logits, "")
    assert 0.05 <= always_right.temperature < 0.5
    assert 19.0 < always_wrong.temperature <= 20.0


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_every_number_is_a_float32_as_in_the_exported_graph(task):
    targets, logits = drawn(task, 2.0, num=50)
    found = calibration.fit(task, targets, logits, "")
    numbers = [*found.scales, *found.shifts, *found.thresholds]
    if task == "single_label":
        numbers.append(found.temperature)
    assert numbers == [float(np.float32(x)) for x in numbers]


def test_logits_are_scaled_and_then_shifted_in_float32():
    found = Calibration("", (2.0, 0.5), (1.0, -1.0), (0.5, 0.5), None)
    given = found.apply(np.array([[1.0, 4.0], [0.0, 0.0]], np.float64))
    assert given.dtype == np.float32
    assert given.tolist() == [[3.0, 1.0], [1.0, -1.0]]


# ----------------------------------------------------------------------- platt


def crooked(num, labels=20, seed=0):
    """Rare and common labels, each with a scale and a shift that is wrong."""
    generator = np.random.default_rng(seed)
    at = np.linspace(-5, 0, labels)
    true = generator.normal(at, 2.0, (num, labels))
    targets = (generator.random(true.shape) < expit(true)).astype(np.float32)
    spread = np.random.default_rng(99)
    scales = np.exp(spread.normal(0.5, 0.5, labels))
    return targets, np.float32(true * scales + spread.normal(0, 1.5, labels))


def test_labels_that_are_wrong_in_their_own_ways_gain_by_scales_of_their_own():
    targets, logits = crooked(600)
    plain = calibration.fit("multi_label", targets, logits, "", TEMPERATURE)
    own = calibration.fit("multi_label", targets, logits, "")
    assert own.temperature is None
    assert min(own.scales) > 0
    targets, logits = crooked(4_000, seed=1)
    before = log_loss("multi_label", targets, plain.apply(logits))
    assert log_loss("multi_label", targets, own.apply(logits)) < 0.95 * before


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num", [1, 5, 200])
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_calibration_never_worsens_the_loss_it_is_fitted_on(task, num, seed):
    targets, logits = crooked(num, seed=seed)
    if task == "single_label":
        targets = np.argmax(targets, axis=1)
    plain = calibration.fit(task, targets, logits, "", TEMPERATURE).apply(logits)
    own = calibration.fit(task, targets, logits, "").apply(logits)
    raw, one, each = (log_loss(task, targets, x) for x in (logits, plain, own))
    assert each <= one * (1 + 1e-6)
    assert one <= raw * (1 + 1e-6)


def test_scales_and_shifts_are_those_that_another_optimiser_finds(monkeypatch):
    monkeypatch.setattr(calibration, "PLATT_BLOCK", 2)
    targets, logits = crooked(80, labels=5)

    def least(truth, said, centre):
        def penalised(at):
            x = said * np.exp(at[0]) + at[1]
            loss = (np.logaddexp(0, x) - truth * x).sum()
            return loss + ((at - centre) ** 2).sum() / (2 * PLATT_SPREAD**2)

        return minimize(penalised, centre, tol=1e-9).x

    plain = calibration.fit("multi_label", targets, logits, "", TEMPERATURE)
    centre = np.array([-np.log(plain.temperature), 0.0])
    centre = least(targets.ravel(), logits.ravel(), centre)
    expected = [least(targets[:, c], logits[:, c], centre) for c in range(5)]
    found = calibration.fit("multi_label", targets, logits, "")
    np.testing.assert_allclose(
        np.log(found.scales), np.array(expected)[:, 0], atol=1e-3
    )
    np.testing.assert_allclose(found.shifts, np.array(expected)[:, 1], atol=1e-3)


def test_a_label_with_few_products_stays_nearer_to_all():
    targets, logits = crooked(2_000, labels=20)
    few, many = targets.copy(), targets
    few[20:, 19] = np.nan  # the same label, of which only 20 products are known
    known = ~np.isnan(few).any(axis=1)
    small = calibration.fit("multi_label", few[known], logits[known], "")
    large = calibration.fit("multi_label", many, logits, "")
    moved = [np.ptp(np.log(x.scales)) for x in (small, large)]
    assert moved[0] < moved[1] / 2


def test_huge_logits_leave_finite_numbers():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1e4, (40, 3)).astype(np.float32)
    targets = (generator.random((40, 3)) < 0.5).astype(np.float32)
    found = calibration.fit("multi_label", targets, logits, "")
    assert np.isfinite([*found.scales, *found.shifts, *found.thresholds]).all()
    assert min(found.scales) > 0


def test_a_model_of_constant_logits_is_shifted_to_the_shares():
    targets = np.zeros((1_000, 2), np.float32)
    targets[:500, 0] = targets[:100, 1] = 1.0
    found = calibration.fit("multi_label", targets, np.zeros((1_000, 2)), "")
    assert expit(found.shifts[0]) == pytest.approx(0.5, abs=0.05)
    assert expit(found.shifts[1]) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_what_one_model_says_is_put_in_the_logits_of_another(task):
    """The kept tower's calibration makes of stored logits what a fold's own would."""
    targets, logits = drawn(task, 3.0)
    of_fold = calibration.fit(task, targets, logits, "")
    kept = calibration.fit(task, targets, logits / 5 + 0.2, "")
    stored = kept.undone(of_fold.apply(logits))
    np.testing.assert_allclose(kept.apply(stored), of_fold.apply(logits), atol=1e-5)
    assert np.abs(stored - logits).max() > 0.5


def test_platt_is_refused_for_a_softmax():
    targets, logits = drawn("single_label", 1.0, num=5)
    platt = CalibrationSettings(method="platt")
    with pytest.raises(ValueError, match="belongs to multi_label"):
        calibration.fit("single_label", targets, logits, "", platt)


# ------------------------------------------------------------------ thresholds


def brute_force(targets, probabilities):
    """The best micro-F1 of any threshold, by trying every score."""
    return max(
        micro_f1(targets, probabilities, threshold)
        for threshold in np.unique(probabilities)
    )


def micro_f1(targets, probabilities, threshold):
    given = probabilities >= np.float32(threshold)
    return f1_score(targets > 0, given, average="micro", zero_division=0)


@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_has_a_better_micro_f1(seed):
    generator = np.random.default_rng(seed)
    probabilities = generator.random((9, 4)).astype(np.float32)
    if seed % 2:  # many ties
        probabilities = np.round(probabilities, 1)
    targets = (generator.random((9, 4)) < probabilities**2).astype(np.float32)
    found = best_threshold(targets, probabilities)
    best = brute_force(targets, probabilities)
    assert micro_f1(targets, probabilities, found) == pytest.approx(best)


def test_a_threshold_worked_by_hand():
    # Right labels at 0.9, 0.6, 0.4. Cut below 0.9: F1 = 2/4; below 0.6: 4/6 (0.7 is
    # wrong: 4/6); below 0.4: 6/7. So the cut lies between 0.4 and 0.1.
    targets = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    probabilities = np.array([[0.9, 0.7, 0.1], [0.6, 0.4, 0.05]], np.float32)
    assert best_threshold(targets, probabilities) == pytest.approx(0.25)


def test_equal_scores_are_cut_together():
    targets = np.array([[1.0, 0.0], [0.0, 0.0]])
    probabilities = np.full((2, 2), 0.5, np.float32)
    found = best_threshold(targets, probabilities)
    assert (probabilities >= np.float32(found)).all()


def test_a_cut_between_neighbouring_floats_is_not_rounded_away():
    score = np.float32(0.6)
    for _ in range(6):
        below = np.nextafter(score, np.float32(0))
        found = best_threshold(np.array([[1.0, 0.0]]), np.array([[score, below]]))
        given = np.array([score, below]) >= np.float32(found)
        assert given.tolist() == [True, False]
        score = below


def test_without_a_right_label_the_threshold_is_one_half():
    assert best_threshold(np.zeros((2, 2)), np.full((2, 2), 0.9, np.float32)) == 0.5


# Label 0 has two products, label 1 one, label 2 none.
TRUTH = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)
SAID = np.float32([[0.8, 0.5, 0.1], [0.4, 0.3, 0.1], [0.2, 0.4, 0.1], [0.1, 0.1, 0.1]])


def test_a_label_without_products_gets_the_threshold_of_all():
    # All at once: 0.8 right, 0.5 wrong, 0.4 twice right: F1 = 6/7, cut at 0.35.
    everything = best_threshold(TRUTH, SAID)
    assert everything == pytest.approx(0.35)
    own = thresholds_for("multi_label", TRUTH, SAID, CalibrationSettings(shrinkage=0.0))
    # Label 0 is cut between 0.4 and 0.2, label 1 between 0.4 and 0.3.
    assert own == pytest.approx((0.3, 0.35, everything))


def test_few_products_of_a_label_draw_its_threshold_towards_that_of_all():
    mixed = thresholds_for(
        "multi_label", TRUTH, SAID, CalibrationSettings(shrinkage=6.0)
    )
    # Two products against six.
    expected = expit((2 * logit(0.3) + 6 * logit(0.35)) / 8)
    assert mixed == pytest.approx((expected, 0.35, 0.35))
    far = thresholds_for("multi_label", TRUTH, SAID, CalibrationSettings(shrinkage=1e9))
    assert far == pytest.approx((0.35,) * 3)


def test_thresholds_are_fitted_on_calibrated_and_consistent_probabilities():
    targets, logits = crooked(200, labels=4)
    seen = []

    def consistent(probabilities):
        seen.append(probabilities)
        return probabilities / 2

    once = calibration.fit("multi_label", targets, logits, "")
    half = calibration.fit("multi_label", targets, logits, "", consistent=consistent)
    said = metrics.probabilities("multi_label", once.apply(logits))
    np.testing.assert_array_equal(seen[0], said)
    settings = CalibrationSettings()
    assert half.thresholds == thresholds_for(
        "multi_label", targets, seen[0] / 2, settings
    )
    assert half.scales == once.scales


def test_a_single_label_product_always_gets_its_first_choice_by_default():
    targets, logits = drawn("single_label", 1.0, num=50)
    found = calibration.fit("single_label", targets, logits, "")
    assert found.thresholds == (0.0, 0.0, 0.0)


# ------------------------------------------------------------------- precision


def test_a_threshold_for_a_precision_reckons_with_one_wrong_decision_more():
    truth = np.array([1, 1, 1, 1, 0, 1])
    said = np.float32([0.9, 0.8, 0.7, 0.6, 0.5, 0.2])
    # Right of assigned and one: 1/2, 2/3, 3/4, 4/5, 4/6, 5/7.
    assert precision_threshold(truth, said, 0.8) == pytest.approx(0.55)
    assert precision_threshold(truth, said, 0.7) == pytest.approx(0.1)
    assert precision_threshold(truth, said, 0.5) == pytest.approx(0.1)


def test_where_no_threshold_keeps_the_precision_nothing_is_assigned():
    said = np.float32([1.0, 0.9])
    found = precision_threshold(np.array([1, 1]), said, 0.9)
    assert found > 1
    assert not (said >= np.float32(found)).any()


def test_equal_scores_are_kept_or_refused_together():
    truth, said = np.array([1] * 9 + [0] * 9), np.full(18, 0.5, np.float32)
    found = precision_threshold(truth, said, 0.8)
    assert not (said >= np.float32(found)).any()
    found = precision_threshold(truth, said, 0.45)
    assert (said >= np.float32(found)).all()


def test_one_threshold_keeps_the_precision_of_first_choices():
    targets, logits = drawn("single_label", 2.0)
    settings = CalibrationSettings(threshold_for="precision", target_precision=0.95)
    found = calibration.fit("single_label", targets, logits, "", settings)
    assert len(set(found.thresholds)) == 1
    targets, logits = targets[:2_000], logits[:2_000]
    said = metrics.probabilities("single_label", found.apply(logits))
    given = metrics.assigned("single_label", said, np.float32(found.thresholds))
    right = given[np.arange(len(given)), targets].sum()
    assert right / given.sum() == pytest.approx(0.95, abs=0.02)
    assert 0.1 < given.any(axis=1).mean() < 0.9


def test_labels_keep_a_precision_each():
    targets, logits = crooked(4_000)
    settings = CalibrationSettings(
        threshold_for="precision", target_precision=0.8, shrinkage=0.0
    )
    found = calibration.fit("multi_label", targets, logits, "", settings)
    said = metrics.probabilities("multi_label", found.apply(logits))
    given = said >= np.float32(found.thresholds)
    some = given.any(axis=0)
    assert some.sum() > 15
    right = (given & (targets > 0)).sum(axis=0)
    assert (right[some] >= 0.8 * given.sum(axis=0)[some]).all()


# --------------------------------------------------------------------- on disk


def refusal(path, mark):
    with pytest.raises(RunError) as caught:
        calibration.read(path, mark, 2)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_calibration_is_read_as_written_and_refused_when_stale(tmp_path):
    path = tmp_path / "calibration.json"
    fitted = Calibration("mark", (1.25, 0.5), (0.0, 0.5), (0.1, 0.2), None)
    calibration.write(path, fitted)
    assert calibration.read(path, "mark", 2) == fitted
    assert refusal(path, "other") == "stale; run tfmm.fit --resume"


def test_a_foreign_calibration_is_refused_by_name(tmp_path):
    path = tmp_path / "calibration.json"
    lists = {key: [0.5, 0.5] for key in ("scales", "shifts", "thresholds")}
    whole = {"fingerprint": "mark", "temperature": 1.0, **lists}
    missing = [{k: v for k, v in whole.items() if k != key} for key in whole]
    wrong = [
        *({"more": 1}, {"thresholds": 1}, {"thresholds": []}, {"scales": "12"}),
        *({"scales": [1.0, -1.0]}, {"shifts": [0.5]}, {"shifts": ["a", "b"]}),
    ]
    damaged = [{**whole, **change} for change in wrong]
    for content in ([], {}, *damaged, *missing):
        write_json(path, content)
        assert refusal(path, "mark") == (
            "not what a calibration file holds; run tfmm.fit --resume"
        )
    path.write_text('{"fingerprint"')
    assert refusal(path, "mark").startswith("damaged: ")
    path.unlink()
    assert refusal(path, "mark").startswith("no such file")
