import numpy as np
import pytest
from sklearn.metrics import f1_score

from tfmm import calibration
from tfmm.calibration import Calibration, best_threshold
from tfmm.errors import RunError
from tfmm.metrics import log_loss
from tfmm.run import write_json


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
    found = calibration.fit(task, targets, logits, "mark")
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.fingerprint == "mark"
    assert len(found.thresholds) == 3


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_no_other_temperature_has_a_smaller_loss(task):
    targets, logits = drawn(task, 2.0, num=200)
    found = calibration.fit(task, targets, logits, "mark").temperature
    least = log_loss(task, targets, logits / found)
    for other in np.geomspace(0.05, 20, 60):
        assert log_loss(task, targets, logits / other) >= least - 1e-6


def test_a_temperature_stays_within_its_bounds():
    logits = np.array([[5.0, -5.0], [-5.0, 5.0]], np.float32)
    always_right = calibration.fit("single_label", np.array([0, 1]), logits, "")
    always_wrong = calibration.fit("single_label", np.array([1, 0]), logits, "")
    assert 0.05 <= always_right.temperature < 0.5
    assert 19.0 < always_wrong.temperature <= 20.0


def test_a_temperature_is_a_float32_as_in_the_exported_graph():
    targets, logits = drawn("single_label", 2.0, num=50)
    found = calibration.fit("single_label", targets, logits, "").temperature
    assert found == float(np.float32(found))


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


def test_a_threshold_is_fitted_at_the_fitted_temperature():
    targets, logits = drawn("multi_label", 3.0, num=300)
    found = calibration.fit("multi_label", targets, logits, "")
    assert len(set(found.thresholds)) == 1
    calibrated = 1 / (1 + np.exp(-logits / np.float32(found.temperature)))
    best = brute_force(targets, np.float32(calibrated))
    reached = micro_f1(targets, np.float32(calibrated), found.thresholds[0])
    assert reached == pytest.approx(best, abs=1e-3)


def test_a_single_label_model_needs_no_threshold():
    targets, logits = drawn("single_label", 1.0, num=50)
    found = calibration.fit("single_label", targets, logits, "")
    assert found.thresholds == (0.5, 0.5, 0.5)


# --------------------------------------------------------------------- on disk


def refusal(path, mark):
    with pytest.raises(RunError) as caught:
        calibration.read(path, mark)
    return str(caught.value).removeprefix(f"{path}: ")


def test_a_calibration_is_read_as_written_and_refused_when_stale(tmp_path):
    path = tmp_path / "calibration.json"
    fitted = Calibration("mark", 1.25, (0.1, 0.2))
    calibration.write(path, fitted)
    assert calibration.read(path, "mark") == fitted
    assert refusal(path, "other") == "stale; run tfmm.fit --resume"


def test_a_foreign_calibration_is_refused_by_name(tmp_path):
    path = tmp_path / "calibration.json"
    whole = {"fingerprint": "mark", "temperature": 1.0, "thresholds": [0.5]}
    missing = [{k: v for k, v in whole.items() if k != key} for key in whole]
    for content in ([], {}, {**whole, "more": 1}, {**whole, "thresholds": 1}, *missing):
        write_json(path, content)
        assert refusal(path, "mark") == "not what a calibration file holds"
    path.write_text('{"fingerprint"')
    assert refusal(path, "mark").startswith("damaged: ")
    path.unlink()
    assert refusal(path, "mark").startswith("no such file")
