"""Many clients, large messages and versions that change, all at once."""

import http.client
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MEBIBYTES = 2**20


@contextmanager
def grpc_client(server):
    """A function from model and number to the answer and its version."""
    options = [
        ("grpc.max_receive_message_length", -1),
        # A connection of its own, as a client on another machine has.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def call(name, number):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([number])))
            reply = stub.Predict(request, timeout=60)
            return reply.outputs["y"].float_val[0], reply.model_spec.version.value

        yield call


@contextmanager
def rest_client(server):
    """The same over REST, on one connection; the version is not told."""
    connection = http.client.HTTPConnection(server.rest, timeout=60)

    def call(name, number):
        body = json.dumps({"instances": [number]})
        connection.request("POST", f"/v1/models/{name}:predict", body)
        reply = connection.getresponse()
        document = json.loads(reply.read())
        assert reply.status == 200, document
        return document["predictions"][0], None

    try:
        yield call
    finally:
        connection.close()


def test_64_clients_get_their_own_answers(server):
    together = threading.Barrier(64)

    def client(number):
        with (grpc_client if number % 2 else rest_client)(server) as call:
            together.wait(timeout=60)
            return [call("half", number + 64 * step)[0] for step in range(5)]

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(client, range(64)))
    assert answers == [[n / 2 + 32 * step for step in range(5)] for n in range(64)]


@pytest.fixture
def put_version(models_directory, server, tools):
    """Puts versions of the model swap live; takes them away again afterwards."""
    base_path = models_directory / "swap"

    def versions():
        _, reply = tools.http(f"{server.url}/swap")
        return {
            int(entry["version"])
            for entry in reply["model_version_status"]
            if entry["state"] == "AVAILABLE"
        }

    def put(number):
        aside = models_directory / f"aside-{number}"
        shutil.copytree(models_directory / "next" / str(number), aside)
        os.rename(aside, base_path / str(number))
        tools.wait_until(lambda: versions() == {number}, timeout_s=60)

    yield put
    for number in (2, 3):
        shutil.rmtree(base_path / str(number), ignore_errors=True)
    tools.wait_until(lambda: versions() == {1}, timeout_s=60)


def test_64_clients_lose_no_request_in_hot_swaps(server, put_version, tools):
    stop, lock, seen, failures = threading.Event(), threading.Lock(), set(), []

    def client(number):
        try:
            with (grpc_client if number % 2 else rest_client)(server) as call:
                while not stop.is_set() and not failures:
                    answer, version = call("swap", number)
                    offset = answer - number / 2
                    with lock:
                        seen.add((offset, version))
        except Exception as error:
            failures.append(error)

    clients = [threading.Thread(target=client, args=(n,)) for n in range(64)]
    for thread in clients:
        thread.start()

    def answered_by(number):
        expected = {(float(number), number), (float(number), None)}
        tools.wait_until(lambda: expected <= seen or failures, timeout_s=60)

    try:
        answered_by(1)
        for number in (2, 3):
            put_version(number)
            answered_by(number)
    finally:
        stop.set()
        for thread in clients:
            thread.join()
    assert failures == []
    assert seen == {(float(n), v) for n in (1, 2, 3) for v in (n, None)}


def test_requests_and_replies_over_4_mib_are_answered_over_rest(server, tools):
    text = "é" * (3 * MEBIBYTES)
    body = {"signature_name": "echo", "inputs": [text]}
    status, reply = tools.http(f"{server.url}/half:predict", body)
    assert status == 200
    assert reply["outputs"]["text"] == [text]
    assert reply["outputs"]["length"] == [6 * MEBIBYTES]


def test_requests_and_replies_over_4_mib_are_answered_over_grpc(server):
    options = [("grpc.max_receive_message_length", -1)]
    image = os.urandom(5 * MEBIBYTES)
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "half"
        request.model_spec.signature_name = "echo"
        request.inputs["text"].CopyFrom(tf.make_tensor_proto([image]))
        reply = stub.Predict(request, timeout=60)
    assert reply.ByteSize() > 10 * MEBIBYTES
    assert reply.outputs["raw_bytes"].string_val[0] == image


def test_a_reply_over_4_mib_fails_at_a_client_with_grpc_defaults(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "half"
        x = np.ones(1_100_000, np.float32)
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=60)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
