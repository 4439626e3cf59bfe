import csv
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import command

from tfmm import outputs, results
from tfmm.run import Run


def predict(model, catalog, to, *words):
    return command(
        "-m", "tfmm.predict", model, "--catalog", catalog, "--to", to, *words
    )


def read(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def predicted(fitted, catalog_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("predicted") / "out.csv"
    done = predict(fitted, catalog_file, path)
    assert done.returncode == 0, done.stderr
    return read(path), done.stderr


def test_every_product_is_answered_in_order(predicted):
    rows, _ = predicted
    assert [row["id"] for row in rows] == [f"P{i}" for i in range(48)]
    for row in rows:
        assert float(row["score_1"]) >= float(row["score_2"])


def test_scores_are_those_of_the_outputs_store(fitted, predicted):
    rows = {row["id"]: row for row in predicted[0]}
    place = Run(fitted)
    settings = place.read_experiment()
    labels = place.read_labels()
    for split in ("train", "fusion", "validation", "test"):
        said, _ = results.read_probabilities(place, settings, "policy", split)
        ids = results.read_outputs(place, settings, "policy", split).ids
        for product, p in zip(ids, said, strict=True):
            row = rows[str(product)]
            assert abs(float(row["score_1"]) - p.max()) < 1e-5
            assert abs(p[labels.index(row["label_1"])] - p.max()) < 1e-5


def test_a_bad_row_is_answered_and_told(predicted):
    rows, log = predicted
    problems = {row["id"]: row["problem"] for row in rows if row["problem"]}
    assert problems == {"P3": "image: not an image"}
    assert "48 products, 1 with a problem" in log
    assert "1 x image: not an image" in log


def test_a_saved_model_predicts_the_same(bundle, catalog_file, predicted, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(bundle, moved)
    done = predict(moved, catalog_file, tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    for ours, theirs in zip(read(tmp_path / "out.csv"), predicted[0], strict=True):
        assert ours["problem"] == theirs["problem"]
        for key in ("score_1", "score_2"):
            assert abs(float(ours[key]) - float(theirs[key])) < 1e-5


def test_parquet_holds_the_same_as_csv(fitted, catalog_file, predicted, tmp_path):
    done = predict(fitted, catalog_file, tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["label_1"] for row in table] == [row["label_1"] for row in predicted[0]]
    assert isinstance(table[0]["assigned_1"], bool)


def test_nothing_to_go_by_gives_the_label_shares_and_assigns_nothing(fitted, tmp_path):
    bare = tmp_path / "bare.csv"
    bare.write_text("id,title,image\nA, ,\nB,oak,gone.jpg\n,oak,\n")
    done = predict(fitted, bare, tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    first, second, third = read(tmp_path / "out.csv")
    assert first["problem"] == "nothing to go by: every modality is missing"
    assert first["assigned_1"] == "False"
    assert second["problem"] == "image: cannot be read: No such file or directory"
    assert third["problem"] == "no id"
    targets, _ = outputs.read_targets(Run(fitted).outputs, "train")
    shares = np.sort(targets.mean(axis=0))[::-1]
    np.testing.assert_allclose(float(first["score_1"]), shares[0], atol=1e-5)


def test_what_cannot_be_predicted_is_one_line_and_leaves_nothing(
    fitted, catalog_file, tmp_path
):
    bare = tmp_path / "bare.csv"
    bare.write_text("id,titel,image\nA,x,\n")
    cases = {
        "no column 'title'; did you mean 'titel'": (fitted, bare, "o.csv"),
        "expected a name ending in": (fitted, catalog_file, "o.xlsx"),
        "would replace the catalog": (fitted, catalog_file, catalog_file),
        "no such catalog file": (fitted, tmp_path / "none.csv", "o.csv"),
        "no such run or SavedModel": (tmp_path / "none", catalog_file, "o.csv"),
        "neither a run nor a SavedModel": (tmp_path, catalog_file, "o.csv"),
    }
    for message, (model, catalog, to) in cases.items():
        done = predict(model, catalog, tmp_path / to)
        assert done.returncode == 2, message
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert to == catalog_file or not (tmp_path / to).exists()
