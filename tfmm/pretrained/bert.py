"""BERT and DistilBERT from a Hugging Face folder."""

from functools import partial

from tfmm.errors import ExperimentError
from tfmm.pretrained.encoder import Pretrained, Sizes, encoder, fill
from tfmm.pretrained.folder import CONFIG_FILE, Folder

SPECIAL_TOKENS = ("[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]")
# Control characters, soft hyphens and joiners, which BERT takes out of a word;
# keras-hub would split the word there.
REMOVED = r"[\p{Cf}\x{fffd}\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}]"
BERT_MODULES = {
    "embeddings_layer_norm": "embeddings.LayerNorm",
    "self_attention_layer/query": "encoder.layer.{}.attention.self.query",
    "self_attention_layer/key": "encoder.layer.{}.attention.self.key",
    "self_attention_layer/value": "encoder.layer.{}.attention.self.value",
    "self_attention_layer/attention_output": "encoder.layer.{}.attention.output.dense",
    "self_attention_layer_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "feedforward_intermediate_dense": "encoder.layer.{}.intermediate.dense",
    "feedforward_output_dense": "encoder.layer.{}.output.dense",
    "feedforward_layer_norm": "encoder.layer.{}.output.LayerNorm",
}
DISTILBERT_MODULES = {
    "embeddings_layer_norm": "embeddings.LayerNorm",
    "self_attention_layer/query": "transformer.layer.{}.attention.q_lin",
    "self_attention_layer/key": "transformer.layer.{}.attention.k_lin",
    "self_attention_layer/value": "transformer.layer.{}.attention.v_lin",
    "self_attention_layer/attention_output": "transformer.layer.{}.attention.out_lin",
    "self_attention_layer_norm": "transformer.layer.{}.sa_layer_norm",
    "feedforward_intermediate_dense": "transformer.layer.{}.ffn.lin1",
    "feedforward_output_dense": "transformer.layer.{}.ffn.lin2",
    "feedforward_layer_norm": "transformer.layer.{}.output_layer_norm",
}


def bert(folder: Folder, load_weights: bool) -> Pretrained:
    """Loads BERT, WordPiece tokenizer included.

    Args:
        folder: Holds `config.json`, `vocab.txt`, `tokenizer_config.json` (if absent:
            lower case) and `model.safetensors`.
        load_weights: Whether the weights are read; random ones otherwise.

    Returns:
        The tokenizer and the encoder.

    Raises:
        ExperimentError: If something is missing, damaged or of another kind.

    Reference:
    - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805)
    """
    sizes = bert_sizes(folder, reserved_positions=0)
    return _pretrained(folder, sizes, load_weights, "bert.", BERT_MODULES)


def distilbert(folder: Folder, load_weights: bool) -> Pretrained:
    """Loads DistilBERT; see `bert`.

    Reference:
    - [Sanh et al., 2019](https://arxiv.org/abs/1910.01108)
    """
    sizes = Sizes(
        vocabulary=folder.setting("vocab_size"),
        positions=folder.setting("max_position_embeddings"),
        width=folder.setting("dim"),
        layers=folder.setting("n_layers"),
        heads=folder.setting("n_heads"),
        inner_width=folder.setting("hidden_dim"),
        activation=folder.activation("activation"),
        epsilon=1e-12,
        dropout=folder.setting("dropout"),
    )
    return _pretrained(folder, sizes, load_weights, "distilbert.", DISTILBERT_MODULES)


def bert_sizes(folder: Folder, reserved_positions: int) -> Sizes:
    """What BERT's and RoBERTa's `config.json` says of the network.

    Args:
        folder: Of a model with BERT's keys.
        reserved_positions: Rows of the position embedding before the first token's.

    Returns:
        The sizes; `positions` without the reserved ones.

    Raises:
        ExperimentError: If a key is missing, or asks for a network of another kind.
    """
    kind = folder.config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise ExperimentError(
            f"{folder.path / CONFIG_FILE}: expected position_embedding_type = "
            f"'absolute'. Received: {kind!r}"
        )
    return Sizes(
        vocabulary=folder.setting("vocab_size"),
        positions=folder.setting("max_position_embeddings") - reserved_positions,
        width=folder.setting("hidden_size"),
        layers=folder.setting("num_hidden_layers"),
        heads=folder.setting("num_attention_heads"),
        inner_width=folder.setting("intermediate_size"),
        activation=folder.activation("hidden_act"),
        epsilon=folder.setting("layer_norm_eps"),
        dropout=folder.setting("hidden_dropout_prob"),
    )


def fill_bert(
    backbone, folder: Folder, prefix: str, modules: dict[str, str], reserved: int
) -> None:
    """Fills an encoder from a checkpoint with BERT's embeddings.

    A text is one segment, so the vector of the first segment is added to every
    position once and for all.

    Args:
        backbone: What `encoder` built.
        folder: Holds the weights.
        prefix: What the names of the tensors start with where the model was saved with
            a head on it.
        modules: See `fill`.
        reserved: Rows of the position embedding before the first token's.
    """
    tensor = partial(_tensor, folder, prefix)
    positions = tensor("embeddings.position_embeddings.weight")[reserved:]
    segments = "embeddings.token_type_embeddings.weight"
    if folder.has_tensor(segments) or folder.has_tensor(prefix + segments):
        positions = positions + tensor(segments)[0]
    embeddings = {
        "token_embedding": tensor("embeddings.word_embeddings.weight"),
        "position_embedding": positions,
    }
    fill(backbone, modules, tensor, embeddings, str(folder.path))


def _tensor(folder: Folder, prefix: str, name: str):
    # The first checkpoints call the scale and the shift of a normalisation so.
    old = name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")
    return folder.tensor(name, prefix + name, old, prefix + old)


def _pretrained(
    folder: Folder,
    sizes: Sizes,
    load_weights: bool,
    prefix: str,
    modules: dict[str, str],
) -> Pretrained:
    import keras_hub  # slow; see the package

    said = folder.json("tokenizer_config.json", needed=False)
    lowercase = said.get("do_lower_case", True)
    strip_accents = said.get("strip_accents")
    vocabulary = folder.lines("vocab.txt")
    if missing := set(SPECIAL_TOKENS) - set(vocabulary):
        raise ExperimentError(
            f"{folder.path / 'vocab.txt'}: expected a token a line, "
            f"{', '.join(sorted(missing))} among them"
        )
    if len(vocabulary) > sizes.vocabulary:
        raise ExperimentError(
            f"{folder.path / 'vocab.txt'}: expected {sizes.vocabulary} tokens at most, "
            f"as config.json says. Received: {len(vocabulary)}"
        )
    # keras-hub's lower case is NFKC_Casefold, which makes m2 of m².
    tokenizer = keras_hub.tokenizers.BertTokenizer(
        vocabulary,
        lowercase=False,
        strip_accents=lowercase if strip_accents is None else strip_accents,
    )
    backbone = encoder(sizes)
    if load_weights:
        fill_bert(backbone, folder, prefix, modules, reserved=0)
    return Pretrained(
        tokenizer,
        backbone,
        start=(vocabulary.index("[CLS]"),),
        end=(vocabulary.index("[SEP]"),),
        padding=vocabulary.index("[PAD]"),
        max_tokens=sizes.positions,
        removed=REMOVED,
        lowercase=lowercase,
    )
