"""Good requests, and whether an answer is the right one."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export import SIGNATURES
from soaking.products import Answers, Pool

# Between an answer and what the SavedModel said of the same product, up front and
# in another batch.
BOUND = 1e-6
# Of these, how many of ten requests have them: small batches come often.
BATCHES = {1: 5, 2: 2, 7: 2, 32: 1}
# What `image_status` must not say of a file that is no image.
HARMLESS = ("used", "skipped", "missing")


@dataclass(frozen=True)
class Hostile:
    """A bad image in a good batch: a product of nothing else.

    Attributes:
        row: Its place in the batch.
        name: The image input.
        column: The place of that input in `image_status`.
        kind: What is wrong with it.
        content: The file.
    """

    row: int
    name: str
    column: int
    kind: str
    content: bytes


@dataclass(frozen=True)
class Question:
    """A request that must be answered.

    Attributes:
        signature: Its name.
        places: Of each row, the place of its product in the pool.
        hostile: The row that is not as in the pool, or None.
    """

    signature: str
    places: tuple[int, ...]
    hostile: Hostile | None = None

    def inputs(self, pool: Pool) -> dict[str, list[bytes]]:
        """Its columns."""
        rows = [dict(pool.products[place]) for place in self.places]
        if self.hostile is not None:
            rows[self.hostile.row][self.hostile.name] = self.hostile.content
        return {name: [row[name] for row in rows] for name in rows[0]}


def draw(
    generator: random.Random,
    pool: Pool,
    hostile: Sequence[tuple[str, str, bytes]] = (),
) -> Question:
    """Draws a question.

    Args:
        generator: `random.Random`.
        pool: What to choose from.
        hostile: Bad images (input, what is wrong, file), one of which is put into
            the batch; none if empty.

    Returns:
        `Question`.
    """
    signature = generator.choice(SIGNATURES)
    (size,) = generator.choices(list(BATCHES), list(BATCHES.values()))
    # The one without anything is `pool.nothing`; the order of its labels may hang on
    # nothing, too.
    places = [generator.randrange(pool.nothing) for _ in range(size)]
    if not hostile:
        return Question(signature, tuple(places))
    row = generator.randrange(size)
    places[row] = pool.nothing
    name, kind, content = generator.choice(hostile)
    bad = Hostile(row, name, pool.images.index(name), kind, content)
    return Question(signature, tuple(places), bad)


def difference(
    question: Question, outputs: Mapping[str, Any], answers: Answers
) -> str | None:
    """What is wrong with an answer.

    Scores and other floats may differ by `BOUND`; labels, flags and statuses are
    the same. Of the row with a hostile image the status must say what is wrong
    with it; it is answered as a product without anything, to which no label is
    assigned.

    Args:
        question: What was asked.
        outputs: Output -> array or nested list. REST leaves the name of a single
            output out, which is then `""`.
        answers: What one bundle says of the products.

    Returns:
        One line, or None if nothing is wrong.
    """
    expected = answers[question.signature]
    if list(outputs) == [""] and len(expected) == 1:
        outputs = dict(zip(expected, outputs.values(), strict=True))
    if set(outputs) != set(expected):
        return f"outputs {sorted(outputs)}, not {sorted(expected)}"
    for name, values in expected.items():
        wanted = _plain(values[list(question.places)])
        found = _plain(np.asarray(outputs[name]))
        if found.shape != wanted.shape:
            return f"{name} of shape {found.shape}, not {wanted.shape}"
        wrong = _wrong_rows(name, found, wanted)
        if question.hostile is not None:
            bad = question.hostile
            problem = _of_hostile(name, found[bad.row], wrong[bad.row], bad)
            if problem:
                return problem
            wrong[bad.row] = False
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            return (
                f"{name} of row {row} of {len(found)}: {_short(found[row])}, not "
                f"{_short(wanted[row])}"
            )
    return None


def _of_hostile(name: str, found: np.ndarray, wrong: bool, bad: Hostile) -> str | None:
    if name == "image_status":
        told = str(found[bad.column])
        return f"says that {bad.kind} is {told}" if told in HARMLESS else None
    if name == "labels":  # equal shares stand in any order
        return None
    return f"{name} of a row with {bad.kind}: {_short(found)}" if wrong else None


def _wrong_rows(name: str, found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if wanted.dtype.kind != "f":
        right = found == wanted
    elif found.dtype.kind not in "fi":
        right = np.zeros(wanted.shape, bool)
    else:
        right = np.abs(found - wanted) <= BOUND  # NaN is not
    return ~right.reshape(len(wanted), -1).all(axis=1)


def _plain(values: np.ndarray) -> np.ndarray:
    """Strings as str, whether they came as bytes or not."""
    if values.dtype.kind not in "OSU":
        return values
    texts = [x.decode() if isinstance(x, bytes) else str(x) for x in values.ravel()]
    return np.array(texts, object).reshape(values.shape)


def _short(values: np.ndarray) -> str:
    return " ".join(np.array2string(np.asarray(values), threshold=6).split())
