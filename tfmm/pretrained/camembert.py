"""CamemBERT from a Hugging Face folder."""

from pathlib import Path

import keras
import tensorflow as tf
import tensorflow_text as tf_text

from tfmm.pretrained.encoder import Pretrained
from tfmm.pretrained.folder import Folder
from tfmm.pretrained.roberta import (
    SENTENCE_PIECE_FILE,
    read_sentence_pieces,
    roberta_network,
)

# fairseq put <s>NOTUSED, <pad>, </s>NOTUSED and <unk> before the SentencePiece model's
# own pieces, of which the first is <unk> again and not used.
OFFSET = 4
UNKNOWN_ID = 3


@keras.saving.register_keras_serializable(package="tfmm")
class CamembertTokens(keras.layers.Layer):
    """Turns texts into CamemBERT's token ids, without the special ones.

    SentencePiece's piece `i` has id `i + 4`, an unknown piece (0) has id 3. In
    XLM-RoBERTa the shift is 1.

    The model is kept beside the weights in a `.keras` file.

    Args:
        model: bytes. A serialised SentencePiece model; None for a layer whose model
            comes from a `.keras` file.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor `(batch,)`, UTF-8.

    Returns:
        Ragged int32 tensor `(batch, tokens)`.

    Reference:
    - [Martin et al., 2019](https://arxiv.org/abs/1911.03894)
    """

    def __init__(self, model: bytes | None = None, **kwargs):
        super().__init__(**kwargs)
        if model is not None:
            self._take(model)

    def _take(self, model: bytes) -> None:
        self.model = model
        with tf.init_scope():
            self.pieces = tf_text.SentencepieceTokenizer(model, tf.int32)

    def piece_id(self, piece: str) -> int:
        """The id of a piece; that of the unknown one if there is none."""
        with tf.init_scope():
            number = int(self.pieces.string_to_id(piece))
        return number + OFFSET if number else UNKNOWN_ID

    def call(self, inputs):
        pieces = self.pieces.tokenize(inputs)
        ids = tf.where(pieces.values == 0, UNKNOWN_ID, pieces.values + OFFSET)
        return pieces.with_values(ids)

    def get_config(self):
        return super().get_config()  # the model is kept as a file

    def save_assets(self, dir_path):
        Path(dir_path, SENTENCE_PIECE_FILE).write_bytes(self.model)

    def load_assets(self, dir_path):
        self._take(Path(dir_path, SENTENCE_PIECE_FILE).read_bytes())


def camembert(folder: Folder, load_weights: bool) -> Pretrained:
    """Loads CamemBERT: RoBERTa's network over SentencePiece.

    Args:
        folder: Holds `config.json`, `sentencepiece.bpe.model` and `model.safetensors`.
        load_weights: Whether the weights are read; random ones otherwise.

    Returns:
        The tokenizer and the encoder.

    Raises:
        ExperimentError: If something is missing, damaged or of another kind.

    Reference:
    - [Martin et al., 2019](https://arxiv.org/abs/1911.03894)
    """
    tokenizer = CamembertTokens(read_sentence_pieces(folder))
    start, end = tokenizer.piece_id("<s>"), tokenizer.piece_id("</s>")
    return roberta_network(folder, load_weights, tokenizer, start, end)
