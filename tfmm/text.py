"""Text preprocessing as graph functions, shared by training and export."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tensorflow_text as tf_text

from tfmm.errors import ExperimentError, did_you_mean

STOP_WORD_LANGUAGES = ("english",)

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
# Regular expressions and what takes their place, one after the other. Python's `re`
# reads them as RE2 does: an export carries them for those that have no TensorFlow.
MARKUP = (
    (r"<[A-Za-z/!][^<>]*>", " "),
    *ENTITIES,
    (r"&#?[A-Za-z0-9]{2,8};", " "),
)

# General categories of the characters that words are made of.
WORD_CATEGORIES = ("L", "M", "N")
# Of those that stand alone: emoji and the like, or all marks and signs.
SYMBOL_CATEGORIES = ("So",)
SIGN_CATEGORIES = ("P", "S")


def without_markup(texts: tf.Tensor) -> tf.Tensor:
    """Texts without HTML: the words, case and signs stay as they are.

    Bytes that are no UTF-8 become U+FFFD; tags become a space; the entities in
    `ENTITIES` become their letters, others a space.

    Args:
        texts: string tensor of any shape.

    Returns:
        string tensor of the same shape, UTF-8.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
    for pattern, replacement in MARKUP:
        texts = tf.strings.regex_replace(texts, pattern, replacement)
    return texts


def clean(texts: tf.Tensor, keep_punctuation: bool = False) -> tf.Tensor:
    """Lower-case words with single spaces between them.

    In this order: bytes that are no UTF-8 become U+FFFD; HTML tags go, the
    entities in `ENTITIES` become their letters and others a space; Unicode is
    normalised and case-folded (NFKC_Casefold: a full-width or a decomposed letter
    equals the plain one); everything but letters, marks, digits and symbols such
    as emoji becomes a space; symbols stand alone. Any script works; languages
    written without spaces stay one word.

    Args:
        texts: string tensor of any shape.
        keep_punctuation: Whether punctuation, currency and mathematical signs stay,
            each standing alone as symbols do.

    Returns:
        string tensor of the same shape, UTF-8.
    """
    symbols = _classes(SIGN_CATEGORIES if keep_punctuation else SYMBOL_CATEGORIES)
    texts = tf_text.case_fold_utf8(without_markup(texts))
    unwanted = rf"[^{_classes(WORD_CATEGORIES)}{symbols}]+|\x{{FE0F}}"
    texts = tf.strings.regex_replace(texts, unwanted, " ")
    texts = tf.strings.regex_replace(texts, rf"([{symbols}])", r" \1 ")
    texts = tf.strings.regex_replace(texts, r"\s+", " ")
    return tf.strings.strip(texts)


def _classes(categories: Sequence[str]) -> str:
    return "".join(rf"\p{{{category}}}" for category in categories)


def present(texts: tf.Tensor) -> tf.Tensor:
    """bool tensor of the same shape: whether `clean` leaves anything of a text."""
    return tf.strings.length(clean(texts)) > 0


@dataclasses.dataclass(frozen=True)
class Removal:
    """What is taken out of a text before its words are counted.

    Attributes:
        punctuation: Marks and signs; see `clean`. Else each is a word.
        digits: Every digit, also inside a word: `mp3` becomes `mp`, `12` nothing.
        max_word_characters: Words of more Unicode characters go; 0: none.
        stop_words: Words that go, as `clean` writes them.
    """

    punctuation: bool = True
    digits: bool = False
    max_word_characters: int = 0
    stop_words: tuple[str, ...] = ()


def split_words(texts: tf.Tensor, removal: Removal = Removal()) -> tf.RaggedTensor:
    """Cleans texts by `clean` and splits them into the words that stay.

    Punctuation goes first, then digits, then long words, then stop words: `a4`
    without digits is the stop word `a`.

    Args:
        texts: string tensor `(batch,)`, raw.
        removal: What goes.

    Returns:
        Ragged string tensor `(batch, words)`; a text of which nothing stays has none.

    Example:
    >>> removal = Removal(digits=True, stop_words=("and", "the"))
    >>> split_words(tf.constant(["The 2 lamps and 1 rug", "the"]), removal).to_list()
    [[b'lamps', b'rug'], []]
    """
    cleaned = clean(texts, keep_punctuation=not removal.punctuation)
    if removal.digits:
        cleaned = tf.strings.regex_replace(cleaned, r"\p{N}\p{M}*", "")
    words = tf.strings.split(cleaned)
    if removal.max_word_characters:
        characters = tf.strings.length(words.values, unit="UTF8_CHAR")
        stays = characters <= removal.max_word_characters
        words = tf.ragged.boolean_mask(words, words.with_values(stays))
    if removal.stop_words:
        # A pattern is part of the graph; a table would have to be saved beside it.
        pattern = "|".join(removal.stop_words)
        stays = ~tf.strings.regex_full_match(words.values, pattern)
        words = tf.ragged.boolean_mask(words, words.with_values(stays))
    return words


def stop_words(source: str) -> tuple[str, ...]:
    """The stop words of a language or of a file, as `clean` writes them.

    `don't` is two words here as it is in a text, `don` and `t`.

    Args:
        source: `english` (scikit-learn's list), or the path of a UTF-8 file with a
            word a line.

    Returns:
        Words in alphabetical order, each once.

    Raises:
        ExperimentError: If there is no such language and no such file, or the file
            holds no word.

    Example:
    >>> [word for word in stop_words("english") if word.startswith("th")][:3]
    ['than', 'that', 'the']
    """
    if source in STOP_WORD_LANGUAGES:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        raw = sorted(ENGLISH_STOP_WORDS)
    else:
        try:
            raw = Path(source).read_text(encoding="utf-8-sig").splitlines()
        except OSError:
            raise ExperimentError(
                f"stop_words = {source!r} is no file that can be read and no language"
                f"{did_you_mean(source, STOP_WORD_LANGUAGES)}"
            ) from None
        except UnicodeDecodeError:
            raise ExperimentError(
                f"{source}: expected stop words in UTF-8, one a line"
            ) from None
    words = split_words(tf.constant(raw, tf.string)).values.numpy()
    if not len(words):
        raise ExperimentError(f"{source}: expected stop words, one a line; it has none")
    return tuple(sorted({word.decode("utf-8") for word in words}))


def build_vocabulary(
    texts: Iterable[str],
    max_words: int,
    min_count: int = 1,
    removal: Removal = Removal(),
    chunk: int = 4096,
) -> list[str]:
    """The words of `texts`, the frequent first, ties in alphabetical order.

    Args:
        texts: Raw texts; they are cleaned and split as the graph does it.
        max_words: Most words to return.
        min_count: Words seen less often are left out.
        removal: What is taken out of the texts first.
        chunk: Texts cleaned at a time.

    Returns:
        At most `max_words` words. Position `i` gets id `i + 2` in `WordIds`.

    Example:
    >>> build_vocabulary(["Red lamp", "red &amp; blue"], max_words=2)
    ['red', 'blue']
    """
    counts: Counter[bytes] = Counter()
    texts = list(texts)
    for start in range(0, len(texts), chunk):
        part = tf.constant(texts[start : start + chunk], tf.string)
        counts.update(split_words(part, removal).values.numpy())
    # The order of UTF-8 bytes is that of the characters.
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:max_words]
    return [word.decode("utf-8") for word, count in ranked if count >= min_count]


@keras.saving.register_keras_serializable(package="tfmm")
class WordIds(keras.layers.Layer):
    """Turns raw texts into word ids, cut and padded to `max_words`.

    Texts are cleaned and split by `split_words`; what `removal` names does not count
    as a word. Id 0 is padding, 1 a word that is not in the vocabulary, `i + 2` the
    vocabulary's word `i`.

    Args:
        vocabulary: Words, each once.
        max_words: int. Words read of a text; at least 1.
        removal: `Removal`, or a dict of its attributes; punctuation by default.
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

    def __init__(
        self,
        vocabulary: Sequence[str],
        max_words: int,
        removal: Removal | Mapping[str, Any] = Removal(),
        **kwargs,
    ):
        super().__init__(**kwargs)
        if max_words < 1:
            raise ValueError(f"`max_words` must be at least 1. Received: {max_words}")
        self.vocabulary = list(vocabulary)
        self.max_words = max_words
        if not isinstance(removal, Removal):
            removal = Removal(**{**removal, "stop_words": tuple(removal["stop_words"])})
        self.removal = removal
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
        words = split_words(inputs, self.removal)
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
            "removal": dataclasses.asdict(self.removal),
        }
