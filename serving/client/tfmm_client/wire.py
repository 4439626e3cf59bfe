"""The message classes of `proto/*.proto`, in a descriptor pool of their own.

TensorFlow registers messages of the same names in protocol buffers' default pool,
where a second copy would clash; here the two live side by side. The two files keep
to a small part of the .proto language (no options, no
comments behind a declaration, one declaration a line), so that they can be read
without a compiler.
"""

import importlib
import re
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto

_FILES = ("tensorflow.proto", "serving.proto")
_SCALARS = {
    "double": Field.TYPE_DOUBLE,
    "float": Field.TYPE_FLOAT,
    "int64": Field.TYPE_INT64,
    "uint64": Field.TYPE_UINT64,
    "int32": Field.TYPE_INT32,
    "bool": Field.TYPE_BOOL,
    "string": Field.TYPE_STRING,
    "bytes": Field.TYPE_BYTES,
    "uint32": Field.TYPE_UINT32,
}
_FIELD = re.compile(r"(repeated )?([\w.]+) (\w+) = (\d+);")
_MAP = re.compile(r"map<string, ([\w.]+)> (\w+) = (\d+);")
_VALUE = re.compile(r"(\w+) = (\d+);")
_BLOCK = re.compile(r"(message|enum|oneof|service) (\w+) \{")
_METHOD = re.compile(r"rpc (\w+)\((\w+)\) returns \((\w+)\);")
_STATEMENT = re.compile(r'(syntax = |package |import )"?([\w./]+)"?;')


def read_proto(name: str, text: str) -> descriptor_pb2.FileDescriptorProto:
    """Reads a .proto file of the kind that this package has.

    Args:
        name: str. What other files import it by.
        text: str. The file.

    Returns:
        `FileDescriptorProto`, types by the names as written.

    Raises:
        ValueError: For a line outside that part of the language, with its number.
    """
    file = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto3")
    # What is open around the line: the file, then messages, an enum, ...
    around: list[Any] = [file]
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("//"):
            continue
        if not _read_line(line, file, around):
            raise ValueError(f"{name}:{number}: not understood. Received: {line!r}")
    return file


def _read_line(line: str, file: Any, around: list[Any]) -> bool:
    """Adds one line to the innermost open block; False if it does not fit there."""
    inner = around[-1]
    if line == "}" and inner is not file:
        around.pop()
    elif inner is file and (match := _STATEMENT.fullmatch(line)):
        if match[1] == "package ":
            file.package = match[2]
        elif match[1] == "import ":
            file.dependency.append(match[2])
    elif match := _BLOCK.fullmatch(line):
        kind, name = match.groups()
        blocks = {
            "message": "message_type" if inner is file else "nested_type",
            "enum": "enum_type",
            "oneof": "oneof_decl",
            "service": "service",
        }
        around.append(getattr(inner, blocks[kind]).add(name=name))
    elif isinstance(inner, descriptor_pb2.EnumDescriptorProto):
        match = _VALUE.fullmatch(line)
        if match:
            inner.value.add(name=match[1], number=int(match[2]))
        return match is not None
    elif isinstance(inner, descriptor_pb2.ServiceDescriptorProto):
        match = _METHOD.fullmatch(line)
        if match:
            name, request, reply = match.groups()
            inner.method.add(name=name, input_type=request, output_type=reply)
        return match is not None
    elif isinstance(inner, descriptor_pb2.OneofDescriptorProto):
        match = _FIELD.fullmatch(line)
        if match:
            message = around[-2]
            message_field = _add_field(message, *match.groups())
            message_field.oneof_index = len(message.oneof_decl) - 1
        return match is not None
    elif match := _MAP.fullmatch(line):
        type_name, name, number = match.groups()
        entry_name = name.title().replace("_", "") + "Entry"
        entry = inner.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        _add_field(entry, None, "string", "key", "1")
        _add_field(entry, None, type_name, "value", "2")
        _add_field(inner, "repeated ", entry_name, name, number)
    elif inner is not file and (match := _FIELD.fullmatch(line)):
        _add_field(inner, *match.groups())
    else:
        return False
    return True


def _add_field(
    message: Any, repeated: str | None, type_name: str, name: str, number: str
) -> Any:
    label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    added = message.field.add(name=name, number=int(number), label=label)
    if type_name in _SCALARS:
        added.type = _SCALARS[type_name]
    else:
        added.type_name = type_name
    return added


def _build_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    folder = resources.files("tfmm_client") / "proto"
    for name in _FILES:
        text = (folder / name).read_text("utf-8")
        file = read_proto(name, text)
        for dependency in file.dependency:
            if dependency.startswith("google/protobuf/"):
                module = dependency.removesuffix(".proto").replace("/", ".") + "_pb2"
                descriptor = importlib.import_module(module).DESCRIPTOR
                copy = descriptor_pb2.FileDescriptorProto()
                descriptor.CopyToProto(copy)
                pool.Add(copy)
        pool.Add(file)
    return pool


POOL = _build_pool()


def message_class(name: str) -> Any:
    """The class of a message, by its full name.

    Example:
    >>> message_class("tensorflow.serving.ModelSpec")(name="products").name
    'products'
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


TensorProto = message_class("tensorflow.TensorProto")
PredictRequest = message_class("tensorflow.serving.PredictRequest")
PredictResponse = message_class("tensorflow.serving.PredictResponse")
GetModelMetadataRequest = message_class("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = message_class("tensorflow.serving.GetModelMetadataResponse")
SignatureDefMap = message_class("tensorflow.serving.SignatureDefMap")
GetModelStatusRequest = message_class("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = message_class("tensorflow.serving.GetModelStatusResponse")


def enum_name(name: str, number: int) -> str:
    """The name of an enum's value, its number as text if it has none here.

    Example:
    >>> enum_name("tensorflow.DataType", 7), enum_name("tensorflow.DataType", 20)
    ('DT_STRING', '20')
    """
    value = POOL.FindEnumTypeByName(name).values_by_number.get(number)
    return str(number) if value is None else value.name


def methods() -> dict[str, tuple[str, Any, Any]]:
    """Every call by name: its path, request class and reply class."""
    found = {}
    for service in POOL.FindFileByName("serving.proto").services_by_name.values():
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            classes = (method.input_type.full_name, method.output_type.full_name)
            found[method.name] = (path, *map(message_class, classes))
    return found
