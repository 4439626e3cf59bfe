"""The client against servers that fail on purpose: retries, deadlines, TLS."""

import asyncio
import contextlib
import json
import socket
import ssl
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest

from tfmm_client import AsyncClient, Client, Retries, ServerError, Tls, wire

CERTIFICATES = Path(__file__).with_name("certificate")
CERTIFICATE, KEY = CERTIFICATES / "certificate.pem", CERTIFICATES / "key.pem"
QUICK = Retries(max_tries=4, first_wait_s=0.01)


class Script:
    """What a fake server does, call by call, and what it saw.

    Attributes:
        failures: list. What each of the first predict calls fails with.
        gather: int. Predict calls wait until so many have been under way together.
        delay_s: float. How long a predict call takes at least.
        batches: list of lists of texts, as they came.
        most_at_once: int. Predict calls that were under way together, at most.
        headers: list of dicts. What came with them.
    """

    def __init__(self):
        self.failures = []
        self.gather = 1
        self.delay_s = 0.0
        self.batches = []
        self.most_at_once = 0
        self.headers = []
        self._at_once = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def call(self, texts):
        """One predict call; gives its failure or None."""
        with self._changed:
            self.batches.append(texts)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._changed.notify_all()
            failure = self.failures.pop(0) if self.failures else None
            self._changed.wait_for(lambda: self.most_at_once >= self.gather, 10)
        try:
            time.sleep(self.delay_s)
            yield failure
        finally:
            with self._changed:
                self._at_once -= 1


@contextlib.contextmanager
def fake_grpc(script, credentials=None, port=0):
    """A server of one signature that echoes `text`, on the client's own messages."""

    def predict(request, context):
        script.headers.append(dict(context.invocation_metadata()))
        texts = [value.decode() for value in request.inputs["text"].string_val]
        with script.call(texts) as failure:
            if failure is not None:
                context.abort(grpc.StatusCode[failure], "on purpose")
            reply = wire.PredictResponse()
            reply.outputs["text"].CopyFrom(request.inputs["text"])
            reply.model_spec.version.value = 1
            return reply

    def metadata(request, context):
        signatures = wire.SignatureDefMap()
        signature = signatures.signature_def["serving_default"]
        for infos in (signature.inputs, signature.outputs):
            infos["text"].dtype = 7
            infos["text"].tensor_shape.dim.add(size=-1)
        reply = wire.GetModelMetadataResponse()
        reply.model_spec.version.value = 1
        reply.metadata["signature_def"].value = signatures.SerializeToString()
        return reply

    methods = wire.methods()
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=methods[name][1].FromString,
            response_serializer=methods[name][2].SerializeToString,
        )
        for name, call in (("Predict", predict), ("GetModelMetadata", metadata))
    }
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService", handlers
            )
        ]
    )
    if credentials is None:
        port = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


INFO = {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}]}}
INFO["tensor_shape"]["unknown_rank"] = False
METADATA = {"inputs": {"text": INFO}, "outputs": {"text": INFO}}
METADATA = {
    "model_spec": {"version": "1"},
    "metadata": {"signature_def": {"signature_def": {"serving_default": METADATA}}},
}


@contextlib.contextmanager
def fake_rest(script, context=None, port=0):
    """The same over REST. A failure is a status, or "reset", "half" or "drip"."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.reply(200, METADATA)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            script.headers.append(dict(self.headers))
            texts = body["inputs"]["text"]
            with script.call(texts) as failure:
                if failure is None:
                    self.reply(200, {"outputs": texts})
                elif isinstance(failure, int):
                    self.reply(failure, {"error": "on purpose"})
                else:
                    self.close_connection = True
                    if failure != "reset":
                        self.send_response(200)
                        self.send_header("Content-Length", "1000")
                        self.end_headers()
                    for _ in range(40 if failure == "drip" else 0):
                        self.wfile.write(b" ")
                        time.sleep(0.05)

        def reply(self, status, document):
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Writes nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def server_bind(self):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            super().server_bind()

        def handle_error(self, request, address):
            """A client that hung up is no news."""

    server = Server(("127.0.0.1", port), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


FAKES = {"grpc": fake_grpc, "http": fake_rest}


@pytest.fixture
def script():
    return Script()


@pytest.fixture(params=["grpc", "http"])
def scheme(request):
    return request.param


@pytest.fixture
def url(scheme, script):
    with FAKES[scheme](script) as address:
        yield f"{scheme}://{address}"


def call(kind, url, texts, **options):
    options = {"retries": QUICK, **options}
    if kind == "sync":
        with Client(url, "echo", **options) as client:
            return client.predict("serving_default", {"text": texts})["text"]

    async def ask():
        async with AsyncClient(url, "echo", **options) as client:
            outputs = await client.predict("serving_default", {"text": texts})
            return outputs["text"]

    return asyncio.run(ask())


@pytest.fixture(params=["sync", "async"])
def ask(request, url):
    def bound(texts, **options):
        return call(request.param, url, texts, **options)

    return bound


def failure(scheme, code):
    statuses = {"UNAVAILABLE": 503, "RESOURCE_EXHAUSTED": 429, "INTERNAL": 500}
    statuses |= {"INVALID_ARGUMENT": 400, "DEADLINE_EXCEEDED": 504, "ABORTED": 409}
    return code if scheme == "grpc" else statuses[code]


def test_an_unavailable_server_is_asked_again(ask, script, scheme):
    script.failures = [failure(scheme, "UNAVAILABLE")] * 3
    assert ask(["a", "b"]) == ["a", "b"]
    assert script.batches == [["a", "b"]] * 4


def test_it_is_given_up_after_the_last_try(ask, script, scheme):
    script.failures = [failure(scheme, "UNAVAILABLE")] * 9
    with pytest.raises(ServerError, match="on purpose") as caught:
        ask(["a"])
    assert caught.value.code == "UNAVAILABLE"
    assert len(script.batches) == QUICK.max_tries


@pytest.mark.parametrize(
    "code",
    [
        "RESOURCE_EXHAUSTED",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "ABORTED",
    ],
)
def test_no_other_refusal_is_tried_again(ask, script, scheme, code):
    script.failures = [failure(scheme, code)]
    with pytest.raises(ServerError, match="on purpose") as caught:
        ask(["a"])
    assert caught.value.code == code
    assert len(script.batches) == 1


def test_only_the_part_that_failed_is_sent_again(ask, script, scheme):
    script.failures = [failure(scheme, "UNAVAILABLE")]
    texts = [str(n) for n in range(6)]
    assert ask(texts, max_batch_size=2) == texts
    assert len(script.batches) == 4
    assert {tuple(batch) for batch in script.batches} == {
        ("0", "1"),
        ("2", "3"),
        ("4", "5"),
    }


def test_a_refused_part_fails_the_call_and_the_rest_is_not_sent(ask, script, scheme):
    script.failures = [failure(scheme, "INVALID_ARGUMENT")]
    with pytest.raises(ServerError) as caught:
        ask([str(n) for n in range(40)], max_batch_size=1, max_in_flight=1)
    assert caught.value.code == "INVALID_ARGUMENT"
    # The next one may have been on its way.
    assert len(script.batches) <= 2


def test_waits_and_tries_keep_within_the_one_deadline(ask, script, scheme):
    script.failures = [failure(scheme, "UNAVAILABLE")] * 1000
    patient = Retries(max_tries=1000, first_wait_s=0.05, factor=1)
    with pytest.raises(ServerError) as caught:
        ask(["a"], timeout_s=0.5, retries=patient)
    assert caught.value.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert 1 < len(script.batches) < 30


@pytest.mark.parametrize("in_flight", [1, 3])
def test_so_many_parts_are_in_flight_and_no_more(ask, script, in_flight):
    script.gather = in_flight
    script.delay_s = 0.01
    texts = [str(n) for n in range(9)]
    assert ask(texts, max_batch_size=1, max_in_flight=in_flight) == texts
    assert script.most_at_once == in_flight


def test_the_deadline_is_for_all_parts_together(ask, script):
    script.delay_s = 0.2
    with pytest.raises(ServerError) as caught:
        ask(list("abcdefgh"), max_batch_size=1, max_in_flight=1, timeout_s=0.5)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert len(script.batches) <= 3


def test_headers_go_with_every_call(ask, script):
    ask(["a"], headers={"Authorization": "Bearer x"})
    sent = {name.lower(): value for name, value in script.headers[0].items()}
    assert sent["authorization"] == "Bearer x"


@contextlib.contextmanager
def reserved_port():
    """A port that refuses connections, and that a server may still take."""
    with socket.socket() as bound:  # bound and not listening
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_server_that_is_not_there_is_unavailable(kind, scheme):
    with reserved_port() as port, pytest.raises(ServerError) as caught:
        call(kind, f"{scheme}://127.0.0.1:{port}", ["a"])
    assert caught.value.code == "UNAVAILABLE"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_server_that_comes_late_is_found(kind, scheme, script):
    patient = Retries(max_tries=1000, first_wait_s=0.05, factor=1)
    stop = threading.Event()

    def serve_late(port):
        time.sleep(0.2)  # the first try finds nobody
        with FAKES[scheme](script, port=port):
            stop.wait(30)

    with reserved_port() as port:
        server = threading.Thread(target=serve_late, args=(port,))
        server.start()
        try:
            url = f"{scheme}://127.0.0.1:{port}"
            assert call(kind, url, ["a"], retries=patient) == ["a"]
        finally:
            stop.set()
            server.join()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_connection_that_breaks_before_an_answer_is_tried_again(kind, script):
    script.failures = ["reset", "reset"]
    with fake_rest(script) as address:
        assert call(kind, f"http://{address}", ["a"]) == ["a"]
    assert len(script.batches) == 3


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_answer_that_breaks_off_is_not_tried_again(kind, script):
    script.failures = ["half"]
    with (
        fake_rest(script) as address,
        pytest.raises(ServerError, match="the answer broke off") as caught,
    ):
        call(kind, f"http://{address}", ["a"])
    assert caught.value.code == "UNKNOWN"
    assert len(script.batches) == 1


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_answer_in_drops_ends_at_the_deadline(kind, script):
    script.failures = ["drip"]  # over two seconds, and no pause as long as the limit
    with fake_rest(script) as address, pytest.raises(ServerError) as caught:
        call(kind, f"http://{address}", ["a"], timeout_s=0.5)
    assert caught.value.code == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_proxy_that_answers_for_the_server_is_an_error(kind, script):
    script.failures = [502]
    with (
        fake_rest(script) as address,
        pytest.raises(ServerError, match="HTTP 502: on purpose"),
    ):
        call(kind, f"http://{address}", ["a"])


# TLS


def secure(scheme, script, ask_for_certificate):
    if scheme == "grpcs":
        credentials = grpc.ssl_server_credentials(
            [(KEY.read_bytes(), CERTIFICATE.read_bytes())],
            root_certificates=CERTIFICATE.read_bytes(),
            require_client_auth=ask_for_certificate,
        )
        return fake_grpc(script, credentials)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, KEY)
    if ask_for_certificate:
        context.load_verify_locations(CERTIFICATE)
        context.verify_mode = ssl.CERT_REQUIRED
    return fake_rest(script, context)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_an_encrypted_server_is_trusted_by_its_certificate_only(kind, scheme, script):
    with secure(scheme, script, ask_for_certificate=False) as address:
        url = f"{scheme}://{address}"
        assert call(kind, url, ["a"], tls=Tls(CERTIFICATE)) == ["a"]
        once = Retries(max_tries=1)
        with pytest.raises(ServerError) as caught:
            call(kind, url, ["a"], retries=once, timeout_s=5)
    assert caught.value.code == "UNAVAILABLE"
    assert script.batches == [["a"]]


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_a_client_shows_its_certificate_where_it_is_asked_for(scheme, script):
    with secure(scheme, script, ask_for_certificate=True) as address:
        url = f"{scheme}://{address}"
        own = Tls(CERTIFICATE, certificate=CERTIFICATE, key=KEY)
        assert call("sync", url, ["a"], tls=own) == ["a"]
        with pytest.raises(ServerError):
            call("sync", url, ["a"], tls=Tls(CERTIFICATE), retries=Retries(1))
    assert script.batches == [["a"]]
