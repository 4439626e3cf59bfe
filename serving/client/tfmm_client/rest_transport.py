"""One REST call at a time, sync and async."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tfmm_client import rest_codec
from tfmm_client.batch import Batch
from tfmm_client.errors import InputError, ServerError
from tfmm_client.model import Metadata, Model, Reply, VersionStatus
from tfmm_client.server import Server


def _options(server: Server) -> dict[str, Any]:
    """What `httpx.Client` and `httpx.AsyncClient` are made with."""
    scheme = "https" if server.is_encrypted else "http"
    verify: bool | ssl.SSLContext = server.is_encrypted
    if server.tls.authorities is not None or server.tls.certificate is not None:
        try:
            verify = (
                httpx.create_ssl_context()
                if server.tls.authorities is None
                else ssl.create_default_context(cafile=server.tls.authorities)
            )
            if server.tls.certificate is not None:
                verify.load_cert_chain(server.tls.certificate, server.tls.key)
        except OSError as error:  # ssl.SSLError is one
            raise InputError(f"tls: not PEM certificates: {error}") from error
    return {
        "base_url": f"{scheme}://{server.address}{server.path}",
        "headers": {**server.headers, "content-type": "application/json"},
        # Without TLS nothing is verified, and the certificates need not be loaded.
        "verify": verify,
        # No proxy, no .netrc: the server is named by its own address.
        "trust_env": False,
        # As many as callers ask for; `max_in_flight` limits one batch.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=32),
    }


@contextmanager
def _translated(address: str, has_answered: bool) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise ServerError(
            "DEADLINE_EXCEEDED", f"{address} did not answer in time"
        ) from error
    except (httpx.InvalidURL, httpx.LocalProtocolError) as error:
        raise InputError(f"cannot be sent over HTTP: {error}") from error
    except (httpx.TransportError, httpx.DecodingError) as error:
        if has_answered:
            raise ServerError(
                "UNKNOWN", f"{address}: the answer broke off: {error}"
            ) from error
        hint = ""
        if isinstance(error, httpx.RemoteProtocolError):
            hint = " does not answer in HTTP; is it the gRPC port?"
        reason = str(error) or type(error).__name__
        raise ServerError("UNAVAILABLE", f"{address}{hint or ':'} {reason}") from error


def _check(response: httpx.Response, content: bytes) -> bytes:
    if response.status_code != 200:
        raise rest_codec.read_error(response.status_code, content)
    return content


class RestTransport:
    """Sync calls on one pool of connections; threads may share it.

    Args:
        server: `Server`.
        model: `Model`.
    """

    # httpx limits the wait for each piece of an answer, not the whole of it.
    is_strict = False
    value_bytes = staticmethod(rest_codec.value_bytes)

    def __init__(self, server: Server, model: Model) -> None:
        self._model = model
        self._address = server.address
        self._path = rest_codec.model_path(model)
        self._client = httpx.Client(**_options(server))

    def _call(self, verb: str, body: bytes | None, timeout_s: float) -> bytes:
        method = "GET" if body is None else "POST"
        with _translated(self._address, has_answered=False):
            request = self._client.build_request(
                method, self._path + verb, content=body, timeout=timeout_s
            )
            response = self._client.send(request, stream=True)
        try:
            with _translated(self._address, has_answered=True):
                return _check(response, response.read())
        finally:
            response.close()

    def predict(self, batch: Batch, timeout_s: float) -> Reply:
        """Sends one request once."""
        body = rest_codec.predict_body(batch)
        content = self._call(":predict", body, timeout_s)
        return rest_codec.read_reply(content, self._model, batch)

    def metadata(self, timeout_s: float) -> Metadata:
        """Asks for the signatures once."""
        return rest_codec.read_metadata(self._call("/metadata", None, timeout_s))

    def status(self, timeout_s: float) -> list[VersionStatus]:
        """Asks for the states of the versions once."""
        return rest_codec.read_statuses(self._call("", None, timeout_s))

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


class AsyncRestTransport:
    """As `RestTransport`, in one event loop."""

    value_bytes = staticmethod(rest_codec.value_bytes)

    def __init__(self, server: Server, model: Model) -> None:
        self._model = model
        self._address = server.address
        self._path = rest_codec.model_path(model)
        self._client = httpx.AsyncClient(**_options(server))

    async def _call(self, verb: str, body: bytes | None, timeout_s: float) -> bytes:
        method = "GET" if body is None else "POST"
        with _translated(self._address, has_answered=False):
            request = self._client.build_request(
                method, self._path + verb, content=body, timeout=timeout_s
            )
            response = await self._client.send(request, stream=True)
        try:
            with _translated(self._address, has_answered=True):
                return _check(response, await response.aread())
        finally:
            await response.aclose()

    async def predict(self, batch: Batch, timeout_s: float) -> Reply:
        """Sends one request once."""
        body = rest_codec.predict_body(batch)
        content = await self._call(":predict", body, timeout_s)
        return rest_codec.read_reply(content, self._model, batch)

    async def metadata(self, timeout_s: float) -> Metadata:
        """Asks for the signatures once."""
        return rest_codec.read_metadata(await self._call("/metadata", None, timeout_s))

    async def status(self, timeout_s: float) -> list[VersionStatus]:
        """Asks for the states of the versions once."""
        return rest_codec.read_statuses(await self._call("", None, timeout_s))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()
