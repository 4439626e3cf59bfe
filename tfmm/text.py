"""Text preprocessing as graph functions, shared by training and export."""

from collections import Counter
from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf
import tensorflow_text as tf_text

PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_WORD_ID = 2

# HTML entities that shops' exports hold. An accent's entity becomes a letter and a
# combining mark, which the normalisation below puts together.
ENTITIES = (
    (r"&(?:nbsp|ensp|emsp|thinsp|#160|#xA0);", " "),
    (r"&(?:apos|#0?39|#x27|rsquo|lsquo|#8217);", "'"),
    (r"&(?:quot|#34|ldquo|rdquo|laquo|raquo);", '"'),
    (r"&([A-Za-z])acute;", "\\1\u0301"),
    (r"&([A-Za-z])grave;", "\\1\u0300"),
    (r"&([A-Za-z])circ;", "\\1\u0302"),
    (r"&([A-Za-z])uml;", "\\1\u0308"),
    (r"&([A-Za-z])tilde;", "\\1\u0303"),
    (r"&([A-Za-z])cedil;", "\\1\u0327"),
    (r"&([A-Za-z])ring;", "\\1\u030a"),
    (r"&szlig;", "ß"),
    (r"&([Oo])slash;", "ø"),
    (r"&(?:AE|ae)lig;", "æ"),
    (r"&(?:OE|oe)lig;", "œ"),
    # The letters of Latin-1 by number, decimal or hexadecimal.
    *(
        (rf"&#(?:0*{code}|[xX]0*(?i:{code:x}));", chr(code))
        for code in range(0xC0, 0x100)
    ),
    (r"&(?:amp|#38);", "&"),
)


def clean(texts: tf.Tensor) -> tf.Tensor:
    """Lower-case words with single spaces between them.

    In this order: bytes that are no UTF-8 become U+FFFD; HTML tags go, the
    entities in `ENTITIES` become their letters and others a space; Unicode is
    normalised and case-folded (NFKC_Casefold: a full-width or a decomposed letter
    equals the plain one); everything but letters, marks, digits and symbols such
    as emoji becomes a space; symbols stand alone. Any script works; languages
    written without spaces stay one word.

    Args:
        texts: string tensor of any shape.

    Returns:
        string tensor of the same shape, UTF-8.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    texts = tf.strings.regex_replace(texts, r"<[A-Za-z/!][^<>]*>", " ")
    for pattern, replacement in ENTITIES:
        texts = tf.strings.regex_replace(texts, pattern, replacement)
    texts = tf.strings.regex_replace(texts, r"&#?[A-Za-z0-9]{2,8};", " ")
    texts = tf_text.case_fold_utf8(texts)
    texts = tf.strings.regex_replace(texts, r"[^\p{L}\p{M}\p{N}\p{So}]+|\x{FE0F}", " ")
    texts = tf.strings.regex_replace(texts, r"(\p{So})", r" \1 ")
    texts = tf.strings.regex_replace(texts, r"\s+", " ")
    return tf.strings.strip(texts)


def present(texts: tf.Tensor) -> tf.Tensor:
    """bool tensor of the same shape: whether `clean` leaves anything of a text."""
    return tf.strings.length(clean(texts)) > 0


def build_vocabulary(
    texts: Iterable[str], max_words: int, min_count: int = 1, chunk: int = 4096
) -> list[str]:
    """The words of `texts`, the frequent first, ties in alphabetical order.

    Args:
        texts: Raw texts; they are cleaned as the graph cleans them.
        max_words: Most words to return.
        min_count: Words seen less often are left out.
        chunk: Texts cleaned at a time.

    Returns:
        At most `max_words` words. Position `i` gets id `i + 2` in `WordIds`.

    Example:
    >>> build_vocabulary(["Red lamp", "red &amp; blue"], max_words=2)
    ['red', 'blue']
    """
    counts: Counter[str] = Counter()
    texts = list(texts)
    for start in range(0, len(texts), chunk):
        cleaned = clean(tf.constant(texts[start : start + chunk], tf.string))
        for text in cleaned.numpy():
            counts.update(text.decode("utf-8").split())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, count in ranked if count >= min_count][:max_words]


@keras.saving.register_keras_serializable(package="tfmm")
class WordIds(keras.layers.Layer):
    """Turns raw texts into word ids, cut and padded to `max_words`.

    Texts are cleaned by `clean` and split at spaces. Id 0 is padding, 1 a word
    that is not in the vocabulary, `i + 2` the vocabulary's word `i`.

    Args:
        vocabulary: Words, each once.
        max_words: int. Words read of a text; at least 1.
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor of shape `(batch,)`.

    Returns:
        int32 tensor of shape `(batch, max_words)`.

    Raises:
        ValueError: If `max_words` is below 1 or a word comes twice.

    Example:
    >>> layer = WordIds(["lamp", "red"], max_words=3)
    >>> layer(tf.constant(["Red LAMP", "a lamp, red and tall"])).numpy().tolist()
    [[3, 2, 0], [1, 2, 3]]
    """

    def __init__(self, vocabulary: Sequence[str], max_words: int, **kwargs):
        super().__init__(**kwargs)
        if max_words < 1:
            raise ValueError(f"`max_words` must be at least 1. Received: {max_words}")
        self.vocabulary = list(vocabulary)
        self.max_words = max_words
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("`vocabulary` must hold each word once.")
        # Lifted out of any graph that a model is being built in, as a variable is.
        with tf.init_scope():
            words = tf.constant(self.vocabulary, tf.string)
            ids = tf.range(len(self.vocabulary), dtype=tf.int32) + FIRST_WORD_ID
            self.table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(words, ids), UNKNOWN_ID
            )

    @property
    def num_ids(self) -> int:
        """How many ids there are, padding and unknown included."""
        return len(self.vocabulary) + FIRST_WORD_ID

    def call(self, inputs):
        words = tf.strings.split(clean(inputs))
        ids = self.table.lookup(words.values)
        return words.with_values(ids).to_tensor(
            default_value=PADDING_ID, shape=(None, self.max_words)
        )

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((*inputs.shape, self.max_words), dtype="int32")

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "max_words": self.max_words,
        }
