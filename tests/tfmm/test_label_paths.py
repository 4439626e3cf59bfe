"""`hierarchy = "consistent"`, from the command to the exported bundle."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from commands import command
from tiny import write_catalog

from tfmm import audit, classifier, results
from tfmm.hierarchy import Hierarchy
from tfmm.run import Run

PATHS = {
    "lamp": "Home > Light > lamp",
    "table": "Home > table",
    "rug": "Home > Soft > rug",
    "new": "new",
}


@pytest.fixture(scope="module")
def catalog_of_paths(tmp_path_factory):
    path = write_catalog(tmp_path_factory.mktemp("paths"))
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for *rest, labels in rows:
            writer.writerow([*rest, "|".join(PATHS[x] for x in labels.split("|"))])
    return path


@pytest.fixture(scope="module")
def run(catalog_of_paths, experiment_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("of_paths") / "run"
    done = command(
        *("-m", "tfmm.fit", experiment_file, "--catalog", catalog_of_paths),
        *("--run", folder, "--set", "catalog.hierarchy=consistent"),
    )
    assert done.returncode == 0, done.stderr
    return Run(folder)


@pytest.fixture(scope="module")
def answer(run, catalog_of_paths):
    """What the live classifier says of the test products."""
    products = audit.audit(run.read_experiment(), catalog_of_paths, None)
    rows = products.rows("test")
    images = [
        tf.io.read_file(x).numpy() if x else b"" for x in products.images["image"][rows]
    ]
    raw = {
        "title": tf.constant([x.encode() for x in products.texts["title"][rows]]),
        "image": tf.constant(images),
    }
    model = classifier.load(run, "policy")
    model.top_k = len(model.label_names)
    return {key: value.numpy() for key, value in model.answer(raw).items()}


def parents(names):
    return Hierarchy(names, " > ").parents


def test_every_label_brings_those_above_it(run):
    names = run.read_labels()
    assert set(names) == {
        *("Home", "Home > Light", "Home > Light > lamp", "Home > table"),
        *("Home > Soft", "Home > Soft > rug", "new"),
    }
    report = json.loads((run.report("test") / "report.json").read_text())
    assert report["labels"] == 7


def test_stored_and_live_answers_are_the_same_and_consistent(run, answer):
    settings, names = run.read_experiment(), run.read_labels()
    stored, present = results.read_probabilities(run, settings, "policy", "test")
    np.testing.assert_allclose(answer["probabilities"], stored, atol=1e-6)
    given = results.assigned(run, settings, "policy", stored, present)
    for child, parent in enumerate(parents(names)):
        if parent >= 0:
            assert (stored[:, child] <= stored[:, parent]).all()
            assert not (given[:, child] & ~given[:, parent]).any()
    assert given.any()
    live = np.zeros_like(given)
    for row, labels in enumerate(answer["labels"]):
        for label, mark in zip(labels, answer["assigned"][row], strict=True):
            live[row, names.index(label.decode())] = mark
    np.testing.assert_array_equal(live, given)


def test_what_towers_say_of_a_child_alone_is_mended(run):
    settings, names = run.read_experiment(), run.read_labels()
    stored = results.read_outputs(run, settings, "image", "test")
    logits = results.calibrated(run, settings, "image", stored)["logits"]
    said = (1 / (1 + np.exp(-logits)))[stored.present]
    mended, _ = results.read_probabilities(run, settings, "image", "test")
    broken = [
        (said[:, child] > said[:, parent]).any()
        for child, parent in enumerate(parents(names))
        if parent >= 0
    ]
    assert any(broken), "the test would hold without any mending"
    assert np.abs(mended[stored.present] - said).max() > 1e-4


def test_the_bundle_answers_as_the_run(run, catalog_of_paths, tmp_path):
    models = tmp_path / "models"
    done = command("-m", "export", run.path, "--to", models)
    assert done.returncode == 0, done.stderr
    done = command("-m", "export.verify", models / "1")
    assert done.returncode == 0, done.stderr
    tables = []
    for number, source in enumerate((run.path, models / "1")):
        to = tmp_path / f"{number}.csv"
        done = command(
            *("-m", "tfmm.predict", source, "--catalog", catalog_of_paths, "--to", to)
        )
        assert done.returncode == 0, done.stderr
        tables.append(to.read_text())
    assert tables[0] == tables[1]


def test_labels_that_are_no_paths_are_refused(catalog_file, experiment_file, tmp_path):
    done = command(
        *("-m", "tfmm.fit", experiment_file, "--catalog", catalog_file),
        *("--run", tmp_path / "run", "--set", "catalog.hierarchy=consistent"),
    )
    assert done.returncode == 2
    assert "'labels': hierarchy = 'consistent' and no label has another above" in (
        done.stderr
    )
    assert not (tmp_path / "run").exists()
