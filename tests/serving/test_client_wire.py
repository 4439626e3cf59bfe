"""The client's own messages beside TensorFlow's: the same bytes, the same values."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfmm_client import grpc_codec, wire
from tfmm_client.batch import Batch
from tfmm_client.errors import ServerError
from tfmm_client.model import Model, Signature, TensorInfo, VersionStatus
from tfmm_client.tensor import Tensor, read_tensor
from tfmm_client.tensor_proto import read_proto_tensor, write_proto

OFFICIAL = {
    message.DESCRIPTOR.full_name: message.DESCRIPTOR
    for message in (
        tensor_pb2.TensorProto,
        meta_graph_pb2.TensorInfo,
        meta_graph_pb2.SignatureDef,
        model_pb2.ModelSpec,
        predict_pb2.PredictRequest,
        predict_pb2.PredictResponse,
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
        get_model_metadata_pb2.SignatureDefMap,
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.ModelVersionStatus,
        get_model_status_pb2.GetModelStatusResponse,
    )
}


def described(field):
    """What a field is on the wire."""
    return (
        field.name,
        field.number,
        # An enum is an int32 in its bytes.
        "int32" if field.type in (field.TYPE_ENUM, field.TYPE_INT32) else field.type,
        field.is_repeated,
        field.is_packed,
        field.message_type and field.message_type.full_name,
    )


# The messages


def check_message(own, official):
    assert own is not official
    for field in own.fields:
        twin = official.fields_by_number[field.number]
        assert described(field) == described(twin), f"{own.full_name}.{field.name}"
        if field.message_type is not None and field.message_type.fields:
            check_message(field.message_type, twin.message_type)
        if field.enum_type is not None:
            for value in field.enum_type.values:
                other = twin.enum_type.values_by_number[value.number]
                assert value.name == other.name
        choice = field.containing_oneof and field.containing_oneof.name
        assert choice == (twin.containing_oneof.name if choice else None), (
            f"{own.full_name}.{field.name}"
        )


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_field_is_the_official_one(name):
    check_message(wire.message_class(name).DESCRIPTOR, OFFICIAL[name])


def test_no_message_of_ours_goes_unchecked():
    own = set()
    for name in ("tensorflow.proto", "serving.proto"):
        file = wire.POOL.FindFileByName(name)
        own |= {message.full_name for message in file.message_types_by_name.values()}
    # Checked as the fields of others.
    reached = {"tensorflow.TensorShapeProto", "tensorflow.serving.StatusProto"}
    assert own == set(OFFICIAL) | reached


class Channel:
    """Notes what a stub asks a channel for."""

    def __init__(self):
        self.calls = {}

    def unary_unary(self, path, response_deserializer, **_):
        # Bound to the reply's class; the serializer is the same for all messages.
        reply = response_deserializer.__self__
        self.calls[path] = reply.DESCRIPTOR.full_name


def test_every_call_has_the_official_path_and_messages():
    channel = Channel()
    prediction_service_pb2_grpc.PredictionServiceStub(channel)
    model_service_pb2_grpc.ModelServiceStub(channel)
    assert len(wire.methods()) == 3
    for path, request, reply in wire.methods().values():
        assert channel.calls[path] == reply.DESCRIPTOR.full_name
        # The requests' bytes are compared below.
        assert request.DESCRIPTOR.full_name in OFFICIAL


def test_the_reader_refuses_what_it_does_not_understand():
    for line in ("int32 x = 1;", "message A { int32 x = 1; }", "option x = 1;", "}"):
        with pytest.raises(
            ValueError, match=r"x\.proto:2: not understood\. Received: "
        ):
            wire.read_proto("x.proto", f'syntax = "proto3";\n{line}')
    with pytest.raises(ValueError, match=r"x\.proto:2"):
        wire.read_proto("x.proto", "message A {\nint32 x = 1 [deprecated = true];\n}")


@pytest.mark.parametrize("first", ["tensorflow", "tfmm_client.wire"])
def test_it_lives_beside_tensorflow_in_either_order(first, tools):
    second = {"tensorflow", "tfmm_client.wire"} - {first}
    code = (
        f"import {first}\nimport {second.pop()}\n"
        "from tensorflow_serving.apis import predict_pb2\n"
        "from tfmm_client.wire import PredictRequest\n"
        "request = PredictRequest(output_filter=['a'])\n"
        "data = request.SerializeToString()\n"
        "assert predict_pb2.PredictRequest.FromString(data).output_filter == ['a']\n"
        "assert PredictRequest is not predict_pb2.PredictRequest\n"
    )
    tools.run_code(code)


# Requests

STRINGS = {
    "one": ["red shoe"],
    "empty": ["", "", ""],
    "text and bytes": ["é 鞋 \x00", b"\xff\xd8\xff\xe0", ""],
    "large": [b"\xff" * 100_000],
    "nested": [["a", "b"], ["", "c"]],
}
NUMBERS = {
    "float": [1.5, -0.1, float("inf")],
    "double": [0.1, 1e300],
    "half": [0.5, -65504.0],
    "int8": [-128, 127],
    "uint8": [0, 255],
    "int16": [-(2**15), 7],
    "uint16": [65535, 0],
    "int32": [-(2**31), 7],
    "uint32": [2**32 - 1, 7],
    "int64": [-(2**63), 7],
    "uint64": [2**64 - 1, 7],
    "bool": [True, False],
}
NUMPY = {"float": "float32", "double": "float64", "half": "float16"}


def batch(name, values, dtype):
    tensor = read_tensor(name, values, dtype, None)
    info = TensorInfo(dtype, tensor.shape)
    signature = Signature({name: info}, {})
    return Batch("serving_default", signature, {name: tensor}, tensor.shape[0])


@pytest.mark.parametrize("case", STRINGS)
@pytest.mark.parametrize(
    ("version", "label"), [(None, None), (0, None), (7, None), (None, "stable")]
)
def test_a_request_has_the_official_bytes(case, version, label):
    official = predict_pb2.PredictRequest()
    official.model_spec.name = "products"
    official.model_spec.signature_name = "serving_default"
    if version is not None:
        official.model_spec.version.value = version
    if label is not None:
        official.model_spec.version_label = label
    values = STRINGS[case]
    official.inputs["title"].CopyFrom(
        tf.make_tensor_proto(
            tf.nest.map_structure(
                lambda v: v.encode() if isinstance(v, str) else v, values
            )
        )
    )
    model = Model("products", version, label)
    own = grpc_codec.predict_request(model, batch("title", values, "string"))
    assert own.SerializeToString(deterministic=True) == official.SerializeToString(
        deterministic=True
    )


def test_several_inputs_have_the_official_bytes():
    columns = {"title": ["a", ""], "description": ["", "b"], "image": [b"\xff", b""]}
    official = predict_pb2.PredictRequest()
    official.model_spec.name = "products"
    official.model_spec.signature_name = "explain"
    for name, values in columns.items():
        official.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    tensors = {n: read_tensor(n, v, "string", [-1]) for n, v in columns.items()}
    own = grpc_codec.predict_request(
        Model("products"), Batch("explain", Signature({}, {}), tensors, 2)
    )
    assert own.SerializeToString(deterministic=True) == official.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("count", [1, 2])
def test_numbers_have_the_official_bytes(dtype, count):
    values = NUMBERS[dtype][:count]
    array = np.array(values, NUMPY.get(dtype, dtype))
    own = wire.TensorProto()
    write_proto(read_tensor("x", values, dtype, [-1]), own)
    assert own.SerializeToString() == tf.make_tensor_proto(array).SerializeToString()


def test_the_other_requests_have_the_official_bytes():
    model = Model("products", version=3)
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    status = get_model_status_pb2.GetModelStatusRequest()
    for official, own in [
        (metadata, grpc_codec.metadata_request(model)),
        (status, grpc_codec.status_request(model)),
    ]:
        official.model_spec.name = "products"
        official.model_spec.version.value = 3
        assert own.SerializeToString() == official.SerializeToString()


# Replies

VALUES = {
    **{dtype: np.array(v, NUMPY.get(dtype, dtype)) for dtype, v in NUMBERS.items()},
    "bfloat16": tf.constant([0.1, -3.0, float("nan")], tf.bfloat16).numpy(),
    "string": np.array([b"", b"\xff" * 300, "é".encode()], object),
}


def official_values(proto):
    array = tf.make_ndarray(proto)
    return array.astype("float64") if array.dtype.name == "bfloat16" else array


def check_reply(official):
    own = wire.TensorProto.FromString(official.SerializeToString())
    read = read_proto_tensor("y", own)
    expected = official_values(official)
    assert read.shape == expected.shape
    assert [type(v) for v in read.values] == [
        type(v) for v in expected.ravel().tolist()
    ]
    np.testing.assert_array_equal(read.nested(), expected.tolist())


FIELDS = {"float": "float_val", "double": "double_val", "half": "half_val"}
FIELDS |= {"bfloat16": "half_val", "int64": "int64_val", "bool": "bool_val"}
FIELDS |= {"uint32": "uint32_val", "uint64": "uint64_val", "string": "string_val"}


@pytest.mark.parametrize("dtype", VALUES)
def test_a_reply_in_value_fields_is_read(dtype):
    official = tf.make_tensor_proto(VALUES[dtype])
    official.ClearField("tensor_content")
    field = FIELDS.get(dtype, "int_val")
    official.ClearField(field)
    is_bits = field == "half_val"
    array = VALUES[dtype].view("uint16") if is_bits else VALUES[dtype]
    getattr(official, field).extend(array.tolist())
    check_reply(official)


def string_content(strings):
    """Lengths as varints, then the strings, as TensorFlow's C++ writes them."""
    varints = [
        bytes([len(s)]) if len(s) < 128 else bytes([len(s) & 127 | 128, len(s) >> 7])
        for s in strings
    ]
    return b"".join([*varints, *strings])


@pytest.mark.parametrize("dtype", VALUES)
def test_a_reply_in_tensor_content_is_read(dtype):
    array = VALUES[dtype]
    official = tf.make_tensor_proto(array)
    content = string_content(array) if dtype == "string" else array.tobytes()
    official = tensor_pb2.TensorProto(
        dtype=official.dtype,
        tensor_shape=official.tensor_shape,
        tensor_content=content,
    )
    # Python's make_ndarray does not read strings from there; C++ does.
    expected = tf.io.parse_tensor(official.SerializeToString(), dtype).numpy()
    if dtype == "bfloat16":
        expected = expected.astype("float64")
    own = wire.TensorProto.FromString(official.SerializeToString())
    np.testing.assert_array_equal(
        read_proto_tensor("y", own).nested(), expected.tolist()
    )


@pytest.mark.parametrize("dtype", VALUES)
def test_one_value_stands_for_all(dtype):
    official = tf.make_tensor_proto(VALUES[dtype][:1])
    if official.tensor_content:
        pytest.fail("a single value belongs in its field")
    official.tensor_shape.Clear()
    for size in (2, 3):
        official.tensor_shape.dim.add(size=size)
    check_reply(official)


@pytest.mark.parametrize("dtype", VALUES)
def test_no_value_stands_for_zeros(dtype):
    official = tf.make_tensor_proto(VALUES[dtype][:1])
    shape = official.tensor_shape
    official = tensor_pb2.TensorProto(dtype=official.dtype, tensor_shape=shape)
    own = wire.TensorProto.FromString(official.SerializeToString())
    zero = {"string": b"", "bool": False}.get(dtype, 0)
    assert read_proto_tensor("y", own).values == [zero]


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (0, 3), (2, 3), (2, 3, 2)])
def test_every_shape_is_nested_as_numpy_does(shape):
    array = np.arange(np.prod(shape, dtype=int), dtype="int32").reshape(shape)
    tensor = Tensor("int32", shape, array.ravel().tolist())
    assert tensor.nested() == array.tolist()
    proto = wire.TensorProto()
    write_proto(tensor, proto)
    assert proto.SerializeToString() == tf.make_tensor_proto(array).SerializeToString()
    assert read_proto_tensor("y", proto) == tensor


@pytest.mark.parametrize(
    ("proto", "problem"),
    [
        (
            wire.TensorProto(dtype=8),
            "UNIMPLEMENTED: the output 'y' is of dtype complex",
        ),
        (wire.TensorProto(dtype=20), "UNIMPLEMENTED: the output 'y' is of dtype 20"),
        (wire.TensorProto(dtype=1, float_val=[1, 2]), "2 values for the shape"),
        (wire.TensorProto(dtype=1, tensor_content=b"123"), "INTERNAL: the output 'y'"),
        (wire.TensorProto(dtype=7, tensor_content=b"\x05ab"), "not fit its lengths"),
        (wire.TensorProto(dtype=7, tensor_content=b"\x80"), "ends too early"),
    ],
)
def test_a_reply_that_does_not_fit_is_an_error(proto, problem):
    with pytest.raises(ServerError, match=problem):
        read_proto_tensor("y", proto)


def test_text_is_decoded_but_for_outputs_named_bytes():
    response = wire.PredictResponse()
    for name in ("label", "raw_bytes"):
        values = Tensor("string", (2,), ["é", b"\xff"])
        write_proto(values, response.outputs[name])
    response.model_spec.version.value = 4
    reply = grpc_codec.read_reply(response)
    assert reply.version == 4
    assert reply.outputs["label"] == ["é", "�"]
    assert reply.outputs["raw_bytes"] == ["é".encode(), b"\xff"]


def test_metadata_and_status_are_read():
    official = get_model_metadata_pb2.SignatureDefMap()
    signature = official.signature_def["serving_default"]
    signature.inputs["title"].dtype = tf.string.as_datatype_enum
    signature.inputs["title"].tensor_shape.dim.add(size=-1)
    signature.outputs["y"].dtype = tf.float32.as_datatype_enum
    signature.outputs["y"].tensor_shape.unknown_rank = True
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.version.value = 2
    response.metadata["signature_def"].Pack(official)
    own = wire.GetModelMetadataResponse.FromString(response.SerializeToString())
    metadata = grpc_codec.read_metadata(own)
    assert metadata.version == 2
    assert metadata.signatures == {
        "serving_default": Signature(
            {"title": TensorInfo("string", (-1,))}, {"y": TensorInfo("float", None)}
        )
    }
    states = get_model_status_pb2.GetModelStatusResponse()
    entry = states.model_version_status.add(version=3, state="END")
    entry.status.error_code = 3
    entry.status.error_message = "no such op"
    own = wire.GetModelStatusResponse.FromString(states.SerializeToString())
    assert grpc_codec.read_statuses(own) == [VersionStatus(3, "END", "no such op")]
    with pytest.raises(ServerError, match="the metadata holds no signature_def"):
        grpc_codec.read_metadata(wire.GetModelMetadataResponse())


def test_the_official_pool_is_not_touched():
    assert isinstance(wire.TensorProto.DESCRIPTOR, descriptor.Descriptor)
    assert wire.TensorProto.DESCRIPTOR.file.pool is wire.POOL
    assert tensor_pb2.TensorProto.DESCRIPTOR.file.pool is not wire.POOL
