import keras
import pytest
import tensorflow as tf

from tfmm import text


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
