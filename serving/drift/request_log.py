"""`requests.jsonl` as `tfmm_client` writes it: read line by line, and checked."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving.drift.reference import Reference

MISSING = "missing"


class LogError(ValueError):
    """A log that cannot be read; one line of text."""


class LineError(ValueError):
    """A line that is not what the client writes; one line of text."""


@dataclass(frozen=True)
class Given:
    """What a product had of one input.

    Attributes:
        present: bool. Whether it was not empty.
        characters: int or None. Its length, if it was given as text.
        bytes: int or None. Its length, if it was given as bytes.
        text: str or None. The text, if the log holds texts.
    """

    present: bool
    characters: int | None = None
    bytes: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class Product:
    """One product of a request, and the first suggestion for it.

    Attributes:
        inputs: dict from input to `Given`.
        label: str.
        score: float in [0, 1].
        assigned: bool.
        image_status: tuple of str, one for each image of the model.
    """

    inputs: dict[str, Given]
    label: str
    score: float
    assigned: bool
    image_status: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """One line of a log.

    Attributes:
        time: datetime in UTC. When the answer came.
        model: str. The name that was asked.
        version: int or None. The version that answered, if the log knows it.
        products: list as the line has it, not checked yet.
    """

    time: datetime
    model: str
    version: int | None
    products: list[Any] = field(repr=False)


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a log that hold anything, with their numbers from 1.

    Args:
        path: Path. A `.gz` is unpacked.

    Raises:
        LogError: If the file cannot be read.
    """
    unpack = path.suffix == ".gz"
    try:
        with gzip.open(path) if unpack else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise LogError(f"{path}: cannot be read: {said}") from None


def read_request(line: bytes) -> Request:
    """Checks a line but for its products.

    Raises:
        LineError: If it is not what the client writes.
    """
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError(f"no JSON: {' '.join(str(error).split())}") from None
    found = _dict(content, "the line")
    text = _typed(found, "time", str)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise LineError(f"'time' is no ISO 8601. Received: {text!r:.60}") from None
    if time.tzinfo is None:
        raise LineError(f"'time' has no time zone. Received: {text!r:.60}")
    version = found.get("version", "nothing")
    if version is not None and type(version) is not int:
        raise LineError(f"'version' must be int or null. Received: {version!r:.60}")
    model, products = _typed(found, "model", str), _typed(found, "products", list)
    if not products:
        raise LineError("'products' is empty")
    return Request(time.astimezone(UTC), model, version, products)


def read_products(request: Request, reference: Reference) -> list[Product]:
    """Checks the products of a request to the model that the reference is of.

    Raises:
        LineError: If one of them is not what the client writes, or not what that
            model answers.
    """
    return [_product(_dict(x, "a product"), reference) for x in request.products]


def _product(content: Mapping[str, Any], reference: Reference) -> Product:
    inputs = {
        name: _given(_dict(value, f"the input {name!r}"))
        for name, value in _typed(content, "inputs", dict).items()
    }
    if set(inputs) != set(reference.inputs):
        raise LineError(
            f"the inputs are not {', '.join(sorted(reference.inputs))}. "
            f"Received: {', '.join(sorted(inputs))}"
        )
    label, score = _typed(content, "label", str), _typed(content, "score", float, int)
    if label not in reference.label_shares:
        raise LineError(f"the model has no such label. Received: {label!r:.60}")
    if not 0 <= score <= 1:
        raise LineError(f"'score' must be in [0, 1]. Received: {score}")
    status: Sequence[str] = ()
    if reference.images:
        status = _typed(content, "image_status", list)
        if len(status) != len(reference.images):
            raise LineError(f"'image_status' must have {len(reference.images)} entries")
    for name, said in zip(reference.images, status, strict=True):
        known = reference.measures[f"{name}.status"].values
        if said not in (known if inputs[name].present else (MISSING,)):
            raise LineError(
                f"'image_status' of {name!r} cannot be that. Received: {said!r:.60}"
            )
    assigned = _typed(content, "assigned", bool)
    return Product(inputs, label, float(score), assigned, tuple(status))


def _given(content: Mapping[str, Any]) -> Given:
    present = _typed(content, "present", bool)
    sizes = {key: content[key] for key in ("characters", "bytes") if key in content}
    for key, size in sizes.items():
        if type(size) is not int or size < 1:
            raise LineError(f"{key!r} must be a count. Received: {size!r:.60}")
    if len(sizes) != present:
        raise LineError(
            "an input that is present has characters or bytes, and no other has"
        )
    text = _typed(content, "text", str) if "text" in content else None
    return Given(present, text=text, **sizes)


def _dict(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise LineError(f"{what} must be an object. Received: {value!r:.60}")
    return value


def _typed(content: Mapping[str, Any], key: str, *types: type) -> Any:
    if key not in content:
        raise LineError(f"has no {key!r}")
    if type(content[key]) not in types:
        raise LineError(
            f"{key!r} must be {types[0].__name__}. Received: {content[key]!r:.60}"
        )
    return content[key]
