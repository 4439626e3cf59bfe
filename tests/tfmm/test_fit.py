"""The stages together, on a tiny catalog."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import command

from tfmm import (
    audit,
    catalog,
    experiment,
    head_data,
    outputs,
    products,
    results,
    stages,
)
from tfmm.dataset import keep_some, units_of
from tfmm.errors import RunError
from tfmm.run import Run
from tfmm.stages import answers

# Starts the command and kills it, as a power cut would, when a line appears.
KILL_AT = """
import subprocess, sys
words = sys.argv[2:]
process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
for line in process.stderr:
    if line.startswith(sys.argv[1]):
        process.kill()
        break
sys.exit(process.wait())
"""


def numbers(run):
    report = json.loads((run / "report" / "test" / "report.json").read_text())
    for model in report["models"].values():
        model.pop("seconds", None)
        model.pop("epoch_seconds", None)
    return report


def fit(*words):
    return command("-m", "tfmm.fit", *words)


def test_a_run_holds_what_the_design_says(fitted):
    place = Run(fitted)
    settings = place.read_experiment()
    assert settings.towers["title"].filters == 4
    info = place.read_info()
    assert info["catalog"]["sha256"]
    assert info["versions"]["tensorflow"].startswith("2.20")
    (first,) = info["commands"]
    assert "--catalog" in first["command"]
    assert first["at"].startswith("20")
    assert place.read_labels() == ("lamp", "new", "rug", "table")
    for model in ("title", "image", "product", "policy"):
        assert place.model_file(model).exists()
        assert not place.training(model).exists()
        for split in ("train", "fusion", "validation", "test"):
            stored = results.read_outputs(place, settings, model, split)
            targets, _ = outputs.read_targets(place.outputs, split)
            assert len(stored.ids) == len(targets) == len(stored.logits)
    for page in ("report.json", "index.html"):
        assert (place.report("test") / page).stat().st_size > 100
    assert not list(fitted.rglob("*.partial"))


def test_bad_and_absent_images_are_listed_and_become_missing(fitted):
    with (fitted / "catalog" / "bad_images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["reason"]) for row in rows] == [("P3", "not an image")]
    place = Run(fitted)
    settings = place.read_experiment()
    absent = set()
    for split in ("train", "fusion", "validation", "test"):
        stored = results.read_outputs(place, settings, "image", split)
        absent |= set(np.asarray(stored.ids)[~stored.present])
        assert not np.asarray(stored.logits)[~stored.present].any()
    assert absent == {"P3", "P5"}


def test_outputs_of_absent_texts_are_the_label_shares(fitted):
    place = Run(fitted)
    settings = place.read_experiment()
    targets, _ = outputs.read_targets(place.outputs, "train")
    for split in ("train", "fusion", "validation", "test"):
        said, present = results.read_probabilities(place, settings, "title", split)
        for row in np.flatnonzero(~present):
            np.testing.assert_allclose(said[row], targets.mean(axis=0), atol=1e-6)


def test_resuming_a_finished_run_trains_nothing(fitted, tmp_path, catalog_file):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    before = (run / "models" / "image" / "model.keras").stat().st_mtime_ns
    words = (run / "experiment.toml", "--catalog", catalog_file, "--run", run)
    refused = fit(*words)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    done = fit(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stderr
    assert (run / "models" / "image" / "model.keras").stat().st_mtime_ns == before
    assert numbers(run) == numbers(fitted)


@pytest.mark.parametrize(
    "line", ["title: epoch 1", "image: epoch 0", "policy: epoch 1"]
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    line, fitted, tmp_path, experiment_file, catalog_file
):
    run = tmp_path / "run"
    words = ["-m", "tfmm.fit", experiment_file, "--catalog", catalog_file, "--run", run]
    words = [str(x) for x in words]
    if not line.startswith("title"):  # the towers before it need not train once more
        shutil.copytree(fitted, run)
        name = line.split(":")[0]
        shutil.rmtree(run / "models" / name)
        shutil.rmtree(run / "outputs" / name)
        words.append("--resume")
    killed = subprocess.run([sys.executable, "-c", KILL_AT, line, *words])
    assert killed.returncode != 0
    name = line.split(":")[0]
    assert (run / "models" / name / "training" / "checkpoint.npz").exists()
    only = ["--only", "towers"] if name == "title" else []
    done = command(*words, *(["--resume"] if "--resume" not in words else []), *only)
    assert done.returncode == 0, done.stderr
    assert f"{name}: going on after epoch" in done.stderr
    for split in ("validation", "test"):
        ours, theirs = (
            outputs.read(
                x / "outputs" / name / split,
                json.loads((x / "outputs" / name / split / "store.json").read_text())[
                    "fingerprint"
                ],
            )
            for x in (run, fitted)
        )
        np.testing.assert_array_equal(ours.logits, theirs.logits)


def test_changed_settings_refit_what_they_touch_and_no_more(
    fitted, tmp_path, catalog_file
):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    words = (run / "experiment.toml", "--catalog", catalog_file, "--run", run)
    done = fit(*words, "--resume", "--set", "heads.policy.hidden_units=[3]")
    assert done.returncode == 0, done.stderr
    assert "policy: made from other settings" in done.stderr
    assert "policy: epoch 1" in done.stderr
    assert "title: epoch" not in done.stderr
    before, after = numbers(fitted)["models"], numbers(run)["models"]
    assert after["title"] == before["title"]
    assert after["policy"]["parameters"] != before["policy"]["parameters"]


def test_outputs_of_an_older_model_are_refused_by_name(fitted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    info = run / "models" / "title" / "model.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps({**content, "weights": "0123456789abcdef"}))
    place = Run(run)
    with pytest.raises(RunError, match=r"outputs/title/test: stale"):
        results.read_outputs(place, place.read_experiment(), "title", "test")
    done = command("-m", "tfmm.evaluate", run)
    assert done.returncode == 2
    assert re.search("outputs/title/(test|validation): stale", done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_another_catalog_is_refused(fitted, tmp_path, catalog_file):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    other = tmp_path / "other.csv"
    other.write_text(catalog_file.read_text() + "P99,bright light,,lamp\n")
    done = fit(
        *(run / "experiment.toml", "--catalog", other, "--run", run, "--resume"),
        *("--images", catalog_file.parent),
    )
    assert done.returncode == 2
    assert "another catalog" in done.stderr


def test_a_bad_catalog_leaves_nothing_behind(tmp_path, experiment_file, catalog_file):
    bad = tmp_path / "bad.csv"
    bad.write_text(catalog_file.read_text() + "P1,twice,,lamp\n")
    done = fit(experiment_file, "--catalog", bad, "--run", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith(f"python -m tfmm.fit: {bad}:50: 'id' is a duplicate")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "run.json").exists()


def test_too_many_bad_images_stop_the_run(tmp_path, experiment_file, catalog_file):
    done = fit(
        *(experiment_file, "--catalog", catalog_file, "--run", tmp_path / "run"),
        *("--images", tmp_path),
    )
    assert done.returncode == 2
    assert "47 of 47 images cannot be used" in done.stderr
    assert "max_bad_image_rate" in done.stderr


def test_evaluate_measures_another_file(fitted, tmp_path, catalog_file):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    lines = catalog_file.read_text().splitlines()[:20]
    other = tmp_path / "later.csv"
    other.write_text("\n".join([*lines, "X1,bright light,,lamp|sofa", "X2,oak,,bed"]))
    done = command(
        *("-m", "tfmm.evaluate", run, "--catalog", other, "--name", "later"),
        *("--images", catalog_file.parent),
    )
    assert done.returncode == 0, done.stderr
    assert "labels that the run does not have 2 ('bed' ...)" in done.stderr
    report = json.loads((run / "report" / "later" / "report.json").read_text())
    assert report["products"] == 20
    assert set(report["models"]["policy"]["reasons"]["of"]) == {"title", "image"}
    assert any(x.get("maps") for x in report["shown"].values())
    left_out = (run / "report" / "later" / "left_out.csv").read_text()
    assert left_out.splitlines()[1:] == ["X2,no label that is kept"]
    kept = products.read(Run(run), "later")
    assert kept.ids.tolist() == [line.split(",")[0] for line in [*lines[1:], "X1,"]]
    assert "X1" not in products.read(Run(run), "test").ids
    other.write_text("\n".join(lines))
    known = command(
        *("-m", "tfmm.evaluate", run, "--catalog", other, "--name", "known"),
        *("--images", catalog_file.parent),
    )
    assert known.returncode == 0, known.stderr
    assert "labels that the run does not have 0\n" in known.stderr
    again = command("-m", "tfmm.evaluate", run, "--split", "later")
    assert again.returncode == 0, again.stderr


def test_hiding_towers_never_hides_the_last_one():
    inputs = {
        name: {
            "features": np.ones((500, 2), np.float32),
            "logits": np.ones((500, 3), np.float32),
            "present": present,
        }
        for name, present in (
            ("a", np.ones(500, bool)),
            ("b", np.arange(500) % 2 == 0),
        )
    }
    hidden = head_data.hide_towers(inputs, 0.6, (0, 1), [0, 1])
    present = np.stack([x["present"] for x in hidden.values()])
    assert present.any(axis=0).all()
    assert not present[1, 1::2].any()
    assert 0.1 < 1 - present[0].mean() < 0.6
    np.testing.assert_array_equal(hidden["a"]["logits"][:, 0], present[0])
    again = head_data.hide_towers(inputs, 0.6, (0, 1), [0, 1])
    np.testing.assert_array_equal(again["a"]["present"], present[0])


def test_towers_of_one_modality_are_hidden_together():
    present = np.ones((2_000, 3), bool)
    present[:200, 1] = present[200:400, 2] = False
    kept = keep_some(present, 0.4, (0,), units_of(["title", "title", "image"]))
    assert kept.any(axis=1).all()
    assert not (kept & ~present).any()
    np.testing.assert_array_equal(kept[400:, 0], kept[400:, 1])
    # 0.4, less half of the 0.16 where both modalities would be hidden.
    assert 1 - kept[400:, 0].mean() == pytest.approx(0.32, abs=0.04)
    assert 1 - kept[400:, 2].mean() == pytest.approx(0.32, abs=0.04)
    alone = keep_some(present[200:400], 0.9, (0,), [0, 0, 1])
    assert alone[:, :2].all()
    assert not alone[:, 2].any()


def test_heads_may_be_fitted_on_validation(fitted, catalog_file, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    place = Run(run)
    file = tmp_path / "x.toml"
    file.write_text(place.experiment_file.read_text())
    settings = experiment.load(file, ["heads.policy.fit_on=validation"])
    products = audit.audit(settings, catalog_file, None)
    stages.fit_head(place, settings, products, "policy")
    assert results.read_outputs(place, settings, "policy", "test").logits.shape[1] == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (
            "towers.image",
            '{ model = "resnet50", modality = "image", weights = "nowhere.h5" }',
        ),
        ("towers.title.embedding", "nowhere.vec"),
        (
            "towers.title",
            '{ model = "transformer", modality = "title", preset = "bert_tyni_en" }',
        ),
    ],
)
def test_a_file_that_is_not_there_stops_before_any_work(
    tmp_path, experiment_file, catalog_file, key, value
):
    done = fit(
        *(experiment_file, "--catalog", catalog_file, "--run", tmp_path / "run"),
        *("--set", f"{key}={value}"),
    )
    assert done.returncode == 2
    name = key.split(".")[1]
    assert re.search(
        rf"\[towers\.{name}\] (weights|embedding|preset): expected", done.stderr
    )
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_another_label_column_is_another_catalog(
    fitted, tmp_path, catalog_file, experiment_file
):
    place = experiment.load(experiment_file)
    swapped = tmp_path / "swapped.csv"
    lines = catalog_file.read_text().splitlines()
    swapped.write_text(
        "\n".join([*lines[:2], lines[2].replace("table", "rug"), *lines[3:]])
    )
    first, second = (catalog.load(path, place) for path in (catalog_file, swapped))
    assert first.label_names == second.label_names
    assert first.fingerprint() != second.fingerprint()


def test_validation_is_cut_between_groups(fitted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    place = Run(run)
    groups = np.arange(100) // 4
    outputs.write_targets(place.outputs, "validation", np.ones((100, 4)), "")
    outputs.write_groups(place.outputs, "validation", groups)
    rows, rest = answers.cut_validation(place, place.read_experiment())
    assert len(rows) + len(rest) == 100
    assert 60 <= len(rows) <= 72
    assert not set(groups[rows]) & set(groups[rest])


def test_a_lost_or_damaged_model_is_fitted_again(fitted, tmp_path, catalog_file):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    (run / "models" / "title" / "model.keras").unlink()
    (run / "models" / "policy" / "model.keras").write_bytes(b"damaged")
    done = fit(
        *(run / "experiment.toml", "--catalog", catalog_file, "--run", run, "--resume")
    )
    assert done.returncode == 0, done.stderr
    assert "title/model.keras is lost or damaged" in done.stderr
    assert "image: epoch" not in done.stderr
    assert numbers(run) == numbers(fitted)


def test_truncated_labels_are_refused(fitted, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(fitted, run)
    for content, message in (("la", "truncated"), ("a\nb\n", "holds 2 labels")):
        (run / "catalog" / "labels.txt").write_text(content)
        with pytest.raises(RunError, match=message):
            results.prior_logits(Run(run), Run(run).read_experiment())
