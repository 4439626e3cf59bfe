"""What the client checks, cuts and writes before and after a request."""

import base64
import json
import math
import pickle
import tomllib
from pathlib import Path

import numpy as np
import pytest

import tfmm_client
from tfmm_client import Client, InputError, Retries, ServerError, Tls, rest_codec
from tfmm_client.batch import Batch, join, read_batch, read_products, split
from tfmm_client.model import Model, Reply, Signature, TensorInfo
from tfmm_client.request_log import RequestLog
from tfmm_client.retries import Deadline
from tfmm_client.server import Server
from tfmm_client.tensor import read_tensor

ROOT = Path(__file__).resolve().parents[2]
STRING = TensorInfo("string", (-1,))
FLOATS = TensorInfo("float", (-1, 2))
PRODUCTS = Signature(
    {"title": STRING, "facts": STRING, "image": STRING},
    {"labels": TensorInfo("string", (-1, 2)), "scores": FLOATS},
)


def batch(inputs, signature=PRODUCTS):
    return read_batch(inputs, signature, "serving_default", "products")


# Checks


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({}, "no product to classify; the inputs are facts, image, title."),
        ({"title": []}, "no product in the input 'title'; the inputs are facts, im"),
        ({"title": np.empty(0, object)}, "no product in the input 'title'"),
        (
            {"titel": ["a"]},
            "the model 'products' has no input 'titel'; did you mean 'title'? "
            "Its inputs: facts, image, title.",
        ),
        (
            {"title": ["a", "b"], "image": [b""]},
            "every input must hold the same number of products. "
            "Received: title 2, image 1",
        ),
        (
            {"title": "red shoe"},
            "the input 'title' takes a list with one value per product. "
            "Received: 'red shoe'",
        ),
        ({"image": b"\xff\xd8"}, "takes a list with one value per product"),
        (
            {"title": [["a"], ["b"]]},
            "the input 'title' takes the shape (any,). Received: (2, 1)",
        ),
        (
            {"title": ["a", ["b"]]},
            "the input 'title' must have the same shape for every product; product 1 "
            "differs from product 0. Received: ['b']",
        ),
        (
            {"title": ["a", None]},
            "the input 'title' takes text or bytes, '' where it is missing. "
            "Received: None (product 1)",
        ),
        ({"title": [5]}, "the input 'title' takes text or bytes"),
        (
            {"title": ["a", "\ud800"]},
            "the input 'title' is not valid text in product 1: surrogates not allowed",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(inputs, problem):
    with pytest.raises(InputError) as caught:
        batch(inputs)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "values", "received"),
    [
        ("float", ["1"], "'1'"),
        ("float", [True], "True"),
        ("float", [1e39], "1e+39"),
        ("double", [10**400], "100000"),
        ("int32", [1.0], "1.0"),
        ("int32", [2**31], "2147483648"),
        ("uint8", [-1], "-1"),
        ("bool", [1], "1"),
    ],
)
def test_a_number_that_the_dtype_does_not_hold_is_refused(dtype, values, received):
    with pytest.raises(InputError, match=rf"the input 'x' takes {dtype}\.") as caught:
        read_tensor("x", values, dtype, [-1])
    assert f"Received: {received}" in str(caught.value)


def test_a_dtype_that_is_not_sent_is_named():
    with pytest.raises(InputError, match="'x' is complex64, which cannot be sent"):
        read_tensor("x", [1.0], "complex64", [-1])


def test_arrays_and_tuples_are_lists():
    array = np.float32([[0.5, 1], [2, 3]])
    for values in (array, array.tolist(), tuple(map(tuple, array.tolist())), [*array]):
        tensor = read_tensor("x", values, "float", [-1, 2])
        assert tensor.shape == (2, 2)
        assert tensor.values == [0.5, 1.0, 2.0, 3.0]


def test_every_axis_of_the_shape_is_compared():
    for values in ([[1.0]], [[1.0, 2.0, 3.0]], [1.0, 2.0], [[[1.0, 2.0]]]):
        with pytest.raises(InputError, match=r"takes the shape \(any, 2\)"):
            read_tensor("x", values, "float", [-1, 2])
    with pytest.raises(InputError, match="product 1 differs from product 0"):
        read_tensor("x", [[1.0, 2.0], [3.0]], "float", [-1, 2])
    assert read_tensor("x", [[[1.0]]], "float", None).shape == (1, 1, 1)


def test_a_missing_string_is_sent_empty_and_a_missing_number_is_refused():
    assert batch({"title": ["a", "b"]}).inputs["image"].values == ["", ""]
    numbers = Signature({"a": TensorInfo("float", (-1,)), "title": STRING}, {})
    with pytest.raises(InputError, match="the input 'a' of dtype float is missing"):
        batch({"title": ["x"]}, numbers)


def test_a_value_for_a_whole_batch_is_not_sent():
    signature = Signature({"temperature": TensorInfo("float", ())}, {})
    with pytest.raises(InputError, match="holds one value for a whole batch"):
        batch({"temperature": [1.0]}, signature)


def test_products_become_columns_with_empty_cells_where_missing():
    products = [{"title": "a"}, {"image": b"\xff"}, {}]
    assert read_products(products, PRODUCTS, "products") == {
        "title": ["a", "", ""],
        "facts": ["", "", ""],
        "image": ["", b"\xff", ""],
    }


@pytest.mark.parametrize(
    ("products", "problem"),
    [
        ([], "no product to classify; the inputs are facts, image, title."),
        ({"title": "a"}, "expected a list of products"),
        (["shoe"], "product 0 must be a dict from input name to value. Received: str"),
        ([{}, {"imgae": b""}], "no input 'imgae'; did you mean 'image'?"),
    ],
)
def test_products_of_another_form_are_refused(products, problem):
    with pytest.raises(InputError) as caught:
        read_products(products, PRODUCTS, "products")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options", "problem"),
    [
        (
            "127.0.0.1:8500",
            {},
            "must start with grpc://, grpcs://, http:// or https://",
        ),
        ("gprc://a:1", {}, "did you mean 'grpc'?"),
        ("grpc://a", {}, "expected grpc://HOST:PORT"),
        ("grpc://a:1/b", {}, "and no path"),
        ("grpc://a:b", {}, "not a URL"),
        ("http://user@a", {}, "expected http://HOST:PORT"),
        ("http://a?b=c", {}, "expected http://HOST:PORT"),
        ("http://a", {"tls": Tls()}, "tls needs https://"),
        ("http://a", {"version": 1, "version_label": "b"}, "exclude each other"),
        ("http://a", {"model": ""}, "the model's name is empty"),
        ("http://a", {"timeout_s": 0}, "timeout_s must be above 0. Received: 0"),
        ("http://a", {"timeout_s": math.nan}, "timeout_s must be above 0"),
        ("http://a", {"max_batch_size": 0}, "max_batch_size must be 1 or more"),
        ("http://a", {"max_in_flight": -1}, "max_in_flight must be 1 or more"),
        ("http://a", {"max_request_bytes": 0}, "max_request_bytes must be 1 or more"),
        ("http://a", {"log": "/no/such/place"}, "log: /no/such/place: No such file"),
    ],
)
def test_an_option_that_cannot_be_is_refused(url, options, problem):
    with pytest.raises(InputError) as caught:
        Client(url, **options)
    assert problem in str(caught.value)


def test_tls_files_are_checked_when_they_are_named(tmp_path):
    with pytest.raises(InputError, match="certificate and key go together"):
        Tls(certificate="a.pem")
    with pytest.raises(InputError, match=r"tls: authorities: .*: No such file"):
        Tls(authorities=tmp_path / "no.pem")
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(InputError, match="tls: not PEM certificates"):
        Client("https://a", tls=Tls(authorities=tmp_path / "bad.pem"))


def test_urls_are_read():
    grpc = Server.parse("grpcs://[::1]:8500", headers={"Authorization": "x"})
    assert (grpc.is_grpc, grpc.is_encrypted, grpc.address) == (True, True, "[::1]:8500")
    assert grpc.headers == {"authorization": "x"}
    rest = Server.parse("https://shop.example/models/")
    assert (rest.address, rest.path) == ("shop.example", "/models")


# Cutting and joining


def sizes(parts):
    return [part.num_products for part in parts]


def cut(whole, max_products=100, max_bytes=10**6, value_bytes=len):
    return split(whole, max_products, max_bytes, value_bytes)


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(1, 1, [1]), (4, 4, [4]), (5, 4, [4, 1]), (9, 3, [3, 3, 3]), (3, 1, [1, 1, 1])],
)
def test_a_batch_is_cut_at_the_limit_in_order(count, limit, expected):
    parts = cut(batch({"title": [str(i) for i in range(count)]}), limit)
    assert sizes(parts) == expected
    together = [value for part in parts for value in part.inputs["title"].values]
    assert together == [str(i) for i in range(count)]
    assert all(len(part.inputs["image"].values) == part.num_products for part in parts)


def test_a_batch_is_cut_by_bytes_too():
    whole = batch({"title": ["aa", "aa", "aaa", "a", "aaaa"]})
    assert sizes(cut(whole, max_bytes=4)) == [2, 2, 1]
    with pytest.raises(InputError, match="product 4 takes 4 bytes; max_request_bytes"):
        cut(whole, max_bytes=3)


def test_rows_of_many_values_stay_whole():
    signature = Signature({"x": TensorInfo("float", (-1, 2))}, {})
    parts = cut(batch({"x": [[1, 2], [3, 4], [5, 6]]}, signature), 2, value_bytes=abs)
    assert [part.inputs["x"].nested() for part in parts] == [
        [[1.0, 2.0], [3.0, 4.0]],
        [[5.0, 6.0]],
    ]


@pytest.mark.parametrize("shape", [(), (2,)])
def test_a_signature_that_is_not_by_product_is_not_cut(shape):
    signature = Signature({"title": STRING}, {"total": TensorInfo("float", shape)})
    whole = batch({"title": ["a", "b"]}, signature)
    assert cut(whole, 2) == [whole]
    with pytest.raises(InputError, match="cannot be cut: 'total' is not one row per"):
        cut(whole, 1)


def test_outputs_are_joined_in_order():
    parts = cut(batch({"title": ["a", "b", "c"]}), 2)
    answers = [{"y": [[1], [2]], "z": ["a", "b"]}, {"y": [[3]], "z": ["c"]}]
    assert join(parts, answers) == {"y": [[1], [2], [3]], "z": ["a", "b", "c"]}
    for wrong in ({"y": [[3], [4]], "z": ["c"]}, {"y": 3, "z": ["c"]}, {"y": [[3]]}):
        with pytest.raises(ServerError, match="INTERNAL: "):
            join(parts, [answers[0], wrong])


@pytest.mark.parametrize(
    "value",
    ["", "red shoe", 'é "鞋"\n\x00', b"", b"\xff" * 10, b"\xff" * 11, 0.1, -(2**63)],
)
def test_a_body_is_never_larger_than_was_counted(value):
    dtype = {str: "string", bytes: "string", float: "double", int: "int64"}[type(value)]
    signature = Signature({"x": TensorInfo(dtype, (-1,))}, {})
    one, three = (
        rest_codec.predict_body(batch({"x": [value] * n}, signature)) for n in (1, 3)
    )
    assert len(three) - len(one) <= 2 * rest_codec.value_bytes(value)


# JSON


def body(inputs, signature=PRODUCTS):
    return json.loads(rest_codec.predict_body(batch(inputs, signature)))


def test_text_is_sent_as_text_and_bytes_as_standard_base64():
    image = bytes(range(256))
    sent = body({"title": ['é "鞋"\t\n'], "image": [image]})
    assert sent == {
        "signature_name": "serving_default",
        "inputs": {
            "title": ['é "鞋"\t\n'],
            "facts": [""],
            "image": [{"b64": base64.standard_b64encode(image).decode()}],
        },
    }
    text = sent["inputs"]["image"][0]["b64"]
    assert {"+", "/", "="} <= set(text)
    assert not {"-", "_", "\n"} & set(text)


def test_bytes_are_base64_also_where_they_are_text_or_empty():
    sent = body({"title": [b"shoe", b"", ""]})["inputs"]["title"]
    assert sent == [{"b64": "c2hvZQ=="}, {"b64": ""}, ""]


def test_numbers_that_json_has_not_are_bare_words():
    signature = Signature({"x": TensorInfo("float", (-1,))}, {})
    whole = batch({"x": [math.nan, math.inf, -math.inf]}, signature)
    assert b'"x":[NaN,Infinity,-Infinity]' in rest_codec.predict_body(whole)


def read(text, outputs):
    infos = {name: TensorInfo(dtype, None) for name, dtype in outputs.items()}
    whole = Batch("serving_default", Signature({}, infos), {}, 1)
    reply = rest_codec.read_reply(text, Model("m"), whole)
    assert reply.version is None
    return reply.outputs


def test_a_float_is_the_float32_that_its_digits_stand_for():
    both = {"y": "float", "z": "double"}
    read_back = read(b'{"outputs": {"y": [[0.1, 3]], "z": [0.1]}}', both)
    assert read_back == {"y": [[float(np.float32(0.1)), 3.0]], "z": [0.1]}
    (value,) = read(b'{"outputs": [NaN]}', {"y": "float"})["y"]
    assert math.isnan(value)
    assert read(b'{"outputs": -Infinity}', {"y": "float"}) == {"y": -math.inf}


def test_bytes_come_back_as_bytes_and_broken_text_is_replaced():
    named = {"raw_bytes": "string", "text": "string"}
    reply = b'{"outputs": {"raw_bytes": [{"b64": "/w=="}], "text": ["\xff"]}}'
    assert read(reply, named) == {"raw_bytes": [b"\xff"], "text": ["�"]}


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"outputs": 1}', b'{"outputs": {"y": [{"b64": "?"}]}}'],
)
def test_a_reply_of_another_form_is_an_error(text):
    with pytest.raises(ServerError, match="INTERNAL: "):
        read(text, {"y": "string", "z": "string"})
    for reader in (rest_codec.read_metadata, rest_codec.read_statuses):
        with pytest.raises(ServerError, match="INTERNAL: "):
            reader(text)


def test_an_http_error_has_the_code_and_the_text():
    error = rest_codec.read_error(404, b'{"error": "Servable\\n not found"}')
    assert (error.code, error.http_status) == ("NOT_FOUND", 404)
    assert str(error) == "HTTP 404: Servable not found"
    assert rest_codec.read_error(502, b"<html>").code == "UNKNOWN"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code) == (str(error), error.code)


# Retries


def test_waits_grow_to_a_limit_and_vary():
    retries = Retries(max_tries=6, first_wait_s=1, factor=3, longest_wait_s=20)
    assert [retries.longest_wait_after(n) for n in range(1, 6)] == [1, 3, 9, 20, 20]
    error, deadline = ServerError("UNAVAILABLE", ""), Deadline(1000)
    waits = [retries.wait_s(error, 2, deadline) for _ in range(100)]
    assert 1.5 <= min(waits) < max(waits) <= 3
    assert retries.wait_s(error, 6, deadline) is None


def test_only_unavailable_within_the_deadline_is_tried_again():
    deadline = Deadline(1000)
    for code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"):
        assert Retries().wait_s(ServerError(code, ""), 1, deadline) is None
    slow = Retries(first_wait_s=3000, longest_wait_s=3000)
    assert slow.wait_s(ServerError("UNAVAILABLE", ""), 1, deadline) is None


@pytest.mark.parametrize(
    "options", [{"max_tries": 0}, {"first_wait_s": -1}, {"factor": 0.5}]
)
def test_retries_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="Received: "):
        Retries(**options)


# The log


def answered(inputs, **outputs):
    whole = batch(inputs)
    outputs = {
        "labels": [["shoe", "hat"]] * whole.num_products,
        "scores": [[0.75, 0.25]] * whole.num_products,
        "assigned": [[True, False]] * whole.num_products,
        **outputs,
    }
    return whole, Reply(outputs, 3)


INPUTS = {"title": ["鞋 shoe", ""], "image": [b"\xff" * 7, b""]}


def lines(path):
    text = path.read_text("utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_of_the_log_holds_what_the_readme_says(tmp_path):
    path = tmp_path / "requests.jsonl"
    log = RequestLog(path, "products", texts=False)
    images = {"image_used": [[True], [False]], "image_status": [["used"], ["missing"]]}
    log.append(*answered(INPUTS, **images), duration_s=0.25)
    (line,) = lines(path)
    assert line.pop("time").endswith("Z")
    assert line == {
        "model": "products",
        "version": 3,
        "signature": "serving_default",
        "duration_s": 0.25,
        "products": [
            {
                "inputs": {
                    "facts": {"present": False},
                    "image": {"present": True, "bytes": 7},
                    "title": {"present": True, "characters": 6},
                },
                "label": "shoe",
                "score": 0.75,
                "assigned": True,
                "image_used": [True],
                "image_status": ["used"],
            },
            {
                "inputs": {n: {"present": False} for n in ("facts", "image", "title")},
                "label": "shoe",
                "score": 0.75,
                "assigned": True,
                "image_used": [False],
                "image_status": ["missing"],
            },
        ],
    }


def test_texts_are_logged_only_when_asked_for(tmp_path):
    path = tmp_path / "requests.jsonl"
    RequestLog(path, "products", texts=False).append(*answered(INPUTS), 0.0)
    assert "鞋" not in path.read_text("utf-8")
    RequestLog(path, "products", texts=True).append(*answered(INPUTS), 0.0)
    title = lines(path)[1]["products"][0]["inputs"]["title"]
    assert title == {"present": True, "characters": 6, "text": "鞋 shoe"}


def test_a_label_that_utf_8_cannot_hold_does_not_lose_the_line(tmp_path):
    path = tmp_path / "requests.jsonl"
    log = RequestLog(path, "products", texts=False)
    log.append(*answered({"title": ["a"]}, labels=[["\ud83d shoe", "hat"]]), 0.0)
    assert lines(path)[0]["products"][0]["label"] == "? shoe"


def test_other_signatures_are_not_logged(tmp_path):
    path = tmp_path / "requests.jsonl"
    log = RequestLog(path, "products", texts=False)
    log.append(batch({"title": ["a"]}), Reply({"probabilities": [[1.0]]}, 3), 0.0)
    assert path.read_bytes() == b""


def test_a_log_that_was_moved_away_is_begun_anew(tmp_path):
    path = tmp_path / "requests.jsonl"
    log = RequestLog(path, "products", texts=False)
    log.append(*answered(INPUTS), 0.0)
    path.rename(tmp_path / "old.jsonl")
    log.append(*answered(INPUTS), 0.0)
    assert len(lines(path)) == len(lines(tmp_path / "old.jsonl")) == 1


# The distribution


def test_importing_it_imports_nothing_heavy_and_no_neighbour(tools):
    code = (
        "import sys, tfmm_client\n"
        "heavy = {'tensorflow', 'numpy', 'keras', 'grpc', 'httpx', 'google.protobuf',\n"
        "         'serving', 'tfmm', 'export'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "tfmm_client.Client('grpc://127.0.0.1:1').close()\n"
        "tfmm_client.Client('http://127.0.0.1:1').close()\n"
        "assert {'grpc', 'httpx'} <= set(sys.modules)\n"
        "heavy = {'tensorflow', 'numpy', 'keras', 'serving', 'tfmm', 'export'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    tools.run_code(code)


def test_the_clone_installs_what_the_client_needs():
    own = tomllib.loads((ROOT / "serving/client/pyproject.toml").read_text("utf-8"))
    clone = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needs = set(own["project"]["dependencies"])
    assert needs <= set(clone["project"]["dependencies"])
    assert {need.split(">")[0] for need in needs} == {"grpcio", "httpx", "protobuf"}
    package = "tfmm_client"
    assert package in clone["tool"]["setuptools"]["packages"]
    data = own["tool"]["setuptools"]["package-data"][package]
    assert clone["tool"]["setuptools"]["package-data"][package] == data
    folder = ROOT / clone["tool"]["setuptools"]["package-dir"][package]
    assert Path(tfmm_client.__file__).resolve().parent == folder
