"""FlauBERT from a Hugging Face folder."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_text as tf_text

from tfmm.errors import ExperimentError
from tfmm.pretrained.byte_pairs import BytePairs
from tfmm.pretrained.encoder import Pretrained, Sizes, encoder, fill
from tfmm.pretrained.folder import CONFIG_FILE, Folder
from tfmm.pretrained.moses import split_words

VOCABULARY_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
SPECIAL_TOKENS = ("<s>", "</s>", "<pad>", "<unk>")
MODULES = {
    "embeddings_layer_norm": "layer_norm_emb",
    "self_attention_layer/query": "attentions.{}.q_lin",
    "self_attention_layer/key": "attentions.{}.k_lin",
    "self_attention_layer/value": "attentions.{}.v_lin",
    "self_attention_layer/attention_output": "attentions.{}.out_lin",
    "self_attention_layer_norm": "layer_norm1.{}",
    "feedforward_intermediate_dense": "ffns.{}.lin1",
    "feedforward_output_dense": "ffns.{}.lin2",
    "feedforward_layer_norm": "layer_norm2.{}",
}


@keras.saving.register_keras_serializable(package="tfmm")
class FlaubertTokens(keras.layers.Layer):
    """Turns French texts into FlauBERT's token ids, without the special ones.

    Lower case if asked for, Moses' words (see `moses`), then byte pairs.

    Vocabulary and merges are kept beside the weights in a `.keras` file.

    Args:
        lowercase: Whether the checkpoint is one of lower-case texts.
        vocabulary: Piece -> id, `<unk>` among them; None for a layer whose vocabulary
            comes from a `.keras` file.
        merges: Pairs of pieces, the first learned first.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor `(batch,)`, UTF-8.

    Returns:
        Ragged int32 tensor `(batch, tokens)`.

    Reference:
    - [Le et al., 2019](https://arxiv.org/abs/1912.05372), section 3.1
    """

    def __init__(
        self,
        lowercase: bool,
        vocabulary: Mapping[str, int] | None = None,
        merges: Sequence[tuple[str, str]] = (),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.lowercase = lowercase
        if vocabulary is not None:
            self._take(vocabulary, merges)

    def _take(self, vocabulary, merges) -> None:
        # In text form, so that Keras does not wrap and track thousands of entries.
        self.files = {
            VOCABULARY_FILE: json.dumps(vocabulary, ensure_ascii=False),
            MERGES_FILE: "".join(f"{left} {right}\n" for left, right in merges),
        }
        self.pieces = BytePairs(vocabulary, merges, vocabulary["<unk>"])

    def call(self, inputs):
        texts = tf.strings.regex_replace(inputs, "``|''", '"')
        texts = tf_text.normalize_utf8(texts, "NFC")
        if self.lowercase:
            texts = tf.strings.lower(texts, encoding="utf-8")
        words = split_words(texts)
        pieces = self.pieces(words.values)
        return words.with_values(pieces).merge_dims(1, 2)

    def get_config(self):
        return {**super().get_config(), "lowercase": self.lowercase}

    def save_assets(self, dir_path):
        for name, text in self.files.items():
            Path(dir_path, name).write_text(text, encoding="utf-8")

    def load_assets(self, dir_path):
        vocabulary = json.loads(Path(dir_path, VOCABULARY_FILE).read_text("utf-8"))
        self._take(vocabulary, read_merges(Path(dir_path, MERGES_FILE)))


def flaubert(folder: Folder, load_weights: bool) -> Pretrained:
    """Loads FlauBERT: XLM's layers over Moses' words and byte pairs.

    XLM's layer is the transformer's own, normalised after each part or, with
    `pre_norm`, before it.

    Args:
        folder: Holds `config.json`, `vocab.json`, `merges.txt`, `tokenizer_config.json`
            (if absent: case is kept) and `model.safetensors`.
        load_weights: Whether the weights are read; random ones otherwise.

    Returns:
        The tokenizer and the encoder.

    Raises:
        ExperimentError: If something is missing, damaged or of another kind.

    Reference:
    - [Le et al., 2019](https://arxiv.org/abs/1912.05372)
    """
    for name, expected in {"is_encoder": True, "causal": False}.items():
        if folder.config.get(name, expected) != expected:
            raise ExperimentError(
                f"{folder.path / CONFIG_FILE}: expected {name} = {expected}"
            )
    if folder.config.get("n_langs", 1) > 1 and folder.config.get("use_lang_emb", True):
        raise ExperimentError(
            f"{folder.path / CONFIG_FILE}: expected a model of one language. "
            f"Received: n_langs = {folder.config['n_langs']}"
        )
    width = folder.setting("emb_dim", "hidden_size")
    sizes = Sizes(
        vocabulary=folder.setting("n_words", "vocab_size"),
        positions=folder.setting("max_position_embeddings"),
        width=width,
        layers=folder.setting("n_layers", "num_hidden_layers"),
        heads=folder.setting("n_heads", "num_attention_heads"),
        inner_width=4 * width,
        activation="gelu" if folder.setting("gelu_activation") else "relu",
        epsilon=folder.setting("layer_norm_eps"),
        dropout=folder.setting("dropout"),
        normalize_first=folder.config.get("pre_norm", False),
    )
    vocabulary = folder.json(VOCABULARY_FILE)
    if missing := [x for x in SPECIAL_TOKENS if x not in vocabulary]:
        raise ExperimentError(
            f"{folder.path / VOCABULARY_FILE}: expected {', '.join(missing)} in it"
        )
    said = folder.json("tokenizer_config.json", needed=False)
    tokenizer = FlaubertTokens(
        said.get("do_lowercase", False),
        vocabulary,
        read_merges(folder.file(MERGES_FILE)),
    )
    backbone = encoder(sizes)
    if load_weights:
        tensor = partial(_tensor, folder)
        embeddings = {
            "token_embedding": tensor("embeddings.weight"),
            "position_embedding": tensor("position_embeddings.weight"),
        }
        fill(backbone, MODULES, tensor, embeddings, str(folder.path))
    start, end, padding, _ = (vocabulary[token] for token in SPECIAL_TOKENS)
    return Pretrained(tokenizer, backbone, (start,), (end,), padding, sizes.positions)


def read_merges(path: Path) -> list[tuple[str, str]]:
    """The pairs of a `merges.txt`, one a line; a count may stand behind them.

    Raises:
        ExperimentError: If a line holds no pair.
    """
    merges = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        match line.split(" "):
            case [""] | ["#version:", *_]:
                continue
            case [left, right] | [left, right, _] if left and right:
                merges.append((left, right))
            case _:
                raise ExperimentError(
                    f"{path}:{number}: expected two pieces with a space between. "
                    f"Received: {line!r}"
                )
    return merges


def _tensor(folder: Folder, name: str):
    return folder.tensor(name, f"transformer.{name}")
