"""What a seller is asked for: the inputs of the model, as fields of a form.

A served model tells the names of its inputs and that all of them are strings. Which
is a text, a picture or a table, and which row of `contributions` is whose, stands in
the bundle (`--bundle`), or the operator says it (`--inputs`). With neither, names
that speak of a picture are taken for pictures if there are as many as the model
reads, and contributions are not shown.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfmm_client import Signature
from tfmm_client.errors import nearest

KINDS = ("text", "image", "table")
ABOUT_FILE = Path("assets.extra", "tfmm.json")
PICTURE_NAME = re.compile("image|photo|picture", re.IGNORECASE)
CLASSIFY_OUTPUTS = ("labels", "scores", "assigned")


class FormError(ValueError):
    """The model's inputs are not what was told of them; one line of text."""


@dataclass(frozen=True)
class Field:
    """One input of the model.

    Attributes:
        name: str.
        kind: str, of `KINDS`.
        columns: tuple of str. What a table's row, or a text of several columns, is
            made of, in order; empty for the others.
    """

    name: str
    kind: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """What is known of the inputs beside the signature.

    Attributes:
        source: str. Who says so, for messages.
        fields: tuple of `Field`, all inputs in the order of the model card.
        task: str or None. "single_label" or "multi_label"; None if nobody said.
    """

    source: str
    fields: tuple[Field, ...]
    task: str | None = None


@dataclass(frozen=True)
class Form:
    """The fields, and what the model can say beside its suggestions.

    Attributes:
        fields: tuple of `Field`; in the order of `contributions` if `has_order`.
        task: str or None. As in `Told`.
        has_order: bool. Whose row of `contributions` is whose is known.
        explains: bool. The model has `explain`.
    """

    fields: tuple[Field, ...]
    task: str | None
    has_order: bool
    explains: bool

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the image inputs, in the order of `image_status`."""
        return tuple(field.name for field in self.fields if field.kind == "image")


def read_bundle(path: Path) -> Told:
    """Reads what an export says of its inputs.

    Args:
        path: Path. A version directory.

    Returns:
        `Told`.

    Raises:
        FormError: If it is none.
    """
    file = path / ABOUT_FILE
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        fields = tuple(
            Field(name, x["kind"], _parts(x["kind"], x["columns"]))
            for name, x in about["modalities"].items()
        )
        task = about["task"]
    except OSError as error:
        raise FormError(
            f"--bundle: {file}: {error.strerror}; expected a version directory that "
            "python -m export wrote"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormError(
            f"--bundle: {file}: not what python -m export writes: {error!r}"
        ) from None
    return Told("--bundle", fields, task)


def _parts(kind: str, columns: Sequence[str]) -> tuple[str, ...]:
    is_made = kind == "table" or (kind == "text" and len(columns) > 1)
    return tuple(columns) if is_made else ()


def read_inputs(words: Sequence[str]) -> Told:
    """Reads `--inputs`.

    Args:
        words: Sequence of str: `NAME`, `NAME=image`, `NAME=table:COLUMN,COLUMN`, or
            `NAME=text:COLUMN,COLUMN` for a text of several columns.

    Returns:
        `Told`.

    Raises:
        FormError: If a word is none of these, or a name comes twice.

    Example:
    >>> read_inputs(["title", "facts=table:brand,price"]).fields[1].columns
    ('brand', 'price')
    """
    fields: dict[str, Field] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        kind, colon, columns = rest.partition(":")
        names = tuple(columns.split(",")) if colon else ()
        if (
            not name
            or name in fields
            or (equals and kind not in KINDS)
            or (kind == "table" and not colon)
            or (kind == "image" and colon)
            or not all(names)
        ):
            raise FormError(
                "--inputs: expected each input once, as NAME, NAME=image or "
                f"NAME=table:COLUMN,COLUMN. Received: {word!r}"
            )
        fields[name] = Field(name, kind or "text", names)
    return Told("--inputs", tuple(fields.values()))


def make_form(
    signatures: Mapping[str, Signature], told: Told | None, model_name: str
) -> Form:
    """The form for a served model.

    Args:
        signatures: dict from name to `Signature`, as the server tells them.
        told: `Told` or None.
        model_name: str. For messages.

    Returns:
        `Form`.

    Raises:
        FormError: If the model does not answer as our exports do, or its inputs are
            not those of `told`, or it is not clear which of them are pictures.
    """
    classify = signatures.get("serving_default", Signature({}, {}))
    for output in CLASSIFY_OUTPUTS:
        if output not in classify.outputs:
            raise FormError(
                f"the model {model_name!r} does not answer as an export of tfmm does: "
                f"serving_default has no output {output!r}"
            )
    names = sorted(classify.inputs)
    num_pictures = 0
    if "image_used" in classify.outputs:
        shape = classify.outputs["image_used"].shape
        num_pictures = shape[1] if shape is not None and len(shape) == 2 else -1
    if told is None:
        fields = _guess(names, num_pictures, model_name)
    else:
        _compare(names, num_pictures, told, model_name)
        fields = told.fields
    explain = signatures.get("explain", Signature({}, {}))
    return Form(
        fields,
        None if told is None else told.task,
        told is not None or len(fields) == 1,
        "contributions" in explain.outputs,
    )


def _guess(names: Sequence[str], num_pictures: int, model: str) -> tuple[Field, ...]:
    pictures = [name for name in names if PICTURE_NAME.search(name)]
    # Of several, which entry of `image_status` is whose is not known either.
    if len(pictures) > 1 or num_pictures not in (-1, len(pictures)):
        raise FormError(
            f"which inputs of the model {model!r} are pictures is not clear from "
            f"their names, {', '.join(names)}: say it by --bundle or --inputs"
        )
    # As a seller would think of them: title, description, others, pictures.
    order = {"title": 0, "description": 1}
    texts = [name for name in names if name not in pictures]
    texts.sort(key=lambda name: (order.get(name, 2), name))
    return (
        *(Field(name, "text") for name in texts),
        *(Field(name, "image") for name in pictures),
    )


def _compare(
    names: Sequence[str], num_pictures: int, told: Told, model_name: str
) -> None:
    known = [field.name for field in told.fields]
    for name in known:
        if name not in names:
            raise FormError(
                f"{told.source}: the model {model_name!r} has no input {name!r}"
                f"{nearest(name, names)} Its inputs: {', '.join(names)}."
            )
    for name in names:
        if name not in known:
            raise FormError(
                f"{told.source}: the input {name!r} of the model {model_name!r} is "
                "missing"
            )
    pictures = [field.name for field in told.fields if field.kind == "image"]
    if num_pictures not in (-1, len(pictures)):
        raise FormError(
            f"{told.source}: the model {model_name!r} reads {num_pictures} pictures. "
            f"Received: {', '.join(pictures) or 'none'}"
        )
