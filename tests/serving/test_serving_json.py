"""The JSON codec, against values worked out by hand from TF Serving's rules."""

import json

import numpy as np
import pytest

from serving.json_reply import COLUMN, ROW, format_float, json_from_arrays
from serving.json_request import arrays_from_json, parse_predict
from serving.status import CODES, HTTP_STATUS, StatusError


def strings(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def refusal(document, dtypes):
    with pytest.raises(StatusError) as caught:
        arrays_from_json(document, dtypes)
    return caught.value.code, caught.value.message


# Parsing


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b'{"inputs": 1', "JSON Parse error: "),
        (b"[1]", "JSON Value: [1] Is not object"),
        (b'{"signature_name": 3}', "'signature_name' key must be a string value."),
        (b"[" * 100_000, "JSON Parse error: "),
        (b'{"inputs": ' + b"9" * 5000 + b"}", "JSON Parse error: "),
    ],
)
def test_a_body_that_is_no_request_is_refused(body, text):
    with pytest.raises(StatusError, match="INVALID_ARGUMENT") as caught:
        parse_predict(body)
    assert text in caught.value.message


def test_bytes_that_are_not_utf8_pass_through_into_strings():
    document = parse_predict(b'{"inputs": ["\xff\xfe", "\xc3\xa9"]}')
    arrays, _ = arrays_from_json(document, {"x": "string"})
    assert arrays["x"].tolist() == [b"\xff\xfe", "é".encode()]


def test_a_lone_surrogate_is_refused():
    document = parse_predict(rb'{"inputs": ["\ud800"]}')
    assert "surrogate" in refusal(document, {"x": "string"})[1]


def test_nan_and_infinity_are_read_as_bare_tokens():
    document = parse_predict(b'{"inputs": [NaN, Infinity, -Infinity]}')
    arrays, _ = arrays_from_json(document, {"x": "float"})
    np.testing.assert_array_equal(arrays["x"], np.float32([np.nan, np.inf, -np.inf]))


# Rows and columns


def test_a_single_input_takes_bare_rows():
    arrays, form = arrays_from_json({"instances": [[1, 2], [3, 4]]}, {"x": "int32"})
    assert form == ROW
    assert arrays["x"].dtype == np.int32
    assert arrays["x"].tolist() == [[1, 2], [3, 4]]


def test_a_single_input_takes_named_rows():
    arrays, _ = arrays_from_json({"instances": [{"x": 1}, {"x": 2}]}, {"x": "float"})
    assert arrays["x"].tolist() == [1.0, 2.0]


def test_a_bare_base64_object_is_a_row_and_not_a_name():
    arrays, _ = arrays_from_json({"instances": [{"b64": "aGk="}]}, {"x": "string"})
    assert arrays["x"].tolist() == [b"hi"]


def test_rows_of_several_inputs_are_stacked_by_name():
    rows = [{"t": "a", "n": [1, 2]}, {"t": "b", "n": [3, 4]}]
    arrays, _ = arrays_from_json({"instances": rows}, {"t": "string", "n": "int64"})
    assert arrays["t"].tolist() == [b"a", b"b"]
    assert arrays["n"].tolist() == [[1, 2], [3, 4]]


def test_columns_may_differ_in_size_and_extra_keys_are_passed_over():
    inputs = {"a": [1, 2, 3], "b": 5, "other": "x"}
    arrays, form = arrays_from_json({"inputs": inputs}, {"a": "float", "b": "int32"})
    assert form == COLUMN
    assert set(arrays) == {"a", "b"}
    assert arrays["a"].shape == (3,)
    assert arrays["b"].shape == ()


def test_a_single_input_takes_a_bare_column():
    arrays, _ = arrays_from_json({"inputs": 2.5}, {"x": "double"})
    assert arrays["x"].shape == ()
    assert arrays["x"] == 2.5
    arrays, _ = arrays_from_json({"inputs": {"b64": "aGk="}}, {"x": "string"})
    assert arrays["x"].item() == b"hi"


def test_an_empty_column_has_no_elements():
    arrays, _ = arrays_from_json({"inputs": [[]]}, {"x": "float"})
    assert arrays["x"].shape == (1, 0)


TWO = {"a": "float", "b": "float"}


@pytest.mark.parametrize(
    ("document", "dtypes", "text"),
    [
        ({}, {"x": "float"}, "Missing 'inputs' or 'instances' key"),
        ({"instances": [1], "inputs": [1]}, {"x": "float"}, "only one of 'inputs' or"),
        ({"instances": 1}, {"x": "float"}, "to be an list/array"),
        ({"instances": []}, {"x": "float"}, "No values in 'instances' array"),
        ({"instances": [1]}, TWO, "instances is a plain list"),
        ({"inputs": [1]}, TWO, "inputs is a plain value/list"),
        ({"inputs": {"a": 1}}, TWO, "Missing named input: b in 'inputs' object."),
        ({"instances": [{"a": 1}]}, TWO, "keys must be equal to: a,b"),
        (
            {"instances": [{"a": 1, "b": 1, "c": 1}]},
            TWO,
            "Failed to process element: 0 key: c of 'instances' list. Error: "
            "INVALID_ARGUMENT: JSON object: does not have named input: c",
        ),
        ({"instances": [{"x": 1}, 2]}, {"x": "float"}, "Expecting object but got list"),
        ({"instances": [1, {"x": 2}]}, {"x": "float"}, "Expecting value/list but got"),
        ({"instances": [[1, 2], [3]]}, {"x": "float"}, "tensor size: 2 but got: 1"),
        (
            {"instances": [[[1, 2]], [[1], [2]]]},
            {"x": "float"},
            "Expecting shape [1,2] but got: [2,1]",
        ),
        ({"inputs": [[1, 2], [3]]}, {"x": "float"}, "list at unexpected size: 1"),
        ({"inputs": [1, [2]]}, {"x": "float"}, "list at unexpected level: 1"),
        ({"inputs": [[1], 2]}, {"x": "float"}, "found at incorrect level: 2"),
    ],
)
def test_a_request_of_the_wrong_form_is_refused(document, dtypes, text):
    code, message = refusal(document, dtypes)
    assert code == "INVALID_ARGUMENT"
    assert text in message


def test_deeper_nesting_than_an_array_can_have_is_refused():
    value = 1
    for _ in range(65):
        value = [value]
    assert refusal({"inputs": value}, {"x": "float"})[0] == "INVALID_ARGUMENT"


# Values


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("float", 1, 1.0),
        ("float", 1e39, float("inf")),
        ("float", -(10**400), float("-inf")),
        ("double", 1e300, 1e300),
        ("int8", 300, 44),  # cast from int32, as in the real server
        ("uint8", 255, 255),
        ("int16", -5, -5),
        ("int32", -(2**31), -(2**31)),
        ("int64", 2**63 - 1, 2**63 - 1),
        ("uint32", 2**32 - 1, 2**32 - 1),
        ("uint64", 2**64 - 1, 2**64 - 1),
        ("bool", True, True),
        ("string", "é", "é".encode()),
        ("string", {"b64": "/+8="}, b"\xff\xef"),
        ("string", {"b64": "/+8"}, b"\xff\xef"),
        ("string", {"b64": " /+\n8= "}, b"\xff\xef"),
        ("string", {"b64": ""}, b""),
    ],
)
def test_a_value_is_read_as_the_signature_says(dtype, value, expected):
    arrays, _ = arrays_from_json({"inputs": [value]}, {"x": dtype})
    assert arrays["x"].tolist() == [expected]


@pytest.mark.parametrize(
    ("dtype", "value", "kind"),
    [
        ("float", "1", "String"),
        ("float", True, "True"),
        ("float", None, "Null"),
        ("float", {"b64": "aGk="}, "Object"),
        ("int32", 1.0, "Number"),
        ("int32", 2**31, "Number"),
        ("int32", True, "True"),
        ("int64", 2**63, "Number"),
        ("uint32", -1, "Number"),
        ("uint64", -1, "Number"),
        ("bool", 1, "Number"),
        ("bool", "true", "String"),
        ("string", 5, "Number"),
        ("string", None, "Null"),
        ("string", False, "False"),
    ],
)
def test_a_value_of_another_type_is_refused(dtype, value, kind):
    code, message = refusal({"inputs": [value]}, {"x": dtype})
    assert code == "INVALID_ARGUMENT"
    assert message == (
        f"JSON Value: {json.dumps(value)} Type: {kind} is not of expected type: {dtype}"
    )


@pytest.mark.parametrize("dtype", ["half", "bfloat16", "complex64", "uint16"])
def test_a_dtype_that_rest_cannot_carry_is_unimplemented(dtype):
    code, message = refusal({"inputs": [1]}, {"x": dtype})
    assert code == "UNIMPLEMENTED"
    assert message == f"Conversion of JSON Value: 1 to type: {dtype}"


@pytest.mark.parametrize("value", [{"b64": "a"}, {"b64": "-_8="}, {"b64": "a=b="}])
def test_what_is_not_base64_is_refused(value):
    assert refusal({"inputs": [value]}, {"x": "string"})[1] == "Unable to base64 decode"


@pytest.mark.parametrize("value", [{"b64": 1}, {"b64": "aGk=", "x": 1}, {"B64": ""}])
def test_an_object_other_than_base64_is_refused(value):
    message = refusal({"inputs": [value]}, {"x": "string"})[1]
    assert message.endswith("not formatted correctly for base64 data")


def test_a_long_value_is_cut_in_the_error():
    message = refusal({"inputs": ["x" * 10_000]}, {"x": "float"})[1]
    assert len(message) < 1200


# Replies


@pytest.mark.parametrize(
    ("value", "single", "text"),
    [
        (0.2, True, "0.2"),
        (3.0, True, "3.0"),
        (0.0, True, "0.0"),
        (-0.0, True, "-0.0"),
        (1 / 3, True, "0.333333343"),
        (1 / 3, False, "0.33333333333333331"),
        (9e6, True, "9e+06"),
        (3e-5, True, "3e-05"),
        (16777215.0, True, "16777215.0"),
        (3.4028234663852886e38, True, "3.40282347e+38"),
        (1.7976931348623157e308, False, "1.7976931348623157e+308"),
        (float("nan"), True, "NaN"),
        (float("inf"), False, "Infinity"),
        (float("-inf"), True, "-Infinity"),
    ],
)
def test_a_float_is_written_in_the_shortest_form_that_reads_back(value, single, text):
    assert format_float(value, single) == text


def test_one_output_goes_without_its_name():
    y = np.float32([[1, 2], [3, 4]])
    rows = json.loads(json_from_arrays({"y": y}, ROW))
    columns = json.loads(json_from_arrays({"y": y}, COLUMN))
    assert rows == {"predictions": [[1.0, 2.0], [3.0, 4.0]]}
    assert columns == {"outputs": [[1.0, 2.0], [3.0, 4.0]]}


def test_several_outputs_are_objects_with_names():
    outputs = {"y": np.int32([1, 2]), "z": np.array([True, False])}
    rows = json.loads(json_from_arrays(outputs, ROW))
    columns = json.loads(json_from_arrays(outputs, COLUMN))
    assert rows == {"predictions": [{"y": 1, "z": True}, {"y": 2, "z": False}]}
    assert columns == {"outputs": {"y": [1, 2], "z": [True, False]}}


def test_strings_are_text_unless_the_name_ends_in_bytes():
    outputs = {"a": strings("é\n".encode()), "a_bytes": strings(b"\xff\xef")}
    reply = json.loads(json_from_arrays(outputs, COLUMN))
    assert reply == {"outputs": {"a": ["é\n"], "a_bytes": [{"b64": "/+8="}]}}


def test_text_that_is_not_utf8_is_written_as_it_is():
    assert b'["\xff"]' in json_from_arrays({"a": strings(b"\xff")}, COLUMN)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("form", [ROW, COLUMN])
def test_integers_are_written_without_a_point(dtype, form):
    assert b"[1, 2]" in json_from_arrays({"y": np.array([1, 2], dtype)}, form)


def test_uint64_is_written_whole():
    assert b"[18446744073709551615]" in json_from_arrays(
        {"y": np.uint64([2**64 - 1])}, ROW
    )


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("float16", "half"), ("uint16", "uint16"), ("complex64", "complex64")],
)
def test_a_dtype_that_json_does_not_carry_is_refused(dtype, name):
    with pytest.raises(StatusError, match=f"tensor type: {name}") as caught:
        json_from_arrays({"y": np.zeros(1, dtype)}, ROW)
    assert caught.value.http_status == 400


def test_a_scalar_output_has_no_row_form():
    assert json_from_arrays({"y": np.float32(2).reshape(())}, COLUMN)
    with pytest.raises(StatusError, match="has no shape information"):
        json_from_arrays({"y": np.float32(2).reshape(())}, ROW)


def test_outputs_of_different_batch_sizes_have_no_row_form():
    with pytest.raises(StatusError, match="z has inconsistent batch size: 1"):
        json_from_arrays({"y": np.zeros(2), "z": np.zeros(1)}, ROW)


def test_no_output_is_an_error():
    with pytest.raises(StatusError, match="empty tensor map"):
        json_from_arrays({}, ROW)


# Status codes


def test_every_code_has_the_http_status_of_the_real_server():
    by_status = {}
    for code in CODES[1:]:
        by_status.setdefault(StatusError(code, "").http_status, set()).add(code)
    assert by_status == {
        400: {"INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"},
        401: {"UNAUTHENTICATED"},
        403: {"PERMISSION_DENIED"},
        404: {"NOT_FOUND"},
        409: {"ALREADY_EXISTS", "ABORTED"},
        429: {"RESOURCE_EXHAUSTED"},
        499: {"CANCELLED"},
        500: {"UNKNOWN", "INTERNAL", "DATA_LOSS"},
        501: {"UNIMPLEMENTED"},
        503: {"UNAVAILABLE"},
        504: {"DEADLINE_EXCEEDED"},
    }
    assert set(HTTP_STATUS) == set(CODES)


def test_the_numbers_of_the_codes_are_those_of_grpc():
    import grpc

    numbers = {code.name: code.value[0] for code in grpc.StatusCode}
    assert {name: number for number, name in enumerate(CODES)} == numbers


def test_ok_is_no_error():
    with pytest.raises(ValueError, match="Received: code='OK'"):
        StatusError("OK", "fine")
