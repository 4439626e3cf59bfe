"""Word vectors of one's own: trained on one split, the same every time, used."""

import sys
from pathlib import Path

import pytest
from commands import command
from tiny import EXPERIMENT

from tfmm import vectors
from tfmm.errors import TfmmError

pytest.importorskip("gensim")

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

import word_vectors as tool

OTHER_TOWER = """
[towers.other]
model = "text_cnn"
modality = "title"
remove = ["digits"]
"""


@pytest.fixture(scope="module")
def hparams(tmp_path_factory):
    path = tmp_path_factory.mktemp("hparams") / "tiny.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Ten products to train on, half of them lamps; two that are not."""
    path = tmp_path_factory.mktemp("catalog") / "catalog.csv"
    rows = ["id,title,image,labels,split"]
    for number in range(10):
        title = "Red LAMP; 12" if number < 5 else "red Sofa été"
        rows.append(f"P{number},{title},,{'ab'[number % 2]},train")
    rows += ["P10,red carpet,,a,validation", "P11,green carpet,,b,test"]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_vectors_are_of_the_training_split_and_of_the_towers_words(
    tmp_path, hparams, catalog, capsys
):
    path = tmp_path / "title.vec"
    tool.word_vectors(hparams, catalog, "title", path, dim=5)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "5 5"
    words = {line.split()[0] for line in lines[1:]}
    assert words == {"red", "lamp", "12", "sofa", "été"}
    found = vectors.read(path, ["red", "carpet", "été"], 5)
    assert found.covered.tolist() == [True, False, True]
    assert capsys.readouterr().out.splitlines() == [
        f"{path}: 5 words, 5 numbers each",
        "cover 100.0% of the 5 words of 'train'",
        "cover 50.0% of the 2 words of 'validation'",
    ]


def test_what_the_tower_removes_and_rare_words_get_no_vector(
    tmp_path, hparams, catalog
):
    removed = ['towers.title.remove=["digits", "punctuation"]']
    for min_count, first_line in ((1, "4 5"), (6, "1 5")):
        path = tmp_path / f"{min_count}.txt"
        options = {"dim": 5, "min_count": min_count, "set_": removed}
        tool.word_vectors(hparams, catalog, "title", path, **options)
        assert path.read_text(encoding="utf-8").startswith(f"{first_line}\nred ")


def test_the_same_seed_gives_the_same_file(tmp_path, hparams, catalog):
    paths = [tmp_path / f"{number}.vec" for number in range(3)]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        options = {"dim": 5, "set_": [f"seed={seed}"]}
        tool.word_vectors(hparams, catalog, "title", path, **options)
    first, second, other = (path.read_bytes() for path in paths)
    assert first == second
    assert first != other


def test_bad_input_gives_one_line_and_status_2(tmp_path, hparams, catalog):
    words = ("--catalog", catalog, "--modality", "titel", "--to", tmp_path / "x.vec")
    done = command(tool.__file__, hparams, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "did you mean 'title'" in done.stderr


def test_bad_input_stops_with_a_reason(tmp_path, hparams, catalog):
    two = hparams.with_name("two.toml")
    two.write_text(EXPERIMENT + OTHER_TOWER, encoding="utf-8")
    to = tmp_path / "x.vec"
    for arguments, message in (
        ((hparams, catalog, "titel", to), "did you mean 'title'"),
        ((hparams, catalog, "image", to), "'image' is no text"),
        ((hparams, catalog, "title", tmp_path / "x.bin"), r"\.vec or \.txt"),
        ((hparams, tmp_path / "none.csv", "title", to), "no such catalog file"),
        ((hparams, catalog, "title", to, 5, 5, 5, 11), "at least 11 times"),
        ((two, catalog, "title", to), "different ones in title, other"),
    ):
        with pytest.raises(TfmmError, match=message):
            tool.word_vectors(*arguments)
    assert not list(tmp_path.iterdir())


def test_without_gensim_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(TfmmError, match=r"pip install -e '\.\[vectors\]'"):
        tool.train([["a"]], 2, 1, 1, 1, 0)
