"""Servers that answer with tiny SavedModels: our own, or one started by hand.

With `--serving-address` the tests that talk to a server talk to that one, for
example to TensorFlow Serving; `tests/serving_models.py` writes what it serves.
"""

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from serving_models import (
    batching_flags,
    flags,
    write_everything,
    write_half,
    write_offset,
    write_warm_up,
)

ROOT = Path(__file__).resolve().parents[2]


def wait_until(condition, timeout_s: float = 20.0) -> None:
    """Polls a condition; fails the test if it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.01)


def http(url: str, body=None, headers=None, method=None) -> tuple[int, object]:
    """One HTTP call: status and parsed JSON (None for an empty reply)."""
    data = (
        body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    )
    request = urllib.request.Request(url, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            status, text = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    return status, json.loads(text) if text else None


def run_code(code: str) -> str:
    """What a program prints in a process of its own; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    """The environment of a child process that imports from the clone."""
    client = ROOT / "serving" / "client"
    paths = [str(ROOT), str(client), os.environ.get("PYTHONPATH", "")]
    joined = os.pathsep.join(path for path in paths if path)
    return os.environ | {"PYTHONPATH": joined, "CUDA_VISIBLE_DEVICES": "-1"}


class ServerProcess:
    """`python -m serving.server` as a child, once it has said that it is ready."""

    def __init__(self, *flags: str, log: Path) -> None:
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serving.server", *flags],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment(),
            )
        self.log = log
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self.process.stdout.close()

    def line(self, timeout_s: float = 60.0) -> str:
        """The next line of standard output."""
        return self._lines.get(timeout=timeout_s)

    def wait_ready(self) -> None:
        """Reads the two lines of a start and the ports in the second."""
        self.first_line = self.line()
        self.ready_line = self.line()
        ports = re.findall(r"127\.0\.0\.1:(\d+)", self.ready_line)
        self.grpc, self.rest = (f"127.0.0.1:{port}" for port in ports)
        self.url = f"http://{self.rest}/v1/models"

    def stop(self, number: int | None = None) -> int:
        """Ends the process (SIGTERM unless told otherwise); its exit code."""
        if number is None:
            self.process.terminate()
        else:
            self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self._reader.join()
        return code


def pytest_addoption(parser):
    group = parser.getgroup("serving")
    form = "HOST:GRPC_PORT,REST_PORT"
    group.addoption(
        "--serving-address", metavar=form, help="test this server, not our own"
    )
    group.addoption(
        "--batching-address", metavar=form, help="the same, with batching switched on"
    )
    group.addoption(
        "--serving-models",
        metavar="DIR",
        type=Path,
        help="what tests/serving_models.py wrote for these servers",
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "development_server_only(reason): not for a server given by address",
    )


def live(config) -> bool:
    """Are servers given by address?"""
    # None where only other tests' conftest files were read at start.
    options = ("--serving-address", "--batching-address")
    return any(config.getoption(option, None) for option in options)


def pytest_collection_modifyitems(config, items):
    if not live(config):
        return
    here = Path(__file__).parent
    for item in items:
        marker = item.get_closest_marker("development_server_only")
        if here not in Path(item.path).parents:
            continue
        if marker is not None:
            item.add_marker(pytest.mark.skip(reason=marker.args[0]))
        elif not {"server", "batching_server"} & set(item.fixturenames):
            reason = "talks to no server, or to one of its own"
            item.add_marker(pytest.mark.skip(reason=reason))


def given_address(config, option: str) -> SimpleNamespace | None:
    """The server that an option names; None without the option."""
    text = config.getoption(option, None)
    if text is None:
        return None
    match = re.fullmatch(r"([^:,]+):(\d+),(\d+)", text)
    if match is None:
        raise pytest.UsageError(
            f"{option}: expected HOST:GRPC_PORT,REST_PORT. Received: {text}"
        )
    host, grpc_port, rest_port = match.groups()
    return SimpleNamespace(
        grpc=f"{host}:{grpc_port}",
        rest=f"{host}:{rest_port}",
        url=f"http://{host}:{rest_port}/v1/models",
    )


@pytest.fixture(scope="session")
def models_directory(request, tmp_path_factory) -> Path:
    """What `tests/serving_models.py` writes. What a test changes, it puts back."""
    given = request.config.getoption("--serving-models", None)
    if given is not None:
        return given
    if live(request.config):
        pytest.skip("needs --serving-models")
    directory = tmp_path_factory.mktemp("models")
    write_everything(directory)
    return directory


@pytest.fixture(scope="session")
def written(models_directory):
    """Directories of two SavedModels, to copy from or to serve."""
    return SimpleNamespace(
        half=models_directory / "half" / "1",
        products=models_directory / "products" / "1",
    )


@pytest.fixture(scope="session")
def server(request, tmp_path_factory):
    """A server with the models half, products and swap."""
    given = given_address(request.config, "--serving-address")
    if given is not None:
        yield given
        return
    if live(request.config):
        pytest.skip("needs --serving-address")
    directory = request.getfixturevalue("models_directory")
    yield from started(flags(directory), tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session")
def batching_server(request, tmp_path_factory):
    """A server with the model half that joins requests to batches."""
    given = given_address(request.config, "--batching-address")
    if given is not None:
        yield given
        return
    if live(request.config):
        pytest.skip("needs --batching-address")
    directory = request.getfixturevalue("models_directory")
    yield from started(batching_flags(directory), tmp_path_factory.mktemp("batching"))


def started(server_flags: list[str], directory: Path):
    """Yields the development server as a process, and stops it afterwards."""
    process = ServerProcess(
        *server_flags, "--port=0", "--rest_api_port=-1", log=directory / "stderr.txt"
    )
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


@pytest.fixture
def local():
    """Starts servers inside this process: call it with `ModelConfig`s."""
    from serving import grpc_service, rest
    from serving.models import ModelStore

    with contextlib.ExitStack() as stack:

        def start(*configs, poll_s=0.02, max_threads=8, rest_options=None, **options):
            store = ModelStore(configs, **options)
            store.poll()
            grpc_server, port = grpc_service.start(store, "127.0.0.1", 0, max_threads)
            rest_server, rest_port = rest.start(
                store, "127.0.0.1", 0, rest_options or rest.RestOptions()
            )
            store.start(poll_s)
            stack.callback(store.stop)
            stack.callback(rest_server.server_close)
            stack.callback(rest_server.shutdown)
            stack.callback(lambda: grpc_server.stop(1).wait())
            return SimpleNamespace(
                store=store,
                grpc=f"127.0.0.1:{port}",
                url=f"http://127.0.0.1:{rest_port}/v1/models",
            )

        yield start


@pytest.fixture(scope="session")
def tools():
    """The helpers above, for the tests; a conftest cannot be imported by name."""
    return SimpleNamespace(
        ServerProcess=ServerProcess,
        environment=environment,
        run_code=run_code,
        http=http,
        wait_until=wait_until,
        write_half=write_half,
        write_offset=write_offset,
        write_warm_up=write_warm_up,
    )
