"""The sample catalog: drawn, dirty, and made so that fusion is worth its while."""

import csv
import doctest
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import command
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tfmm import audit, experiment

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

import sample_catalog
import sample_pictures
import sample_words

TOOL = Path(sample_catalog.__file__)

EXPERIMENT = """
[catalog]
task = "multi_label"
[modalities.title]
kind = "text"
columns = ["title"]
[modalities.image]
kind = "image"
columns = ["image"]
[towers.title]
model = "text_cnn"
modality = "title"
"""


def run(*words):
    return command(TOOL, *words)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The default catalog, by the command, and what the command said."""
    folder = tmp_path_factory.mktemp("sample") / "new" / "catalog"
    done = run("--to", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def folder(written):
    return written[0]


@pytest.fixture(scope="module")
def rows(folder):
    with open(folder / "catalog.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def audited(folder, tmp_path_factory):
    """The catalog as tfmm sees it, with default limits."""
    hparams = tmp_path_factory.mktemp("hparams") / "sample.toml"
    hparams.write_text(EXPERIMENT, encoding="utf-8")
    return audit.audit(experiment.load(hparams), folder / "catalog.csv", None)


def unreadable(folder, rows):
    """Products whose image is named and cannot be opened by Pillow."""
    bad = []
    for row in rows:
        if row["image"]:
            try:
                with Image.open(folder / row["image"]) as picture:
                    picture.load()
            except OSError:
                bad.append(row)
    return bad


def test_one_line_says_what_was_written(written):
    folder, said = written
    files = len(list((folder / "images").iterdir()))
    assert said == (
        f"{folder / 'catalog.csv'}: 600 products, 17 labels, {files} image files, "
        "seed 0\n"
    )


def test_nothing_unfinished_is_left_behind(folder):
    assert [path.name for path in folder.parent.iterdir()] == ["catalog"]
    assert sorted(path.name for path in folder.iterdir()) == ["catalog.csv", "images"]


def test_each_product_has_one_kind_and_one_or_two_rooms(rows):
    labels = [row["labels"].split("|") for row in rows if row["labels"]]
    assert len({row["id"] for row in rows}) == len(rows) == 600
    assert {sum(x.startswith("kind:") for x in product) for product in labels} == {1}
    assert {sum(x.startswith("room:") for x in product) for product in labels} == {1, 2}
    counts = Counter(label for product in labels for label in product)
    assert len(counts) == 12 + 5
    assert min(counts.values()) >= 20


def test_dirt_is_there_at_the_stated_rates(rows, folder):
    titles = Counter(row["title"] for row in rows)
    assert sum(not row["description"] for row in rows) == 54
    assert sum(not row["image"] for row in rows) == 24
    assert sum(not row["labels"] for row in rows) == 1
    assert sorted(titles.values())[-2:] == [1, 2]
    assert "" not in titles
    absent = [r for r in rows if r["image"] and not (folder / r["image"]).exists()]
    assert len(absent) == 1
    assert len(unreadable(folder, rows)) == 2


def test_texts_have_accents_emoji_and_entities(rows):
    text = "\n".join(row["title"] + row["description"] for row in rows)
    for piece in ("é", "ö", "ß", "å", "✨", "&amp;", "&eacute;", "&#39;"):
        assert piece in text


def test_twins_in_title_are_different_products(rows):
    titles = Counter(row["title"] for row in rows)
    first, second = [row for row in rows if titles[row["title"]] == 2]
    assert first["labels"] != second["labels"]
    assert not first["group"] or first["group"] != second["group"]


def test_every_image_format_is_there(rows, folder):
    found = Counter()
    bad = {row["id"] for row in unreadable(folder, rows)}
    for row in rows:
        if row["image"] and row["id"] not in bad:
            with Image.open(folder / row["image"]) as picture:
                assert picture.size == (160, 160)
                found[picture.format, picture.mode] += 1
    assert set(found) == {
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("PNG", mode) for mode in ("RGB", "P", "RGBA")),
        *(("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGB")),
    }
    assert found["JPEG", "RGB"] > 500
    assert found["PNG", "RGB"] > 10


def test_tfmm_reads_all_but_the_two_bad_images(audited, rows, folder):
    bad = {row["id"] for row in unreadable(folder, rows)}
    assert {image.id for image in audited.bad_images} == bad
    assert list(audited.left_out.values()) == ["no label"]
    assert len(audited.label_names) == 17


def test_variants_share_their_design_and_a_split(rows, audited):
    groups = {}
    for row, split in zip(rows, audited.split, strict=True):
        if row["group"] and row["labels"]:
            groups.setdefault(row["group"], []).append((row, split))
    groups = [group for group in groups.values() if len(group) > 1]
    assert len(groups) > 10
    for group in groups:
        assert len({row["labels"] for row, _ in group}) == 1
        assert len({split for _, split in group}) == 1
        assert len({row["title"] for row, _ in group}) == len(group)


def test_same_seed_same_bytes_and_other_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert (
            run("--to", tmp_path / name, "--products", 60, "--seed", seed).stderr == ""
        )
    first, again, other = (
        {
            str(path.relative_to(tmp_path / name)): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
        }
        for name in "abc"
    )
    assert first == again
    assert first["catalog.csv"] != other["catalog.csv"]


def pixels(product, seed):
    return np.asarray(sample_pictures.draw(product, seed), int)


def test_from_behind_the_families_look_alike_and_the_forms_do_not():
    product = sample_catalog.invent_products(60, seed=0)[0]
    alike = 0
    for seed in range(40):
        lamp, clock, fan = (
            pixels(replace(product, family=family), seed)
            for family in sample_words.FAMILIES
        )
        assert np.array_equal(lamp, clock) == np.array_equal(lamp, fan)
        alike += np.array_equal(lamp, clock)
        forms = [
            pixels(replace(product, form=form), seed) for form in sample_words.FORMS
        ]
        for index, form in enumerate(forms):
            for other in forms[:index]:
                assert np.mean(np.abs(form - other).max(axis=2) > 40) > 0.05
    # 40 % of the pictures are from behind.
    assert 8 <= alike <= 24


def test_rooms_are_in_the_colours_of_the_wall_but_for_cut_outs():
    product = sample_catalog.invent_products(60, seed=0)[0]
    kitchen, bath = replace(product, rooms=("kitchen",)), ("kitchen", "bathroom")
    white = 0
    for seed in range(40):
        alone = pixels(kitchen, seed)
        shared = pixels(replace(kitchen, rooms=bath), seed)
        assert np.array_equal(alone[2, 2], shared[2, 2])
        cut_out = alone[2, 2].min() > 240
        white += cut_out
        if not cut_out:
            assert not np.allclose(alone[84, 2], shared[84, 2], atol=60)
    assert 2 <= white <= 16


def test_texts_alone_cannot_tell_kinds_apart_and_with_the_form_they_can():
    products = [
        product
        for product in sample_catalog.invent_products(600, seed=0)
        if product.labelled
    ]
    texts = [f"{product.title} {product.description}" for product in products]
    kinds = np.array([product.labels[0] for product in products])
    families = np.array([product.family for product in products])
    forms = np.array([product.form for product in products])
    seen = np.arange(len(products)) < 450

    def accuracy(target):
        vectorizer = TfidfVectorizer(sublinear_tf=True)
        seen_texts = [text for text, here in zip(texts, seen, strict=True) if here]
        other_texts = [text for text, here in zip(texts, seen, strict=True) if not here]
        model = LogisticRegression(C=10.0, max_iter=1000)
        model.fit(vectorizer.fit_transform(seen_texts), target[seen])
        said = model.predict(vectorizer.transform(other_texts))
        return said, np.mean(said == target[~seen])

    _, text_alone = accuracy(kinds)
    family, family_known = accuracy(families)
    # What a perfect eye for the form adds to the words.
    pairs = np.char.add(np.char.add(forms[~seen], " "), family)
    both = np.mean(np.char.add("kind:", pairs) == kinds[~seen])
    assert 0.40 < text_alone < 0.70
    assert family_known > 0.85
    assert both > text_alone + 0.20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--products", "59"], "--products: expected at least 60 products"),
        (["--products", "many"], "invalid int value: 'many'"),
        (["--sed", "1"], "unrecognized arguments: --sed 1"),
    ],
)
def test_wrong_words_give_one_line_and_status_2(tmp_path, words, message):
    done = run("--to", tmp_path / "new", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused_and_kept(tmp_path):
    (tmp_path / "mine").write_text("keep me")
    done = run("--to", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "tools/sample_catalog.py: --to: expected a new or empty folder. "
        f"Received: {tmp_path}\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_empty_folder_is_filled(tmp_path):
    target = tmp_path / "empty"
    target.mkdir()
    sample_catalog.main(["--to", str(target), "--products", "60"])
    assert sorted(os.listdir(target)) == ["catalog.csv", "images"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    def encode(picture, kind):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_catalog, "encode", encode)
    with pytest.raises(SystemExit) as stopped:
        sample_catalog.main(["--to", str(tmp_path / "new"), "--products", "60"])
    assert stopped.value.code == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", [sample_catalog, sample_pictures, sample_words])
def test_examples_in_docstrings_are_true(module):
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted >= 2
