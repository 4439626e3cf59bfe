"""The ways in which a good request is sent: stubs, plain HTTP, the client library."""

import base64
import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from export import SIGNATURES
from serving.load.transports import (
    GrpcTransport,
    RequestError,
    RestTransport,
    Target,
)
from tfmm_client import Client, InputError, Retries, ServerError

Columns = Mapping[str, Sequence[bytes]]

# How a slow client sends and reads.
SLOW_PIECES = 4
SLOW_WAIT_S = 0.05
SLOW_READ_BYTES = 2048
SLOW_READ_WAIT_S = 0.005


class Refusal(Exception):
    """A request that ended without an answer.

    Attributes:
        code: A gRPC code's name, "HTTP 404", or what kind of exception it was.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{code}: {' '.join(message.split())}"[:500])


class Reply(NamedTuple):
    """An answer, and the version that gave it where the protocol tells."""

    outputs: dict[str, Any]
    version: int | None


@dataclass(frozen=True)
class Server:
    """Where to ask.

    Attributes:
        grpc: `HOST:PORT`.
        rest: `HOST:PORT`.
        model: Name of the served model.
        images: Its inputs that hold images.
        timeout_s: Limit of one request.
    """

    grpc: str
    rest: str
    model: str
    images: tuple[str, ...]
    timeout_s: float

    def target(self, address: str, signature: str) -> Target:
        """What a request of `serving.load` is sent to."""
        return Target(
            address, self.model, signature=signature, timeout_s=self.timeout_s
        )


class Stub:
    """gRPC by the official stubs."""

    name = "gRPC"

    def __init__(self, server: Server) -> None:
        self._transports = {
            x: GrpcTransport(server.target(server.grpc, x)) for x in SIGNATURES
        }

    def ask(self, signature: str, columns: Columns) -> Reply:
        transport = self._transports[signature]
        try:
            reply = transport.send(transport.prepare(columns))
        except RequestError as error:
            raise Refusal(error.code, str(error)) from error
        return Reply(transport.arrays(reply), reply.model_spec.version.value)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()


class RestColumns:
    """REST in column form, on connections that stay open."""

    name = "REST columns"

    def __init__(self, server: Server) -> None:
        self._transports = {
            x: RestTransport(server.target(server.rest, x)) for x in SIGNATURES
        }

    def ask(self, signature: str, columns: Columns) -> Reply:
        transport = self._transports[signature]
        try:
            reply = transport.send(transport.prepare(columns))
        except RequestError as error:
            raise Refusal(error.code, str(error)) from error
        return Reply(transport.arrays(reply), None)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()


class RestRows:
    """REST in row form, every value in base64, on a new connection each time."""

    name = "REST rows"

    def __init__(self, server: Server) -> None:
        self._server = server

    def ask(self, signature: str, columns: Columns) -> Reply:
        body = rows_body(signature, columns)
        connection = http.client.HTTPConnection(
            self._server.rest, timeout=self._server.timeout_s
        )
        try:
            connection.request("POST", predict_path(self._server.model), body)
            reply = connection.getresponse()
            return read_rows(reply.status, reply.read())
        except (OSError, http.client.HTTPException) as error:
            raise Refusal(type(error).__name__, str(error)) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Holds nothing."""


class SlowRest:
    """REST from a client that sends in pieces and reads little by little."""

    name = "REST slow"

    def __init__(self, server: Server) -> None:
        self._server = server

    def ask(self, signature: str, columns: Columns) -> Reply:
        body = rows_body(signature, columns)
        head = (
            f"POST {predict_path(self._server.model)} HTTP/1.1\r\nHost: soak\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        message = head.encode() + body
        size = -(-len(message) // SLOW_PIECES)
        try:
            with open_socket(self._server.rest, self._server.timeout_s) as connection:
                for start in range(0, len(message), size):
                    connection.sendall(message[start : start + size])
                    time.sleep(SLOW_WAIT_S)
                status, content = read_reply(connection, slowly=True)
        except (OSError, http.client.HTTPException) as error:
            raise Refusal(type(error).__name__, str(error)) from error
        return read_rows(status, content)

    def close(self) -> None:
        """Holds nothing."""


class Library:
    """The client library, which is told to try once."""

    def __init__(self, server: Server, name: str, url: str) -> None:
        self.name = name
        self._images = server.images
        self._client = Client(
            url,
            server.model,
            timeout_s=server.timeout_s,
            retries=Retries(max_tries=1),
        )

    def ask(self, signature: str, columns: Columns) -> Reply:
        products = [
            {name: self._value(name, x) for name, x in zip(columns, row, strict=True)}
            for row in zip(*columns.values(), strict=True)
        ]
        try:
            return Reply(self._call(signature, products), None)
        except ServerError as error:
            raise Refusal(error.code, str(error)) from error
        except InputError as error:
            raise Refusal("InputError", str(error)) from error

    def _value(self, name: str, value: bytes) -> str | bytes:
        if name in self._images:
            return value
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value

    def _call(self, signature: str, products: list[dict]) -> dict[str, Any]:
        if signature == "probabilities":
            return {"probabilities": self._client.probabilities(products)}
        if signature == "embed":
            return {"embedding": self._client.embed(products)}
        if signature == "explain":
            said = self._client.explain(products)
            outputs = {"contributions": [x.contributions for x in said]}
            if said[0].attention is not None:
                outputs["attention"] = [x.attention for x in said]
            return outputs
        answers = self._client.classify(products)
        rows = [x.suggestions for x in answers]
        outputs = {
            "labels": [[x.label for x in row] for row in rows],
            "scores": [[x.score for x in row] for row in rows],
            "assigned": [[x.assigned for x in row] for row in rows],
        }
        if self._images:
            outputs["image_used"] = [x.image_used for x in answers]
            outputs["image_status"] = [x.image_status for x in answers]
        return outputs

    def close(self) -> None:
        self._client.close()


def open_ways(server: Server) -> list[Any]:
    """One of each way, with connections of its own."""
    return [
        Stub(server),
        RestColumns(server),
        RestRows(server),
        SlowRest(server),
        Library(server, "library gRPC", f"grpc://{server.grpc}"),
        Library(server, "library REST", f"http://{server.rest}"),
    ]


def predict_path(model: str) -> str:
    """The path of a predict request."""
    return f"/v1/models/{quote(model, safe='')}:predict"


def rows_body(signature: str, columns: Columns) -> bytes:
    """A request in row form."""
    rows = [
        {
            name: {"b64": base64.b64encode(value).decode()}
            for name, value in zip(columns, row, strict=True)
        }
        for row in zip(*columns.values(), strict=True)
    ]
    return json.dumps({"signature_name": signature, "instances": rows}).encode()


def read_rows(status: int, content: bytes) -> Reply:
    """The answer to a request in row form, turned to columns."""
    if status != 200:
        raise Refusal(f"HTTP {status}", content.decode("utf-8", "replace"))
    rows = json.loads(content)["predictions"]
    if not isinstance(rows[0], dict):
        return Reply({"": rows}, None)
    return Reply({name: [row[name] for row in rows] for name in rows[0]}, None)


def open_socket(address: str, timeout_s: float) -> socket.socket:
    """A connection to `HOST:PORT`."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout_s)


def read_reply(connection: socket.socket, slowly: bool = False) -> tuple[int, bytes]:
    """The status and the body of an HTTP reply on a connection that then closes."""
    content = bytearray()
    while piece := connection.recv(SLOW_READ_BYTES if slowly else 2**16):
        content += piece
        if slowly:
            time.sleep(SLOW_READ_WAIT_S)
    head, separator, body = bytes(content).partition(b"\r\n\r\n")
    if not separator:
        raise http.client.RemoteDisconnected(f"no reply, but {head[:80]!r}")
    return int(head.split(maxsplit=2)[1]), body
