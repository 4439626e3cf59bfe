"""A running server answers over gRPC and REST as TensorFlow Serving does."""

import gzip
import http.client
import json
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def stub(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def model_stub(channel):
    return model_service_pb2_grpc.ModelServiceStub(channel)


def predict_request(inputs, name="half", signature="", version=None, outputs=()):
    request = predict_pb2.PredictRequest(output_filter=outputs)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def refusal(call, request, timeout=20):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=timeout)
    return caught.value.code(), caught.value.details()


X = {"x": np.float32([1, 3])}


# Predict over gRPC


def test_grpc_predict_answers_with_the_version_and_the_signature(stub):
    reply = stub.Predict(predict_request(X), timeout=20)
    assert tf.make_ndarray(reply.outputs["y"]).tolist() == [0.5, 1.5]
    assert reply.model_spec.name == "half"
    assert reply.model_spec.version.value == 1
    assert reply.model_spec.signature_name == "serving_default"


def test_grpc_replies_fill_the_value_fields_of_every_dtype(stub):
    request = predict_request({"number": np.int64([-1, 5])}, signature="kinds")
    reply = stub.Predict(request, timeout=20)
    assert list(reply.outputs["float"].float_val) == [-1.0, 5.0]
    assert list(reply.outputs["double"].double_val) == [-1.0, 5.0]
    assert list(reply.outputs["int8"].int_val) == [-1, 5]
    assert list(reply.outputs["uint8"].int_val) == [255, 5]
    assert list(reply.outputs["int16"].int_val) == [-1, 5]
    assert list(reply.outputs["int32"].int_val) == [-1, 5]
    assert list(reply.outputs["int64"].int64_val) == [-1, 5]
    assert list(reply.outputs["uint32"].uint32_val) == [2**32 - 1, 5]
    assert list(reply.outputs["uint64"].uint64_val) == [2**64 - 1, 5]
    assert list(reply.outputs["bool"].bool_val) == [False, True]
    assert list(reply.outputs["string"].string_val) == [b"-1", b"5"]
    for output in reply.outputs.values():
        assert tf.make_ndarray(output).shape == (2,)
        assert not output.tensor_content


def test_grpc_carries_bfloat16(stub):
    reply = stub.Predict(predict_request(X, signature="bfloat16"), timeout=20)
    assert tf.make_ndarray(reply.outputs["y"]).astype(float).tolist() == [1.0, 3.0]


def test_output_filter_chooses_the_outputs(stub):
    inputs = {"a": np.float32([1]), "b": np.float32([2])}
    request = predict_request(inputs, signature="add", outputs=["sum"])
    reply = stub.Predict(request, timeout=20)
    assert list(reply.outputs) == ["sum"]
    assert reply.outputs["sum"].float_val == [3.0]


def test_an_input_with_a_default_may_be_left_out_over_grpc_only(stub, server, tools):
    request = predict_request({"a": np.float32([1])}, signature="add")
    assert stub.Predict(request, timeout=20).outputs["sum"].float_val == [11.0]
    body = {"signature_name": "add", "inputs": {"a": [1]}}
    status, reply = tools.http(f"{server.url}/half:predict", body)
    assert status == 400
    assert reply["error"] == "Missing named input: b in 'inputs' object."


def test_a_label_names_a_version(stub):
    request = predict_request(X)
    request.model_spec.version_label = "stable"
    assert stub.Predict(request, timeout=20).model_spec.version.value == 1


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (
            predict_request(X, name="halve"),
            CODE.NOT_FOUND,
            "Servable not found for request: Latest(halve)",
        ),
        (
            predict_request(X, version=7),
            CODE.NOT_FOUND,
            "Servable not found for request: Specific(half, 7)",
        ),
        (
            predict_request(X, name=""),
            CODE.INVALID_ARGUMENT,
            "ModelSpec has no name specified.",
        ),
        (
            predict_request(X, signature="nope"),
            CODE.FAILED_PRECONDITION,
            'Serving signature key "nope" not found.',
        ),
        (
            predict_request({}),
            CODE.INVALID_ARGUMENT,
            "input size does not match signature: 0!=1 len({}) != len({x}). "
            "Sent extra: {}. Missing but required: {x}.",
        ),
        (
            predict_request(X | {"z": 1.0}),
            CODE.INVALID_ARGUMENT,
            "input size does not match signature: 2!=1 len({x,z}) != len({x}). "
            "Sent extra: {z}. Missing but required: {}.",
        ),
        (
            predict_request({"z": np.float32([1])}),
            CODE.INVALID_ARGUMENT,
            "Signature input alias: x(feed name: ",
        ),
        (
            predict_request({"a": np.float32([1]), "z": 1.0}, signature="add"),
            CODE.INVALID_ARGUMENT,
            "Inputs contains invalid name. Used request inputs: a, request input: a,z",
        ),
        (
            predict_request({"x": ["one"]}),
            CODE.INVALID_ARGUMENT,
            "Expects arg[0] to be float but string is provided",
        ),
        (
            predict_request({"x": np.float64([1])}),
            CODE.INVALID_ARGUMENT,
            "Expects arg[0] to be float but double is provided",
        ),
        (
            predict_request(X, outputs=["q"]),
            CODE.INVALID_ARGUMENT,
            "output tensor alias not found in signature: q Outputs expected to be in "
            "the set {y}.",
        ),
        (
            predict_request(X, outputs=["y", "y"]),
            CODE.INVALID_ARGUMENT,
            "duplicate output tensor alias: y",
        ),
        (
            predict_request(
                {"image": np.zeros((4, 4, 3), np.float32)}, signature="mean"
            ),
            CODE.INVALID_ARGUMENT,
            "Shape of tensor",
        ),
        (
            predict_request(
                {"image": np.zeros((1, 5, 4, 3), np.float32)}, signature="mean"
            ),
            CODE.INVALID_ARGUMENT,
            "is not compatible with expected shape [?,4,4,3]",
        ),
        (
            predict_request(
                {"title": np.int32([1]), "description": [""], "image": [""]},
                name="products",
            ),
            CODE.INVALID_ARGUMENT,
            "to be string but int32 is provided",
        ),
        (predict_pb2.PredictRequest(), CODE.INVALID_ARGUMENT, "Missing ModelSpec"),
    ],
)
def test_a_bad_grpc_request_gets_its_code_and_the_server_lives(
    stub, request_, code, text
):
    got_code, got_text = refusal(stub.Predict, request_)
    assert got_code == code
    assert text in got_text
    assert stub.Predict(predict_request(X), timeout=20).outputs["y"].float_val[0] == 0.5


def test_a_tensor_that_contradicts_itself_is_refused(stub):
    for break_it in (
        lambda proto: setattr(proto, "tensor_content", b"abc"),
        lambda proto: setattr(proto.tensor_shape.dim[0], "size", -1),
        lambda proto: setattr(proto, "dtype", 0),
    ):
        request = predict_request(X)
        break_it(request.inputs["x"])
        assert refusal(stub.Predict, request) == (
            CODE.INVALID_ARGUMENT,
            "tensor parsing error: x",
        )


def test_an_unknown_label_is_an_invalid_argument(stub):
    request = predict_request(X)
    request.model_spec.version_label = "beta"
    assert refusal(stub.Predict, request) == (
        CODE.INVALID_ARGUMENT,
        "Unrecognized servable version label: beta",
    )


def test_a_grpc_error_text_is_cut_at_1024_characters(stub):
    _, text = refusal(stub.Predict, predict_request(X, name="n" * 2000))
    assert len(text) == 1024


def test_the_grpc_deadline_stops_a_request_and_the_server_lives(stub):
    code, _ = refusal(stub.Predict, predict_request(X, signature="slow"), timeout=0.3)
    assert code == CODE.DEADLINE_EXCEEDED
    assert stub.Predict(predict_request(X), timeout=20).outputs["y"].float_val[0] == 0.5


def test_a_message_larger_than_4_mib_is_answered(server):
    options = [("grpc.max_receive_message_length", -1)]
    big = np.ones(2_000_000, np.float32)
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        reply = stub.Predict(predict_request({"x": big}), timeout=20)
    assert tf.make_ndarray(reply.outputs["y"]).sum() == 1_000_000


# The other calls over gRPC


def test_grpc_metadata_holds_the_signatures(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    request.model_spec.name = "products"
    reply = stub.GetModelMetadata(request, timeout=20)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(signatures)
    inputs = signatures.signature_def["serving_default"].inputs
    assert set(inputs) == {"title", "description", "image"}
    assert reply.model_spec.name == "products"
    assert reply.model_spec.version.value == 1


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("half", [], CODE.INVALID_ARGUMENT),
        ("half", ["assets"], CODE.INVALID_ARGUMENT),
        ("nope", ["signature_def"], CODE.NOT_FOUND),
        (None, ["signature_def"], CODE.INVALID_ARGUMENT),
    ],
)
def test_a_bad_metadata_request_is_refused(stub, name, fields, code):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    if name is not None:
        request.model_spec.name = name
    assert refusal(stub.GetModelMetadata, request)[0] == code


def test_grpc_status_says_available(model_stub):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half"
    (entry,) = model_stub.GetModelStatus(request, timeout=20).model_version_status
    assert entry.version == 1
    assert entry.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert entry.status.error_code == 0


@pytest.mark.parametrize(
    ("name", "version", "code", "text"),
    [
        ("nope", None, CODE.NOT_FOUND, "Could not find any versions of model nope"),
        ("half", 9, CODE.NOT_FOUND, "Could not find version 9 of model half"),
        (None, None, CODE.INVALID_ARGUMENT, "Missing ModelSpec"),
    ],
)
def test_a_bad_status_request_is_refused(model_stub, name, version, code, text):
    request = get_model_status_pb2.GetModelStatusRequest()
    if name is not None:
        request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    assert refusal(model_stub.GetModelStatus, request) == (code, text)


@pytest.mark.development_server_only("TensorFlow Serving answers these")
def test_calls_of_the_example_api_are_unimplemented(stub):
    calls = [
        (stub.Classify, classification_pb2.ClassificationRequest()),
        (stub.Regress, regression_pb2.RegressionRequest()),
        (stub.MultiInference, inference_pb2.MultiInferenceRequest()),
    ]
    for call, request in calls:
        code, text = refusal(call, request)
        assert code == CODE.UNIMPLEMENTED
        assert "not implemented by this development server" in text


# REST


def test_rest_answers_rows_and_columns(server, tools):
    url = f"{server.url}/half:predict"
    assert tools.http(url, {"instances": [1, 3]}) == (200, {"predictions": [0.5, 1.5]})
    assert tools.http(url, {"inputs": [1, 3]}) == (200, {"outputs": [0.5, 1.5]})


def test_rest_answers_named_rows_as_objects(server, tools):
    body = {
        "signature_name": "add",
        "instances": [{"a": 1, "b": 2}, {"a": 5, "b": 1}],
    }
    status, reply = tools.http(f"{server.url}/half:predict", body)
    assert status == 200
    assert reply["predictions"] == [
        {"sum": 3.0, "difference": -1.0},
        {"sum": 6.0, "difference": 4.0},
    ]


def test_rest_strings_are_text_and_bytes_are_base64(server, tools):
    body = {"signature_name": "echo", "inputs": ["é", {"b64": "aGk="}]}
    status, reply = tools.http(f"{server.url}/half:predict", body)
    assert status == 200
    assert reply["outputs"] == {
        "text": ["é", "hi"],
        "raw_bytes": [{"b64": "w6k="}, {"b64": "aGk="}],
        "length": [2, 2],
    }


def test_rest_and_grpc_give_the_same_numbers(server, stub, tools):
    x = np.float32(np.linspace(-3, 3, 7) / 3)
    _, reply = tools.http(f"{server.url}/half:predict", {"inputs": x.tolist()})
    expected = tf.make_ndarray(
        stub.Predict(predict_request({"x": x}), timeout=20).outputs["y"]
    )
    np.testing.assert_array_equal(np.float32(reply["outputs"]), expected)


@pytest.mark.parametrize(
    "path", ["half/versions/1", "half/labels/stable", "h%61lf", "half/labels/st%61ble"]
)
def test_rest_finds_a_version_by_number_label_and_encoded_name(server, tools, path):
    status, reply = tools.http(f"{server.url}/{path}:predict", {"inputs": [2]})
    assert (status, reply) == (200, {"outputs": [1.0]})


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("nope:predict", {"inputs": 1}, 404, "Servable not found for request: Latest("),
        ("half/versions/7:predict", {"inputs": 1}, 404, "Specific(half, 7)"),
        ("half/versions/99999999999999999999:predict", {}, 400, "Failed to convert"),
        ("half/labels/beta:predict", {"inputs": 1}, 400, "version label: beta"),
        ("half:predict", b"", 400, "The document is empty"),
        ("nope:predict", b"{", 400, "JSON Parse error"),
        ("half:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        (
            "half:predict",
            {"signature_name": "nope", "inputs": 1},
            400,
            'Serving signature name: "nope" not found in signature def',
        ),
        (
            "half:predict",
            {"inputs": ["a"]},
            400,
            'JSON Value: "a" Type: String is not of expected type: float',
        ),
        (
            "products:predict",
            {"instances": [{"title": 5, "description": "", "image": ""}]},
            400,
            "JSON Value: 5 Type: Number is not of expected type: string",
        ),
        (
            "products:predict",
            {"instances": [{"title": None, "description": "", "image": ""}]},
            400,
            "Type: Null is not of expected type: string",
        ),
        (
            "half:predict",
            {"signature_name": "mean", "inputs": [[[1.0]]]},
            400,
            "Shape of tensor",
        ),
        (
            "half:predict",
            {"signature_name": "total", "instances": [1]},
            400,
            "no shape",
        ),
        (
            "half:predict",
            {"signature_name": "bfloat16", "inputs": [1]},
            400,
            "bfloat16",
        ),
        ("half:predict", {"signature_name": "slow", "inputs": [1]}, 504, ""),
        *(
            pytest.param(
                f"half:{verb}",
                {},
                501,
                f"{verb} is not implemented",
                marks=pytest.mark.development_server_only(
                    "TensorFlow Serving answers this"
                ),
            )
            for verb in ("classify", "regress")
        ),
        ("half:PREDICT", {}, 400, "Malformed request: POST /v1/models/half:PREDICT"),
        ("half", {}, 400, "Malformed request: POST /v1/models/half"),
        ("half:predict?x=1", {}, 400, "Malformed request"),
    ],
)
def test_a_bad_rest_request_gets_its_status_and_the_server_lives(
    server, tools, path, body, status, text
):
    got_status, reply = tools.http(f"{server.url}/{path}", body)
    assert got_status == status
    assert list(reply) == ["error"]
    assert text in reply["error"]
    assert tools.http(f"{server.url}/half:predict", {"inputs": 1.0})[0] == 400
    assert tools.http(f"{server.url}/half:predict", {"inputs": [1.0]})[0] == 200


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("", 400, "Missing model name in request."),
        ("/nope", 404, "Could not find any versions of model nope"),
        ("/half/versions/7", 404, "Could not find version 7 of model half"),
        ("/nope/metadata", 404, "Servable not found for request: Latest(nope)"),
        ("/half?x=1", 404, "Could not find any versions of model half?x=1"),
        ("/half:predict", 400, "Malformed request: GET /v1/models/half:predict"),
        ("/half/other", 400, "Malformed request: GET /v1/models/half/other"),
    ],
)
def test_a_bad_rest_question_is_refused(server, tools, path, status, text):
    got_status, reply = tools.http(server.url + path)
    assert (got_status, reply) == (status, {"error": text})


def test_another_method_is_malformed(server, tools):
    status, reply = tools.http(f"{server.url}/half", method="DELETE")
    assert status == 400
    assert reply["error"].startswith("Malformed request: DELETE")


def test_outside_v1_is_a_bare_404(server, tools):
    assert tools.http(f"http://{server.rest}/") == (404, None)


def test_the_prefix_is_matched_in_any_case(server, tools):
    assert tools.http(f"http://{server.rest}/V1/Models/half")[0] == 200


def test_rest_status_is_the_protocol_buffer_as_json(server, tools):
    assert tools.http(f"{server.url}/half") == (
        200,
        {
            "model_version_status": [
                {
                    "version": "1",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        },
    )


def test_rest_metadata_is_the_protocol_buffer_as_json(server, tools):
    status, reply = tools.http(f"{server.url}/half/versions/1/metadata")
    assert status == 200
    assert reply["model_spec"] == {
        "name": "half",
        "version": "1",
        "signature_name": "",
    }
    signatures = reply["metadata"]["signature_def"]["signature_def"]
    x = signatures["serving_default"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}],
        "unknown_rank": False,
    }


def test_a_gzip_body_is_unpacked(server, tools):
    body = gzip.compress(b'{"inputs": [2]}')
    headers = {"Content-Encoding": "gzip"}
    url = f"{server.url}/half:predict"
    assert tools.http(url, body, headers) == (200, {"outputs": [1.0]})


@pytest.mark.parametrize(
    "body", [b"not gzip", gzip.compress(b'{"inputs": [2]}')[:-9]], ids=["text", "cut"]
)
def test_a_broken_gzip_body_is_refused(server, tools, body):
    headers = {"Content-Encoding": "gzip"}
    status, reply = tools.http(f"{server.url}/half:predict", body, headers)
    assert status == 400
    assert "gzip" in reply["error"]


def test_a_gzip_bomb_is_refused(server, tools):
    body = gzip.compress(bytes(101 * 2**20), compresslevel=1)
    headers = {"Content-Encoding": "gzip"}
    status, reply = tools.http(f"{server.url}/half:predict", body, headers)
    assert status == 400
    assert "more than 104857600 bytes" in reply["error"]


def test_one_connection_carries_chunked_and_plain_requests(server):
    connection = http.client.HTTPConnection(server.rest, timeout=20)
    try:
        for body, chunked in ((iter([b'{"inputs"', b": [2]}"]), True), (b"{}", False)):
            connection.request(
                "POST", "/v1/models/half:predict", body, encode_chunked=chunked
            )
            reply = connection.getresponse()
            document = json.loads(reply.read())
            assert (reply.status == 200) == chunked, document
            assert reply.getheader("Content-Type") == "application/json"
    finally:
        connection.close()


@pytest.mark.development_server_only("looks at the development server's log")
def test_a_client_that_hangs_up_leaves_no_trace(server):
    connection = http.client.HTTPConnection(server.rest, timeout=20)
    connection.putrequest("POST", "/v1/models/half:predict")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    connection.close()
    with urllib.request.urlopen(f"{server.url}/half", timeout=20) as reply:
        assert reply.status == 200
    assert "Traceback" not in server.log.read_text()
