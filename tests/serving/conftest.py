"""Tiny SavedModels, and servers that answer with them."""

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

ROOT = Path(__file__).resolve().parents[2]


def write_half(path: Path, offset: float = 0.0) -> Path:
    """A SavedModel of many signatures; the default one is `y = x / 2 + offset`."""
    import tensorflow as tf

    floats = tf.TensorSpec([None], tf.float32)
    module = tf.Module()
    module.offset = tf.Variable(offset)
    ten = tf.constant([10.0])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def half(x):
        x = tf.ensure_shape(x, [None])
        return {"y": x / 2 + module.offset}

    @tf.function(input_signature=[floats, floats])
    def add(a, b=ten):
        return {"sum": a + b, "difference": a - b}

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 3], tf.float32)])
    def mean(image):
        image = tf.ensure_shape(image, [None, 4, 4, 3])
        return {"mean": tf.reduce_mean(image, axis=[1, 2, 3])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def echo(text):
        text = tf.ensure_shape(text, [None])
        return {"text": text, "raw_bytes": text, "length": tf.strings.length(text)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])
    def kinds(number):
        names = ("int8", "uint8", "int16", "int32", "int64", "uint32", "uint64")
        outputs = {name: tf.cast(number, name) for name in names}
        return outputs | {
            "float": tf.cast(number, tf.float32),
            "double": tf.cast(number, tf.float64),
            "bool": number > 0,
            "string": tf.as_string(number),
        }

    @tf.function(input_signature=[floats])
    def bfloat16(x):
        return {"y": tf.cast(x, tf.bfloat16)}

    @tf.function(input_signature=[floats])
    def total(x):
        return {"total": tf.reduce_sum(x)}

    @tf.function(input_signature=[floats])
    def slow(x):
        return {"y": tf.while_loop(lambda y: y[0] < 1e30, lambda y: [y * 1.0], [x])[0]}

    tf.saved_model.save(
        module,
        str(path),
        signatures={
            "serving_default": half,
            "add": add,
            "mean": mean,
            "echo": echo,
            "kinds": kinds,
            "bfloat16": bfloat16,
            "total": total,
            "slow": slow,
        },
    )
    return path


def write_products(path: Path) -> Path:
    """A SavedModel with the signatures of our exports; every product is a shoe."""
    import tensorflow as tf

    module = tf.Module()
    module.scores = tf.Variable([[0.75, 0.25]])
    specs = [
        tf.TensorSpec([None], tf.string, name=name)
        for name in ("title", "description", "image")
    ]

    @tf.function(input_signature=specs)
    def classify(title, description, image):
        title = tf.ensure_shape(title, [None])
        description = tf.ensure_shape(description, [None])
        image = tf.ensure_shape(image, [None])
        batch = tf.shape(title)[0]
        has_image = tf.strings.length(image)[:, None] > 0
        return {
            "labels": tf.tile([["shoe", "hat"]], [batch, 1]),
            "scores": tf.tile(module.scores, [batch, 1]),
            "assigned": tf.tile([[True, False]], [batch, 1]),
            "image_used": has_image,
            "image_status": tf.where(has_image, "used", "missing"),
        }

    @tf.function(input_signature=specs)
    def probabilities(title, description, image):
        del description, image
        return {"probabilities": tf.tile(module.scores, [tf.shape(title)[0], 1])}

    @tf.function(input_signature=specs)
    def explain(title, description, image):
        del description, image
        batch = tf.shape(title)[0]
        shares = tf.tile([[[0.5, 0.125], [0.0, 0.25], [0.25, 0.0]]], [batch, 1, 1])
        return {"contributions": shares, "attention": tf.ones([batch, 1, 2]) / 2}

    @tf.function(input_signature=specs)
    def embed(title, description, image):
        del description, image
        return {"embedding": tf.tile([[0.6, 0.8]], [tf.shape(title)[0], 1])}

    signatures = {"serving_default": classify, "probabilities": probabilities}
    signatures |= {"explain": explain, "embed": embed}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


def write_warm_up(path: Path, records: list[bytes]) -> None:
    """Puts a file of warm-up records into a version directory."""
    import tensorflow as tf

    (path / "assets.extra").mkdir()
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)


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


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Directories of the two SavedModels, to copy from or to serve."""
    base = tmp_path_factory.mktemp("written")
    return SimpleNamespace(
        half=write_half(base / "half" / "1"), products=write_products(base / "p" / "1")
    )


@pytest.fixture(scope="session")
def server(written, tmp_path_factory):
    """The development server as a process, with the models half and products."""
    base = tmp_path_factory.mktemp("server")
    config = base / "models.pbtxt"
    models = "".join(
        f'config {{ name: "{name}" base_path: "{path.parent}" '
        'model_platform: "tensorflow" version_labels { key: "stable" value: 1 } }\n'
        for name, path in (("half", written.half), ("products", written.products))
    )
    config.write_text(f"model_config_list {{ {models} }}")
    process = ServerProcess(
        f"--model_config_file={config}",
        "--allow_version_labels_for_unavailable_models",
        "--port=0",
        "--rest_api_port=-1",
        "--rest_api_timeout_in_ms=2000",
        log=base / "stderr.txt",
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

        def start(*configs, poll_s=0.02, **options):
            store = ModelStore(configs, **options)
            store.poll()
            grpc_server, port = grpc_service.start(store, "127.0.0.1", 0, 8)
            rest_server, rest_port = rest.start(store, "127.0.0.1", 0, 30000)
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
        http=http,
        wait_until=wait_until,
        write_half=write_half,
        write_warm_up=write_warm_up,
    )
