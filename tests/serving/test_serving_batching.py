"""Requests are joined to batches as TensorFlow Serving joins them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.batching import BatchScheduler
from serving.config import ModelConfig
from serving.load_options import LoadOptions
from serving.metrics import Metrics
from serving.parameters import BatchingParameters
from serving.status import StatusError

FULL = "The batch scheduling queue to which this task was submitted is full; "
MINUTE = 60_000_000


class Graph:
    """Stands for a graph: records the batches, and runs when it is let."""

    def __init__(self):
        self.batches = []
        self.timeouts_ms = []
        self.free = threading.Event()
        self.free.set()
        self.started = threading.Semaphore(0)
        self.error = None

    def __call__(self, inputs, timeout_ms):
        self.batches.append({name: array.tolist() for name, array in inputs.items()})
        self.timeouts_ms.append(timeout_ms)
        self.started.release()
        assert self.free.wait(20)
        if self.error is not None:
            raise self.error
        return {"y": inputs["x"] * 2}


@pytest.fixture
def queue_of():
    """Makes a queue with parameters, and the graph that it runs."""
    schedulers = []

    def make(**parameters):
        parameters = BatchingParameters(**({"num_batch_threads": 1} | parameters))
        scheduler = BatchScheduler(parameters, Metrics())
        schedulers.append(scheduler)
        graph = Graph()
        return scheduler.add_queue(parameters, graph), graph

    yield make
    for scheduler in schedulers:
        scheduler.close()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(16) as pool:
        yield pool


def rows(*values, dtype=np.float32):
    return {"x": np.array(values, dtype)}


def refusal(call, *arguments):
    with pytest.raises(StatusError) as caught:
        call(*arguments)
    return caught.value.code, caught.value.message


def result(future):
    return future.result(timeout=20)


# The queue


def test_a_full_batch_runs_at_once(queue_of, pool):
    queue, graph = queue_of(max_batch_size=3, batch_timeout_micros=MINUTE)
    calls = [pool.submit(queue.call, rows(float(n)), None) for n in range(3)]
    answers = [result(call)["y"].tolist() for call in calls]
    assert answers == [[0.0], [2.0], [4.0]]
    (batch,) = graph.batches
    assert sorted(batch["x"]) == [0.0, 1.0, 2.0]


def test_a_batch_that_is_not_filled_in_time_runs_as_it_is(queue_of):
    queue, graph = queue_of(max_batch_size=3, batch_timeout_micros=20_000)
    assert queue.call(rows(1.0, 2.0), None)["y"].tolist() == [2.0, 4.0]
    assert graph.batches == [{"x": [1.0, 2.0]}]


def test_a_request_that_does_not_fit_opens_the_next_batch(queue_of, pool, tools):
    queue, graph = queue_of(max_batch_size=3, batch_timeout_micros=MINUTE)
    first = pool.submit(queue.call, rows(1.0, 2.0), None)
    tools.wait_until(lambda: queue.ready_s() is not None)
    second = pool.submit(queue.call, rows(3.0, 4.0, 5.0), None)
    assert result(first)["y"].tolist() == [2.0, 4.0]
    assert result(second)["y"].tolist() == [6.0, 8.0, 10.0]
    assert [len(batch["x"]) for batch in graph.batches] == [2, 3]


def test_more_rows_than_a_batch_holds_are_refused(queue_of):
    queue, _ = queue_of(max_batch_size=3)
    assert refusal(queue.call, rows(1.0, 2.0, 3.0, 4.0), None) == (
        "INVALID_ARGUMENT",
        "Task size 4 is larger than maximum input batch size 3",
    )


def test_a_large_request_is_split_where_that_is_set_up(queue_of, pool, tools):
    queue, graph = queue_of(
        max_batch_size=9,
        max_execution_batch_size=3,
        batch_timeout_micros=100_000,
        enable_large_batch_splitting=True,
    )
    first = pool.submit(queue.call, rows(0.0), None)
    tools.wait_until(lambda: queue.ready_s() is not None)
    values = [float(n) for n in range(1, 8)]
    answer = queue.call(rows(*values), None)
    assert answer["y"].tolist() == [2 * value for value in values]
    assert result(first)["y"].tolist() == [0.0]
    assert [batch["x"] for batch in graph.batches] == [
        [0.0, 1.0, 2.0],
        [3.0, 4.0, 5.0],
        [6.0, 7.0],
    ]


def test_a_full_queue_refuses_and_goes_on(queue_of, pool, tools):
    queue, graph = queue_of(max_batch_size=2, max_enqueued_batches=2)
    graph.free.clear()
    running = pool.submit(queue.call, rows(0.0, 0.0), None)
    assert graph.started.acquire(timeout=20)
    waiting = [pool.submit(queue.call, rows(n, n), None) for n in (1.0, 2.0)]
    tools.wait_until(lambda: len(queue._batches) == 2 and queue._batches[1].tasks)
    assert refusal(queue.call, rows(3.0), None) == (
        "UNAVAILABLE",
        FULL + "currently 2 batches enqueued and max_enqueued_batches is 2",
    )
    graph.free.set()
    assert result(running)["y"].tolist() == [0.0, 0.0]
    assert [result(call)["y"].tolist() for call in waiting] == [[2.0] * 2, [4.0] * 2]
    assert queue.call(rows(5.0), None)["y"].tolist() == [10.0]


def test_a_full_queue_refuses_with_splitting_too(queue_of):
    queue, _ = queue_of(
        max_batch_size=100,
        max_execution_batch_size=2,
        max_enqueued_batches=2,
        enable_large_batch_splitting=True,
    )
    assert refusal(queue.call, rows(*[1.0] * 5), None) == (
        "UNAVAILABLE",
        FULL + "task size is 5 but scheduling capacity is only 4 "
        "(num_enqueued_batches=1, max_enqueued_batches=2, open_batch_size=0, "
        "max_execution_batch_size=2)",
    )


def test_a_batch_is_filled_up_to_an_allowed_size(queue_of):
    queue, graph = queue_of(max_batch_size=4, allowed_batch_sizes=(2, 4))
    assert queue.call(rows(7.0, 8.0, 9.0), None)["y"].tolist() == [14.0, 16.0, 18.0]
    assert graph.batches == [{"x": [7.0, 8.0, 9.0, 7.0]}]


def test_inputs_of_other_shapes_fail_the_batch_unless_they_are_padded(queue_of, pool):
    def both(queue):
        calls = [
            pool.submit(queue.call, rows([1.0, 2.0, 3.0]), None),
            pool.submit(queue.call, rows([5.0]), None),
        ]
        return [call.exception(timeout=20) or result(call)["y"] for call in calls]

    settings = {"max_batch_size": 2, "batch_timeout_micros": MINUTE}
    queue, graph = queue_of(**settings)
    for error in both(queue):
        assert error.code == "FAILED_PRECONDITION"
        assert error.message.startswith("Tensors with name 'x' from different tasks")
    assert graph.batches == []
    queue, graph = queue_of(**settings, pad_variable_length_inputs=True)
    answers = both(queue)
    assert answers[0].tolist() == [[2.0, 4.0, 6.0]]
    # The first element fills up.
    assert answers[1].tolist() == [[10.0, 10.0, 10.0]]


def test_inputs_of_other_dtypes_fail_the_batch(queue_of, pool):
    queue, graph = queue_of(max_batch_size=2, batch_timeout_micros=MINUTE)
    calls = [
        pool.submit(queue.call, rows(1.0), None),
        pool.submit(queue.call, rows(1, dtype=np.int32), None),
    ]
    for call in calls:
        assert call.exception(timeout=20).code == "INTERNAL"
    assert graph.batches == []


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "Batching Run() must have at least one input tensor"),
        (
            {"x": np.float32(1).reshape(())},
            "Batching Run() input tensors must have at least one dimension",
        ),
        (
            {"x": np.zeros(2), "z": np.zeros(3)},
            "Batching Run() input tensors must have equal 0th-dimension size",
        ),
    ],
)
def test_inputs_that_cannot_be_joined_are_refused(queue_of, inputs, text):
    queue, _ = queue_of()
    assert refusal(queue.call, inputs, None) == ("INVALID_ARGUMENT", text)


def test_an_error_ends_every_request_of_its_batch_and_no_other(queue_of, pool):
    queue, graph = queue_of(max_batch_size=2, batch_timeout_micros=MINUTE)
    graph.error = StatusError("OUT_OF_RANGE", "too far")
    calls = [pool.submit(queue.call, rows(1.0), None) for _ in range(2)]
    for call in calls:
        assert call.exception(timeout=20).code == "OUT_OF_RANGE"
    graph.error = None
    assert queue.call(rows(1.0, 2.0), None)["y"].tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (np.float32(3).reshape(()), "Batched output tensor has 0 dimensions"),
        (np.zeros(5), "Batched output tensor's 0th dimension does not equal the sum"),
    ],
)
def test_an_output_that_cannot_be_cut_apart_is_refused(output, text):
    scheduler = BatchScheduler(BatchingParameters(num_batch_threads=1), Metrics())
    queue = scheduler.add_queue(scheduler.parameters, lambda *_: {"y": output})
    code, message = refusal(queue.call, rows(1.0), None)
    scheduler.close()
    assert code == "FAILED_PRECONDITION"
    assert message.startswith(text)


def test_a_bug_in_a_batch_leaves_nobody_waiting(queue_of, capsys):
    queue, graph = queue_of(max_batch_size=1)
    graph.error = ZeroDivisionError("a bug")
    code, message = refusal(queue.call, rows(1.0), None)
    assert (code, message) == ("INTERNAL", "ZeroDivisionError('a bug') in a batch")
    assert "Traceback" in capsys.readouterr().err


def test_the_batch_that_has_waited_longest_runs_first(queue_of, pool, tools):
    queue, graph = queue_of(max_batch_size=1)
    other = queue._scheduler.add_queue(BatchingParameters(max_batch_size=1), graph)
    graph.free.clear()
    calls = [pool.submit(queue.call, rows(0.0), None)]
    assert graph.started.acquire(timeout=20)
    for value, to, waiting in ((1.0, queue, 1), (2.0, other, 1), (3.0, queue, 2)):
        calls.append(pool.submit(to.call, rows(value), None))
        tools.wait_until(
            lambda to=to, waiting=waiting: (
                sum(len(batch.tasks) for batch in to._batches) == waiting
            )
        )
    graph.free.set()
    for call in calls:
        result(call)
    assert graph.batches == [{"x": [float(number)]} for number in range(4)]


# Deadlines and clients that give up


def test_a_batch_runs_within_the_longest_time_of_its_requests(queue_of, pool):
    queue, graph = queue_of(max_batch_size=2, batch_timeout_micros=MINUTE)
    calls = [pool.submit(queue.call, rows(1.0), t) for t in (30_000, 60_000)]
    for call in calls:
        result(call)
    assert 30_000 < graph.timeouts_ms[0] <= 60_000
    calls = [pool.submit(queue.call, rows(1.0), t) for t in (30_000, None)]
    for call in calls:
        result(call)
    assert graph.timeouts_ms[1] is None


def test_a_batch_whose_requests_are_all_late_is_not_run(queue_of):
    queue, graph = queue_of(max_batch_size=2, batch_timeout_micros=50_000)
    assert refusal(queue.call, rows(1.0), 1) == (
        "RESOURCE_EXHAUSTED",
        "Run() timeout exceeded while waiting in batching queue",
    )
    assert graph.batches == []


def test_a_client_that_gives_up_ends_its_wait_and_is_not_run(queue_of, pool, tools):
    queue, graph = queue_of(max_batch_size=2, batch_timeout_micros=MINUTE)
    cancels = []

    def on_cancel(cancel):
        cancels.append(cancel)
        return True

    call = pool.submit(queue.call, rows(1.0), None, on_cancel)
    tools.wait_until(lambda: cancels)
    cancels[0]()
    assert call.exception(timeout=20).code == "CANCELLED"
    # The row that was given up still takes its place, so this one fills the batch.
    assert queue.call(rows(2.0), None)["y"].tolist() == [4.0]
    assert graph.batches == [{"x": [2.0]}]
    # One that had given up before is not waited for.
    assert refusal(queue.call, rows(3.0), None, lambda cancel: False)[0] == "CANCELLED"


def test_closing_cancels_what_waits(queue_of, pool, tools):
    queue, _ = queue_of(max_batch_size=2, batch_timeout_micros=MINUTE)
    call = pool.submit(queue.call, rows(1.0), None)
    tools.wait_until(lambda: queue.ready_s() is not None)
    queue._scheduler.close()
    assert call.exception(timeout=20).code == "CANCELLED"
    assert refusal(queue.call, rows(1.0), None)[0] == "UNAVAILABLE"


# A server: batches of 4 rows, 300 ms, one thread, 2 batches may wait; sizes 2 and 4


@pytest.fixture(scope="module")
def stub(batching_server):
    with grpc.insecure_channel(batching_server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def request_of(values, signature=""):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "half"
    request.model_spec.signature_name = signature
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.float32(values)))
    return request


def grpc_refusal(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return caught.value.code(), caught.value.details()


def test_joined_requests_get_their_own_answers_over_both_protocols(
    batching_server, stub, tools, pool
):
    def over_grpc(number):
        reply = stub.Predict(request_of([number]), timeout=20)
        return reply.outputs["y"].float_val[0]

    def over_rest(number):
        body = {"instances": [number]}
        _, reply = tools.http(f"{batching_server.url}/half:predict", body)
        return reply["predictions"][0]

    calls = [
        pool.submit(over_grpc if number % 2 else over_rest, number)
        for number in range(8)
    ]
    assert [result(call) for call in calls] == [number / 2 for number in range(8)]


def test_a_server_refuses_more_rows_than_a_batch_holds(batching_server, stub, tools):
    text = "Task size 5 is larger than maximum input batch size 4"
    refused = grpc_refusal(stub.Predict, request_of([1] * 5), timeout=20)
    assert refused == (grpc.StatusCode.INVALID_ARGUMENT, text)
    url = f"{batching_server.url}/half:predict"
    assert tools.http(url, {"inputs": [1] * 5}) == (400, {"error": text})


def test_a_scalar_cannot_be_joined(batching_server, tools):
    url = f"{batching_server.url}/half:predict"
    text = "Batching Run() input tensors must have at least one dimension"
    assert tools.http(url, {"inputs": 1}) == (400, {"error": text})


def test_an_input_with_a_default_cannot_be_left_out_of_a_batch(stub):
    request = request_of([1.0, 2.0], "add")
    request.inputs["a"].CopyFrom(request.inputs["x"])
    del request.inputs["x"]
    assert grpc_refusal(stub.Predict, request, timeout=20) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Batching Run() input tensors must have equal 0th-dimension size",
    )


def test_a_filtered_request_runs_by_itself(stub):
    request = request_of([1.0] * 5, "add")
    for name in ("a", "b"):
        request.inputs[name].CopyFrom(request.inputs["x"])
    del request.inputs["x"]
    request.output_filter.append("sum")
    reply = stub.Predict(request, timeout=20)
    assert list(reply.outputs["sum"].float_val) == [2.0] * 5


def slow_call(stub, pool):
    """Holds the only thread, once it has it, until its deadline."""
    request = request_of([1] * 4, "slow")
    return pool.submit(grpc_refusal, stub.Predict, request, timeout=2.5)


def test_a_full_server_answers_unavailable_and_lives(stub, pool, tools):
    slow, calls, refused = slow_call(stub, pool), [], []

    def call():
        try:
            stub.Predict(request_of([8] * 4), timeout=20)
        except grpc.RpcError as error:
            refused.append((error.code(), error.details()))

    def refuses():
        # Those that come before the slow one are answered.
        calls.append(pool.submit(call))
        return refused or slow.done()

    tools.wait_until(refuses)
    assert refused == [
        (
            grpc.StatusCode.UNAVAILABLE,
            FULL + "currently 2 batches enqueued and max_enqueued_batches is 2",
        )
    ] * len(refused)
    assert refused
    assert result(slow)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    for future in calls:
        result(future)
    reply = stub.Predict(request_of([8] * 4), timeout=20)
    assert list(reply.outputs["y"].float_val) == [4.0] * 4


def test_time_that_runs_out_in_the_queue_is_resource_exhausted_over_rest(
    batching_server, stub, tools, pool
):
    slow, answers = slow_call(stub, pool), []

    def late():
        url = f"{batching_server.url}/half:predict"
        answers.append(tools.http(url, {"inputs": [1] * 4}))
        # Those that come before the slow one are answered.
        return answers[-1][0] != 200 or slow.done()

    tools.wait_until(late)
    text = "Run() timeout exceeded while waiting in batching queue"
    assert answers[-1] == (429, {"error": text})
    result(slow)


def test_a_grpc_deadline_ends_the_wait_for_a_batch(stub):
    # Two rows wait 300 ms for a batch to fill.
    code, _ = grpc_refusal(stub.Predict, request_of([1, 2]), timeout=0.05)
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert list(
        stub.Predict(request_of([1, 2]), timeout=20).outputs["y"].float_val
    ) == [0.5, 1.0]


# Inside this process


def per_model(tmp_path, tools, text):
    """A version with parameters of its own."""
    path = tools.write_offset(tmp_path / "m" / "1", 0.0)
    (path / "batching_params.pbtxt").write_text(text)
    return ModelConfig("m", path.parent)


@pytest.fixture
def scheduler():
    parameters = BatchingParameters(num_batch_threads=1, max_batch_size=2)
    scheduler = BatchScheduler(parameters, Metrics())
    yield scheduler
    scheduler.close()


@pytest.mark.parametrize(
    ("batching_per_model", "with_file", "most"),
    [(True, True, 3), (True, False, 99), (False, True, 2)],
)
def test_a_version_may_bring_its_own_parameters(
    tmp_path, tools, local, scheduler, batching_per_model, with_file, most
):
    config = per_model(tmp_path, tools, "max_batch_size { value: 3 }")
    if not with_file:
        (config.base_path / "1" / "batching_params.pbtxt").unlink()
    options = LoadOptions(scheduler=scheduler, batching_per_model=batching_per_model)
    url = local(config, options=options).url + "/m:predict"
    assert tools.http(url, {"inputs": [1.0] * most})[0] == 200
    status, reply = tools.http(url, {"inputs": [1.0] * (most + 1)})
    if most == 99:
        assert status == 200
    else:
        text = f"Task size {most + 1} is larger than maximum input batch size {most}"
        assert (status, reply) == (400, {"error": text})


def test_bad_parameters_of_its_own_fail_the_load(tmp_path, tools, local, scheduler):
    config = per_model(tmp_path, tools, "max_batch_size: 3")
    options = LoadOptions(scheduler=scheduler, batching_per_model=True)
    (version,) = local(config, options=options).store.statuses("m")
    assert (version.state, version.error.code) == ("END", "INVALID_ARGUMENT")
    assert "is not a BatchingParameters" in version.error.message


def test_a_version_waits_for_its_batches_before_it_goes(tmp_path, tools, local, pool):
    parameters = BatchingParameters(
        num_batch_threads=1, max_batch_size=2, batch_timeout_micros=200_000
    )
    scheduler = BatchScheduler(parameters, Metrics())
    path = tools.write_offset(tmp_path / "m" / "1", 0.0)
    server = local(
        ModelConfig("m", path.parent), options=LoadOptions(scheduler=scheduler)
    )
    call = pool.submit(tools.http, f"{server.url}/m:predict", {"inputs": [1.0]})
    tools.wait_until(
        lambda: any(queue.ready_s() is not None for queue in scheduler._queues)
    )
    server.store.reload([])
    assert result(call) == (200, {"outputs": [0.5]})
    assert [version.state for version in server.store.statuses("m")] == ["END"]
    assert scheduler._queues == []
    scheduler.close()


def test_a_client_that_gives_up_frees_its_thread(tmp_path, tools, local):
    parameters = BatchingParameters(
        num_batch_threads=1, max_batch_size=8, batch_timeout_micros=MINUTE
    )
    scheduler = BatchScheduler(parameters, Metrics())
    path = tools.write_offset(tmp_path / "half" / "1", 0.0)
    server = local(
        ModelConfig("half", path.parent),
        options=LoadOptions(scheduler=scheduler),
        max_threads=2,
    )
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for calls in (1, 2, 3):
            # Both threads wait for a batch that is not going to fill for a minute.
            futures = [stub.Predict.future(request_of([1.0])) for _ in range(2)]
            (queue,) = scheduler._queues
            tools.wait_until(
                lambda queue=queue, calls=calls: queue._batches[0].num_rows == 2 * calls
            )
            for future in futures:
                future.cancel()
        # Two more rows fill the batch, and are answered by the threads set free.
        reply = stub.Predict(request_of([1.0, 2.0]), timeout=20)
        assert list(reply.outputs["y"].float_val) == [0.5, 1.0]
    scheduler.close()
