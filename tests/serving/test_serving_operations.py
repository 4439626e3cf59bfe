"""What those who run a server rely on: health, metrics, CORS, files and flags."""

import re
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.config import ConfigError
from serving.load_options import LoadOptions
from serving.metrics import Histogram, Metrics
from serving.options import build_parser, parallelism
from serving.parameters import BatchingParameters, read_monitoring_config
from serving.parameters import read_batching_parameters as read_batching

METRICS = "/monitoring/prometheus/metrics"


def call(url: str, body=None, method=None):
    """One HTTP call: status, headers and body."""
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


# gRPC health


@pytest.fixture(scope="module")
def health(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("name", ["", "ModelService", "PredictionService"])
def test_grpc_health_says_serving(health, name):
    request = health_pb2.HealthCheckRequest(service=name)
    assert health.Check(request, timeout=20).status == (
        health_pb2.HealthCheckResponse.SERVING
    )
    watch = health.Watch(request, timeout=20)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_grpc_health_knows_no_name_with_a_package(health):
    name = "tensorflow.serving.PredictionService"
    request = health_pb2.HealthCheckRequest(service=name)
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(request, timeout=20)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_grpc_health_is_off_unless_asked_for(batching_server):
    with grpc.insecure_channel(batching_server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Prometheus metrics


def samples(server) -> tuple[dict[str, float], dict[str, str]]:
    """The metrics of TensorFlow Serving, by name with labels, and their types."""
    status, headers, body = call(f"http://{server.rest}{METRICS}")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    values, types = {}, {}
    for line in body.decode().splitlines():
        if line.startswith("# TYPE :tensorflow:serving:"):
            _, _, name, kind = line.split()
            types[name] = kind
        elif line.startswith(":tensorflow:serving:"):
            key, value = line.rsplit(" ", 1)
            assert re.fullmatch(r'[\w:]+\{(\w+="[^"]*",?)*\}', key), line
            values[key] = float(value)
    return values, types


def test_metrics_count_requests_by_model_and_status(server, tools):
    def counts():
        return [
            samples(server)[0].get(f":tensorflow:serving:request_count{{{labels}}}", 0)
            for labels in (
                'model_name="half",status="OK"',
                'model_name="half",status="INVALID_ARGUMENT"',
                'model_name="nobody",status="NOT_FOUND"',
            )
        ]

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32([1])))
    before = counts()
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(request, timeout=20)
    tools.http(f"{server.url}/half:predict", {"inputs": [1]})
    tools.http(f"{server.url}/half:predict", {"inputs": ["a"]})
    tools.http(f"{server.url}/nobody:predict", {"inputs": [1]})
    assert [after - b for after, b in zip(counts(), before, strict=True)] == [2, 1, 1]


def test_metrics_hold_latencies_as_histograms(server, tools):
    tools.http(f"{server.url}/half:predict", {"inputs": [1]})
    values, types = samples(server)
    assert types[":tensorflow:serving:request_count"] == "counter"
    assert types[":tensorflow:serving:request_latency"] == "histogram"
    assert types[":tensorflow:serving:runtime_latency"] == "histogram"
    name = ":tensorflow:serving:request_latency"
    labels = 'model_name="half",API="predict",entrypoint="REST"'
    buckets = [
        (key, value)
        for key, value in values.items()
        if key.startswith(f"{name}_bucket{{{labels},")
    ]
    assert len(buckets) == 34
    assert buckets[0][0].endswith(',le="10"}')
    assert buckets[1][0].endswith(',le="18"}')
    assert buckets[-1][0].endswith(',le="+Inf"}')
    counts = [value for _, value in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == values[f"{name}_count{{{labels}}}"] >= 1
    assert values[f"{name}_sum{{{labels}}}"] > 0
    runtime = 'model_name="half",API="Predict",runtime="TF1"'
    assert values[f":tensorflow:serving:runtime_latency_count{{{runtime}}}"] >= 1


def test_metrics_are_off_unless_asked_for(batching_server):
    assert call(f"http://{batching_server.rest}{METRICS}")[0] == 404


def test_a_histogram_counts_each_value_once():
    histogram = Histogram("h", ["model_name"], [1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 7.0):
        histogram.observe(value, "m")
    assert histogram.lines() == [
        "# TYPE h histogram",
        'h_bucket{model_name="m",le="1"} 2',
        'h_bucket{model_name="m",le="2"} 3',
        'h_bucket{model_name="m",le="+Inf"} 4',
        'h_sum{model_name="m"} 10',
        'h_count{model_name="m"} 4',
    ]


def test_a_name_that_a_client_sent_cannot_break_the_page():
    metrics = Metrics()
    metrics.request_count.increment('a"} 9\nb\\', "NOT_FOUND")
    line = r'request_count{model_name="a\"} 9\nb\\",status="NOT_FOUND"} 1'
    assert line.encode() in metrics.page()


def test_warm_up_is_timed(written, local, tools, tmp_path):
    from tensorflow_serving.apis import prediction_log_pb2

    from serving.config import ModelConfig

    path = tools.write_offset(tmp_path / "m" / "1", 0.0)
    log = prediction_log_pb2.PredictionLog()
    x = tf.make_tensor_proto(np.float32([1]))
    log.predict_log.request.inputs["x"].CopyFrom(x)
    tools.write_warm_up(path, [log.SerializeToString()])
    server = local(ModelConfig("m", path.parent))
    line = f'model_warmup_latency_count{{model_path="{path}",status="OK"}} 1\n'
    assert line.encode() in server.store.metrics.page()


# CORS


def test_cors_headers_let_a_page_of_another_origin_call(server):
    for body, expected in ((b'{"inputs": [1]}', 200), (b"{", 400)):
        status, headers, _ = call(f"{server.url}/half:predict", body)
        assert status == expected
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert headers["Access-Control-Allow-Methods"] == "POST, GET"
        assert headers["Access-Control-Allow-Headers"] == "Content-Type"


def test_a_cors_preflight_is_allowed(server):
    status, headers, body = call(f"{server.url}/half:predict", method="OPTIONS")
    assert (status, body) == (200, b"")
    assert headers["Access-Control-Allow-Origin"] == "*"


def test_cors_is_off_unless_asked_for(batching_server):
    _, headers, _ = call(f"{batching_server.url}/half:predict", b'{"inputs": [1]}')
    assert "Access-Control-Allow-Origin" not in headers
    assert call(f"{batching_server.url}/half:predict", method="OPTIONS")[0] == 400


# Files of parameters


def test_a_monitoring_file_is_followed(tmp_path):
    file = tmp_path / "monitoring.pbtxt"
    for text, expected in (
        ("prometheus_config { enable: true }", METRICS),
        ('prometheus_config { enable: true path: "/m" }', "/m"),
        ("prometheus_config { }", None),
        ("", None),
    ):
        file.write_text(text)
        assert read_monitoring_config(file) == expected


def test_a_batching_file_is_followed(tmp_path):
    file = tmp_path / "batching.pbtxt"
    file.write_text(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 5000 }\n"
        "max_enqueued_batches { value: 100 } num_batch_threads { value: 2 }\n"
        'thread_pool_name { value: "pool" } pad_variable_length_inputs: true\n'
        "allowed_batch_sizes: [2, 4] max_execution_batch_size { value: 4 }\n"
        "enable_large_batch_splitting { value: true }\n"
    )
    assert read_batching(file) == BatchingParameters(
        8, 5000, 100, 2, "pool", (2, 4), True, True, 4
    )
    file.write_text("")
    assert read_batching(file) == BatchingParameters()


@pytest.mark.parametrize(
    ("read", "text", "problem"),
    [
        (read_monitoring_config, "prometheus { }", "is not a MonitoringConfig: 1:1"),
        (
            read_monitoring_config,
            'prometheus_config { enable: true path: "m" }',
            "must begin with '/'. Received: 'm'",
        ),
        (read_batching, "max_batch_size: 4", "is not a BatchingParameters: 1:1"),
        (
            read_batching,
            "max_batch_size { value: 0 }",
            "max_batch_size must be positive; was 0",
        ),
        (
            read_batching,
            "batch_timeout_micros { value: -1 }",
            "batch_timeout_micros must be non-negative; was -1",
        ),
        (
            read_batching,
            "max_batch_size { value: 8 } allowed_batch_sizes: 4",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry "
            "was 4; expected 8",
        ),
        (
            read_batching,
            "max_batch_size { value: 8 } allowed_batch_sizes: [8, 4, 8]",
            "allowed_batch_sizes must ascend from 1 or more; were [8, 4, 8]",
        ),
        (
            read_batching,
            "max_batch_size { value: 8 } enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 4 } allowed_batch_sizes: 8",
            "must match max_execution_batch_size; last entry was 8; expected 4",
        ),
        (
            read_batching,
            "max_batch_size { value: 4 } enable_large_batch_splitting { value: true } "
            "max_execution_batch_size { value: 8 }",
            "greater than or equal to max_execution_batch_size",
        ),
    ],
)
def test_a_file_of_parameters_that_cannot_be_followed_is_refused(
    tmp_path, read, text, problem
):
    file = tmp_path / "parameters.pbtxt"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(file)
    assert problem in str(caught.value)
    assert str(caught.value).startswith(str(file))


# Flags of threads


@pytest.mark.parametrize(
    ("flags", "threads"),
    [
        ([], (0, 0)),
        (["--tensorflow_session_parallelism=3"], (3, 3)),
        (["--tensorflow_intra_op_parallelism=1"], (1, 0)),
        (
            [
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=2",
            ],
            (1, 2),
        ),
    ],
)
def test_the_flags_of_threads_reach_the_sessions(flags, threads):
    within, between = parallelism(build_parser().parse(flags))
    assert (within, between) == threads
    config = LoadOptions(
        intra_op_threads=within, inter_op_threads=between
    ).session_config()
    assert config.intra_op_parallelism_threads == within
    assert config.inter_op_parallelism_threads == between
