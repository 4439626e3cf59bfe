"""The reference statistics are what a log of the same products would tell."""

import csv
import json
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from export import verify
from export.failure import Failure
from export.reference import reference
from export.stored import stored_answers
from export.vocabulary import Vocabulary, cleaning
from serving.drift import words
from serving.drift.reference import read_reference
from serving.drift.request_log import Given, Product
from serving.drift.tally import Tally
from tfmm import classifier
from tfmm import text as tfmm_text
from tfmm.errors import RunError
from tfmm.layers.ngram_ids import NgramIds
from tfmm.run import Run
from tfmm.selective import Rule
from tfmm.text import Removal, WordIds


@pytest.fixture(scope="module")
def catalog(catalog_file):
    """Every product of the catalog as a client would send it, by its id."""
    with catalog_file.open(encoding="utf-8", newline="") as file:
        return {
            row["id"]: {
                "title": row["title"],
                "image": (catalog_file.parent / row["image"]).read_bytes()
                if row["image"]
                else b"",
            }
            for row in csv.DictReader(file)
        }


@pytest.fixture(scope="module")
def test_ids(fitted):
    with Run(fitted).splits_file.open(encoding="utf-8", newline="") as file:
        return [x["id"] for x in csv.DictReader(file) if x["split"] == "test"]


def answered(answer, sent):
    """The lines of a log that a client would write of these products."""
    batch = {k: tf.constant([x[k] for x in sent]) for k in ("title", "image")}
    said = {key: value.numpy() for key, value in answer(batch).items()}
    return [
        Product(
            {
                "title": Given(bool(x["title"]), len(x["title"]) or None)
                if not x["title"]
                else Given(True, len(x["title"]), None, x["title"]),
                "image": Given(bool(x["image"]), None, len(x["image"]) or None),
            },
            said["labels"][row, 0].decode(),
            float(said["scores"][row, 0]),
            bool(said["assigned"][row, 0]),
            tuple(status.decode() for status in said["image_status"][row]),
        )
        for row, x in enumerate(sent)
    ]


def tallied(found, products):
    tally = Tally(found)
    tally.add(products)
    return tally


def test_a_bundle_counts_as_its_log_would(bundle, catalog, test_ids):
    found = read_reference(bundle)
    serve = tf.saved_model.load(str(bundle))
    answer = serve.signatures["serving_default"]
    logged = dict(
        zip(
            catalog,
            answered(lambda x: answer(**x), list(catalog.values())),
            strict=True,
        )
    )
    whole = tallied(found, list(logged.values()))
    test = tallied(found, [logged[x] for x in test_ids])
    assert len(test_ids) >= 5
    for key, measure in found.measures.items():
        expected = whole if measure.of == "catalog" else test
        assert tuple(expected.counts[key]) == measure.counts, key
        if measure.mean is not None:
            assert expected.mean(key) == pytest.approx(measure.mean, abs=1e-6), key
    key = "title.unknown_words.title"
    assert test.unknown_share(key) == found.measures[key].share
    assert found.measures["title.present"].counts == (47, 1)
    # One has none; one is no picture, and a client sends it all the same.
    assert found.measures["image.present"].counts == (47, 1)
    assert found.products == {
        **{"catalog": 48, "test": len(test_ids), "texts": len(test_ids)}
    }
    assert found.label_shares["lamp"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_a_rule_that_skips_images_is_counted_too(threshold, fitted, catalog, test_ids):
    run = Run(fitted)
    labels = run.read_labels()
    rule = Rule((threshold,) * len(labels), 0.5, 0.0, 0.0, 1)
    model = classifier.load(run, "policy", rule)
    stored = stored_answers(run, model)
    content = reference(run, model, stored).content
    by_name = {(x["modality"], x["name"]): x for x in content["measures"]}
    logged = answered(model.answer, [catalog[x] for x in test_ids])
    status = by_name["image", "status"]
    said = [x.image_status[0] for x in logged if x.inputs["image"].present]
    assert status["counts"] == [said.count(x) for x in status["values"]]
    # A product without a title is always looked at.
    assert {"used", "skipped"} <= set(said)
    first = [x.label for x in logged]
    assert by_name[None, "label"]["counts"] == [first.count(x) for x in labels]
    given = sum(x.assigned for x in logged)
    assert by_name[None, "assigned"]["counts"] == [given, len(logged) - given]
    scores = np.mean([x.score for x in logged])
    assert by_name[None, "score"]["mean"] == pytest.approx(scores, abs=1e-5)


def test_a_bad_image_that_is_looked_at_keeps_its_reason(fitted):
    run = Run(fitted)
    model = classifier.load(run, "policy")
    stored = stored_answers(run, model)
    # Product 3, whichever split it fell into, as if it were the only test product.
    alone = replace(stored, ids=np.array(["P3"]), sure=np.array([False]))
    measures = reference(run, model, alone).content["measures"]
    [status] = [x for x in measures if x["name"] == "status"]
    told = dict(zip(status["values"], status["counts"], strict=True))
    assert told == {
        **{"used": 0, "not an image": 1, "too large": 0, "corrupt": 0, "skipped": 0}
    }


def test_an_older_run_says_how_to_go_on(fitted, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(fitted, copy)
    run = Run(copy)
    model = classifier.load(run, "product")
    stored = stored_answers(run, model)
    for file in (run.test_texts_file, run.sizes_file):
        file.unlink()
        with pytest.raises(RunError, match=r"no such file.*") as caught:
            reference(run, model, stored)
        assert str(file) in str(caught.value)
    run.sizes_file.write_text("id,split,title,image\nP0,test,x,3\n")
    with pytest.raises(RunError, match="damaged"):
        reference(run, model, stored)


def test_verify_needs_a_reference_that_fits(bundle, tmp_path):
    golden, images = verify._read_golden(bundle)
    assert "measures of 48 products, 1 vocabularies" in verify.check_reference(
        bundle, golden, images
    )
    copy = tmp_path / "1"
    shutil.copytree(bundle, copy)
    file = copy / "assets.extra" / "reference.json"
    content = json.loads(file.read_text())
    content["measures"] = [x for x in content["measures"] if x["modality"] != "title"]
    content["vocabularies"] = {}
    file.write_text(json.dumps(content))
    with pytest.raises(Failure, match="do not fit the inputs"):
        verify.check_reference(copy, golden, images)
    labels = copy / "assets" / "labels.txt"
    labels.write_text(labels.read_text().replace("lamp", "lamb"))
    with pytest.raises(Failure, match="labels are not those of"):
        verify.check_reference(copy, golden, images)
    file.unlink()
    with pytest.raises(Failure, match="no such file"):
        verify.check_reference(copy, golden, images)


# -------------------------------------------------------------------------- words

CHARACTERS = [
    chr(code)
    for code in range(1, 0x110000)
    # Python's tables are older than TensorFlow's: what they lack is not compared.
    if unicodedata.category(chr(code)) not in ("Cn", "Cs")
]
RULES = words.Cleaning.read(cleaning())
HOSTILE = [
    "",
    "Ｒｅｄ &amp; BLUE <br/>L&#39;&eacute;t&eacute; &#xE9; &#233; &ccedil;a",
    "&foo; 3 < 4",
    "don't — “stop”  a/b a-b\u00ad\u200bc 12,5\u20ac 50% x\u0301\u0327 e\u0301",
    "🙂👍🏽 ❤\ufe0f ☕ ™ ① ½ ﬁ ß ẞ İ ı Ω K Å ǅ ΐ",
    "漢字かな ｶﾞ 한국어 עברית العربية हिन्दी ไทย",
    "A4 mp3 12 3\u0301x 42nd ²³ Ⅷ the THE and supercalifragilistic",
    "\x00\x1f\x85\u2028\u3000tab\tnew\nline<p class='x'>text</p><>< a>",
]


def graph_split(texts, removal):
    found = tfmm_text.split_words(tf.constant(texts, tf.string), removal)
    return [[word.decode() for word in row] for row in found.to_list()]


def vocabulary_of(layer, unknown):
    known = tuple(layer.vocabulary)
    most = getattr(layer, "max_words", None)
    removal = getattr(layer, "removal", Removal())
    return Vocabulary("cnn", "title", known, most, removal, layer.table, unknown)


@pytest.mark.parametrize("keep_punctuation", [False, True])
def test_python_cleans_every_character_as_the_graph(keep_punctuation):
    removal = Removal(punctuation=not keep_punctuation)
    some = [f"a{character}b " for character in CHARACTERS]
    texts = ["".join(some[start : start + 50]) for start in range(0, len(some), 50)]
    assert [RULES.split(x, keep_punctuation) for x in texts] == graph_split(
        texts, removal
    )


@pytest.mark.parametrize("keep_punctuation", [False, True])
def test_python_cleans_hostile_and_random_texts_as_the_graph(keep_punctuation):
    random = np.random.default_rng(0)
    some = "".join(CHARACTERS[:3_000]) + "&#;<>/ aé\u0301\u0327" * 40
    drawn = ["".join(random.choice(list(some), 60)) for _ in range(300)]
    texts = HOSTILE + drawn
    removal = Removal(punctuation=not keep_punctuation)
    assert [RULES.split(x, keep_punctuation) for x in texts] == graph_split(
        texts, removal
    )


REMOVALS = (
    Removal(),
    Removal(punctuation=False),
    Removal(True, True, 5, ("a", "the", "and", "x")),
)


@pytest.mark.parametrize("removal", REMOVALS, ids=str)
def test_python_counts_unknown_words_as_the_graph(removal, tmp_path):
    known = ["red", "blue", "mp", "3", "été", "stop", ",", "🙂", "nd"]
    layers = [(WordIds(known, 6, removal), 1)]
    if removal == Removal():
        layers.append((NgramIds(known, 10), 0))
    for layer, unknown in layers:
        graph = vocabulary_of(layer, unknown)
        about = graph.about()
        plain = words.Vocabulary(
            modality=about["modality"],
            words=frozenset(known),
            max_words=about["max_words"],
            punctuation=about["punctuation"],
            digits=about["digits"],
            max_word_characters=about["max_word_characters"],
            stop_words=frozenset(about["stop_words"]),
        )
        counts = [plain.count(x, RULES) for x in HOSTILE]
        assert counts == list(
            zip(*(x.tolist() for x in graph.count(HOSTILE)), strict=True)
        )
        assert any(unknown for _, unknown in counts)
        assert any(unknown < read for read, unknown in counts)


def test_a_vocabulary_is_written_once_a_tower(bundle, fitted):
    file = Path(bundle) / "assets.extra" / "vocabularies" / "title.txt"
    model = classifier.load(Run(fitted), "policy")
    layers = [
        layer
        for network in model.networks.values()
        for layer in network.model._flatten_layers()
        if isinstance(layer, WordIds)
    ]
    [layer] = layers
    assert file.read_text(encoding="utf-8").split("\n")[:-1] == layer.vocabulary
    assert [x.name for x in file.parent.iterdir()] == ["title.txt"]
