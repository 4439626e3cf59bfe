"""Encoders from Hugging Face folders, against what `transformers` says of them.

`tools/pretrained_reference.py` made the tiny checkpoints and the expected numbers.
"""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm.errors import ExperimentError
from tfmm.pretrained import presets
from tfmm.pretrained.byte_pairs import BytePairs
from tfmm.pretrained.folder import Folder
from tfmm.pretrained.moses import split_words
from tfmm.pretrained.text_tokens import TextTokens

DATA = Path(__file__).resolve().parent.parent / "data" / "pretrained"
TITLES = (DATA / "titles.txt").read_text(encoding="utf-8").splitlines()
SENTENCE_PIECES = "sentencepiece.bpe.model"
CHECKPOINTS = (
    *("bert", "camembert", "distilbert", "flaubert", "flaubert-pre-norm", "roberta"),
    "xlm-roberta",
)


def checkpoint(name, folder):
    """A whole folder: the SentencePiece model of two of them is kept once."""
    path = folder / name
    shutil.copytree(DATA / name, path)
    if name in ("camembert", "xlm-roberta"):
        shutil.copy(DATA / SENTENCE_PIECES, path)
    return path


def tokens_layer(loaded, **options):
    return TextTokens(
        loaded.tokenizer,
        loaded.max_tokens,
        loaded.start,
        loaded.end,
        loaded.padding,
        removed=loaded.removed,
        lowercase=loaded.lowercase,
        **options,
    )


def expected(name):
    kept = np.load(DATA / name / "expected.npz")
    rows = np.split(kept["ids"].astype(int), np.cumsum(kept["lengths"])[:-1])
    return [row.tolist() for row in rows], kept["inner"], kept["last"]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_all_200_titles_have_the_ids_and_the_states_of_transformers(name, tmp_path):
    loaded = presets.load(str(checkpoint(name, tmp_path)))
    ids, inner, last = expected(name)
    tokens = tokens_layer(loaded)(tf.constant(TITLES))
    rows = tf.ragged.boolean_mask(tokens["token_ids"], tokens["padding_mask"] == 1)
    assert len(TITLES) == 200
    assert [row for row, e in zip(rows.to_list(), ids, strict=True) if row != e] == []
    # The longest of all titles pads them here, transformers took each by itself.
    first = {key: value[: len(last)] for key, value in tokens.items()}
    both = keras.Model(
        loaded.backbone.input,
        [
            loaded.backbone.get_layer("transformer_layer_0").output,
            loaded.backbone.output,
        ],
    )
    mask = first["padding_mask"].numpy()[..., None]
    for states, reference in zip(both(first), (inner, last), strict=True):
        states = (states.numpy() * mask)[:, : reference.shape[1]]
        np.testing.assert_allclose(states, reference, atol=2e-5)


def test_camembert_ids_are_pieces_shifted_by_four(tmp_path):
    tokenizer = presets.load(str(checkpoint("camembert", tmp_path))).tokenizer
    pieces = tokenizer.pieces.tokenize(["Lampe bleue"]).to_list()[0]
    assert tokenizer(tf.constant(["Lampe bleue"])).to_list()[0] == [
        3 if piece == 0 else piece + 4 for piece in pieces
    ]
    assert (tokenizer.piece_id("<s>"), tokenizer.piece_id("</s>")) == (5, 6)
    assert tokenizer.piece_id("no such piece") == 3


def test_moses_keeps_numbers_and_abbreviations_whole():
    words = split_words(
        tf.constant(["L'arbre (12,5 cm), env. 3 pers. «Été» etc.", "fin.", "", "a..b"])
    )
    assert [" ".join(word.decode() for word in row) for row in words.to_list()] == [
        'L\' arbre ( 12,5 cm ) , env. 3 pers . " Été " etc.',
        "fin .",
        "",
        "a .. b",
    ]


def test_byte_pairs_join_the_first_learned_and_the_leftmost_first():
    merges = [("a", "b"), ("b", "c"), ("ab", "ab"), ("c", "d</w>")]
    pieces = ["a", "b", "c", "ab", "bc", "abab", "cd</w>", "b</w>", "d</w>"]
    pairs = BytePairs({piece: i for i, piece in enumerate(pieces, 1)}, merges, 0)
    # abc: a b wins over b c. ababx: joined twice. ?: not known.
    words = tf.constant(["abcd", "ababcd", "bcab", "b?", "abcd", "b"])
    assert pairs(words).to_list() == [[4, 7], [6, 7], [5, 1, 8], [2, 0], [4, 7], [8]]


def test_byte_pairs_of_no_words_are_none():
    pairs = BytePairs({"a": 1}, [("a", "b")], 0)
    assert pairs(tf.constant([], tf.string)).to_list() == []


def test_a_text_is_cut_and_keeps_its_special_tokens(tmp_path):
    loaded = presets.load(str(checkpoint("flaubert", tmp_path)), load_weights=False)
    layer = TextTokens(loaded.tokenizer, 5, loaded.start, loaded.end, loaded.padding)
    ids = expected("flaubert")[0][0]
    answer = layer(tf.constant([TITLES[0], ""]))
    assert answer["token_ids"].numpy().tolist() == [[*ids[:4], 1], [0, 1, 2, 2, 2]]
    assert answer["padding_mask"].numpy().tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    with pytest.raises(ValueError, match="`max_tokens` must be at least 3"):
        TextTokens(loaded.tokenizer, 2, loaded.start, loaded.end, loaded.padding)


def test_architecture_alone_has_other_weights_each_time(tmp_path):
    path = str(checkpoint("bert", tmp_path))
    (tmp_path / "bert" / "model.safetensors").unlink()
    kernels = [
        presets.load(path, load_weights=False).backbone.get_weights()[0]
        for _ in range(2)
    ]
    assert kernels[0].shape == (320, 8)
    assert not np.array_equal(*kernels)


def test_weights_in_shards_are_read(tmp_path):
    from safetensors.numpy import load_file, save_file

    whole = presets.load(str(checkpoint("camembert", tmp_path))).backbone.get_weights()
    path = tmp_path / "camembert"
    tensors = sorted(load_file(path / "model.safetensors").items())
    (path / "model.safetensors").unlink()
    weight_map = {}
    for number, part in enumerate((tensors[::2], tensors[1::2])):
        save_file(dict(part), path / f"part{number}.safetensors")
        weight_map |= {name: f"part{number}.safetensors" for name, _ in part}
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    for value, other in zip(
        whole, presets.load(str(path)).backbone.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(value, other)


def rewrite(name, **changes):
    def change(path):
        file = path / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def without(name):
    return lambda path: (path / name).unlink()


def cut(name, size):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:size])


def only_pytorch(path):
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


DAMAGES = {
    "no config": ("bert", without("config.json"), "expected a file config.json"),
    "no JSON": ("bert", cut("config.json", 20), "config.json: expected JSON"),
    "other type": (
        "bert",
        rewrite("config.json", model_type="camenbert"),
        "model_type = 'camenbert' is not supported; did you mean 'camembert'",
    ),
    "no vocabulary": ("bert", without("vocab.txt"), "expected a file vocab.txt"),
    "short vocabulary": ("bert", cut("vocab.txt", 12), r"expected a token a line, \["),
    "no weights": ("bert", without("model.safetensors"), "file model.safetensors"),
    "cut weights": ("bert", cut("model.safetensors", 9000), "cut off"),
    "cut header": ("bert", cut("model.safetensors", 4), "cut off"),
    "only PyTorch": ("flaubert", only_pytorch, "expected model.safetensors"),
    "other width": (
        "bert",
        rewrite("config.json", hidden_size=12),
        "does not fit config.json",
    ),
    "more layers": (
        "bert",
        rewrite("config.json", num_hidden_layers=3),
        r"no tensor 'encoder\.layer\.2\.",
    ),
    "activation": (
        "bert",
        rewrite("config.json", hidden_act="gelu_new"),
        "hidden_act = 'gelu_new' is not supported; did you mean 'gelu'",
    ),
    "positions": (
        "bert",
        rewrite("config.json", position_embedding_type="relative_key"),
        "position_embedding_type = 'absolute'",
    ),
    "no pieces": ("xlm-roberta", without(SENTENCE_PIECES), f"file {SENTENCE_PIECES}"),
    "cut pieces": ("camembert", cut(SENTENCE_PIECES, 500), "cut off, or no Sentence"),
    "languages": ("flaubert", rewrite("config.json", n_langs=2), "one language"),
    "decoder": ("flaubert", rewrite("config.json", causal=True), "causal = False"),
    "cut merges": ("flaubert", cut("merges.txt", 9), r"merges.txt:2: expected two"),
    "no merges": ("roberta", without("merges.txt"), "expected a file merges.txt"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_named_in_one_line(damage, tmp_path):
    name, change, message = DAMAGES[damage]
    path = checkpoint(name, tmp_path)
    change(path)
    with pytest.raises(ExperimentError, match=message) as error:
        presets.load(str(path))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_preset_that_is_not_there_is_refused():
    with pytest.raises(ExperimentError, match="did you mean 'bert_base_multi'"):
        presets.load("bert_base_mult")


def test_a_download_that_fails_asks_for_a_folder(monkeypatch):
    import keras_hub

    def offline(*args, **kwargs):
        raise ConnectionError("no way\nout")

    monkeypatch.setattr(keras_hub.models.Tokenizer, "from_preset", offline)
    with pytest.raises(ExperimentError, match=r"\(no way\); give the path of a local"):
        presets.load("bert_base_multi")


def test_a_setting_may_have_two_names(tmp_path):
    path = checkpoint("flaubert", tmp_path)
    rewrite("config.json", n_words=7)(path)
    assert Folder(path).setting("n_words", "vocab_size") == 7
    with pytest.raises(ExperimentError, match="key 'n_wrds'; did you mean 'n_words'"):
        Folder(path).setting("n_wrds")


def test_only_a_line_break_ends_a_token(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "vocab.txt").write_text("a\u2028b\n\u0085\nc\n", encoding="utf-8")
    with Folder(tmp_path) as folder:
        assert folder.lines("vocab.txt") == ["a\u2028b", "\u0085", "c"]
        (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
        with pytest.raises(ExperimentError, match="expected text in UTF-8"):
            folder.lines("vocab.txt")
