"""text_cnn: what it takes out, pretrained vectors, the papers' sizes."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tfmm.errors import ExperimentError
from tfmm.settings import TextCnn
from tfmm.text import FIRST_WORD_ID
from tfmm.towers.text_cnn import text_cnn

TEXTS = [f"{a} {b}" for a in ("red", "blue") for b in ("lamp", "rug", "sofa", "bed")]
WORDS = ["blue", "red", "bed", "lamp", "rug", "sofa"]  # by frequency, then alphabet
COVERED = {"red": [1.0, -1.0], "Lamp": [3.0, 0.5], "sofa": [-2.0, 0.25]}


def tiny(**settings):
    defaults = {
        "model": "text_cnn",
        "modality": "title",
        "max_words": 5,
        "kernel_sizes": [1, 2],
        "filters": 4,
        "embedding_dim": 2,
        "dropout": 0.0,
    }
    return TextCnn(**{**defaults, **settings})


def text_of(num_words):
    return [" ".join(f"zz{number:c}" for number in range(97, 97 + num_words))]


@pytest.fixture
def vectors_file(tmp_path):
    path = tmp_path / "vectors.txt"
    lines = [f"{word} {x} {y}\n" for word, (x, y) in COVERED.items()]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def embeddings(model):
    return model.get_layer("embedding").embeddings.numpy()[FIRST_WORD_ID:]


def logits(model, *texts):
    return model({"title": tf.constant(texts)}, training=False)["logits"].numpy()


def step(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss={"logits": loss}, run_eagerly=True)
    targets = {"logits": np.arange(8) % 4}
    model.fit({"title": tf.constant(TEXTS)}, targets, verbose=0)


def test_paper_a_has_its_parameters():
    settings = TextCnn(model="text_cnn", modality="title")
    model = text_cnn(settings, 7, text_of(18))
    assert model.count_params() == (18 + 2) * 100 + 153_984 + 2_695
    assert model.output["features"].shape == (None, 384)
    assert model.get_layer("word_ids").output.shape == (None, 40)


@pytest.mark.parametrize(("max_words", "remove"), [(57, []), (300, ["stop_words"])])
def test_paper_c_has_its_parameters(tmp_path, max_words, remove):
    path = tmp_path / "glove.300d.txt"
    path.write_text(f"zza {' '.join(['0.5'] * 300)}\n", encoding="utf-8")
    settings = TextCnn(
        model="text_cnn",
        modality="title",
        max_words=max_words,
        remove=["digits", "punctuation", "long_words", *remove],
        embedding=str(path),
        embedding_dim=300,
        kernel_sizes=[5],
        filters=200,
        hidden_units=170,
    )
    model = text_cnn(settings, 7, text_of(18))
    assert model.count_params() == (18 + 2) * 300 + 300_200 + 34_170 + 1_197
    assert model.output["features"].shape == (None, 170)
    assert model.get_layer("word_ids").output.shape == (None, max_words)


def test_the_file_gives_the_rows_that_it_has_and_the_rest_are_drawn(
    vectors_file, capsys
):
    keras.utils.set_random_seed(0)
    rows = embeddings(text_cnn(tiny(embedding=str(vectors_file)), 4, TEXTS))
    assert rows[WORDS.index("red")].tolist() == COVERED["red"]
    assert rows[WORDS.index("lamp")].tolist() == COVERED["Lamp"]
    assert rows[WORDS.index("sofa")].tolist() == COVERED["sofa"]
    drawn = rows[[WORDS.index(word) for word in ("blue", "bed", "rug")]]
    assert len(np.unique(drawn)) == 6
    assert "title: word vectors cover 50.0% of 6 words\n" in capsys.readouterr().err


def test_words_without_a_vector_are_drawn_as_far_spread_as_those_with_one(tmp_path):
    keras.utils.set_random_seed(0)
    known = np.random.default_rng(0).normal(0.0, 3.0, (50, 20))
    path = tmp_path / "vectors.txt"
    lines = [f"k{i:c} {' '.join(map(str, x))}\n" for i, x in enumerate(known, 0x4E00)]
    path.write_text("".join(lines), encoding="utf-8")
    texts = [f"k{i:c} u{i:c}" for i in range(0x4E00, 0x4E32)]
    settings = tiny(embedding=str(path), embedding_dim=20)
    rows = embeddings(text_cnn(settings, 4, texts))
    np.testing.assert_allclose(rows[:50].std(), known.std(), rtol=1e-5)
    np.testing.assert_allclose(rows[50:].std(), known.std(), rtol=0.05)


def test_drawn_rows_come_from_the_seed(vectors_file):
    built = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(seed)
        built.append(embeddings(text_cnn(tiny(embedding=str(vectors_file)), 4, TEXTS)))
    np.testing.assert_array_equal(built[0], built[1])
    assert (built[0] != built[2]).any(axis=1).sum() == 3


@pytest.mark.parametrize("trainable", [True, False])
def test_vectors_are_trained_or_frozen(vectors_file, trainable):
    keras.utils.set_random_seed(0)
    settings = tiny(embedding=str(vectors_file), embedding_trainable=trainable)
    model = text_cnn(settings, 4, TEXTS)
    before = embeddings(model)
    kernel = model.get_layer("logits").kernel.numpy()
    step(model)
    assert (embeddings(model) != before).any() == trainable
    assert (model.get_layer("logits").kernel.numpy() != kernel).any()


def test_a_saved_tower_needs_neither_its_vectors_nor_its_stop_words(
    vectors_file, tmp_path
):
    stop_words = tmp_path / "stop.txt"
    stop_words.write_text("the\n", encoding="utf-8")
    settings = tiny(
        embedding=str(vectors_file),
        embedding_trainable=False,
        stop_words=str(stop_words),
        remove=["stop_words", "digits", "long_words", "punctuation"],
    )
    model = text_cnn(settings, 4, [*TEXTS, "the"])
    model.save(tmp_path / "m.keras")
    expected = logits(model, "The 2 red lamps", "sofa", "")
    stop_words.unlink()
    vectors_file.unlink()
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        logits(loaded, "The 2 red lamps", "sofa", ""), expected
    )
    assert not loaded.get_layer("embedding").trainable


def test_what_is_removed_does_not_change_the_answer():
    settings = tiny(remove=["stop_words", "digits", "punctuation", "long_words"])
    model = text_cnn(settings, 4, [*TEXTS, "the 2 of the"])
    assert "the" not in model.get_layer("word_ids").vocabulary
    plain, noisy = logits(model, "red lamp", f"The 2 RED, of {'x' * 31} lamp 99!")
    np.testing.assert_array_equal(noisy, plain)


def test_a_text_of_which_nothing_stays_gets_the_answer_of_an_empty_one():
    settings = tiny(remove=["stop_words", "digits", "punctuation", "long_words"])
    model = text_cnn(settings, 4, TEXTS)
    step(model)
    nothing, empty, red = logits(model, f"the 12 {'x' * 31}", "", "red")
    np.testing.assert_array_equal(nothing, empty)
    assert np.isfinite(empty).all()
    assert (red != empty).any()


def test_punctuation_stays_where_it_is_not_removed():
    model = text_cnn(tiny(remove=[]), 4, ["red, lamp!"])
    assert model.get_layer("word_ids").vocabulary == ["!", ",", "lamp", "red"]
    model = text_cnn(tiny(), 4, ["red, lamp!"])
    assert model.get_layer("word_ids").vocabulary == ["lamp", "red"]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_answers_are_float32_under_every_policy(vectors_file, policy):
    keras.config.set_dtype_policy(policy)
    try:
        settings = tiny(embedding=str(vectors_file), hidden_units=3)
        model = text_cnn(settings, 4, TEXTS)
        step(model)
    finally:
        keras.config.set_dtype_policy("float32")
    said = model({"title": tf.constant(["red lamp", ""])})
    assert {key: x.dtype for key, x in said.items()} == {
        "features": tf.float32,
        "logits": tf.float32,
    }
    assert np.isfinite(said["logits"]).all()


def test_features_may_come_from_the_pooled_filters():
    settings = tiny(hidden_units=3, features_from="max_over_time_2")
    model = text_cnn(settings, 4, TEXTS)
    assert model.output["features"].shape == (None, 4)
    with pytest.raises(ExperimentError, match="did you mean 'max_over_time_2'"):
        text_cnn(tiny(features_from="max_over_time_3"), 4, TEXTS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop_words": "my.txt"}, "needs \"stop_words\" in 'remove'"),
        ({"embedding_trainable": False}, "'embedding_trainable' must be true"),
        ({"remove": ["digit"]}, "'digits'"),
    ],
)
def test_settings_that_say_something_in_vain_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        tiny(**settings)


def test_files_that_cannot_be_had_stop_with_a_reason(vectors_file):
    with pytest.raises(ExperimentError, match="set embedding_dim = 2"):
        text_cnn(tiny(embedding=str(vectors_file), embedding_dim=3), 4, TEXTS)
    with pytest.raises(ExperimentError, match="did you mean 'english'"):
        text_cnn(tiny(stop_words="englisch", remove=["stop_words"]), 4, TEXTS)
