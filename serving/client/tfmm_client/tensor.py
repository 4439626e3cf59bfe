"""Values of one dtype and shape, checked before they go out."""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfmm_client.errors import InputError

# dtype -> code of the struct module; on the wire all are little-endian.
STRUCT_CODES = {
    "float": "f",
    "double": "d",
    "half": "e",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "bool": "?",
}
FLOATS = ("float", "double", "half")


@dataclass(frozen=True)
class Tensor:
    """Values in row-major order.

    Attributes:
        dtype: str. "string" or a key of `STRUCT_CODES`.
        shape: tuple of int.
        values: list, as long as the product of `shape`: str or bytes, bool, int
            or float.
    """

    dtype: str
    shape: tuple[int, ...]
    values: list[Any]

    def rows(self, start: int, stop: int) -> "Tensor":
        """The part of it from row `start` up to before row `stop`."""
        per_row = math.prod(self.shape[1:])
        shape = (stop - start, *self.shape[1:])
        values = self.values[start * per_row : stop * per_row]
        return Tensor(self.dtype, shape, values)

    def nested(self) -> Any:
        """The values as lists in lists; the bare value for shape `()`.

        Example:
        >>> Tensor("int32", (2, 2), [1, 2, 3, 4]).nested()
        [[1, 2], [3, 4]]
        """
        level: list[Any] = self.values
        for axis in range(len(self.shape) - 1, 0, -1):
            size = self.shape[axis]
            count = math.prod(self.shape[:axis])
            level = [level[i * size : (i + 1) * size] for i in range(count)]
        return level if self.shape else level[0]


def read_tensor(
    name: str, values: Any, dtype: str, dims: Sequence[int] | None
) -> Tensor:
    """Checks the values of one input.

    Args:
        name: str. The input, for messages.
        values: Sequence of values or of sequences, or anything with a `tolist`
            method (a numpy array, a pandas column). The first axis is the batch.
        dtype: str. What the model takes.
        dims: Sequence of int or None. The model's shape; -1 takes any size, and
            None any shape.

    Returns:
        `Tensor`.

    Raises:
        InputError: If the values are not of that dtype and shape, or are ragged.

    Example:
    >>> read_tensor("x", [[1], [2]], "float", [-1, 1])
    Tensor(dtype='float', shape=(2, 1), values=[1.0, 2.0])
    """
    values = as_list(values)
    if not isinstance(values, list):
        raise InputError(
            f"the input {name!r} takes a list with one value per product. "
            f"Received: {_short(values)}"
        )
    shape = _shape(values)
    expected = shape if dims is None else tuple(dims)
    if len(shape) != len(expected) or any(
        size not in (-1, given) for given, size in zip(shape, expected, strict=True)
    ):
        raise InputError(
            f"the input {name!r} takes the shape {_sizes(expected)}. "
            f"Received: {_sizes(shape)}"
        )
    flat: list[Any] = []
    for row, value in enumerate(values):
        for item in _leaves(name, value, shape[1:], row):
            flat.append(_read_value(name, item, dtype, row))
    return Tensor(dtype, shape, flat)


def as_list(values: Any) -> Any:
    """Tuples and arrays as lists; anything else as it is."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, tuple):
        return list(values)
    return values


def _shape(values: list[Any]) -> tuple[int, ...]:
    """The sizes along the first elements."""
    sizes: list[int] = []
    level: Any = values
    while isinstance(level, list):
        sizes.append(len(level))
        level = as_list(level[0]) if level else None
    return tuple(sizes)


def _leaves(name: str, value: Any, shape: tuple[int, ...], row: int) -> Iterator[Any]:
    value = as_list(value)
    if not shape and not isinstance(value, list):
        yield value
        return
    if not shape or not isinstance(value, list) or len(value) != shape[0]:
        raise InputError(
            f"the input {name!r} must have the same shape for every product; "
            f"product {row} differs from product 0. Received: {_short(value)}"
        )
    for item in value:
        yield from _leaves(name, item, shape[1:], row)


def _read_value(name: str, value: Any, dtype: str, row: int) -> Any:
    try:
        if dtype == "string":
            if isinstance(value, str):
                value.encode()
                return value
            if isinstance(value, bytes | bytearray | memoryview):
                return bytes(value)
        elif dtype == "bool":
            if isinstance(value, bool):
                return value
        elif dtype not in STRUCT_CODES:
            raise InputError(f"the input {name!r} is {dtype}, which cannot be sent.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = float(value) if dtype in FLOATS else value
            struct.pack(f"<{STRUCT_CODES[dtype]}", value)  # raises what does not fit
            return value
    except UnicodeEncodeError as error:
        raise InputError(
            f"the input {name!r} is not valid text in product {row}: {error.reason}. "
            "Send it as bytes."
        ) from error
    except (struct.error, OverflowError):
        pass
    takes = "text or bytes, '' where it is missing" if dtype == "string" else dtype
    raise InputError(
        f"the input {name!r} takes {takes}. Received: {_short(value)} (product {row})"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _sizes(shape: Sequence[int]) -> str:
    sizes = ", ".join("any" if size < 0 else str(size) for size in shape)
    return f"({sizes}{',' if len(shape) == 1 else ''})"
