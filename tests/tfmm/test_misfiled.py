"""Who judges what, and the list that comes of it, on stored outputs made up here."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_pages import scrolls_sideways
from tiny import EXPERIMENT

from tfmm import calibration, experiment, metrics, outputs, products, results
from tfmm.calibration import Calibration
from tfmm.catalog import load as load_catalog
from tfmm.errors import RunError
from tfmm.report import misfiled
from tfmm.report.misfiled import judges, listing
from tfmm.report.misfiled.judges import Judge
from tfmm.run import Run, write_json

FOLDS = ("catalog.folds=2",)
MARKUP = "<script>alert(1)</script>"
PARTS = {"train": 12, "fusion": 6, "validation": 6, "test": 6}
RANKING = ("policy", "product", "title", "image")


def set_up(tmp_path, task="single_label", overrides=(), strengths=(6.0, 4.0)):
    """A run whose models know the right label; the catalog's is wrong of P0, P12, P24.

    The first product of `test` has no title. `train` has outputs that know the labels
    by heart.
    """
    file = tmp_path / "e.toml"
    file.write_text(EXPERIMENT, encoding="utf-8")
    single = [f"catalog.task={task}", 'catalog.label_separator=";"']
    settings = experiment.load(file, [*single, *overrides])
    lines = ["id,title,image,labels,split"]
    splits = [split for split, count in PARTS.items() for _ in range(count)]
    kinds = ["lamp", "rug", "table"]
    right = np.arange(len(splits)) % 3
    flipped = np.isin(np.arange(len(splits)), [0, 12, 24])
    given = np.where(flipped, (right + 1) % 3, right)
    first_tested = splits.index("test")
    Image.new("RGBA", (300, 200), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    for row, split in enumerate(splits):
        title = "" if row == first_tested + 1 else f"{kinds[right[row]]} {MARKUP}"
        image = "" if row % 2 else "clear.png"
        lines.append(f"P{row},{title},{image},{kinds[given[row]]},{split}")
    table = tmp_path / "catalog.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    catalog = load_catalog(table, settings)
    run = Run(tmp_path / "run")
    about = {"path": str(table), "sha256": "", "fingerprint": catalog.fingerprint()}
    run.write_start(settings, [], about)
    run.catalog.mkdir()
    run.labels_file.write_text("".join(f"{name}\n" for name in kinds))
    products.write(run, catalog)
    stored = {split: catalog.rows(split) for split in PARTS}
    if settings.catalog.folds:
        stored["train_oof"] = stored["train"]
    for split, rows in stored.items():
        outputs.write_targets(run.outputs, split, catalog.targets(rows), "f")
        outputs.write_groups(run.outputs, split, catalog.groups[rows])
    generator = np.random.default_rng(0)
    for name in RANKING:
        write_json(run.model_info_file(name), {"weights": name})
    for name in RANKING:
        mark = results.outputs_fingerprint(run, settings, name, "f")
        strength = strengths[0] if name in settings.heads else strengths[1]
        for split, rows in stored.items():
            known = given if split == "train" else right
            logits = strength * np.eye(3)[known[rows]]
            logits += generator.normal(size=logits.shape) - strength / 2
            present = np.array([name != "title" or x != first_tested + 1 for x in rows])
            batch = {"features": np.ones((len(rows), 2)), "logits": logits}
            outputs.write(
                run.outputs / name / split,
                mark,
                catalog.ids[rows],
                present,
                [{key: x[present] for key, x in batch.items()}],
            )
        fitted = Calibration(
            results.calibration_fingerprint(run, settings, name),
            *((1.0,) * 3, (0.0,) * 3, (0.5 * (task == "multi_label"),) * 3, 1.0),
        )
        calibration.write(run.calibration_file(name), fitted)
    return run, settings


def report_of(names=RANKING, by="top1"):
    """The keys of report.json that tell which models are good."""
    own = {by: 0.5, "loss": 1.0}
    models = {name: {"validation": own} for name in names}
    return {"models": models, "ranking": list(names)}


def judged_by(run, settings, split="test", report=None):
    found = listing.judges(run, settings, split, report or report_of())
    return {judge.split: judge.name for judge in found}


def test_a_head_judges_no_product_that_it_was_fitted_on(tmp_path):
    run, settings = set_up(tmp_path, overrides=FOLDS)
    assert judged_by(run, settings) == {
        "train_oof": "policy",
        "fusion": "product",
        "validation": "policy",
        "test": "policy",
    }


def test_a_head_fitted_out_of_fold_does_not_judge_those_products(tmp_path):
    fit_on = 'heads.policy.fit_on=["train_oof", "fusion"]'
    run, settings = set_up(tmp_path, overrides=(*FOLDS, fit_on))
    found = judged_by(run, settings)
    assert found["train_oof"] == found["fusion"] == "product"
    assert found["test"] == "policy"


def test_a_head_that_hears_one_that_saw_the_labels_saw_them_too(tmp_path):
    _, settings = set_up(tmp_path)
    assert judges.knows(settings, "policy", "fusion")
    assert not judges.knows(settings, "policy", "train_oof")
    assert all(judges.knows(settings, name, "train") for name in RANKING)
    heads = {**settings.heads, "both": settings.heads["product"]}
    heads["both"] = heads["both"].model_copy(update={"towers": ["policy", "title"]})
    settings = settings.model_copy(update={"heads": heads})
    assert judges.knows(settings, "both", "fusion")


def test_without_folds_nobody_judges_training_products(tmp_path):
    run, settings = set_up(tmp_path)
    assert list(judged_by(run, settings)) == ["fusion", "validation", "test"]
    assert judged_by(run, settings, "train") == {}
    assert misfiled.write(run, settings, "train", report_of(), tmp_path) == {}
    assert not (tmp_path / "misfiled.csv").exists()


def test_another_split_than_test_lists_itself(tmp_path):
    run, settings = set_up(tmp_path, overrides=FOLDS)
    assert judged_by(run, settings, "fusion") == {"fusion": "product"}
    assert judged_by(run, settings, "train_oof") == {"train_oof": "policy"}


def test_a_head_that_was_ranked_on_its_own_products_does_not_judge(tmp_path):
    run, settings = set_up(tmp_path)
    report = report_of()
    report["models"]["policy"]["ranked_on_own_products"] = True
    assert judged_by(run, settings, report=report)["test"] == "product"


def test_towers_are_multiplied_where_no_head_may_judge_and_that_is_better(tmp_path):
    run, settings = set_up(tmp_path, strengths=(6.0, 2.0))
    report = report_of(("policy", "title", "image"))
    shutil.rmtree(run.outputs / "product")
    found = judged_by(run, settings, report=report)
    assert found["fusion"] == "product of title, image"
    assert found["test"] == "policy"
    report["models"]["title"]["validation"]["top1"] = 1.0
    assert judged_by(run, settings, report=report)["fusion"] == "title"


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_multiplied_towers_are_calibrated_on_validation(tmp_path, task):
    run, settings = set_up(tmp_path, task)
    names = ("title", "image")

    def logits(split):
        total = 0.0
        for name in names:
            stored = results.read_outputs(run, settings, name, split)
            own = np.array(stored.logits, np.float64)
            if task == "single_label":
                own -= np.log(np.exp(own).sum(axis=1, keepdims=True))
            total = total + own * stored.present[:, None]
        return total

    targets, _ = outputs.read_targets(run.outputs, "validation")
    fitted = calibration.fit(task, targets, logits("validation"), "")
    found = judges.ask(run, settings, Judge("test", names))
    expected = metrics.probabilities(task, fitted.apply(logits("test")))
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)
    assert found.present.all()


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_flipped_labels_come_first_and_the_right_ones_are_told(tmp_path, task):
    run, settings = set_up(tmp_path, task, FOLDS)
    by = "top1" if task == "single_label" else "micro_f1"
    report = report_of(by=by)
    found = misfiled.write(run, settings, "test", report, tmp_path / "to")
    first = found["first"][:3]
    assert {entry["id"] for entry in first} == {"P0", "P12", "P24"}
    for entry in first:
        assert (entry["given"], entry["likely"]) == (["rug"], ["lamp"])
        assert [x["label"] for x in entry["wrong"]] == ["rug"]
        assert [x["label"] for x in entry["missing"]] == ["lamp"]
    assert any(entry["confident"] for entry in first)
    assert {x["id"]: x["split"] for x in first}["P0"] == "train_oof"
    surprises = [entry["surprise"] for entry in found["first"]]
    assert surprises == sorted(surprises, reverse=True)
    assert found["products"] == 30
    assert 0.02 < found["wrong_rate"] < 0.15
    assert ("missing_rate" in found) == (task == "multi_label")
    if task == "single_label":
        assert [pair[:2] for pair in found["pairs"]] == [["rug", "lamp"]]
        assert found["pairs"][0][2] == found["confident"]
    else:
        labels = {name: (wrong, missing) for name, wrong, missing in found["labels"]}
        assert labels["lamp"][1] > labels["lamp"][0]
        assert labels["rug"][0] > labels["rug"][1]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def rows_of(folder):
    with (folder / "misfiled.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_everything_listed_in_order(tmp_path):
    run, settings = set_up(tmp_path, overrides=FOLDS)
    found = misfiled.write(run, settings, "test", report_of(), tmp_path)
    rows = rows_of(tmp_path)
    assert len(rows) == found["listed"]
    assert sum(row["confident"] == "yes" for row in rows) == found["confident"]
    assert [row["id"] for row in rows] == [x["id"] for x in found["first"]]
    entry = found["first"][0]
    assert rows[0] == {
        "id": entry["id"],
        "split": entry["split"],
        "judge": entry["judge"],
        "surprise": str(entry["surprise"]),
        "confident": "yes" if entry["confident"] else "no",
        "given": "rug",
        "given_probability": f"{entry['wrong'][0]['probability']:.4f}",
        "likely": "lamp",
        "likely_probability": f"{entry['missing'][0]['probability']:.4f}",
    }


@pytest.mark.parametrize(("separator", "both"), [(";", "lamp"), ("json", '["lamp"]')])
def test_several_labels_are_joined_as_in_the_catalog(tmp_path, separator, both):
    run, settings = set_up(tmp_path, "multi_label", FOLDS)
    own = settings.catalog.model_copy(update={"label_separator": separator})
    settings = settings.model_copy(update={"catalog": own})
    misfiled.write(run, settings, "test", report_of(by="micro_f1"), tmp_path)
    row = rows_of(tmp_path)[0]
    assert row["likely"] == row["missing"] == both
    assert row["wrong"] == row["given"] == both.replace("lamp", "rug")
    assert float(row["wrong_probability"]) < 0.5 < float(row["missing_probability"])


def test_a_product_that_its_judge_cannot_see_is_left_out(tmp_path):
    run, settings = set_up(tmp_path)
    found = misfiled.write(run, settings, "test", report_of(("title",)), tmp_path)
    assert (found["products"], found["left"]) == (17, 1)


def test_the_page_shows_texts_as_text_and_images_small(tmp_path):
    run, settings = set_up(tmp_path, overrides=FOLDS)
    found = misfiled.write(run, settings, "test", report_of(), tmp_path)
    html = (tmp_path / "misfiled.html").read_text(encoding="utf-8")
    assert html.count("<script") == 1
    assert "lamp &lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("data:image/jpeg;base64,") == sum(
        len(entry["images"]) for entry in found["first"]
    )
    assert not re.findall(r"(?:src|href)=\"(?!data:|#main)", html)
    assert "prefers-color-scheme: dark" in html


def test_the_page_does_without_files_that_are_gone(tmp_path):
    run, settings = set_up(tmp_path, overrides=FOLDS)
    (tmp_path / "clear.png").unlink()
    assert misfiled.write(run, settings, "test", report_of(), tmp_path)["listed"]
    html = (tmp_path / "misfiled.html").read_text(encoding="utf-8")
    assert "<img" not in html


def test_a_run_without_products_says_what_makes_them(tmp_path):
    run, settings = set_up(tmp_path)
    run.products_file().unlink()
    with pytest.raises(RunError, match="no such file; run tfmm"):
        misfiled.write(run, settings, "test", report_of(), tmp_path)
    assert not (tmp_path / "misfiled.csv").exists()


def test_stale_outputs_are_not_judged_by(tmp_path):
    run, settings = set_up(tmp_path)
    write_json(run.model_info_file("policy"), {"weights": "others"})
    with pytest.raises(RunError, match="stale"):
        misfiled.write(run, settings, "test", report_of(), tmp_path)


def test_another_catalog_is_judged_without_what_models_were_fitted_on(tmp_path):
    run, settings = set_up(tmp_path)
    lines = (tmp_path / "catalog.csv").read_text().splitlines()
    other = tmp_path / "other.csv"
    # Products of train, fusion and test, and a new one.
    chosen = [lines[0], lines[1], lines[13], lines[25], "N1,rug,,lamp,"]
    other.write_text("\n".join(chosen) + "\n")
    catalog = load_catalog(other, settings, label_names=run.read_labels())
    rows = catalog.rows("test")
    products.write(run, catalog, "other")
    mark = catalog.fingerprint()
    outputs.write_targets(run.outputs, "other", catalog.targets(rows), mark)
    for name in RANKING:
        outputs.write(
            run.outputs / name / "other",
            results.outputs_fingerprint(run, settings, name, mark),
            catalog.ids[rows],
            np.ones(4, bool),
            [{"features": np.ones((4, 2)), "logits": 4.0 * np.eye(3)[[0, 0, 0, 1]]}],
        )
    found = misfiled.write(run, settings, "other", report_of(), tmp_path)
    assert found["judges"] == [
        {"split": "other", "judge": "policy", "products": 2, "listed": 2}
    ]
    assert (found["products"], found["left"]) == (2, 2)
    assert {entry["id"] for entry in found["first"]} == {"P24", "N1"}
    report = report_of(("product", "title", "image"))
    again = misfiled.write(run, settings, "other", report, tmp_path)
    assert {entry["id"] for entry in again["first"]} == {"P12", "P24", "N1"}


def test_the_report_of_a_run_has_the_list(fitted):
    folder = fitted / "report" / "test"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    found = report["misfiled"]
    assert [x["split"] for x in found["judges"]] == ["fusion", "validation", "test"]
    assert len(rows_of(folder)) == found["listed"]
    assert (folder / "misfiled.html").is_file()
    docs = Path(__file__).resolve().parents[2] / "docs" / "report.md"
    text = docs.read_text(encoding="utf-8")
    keys = set(found) | {key for entry in found["first"][:1] for key in entry}
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1300])
def test_the_page_never_scrolls_sideways(tmp_path, width):
    run, settings = set_up(tmp_path, overrides=FOLDS)
    misfiled.write(run, settings, "test", report_of(), tmp_path)
    html = (tmp_path / "misfiled.html").read_text(encoding="utf-8")
    html = html.replace(MARKUP, "w" * 200)
    assert scrolls_sideways(html, tmp_path, width) == 0
