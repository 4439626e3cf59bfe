"""The words of a text as the exported graph reads them, without TensorFlow."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

# Unicode's Default_Ignorable_Code_Point, which `unicodedata` does not tell.
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def case_fold(text: str) -> str:
    """Unicode's toNFKC_Casefold: one spelling for what differs in case or form.

    Example:
    >>> case_fold("Ｓｔｒａße")
    'strasse'
    """
    return unicodedata.normalize("NFC", "".join(map(_folded, text)))


@cache
def _folded(character: str) -> str:
    before, now = "", character
    while now != before:
        before = now
        decomposed = unicodedata.normalize("NFD", now).casefold()
        now = _IGNORED.sub("", unicodedata.normalize("NFKC", decomposed))
    return now


@dataclass(frozen=True)
class Cleaning:
    """How a bundle's graph cleans texts, as its `reference.json` says.

    Attributes:
        markup: Pairs of a regular expression and what takes its place, in order.
        words: Unicode's general categories, or their first letters, of the characters
            that words are made of.
        symbols: Those of characters that stand alone.
        signs: Those instead, where punctuation is kept.
    """

    markup: tuple[tuple[re.Pattern[str], str], ...]
    words: tuple[str, ...]
    symbols: tuple[str, ...]
    signs: tuple[str, ...]

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Cleaning":
        """From JSON; KeyError, TypeError, ValueError or re.error if it is no such."""
        pairs = tuple((re.compile(x), str(y)) for x, y in content["markup"])
        kinds = (tuple(map(str, content[x])) for x in ("words", "symbols", "signs"))
        return cls(pairs, *kinds)

    def split(self, text: str, keep_punctuation: bool) -> list[str]:
        """The words of a text.

        Characters that are newer than Python's Unicode tables may be told apart
        from words in another way than the graph does.
        """
        for pattern, replacement in self.markup:
            text = pattern.sub(replacement, text)
        alone = self.signs if keep_punctuation else self.symbols
        parts = []
        for character in case_fold(text):
            category = unicodedata.category(character)
            if category.startswith(alone):
                parts.append(f" {character} ")
            elif category.startswith(self.words):
                parts.append(character)
            else:
                parts.append(" ")
        return "".join(parts).split()


@dataclass(frozen=True)
class Vocabulary:
    """The words that one tower knows, and what it reads of a text.

    Attributes:
        modality: str. The input that it reads.
        words: frozenset of str.
        max_words: int or None. Words read of a text; None for all.
        punctuation, digits, max_word_characters, stop_words: What is taken out of a
            text before its words are looked up.
    """

    modality: str
    words: frozenset[str]
    max_words: int | None
    punctuation: bool
    digits: bool
    max_word_characters: int
    stop_words: frozenset[str]

    def count(self, text: str, cleaning: Cleaning) -> tuple[int, int]:
        """How many words are read of a text, and how many of them are unknown."""
        words: Sequence[str] = cleaning.split(text, not self.punctuation)
        if self.digits:
            words = [word for word in map(_without_digits, words) if word]
        if self.max_word_characters:
            words = [x for x in words if len(x) <= self.max_word_characters]
        words = [word for word in words if word not in self.stop_words]
        words = words[: self.max_words]
        return len(words), sum(word not in self.words for word in words)


def _without_digits(word: str) -> str:
    kept, after_digit = [], False
    for character in word:
        kind = unicodedata.category(character)[0]
        # The marks on a digit go with it.
        after_digit = kind == "N" or (after_digit and kind == "M")
        if not after_digit:
            kept.append(character)
    return "".join(kept)
