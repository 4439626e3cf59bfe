"""NgramIds: raw texts -> the rows of a table that their words and n-grams own."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfmm.text import FIRST_WORD_ID, PADDING_ID, clean

END_ID = 1
END = "</s>"

# FNV-1a with 32 bits, by which fastText hashes.
HASH_START = 2_166_136_261
HASH_FACTOR = 16_777_619
MOST_BYTES = 4  # of a character in UTF-8
LAST_CONTINUATION = -65  # as int8: bytes up to it continue a character


@keras.saving.register_keras_serializable(package="tfmm")
class NgramIds(keras.layers.Layer):
    """Turns raw texts into row ids of their words and n-grams, as fastText does.

    Texts are cleaned by `tfmm.text.clean` and split at spaces; `</s>` ends each. A
    text has these rows, repeated ones as often as they occur:

    - of each word of the vocabulary, its own; other words have none;
    - of the end, its own, so that no text is without rows;
    - of each n-gram of 2 to `word_ngrams` words, the end counted as a word, a bucket;
    - of each n-gram of `min_character_ngram` to `max_character_ngram` Unicode
      characters of `<word>`, a bucket; `<` and `>` alone are none. `love` with 3 to 6
      has `<lo <lov <love <love> lov love love> ove ove> ve>`.

    N-grams of characters fall into the very buckets that fastText puts them in
    (32-bit FNV-1a of the bytes, sign-extended); those of words into others.

    Row 0 is padding, 1 the end, then come the words, then the buckets. How far texts
    are padded depends on the longest of the batch.

    Args:
        vocabulary: Cleaned words, each once. Position `i` has row `i + 2`.
        buckets: int. Buckets that n-grams are hashed to; may be 0 if there are none.
        word_ngrams: int. Words of the longest n-gram of words; 1 for none.
        min_character_ngram: int. Characters of the shortest n-gram.
        max_character_ngram: int. Characters of the longest n-gram; 0 for none.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor `(batch,)`, UTF-8.

    Returns:
        int32 tensor `(batch, longest)`, 0 where padded; padding comes last.

    Raises:
        ValueError: If a word comes twice, or there are n-grams and no buckets.

    Example:
    >>> layer = NgramIds(["red", "lamp"], 10, max_character_ngram=0)
    >>> layer(tf.constant(["Red LAMP", "a lamp, red and tall"])).numpy().tolist()
    [[2, 3, 1], [3, 2, 1]]

    Reference:
    - [Bojanowski et al., 2016](https://arxiv.org/abs/1607.04606), section 3.2
    - [Joulin et al., 2016](https://arxiv.org/abs/1607.01759)
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        buckets: int,
        word_ngrams: int = 1,
        min_character_ngram: int = 3,
        max_character_ngram: int = 6,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary = list(vocabulary)
        self.buckets = buckets
        self.word_ngrams = word_ngrams
        self.min_character_ngram = min_character_ngram
        self.max_character_ngram = max_character_ngram
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("`vocabulary` must hold each word once.")
        if buckets < 1 and (word_ngrams > 1 or max_character_ngram):
            raise ValueError(f"`buckets` must be at least 1. Received: {buckets}")
        # Lifted out of any graph that a model is being built in, as a variable is.
        with tf.init_scope():
            # With the end, which no text can spell, as a table must hold something.
            words = tf.constant([END, *self.vocabulary], tf.string)
            ids = tf.range(len(self.vocabulary) + 1, dtype=tf.int32) + END_ID
            self.table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(words, ids), PADDING_ID
            )

    @property
    def num_rows(self) -> int:
        """How many rows there are: padding, the end, words and buckets."""
        return FIRST_WORD_ID + len(self.vocabulary) + self.buckets

    def call(self, inputs):
        words = tf.strings.split(clean(inputs))
        ids = words.with_values(self.table.lookup(words.values))
        parts = [
            tf.ragged.boolean_mask(ids, ids.with_values(ids.values != PADDING_ID)),
            tf.fill([words.nrows(), 1], END_ID),
        ]
        if self.word_ngrams > 1:
            parts.append(self._word_ngrams(words))
        if self.max_character_ngram:
            parts.append(self._character_ngrams(words))
        return tf.concat(parts, axis=1).to_tensor(default_value=PADDING_ID)

    def _word_ngrams(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        ended = tf.concat([words, tf.fill([words.nrows(), 1], END)], axis=1)
        widths = tuple(range(2, self.word_ngrams + 1))
        ngrams = tf.strings.ngrams(ended, widths)
        hashes = tf.strings.to_hash_bucket_fast(ngrams.values, self.buckets)
        return ngrams.with_values(self._bucket_rows(hashes))

    def _character_ngrams(self, words: tf.RaggedTensor) -> tf.RaggedTensor:
        """Rows `(batch, n-grams)`; all n-grams of one length are hashed at once."""
        marked = tf.strings.reduce_join(tf.strings.join(["<", words.values, ">"]))
        data = tf.io.decode_raw(marked, tf.int8)
        starts = tf.where(data > LAST_CONTINUATION)[:, 0]
        ends = tf.concat([starts[1:], [tf.size(data, tf.int64)]], axis=0)
        first = tf.gather(data, starts)
        # `clean` leaves no `<` or `>` in a word.
        is_mark = (first == ord("<")) | (first == ord(">"))
        word = tf.cumsum(tf.cast(first == ord("<"), tf.int32)) - 1
        # Filled up, so that every character has `max_character_ngram` ones to follow.
        count = tf.size(starts)
        beyond = self.max_character_ngram
        word_of = tf.pad(word, [[0, beyond]], constant_values=-1)
        sizes = tf.pad(ends - starts, [[0, beyond]])
        character_bytes = [
            tf.pad(tf.gather(data, tf.minimum(starts + place, ends - 1)), [[0, beyond]])
            for place in range(MOST_BYTES)
        ]
        hashes = tf.fill([count], tf.constant(HASH_START, tf.uint32))
        buckets, is_ngram = [], []
        for length in range(1, self.max_character_ngram + 1):
            last = slice(length - 1, length - 1 + count)
            for place, byte in enumerate(character_bytes):
                # From int8, so that the sign is extended, as fastText has it.
                mixed = tf.bitwise.bitwise_xor(hashes, tf.cast(byte[last], tf.uint32))
                mixed *= tf.constant(HASH_FACTOR, tf.uint32)
                hashes = tf.where(sizes[last] > place, mixed, hashes)
            if length < self.min_character_ngram:
                continue
            within = word_of[last] == word
            is_ngram.append(within & ~is_mark if length == 1 else within)
            buckets.append(hashes % tf.constant(self.buckets, tf.uint32))
        kept = tf.stack(is_ngram, axis=1)
        text = tf.gather(words.value_rowids(), word)[:, None]
        return tf.RaggedTensor.from_value_rowids(
            self._bucket_rows(tf.stack(buckets, axis=1)[kept]),
            tf.broadcast_to(text, tf.shape(kept))[kept],
            nrows=words.nrows(),
        )

    def _bucket_rows(self, buckets: tf.Tensor) -> tf.Tensor:
        return tf.cast(buckets, tf.int32) + (FIRST_WORD_ID + len(self.vocabulary))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((*inputs.shape, None), dtype="int32")

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "buckets": self.buckets,
            "word_ngrams": self.word_ngrams,
            "min_character_ngram": self.min_character_ngram,
            "max_character_ngram": self.max_character_ngram,
        }
