"""Arrays to JSON, by TensorFlow Serving's rules for the REST predict reply."""

import base64
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from serving.status import StatusError

ROW = "row"
COLUMN = "column"


def json_from_arrays(outputs: Mapping[str, np.ndarray], form: str) -> bytes:
    """Writes the reply of a predict request.

    Args:
        outputs: dict from output name to array; strings are object arrays of
            bytes. At least one.
        form: str. `ROW` writes `predictions`, `COLUMN` writes `outputs`.

    Returns:
        The JSON as bytes. A single output goes without its name. Floats are in
        the shortest of 6, 9 or 17 digits that reads back the same, with NaN and
        Infinity as bare tokens. Strings are text, `{"b64": ...}` where the
        output's name ends in `_bytes`.

    Raises:
        StatusError: INVALID_ARGUMENT for a dtype that JSON does not carry, and
            in row form for a scalar or for batch sizes that differ.

    Example:
    >>> print(json_from_arrays({"y": np.float32([0.1, 2])}, ROW).decode())
    {
        "predictions": [0.1, 2.0]
    }
    """
    if not outputs:
        raise _invalid("Cannot convert empty tensor map to JSON")
    named = len(outputs) > 1
    if form == COLUMN:
        columns = {
            name: _nest(array.tolist(), _writer(name, array.dtype))
            for name, array in sorted(outputs.items())
        }
        if not named:
            return _document("outputs", next(iter(columns.values())))
        return _document("outputs", _object(columns, indent=4))
    batch_size = _batch_size(outputs)
    rows_of = {
        name: [_nest(row, _writer(name, array.dtype)) for row in array.tolist()]
        for name, array in sorted(outputs.items())
    }
    if not named:
        rows = next(iter(rows_of.values()))
    else:
        rows = [
            _object({name: rows_of[name][row] for name in rows_of}, indent=8)
            for row in range(batch_size)
        ]
    if any(row.startswith(("[", "{")) for row in rows):
        rows_text = ",\n        ".join(rows)
        return _document("predictions", f"[\n        {rows_text}\n    ]")
    return _document("predictions", "[" + ", ".join(rows) + "]")


def format_float(value: float, single: bool) -> str:
    """Writes a float as TensorFlow Serving does.

    Args:
        value: float.
        single: bool. True if it was a float32, False if a float64.

    Returns:
        6 significant digits if they read back the same, otherwise 9 (float32)
        or 17 (float64); always with a `.` or an `e`.

    Example:
    >>> format_float(3.0, single=True), format_float(1 / 3, single=True)
    ('3.0', '0.333333343')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    value = float(np.float32(value)) if single else float(value)
    text = f"{value:.6g}"
    # Rounding the largest floats to 6 digits may go past the largest float.
    with np.errstate(over="ignore"):
        back = float(np.float32(text)) if single else float(text)
    if back != value:
        text = f"{value:.{9 if single else 17}g}"
    return text if "." in text or "e" in text else text + ".0"


def _invalid(message: str) -> StatusError:
    return StatusError("INVALID_ARGUMENT", message)


def _batch_size(outputs: Mapping[str, np.ndarray]) -> int:
    size = -1
    for name, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise _invalid(f"Tensor name: {name} has no shape information ")
        if size not in (-1, len(array)):
            raise _invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting: {size}"
            )
        size = len(array)
    return size


def _writer(name: str, dtype: np.dtype) -> Callable[[Any], str]:
    """The function that writes one element of an output."""
    if dtype.kind == "O" and name.endswith("_bytes"):
        return lambda value: f'{{"b64": "{base64.b64encode(value).decode()}"}}'
    if dtype.kind == "O":
        # Bytes that are not UTF-8 pass through, as from the real server.
        return lambda value: json.dumps(
            value.decode("utf-8", "surrogateescape"), ensure_ascii=False
        )
    if dtype.kind == "b":
        return lambda value: "true" if value else "false"
    if dtype == np.float32:
        return lambda value: format_float(value, single=True)
    if dtype == np.float64:
        return lambda value: format_float(value, single=False)
    if np.issubdtype(dtype, np.integer) and dtype != np.uint16:
        return str
    kind = "half" if dtype == np.float16 else dtype.name
    raise _invalid(f"Failed to write JSON value for tensor type: {kind}")


def _nest(value: Any, write: Callable[[Any], str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_nest(item, write) for item in value) + "]"
    return write(value)


def _object(values: Mapping[str, str], indent: int) -> str:
    margin = "\n" + " " * (indent + 4)
    fields = ("," + margin).join(
        f"{json.dumps(name, ensure_ascii=False)}: {value}"
        for name, value in values.items()
    )
    return "{" + margin + fields + "\n" + " " * indent + "}"


def _document(key: str, value: str) -> bytes:
    text = f'{{\n    "{key}": {value}\n}}'
    return text.encode("utf-8", "surrogateescape")
