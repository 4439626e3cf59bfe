"""The load test against the development server, in processes of its own."""

import importlib.util
import json
import subprocess
import sys
import threading
from concurrent import futures

import grpc
import pytest

# Never imported here: it patches the sockets and threads of the process.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="needs locust, the extra [load]",
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    directory = tmp_path_factory.mktemp("catalog")
    (directory / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0 no real image")
    lines = "".join(f"red shoe {n},1.jpg\n" for n in range(10))
    file = directory / "catalog.csv"
    file.write_text("title_masked,image\n" + lines)
    return file


def start(tools, *words):
    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        env=tools.environment(),
        timeout=120,
    )


def load_test(tools, catalog, *words):
    return start(
        tools,
        *("-m", "serving.load_test", "--model_name", "products"),
        *("--catalog", catalog, "--columns", "title=title_masked", "image"),
        *("--warm_up", 0, "--duration", 0.3),
        *words,
    )


def test_a_closed_loop_over_grpc_beside_direct_calls(
    server, tools, written, catalog, tmp_path
):
    file = tmp_path / "load.json"
    done = load_test(
        *(tools, catalog, "--server", server.grpc, "--users", 3, "--batch", 1, 32),
        *("--without", "image=0.2", "--corrupt", "image=0.1", "--to", file),
        *("--direct", written.products),
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(file.read_text())
    assert (result["loop"], result["users"], result["products"]) == ("closed", 3, 10)
    assert result["columns"] == {"title": "title_masked", "image": "image"}
    assert [run["batch_size"] for run in result["runs"]] == [1, 32]
    for run in result["runs"]:
        assert run["requests"] == run["answered"] >= 3
        assert run["errors"] == {}
        times = run["latency_ms"]
        assert 0 < times["p50"] <= times["p95"] <= times["p99"] <= times["max"]
        per_product = run["products_per_s"] / run["requests_per_s"]
        assert per_product == pytest.approx(run["batch_size"])
    for row in result["direct"]["batches"]:
        assert row["pairs"] >= 1
        medians = row["served_ms"]["p50"], row["direct_ms"]["p50"]
        assert row["ratio"] == pytest.approx(medians[0] / medians[1])
    assert "closed loop, 3 users" in done.stdout
    assert "In turn with direct calls" in done.stdout


def test_an_open_loop_over_rest_asks_for_a_label(server, tools, catalog, tmp_path):
    file = tmp_path / "load.json"
    done = load_test(
        *(tools, catalog, "--server", server.rest, "--rest", "--label", "stable"),
        *("--rate", 60, "--signature", "probabilities", "--to", file),
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(file.read_text())
    assert (result["loop"], result["rate"], result["label"]) == ("open", 60, "stable")
    (run,) = result["runs"]
    assert run["requests"] == run["answered"] >= 1
    assert "open loop, 60 requests/s" in done.stdout


def test_no_server_is_one_line(tools, catalog):
    done = load_test(tools, catalog, "--server", "127.0.0.1:1", "--rest", "--users", 1)
    assert done.returncode == 1
    assert done.stderr.startswith("serving.load_test: 127.0.0.1:1: UNAVAILABLE: ")
    assert done.stderr.count("\n") == 1


def test_an_input_that_the_model_lacks_is_one_line(server, tools, catalog):
    done = load_test(
        *(tools, catalog, "--server", server.rest, "--rest", "--users", 1),
        *("--columns", "titel=title_masked"),
    )
    assert done.returncode == 2
    assert done.stderr == (
        "serving.load_test: --columns: unknown input 'titel'; did you mean 'title'?\n"
    )


# What the loops do with servers that answer slowly, badly or all at once. Every check
# is a lower bound, or a count, that a slow machine cannot break.
LOOPS = """
import locust, sys, time
from grpc.experimental import gevent as grpc_gevent
grpc_gevent.init_gevent()
import gevent, grpc
from gevent.lock import Semaphore
from gevent.monkey import get_original
from serving.load.loops import closed_loop, open_loop
from serving.load.transports import RequestError

one_at_a_time = Semaphore(1)

def slow(request):
    with one_at_a_time:
        gevent.sleep(0.02)

samples = open_loop(slow, [0], rate=200, warm_up_s=0, duration_s=0.2)
samples.sort(key=lambda sample: sample.due_s)
first, last = samples[0], max(samples, key=lambda sample: sample.ended_s)
assert len(samples) >= 10, len(samples)
waited = len(samples) * 0.02 - (last.due_s - first.due_s)
assert last.latency_s >= waited - 0.005, (last, waited)
print("open loop counts the queue")

def stalls_the_sender(request):
    get_original("time", "sleep")(0.1)

samples = open_loop(stalls_the_sender, [0], rate=100, warm_up_s=0, duration_s=0.2)
late = [s for s in samples if s.started_s - s.due_s > 0.05]
assert late, samples
assert all(s.latency_s >= s.started_s - s.due_s + 0.099 for s in late)
print("open loop counts the sender's delay")

asked = []

def bad(request):
    asked.append(request)
    gevent.sleep(0.001)
    if request == 2:
        raise RequestError("UNAVAILABLE", "busy")

samples = closed_loop(bad, [0, 1, 2], users=3, warm_up_s=0, duration_s=0.2)
codes = [sample.code for sample in samples]
assert sorted(asked[:3]) == [0, 1, 2], asked[:3]
assert codes.count("UNAVAILABLE") == asked.count(2)
assert codes.count("OK") == len(asked) - asked.count(2)
print("errors have their codes")

samples = closed_loop(bad, [0], users=1, warm_up_s=0.1, duration_s=0.1)
assert 0 < len(samples) < asked.count(0)
print("warm-up does not count")

channel = grpc.insecure_channel(sys.argv[1])
call = channel.unary_unary("/test/meet")
samples = closed_loop(
    lambda request: call(request, timeout=60), [b""], users=3,
    warm_up_s=0, duration_s=0.1,
)
assert len(samples) >= 3
print("gRPC calls of several users overlap")
sys.stdout.flush()
import os; os._exit(0)
"""


def test_the_loops(tools):
    # Nobody is answered before three requests are under way.
    barrier = threading.Barrier(3)
    met = []

    def meet(request, context):
        if not met:
            met.append(barrier.wait(timeout=60))
        return b""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(meet)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers([Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        done = start(tools, "-c", LOOPS, f"127.0.0.1:{port}")
    finally:
        server.stop(0).wait()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 5


def test_help_needs_neither_locust_nor_tensorflow(tools):
    code = (
        "import sys; from serving import load_test\n"
        "import serving.load.loops, serving.load.report, serving.load.direct\n"
        "print([name for name in ('locust', 'tensorflow', 'grpc') "
        "if name in sys.modules])"
    )
    done = start(tools, "-c", code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_guides_commands_parse():
    from serving import load_test as module

    guide = module.Path(module.__file__).parents[1] / "docs" / "serving.md"
    lines = [
        line
        for line in guide.read_text("utf-8").splitlines()
        if line.startswith("python -m serving.load_test")
    ]
    parsed = [module.build_parser().parse(line.split()[3:]) for line in lines]
    assert [(o.users, o.rate) for o in parsed] == [
        (4, None),
        (None, 20),
        (1, None),
        (4, None),
    ]
    for options in parsed:
        assert options.columns == ["title", "description", "image"]
