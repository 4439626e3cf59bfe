"""Findings about the texts of one modality, and about rows of tables."""

import unicodedata
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from tfmm import text
from tfmm.audit import shared, twins
from tfmm.audit.findings import SHOWN_LETTERS, Finding, Row, rate, rows_of
from tfmm.audit.twins import Twins
from tfmm.catalog import CELL_SEPARATOR, Catalog

CHUNK = 4_096
LANGUAGE_SAMPLE = 2_000  # texts whose language is asked
MIN_LETTERS = 12  # of a text whose language is asked
SURE = 0.7  # confidence from which a language counts
MIN_RATE = 0.01  # languages that fewer of the sure texts have are taken for mistakes
MOSTLY = 0.8  # a modality with so much of one script or language has that one


def find(
    catalog: Catalog, name: str
) -> tuple[list[Finding], dict[str, float], dict[str, Any], Twins]:
    """What there is to say of a text modality; as `tfmm.audit.images.find` does."""
    texts = catalog.texts[name]
    words = cleaned(texts)
    of = int((words != "").sum())
    alike = twins.of_texts(words)
    real = alike.without(shared.placeholders(catalog, alike))
    counts = np.char.count(words.astype(str), " ") + 1
    long = real.without(counts < shared.MIN_WORDS)
    twin_finding, twin_rate = shared.twins_in_test(catalog, long, name, "text")
    scripts = np.array([script_of(x) for x in texts], object)
    languages = languages_of(texts)
    number = len(set(words.tolist()) - {""})
    findings = [
        twin_finding,
        shared.placeholder_finding(catalog, alike, name, "text"),
        *shared.sharing(catalog, real, name, "text"),
        _missing(catalog, name, "text"),
        _constant(catalog, name, words, number),
        _odd(catalog, name, "script", dict(enumerate(scripts))),
        _odd(catalog, name, "language", languages),
    ]
    about: dict[str, Any] = {"kind": "text", "present": of, "distinct": number}
    if of:
        about["words"] = {
            key: int(np.quantile(counts[words != ""], at, method="nearest"))
            for key, at in (("p5", 0.05), ("median", 0.5), ("p95", 0.95))
        }
    about["scripts"] = _shares(x for x in scripts if x)
    about["languages"] = _shares(languages.values())
    about["languages_told_of"] = len(languages)
    return findings, {"text_twin_rate": twin_rate}, about, long


def find_in_table(catalog: Catalog, name: str) -> tuple[list[Finding], dict[str, Any]]:
    """What there is to say of a modality of kind `table`."""
    rows = catalog.texts[name]
    of = int((rows != "").sum())
    about = {"kind": "table", "present": of, "columns": catalog.num_cells[name]}
    found = [_missing(catalog, name, "row")]
    whole = [row.split(CELL_SEPARATOR) for row in rows if row]
    constant = [
        Row(f"column {place + 1}", (), f"always {column[0]!r:.80}")
        for place, column in enumerate(zip(*whole, strict=True))
        if len(set(column)) == 1
    ]
    found.append(
        Finding(
            *("constant_columns", name, "look", "always the same"),
            *(len(constant), catalog.num_cells[name], "columns"),
            "They teach nothing; leave them out of the modality's columns.",
            constant,
        )
    )
    return found, about


def cleaned(texts: np.ndarray) -> np.ndarray:
    """`(n,)` strings as `tfmm.text.clean` leaves them."""
    parts = np.split(texts, range(CHUNK, len(texts), CHUNK))
    found = [text.clean(tf.constant(x, tf.string)).numpy() for x in parts]
    return np.array([x.decode() for x in np.concatenate(found)], object)


@cache
def _script_of_letter(letter: str) -> str:
    # Unicode's names begin with the script: CYRILLIC SMALL LETTER A.
    name = unicodedata.name(letter, "") if letter.isalpha() else ""
    return name.split(" ")[0].split("-")[0].capitalize()


def script_of(words: str) -> str:
    """The script that most letters of a text are of; `""` without letters.

    Example:
    >>> script_of("Красная лампа (red)"), script_of("12 %")
    ('Cyrillic', '')
    """
    if words.isascii():
        return "Latin" if any(map(str.isalpha, words)) else ""
    counts = Counter(map(_script_of_letter, unicodedata.normalize("NFKC", words)))
    del counts[""]
    return max(counts, key=counts.__getitem__) if counts else ""


def languages_of(texts: np.ndarray) -> dict[int, str]:
    """The languages of some texts, where they can be told.

    Product names are short, and half of their words are names. So only texts that
    py3langid is sure of count, and languages that hardly any of those has are taken
    for mistakes.

    Args:
        texts: `(n,)` raw texts, of which `LANGUAGE_SAMPLE` spread evenly are asked.

    Returns:
        Position -> ISO 639 code.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    long_enough = [
        row for row, x in enumerate(texts) if sum(map(str.isalpha, x)) >= MIN_LETTERS
    ]
    if not long_enough:
        return {}
    places = np.linspace(0, len(long_enough) - 1, LANGUAGE_SAMPLE).astype(int)
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    sure = {}
    for row in sorted({long_enough[x] for x in places}):
        language, confidence = identifier.classify(texts[row].lower())
        if confidence >= SURE:
            sure[row] = language
    counts = Counter(sure.values())
    return {
        row: language
        for row, language in sure.items()
        if counts[language] >= max(2, MIN_RATE * len(sure))
    }


def _missing(catalog: Catalog, name: str, thing: str) -> Finding:
    missing = np.flatnonzero(catalog.texts[name] == "")
    of = len(catalog)
    return Finding(
        *("missing_texts", name, "look" if len(missing) > of / 2 else "note"),
        f"no {thing}, or one without a word",
        *(len(missing), of, "products"),
        "Heads answer without it, by the other modalities.",
        rows_of(catalog, missing),
    )


def _constant(catalog: Catalog, name: str, words: np.ndarray, number: int) -> Finding:
    rows = np.flatnonzero(words != "") if number == 1 else np.zeros(0, int)
    return Finding(
        *("constant_texts", name, "fix", "all the very same text"),
        *(len(rows), int((words != "").sum()), "products"),
        "Nothing can be learned from it: leave the modality out.",
        rows_of(catalog, rows, lambda _, row: catalog.texts[name][row][:SHOWN_LETTERS]),
    )


def _odd(catalog: Catalog, name: str, what: str, found: dict[int, str]) -> Finding:
    """Texts in another script or language than most."""
    told = {row: x for row, x in found.items() if x}
    counts = Counter(told.values()).most_common()
    main = counts[0][0] if counts else ""
    other = [row for row, x in told.items() if x != main]
    mixed = bool(counts) and rate(counts[0][1], len(told)) < MOSTLY
    others = ", ".join(f"{x} {n}" for x, n in counts[1:5])
    return Finding(
        *(f"other_{what}s", name, "look" if other else "note"),
        f"in another {what} than {main or 'most'}" + (f": {others}" if others else ""),
        *(len(other), len(told), "texts that tell"),
        (
            f"No {what} has most of the texts. A tower that reads several, such as a "
            "multilingual transformer, may be worth its time; split by it and compare."
            if mixed
            else f"Few examples teach little: are they wanted in this catalog? {what}s "
            "that only some categories have become a short cut.".capitalize()
        ),
        rows_of(
            catalog,
            other,
            lambda _, row: f"{told[row]}: {catalog.texts[name][row][:SHOWN_LETTERS]}",
        ),
    )


def _shares(found) -> dict[str, int]:
    return dict(Counter(found).most_common(10))
