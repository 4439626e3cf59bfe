"""`Tensor` to and from the wire's `TensorProto`."""

import math
import struct
from typing import Any

from tfmm_client.errors import ServerError
from tfmm_client.model import dtype_from_enum
from tfmm_client.tensor import FLOATS, STRUCT_CODES, Tensor
from tfmm_client.wire import POOL, enum_name

_DATA_TYPE = "tensorflow.DataType"
# dtype -> the field that holds its values where tensor_content does not.
_FIELDS = {
    "float": "float_val",
    "double": "double_val",
    "half": "half_val",
    "bfloat16": "half_val",
    "int8": "int_val",
    "uint8": "int_val",
    "int16": "int_val",
    "uint16": "int_val",
    "int32": "int_val",
    "uint32": "uint32_val",
    "int64": "int64_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
}
# As TensorFlow does, these go into their field however many they are.
_NEVER_IN_CONTENT = ("bool", "uint16")
_ZEROS = {"string": b"", "bool": False} | dict.fromkeys((*FLOATS, "bfloat16"), 0.0)


def write_proto(tensor: Tensor, proto: Any) -> None:
    """Fills a message as TensorFlow's `make_tensor_proto` does.

    Args:
        tensor: `Tensor`.
        proto: An empty `TensorProto`.
    """
    number = POOL.FindEnumTypeByName(_DATA_TYPE).values_by_name
    proto.dtype = number[f"DT_{tensor.dtype.upper()}"].number
    # Also for shape (), where it stays empty.
    proto.tensor_shape.SetInParent()
    for size in tensor.shape:
        proto.tensor_shape.dim.add(size=size)
    values = tensor.values
    if tensor.dtype == "string":
        proto.string_val.extend(v.encode() if isinstance(v, str) else v for v in values)
    elif len(values) > 1 and tensor.dtype not in _NEVER_IN_CONTENT:
        code = STRUCT_CODES[tensor.dtype]
        proto.tensor_content = struct.pack(f"<{len(values)}{code}", *values)
    elif tensor.dtype == "half":
        bits = struct.pack(f"<{len(values)}e", *values)
        proto.half_val.extend(struct.unpack(f"<{len(values)}H", bits))
    else:
        getattr(proto, _FIELDS[tensor.dtype]).extend(values)


def read_proto_tensor(name: str, proto: Any) -> Tensor:
    """Reads an output.

    Args:
        name: str. The output, for messages.
        proto: `TensorProto`. Its values stand in `tensor_content`, or in the value
            field of its dtype, where the last one stands for those that are left
            out, and none for zeros or empty strings.

    Returns:
        `Tensor`; strings as bytes, half and bfloat16 as float.

    Raises:
        ServerError: INTERNAL if its parts do not fit together, UNIMPLEMENTED for
            a dtype that no output of ours has.

    Example:
    >>> from tfmm_client.wire import TensorProto
    >>> proto = TensorProto(dtype=1, float_val=[0.5])
    >>> proto.tensor_shape.dim.add(size=3).size
    3
    >>> read_proto_tensor("scores", proto).values
    [0.5, 0.5, 0.5]
    """
    dtype = dtype_from_enum(enum_name(_DATA_TYPE, proto.dtype))
    if dtype not in _FIELDS:
        raise ServerError(
            "UNIMPLEMENTED", f"the output {name!r} is of dtype {dtype}, not read here"
        )
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    size = math.prod(shape)
    try:
        if proto.tensor_content:
            values = _from_content(dtype, proto.tensor_content, size)
        else:
            values = _from_field(dtype, list(getattr(proto, _FIELDS[dtype])))
    except (struct.error, ValueError) as error:
        raise ServerError("INTERNAL", f"the output {name!r}: {error}") from error
    if len(values) > size or min(shape, default=0) < 0:
        raise ServerError(
            "INTERNAL",
            f"the output {name!r} has {len(values)} values for the shape {shape}",
        )
    if len(values) < size:
        last = values[-1] if values else _ZEROS.get(dtype, 0)
        values.extend([last] * (size - len(values)))
    return Tensor(dtype, shape, values)


def _from_content(dtype: str, content: bytes, size: int) -> list[Any]:
    if dtype == "string":
        return _split_strings(content, size)
    code = "H" if dtype == "bfloat16" else STRUCT_CODES[dtype]
    values = struct.unpack(f"<{size}{code}", content)
    return _bfloat16(values) if dtype == "bfloat16" else list(values)


def _from_field(dtype: str, values: list[Any]) -> list[Any]:
    if dtype == "bfloat16":
        return _bfloat16(values)
    if dtype == "half":
        bits = struct.pack(f"<{len(values)}H", *values)
        return list(struct.unpack(f"<{len(values)}e", bits))
    return values


def _bfloat16(values: Any) -> list[float]:
    """bfloat16 is the upper half of a float32."""
    wide = struct.pack(f"<{len(values)}I", *(value << 16 for value in values))
    return list(struct.unpack(f"<{len(values)}f", wide))


def _split_strings(content: bytes, size: int) -> list[bytes]:
    """All lengths first, as varints, then the strings end to end."""
    lengths, position = [], 0
    for _ in range(size):
        length, shift = 0, 0
        while True:
            if position >= len(content):
                raise ValueError("tensor_content ends too early")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    strings = []
    for length in lengths:
        strings.append(content[position : position + length])
        position += length
    if position != len(content):
        raise ValueError("tensor_content does not fit its lengths")
    return strings
