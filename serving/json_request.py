"""JSON to arrays, by TensorFlow Serving's rules for the REST predict request.

The dtype of an input comes from the signature, never from the JSON, and its
shape from the nesting of the lists. The texts of the errors are those of the
real server, so that a client which reads them behaves the same on both.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serving.json_reply import COLUMN, ROW
from serving.status import StatusError

# What each integer dtype takes; the small ones are cast from int32, as there.
_INTEGER_RANGES = {
    "int8": (-(2**31), 2**31 - 1),
    "uint8": (-(2**31), 2**31 - 1),
    "int16": (-(2**31), 2**31 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
# A value quoted in an error is cut here, so that one image does not fill a log.
_QUOTED_CHARACTERS = 1000
# NumPy's limit; TensorFlow itself goes up to 254 dimensions.
_MAX_RANK = 64


def parse_predict(body: bytes) -> dict[str, Any]:
    """Reads the JSON of a predict request.

    Args:
        body: bytes. The request body, UTF-8. Bytes that are not UTF-8 pass
            through into the strings, as in the real server.

    Returns:
        The JSON object; `signature_name`, where there is one, is a str.

    Raises:
        StatusError: INVALID_ARGUMENT if `body` is not one JSON object, or
            `signature_name` is not a string.
    """
    if not body:
        raise _invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode("utf-8", "surrogateescape"))
    except RecursionError as error:
        raise _invalid("JSON Parse error: Nested too deeply") from error
    except ValueError as error:  # also an integer of more digits than Python reads
        raise _invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {_quote(document)} Is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise _invalid(
            f"JSON Value: {_quote(document)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    return document


def arrays_from_json(
    document: Mapping[str, Any], dtypes: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], str]:
    """Turns `instances` (rows) or `inputs` (columns) into one array per input.

    Args:
        document: dict. The request's JSON object.
        dtypes: dict from input name to TensorFlow dtype name, for example
            `{"title": "string", "size": "float"}`; at least one.

    Returns:
        Tuple of the arrays by input name and the form, `ROW` or `COLUMN`.
        A row-form array has the number of rows as its first dimension.

    Raises:
        StatusError: INVALID_ARGUMENT, or UNIMPLEMENTED for a dtype that REST
            cannot carry (half, bfloat16, complex, uint16).

    Example:
    >>> arrays, form = arrays_from_json({"instances": [1, 2.5]}, {"x": "float"})
    >>> arrays["x"].tolist(), form
    ([1.0, 2.5], 'row')
    """
    try:
        return _arrays_and_form(document, dtypes)
    except RecursionError as error:
        raise _invalid("JSON Parse error: Nested too deeply") from error


def _arrays_and_form(
    document: Mapping[str, Any], dtypes: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], str]:
    if "instances" in document and "inputs" in document:
        raise _invalid(
            f"JSON Value: {_quote(document)} Not formatted correctly expecting only "
            "one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _invalid(
                f"JSON Value: {_quote(document)} Excepting 'instances' to be an "
                "list/array"
            )
        if not instances:
            quoted = _quote(document)
            raise _invalid(f"JSON Value: {quoted} No values in 'instances' array")
        return _from_rows(instances, dtypes), ROW
    if "inputs" in document:
        return _from_columns(document["inputs"], dtypes), COLUMN
    raise _invalid("Missing 'inputs' or 'instances' key")


def _invalid(message: str) -> StatusError:
    return StatusError("INVALID_ARGUMENT", message)


def _quote(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()
    if len(text) > _QUOTED_CHARACTERS:
        return text[:_QUOTED_CHARACTERS] + "..."
    return text


def _type_name(value: Any) -> str:
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, int | float):
        return "Number"
    if isinstance(value, str):
        return "String"
    return "Object" if isinstance(value, dict) else "Array"


def _is_base64(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and list(value) == ["b64"]
        and isinstance(value["b64"], str)
    )


def _is_named_row(value: Any) -> bool:
    return isinstance(value, dict) and not _is_base64(value)


def _decode_base64(value: Any) -> bytes:
    if not _is_base64(value):
        quoted = _quote(value)
        raise _invalid(f"JSON Value: {quoted} not formatted correctly for base64 data")
    # The real decoder passes over white space and lets padding be left out.
    text = "".join(value["b64"].split())
    if "=" not in text:
        text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("Unable to base64 decode") from error


def _mismatch(value: Any, dtype: str) -> StatusError:
    return _invalid(
        f"JSON Value: {_quote(value)} Type: {_type_name(value)} is not of expected "
        f"type: {dtype}"
    )


def _scalar(value: Any, dtype: str) -> Any:
    """One JSON value as `dtype`: float, int, bool or bytes."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype == "string":
        if isinstance(value, dict):
            return _decode_base64(value)
        if not isinstance(value, str):
            raise _mismatch(value, dtype)
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise _invalid(
                "JSON Parse error: The surrogate pair in string is invalid."
            ) from error
    if isinstance(value, dict):
        raise _mismatch(value, dtype)
    if dtype in ("float", "double"):
        if not number:
            raise _mismatch(value, dtype)
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    if dtype in _INTEGER_RANGES:
        low, high = _INTEGER_RANGES[dtype]
        if not number or isinstance(value, float) or not low <= value <= high:
            raise _mismatch(value, dtype)
        return value
    if dtype == "bool":
        if not isinstance(value, bool):
            raise _mismatch(value, dtype)
        return value
    raise StatusError(
        "UNIMPLEMENTED",
        f"Conversion of JSON Value: {_quote(value)} to type: {dtype}",
    )


def _shape(value: Any) -> list[int]:
    """The lengths along first elements; `[]` for anything but a list."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _flatten(
    value: Any, shape: Sequence[int], dtype: str, level: int, into: list[Any]
) -> None:
    """Appends the leaves of `value` to `into`, refusing what is ragged."""
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise _invalid(
                f"JSON Value: {_quote(value)} found at incorrect level: {level + 1} "
                f"in the JSON DOM. Expected at level: {rank}"
            )
        into.append(_scalar(value, dtype))
        return
    if level >= rank:
        place = f"level: {level} expected < {rank}"
        raise _invalid(f"Encountered list at unexpected {place}")
    if len(value) != shape[level]:
        raise _invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for item in value:
        _flatten(item, shape, dtype, level + 1, into)


def _array(values: list[Any], shape: Sequence[int], dtype: str) -> np.ndarray:
    if len(shape) > _MAX_RANK:
        raise _invalid(f"JSON Value of rank {len(shape)}, expected <= {_MAX_RANK}")
    if dtype == "string":
        array = np.empty(len(values), object)
        array[:] = values
        return array.reshape(shape)
    name = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    if dtype in ("int8", "uint8", "int16"):
        return np.array(values, np.int32).astype(name).reshape(shape)
    # A number beyond float32 becomes infinity, in silence.
    with np.errstate(over="ignore"):
        return (
            np.array(values, np.float64 if name == "float32" else name)
            .astype(name)
            .reshape(shape)
        )


def _from_columns(value: Any, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not _is_named_row(value):
        if len(dtypes) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        value = {next(iter(dtypes)): value}
    arrays = {}
    for name, dtype in sorted(dtypes.items()):
        if name not in value:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
        leaves: list[Any] = []
        shape = _shape(value[name])
        _flatten(value[name], shape, dtype, 0, leaves)
        arrays[name] = _array(leaves, shape, dtype)
    return arrays


def _from_rows(
    instances: list[Any], dtypes: Mapping[str, str]
) -> dict[str, np.ndarray]:
    if not isinstance(instances[0], dict) and len(dtypes) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    named = _is_named_row(instances[0])
    leaves: dict[str, list[Any]] = {}
    shapes: dict[str, list[int]] = {}
    for index, row in enumerate(instances):
        if named and not _is_named_row(row):
            raise _invalid(
                f"Expecting object but got list at item {index} of input list"
            )
        if not named and _is_named_row(row):
            raise _invalid(
                f"Expecting value/list but got object at item {index} of input list"
            )
        for name, value in (row if named else {min(dtypes): row}).items():
            try:
                _add_row(name, value, dtypes, leaves, shapes)
            except StatusError as error:
                key = f" key: {name}" if named else ""
                raise _invalid(
                    f"Failed to process element: {index}{key} of 'instances' list. "
                    f"Error: {error}"
                ) from error
        if named and set(row) != set(dtypes):
            raise _invalid(
                f"Failed to process element: {index} of 'instances' list. "
                f"JSON object: {_quote(row)} keys must be equal to: "
                f"{','.join(sorted(dtypes))}"
            )
    return {
        name: _array(values, [len(instances), *shapes[name]], dtypes[name])
        for name, values in leaves.items()
    }


def _add_row(
    name: str,
    value: Any,
    dtypes: Mapping[str, str],
    leaves: dict[str, list[Any]],
    shapes: dict[str, list[int]],
) -> None:
    if name not in dtypes:
        raise _invalid(f"JSON object: does not have named input: {name}")
    shape = _shape(value)
    row: list[Any] = []
    _flatten(value, shape, dtypes[name], 0, row)
    expected = shapes.setdefault(name, shape)
    size = int(np.prod(expected, dtype=np.int64))
    if len(row) != size:
        raise _invalid(f"Expecting tensor size: {size} but got: {len(row)}")
    if shape != expected:
        quoted = [str(s).replace(" ", "") for s in (expected, shape)]
        raise _invalid(f"Expecting shape {quoted[0]} but got: {quoted[1]}")
    leaves.setdefault(name, []).extend(row)
