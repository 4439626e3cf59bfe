"""RoBERTa and XLM-RoBERTa from a Hugging Face folder."""

import keras

from tfmm.errors import ExperimentError
from tfmm.pretrained.bert import BERT_MODULES, bert_sizes, fill_bert
from tfmm.pretrained.encoder import Pretrained, encoder
from tfmm.pretrained.folder import Folder

SENTENCE_PIECE_FILE = "sentencepiece.bpe.model"


def roberta(folder: Folder, load_weights: bool) -> Pretrained:
    """Loads RoBERTa, byte-pair tokenizer included.

    Args:
        folder: Holds `config.json`, `vocab.json`, `merges.txt` and
            `model.safetensors`.
        load_weights: Whether the weights are read; random ones otherwise.

    Returns:
        The tokenizer and the encoder.

    Raises:
        ExperimentError: If something is missing, damaged or of another kind.

    Reference:
    - [Liu et al., 2019](https://arxiv.org/abs/1907.11692)
    """
    import keras_hub  # slow; see the package

    vocabulary = folder.json("vocab.json")
    merges = [x for x in folder.lines("merges.txt") if x and x[:8] != "#version"]
    try:
        tokenizer = keras_hub.tokenizers.RobertaTokenizer(vocabulary, merges)
    except ValueError as error:
        raise ExperimentError(
            f"{folder.path}: vocab.json and merges.txt do not fit: {error}"
        ) from None
    return roberta_network(
        folder, load_weights, tokenizer, vocabulary["<s>"], vocabulary["</s>"]
    )


def xlm_roberta(folder: Folder, load_weights: bool) -> Pretrained:
    """Loads XLM-RoBERTa, SentencePiece tokenizer included.

    Args:
        folder: Holds `config.json`, `sentencepiece.bpe.model` and `model.safetensors`.
        load_weights: Whether the weights are read; random ones otherwise.

    Returns:
        The tokenizer and the encoder.

    Raises:
        ExperimentError: If something is missing, damaged or of another kind.

    Reference:
    - [Conneau et al., 2019](https://arxiv.org/abs/1911.02116)
    """
    import keras_hub  # slow; see the package

    model = read_sentence_pieces(folder)
    tokenizer = keras_hub.tokenizers.XLMRobertaTokenizer(model)
    return roberta_network(
        folder,
        load_weights,
        tokenizer,
        tokenizer.start_token_id,
        tokenizer.end_token_id,
    )


def roberta_network(
    folder: Folder,
    load_weights: bool,
    tokenizer: keras.layers.Layer,
    start: int,
    end: int,
) -> Pretrained:
    """Puts RoBERTa's network under a tokenizer.

    Positions count from `pad_token_id + 1`: the rows before are never used.

    Args:
        folder: Holds `config.json` and `model.safetensors`.
        load_weights: Whether the weights are read; random ones otherwise.
        tokenizer: See `Pretrained`.
        start: Id put before a text.
        end: Id put behind it.

    Returns:
        The tokenizer and the encoder.

    Raises:
        ExperimentError: If something is missing, damaged or of another kind.
    """
    padding = folder.setting("pad_token_id")
    sizes = bert_sizes(folder, reserved_positions=padding + 1)
    backbone = encoder(sizes)
    if load_weights:
        fill_bert(backbone, folder, "roberta.", BERT_MODULES, reserved=padding + 1)
    return Pretrained(tokenizer, backbone, (start,), (end,), padding, sizes.positions)


def read_sentence_pieces(folder: Folder) -> bytes:
    """A folder's SentencePiece model; `ExperimentError` if it is none."""
    import sentencepiece  # needed here only

    path = folder.file(SENTENCE_PIECE_FILE)
    model = path.read_bytes()
    try:
        sentencepiece.SentencePieceProcessor(model_proto=model)
    except Exception as error:  # sentencepiece raises what its C++ throws
        raise ExperimentError(
            f"{path}: cut off, or no SentencePiece model "
            f"({(str(error).splitlines() or ['unreadable'])[0]})"
        ) from None
    return model
