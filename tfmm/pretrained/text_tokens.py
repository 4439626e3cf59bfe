"""TextTokens: texts -> the token ids that a pretrained network reads."""

from collections.abc import Sequence

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfmm")
class TextTokens(keras.layers.Layer):
    """Tokenises texts, cuts them, puts the special tokens around and pads.

    Always as a graph, also when called eagerly: keras-hub's tokenizers have a second,
    eager implementation that does not always give the same ids.

    Texts are padded to the longest of the batch, as the network's cost grows with the
    length; to `max_tokens` if `fixed_length`.

    Args:
        tokenizer: Keras layer: string `(batch,)` -> ragged int32 `(batch, tokens)`.
        max_tokens: int. Most ids of a text, the special ones included.
        start: Ids put before a text.
        end: Ids put behind it, also if it is cut.
        padding: int. Id that texts are padded with.
        removed: Regular expression (RE2) of characters taken out first; empty: none.
        lowercase: Whether texts are put into lower case then.
        fixed_length: Whether every text has `max_tokens` ids.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor of shape `(batch,)`, UTF-8.

    Returns:
        `{"token_ids", "padding_mask"}`, int32 tensors of shape `(batch, T)`; the mask
        is 1 for a token and 0 for padding.

    Raises:
        ValueError: If `max_tokens` leaves no room for a token of the text.
    """

    def __init__(
        self,
        tokenizer: keras.layers.Layer,
        max_tokens: int,
        start: Sequence[int],
        end: Sequence[int],
        padding: int,
        removed: str = "",
        lowercase: bool = False,
        fixed_length: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.start = tuple(start)
        self.end = tuple(end)
        self.padding = padding
        self.removed = removed
        self.lowercase = lowercase
        self.fixed_length = fixed_length
        self.room = max_tokens - len(self.start) - len(self.end)
        if self.room < 1:
            raise ValueError(
                f"`max_tokens` must be at least {max_tokens - self.room + 1}, special "
                f"tokens included. Received: {max_tokens}"
            )
        self.as_graph = tf.function(
            self._tokens, input_signature=[tf.TensorSpec([None], tf.string)]
        )

    def build(self, inputs_shape):
        self.built = True

    def _tokens(self, texts):
        if self.removed:
            texts = tf.strings.regex_replace(texts, self.removed, "")
        if self.lowercase:
            texts = tf.strings.lower(texts, encoding="utf-8")
        ids = tf.cast(self.tokenizer(texts), tf.int32)[:, : self.room]
        rows = tf.shape(texts)[0]
        around = [
            tf.tile(tf.constant([special], tf.int32), [rows, 1])
            for special in (self.start, self.end)
        ]
        ids = tf.concat([around[0], ids, around[1]], axis=1)
        length = self.max_tokens if self.fixed_length else None
        token_ids = ids.to_tensor(self.padding, shape=(None, length))
        mask = tf.sequence_mask(ids.row_lengths(), tf.shape(token_ids)[1], tf.int32)
        return {"token_ids": token_ids, "padding_mask": mask}

    def call(self, inputs):
        return self.as_graph(inputs)

    def compute_output_spec(self, inputs):
        shape = (inputs.shape[0], self.max_tokens if self.fixed_length else None)
        return {
            name: keras.KerasTensor(shape, dtype="int32")
            for name in ("token_ids", "padding_mask")
        }

    def get_config(self):
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "max_tokens": self.max_tokens,
            "start": self.start,
            "end": self.end,
            "padding": self.padding,
            "removed": self.removed,
            "lowercase": self.lowercase,
            "fixed_length": self.fixed_length,
        }

    @classmethod
    def from_config(cls, config):
        tokenizer = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**{**config, "tokenizer": tokenizer})
