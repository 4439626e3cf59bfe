"""One request to a server, over gRPC or REST, from the loops of a load test."""

import base64
import http.client
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Batch = Mapping[str, Sequence[bytes]]


class RequestError(Exception):
    """A request that ended without an answer.

    Attributes:
        code: str. The gRPC code, or "HTTP 404", or for REST "UNAVAILABLE" where
            there is no server and "DEADLINE_EXCEEDED" after the time limit.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{code}: {' '.join(message.split())}")


@dataclass(frozen=True)
class Target:
    """What the requests ask for.

    Attributes:
        server: str. `HOST:PORT`.
        model_name: str.
        version: int or None.
        label: str or None. Without a version and a label, the highest version.
        signature: str.
        timeout_s: float. Limit of one request.
    """

    server: str
    model_name: str
    version: int | None = None
    label: str | None = None
    signature: str = "serving_default"
    timeout_s: float = 30.0


class GrpcTransport:
    """Requests by the official stubs, all on one connection.

    Serialising a request and parsing its reply is part of the time it takes;
    filling the message is not.
    """

    name = "gRPC"

    def __init__(self, target: Target) -> None:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        self._target = target
        self._rpc_error = grpc.RpcError
        self._predict_pb2 = predict_pb2
        self._channel = grpc.insecure_channel(
            target.server,
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
            ],
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def inputs(self) -> dict[str, str]:
        """The signature's inputs: name to TensorFlow dtype name, in lower case.

        Raises:
            RequestError: If the server refuses, or has no such signature.
        """
        from tensorflow.core.framework import types_pb2
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._model_spec(), metadata_field=["signature_def"]
        )
        reply = self._call(self._stub.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(signatures)
        _check_signature(self._target, signatures.signature_def)
        found = signatures.signature_def[self._target.signature].inputs
        return {
            name: types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
            for name, info in found.items()
        }

    def prepare(self, batch: Batch) -> Any:
        """The message for a batch, to be sent any number of times."""
        import tensorflow as tf

        request = self._predict_pb2.PredictRequest(model_spec=self._model_spec())
        request.model_spec.signature_name = self._target.signature
        for name, values in batch.items():
            proto = tf.make_tensor_proto(list(values), tf.string)
            request.inputs[name].CopyFrom(proto)
        return request

    def send(self, request: Any) -> Any:
        """Sends a request and waits for its reply; raises `RequestError`."""
        return self._call(self._stub.Predict, request)

    def arrays(self, reply: Any) -> dict[str, np.ndarray]:
        """The reply's outputs."""
        import tensorflow as tf

        return {name: tf.make_ndarray(proto) for name, proto in reply.outputs.items()}

    def close(self) -> None:
        self._channel.close()

    def _model_spec(self) -> Any:
        from tensorflow_serving.apis import model_pb2

        spec = model_pb2.ModelSpec(name=self._target.model_name)
        if self._target.version is not None:
            spec.version.value = self._target.version
        elif self._target.label is not None:
            spec.version_label = self._target.label
        return spec

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._target.timeout_s)
        except self._rpc_error as error:
            raise RequestError(error.code().name, error.details() or "") from error


class RestTransport:
    """Requests as JSON; every request at a time has a connection, kept open.

    Parsing the reply is part of the time a request takes; writing its JSON is not.
    """

    name = "REST"

    def __init__(self, target: Target) -> None:
        self._target = target
        self._path = f"/v1/models/{urllib.parse.quote(target.model_name, safe='')}"
        if target.version is not None:
            self._path += f"/versions/{target.version}"
        elif target.label is not None:
            self._path += f"/labels/{urllib.parse.quote(target.label, safe='')}"
        self._idle: list[http.client.HTTPConnection] = []

    def inputs(self) -> dict[str, str]:
        """As `GrpcTransport.inputs`."""
        reply = self._call("GET", self._path + "/metadata", None)
        signatures = reply["metadata"]["signature_def"]["signature_def"]
        _check_signature(self._target, signatures)
        found = signatures[self._target.signature]["inputs"]
        return {
            name: info["dtype"].removeprefix("DT_").lower()
            for name, info in found.items()
        }

    def prepare(self, batch: Batch) -> bytes:
        """The body for a batch, in column form, to be sent any number of times."""
        columns = {name: [_json(v) for v in values] for name, values in batch.items()}
        document = {"signature_name": self._target.signature, "inputs": columns}
        return json.dumps(document, ensure_ascii=False).encode()

    def send(self, request: bytes) -> Any:
        """As `GrpcTransport.send`."""
        return self._call("POST", self._path + ":predict", request)

    def arrays(self, reply: Any) -> dict[str, np.ndarray]:
        """The reply's outputs; a single one, which REST sends bare, is named ""."""
        outputs = reply["outputs"]
        if not isinstance(outputs, dict):
            outputs = {"": outputs}
        return {name: np.array(value) for name, value in outputs.items()}

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _call(self, method: str, path: str, body: bytes | None) -> Any:
        if self._idle:
            connection = self._idle.pop()
        else:
            connection = http.client.HTTPConnection(
                self._target.server, timeout=self._target.timeout_s
            )
        try:
            connection.request(method, path, body)
            reply = connection.getresponse()
            text = reply.read()
        except TimeoutError as error:
            connection.close()
            raise RequestError("DEADLINE_EXCEEDED", str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise RequestError("UNAVAILABLE", str(error)) from error
        self._idle.append(connection)
        if reply.status != 200:
            raise RequestError(f"HTTP {reply.status}", text.decode("utf-8", "replace"))
        return json.loads(text)


def _json(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _check_signature(target: Target, signatures: Mapping[str, Any]) -> None:
    if target.signature not in signatures:
        known = ", ".join(sorted(n for n in signatures if not n.startswith("__")))
        raise RequestError(
            "INVALID_ARGUMENT",
            f"the model has no signature {target.signature!r}. Its signatures: {known}",
        )
