import keras
import pytest
import tensorflow as tf
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from tfmm import text
from tfmm.errors import ExperimentError
from tfmm.text import Removal


def cleaned(value):
    return text.clean(tf.constant([value])).numpy()[0].decode()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  Red   LAMP\t\n", "red lamp"),
        ("Caf&eacute; &amp; Gr&ouml;&szlig;e", "café grösse"),
        ("don&#39;t &nbsp;x", "don t x"),
        ("&#8364;&unknown; price", "price"),
        ("caf&#233; caf&#xE9; &#0201;t&#xe9; &#xdf;", "café café été ss"),
        ("<b class='x'>bold</b><br/>text", "bold text"),
        ("3 < 4 > 2", "3 4 2"),
        ("e\u0301cole", "école"),
        ("ＦＵＬＬ width", "full width"),
        ("sofa😀❤\ufe0f!", "sofa 😀 ❤"),
        ("日本語 Ωmega Привет", "日本語 ωmega привет"),
        ("a\u00a0b", "a b"),
        ("", ""),
        ("!!!", ""),
    ],
)
def test_clean_gives_lower_case_words(raw, expected):
    assert cleaned(raw) == expected


def test_composed_and_decomposed_accents_are_one_word():
    assert cleaned("é") == cleaned("e\u0301") == cleaned("&eacute;")


def test_bytes_that_are_no_utf8_do_not_fail():
    assert text.clean(tf.constant([b"ab\xff\xfe"])).numpy()[0].startswith(b"ab")


def test_a_text_without_a_word_is_not_present():
    texts = tf.constant(["", "  \t\n", "\u00a0", "!!!", "<br>", "x", "❤"])
    present = [False, False, False, False, False, True, True]
    assert text.present(texts).numpy().tolist() == present


def test_vocabulary_is_by_frequency_then_alphabet():
    texts = ["b b a", "c a b", "d"]
    assert text.build_vocabulary(texts, 10) == ["b", "a", "c", "d"]
    assert text.build_vocabulary(texts, 10, min_count=2) == ["b", "a"]
    assert text.build_vocabulary(texts, 1) == ["b"]
    assert text.build_vocabulary(texts, 10, chunk=1) == ["b", "a", "c", "d"]


def test_word_ids_pads_cuts_and_marks_the_unknown():
    layer = text.WordIds(["lamp", "red"], max_words=3)
    ids = layer(tf.constant(["", "RED, lamp!", "blue red lamp lamp"]))
    assert ids.numpy().tolist() == [[0, 0, 0], [3, 2, 0], [1, 3, 2]]
    assert layer.num_ids == 4


def test_word_ids_are_the_same_eager_traced_saved_and_exported(tmp_path):
    words = text.WordIds(["lamp", "red"], max_words=3)
    inputs = keras.Input((), dtype="string", name="title")
    model = keras.Model({"title": inputs}, words(inputs))
    batch = tf.constant(["red lamp", "", "x red"])
    expected = words(batch).numpy().tolist()
    signature = [tf.TensorSpec([None], tf.string)]
    traced = tf.function(words, input_signature=signature)
    assert traced(batch).numpy().tolist() == expected
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded({"title": batch}).numpy().tolist() == expected
    root = tf.Module()
    root.table = words.table
    served = tf.function(
        lambda title: {"ids": words(title)},
        input_signature=[tf.TensorSpec([None], tf.string, "title")],
    )
    tf.saved_model.save(root, str(tmp_path / "s"), {"serving_default": served})
    again = tf.saved_model.load(str(tmp_path / "s"))
    ids = again.signatures["serving_default"](title=batch)["ids"]
    assert ids.numpy().tolist() == expected


def test_word_ids_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match="max_words"):
        text.WordIds(["a"], max_words=0)
    with pytest.raises(ValueError, match="once"):
        text.WordIds(["a", "a"], max_words=1)


def words_of(value, removal):
    words = text.split_words(tf.constant([value]), removal).to_list()[0]
    return b" ".join(words).decode()


@pytest.mark.parametrize(
    ("removal", "raw", "expected"),
    [
        (Removal(), "Don't: 2 x MP3!", "don t 2 x mp3"),
        (Removal(punctuation=False), "Don't: $5.50!", "don ' t : $ 5 . 50 !"),
        (Removal(punctuation=False), "3 &lt; 4 <b>😀</b>", "3 4 😀"),
        (Removal(digits=True), "12 MP3 ½ ３ 4x5cm", "mp xcm"),
        (Removal(digits=True), "number 5\ufe0f\u20e3", "number"),
        (Removal(digits=True, punctuation=False), "3.5", "."),
        (Removal(max_word_characters=4), "sofa sofas été étés étéss", "sofa été étés"),
        (Removal(max_word_characters=2), "日本 日本語", "日本"),
        (Removal(digits=True, max_word_characters=2), "ab345", "ab"),
        (Removal(stop_words=("a", "the")), "The a lathe A4", "lathe a4"),
        (Removal(digits=True, stop_words=("a",)), "A4 paper", "paper"),
        (Removal(stop_words=("❤", "été")), "été ❤ lamp", "lamp"),
        (Removal(stop_words=("a",)), "A", ""),
        (Removal(stop_words=("a",)), "", ""),
    ],
)
def test_removal_takes_out_what_it_names(removal, raw, expected):
    assert words_of(raw, removal) == expected


def test_stop_words_are_those_of_scikit_learn_as_texts_are_cleaned():
    assert set(text.stop_words("english")) == set(ENGLISH_STOP_WORDS)


def test_stop_words_of_a_file_go_whichever_way_they_are_written(tmp_path):
    path = tmp_path / "stop.txt"
    path.write_text("\ufeffDon't\nL'\u00c9T\u00c9\n\nder\nDER \n", encoding="utf-8")
    found = text.stop_words(str(path))
    assert found == ("der", "don", "l", "t", "été")
    removal = Removal(stop_words=found)
    assert words_of("DON'T l'e\u0301te\u0301 Der Lampe", removal) == "lampe"


def test_a_long_list_of_stop_words_works():
    many = tuple(f"word{number}" for number in range(5000))
    removal = Removal(stop_words=many)
    assert words_of("word0 word4999 word5000 word", removal) == "word5000 word"


def test_stop_words_that_cannot_be_had_stop_with_a_reason(tmp_path):
    with pytest.raises(ExperimentError, match="did you mean 'english'"):
        text.stop_words("englsh")
    with pytest.raises(ExperimentError, match="no file that can be read"):
        text.stop_words(str(tmp_path))
    path = tmp_path / "stop.txt"
    path.write_text("!!!\n", encoding="utf-8")
    with pytest.raises(ExperimentError, match="it has none"):
        text.stop_words(str(path))
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ExperimentError, match="UTF-8"):
        text.stop_words(str(path))


def test_vocabulary_holds_nothing_that_is_removed():
    removal = Removal(digits=True, max_word_characters=5, stop_words=("the",))
    texts = ["the lamp 12", "The lamp longer MP3"]
    assert text.build_vocabulary(texts, 10, removal=removal) == ["lamp", "mp"]


def test_removal_is_the_same_eager_traced_saved_and_exported(tmp_path):
    removal = Removal(False, True, 4, ("the",))
    words = text.WordIds([",", "lamp", "red"], max_words=3, removal=removal)
    inputs = keras.Input((), dtype="string", name="title")
    model = keras.Model({"title": inputs}, words(inputs))
    batch = tf.constant(["the 3 lamp, violet RED", "the 5", ""])
    expected = [[3, 2, 4], [0, 0, 0], [0, 0, 0]]
    assert words(batch).numpy().tolist() == expected
    signature = [tf.TensorSpec([None], tf.string)]
    assert tf.function(words, signature)(batch).numpy().tolist() == expected
    data = tf.data.Dataset.from_tensors(batch).map(words)
    assert next(iter(data)).numpy().tolist() == expected
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded({"title": batch}).numpy().tolist() == expected
    root = tf.Module()
    root.table = words.table
    served = tf.function(lambda title: {"ids": words(title)})
    served = served.get_concrete_function(tf.TensorSpec([None], tf.string, "title"))
    tf.saved_model.save(root, str(tmp_path / "s"), {"serving_default": served})
    again = tf.saved_model.load(str(tmp_path / "s"))
    ids = again.signatures["serving_default"](title=batch)["ids"]
    assert ids.numpy().tolist() == expected
