"""The REST side: TensorFlow Serving's paths, replies and error bodies."""

import gzip
import json
import re
import sys
import threading
import time
import urllib.parse
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from serving import grpc_service
from serving.json_reply import json_from_arrays
from serving.json_request import arrays_from_json, parse_predict
from serving.metrics import microseconds_since
from serving.models import ModelStore
from serving.predict import (
    DEFAULT_SIGNATURE,
    check_input_count,
    dtype_name,
    run_signature,
)
from serving.status import StatusError

# The largest body that the real server unpacks from gzip.
MAX_UNPACKED_BYTES = 100 * 2**20
# What a protocol buffer can hold; no request that the model could take is larger.
MAX_BODY_BYTES = 2**31 - 1
# A body is read by pieces: how long a client says that it will be is no reason to
# make room for it.
_PIECE_BYTES = 2**20

_MODEL = r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?"
_PREDICT_PATH = re.compile(_MODEL + ":(classify|regress|predict)", re.IGNORECASE)
_STATUS_PATH = re.compile(_MODEL + "(/metadata)?", re.IGNORECASE)
_CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}


@dataclass(frozen=True)
class RestOptions:
    """What the REST port answers with.

    Attributes:
        timeout_ms: int. Longest run of one predict request, in milliseconds.
        cors: bool. Let pages of other origins call, in a browser.
        metrics_path: str or None. The path of the metrics; None has none.
    """

    timeout_ms: int = 30000
    cors: bool = False
    metrics_path: str | None = None


def start(
    store: ModelStore, host: str, port: int, options: RestOptions
) -> tuple["RestServer", int]:
    """Opens the REST port and answers it from threads.

    Args:
        store: `ModelStore` that answers.
        host: str. Interface to listen on.
        port: int. 0 takes a free one.
        options: `RestOptions`.

    Returns:
        Tuple of the started server and its port.

    Raises:
        OSError: If the port cannot be had.
    """
    server = RestServer((host, port), _handler(store, options))
    threading.Thread(
        target=server.serve_forever, args=(0.05,), name="rest", daemon=True
    ).start()
    return server, server.server_address[1]


def answer(
    store: ModelStore, method: str, path: str, body: bytes, timeout_ms: int
) -> bytes:
    """Answers one request under `/v1/`.

    Args:
        store: `ModelStore` that answers.
        method: str. The HTTP method.
        path: str. The request target as sent; a query string is part of it.
        body: bytes. The unpacked body.
        timeout_ms: int. Longest run of a predict request.

    Returns:
        The JSON of the reply.

    Raises:
        StatusError: With the code whose `http_status` is to be sent.
    """
    if method == "POST" and (match := _PREDICT_PATH.fullmatch(path)):
        verb = match[4]
        if verb == "predict":
            return _predict(store, _model_spec(match), body, timeout_ms)
        if verb in ("classify", "regress"):
            raise StatusError(
                "UNIMPLEMENTED",
                f"{verb} is not implemented by this development server.",
            )
    if method == "GET" and (match := _STATUS_PATH.fullmatch(path)):
        if match[4]:
            return _metadata(store, _model_spec(match))
        reply = grpc_service.status(store, _model_spec(match))
        return _proto_json(reply).encode()
    if method == "GET" and path.lower() == "/v1/models":
        raise StatusError("INVALID_ARGUMENT", "Missing model name in request.")
    raise StatusError("INVALID_ARGUMENT", f"Malformed request: {method} {path}")


def counted_as(path: str) -> tuple[str, str]:
    """The model and the verb that a request under `/v1/` counts as in the metrics.

    Args:
        path: str. The request target as sent.

    Returns:
        Tuple of two str, empty where the path names none.

    Example:
    >>> counted_as("/v1/models/products:predict")
    ('products', 'predict')
    """
    match = _PREDICT_PATH.fullmatch(path)
    if match:
        return urllib.parse.unquote(match[1]), match[4]
    match = _STATUS_PATH.fullmatch(path)
    return (urllib.parse.unquote(match[1]) if match else ""), ""


def _model_spec(match: re.Match) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(match[1]))
    if match[2]:
        if int(match[2]) >= 2**63:
            raise StatusError(
                "INVALID_ARGUMENT", f"Failed to convert version: {match[2]} to numeric."
            )
        spec.version.value = int(match[2])
    elif match[3]:
        spec.version_label = urllib.parse.unquote(match[3])
    return spec


def _predict(
    store: ModelStore, spec: model_pb2.ModelSpec, body: bytes, timeout_ms: int
) -> bytes:
    document = parse_predict(body)
    name = document.get("signature_name") or DEFAULT_SIGNATURE
    with store.lease(spec) as version:
        signature = version.signatures.get(name)
        if signature is None:
            raise StatusError(
                "INVALID_ARGUMENT",
                f'Serving signature name: "{name}" not found in signature def',
            )
        dtypes = {key: dtype_name(info) for key, info in signature.inputs.items()}
        if not dtypes:
            raise StatusError(
                "INVALID_ARGUMENT", f"Failed to get input map for signature: {name}"
            )
        arrays, form = arrays_from_json(document, dtypes)
        check_input_count(signature, arrays)
        outputs = run_signature(version, signature, arrays, timeout_ms=timeout_ms)
    return json_from_arrays(outputs, form)


def _metadata(store: ModelStore, spec: model_pb2.ModelSpec) -> bytes:
    reply = grpc_service.metadata(store, spec)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    reply.metadata["signature_def"].Unpack(signatures)
    # Without the type URL that JSON of an Any message would carry.
    return (
        f'{{\n"model_spec":{_proto_json(reply.model_spec)},\n'
        f'"metadata": {{"signature_def": {_proto_json(signatures)}}}\n}}\n'
    ).encode()


def _proto_json(message) -> str:
    return json_format.MessageToJson(
        message,
        always_print_fields_with_no_presence=True,
        preserving_proto_field_name=True,
        indent=1,
    )


class RestServer(ThreadingHTTPServer):
    """An HTTP server that knows how many of its requests are under way."""

    daemon_threads = True
    # The default of 5 would make a burst of clients wait a second to connect.
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._idle = threading.Condition()
        self._num_requests = 0

    @contextmanager
    def request_under_way(self) -> Iterator[None]:
        with self._idle:
            self._num_requests += 1
        try:
            yield
        finally:
            with self._idle:
                self._num_requests -= 1
                self._idle.notify_all()

    def drain(self, timeout_s: float) -> None:
        """Waits until no request is under way, `timeout_s` seconds at most."""
        with self._idle:
            self._idle.wait_for(lambda: self._num_requests == 0, timeout_s)

    def handle_error(self, request, client_address) -> None:
        # A client that hangs up early is no error of the server's.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(store: ModelStore, options: RestOptions) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server: RestServer
        protocol_version = "HTTP/1.1"
        # Headers and body go out in two writes; Nagle would hold the second.
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            with self.server.request_under_way():
                self._answer()

        def _answer(self) -> None:
            start_s, code, http_status = time.monotonic(), "OK", 200
            try:
                body = self._read_body()
                if self.path == options.metrics_path:
                    self._reply(200, store.metrics.page(), {}, "text/plain")
                    return
                if not self.path.lower().startswith("/v1/"):
                    self._reply(404, b"", {})
                    return
                if options.cors and self.command == "OPTIONS":
                    reply = b""
                else:
                    reply = answer(
                        store, self.command, self.path, body, options.timeout_ms
                    )
            except StatusError as error:
                code, http_status = error.code, error.http_status
                reply = json.dumps({"error": error.message}, indent=4).encode()
            model, verb = counted_as(self.path)
            if code == "OK":
                store.metrics.request_latency.observe(
                    microseconds_since(start_s, time.monotonic), model, verb, "REST"
                )
            store.metrics.request_count.increment(model, code)
            self._reply(http_status, reply, _CORS_HEADERS if options.cors else {})

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                body = self._read_chunks()
            else:
                length = self.headers.get("Content-Length", "0")
                if not re.fullmatch("[0-9]{1,18}", length):
                    raise self._unreadable(f"Content-Length is no length: {length!r}")
                body = self._read_bytes(int(length), 0)
            if self.headers.get("Content-Encoding", "").lower() == "gzip":
                return _unpack(body)
            return body

        def _read_chunks(self) -> bytes:
            body = bytearray()
            while True:
                line = self.rfile.readline(100)
                if not line:
                    raise _hung_up()
                digits = line.split(b";")[0].strip()
                if not re.fullmatch(b"[0-9A-Fa-f]{1,16}", digits):
                    raise self._unreadable(f"Bad chunk size: {digits!r}")
                size = int(digits, 16)
                if size == 0:
                    while self.rfile.readline(65536).strip():
                        pass  # trailers
                    return bytes(body)
                body += self._read_bytes(size, len(body))
                self.rfile.readline(100)

        def _read_bytes(self, size: int, size_before: int) -> bytes:
            """The next `size` bytes of a body of which some have been read."""
            if size_before + size > MAX_BODY_BYTES:
                raise self._unreadable(f"The body is over {MAX_BODY_BYTES} bytes")
            content = bytearray()
            while len(content) < size:
                piece = self.rfile.read(min(size - len(content), _PIECE_BYTES))
                if not piece:
                    raise _hung_up()
                content += piece
            return bytes(content)

        def _unreadable(self, message: str) -> StatusError:
            """The refusal of a body whose end is not known: nothing can follow it."""
            self.close_connection = True
            return StatusError("INVALID_ARGUMENT", message)

        def _reply(
            self,
            http_status: int,
            body: bytes,
            headers: dict[str, str],
            kind: str = "application/json",
        ) -> None:
            self.send_response(http_status)
            if body:
                self.send_header("Content-Type", kind)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args) -> None:
            """Writes no access log, as the real server does not."""

    # The names that http.server looks for.
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        setattr(Handler, f"do_{method}", Handler._handle)
    return Handler


def _hung_up() -> ConnectionError:
    """For a body that ends early: nobody is there to read an answer."""
    return ConnectionAbortedError("the connection ended within a body")


def _unpack(body: bytes) -> bytes:
    try:
        # A decompressor, not gzip.decompress: the limit must hold while unpacking.
        unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        unpacked = unpacker.decompress(body, MAX_UNPACKED_BYTES + 1)
    except (zlib.error, gzip.BadGzipFile) as error:
        raise StatusError(
            "INVALID_ARGUMENT", f"The body is not gzip: {error}"
        ) from error
    if len(unpacked) > MAX_UNPACKED_BYTES:
        raise StatusError(
            "INVALID_ARGUMENT",
            f"The gzip body unpacks to more than {MAX_UNPACKED_BYTES} bytes",
        )
    if not unpacker.eof:
        raise StatusError("INVALID_ARGUMENT", "The gzip body is cut short")
    return unpacked
