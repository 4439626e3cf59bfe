"""Files of word vectors, in every format, and every way that they are damaged."""

import struct
from pathlib import Path

import numpy as np
import pytest

from tfmm import vectors
from tfmm.errors import ExperimentError

# Each number is a float32 as it stands.
VALUES = {"lamp": [0.5, -1.25], "red": [2.0, 0.0], "café": [-0.75, 8.0]}


def glove(path, values=VALUES):
    """As GloVe writes: no first line of counts."""
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in values.items()]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def vec(path, values=VALUES):
    """As fastText writes: counts first, a space at the end of each line."""
    lines = [f"{word} {' '.join(map(str, row))} \n" for word, row in values.items()]
    path.write_text(f"{len(values)} 2\n" + "".join(lines), encoding="utf-8")
    return path


def binary(path, values=VALUES, end=b"\n"):
    """As word2vec.c writes, or gensim with `end` empty."""
    rows = [
        word.encode() + b" " + struct.pack("<2f", *row) + end
        for word, row in values.items()
    ]
    path.write_bytes(f"{len(values)} 2\n".encode() + b"".join(rows))
    return path


def refused(path, *words, vocabulary=("lamp",), dim=2):
    with pytest.raises(ExperimentError) as caught:
        vectors.read(path, vocabulary, dim)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: glove(folder / "glove.txt"),
        lambda folder: vec(folder / "wiki.vec"),
        lambda folder: binary(folder / "news.bin"),
        lambda folder: binary(folder / "news.bin", end=b""),
    ],
    ids=["glove", "vec", "word2vec", "gensim"],
)
def test_every_format_gives_the_rows_of_the_vocabulary(tmp_path, write):
    found = vectors.read(write(tmp_path), ["red", "sofa", "café"], 2)
    assert found.values.dtype == np.float32
    assert found.values.tolist() == [[2.0, 0.0], [0.0, 0.0], [-0.75, 8.0]]
    assert found.covered.tolist() == [True, False, True]


@pytest.mark.parametrize("name", ["wiki.vec", "news.bin", "glove.txt"])
def test_what_gensim_writes_is_read(tmp_path, name):
    keyed_vectors = pytest.importorskip("gensim.models.keyedvectors").KeyedVectors
    words = [f"w{number}" for number in range(40)] + ["été", "❤", "日本"]
    theirs = keyed_vectors(7)
    draw = np.random.default_rng(0).normal(size=(len(words), 7))
    theirs.add_vectors(words, draw.astype(np.float32))
    options = {"binary": name == "news.bin", "write_header": name != "glove.txt"}
    theirs.save_word2vec_format(str(tmp_path / name), **options)
    found = vectors.read(tmp_path / name, words[::2], 7)
    np.testing.assert_array_equal(found.values, theirs[words[::2]])
    assert found.covered.all()


def test_gensim_reads_our_files_as_we_do(tmp_path):
    keyed_vectors = pytest.importorskip("gensim.models.keyedvectors").KeyedVectors
    words = list(VALUES)
    for path, options in (
        (vec(tmp_path / "wiki.vec"), {}),
        (binary(tmp_path / "news.bin"), {"binary": True}),
    ):
        theirs = keyed_vectors.load_word2vec_format(str(path), **options)
        ours = vectors.read(path, words, 2).values
        np.testing.assert_array_equal(ours, theirs[words])


def test_the_same_word_counts_before_one_in_upper_case_and_the_first_before_others(
    tmp_path,
):
    values = {"LAMP": [1.0, 1.0], "Lamp": [2.0, 2.0], "lamp": [3.0, 3.0]}
    values |= {"Red": [4.0, 4.0], "RED": [5.0, 5.0], "Ｓofa": [6.0, 6.0]}
    path = glove(tmp_path / "glove.txt", values)
    found = vectors.read(path, ["lamp", "red", "sofa"], 2)
    assert found.values[:, 0].tolist() == [3.0, 4.0, 6.0]
    path.write_text("lamp 1 1\nLamp 2 2\nlamp 3 3\n", encoding="utf-8")
    assert vectors.read(path, ["lamp"], 2).values[0, 0] == 1.0


def test_words_may_hold_spaces_and_be_numbers(tmp_path):
    values = {". . .": [1.0, 1.0], "at name@x.com": [2.0, 2.0], "12": [3.0, 3.0]}
    path = glove(tmp_path / "glove.txt", {"lamp": [0.0, 4.0], **values})
    found = vectors.read(path, ["12", ".", "lamp"], 2)
    assert found.values.tolist() == [[3.0, 3.0], [0.0, 0.0], [0.0, 4.0]]


def test_words_that_are_no_utf8_are_passed_over(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_bytes(b"\xff\xfe 1 1\r\nlamp 2 2\r\n")
    assert vectors.read(path, ["lamp"], 2).values.tolist() == [[2.0, 2.0]]


def test_numbers_of_words_that_are_not_kept_are_not_looked_at(tmp_path):
    path = glove(tmp_path / "glove.txt", {"sofa": ["nan", "x"], "lamp": [1, 2]})
    path.write_text("lamp 1 2\nsofa nan x\n", encoding="utf-8")
    assert vectors.read(path, ["lamp"], 2).covered.all()
    refused(path, ":2: expected numbers after the word", vocabulary=["sofa"])


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e60"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, number):
    path = tmp_path / "glove.txt"
    path.write_text(f"red 1 2\nlamp 1 {number}\n", encoding="utf-8")
    refused(path, ":2: expected finite numbers")
    path = binary(tmp_path / "news.bin", {"lamp": [float("nan"), 1.0]})
    refused(path, "byte 4: expected finite numbers")


@pytest.mark.parametrize("name", ["glove.txt", "wiki.vec", "news.bin"])
def test_another_size_is_refused_and_the_right_one_is_named(tmp_path, name):
    write = {"glove.txt": glove, "wiki.vec": vec, "news.bin": binary}[name]
    path = write(tmp_path / name)
    refused(path, "set embedding_dim = 2. Received: embedding_dim = 300", dim=300)


def test_every_cut_of_a_file_with_counts_is_refused(tmp_path):
    for path, start in (
        (vec(tmp_path / "wiki.vec"), 4),
        (binary(tmp_path / "news.bin", end=b""), 4),
    ):
        whole = path.read_bytes()
        for length in range(start, len(whole)):
            path.write_bytes(whole[:length])
            refused(path, vocabulary=list(VALUES))
        path.write_bytes(whole)
        assert vectors.read(path, list(VALUES), 2).covered.all()


def test_every_cut_inside_a_line_of_a_file_without_counts_is_refused(tmp_path):
    path = glove(tmp_path / "glove.txt")
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        if whole[length - 1 : length] != b"\n":
            refused(path, "cut off", vocabulary=list(VALUES))


def test_cut_off_files_are_told_with_the_place(tmp_path):
    path = vec(tmp_path / "wiki.vec")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]), encoding="utf-8")
    refused(path, "expected 3 vectors", "the file is cut off. Received: 2")
    path.write_text("".join(lines) + "more 1 2\n", encoding="utf-8")
    refused(path, "it holds more. Received: 4")
    path = glove(tmp_path / "glove.txt")
    path.write_text("red 1 2\nlamp 1\n", encoding="utf-8")
    refused(path, ":2: expected a word and 2 numbers", "'lamp 1', 1 numbers")
    path = binary(tmp_path / "news.bin")
    path.write_bytes(path.read_bytes()[:-3])
    refused(path, "byte 30: expected 3 vectors", "cut off. Received: 2")
    path = binary(tmp_path / "news.bin")
    path.write_bytes(path.read_bytes() + b"more")
    refused(path, "expected the end after 3 vectors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Received: none"),
        (b"2 2\n", "the file is cut off. Received: 0"),
        (b"id,title,labels\nP1,Red lamp,lamp\n", "a word and its numbers a line"),
        (b"PK\x03\x04rest", "a zip archive; unpack it first"),
        (b"\x1f\x8b\x08\x00", "a gzip archive; unpack it first"),
        (b"\x89PNG\r\n\x1a\n", "Received: a picture"),
        (b"\xff\xd8\xff\xe0\x00", "Received: a picture"),
        (struct.pack("<i", 793712314), "a fastText model; use its .vec file"),
        (bytes(2_000_000), "ends in a line break"),
        (b"lamp\t1\t2\n", "a word and its numbers a line"),
        (b"9" * 6000 + b" 2\nlamp 1 2\n", "set embedding_dim = 1"),
    ],
)
def test_what_is_no_text_of_vectors_is_refused(tmp_path, content, words):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    refused(path, words)


def test_what_is_no_binary_of_vectors_is_refused(tmp_path):
    path = tmp_path / "news.bin"
    path.write_bytes(b"")
    refused(path, "expected word2vec's binary format")
    path.write_bytes(bytes(200))
    refused(path, "expected word2vec's binary format")
    path.write_bytes(b"3 2\n" + b"x" * 10_000)
    refused(path, "byte 4: expected a word and a space")
    refused(vec(path), "news.bin")  # text in a file that is named as binary


def test_a_file_that_is_not_there_or_shares_no_word_is_refused(tmp_path):
    refused(tmp_path / "none.txt", "No such file")
    refused(Path(tmp_path), "Is a directory")
    path = glove(tmp_path / "glove.txt")
    refused(path, "the 1 words of the training texts", vocabulary=["sofa"])
    refused(path, "the 0 words", vocabulary=[])


def test_memory_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    path = tmp_path / "large.vec"
    line = " ".join(["0.125"] * 50) + " \n"
    with path.open("w", encoding="utf-8") as file:
        file.write("20000 50\n")
        file.writelines(f"w{number} {line}" for number in range(20_000))
    assert path.stat().st_size > 6_000_000
    tracemalloc.start()
    found = vectors.read(path, ["w1", "w19999"], 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.covered.all()
    assert peak < 500_000
