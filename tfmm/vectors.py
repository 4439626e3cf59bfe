"""Word vectors that were trained elsewhere, read from a file as a stream.

Text files (GloVe's, word2vec's, fastText's `.vec`) hold a word and its numbers a
line, separated by spaces; all but GloVe's open with a line of two numbers, how many
vectors there are and how many numbers each has. word2vec's binary files (`.bin`) open
with the same line; then come a word, a space, and little-endian 32-bit numbers.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfmm.errors import ExperimentError

MAX_LINE_BYTES = 1 << 20
MAX_WORD_BYTES = 4096
MAX_HEADER_BYTES = 100
FLOAT32_MAX = float(np.finfo(np.float32).max)

# How files begin that are often taken for word vectors.
OTHER_FILES = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\xba\x16\x4f\x2f": "a fastText model; use its .vec file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}


@dataclass(frozen=True)
class WordVectors:
    """The vectors that a file has for a vocabulary of `V` words.

    Attributes:
        values: float32 `(V, dim)`; zeros where not covered.
        covered: bool `(V,)`: whether the file has the word.
    """

    values: np.ndarray
    covered: np.ndarray


def read(path: Path, vocabulary: Sequence[str], dim: int) -> WordVectors:
    """Reads the vectors of the words of a vocabulary.

    A word of the file is the vocabulary's if it is the same, or else if it is the same
    in lower case (NFKC and case-folded). The same word counts before one in upper
    case; of several the first counts. Memory grows with the vocabulary, not with the
    file. Numbers of words that are not kept are not looked at.

    A file without a first line of counts that was cut off right behind a line cannot
    be told from a whole one.

    Args:
        path: Text, or binary if its name ends in `.bin`.
        vocabulary: Words in lower case, as `tfmm.text` makes them.
        dim: Numbers in a vector.

    Returns:
        Vectors in the order of the vocabulary.

    Raises:
        ExperimentError: If the file is missing, is cut off, holds vectors of another
            size or none at all, a number that is not finite, or no word of the
            vocabulary. The message names the line or the byte.
    """
    rows = {word: row for row, word in enumerate(vocabulary)}
    values = np.zeros((len(vocabulary), dim), np.float32)
    covered = np.zeros(len(vocabulary), bool)
    exact = np.zeros(len(vocabulary), bool)
    try:
        with path.open("rb") as file:
            _refuse_other_files(path, file)
            is_binary = path.suffix == ".bin"
            entries = (_binary if is_binary else _text)(path, file, dim)
            for where, word, numbers in entries:
                row = rows.get(word)
                same = row is not None
                if not same:
                    row = rows.get(unicodedata.normalize("NFKC", word.casefold()))
                if row is None or exact[row] or (covered[row] and not same):
                    continue
                values[row] = _finite(where, numbers)
                covered[row], exact[row] = True, same
    except OSError as error:
        raise ExperimentError(
            f"{path}: expected a file of word vectors: {error.strerror}"
        ) from None
    if not covered.any():
        raise ExperimentError(
            f"{path}: expected vectors of the {len(vocabulary):,} words of the "
            "training texts. Received: a file with none of them"
        )
    return WordVectors(values, covered)


def _refuse_other_files(path: Path, file: BinaryIO) -> None:
    start = file.read(4)
    file.seek(0)
    for magic, what in OTHER_FILES.items():
        if start.startswith(magic):
            raise ExperimentError(f"{path}: expected word vectors. Received: {what}")


def _text(path: Path, file: BinaryIO, dim: int) -> Iterator[tuple[str, str, bytes]]:
    """Yields where, word and numbers of every line, the numbers not yet parsed."""
    first = file.readline(MAX_LINE_BYTES)
    header = _header(first)
    if header:
        _check_dim(path, header[1], dim)
    else:
        file.seek(0)
    number, num_vectors = int(header is not None), 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        where = f"{path}:{number}"
        text = line.rstrip(b" \t\r\n")
        # A word may hold spaces (GloVe 840B has some), so numbers count from the right.
        spaces = text.count(b" ")
        if not line.endswith(b"\n"):
            raise ExperimentError(
                f"{where}: expected a line that ends in a line break; the file is cut "
                f"off, or not of word vectors. Received: {_shortened(line)}"
            )
        if num_vectors == 0 and not header:
            _check_dim(path, _numbers_at_end(where, text), dim)
        if spaces < dim:
            raise ExperimentError(
                f"{where}: expected a word and {dim} numbers. "
                f"Received: {_shortened(text)}, {spaces} numbers"
            )
        num_vectors += 1
        word = text.rsplit(b" ", dim)[0] if spaces > dim else text.partition(b" ")[0]
        yield where, word.decode("utf-8", "replace"), text[len(word) + 1 :]
    if header and num_vectors != header[0]:
        what = "the file is cut off" if num_vectors < header[0] else "it holds more"
        raise ExperimentError(
            f"{path}: expected {header[0]:,} vectors, as its first line says; {what}. "
            f"Received: {num_vectors:,}"
        )
    if not num_vectors:
        raise ExperimentError(f"{path}: expected word vectors. Received: none")


def _binary(
    path: Path, file: BinaryIO, dim: int
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields where, word and numbers of every vector."""
    first = file.readline(MAX_HEADER_BYTES)
    header = _header(first)
    if not header:
        raise ExperimentError(
            f"{path}: expected word2vec's binary format, a first line with the count "
            f"and the size of its vectors. Received: {_shortened(first)}"
        )
    expected, found = header
    _check_dim(path, found, dim)
    size = 4 * dim
    for position in range(expected):
        start = file.tell()
        where = f"{path}: byte {start:,}"
        word = bytearray()
        # word2vec.c ends a vector with a line break, gensim does not.
        while (byte := file.read(1)) not in (b" ", b"") and len(word) < MAX_WORD_BYTES:
            word += byte
        if byte not in (b" ", b""):
            raise ExperimentError(
                f"{where}: expected a word and a space; the file is damaged. "
                f"Received: {_shortened(bytes(word))}"
            )
        numbers = file.read(size)
        if len(numbers) < size:
            raise ExperimentError(
                f"{where}: expected {expected:,} vectors, as its first line says; the "
                f"file is cut off. Received: {position:,}"
            )
        name = bytes(word).lstrip(b"\n").decode("utf-8", "replace")
        yield where, name, np.frombuffer(numbers, "<f4")
    end = file.tell()
    if file.read(2).strip(b"\n"):
        raise ExperimentError(
            f"{path}: byte {end:,}: expected the end after {expected:,} vectors, as "
            "its first line says. Received: more"
        )


def _header(line: bytes) -> tuple[int, int] | None:
    """Count and size, if a file opens with them."""
    parts = line.split()
    short = len(line) <= MAX_HEADER_BYTES
    if short and len(parts) == 2 and all(part.isdigit() for part in parts):
        return int(parts[0]), int(parts[1])
    return None


def _numbers_at_end(where: str, text: bytes) -> int:
    """How many numbers a line ends in."""
    count = 0
    for part in reversed(text.split(b" ")[1:]):
        try:
            float(part)
        except ValueError:
            break
        count += 1
    if not count:
        raise ExperimentError(
            f"{where}: expected word vectors, a word and its numbers a line. "
            f"Received: {_shortened(text)}"
        )
    return count


def _check_dim(path: Path, found: int, dim: int) -> None:
    if found != dim:
        raise ExperimentError(
            f"{path}: holds vectors of {found} numbers; set embedding_dim = {found}. "
            f"Received: embedding_dim = {dim}"
        )


def _finite(where: str, numbers: bytes | np.ndarray) -> np.ndarray:
    """The numbers of one vector, parsed, all of them finite in float32."""
    if isinstance(numbers, bytes):
        raw = numbers
        try:
            numbers = np.array([float(part) for part in raw.split(b" ")])
        except ValueError:
            raise ExperimentError(
                f"{where}: expected numbers after the word. Received: {_shortened(raw)}"
            ) from None
    if not (np.abs(numbers) <= FLOAT32_MAX).all():  # nan compares as false
        raise ExperimentError(
            f"{where}: expected finite numbers. Received: a number that is not"
        )
    return numbers


def _shortened(data: bytes, length: int = 40) -> str:
    """The start of some bytes, printable on one line."""
    text = data[: 4 * length].decode("utf-8", "replace").rstrip("\r\n")
    return repr(text if len(text) <= length else f"{text[:length]}...")
