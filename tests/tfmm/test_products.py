import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from tfmm import products, results
from tfmm.errors import RunError
from tfmm.run import Run


@pytest.mark.parametrize("split", ["train", "fusion", "validation", "test"])
def test_products_are_those_of_the_outputs_in_their_order(fitted, split):
    run = Run(fitted)
    found = products.read(run, split)
    stored = results.read_outputs(run, run.read_experiment(), "title", split)
    assert found.ids.tolist() == stored.ids.tolist()
    assert set(found.split) == {split}
    present = [bool(text) for text in found.texts["title"]]
    assert present == stored.present.tolist()


def test_products_look_as_in_the_catalog(fitted, catalog_file):
    run = Run(fitted)
    parts = [products.read(run, x) for x in ("train", "fusion", "validation", "test")]
    looks = {
        product: (part.texts["title"][row], part.images["image"][row], part.labels[row])
        for part in parts
        for row, product in enumerate(part.ids)
    }
    names = run.read_labels()
    text, image, labels = looks["P4"]
    assert text == "oak wood no 0"
    assert image == str(catalog_file.parent / "images" / "4.jpg")
    assert [names[x] for x in labels] == ["new", "table"]
    assert looks["P3"][1] == looks["P5"][1] == ""
    assert looks["P7"][0] == ""
    assert len(looks) == 48


def test_out_of_fold_products_are_those_of_train(fitted):
    found = products.read(Run(fitted), "train_oof")
    assert found.ids.tolist() == products.read(Run(fitted), "train").ids.tolist()


def test_a_take_keeps_rows_together(fitted):
    whole = products.read(Run(fitted), "test")
    part = whole.take(np.array([2, 0]))
    assert len(part) == 2
    assert part.texts["title"].tolist() == whole.texts["title"][[2, 0]].tolist()
    assert part.labels[1].tolist() == whole.labels[0].tolist()


@pytest.fixture
def own(fitted, tmp_path):
    """A copy of what is read, to be damaged."""
    shutil.copytree(fitted / "catalog", tmp_path / "catalog")
    for name in ("run.json", "experiment.toml"):
        shutil.copy(fitted / name, tmp_path)
    return Run(tmp_path)


def test_missing_products_say_what_makes_them(own):
    own.products_file().unlink()
    with pytest.raises(RunError, match=r"parquet: no such file; .*--only audit"):
        products.read(own, "test")


def test_truncated_products_are_damaged(own):
    data = own.products_file().read_bytes()
    own.products_file().write_bytes(data[:-20])
    with pytest.raises(RunError, match=r"products\.parquet: damaged: "):
        products.read(own, "test")


def test_a_foreign_table_is_damaged(own):
    table = pq.read_table(own.products_file()).replace_schema_metadata(None)
    pq.write_table(table, own.products_file())
    with pytest.raises(RunError, match=r"products\.parquet: damaged: "):
        products.read(own, "test")


def test_products_of_another_catalog_are_stale(own):
    info = json.loads(own.info_file.read_text())
    info["catalog"]["fingerprint"] = "another"
    own.info_file.write_text(json.dumps(info))
    with pytest.raises(RunError, match=r"products\.parquet: stale"):
        products.read(own, "test")
