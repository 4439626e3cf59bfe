import json
import shutil

import numpy as np
import pytest
import sklearn.metrics
from tiny import EXPERIMENT

from tfmm import calibration, experiment, metrics, outputs, results
from tfmm.calibration import Calibration
from tfmm.errors import RunError
from tfmm.report import numbers
from tfmm.run import Run, write_json

LABELS = ("lamp", "rug", "table")
# First choices of six products; the labels are 0, 0, 1, 1, 2, 2.
TARGETS = np.array([0, 0, 1, 1, 2, 2], np.int32)
CHOICES = {
    "title": [0, 0, 1, 2, 0, 0],  # right: 0, 1, 2
    "image": [0, 1, 0, 1, 2, 1],  # right: 0, 3, 4
    "product": [0, 0, 1, 1, 0, 0],  # right: 0, 1, 2, 3
    "policy": [0, 2, 2, 2, 0, 2],  # right: 0, 5
}
TEMPERATURE = 2.0


@pytest.fixture(autouse=True)
def cases(monkeypatch):
    """What heads say with modalities hidden; nothing unless a test fills it."""
    stored = {}

    def read_cases(run, settings, name, split):
        return stored.get((name, split), {})

    monkeypatch.setattr(results, "read_cases", read_cases)
    return stored


def set_up(
    tmp_path,
    task="single_label",
    choices=CHOICES,
    hidden=(),
    validation=None,
    overrides=(),
):
    """A run whose models prefer `choices`; `hidden` products have no title.

    On validation, which holds the same products, they prefer `validation`: by default
    the same.
    """
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    settings = experiment.load(path, [f"catalog.task={task}", *overrides])
    run = Run(tmp_path / "run")
    run.write_start(settings, [], {"path": "", "sha256": "", "fingerprint": "f"})
    run.labels_file.parent.mkdir()
    run.labels_file.write_text("".join(f"{name}\n" for name in LABELS))
    targets = TARGETS
    if task == "multi_label":
        targets = metrics.one_hot(TARGETS, 3).astype(np.float32)
        targets[3, 2] = 1.0  # so the title's 2 is right as well
    for split in ("train", "validation", "test"):
        outputs.write_targets(run.outputs, split, targets, "f")
        outputs.write_groups(run.outputs, split, np.array(list("aabcde")))
    for name, chosen in choices.items():
        info = {"weights": name, "parameters": 9, "epochs": 2, "fingerprint": "secret"}
        info["policy_accuracy"] = {"test": 0.75, "train": 0.5}
        write_json(run.model_info_file(name), info)
        present = np.array([name != "title" or i not in hidden for i in range(6)])
        mark = results.outputs_fingerprint(run, settings, name, "f")
        preferred = {"test": chosen, "validation": (validation or choices)[name]}
        for split, best in preferred.items():
            logits = 4.0 * np.eye(3)[best] - 1.0
            batch = {"features": np.ones((6, 2)), "logits": logits}
            batch = {key: value[present] for key, value in batch.items()}
            ids = np.array(list("abcdef"))
            outputs.write(run.outputs / name / split, mark, ids, present, [batch])
        fitted = Calibration(
            results.calibration_fingerprint(run, settings, name),
            *((1 / TEMPERATURE,) * 3, (0.0,) * 3),
            (0.5 * (task == "multi_label"),) * 3,
            TEMPERATURE,
        )
        calibration.write(run.calibration_file(name), fitted)
    return run, settings


def refusal(run, settings, split="test"):
    with pytest.raises(RunError) as caught:
        numbers.compute(run, settings, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_report_counts_what_is_there(tmp_path):
    found = numbers.compute(*set_up(tmp_path), "test")
    assert (found["split"], found["task"]) == ("test", "single_label")
    assert (found["products"], found["labels"]) == (6, 3)
    assert list(found["models"]) == ["title", "image", "product", "policy"]
    kinds = {name: model["kind"] for name, model in found["models"].items()}
    assert kinds == dict.fromkeys(CHOICES, "head") | {
        "title": "tower",
        "image": "tower",
    }
    assert found["models"]["policy"]["towers"] == ["title", "image"]
    assert found["models"]["policy"]["model"] == "policy_network"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_every_models_measures_are_those_of_its_calibrated_outputs(tmp_path):
    found = numbers.compute(*set_up(tmp_path), "test")["models"]
    for name, chosen in CHOICES.items():
        said = metrics.probabilities(
            "single_label", (4.0 * np.eye(3)[chosen] - 1.0) / TEMPERATURE
        )
        expected = metrics.measures("single_label", TARGETS, said)
        assert {key: found[name][key] for key in expected} == pytest.approx(expected)
        assert found[name]["temperature"] == TEMPERATURE
        assert found[name]["present"] == 6
        assert "threshold" not in found[name]
    assert [found[name]["top1"] for name in CHOICES] == [1 / 2, 1 / 2, 4 / 6, 2 / 6]


def test_oracle_gain_and_share_worked_by_hand(tmp_path):
    # A tower is right of products 0, 1, 2, 3, 4; the best tower of three.
    found = numbers.compute(*set_up(tmp_path), "test")
    assert found["oracle"] == {"top1": pytest.approx(5 / 6)}
    product, policy = found["models"]["product"], found["models"]["policy"]
    assert product["best_tower"] == policy["best_tower"] == "title"
    assert product["gain"] == pytest.approx(1 / 6)
    assert product["oracle_share"] == pytest.approx((4 - 3) / (5 - 3))
    assert policy["gain"] == pytest.approx(-1 / 6)
    assert policy["oracle_share"] == pytest.approx((2 - 3) / (5 - 3))
    assert found["models"]["title"]["oracle_share"] is None
    assert "gain" not in found["models"]["title"]


def test_without_room_above_the_best_tower_there_is_no_share(tmp_path):
    choices = CHOICES | {"image": CHOICES["title"]}
    found = numbers.compute(*set_up(tmp_path, choices=choices), "test")
    assert found["models"]["product"]["oracle_share"] is None
    assert found["models"]["product"]["gain"] == pytest.approx(1 / 6)


def test_groups_worked_by_hand_add_up_to_all(tmp_path):
    groups = numbers.compute(*set_up(tmp_path), "test")["groups"]
    assert list(groups) == ["title|image"]
    found = groups["title|image"]
    members = {"both": [0], "only_title": [1, 2], "only_image": [3, 4], "none": [5]}
    assert set(found) == set(members)
    for name, inside in members.items():
        assert found[name]["products"] == len(inside)
        assert found[name]["share"] == pytest.approx(len(inside) / 6)
        right = {
            head: np.mean([CHOICES[head][i] == TARGETS[i] for i in inside])
            for head in ("product", "policy")
        }
        assert found[name]["right"] == pytest.approx(right)
    assert sum(group["products"] for group in found.values()) == 6
    for head in ("product", "policy"):
        right = sum(g["products"] * g["right"][head] for g in found.values())
        assert right == sum(np.array(CHOICES[head]) == TARGETS)


def test_an_empty_group_has_no_shares_of_its_own(tmp_path):
    choices = CHOICES | {"image": CHOICES["title"]}
    found = numbers.compute(*set_up(tmp_path, choices=choices), "test")["groups"]
    assert found["title|image"]["only_title"] == {
        "products": 0,
        "share": 0.0,
        "right": {},
    }


def test_multi_label_is_right_with_any_of_the_products_labels(tmp_path):
    found = numbers.compute(*set_up(tmp_path, "multi_label"), "test")
    assert found["models"]["title"]["top1"] == pytest.approx(4 / 6)
    assert found["models"]["title"]["threshold"] == 0.5
    assert found["groups"]["title|image"]["both"]["products"] == 2


def test_a_product_a_tower_cannot_see_gets_the_label_shares(tmp_path):
    choices = CHOICES | {"title": [0, 0, 1, 2, 2, 2]}
    run, settings = set_up(tmp_path, choices=choices, hidden=(4, 5))
    # Shares by count: labels 0 and 2 would be as frequent as 1; make 1 the first.
    outputs.write_targets(run.outputs, "train", np.array([1, 1, 2], np.int32), "f")
    title = numbers.compute(run, settings, "test")["models"]["title"]
    assert title["present"] == 4
    assert title["top1"] == pytest.approx(3 / 6)
    said, _ = results.read_probabilities(run, settings, "title", "test")
    np.testing.assert_allclose(said[4], [0, 2 / 3, 1 / 3], atol=1e-6)


def test_heads_are_ranked_on_validation_and_not_on_what_is_reported(tmp_path):
    # Here product is right of 4 and policy of 2; on validation of 3 and of 5.
    validation = CHOICES | {
        "product": [0, 0, 1, 0, 0, 0],
        "policy": [0, 0, 1, 1, 2, 0],
        "image": [0, 1, 0, 0, 2, 1],
    }
    found = numbers.compute(*set_up(tmp_path, validation=validation), "test")
    models = found["models"]
    assert models["product"]["top1"] > models["policy"]["top1"]
    assert found["ranked_by"] == "top1"
    assert found["best_head"] == "policy"
    assert found["ranking"][0] == "policy"
    assert found["ranking"][-1] == "image"
    assert list(found["pairs"]) == ["policy|product"]
    assert found["pairs"]["policy|product"]["top1"] == pytest.approx(-2 / 6)
    assert models["policy"]["validation"]["top1"] == pytest.approx(5 / 6)
    said = metrics.logits_of(
        "single_label",
        metrics.probabilities(
            "single_label",
            (4.0 * np.eye(3)[validation["policy"]] - 1.0) / TEMPERATURE,
        ),
    )
    expected = metrics.log_loss("single_label", TARGETS, said)
    assert models["policy"]["validation"]["loss"] == pytest.approx(expected)


def test_a_tie_on_validation_goes_to_the_lower_loss(tmp_path):
    # Both are right of four; what policy gets wrong it is sure of.
    choices = CHOICES | {"policy": CHOICES["product"]}
    run, settings = set_up(tmp_path, choices=choices)
    file = run.calibration_file("policy")
    content = json.loads(file.read_text())
    write_json(file, content | {"temperature": 0.5, "scales": [2.0] * 3})
    found = numbers.compute(run, settings, "test")
    figures = [found["models"][x]["validation"] for x in ("product", "policy")]
    assert figures[0]["top1"] == figures[1]["top1"]
    assert figures[0]["loss"] < figures[1]["loss"]
    assert found["best_head"] == "product"


def test_multi_label_models_are_ranked_by_micro_f1(tmp_path):
    found = numbers.compute(*set_up(tmp_path, "multi_label"), "test")
    assert found["ranked_by"] == "micro_f1"
    figures = [found["models"][x]["validation"]["micro_f1"] for x in found["ranking"]]
    assert figures == sorted(figures, reverse=True)
    product = found["models"]["product"]
    low, high = product["micro_f1_interval"]
    assert low <= product["micro_f1"] <= high
    best = found["models"][product["best_tower_micro_f1"]]
    gain = product["micro_f1"] - best["micro_f1"]
    assert product["gain_micro_f1"] == pytest.approx(gain)
    low, high = product["gain_micro_f1_interval"]
    assert low <= gain <= high
    pair = found["pairs"]["product|policy"]
    gap = product["micro_f1"] - found["models"]["policy"]["micro_f1"]
    assert pair["micro_f1"] == pytest.approx(gap)


@pytest.mark.parametrize("split", ["fusion", "validation", "train"])
def test_what_a_head_was_fitted_on_is_told(tmp_path, split):
    run, settings = set_up(tmp_path, overrides=[f"heads.policy.fit_on={split}"])
    models = numbers.compute(run, settings, "test")["models"]
    assert models["policy"]["fit_on"] == [split]
    assert models["policy"]["ranked_on_own_products"] is (split == "validation")
    assert "fit_on" not in models["product"]
    assert models["product"]["ranked_on_own_products"] is False
    assert "ranked_on_own_products" not in models["title"]


def test_calibration_errors_are_told_before_and_after(tmp_path):
    found = numbers.compute(*set_up(tmp_path), "test")["models"]
    for name, chosen in CHOICES.items():
        raw = metrics.probabilities("single_label", 4.0 * np.eye(3)[chosen] - 1.0)
        error = metrics.calibration_error(
            "single_label", metrics.one_hot(TARGETS, 3), raw
        )
        assert found[name]["ece_uncalibrated"] == pytest.approx(error)
        assert found[name]["ece_uncalibrated"] != found[name]["ece"]


def test_rescued_and_broken_products_worked_by_hand(tmp_path):
    models = numbers.compute(*set_up(tmp_path), "test")["models"]
    # The title is right of 0, 1, 2; product of 3 as well, policy of 0 and 5.
    for head, rescued, broken in (("product", 1, 0), ("policy", 1, 2)):
        expected = {"products": rescued, "share": pytest.approx(rescued / 6)}
        assert models[head]["rescued"] == expected
        expected = {"products": broken, "share": pytest.approx(broken / 6)}
        assert models[head]["broken_by_fusion"] == expected
        gain = models[head]["gain"]
        assert (rescued - broken) / 6 == pytest.approx(gain)
    assert "rescued" not in models["title"]


def test_products_by_how_many_towers_are_right_worked_by_hand(tmp_path):
    found = numbers.compute(*set_up(tmp_path), "test")["towers_right"]
    members = {"none": [5], "one": [1, 2, 3, 4], "several": [], "all": [0]}
    assert {key: group["products"] for key, group in found.items()} == {
        key: len(inside) for key, inside in members.items()
    }
    assert found["one"]["right"] == {"product": 3 / 4, "policy": 0.0}
    assert found["several"]["right"] == {}


def test_a_head_is_measured_with_modalities_missing(tmp_path, cases):
    run, settings = set_up(tmp_path, hidden=(4, 5))
    said = np.float32(0.8 * np.eye(3)[[0, 0, 1, 1, 2, 1]] + 0.2 / 3)
    titled = np.arange(6) < 4
    cases["policy", "test"] = {
        "without_image": (said, titled),
        "only_image": (said, np.ones(6, bool)),
    }
    models = numbers.compute(run, settings, "test")["models"]
    missing = models["policy"]["missing"]
    assert list(missing) == ["all", "without_image", "only_image"]
    for key, figure in missing["all"].items():
        assert figure == pytest.approx(models["policy"][key])
    # Of products 4 and 5 there is no title, so nothing is left without the image and
    # nothing assigned: four right of four given and six due.
    assert missing["without_image"]["top1"] == pytest.approx(5 / 6)
    assert missing["without_image"]["micro_f1"] == pytest.approx(8 / 10)
    assert missing["only_image"]["micro_f1"] == pytest.approx(5 / 6)
    assert "missing" not in models["product"]
    assert "missing" not in models["title"]


def test_products_of_two_runs_are_measured_together(tmp_path):
    generator = np.random.default_rng(0)
    targets = np.float32(generator.random((8, 3)) < 0.5)
    said = np.float32(generator.random((8, 3)))
    # The runs' thresholds differ, so no one threshold gives these decisions.
    given = said >= np.repeat([[0.2], [0.7]], 4, axis=0)
    one = numbers.Said("tower", "text_cnn", ("title",), said, given, np.ones(8, bool))
    about = numbers.Catalogued("test", "multi_label", LABELS, " > ")
    found = numbers.measure(about, targets, np.arange(8), 0, {"title": one})
    title = found["models"]["title"]
    expected = sklearn.metrics.f1_score(targets, given, average="micro")
    assert title["micro_f1"] == pytest.approx(expected)
    assert title["top1"] == metrics.is_right("multi_label", targets, said).mean()
    assert (found["ranking"], found["pairs"]) == ([], {})
    assert not {"best_head"} & set(found)
    assert not {"validation", "ece_uncalibrated", "missing", "fit_on"} & set(title)


def test_outputs_of_validation_are_needed(tmp_path):
    run, settings = set_up(tmp_path)
    shutil.rmtree(run.outputs / "policy" / "validation")
    assert "policy/validation" in refusal(run, settings)


def test_intervals_hold_the_figure_and_repeat(tmp_path):
    run, settings = set_up(tmp_path)
    found = numbers.compute(run, settings, "test")
    for model in found["models"].values():
        low, high = model["top1_interval"]
        assert 0.0 <= low <= model["top1"] <= high <= 1.0
        assert low < high
    low, high = found["models"]["product"]["gain_interval"]
    assert low <= found["models"]["product"]["gain"] <= high
    assert numbers.compute(run, settings, "test") == found


def test_training_figures_are_shown_and_marks_are_not(tmp_path):
    title = numbers.compute(*set_up(tmp_path), "test")["models"]["title"]
    assert (title["parameters"], title["epochs"]) == (9, 2)
    assert title["policy_accuracy"] == 0.75
    assert not {"fingerprint", "weights", "seconds", "best_epoch"} & set(title)


def test_models_without_outputs_are_not_in_the_report(tmp_path):
    choices = {name: CHOICES[name] for name in ("title", "image")}
    found = numbers.compute(*set_up(tmp_path, choices=choices), "test")
    assert list(found["models"]) == ["title", "image"]
    group = found["groups"]["title|image"]["both"]
    assert group == {"products": 1, "share": pytest.approx(1 / 6), "right": {}}


def test_a_run_without_outputs_and_an_empty_split_are_refused(tmp_path):
    run, settings = set_up(tmp_path, choices={})
    expected = f"{run.path}: no outputs of 'test'; run tfmm.fit --resume"
    assert refusal(run, settings) == expected
    outputs.write_targets(run.outputs, "fusion", np.zeros(0, np.int32), "f")
    expected = f"{run.path}: the split 'fusion' holds no products"
    assert refusal(run, settings, "fusion") == expected
    assert "no such file" in refusal(run, settings, "tset")


def test_outputs_of_another_catalog_are_refused(tmp_path):
    run, settings = set_up(tmp_path)
    outputs.write_targets(run.outputs, "test", TARGETS, "other")
    found = refusal(run, settings)
    assert found.startswith(f"{run.outputs / 'title' / 'test'}: stale: ")


def test_outputs_of_other_settings_are_refused(tmp_path):
    run, settings = set_up(tmp_path)
    changed = experiment.load(
        tmp_path / "e.toml", ["catalog.task=single_label", "towers.title.filters=5"]
    )
    assert "stale" in refusal(run, changed)
    assert numbers.compute(run, settings, "test")
