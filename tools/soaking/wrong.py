"""Requests that must be refused, each with its own code, and clients that vanish."""

import gzip
import http.client
import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from soaking.products import Product
from soaking.ways import Server, open_socket, predict_path, read_reply
from tfmm_client import Client, InputError, Retries, ServerError

# What a client sees whose connection ends without a reply.
CLOSED = "closed"
# What is said of a client that did not wait for one.
LEFT = "left"

UNKNOWN_VERSION = 999_999_999
HUGE_ROWS = 300_000
DEEP = 100_000
HELD_S = 1.0
_PREDICT = "/tensorflow.serving.PredictionService/Predict"


@dataclass(frozen=True)
class Wrong:
    """A request that must not be answered.

    Attributes:
        name: What is wrong with it, and over which protocol it goes.
        expected: The codes that it may end in.
        send: Sends it once; gives the code that it ended in.
    """

    name: str
    expected: tuple[str, ...]
    send: Callable[[], str]


class WrongRequests:
    """Every wrong request, with connections of its own.

    Args:
        server: Where to ask.
        product: A good product, of which wrong requests are made.
    """

    def __init__(self, server: Server, product: Product) -> None:
        self._server = server
        self._product = product
        # Inputs in the order in which they are spoilt: the first one.
        self._first = next(iter(product))
        self._channel = grpc.insecure_channel(server.grpc)
        self._send_raw = self._channel.unary_unary(_PREDICT)
        self._client = Client(
            f"grpc://{server.grpc}",
            server.model,
            timeout_s=server.timeout_s,
            retries=Retries(max_tries=1),
        )
        self.all = [
            *self._over_grpc(),
            *self._over_rest(),
            *self._over_sockets(),
            *self._in_the_library(),
        ]

    def close(self) -> None:
        self._client.close()
        self._channel.close()

    # gRPC

    def _over_grpc(self) -> list[Wrong]:
        first, product = self._first, self._product
        good = {name: [value] for name, value in product.items()}
        invalid = ("INVALID_ARGUMENT",)
        tensors = {
            "a scalar": np.array(product[first], object),
            "rank 2": np.array([[product[first]]], object),
            "rank 3": np.array([[[product[first]]]], object),
            "numbers": np.zeros([1], np.float32),
            "an empty tensor": np.array([], object),
        }
        if len(product) > 1:
            tensors["more rows"] = np.array([product[first]] * 3, object)
        cases = [
            (what, invalid, self._request({**good, first: value}))
            for what, value in tensors.items()
        ]
        nothing = {name: np.array([], object) for name in good}
        unknown = self._request(good)
        unknown.model_spec.name = "no-such-model"
        version = self._request(good)
        version.model_spec.version.value = UNKNOWN_VERSION
        label = self._request(good)
        label.model_spec.version_label = "no-such-label"
        signature = self._request(good)
        signature.model_spec.signature_name = "no_such_signature"
        output = self._request(good)
        output.output_filter.append("no_such_output")
        nameless = self._request(good)
        nameless.ClearField("model_spec")
        dimension = self._request(good)
        dimension.inputs[first].tensor_shape.dim[0].size = -1
        cases += [
            ("an empty batch", invalid, self._request(nothing)),
            ("an input missing", invalid, self._request(good, without=first)),
            ("an input more", invalid, self._request({**good, "more": [b"x"]})),
            ("no model", invalid, nameless),
            ("an unknown model", ("NOT_FOUND",), unknown),
            ("an unknown version", ("NOT_FOUND",), version),
            ("an unknown label", invalid, label),
            ("an unknown signature", ("FAILED_PRECONDITION",), signature),
            ("an unknown output", invalid, output),
            ("a negative dimension", invalid, dimension),
        ]
        found = [
            Wrong(f"gRPC {what}", codes, self._sender(request.SerializeToString()))
            for what, codes, request in cases
        ]
        whole = self._request(good).SerializeToString()
        # Stubs say INTERNAL of bytes that are no message.
        found.append(
            Wrong("gRPC half a message", ("INTERNAL",), self._sender(whole[:-3]))
        )
        found.append(
            Wrong("gRPC no message", ("INTERNAL",), self._sender(b"\xff" * 1000))
        )
        return found

    def _request(self, inputs: dict[str, Any], without: str = "") -> Any:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._server.model
        for name, value in inputs.items():
            if name != without:
                array = np.asarray(value)
                proto = tf.make_tensor_proto(
                    value, None if array.dtype.kind == "f" else tf.string, array.shape
                )
                request.inputs[name].CopyFrom(proto)
        return request

    def _sender(self, message: bytes) -> Callable[[], str]:
        def send() -> str:
            try:
                self._send_raw(message, timeout=self._server.timeout_s)
            except grpc.RpcError as error:
                return error.code().name
            return "OK"

        return send

    # REST

    def _over_rest(self) -> list[Wrong]:
        first = self._first
        path = predict_path(self._server.model)
        model = path.removesuffix(":predict")
        row = dict.fromkeys(self._product, "a")
        columns = {name: ["a"] for name in self._product}
        good = json.dumps({"instances": [row]}).encode()
        others = {k: v for k, v in row.items() if k != first}

        def inputs(value: Any) -> bytes:
            return json.dumps({"inputs": {**columns, first: value}}).encode()

        def instances(*rows: Any) -> bytes:
            return json.dumps({"instances": rows}).encode()

        refused = {
            "no body": b"",
            "no JSON": b"instances: a",
            "JSON cut short": good[: len(good) // 2],
            "two documents": good + good,
            "JSON nested too deeply": b"[" * DEEP,
            "UTF-16": good.decode().encode("utf-16"),
            "bytes for a document": b"\xff\xfe\xfd",
            "a list": b"[1, 2]",
            "neither rows nor columns": b"{}",
            "rows and columns": b'{"instances": [], "inputs": []}',
            "no rows": instances(),
            "a number": inputs([5]),
            "null": inputs([None]),
            "a scalar": inputs("a"),
            "rank 2": inputs([["a"]]),
            "rank 3": inputs([[["a"]]]),
            "base64 that is none": inputs([{"b64": "%%%"}]),
            "base64 that is a number": inputs([{"b64": 5}]),
            "half a surrogate pair": b'{"instances": [{"%s": "\\ud800"}]}'
            % first.encode(),
            "an input more": instances({**row, "more": "a"}),
            "rows that are unlike": instances(row, {}),
            "an unknown signature": json.dumps(
                {"signature_name": "no_such_signature", "instances": [row]}
            ).encode(),
            "a signature that is a number": json.dumps(
                {"signature_name": 5, "instances": [row]}
            ).encode(),
            "300,000 rows of numbers": instances(*[5] * HUGE_ROWS),
            "a number of 100,000 digits": b'{"instances": [' + b"1" * DEEP + b"]}",
            "a list of 300,000 lists": inputs([["a"]] * HUGE_ROWS),
        }
        if others:
            refused["an input missing"] = instances(others)
            refused["more rows of one input"] = inputs(["a", "a", "a"])
        found = [
            Wrong(f"REST {what}", ("HTTP 400",), self._post(path, body))
            for what, body in refused.items()
        ]
        paths = {
            "an unknown model": ("HTTP 404", "/v1/models/no-such-model:predict"),
            "an unknown version": (
                "HTTP 404",
                f"{model}/versions/{UNKNOWN_VERSION}:predict",
            ),
            "a version beyond all": ("HTTP 400", f"{model}/versions/{10**30}:predict"),
            "an unknown label": ("HTTP 400", f"{model}/labels/no-such:predict"),
            "an unknown verb": ("HTTP 400", f"{model}:forget"),
            "another path": ("HTTP 404", "/admin"),
        }
        found += [
            Wrong(f"REST {what}", (code,), self._post(place, good))
            for what, (code, place) in paths.items()
        ]
        zipped = {"Content-Encoding": "gzip"}
        packed = gzip.compress(good)
        found += [
            Wrong(f"REST {what}", ("HTTP 400",), self._post(path, body, zipped))
            for what, body in (
                ("gzip that is none", good),
                ("gzip cut short", packed[: len(packed) // 2]),
            )
        ]
        return found

    def _post(
        self, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> Callable[[], str]:
        def send() -> str:
            connection = http.client.HTTPConnection(
                self._server.rest, timeout=self._server.timeout_s
            )
            try:
                connection.request("POST", path, body, headers or {})
                reply = connection.getresponse()
                reply.read()
                return f"HTTP {reply.status}"
            except (OSError, http.client.HTTPException) as error:
                return type(error).__name__
            finally:
                connection.close()

        return send

    # Bytes on a connection

    def _over_sockets(self) -> list[Wrong]:
        rest, path = self._server.rest, predict_path(self._server.model)
        head = f"POST {path} HTTP/1.1\r\nHost: soak\r\n".encode()
        body = json.dumps({"instances": [dict.fromkeys(self._product, "a")]}).encode()
        whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        half = whole[:-10]
        refused = ("HTTP 400",)
        # A server that has not read all of a request may have no way to answer it.
        unread = ("HTTP 400", "HTTP 414", CLOSED)
        ends = {
            "no HTTP": (b"\x16\x03\x01\0\xff\0\r\n\r\n", unread),
            "a request line of 100,000 bytes": (
                b"GET /" + b"a" * DEEP + b" HTTP/1.1\r\n\r\n",
                unread,
            ),
            "headers cut short": (head[:-5], unread),
            "a length that is none": (
                head + b"Content-Length: -5\r\n\r\n" + body,
                refused,
            ),
            "a length of 2 GiB and more": (
                head + b"Content-Length: 99999999999\r\n\r\n",
                refused,
            ),
            "a length much too large": (
                head + b"Content-Length: 999999999\r\n\r\n" + body,
                (CLOSED,),
            ),
            "a chunk of negative size": (chunked + b"-5\r\n", refused),
            "a chunk of no size": (chunked + b"xyz\r\n", refused),
            "a body cut short": (half, (CLOSED,)),
            "a chunk cut short": (chunked + b"fffff\r\n" + body, (CLOSED,)),
        }
        found = [
            Wrong(f"socket {what}", codes, self._bytes(rest, message))
            for what, (message, codes) in ends.items()
        ]
        left = {
            "opened and left": (rest, b"", False),
            "left within headers": (rest, head[:-5], False),
            "left within a body": (rest, half, False),
            "reset within a body": (rest, half, True),
            "reset before the answer": (rest, whole, True),
            "HTTP on the gRPC port": (self._server.grpc, whole, False),
            "noise on the gRPC port": (self._server.grpc, b"\0\xff" * 500, True),
            "HTTP/2 begun and left": (
                self._server.grpc,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
                True,
            ),
        }
        found += [
            Wrong(f"socket {what}", (LEFT,), self._leave(*how))
            for what, how in left.items()
        ]
        held = self._leave(rest, half, False, HELD_S)
        found.append(Wrong("socket held open within a body", (LEFT,), held))
        return found

    def _bytes(self, address: str, message: bytes) -> Callable[[], str]:
        """Sends bytes, says that no more will come, and waits for a reply."""

        def send() -> str:
            try:
                with open_socket(address, self._server.timeout_s) as connection:
                    connection.sendall(message)
                    connection.shutdown(socket.SHUT_WR)
                    return f"HTTP {read_reply(connection)[0]}"
            except TimeoutError:
                return "TimeoutError"
            except OSError:  # RemoteDisconnected is one of them
                return CLOSED

        return send

    def _leave(
        self, address: str, message: bytes, reset: bool, held_s: float = 0.0
    ) -> Callable[[], str]:
        """Sends bytes and is gone, at once or after a while."""

        def send() -> str:
            try:
                with open_socket(address, self._server.timeout_s) as connection:
                    if reset:
                        hard = struct.pack("ii", 1, 0)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
                    connection.sendall(message)
                    time.sleep(held_s)
                return LEFT
            except OSError as error:
                return type(error).__name__

        return send

    # The client library

    def _in_the_library(self) -> list[Wrong]:
        product, client = self._product, self._client
        nearly = {f"{self._first}x": "a"}
        calls = {
            "an unknown input": lambda: client.classify([nearly]),
            "an empty batch": lambda: client.classify([]),
            "a number": lambda: client.classify([{self._first: 5}]),
            "an unknown signature": lambda: client.predict("no_such", {}),
            "unequal columns": lambda: client.predict(
                "serving_default", {name: ["a"] * i for i, name in enumerate(product)}
            ),
        }
        return [
            Wrong(f"library {what}", ("InputError",), _outcome(call))
            for what, call in calls.items()
        ]


def _outcome(call: Callable[[], Any]) -> Callable[[], str]:
    def send() -> str:
        try:
            call()
        except InputError:
            return "InputError"
        except ServerError as error:
            return error.code
        return "OK"

    return send
