"""One gRPC call at a time, sync and async."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from tfmm_client import grpc_codec
from tfmm_client.batch import Batch
from tfmm_client.errors import ServerError
from tfmm_client.model import Metadata, Model, Reply, VersionStatus
from tfmm_client.server import Server
from tfmm_client.wire import methods

_OPTIONS = [
    # Replies may exceed the default of 4 MiB; requests are cut by the client.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # The server is named by its own address.
    ("grpc.enable_http_proxy", 0),
    # A channel that lost its server answers UNAVAILABLE without looking until this
    # has passed; at the default of 1 s and more, most retries would be for nothing.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


def _credentials(server: Server) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=server.tls.read("authorities"),
        private_key=server.tls.read("key"),
        certificate_chain=server.tls.read("certificate"),
    )


def _calls(channel: Any) -> dict[str, Callable[..., Any]]:
    """The three calls on a channel, of `grpc` or of `grpc.aio`."""
    return {
        name: channel.unary_unary(
            path,
            request_serializer=request.SerializeToString,
            response_deserializer=reply.FromString,
        )
        for name, (path, request, reply) in methods().items()
    }


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise ServerError(error.code().name, error.details() or "") from error


class GrpcTransport:
    """Sync calls on one channel; threads may share it.

    Args:
        server: `Server`.
        model: `Model`.
    """

    # A call ends at its timeout whatever the server does.
    is_strict = True
    value_bytes = staticmethod(grpc_codec.value_bytes)

    def __init__(self, server: Server, model: Model) -> None:
        self._model = model
        self._headers = tuple(server.headers.items())
        if server.is_encrypted:
            self._channel = grpc.secure_channel(
                server.address, _credentials(server), options=_OPTIONS
            )
        else:
            self._channel = grpc.insecure_channel(server.address, options=_OPTIONS)
        self._calls = _calls(self._channel)

    def _call(self, name: str, request: Any, timeout_s: float) -> Any:
        with _translated():
            return self._calls[name](request, timeout=timeout_s, metadata=self._headers)

    def predict(self, batch: Batch, timeout_s: float) -> Reply:
        """Sends one request once."""
        request = grpc_codec.predict_request(self._model, batch)
        return grpc_codec.read_reply(self._call("Predict", request, timeout_s))

    def metadata(self, timeout_s: float) -> Metadata:
        """Asks for the signatures once."""
        request = grpc_codec.metadata_request(self._model)
        response = self._call("GetModelMetadata", request, timeout_s)
        return grpc_codec.read_metadata(response)

    def status(self, timeout_s: float) -> list[VersionStatus]:
        """Asks for the states of the versions once."""
        request = grpc_codec.status_request(self._model)
        response = self._call("GetModelStatus", request, timeout_s)
        return grpc_codec.read_statuses(response)

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class AsyncGrpcTransport:
    """As `GrpcTransport`, in one event loop."""

    value_bytes = staticmethod(grpc_codec.value_bytes)

    def __init__(self, server: Server, model: Model) -> None:
        self._model = model
        self._headers = tuple(server.headers.items())
        if server.is_encrypted:
            self._channel = grpc.aio.secure_channel(
                server.address, _credentials(server), options=_OPTIONS
            )
        else:
            self._channel = grpc.aio.insecure_channel(server.address, options=_OPTIONS)
        self._calls = _calls(self._channel)

    async def _call(self, name: str, request: Any, timeout_s: float) -> Any:
        with _translated():
            call = self._calls[name]
            return await call(request, timeout=timeout_s, metadata=self._headers)

    async def predict(self, batch: Batch, timeout_s: float) -> Reply:
        """Sends one request once."""
        request = grpc_codec.predict_request(self._model, batch)
        return grpc_codec.read_reply(await self._call("Predict", request, timeout_s))

    async def metadata(self, timeout_s: float) -> Metadata:
        """Asks for the signatures once."""
        request = grpc_codec.metadata_request(self._model)
        response = await self._call("GetModelMetadata", request, timeout_s)
        return grpc_codec.read_metadata(response)

    async def status(self, timeout_s: float) -> list[VersionStatus]:
        """Asks for the states of the versions once."""
        request = grpc_codec.status_request(self._model)
        response = await self._call("GetModelStatus", request, timeout_s)
        return grpc_codec.read_statuses(response)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()
