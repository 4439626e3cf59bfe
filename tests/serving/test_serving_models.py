"""Versions come and go without a lost request."""

import os
import shutil
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from serving.config import ConfigError, ModelConfig, read_model_config_file
from serving.load_options import LoadOptions
from serving.models import ModelStore
from serving.status import StatusError


@pytest.fixture(scope="module")
def halves(tmp_path_factory, tools):
    """SavedModels whose answer to x is x / 2 + 1, + 2 and + 3."""
    base = tmp_path_factory.mktemp("halves")
    return {n: tools.write_half(base / str(n), float(n)) for n in (1, 2, 3)}


def put(source: Path, base_path: Path, number: int) -> Path:
    """Copies a SavedModel and renames it into place, as a deployment should."""
    base_path.mkdir(exist_ok=True)
    shutil.copytree(source, base_path.parent / f"copy-{number}")
    os.rename(base_path.parent / f"copy-{number}", base_path / str(number))
    return base_path / str(number)


def break_variables(path: Path) -> Path:
    (path / "variables" / "variables.index").write_bytes(b"broken")
    return path


def log_of(inputs, signature="serving_default") -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(request)
    return log.SerializeToString()


def states(store, name="half"):
    return {version.number: version.state for version in store.statuses(name)}


@pytest.fixture
def store_of():
    """Makes stores that are polled by hand, and stops them."""
    stores = []

    def make(config, options=None):
        stores.append(ModelStore([config], options))
        stores[-1].poll()
        return stores[-1]

    yield make
    for store in stores:
        store.stop()


def test_the_highest_version_is_served_and_other_names_are_passed_over(
    tmp_path, halves, store_of
):
    base = tmp_path / "half"
    for number in (2, 10):
        put(halves[1], base, number)
    (base / "temporary").mkdir()
    (base / "99").write_text("no directory")
    store = store_of(ModelConfig("half", base))
    assert store.available() == {"half": [10]}


def test_a_new_version_replaces_the_old_one(tmp_path, halves, local, tools):
    base = tmp_path / "half"
    put(halves[1], base, 1)
    server = local(ModelConfig("half", base))
    url = f"{server.url}/half:predict"
    assert tools.http(url, {"inputs": [0]}) == (200, {"outputs": [1.0]})
    put(halves[2], base, 2)
    tools.wait_until(lambda: states(server.store) == {1: "END", 2: "AVAILABLE"})
    assert tools.http(url, {"inputs": [0]}) == (200, {"outputs": [2.0]})
    status, reply = tools.http(f"{server.url}/half/versions/1:predict", {"inputs": [0]})
    assert status == 404
    assert reply["error"] == "Servable not found for request: Specific(half, 1)"
    _, reply = tools.http(f"{server.url}/half")
    found = [(v["version"], v["state"]) for v in reply["model_version_status"]]
    assert found == [("2", "AVAILABLE"), ("1", "END")]


def test_a_swap_under_load_loses_no_request(tmp_path, halves, local, tools):
    base = tmp_path / "half"
    put(halves[1], base, 1)
    server = local(ModelConfig("half", base))
    stop, answers, failures = threading.Event(), set(), []

    def over_grpc():
        with grpc.insecure_channel(server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "half"
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([0])))
            while not stop.is_set():
                try:
                    reply = stub.Predict(request, timeout=20)
                except grpc.RpcError as error:
                    failures.append(error.details())
                    return
                pair = (reply.model_spec.version.value, reply.outputs["y"].float_val[0])
                answers.add(pair)

    def over_rest():
        while not stop.is_set():
            reply = tools.http(f"{server.url}/half:predict", {"inputs": [0]})
            if reply[0] != 200:
                failures.append(reply)
                return
            answers.add((reply[1]["outputs"][0], reply[1]["outputs"][0]))

    clients = [threading.Thread(target=f) for f in (over_grpc, over_rest) * 2]
    for client in clients:
        client.start()
    try:
        for number in (2, 3):
            old = (number - 1, number - 1.0)
            tools.wait_until(lambda old=old: old in answers or failures)
            put(halves[number], base, number)
            tools.wait_until(
                lambda number=number: (
                    states(server.store).get(number) == "AVAILABLE"
                    and states(server.store)[number - 1] == "END"
                )
            )
        tools.wait_until(lambda: (3, 3.0) in answers or failures)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert failures == []
    assert answers == {(1, 1.0), (2, 2.0), (3, 3.0)}


def test_a_request_under_way_keeps_its_version_open(tmp_path, halves, store_of):
    base = tmp_path / "half"
    put(halves[1], base, 1)
    store = store_of(ModelConfig("half", base))
    with store.lease(model_pb2.ModelSpec(name="half")) as version:
        put(halves[2], base, 2)
        store.poll()
        assert states(store) == {1: "UNLOADING", 2: "AVAILABLE"}
        x = version.signatures["serving_default"].inputs["x"].name
        y = version.signatures["serving_default"].outputs["y"].name
        answer = version.run({x: np.float32([4])}, {"y": (y, "float")})
        assert answer["y"].tolist() == [3.0]
    assert states(store) == {1: "END", 2: "AVAILABLE"}


def test_a_failed_load_keeps_the_old_version(tmp_path, halves, store_of):
    base = tmp_path / "half"
    put(halves[1], base, 1)
    store = store_of(ModelConfig("half", base))
    broken = break_variables(put(halves[2], base, 2))
    store.poll()
    store.poll()
    assert states(store) == {1: "AVAILABLE", 2: "END"}
    assert store.statuses("half", 2)[0].error.code in ("DATA_LOSS", "INVALID_ARGUMENT")
    # Whole again, it comes up without a restart.
    shutil.copytree(halves[2] / "variables", broken / "variables", dirs_exist_ok=True)
    store.poll()
    assert states(store) == {1: "END", 2: "AVAILABLE"}


def test_a_failed_load_is_told_over_rest(tmp_path, halves, local, tools):
    base = tmp_path / "half"
    put(halves[1], base, 1)
    (base / "2").mkdir()
    server = local(ModelConfig("half", base))
    _, reply = tools.http(f"{server.url}/half/versions/2")
    (entry,) = reply["model_version_status"]
    assert entry["state"] == "END"
    assert entry["status"]["error_code"] == "NOT_FOUND"
    assert "SavedModel file does not exist" in entry["status"]["error_message"]


def test_a_version_that_vanishes_is_unloaded(tmp_path, halves, store_of):
    base = tmp_path / "half"
    put(halves[1], base, 1)
    store = store_of(ModelConfig("half", base))
    shutil.rmtree(base / "1")
    store.poll()
    assert states(store) == {1: "END"}
    put(halves[2], base, 1)
    store.poll()
    assert states(store) == {1: "AVAILABLE"}


def test_going_back_is_removing_the_highest_version(tmp_path, halves, store_of):
    base = tmp_path / "half"
    for number in (1, 2):
        put(halves[number], base, number)
    store = store_of(ModelConfig("half", base))
    assert store.available() == {"half": [2]}
    shutil.rmtree(base / "2")
    store.poll()
    assert store.available() == {"half": [1]}


def test_a_base_path_out_of_reach_unloads_nothing(tmp_path, halves, store_of):
    base = tmp_path / "half"
    put(halves[1], base, 1)
    store = store_of(ModelConfig("half", base))
    shutil.move(base, tmp_path / "elsewhere")
    store.poll()
    assert store.available() == {"half": [1]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_versions": 2}, [2, 3]),
        ({"policy": "all"}, [1, 2, 3]),
        ({"policy": "specific", "versions": (1, 3, 8)}, [1, 3]),
    ],
)
def test_the_policy_chooses_the_versions(
    tmp_path, halves, store_of, settings, expected
):
    base = tmp_path / "half"
    for number, source in halves.items():
        put(source, base, number)
    store = store_of(ModelConfig("half", base, **settings))
    assert store.available() == {"half": expected}


# What the C++ server would refuse


def test_a_variable_that_only_python_restores_fails_here_too(tmp_path, store_of):
    # Python's loader finds `hidden` by way of the object graph. The restore op
    # of the meta graph, which the C++ server runs, is made to miss it.
    module = tf.Module()
    module.hidden = tf.Variable(3.0)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    def serve(x):
        return {"y": x * module.hidden}

    path = tmp_path / "m" / "1"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    saved = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    for function in saved.meta_graphs[0].graph_def.library.function:
        if "_traced_restore" in function.signature.name:
            for node in function.node_def:
                if node.op == "AssignVariableOp":
                    node.op = "NoOp"
                    del node.input[:]
                    node.attr.clear()
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    assert tf.saved_model.load(str(path)).hidden.numpy() == 3.0
    store = store_of(ModelConfig("m", path.parent))
    with store.lease(model_pb2.ModelSpec(name="m")) as version:
        signature = version.signatures["serving_default"]
        with pytest.raises(StatusError, match=r"FAILED_PRECONDITION|NOT_FOUND"):
            version.run(
                {signature.inputs["x"].name: np.float32([1])},
                {"y": (signature.outputs["y"].name, "float")},
            )


def test_ops_of_tensorflow_text_are_known(tmp_path, store_of):
    import tensorflow_text

    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(text):
        return {"folded": tensorflow_text.case_fold_utf8(text)}

    path = tmp_path / "m" / "1"
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
    store = store_of(ModelConfig("m", path.parent))
    assert store.available() == {"m": [1]}


# Warm-up


def test_warm_up_records_run_before_the_version_is_available(
    tmp_path, halves, store_of, tools
):
    base = tmp_path / "half"
    path = put(halves[1], base, 1)
    records = [log_of({"x": np.float32([1])}), log_of({"text": ["a"]}, "echo")]
    tools.write_warm_up(path, records)
    assert store_of(ModelConfig("half", base)).available() == {"half": [1]}


@pytest.mark.parametrize(
    ("records", "code", "text"),
    [
        (
            [log_of({"x": np.float32([1])}), log_of({"x": ["one"]})],
            "INVALID_ARGUMENT",
            "warm-up record 1: Expects arg[0] to be float but string is provided",
        ),
        ([log_of({}, "nope")], "FAILED_PRECONDITION", "warm-up record 0: Serving sig"),
        ([b"no record"], "INVALID_ARGUMENT", "Failed to parse warm-up record 0"),
        (
            [prediction_log_pb2.PredictionLog(classify_log={}).SerializeToString()],
            "UNIMPLEMENTED",
            "is a classify_log",
        ),
        (
            [log_of({"x": np.float32([1])})] * 1001,
            "INVALID_ARGUMENT",
            "Number of warmup records exceeds the maximum (1000)",
        ),
    ],
    ids=["dtype", "signature", "bytes", "classify", "too many"],
)
def test_a_failing_warm_up_record_fails_the_load(
    tmp_path, halves, store_of, tools, records, code, text
):
    base = tmp_path / "half"
    path = put(halves[1], base, 1)
    tools.write_warm_up(path, records)
    store = store_of(ModelConfig("half", base))
    (version,) = store.statuses("half")
    assert (version.state, version.error.code) == ("END", code)
    assert text in version.error.message
    (failure,) = store.failures()
    assert failure is version


def test_a_warm_up_file_that_is_no_tfrecord_fails_the_load(tmp_path, halves, store_of):
    base = tmp_path / "half"
    path = put(halves[1], base, 1)
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"x" * 40)
    (version,) = store_of(ModelConfig("half", base)).statuses("half")
    assert version.error.code == "DATA_LOSS"


def test_warm_up_can_be_switched_off(tmp_path, halves, store_of, tools):
    base = tmp_path / "half"
    tools.write_warm_up(put(halves[1], base, 1), [b"no record"])
    store = store_of(ModelConfig("half", base), LoadOptions(warm_up=False))
    assert store.available() == {"half": [1]}


# --model_config_file


CONFIG = 'config { name: "m" base_path: "BASE" model_platform: "tensorflow" }'


def config_text(**fields) -> str:
    fields = {
        "name": '"m"',
        "base_path": '"BASE"',
        "model_platform": '"tensorflow"',
    } | (fields)
    inside = " ".join(
        f"{key} {{ {value} }}" if ":" in value or value == "" else f"{key}: {value}"
        for key, value in fields.items()
        if value is not None
    )
    return f"model_config_list {{ config {{ {inside} }} }}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (config_text(), {}),
        (
            config_text(model_version_policy="latest: { num_versions: 3 }"),
            {"num_versions": 3},
        ),
        (config_text(model_version_policy="all: {}"), {"policy": "all"}),
        (
            config_text(model_version_policy="specific: { versions: 4 versions: 7 }"),
            {"policy": "specific", "versions": (4, 7)},
        ),
        (
            config_text(version_labels='key: "stable" value: 4'),
            {"labels": {"stable": 4}},
        ),
        (config_text(model_platform=None, model_type="TENSORFLOW"), {}),
    ],
)
def test_a_config_file_is_followed(tmp_path, text, expected):
    file = tmp_path / "models.pbtxt"
    file.write_text(text.replace("BASE", str(tmp_path)))
    (config,) = read_model_config_file(file)
    assert config == ModelConfig("m", tmp_path, **expected)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected a model_config_list. Received: an empty file."),
        ("model_config_list {}", "names no model"),
        ("model_config_lst {}", "is not a ModelServerConfig: 1:1"),
        ("custom_model_config {}", "Received: custom_model_config."),
        (
            config_text().replace("{ config", "{ " + CONFIG + " config", 1),
            "Illegal to list model m multiple times",
        ),
        (config_text(name='""'), "a model without a name"),
        (config_text(model_platform='"other"'), 'must be "tensorflow". Received: \'ot'),
        (config_text(model_platform=None), "model_platform must be"),
        (config_text(base_path='"m"'), "base_path must be absolute. Received: 'm'"),
        (config_text(base_path='"BASE/nope"'), "is not a directory. Received: "),
        (config_text(logging_config=""), "logging_config is not supported"),
        (config_text(model_version_policy="specific: {}"), "lists no versions"),
    ],
)
def test_a_config_file_that_cannot_be_followed_is_refused(tmp_path, text, problem):
    file = tmp_path / "models.pbtxt"
    file.write_text(text.replace("BASE", str(tmp_path)))
    with pytest.raises(ConfigError) as caught:
        read_model_config_file(file)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
