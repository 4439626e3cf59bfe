import csv
import runpy
from pathlib import Path

import numpy as np
import pytest
from commands import command
from tiny import EXPERIMENT

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("lamp", "rug", "table", "shelf")


def tool(name):
    return runpy.run_path(str(ROOT / "tools" / name))


def write_table(folder, labels):
    path = folder / "catalog.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "image", "labels"])
        writer.writerows([f"P{x}", f'a "{x}", ', "", y] for x, y in enumerate(labels))
    return path


def flip(folder, labels, *overrides, rate=0.1, seed=0):
    """Rows of the catalog before and after, and of the key."""
    table = write_table(folder, labels)
    hparams = folder / "e.toml"
    hparams.write_text(EXPERIMENT, encoding="utf-8")
    to, key = folder / "flipped.csv", folder / "flips.csv"
    sets = ["catalog.max_unlabelled_rate=0.5", *overrides]
    tool("flip_labels.py")["flip_labels"](hparams, table, to, key, rate, seed, sets)

    def rows(path):
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    return rows(table), rows(to), rows(key)


def test_a_single_label_becomes_another(tmp_path):
    labels = [KINDS[x % 4] for x in range(100)]
    before, after, key = flip(tmp_path, labels, "catalog.task=single_label")
    changed = {row["id"]: row for row in key}
    assert len(changed) == len(key) == 10
    for old, new in zip(before, after, strict=True):
        if old["id"] in changed:
            flip_ = changed[old["id"]]
            assert (old["labels"], new["labels"]) == (flip_["was"], flip_["is"])
            assert new["labels"] in set(KINDS) - {old["labels"]}
            assert {**old, "labels": ""} == {**new, "labels": ""}
        else:
            assert old == new


def test_one_of_several_labels_becomes_one_that_the_product_lacks(tmp_path):
    labels = [f"{KINDS[x % 4]}|{KINDS[(x + 1) % 4]}" for x in range(100)]
    before, after, key = flip(tmp_path, labels)
    changed = {row["id"]: row for row in key}
    assert len(changed) == 10
    for old, new in zip(before, after, strict=True):
        was, now = set(old["labels"].split("|")), set(new["labels"].split("|"))
        assert len(now) == 2
        assert (was != now) == (old["id"] in changed)
        if was != now:
            flip_ = changed[old["id"]]
            assert (was - now, now - was) == ({flip_["was"]}, {flip_["is"]})


def test_lists_stay_lists(tmp_path):
    labels = ['["lamp", "rug"]', '["table"]'] * 10
    before, after, key = flip(tmp_path, labels, "catalog.label_separator=json")
    changed = {row["id"] for row in key}
    assert len(changed) == 2
    different = {
        old["id"] for old, new in zip(before, after, strict=True) if old != new
    }
    assert different == changed
    assert all(row["labels"].startswith("[") for row in after)


def test_products_and_labels_that_do_not_count_are_left_alone(tmp_path):
    labels = ["lamp", "rug"] * 20 + ["rare", ""]
    _, after, key = flip(
        tmp_path,
        labels,
        *("catalog.task=single_label", "catalog.min_products_per_label=2"),
        rate=0.5,
    )
    assert [row["labels"] for row in after[-2:]] == ["rare", ""]
    assert {row["is"] for row in key} == {"lamp", "rug"}
    assert len(key) == 20


def test_the_same_seed_draws_the_same(tmp_path):
    labels = [KINDS[x % 4] for x in range(60)]
    first, again, other = (
        flip(tmp_path, labels, "catalog.task=single_label", seed=seed)[2]
        for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rate", "1.5"), "--rate: expected a share above 0 and below 1"),
        (("--to", "flipped.tsv"), "expected a file ending in .csv"),
        (("--set", "catalog.hierarchy=consistent"), "hierarchy = 'consistent'"),
    ],
)
def test_wrong_wishes_are_one_line(tmp_path, words, message):
    table = write_table(tmp_path, ["lamp", "rug"] * 5)
    hparams = tmp_path / "e.toml"
    hparams.write_text(EXPERIMENT, encoding="utf-8")
    to, key = tmp_path / "flipped.csv", tmp_path / "flips.csv"
    files = ("--catalog", table, "--to", to, "--key", key)
    done = command("tools/flip_labels.py", hparams, *files, *words, cwd=ROOT)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not to.exists()


def test_a_ranking_is_measured_by_hand():
    measured = tool("flips_found.py")["measured"]
    flipped = np.zeros(200, bool)
    flipped[[0, 1, 150]] = True
    suspicion = -np.arange(200.0)
    precision, average = measured(flipped, suspicion)
    assert precision == pytest.approx(0.02)
    assert average == pytest.approx((1 + 1 + 3 / 151) / 3)


def test_the_key_is_read_or_refused(tmp_path):
    found = tool("flips_found.py")
    path = tmp_path / "flips.csv"
    path.write_text("id,was,is\nP1,lamp,rug\n", encoding="utf-8")
    assert found["read_key"](path) == {"P1": ("lamp", "rug")}
    path.write_text("id,label\nP1,lamp\n", encoding="utf-8")
    with pytest.raises(found["CatalogError"], match="expected the key"):
        found["read_key"](path)


def test_a_run_is_measured_against_a_key(fitted, tmp_path):
    key = tmp_path / "flips.csv"
    key.write_text("id,was,is\nP0,lamp,rug\nP1,rug,lamp\n", encoding="utf-8")
    done = command("tools/flips_found.py", fitted, "--key", key, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "products judged" in done.stdout
    assert "the report's" in done.stdout
    assert "cleanlab: self_confidence" in done.stdout
