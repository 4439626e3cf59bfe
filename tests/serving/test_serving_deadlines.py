"""No request holds a thread longer than its client waits."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.config import ModelConfig
from serving.rest import RestOptions


def request_of(signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([1])))
    return request


@pytest.fixture
def one_thread(local, written):
    """A server that runs one gRPC request at a time."""
    return local(
        ModelConfig("half", written.half.parent),
        max_threads=1,
        rest_options=RestOptions(timeout_ms=300),
    )


@pytest.fixture
def stub(one_thread):
    with grpc.insecure_channel(one_thread.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def test_a_grpc_deadline_frees_the_thread(stub):
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request_of("slow"), timeout=0.3)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    reply = stub.Predict(request_of(), timeout=20)
    assert reply.outputs["y"].float_val == [0.5]


def test_the_rest_time_limit_frees_the_thread(one_thread, tools):
    url = f"{one_thread.url}/half:predict"
    for _ in range(2):
        body = {"signature_name": "slow", "inputs": [1]}
        assert tools.http(url, body)[0] == 504
    assert tools.http(url, {"inputs": [1]}) == (200, {"outputs": [0.5]})


def test_a_call_that_is_given_up_before_it_runs_is_not_run(one_thread, stub, tools):
    # The first call opens the connection, which would take of the slow one's time.
    stub.Predict(request_of(), timeout=20)
    slow = stub.Predict.future(request_of("slow"), timeout=3)
    given_up = stub.Predict.future(request_of("slow"))
    given_up.cancel()
    reply = stub.Predict(request_of(), timeout=20)
    assert reply.outputs["y"].float_val == [0.5]
    assert slow.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    page = one_thread.store.metrics.page().decode()
    counts = [line for line in page.splitlines() if "request_count{" in line]
    name = ':tensorflow:serving:request_count{model_name="half",status='
    assert counts == [f'{name}"DEADLINE_EXCEEDED"}} 1', f'{name}"OK"}} 2']
