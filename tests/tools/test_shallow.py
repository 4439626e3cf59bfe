"""The shallow bar: honest folds, hand-worked rules, and the whole way once."""

import doctest
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import command
from PIL import Image
from scipy.special import logit

from tfmm import metrics
from tfmm.catalog import Catalog
from tfmm.errors import TfmmError

pytest.importorskip("skimage")

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools" / "bench"))

import shallow
import shallow_models

TOOLS = Path(shallow.__file__).parents[1]

EXPERIMENT = """
seed = 0
[catalog]
task = "multi_label"
splits = { train = 0.6, fusion = 0.1, validation = 0.1, test = 0.2 }
[modalities.title]
kind = "text"
columns = ["title"]
[modalities.description]
kind = "text"
columns = ["description"]
[modalities.image]
kind = "image"
columns = ["image"]
[towers.title]
model = "text_cnn"
modality = "title"
"""


def small_catalog(path, task="single_label", num_products=40):
    """Products 0, 1, 2, ... of three labels in turn; every fourth has no text."""
    labels = np.arange(num_products) % 3
    words = np.array(["bright lamp", "oak table", "wool rug"], object)
    texts = words[labels]
    texts[::4] = ""
    split = np.array(["train", "train", "fusion", "validation", "test"])
    ids = np.array([f"P{row}" for row in range(num_products)], object)
    return Catalog(
        path=path,
        sha256="",
        task=task,
        ids=ids,
        texts={"title": texts},
        images={},
        label_names=("lamp", "rug", "table"),
        label_indices=tuple(np.array([label], np.int32) for label in labels),
        groups=ids,
        split=split[np.arange(num_products) % len(split)],
        left_out={},
    )


def test_out_of_fold_never_asks_a_model_that_saw_the_product():
    num_products = 20
    groups = np.repeat(np.arange(10), 2)
    calls = []

    def fit(inputs, targets):
        assert np.array_equal(targets, 10 * inputs)

        def predict(unseen):
            calls.append((set(inputs), set(unseen)))
            return np.stack([unseen, -unseen], axis=1)

        return predict

    rows = np.arange(num_products)
    logits = shallow_models.out_of_fold(fit, rows, 10 * rows, groups, seed=0)
    # Every product got its own answer, once.
    assert np.array_equal(logits, np.stack([rows, -rows], axis=1))
    assert sum(len(unseen) for _, unseen in calls) == num_products
    for seen, unseen in calls:
        assert not set(groups[list(seen)]) & set(groups[list(unseen)])


def test_rules_on_hand_worked_single_label_numbers():
    towers = np.array([[[0.6, 0.3, 0.1]], [[0.2, 0.7, 0.1]]])
    rules = {
        name: rule("single_label", towers)[0]
        for name, rule in shallow_models.RULES.items()
    }
    assert rules["max"] == pytest.approx([0.6, 0.7, 0.1])
    assert rules["mean"] == pytest.approx([0.4, 0.5, 0.1])
    # 0.12, 0.21 and 0.01, over their sum 0.34.
    assert rules["product"] == pytest.approx([12 / 34, 21 / 34, 1 / 34], abs=1e-6)


def test_rules_on_hand_worked_multi_label_numbers():
    towers = np.array([[[0.8, 0.5]], [[0.5, 0.25]]])
    rules = {
        name: rule("multi_label", towers)[0]
        for name, rule in shallow_models.RULES.items()
    }
    assert rules["max"] == pytest.approx([0.8, 0.5])
    assert rules["mean"] == pytest.approx([0.65, 0.375])
    # 0.8 * 0.5 against 0.2 * 0.5, and 0.5 * 0.25 against 0.5 * 0.75.
    assert rules["product"] == pytest.approx([0.8, 0.25], abs=1e-6)


def test_coupling_gives_back_probabilities_that_agree_with_all_pairs():
    wanted = np.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]])
    first, second = np.triu_indices(4, k=1)
    chances = wanted[:, first] / (wanted[:, first] + wanted[:, second])
    margins = logit(chances) / shallow_models.PAIR_STEEPNESS
    assert np.exp(shallow_models.couple(margins, 4)) == pytest.approx(wanted, abs=1e-6)


def test_coupling_of_two_labels_takes_a_positive_margin_for_the_second():
    probabilities = np.exp(shallow_models.couple(np.array([-1.0, 0.0, 1.0]), 2))
    assert probabilities.argmax(axis=1)[[0, 2]].tolist() == [0, 1]
    assert probabilities[1] == pytest.approx([0.5, 0.5])
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("name", ["logistic", "image"])
def test_a_label_without_products_is_never_chosen(task, name):
    labels = np.array([0, 2] * 10)
    inputs = np.eye(3)[labels] + np.random.default_rng(0).normal(0, 0.01, (20, 3))
    targets = labels
    if task == "multi_label":
        targets = metrics.one_hot(labels, 3).astype(np.float32)
    fits = {
        "logistic": shallow_models.fit_logistic(task, 3, strength=10.0),
        "image": shallow_models.fit_image(task, 3),
    }
    logits = fits[name](inputs, targets)(inputs)
    assert logits.shape == (20, 3)
    assert np.array_equal(logits.argmax(axis=1), labels)
    assert metrics.probabilities(task, logits)[:, 1].max() < 1e-5


def test_products_without_the_modality_get_the_label_shares(tmp_path):
    catalog = small_catalog(tmp_path / "catalog.csv")
    parts = {
        "fit": np.r_[catalog.rows("train"), catalog.rows("fusion")],
        "validation": catalog.rows("validation"),
        "test": catalog.rows("test"),
    }
    probabilities = shallow.fit_tower(
        "text",
        shallow_models.fit_text("single_label", 3),
        shallow_models.read_texts(catalog),
        catalog,
        parts,
        seed=0,
    )
    shares = np.bincount(catalog.targets(parts["fit"])) / len(parts["fit"])
    for part, rows in parts.items():
        missing = catalog.texts["title"][rows] == ""
        assert missing.any()
        assert probabilities[part][missing] == pytest.approx(
            np.tile(shares, (missing.sum(), 1)), abs=1e-6
        )
        said = probabilities[part][~missing].argmax(axis=1)
        assert np.array_equal(said, catalog.targets(rows)[~missing])


def test_too_few_products_with_a_modality_are_refused(tmp_path):
    catalog = small_catalog(tmp_path / "catalog.csv")
    catalog.texts["title"][:] = ""
    parts = {
        "fit": catalog.rows("train"),
        "validation": catalog.rows("validation"),
        "test": catalog.rows("test"),
    }
    with pytest.raises(TfmmError, match=r"text to train on .* Received: 0 and 0"):
        shallow.fit_tower(
            "text",
            shallow_models.fit_text("single_label", 3),
            shallow_models.read_texts(catalog),
            catalog,
            parts,
            seed=0,
        )


def test_a_tower_counts_the_groups_of_the_catalog_and_not_its_products(tmp_path):
    catalog = small_catalog(tmp_path / "catalog.csv")
    three = np.array([f"G{row % 3}" for row in range(len(catalog))], object)
    parts = {
        "fit": catalog.rows("train"),
        "validation": catalog.rows("validation"),
        "test": catalog.rows("test"),
    }
    with pytest.raises(TfmmError, match=r"at least 4 groups .* Received: 3 and"):
        shallow.fit_tower(
            "text",
            shallow_models.fit_text("single_label", 3),
            shallow_models.read_texts(catalog),
            replace(catalog, groups=three),
            parts,
            seed=0,
        )


def test_the_stack_reads_probabilities_and_presences():
    probabilities = np.array([[[0.1, 0.9]], [[0.3, 0.7]]])
    present = np.array([[True], [False]])
    read = shallow_models.stack_inputs(probabilities, present)
    assert read.tolist() == [[0.1, 0.9, 0.3, 0.7, 1.0, 0.0]]


def test_the_stack_learns_which_tower_to_believe():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)
    good = 0.8 * metrics.one_hot(labels, 3) + 0.2 / 3
    noise = generator.dirichlet(np.full(3, 0.2), 300)
    inputs = shallow_models.stack_inputs(
        np.stack([noise, good]), np.ones((2, 300), bool)
    )
    cuts = {"fit": slice(0, 200), "validation": slice(200, 250)}
    cuts["test"] = slice(250, 300)
    said = shallow_models.fit_stack(
        "single_label",
        3,
        {part: inputs[cut] for part, cut in cuts.items()},
        {part: labels[cut] for part, cut in cuts.items()},
    )
    assert np.array_equal(said["test"].argmax(axis=1), labels[cuts["test"]])
    assert sorted(said) == ["test", "validation"]


def test_oracle_share_and_paired_difference_on_hand_worked_numbers():
    # Right on: text 0 and 1; image 1 and 2; stack 0, 1 and 2; nobody on 3.
    targets = {"validation": np.zeros(4, int), "test": np.zeros(4, int)}
    right = {"text": [1, 1, 0, 0], "image": [0, 1, 1, 0], "stack": [1, 1, 1, 0]}
    said = {}
    for name, products in right.items():
        test = np.array([[0.9, 0.1] if x else [0.1, 0.9] for x in products])
        said[name] = {"validation": test, "test": test}
    report = shallow.numbers(
        "single_label", ["text", "image"], said, targets, np.arange(4), seed=0
    )
    assert report["models"]["text"]["top1"] == 0.5
    assert report["models"]["text"]["oracle_share"] is None
    assert report["oracle"]["top1"] == 0.75
    assert report["models"]["stack"]["oracle_share"] == 1.0
    difference = report["stack_minus_best_tower"]
    assert difference["top1"] == 0.25
    assert difference["low"] == 0.0
    assert 0.25 < difference["high"] <= 1.0


def test_features_have_the_stated_size_and_bad_files_none(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.jpg"
    Image.new("RGB", (30, 50), (200, 10, 10)).save(good)
    bad.write_bytes(b"\xff\xd8\xff\xe0 no picture")
    features = shallow_models.picture_features(str(good))
    assert features.shape == (shallow_models.NUM_FEATURES,)
    # One colour fills each of the four quarters.
    assert features[-4 * 128 :].sum() == 4.0
    assert shallow_models.picture_features(str(bad)) is None
    assert shallow_models.picture_features(str(tmp_path / "absent.jpg")) is None


def test_without_scikit_image_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(TfmmError, match=r"scikit-image: pip install -e '\.\[bench\]'"):
        shallow_models.picture_features("any.jpg")


@pytest.fixture(scope="module")
def hparams(tmp_path_factory):
    path = tmp_path_factory.mktemp("hparams") / "sample.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


def test_the_whole_way_on_the_sample_catalog(tmp_path, hparams):
    sample = tmp_path / "sample"
    drawn = command(*(TOOLS / "sample_catalog.py", "--to", sample, "--products", 120))
    assert drawn.returncode == 0, drawn.stderr
    done = command(
        *(TOOLS / "bench" / "shallow.py", hparams),
        *("--catalog", sample / "catalog.csv", "--to", tmp_path / "numbers.json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    models = report["models"]
    assert list(models) == ["image", "text", "max", "mean", "product", "stack"]
    best = models[report["best_tower"]]["top1"]
    assert best == max(models["image"]["top1"], models["text"]["top1"])
    assert report["oracle"]["top1"] >= best
    # 84 products are few for a stack; the rules learn nothing and do well.
    assert models["product"]["micro_f1"] > models["text"]["micro_f1"] > 0.2
    assert "image: 113 images, 2 that cannot be read" in done.stderr
    for name, model in models.items():
        line = next(x for x in done.stdout.splitlines() if x.startswith(f"{name} "))
        assert f"{model['top1']:.3f} ± {model['top1_half_width']:.3f}" in line
        assert f"{model['micro_f1']:.3f}" in line


def test_bad_input_gives_one_line_and_status_2(tmp_path, hparams):
    for words, message in (
        (("--catalog", tmp_path / "no.csv"), "no.csv: no such catalog file"),
        (("--catalog", hparams, "--to", tmp_path / "no" / "x.json"), "--to: expected"),
        (("--catalog", hparams, "--set", "catalog.tsak=1"), "'tsak'"),
    ):
        done = command(TOOLS / "bench" / "shallow.py", hparams, *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert message in done.stderr


def test_examples_in_docstrings_are_true():
    failed, attempted = doctest.testmod(shallow_models)
    assert failed == 0
    assert attempted >= 1
