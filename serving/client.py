"""Batches in, batches out: one call for gRPC and one for REST.

Both work with TensorFlow Serving and with the development server, and give the
same arrays. Only the gRPC call imports TensorFlow, which its stubs need.
"""

import base64
import difflib
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Text that a REST reply marks as not text: outputs whose name ends so.
_BYTES_SUFFIX = "_bytes"
_NUMPY_NAMES = {"float": "float32", "double": "float64", "half": "float16"}


class InputError(ValueError):
    """What was asked does not fit the model; nothing was classified."""


class ServerError(Exception):
    """The server refused, failed or could not be reached.

    Attributes:
        code: str. The gRPC code, for example "NOT_FOUND", or "HTTP 404"; REST
            gives "UNAVAILABLE" where no server answers.
        message: str. The server's text, on one line.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = " ".join(message.split())
        super().__init__(f"{code}: {self.message}")


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a signature: name to TensorFlow dtype name."""

    inputs: dict[str, str]
    outputs: dict[str, str]


def classify_grpc(
    server: str,
    inputs: Mapping[str, Sequence[Any]],
    *,
    model_name: str = "default",
    version: int | None = None,
    signature: str = "serving_default",
    timeout_s: float = 30.0,
) -> dict[str, np.ndarray]:
    """Classifies a batch over gRPC.

    Args:
        server: str. `HOST:PORT`.
        inputs: dict from input name to one value per product: str or bytes, or
            whatever the dtype takes. A string input left out is sent empty.
        model_name: str.
        version: int or None. None is the highest that the server has.
        signature: str.
        timeout_s: float. Limit of each of the two calls, metadata and predict.

    Returns:
        Dict from output name to array `(batch, ...)`. Strings are an object
        array of str, of bytes where the output's name ends in `_bytes`.

    Raises:
        InputError: If the model has no such input or signature, the batch is
            empty, or the inputs hold different numbers of products.
        ServerError: If the server answers with an error, or not at all.
    """
    # TensorFlow's start-up notes are not the caller's business.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    if version is not None:
        request.model_spec.version.value = version
    question = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=request.model_spec, metadata_field=["signature_def"]
    )
    # Replies may exceed gRPC's default of 4 MiB.
    channel_options = [("grpc.max_receive_message_length", -1)]
    try:
        with grpc.insecure_channel(server, options=channel_options) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            reply = stub.GetModelMetadata(question, timeout=timeout_s)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            reply.metadata["signature_def"].Unpack(signatures)
            found = _signature(
                signature,
                {
                    name: Signature(_dtypes(s.inputs), _dtypes(s.outputs))
                    for name, s in signatures.signature_def.items()
                },
            )
            request.model_spec.signature_name = signature
            for name, values in _complete(inputs, found, model_name).items():
                array = _as_array(name, values, found.inputs[name])
                request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
            response = stub.Predict(request, timeout=timeout_s)
    except grpc.RpcError as error:
        raise ServerError(error.code().name, error.details() or "") from error
    return {
        name: _decoded(name, tf.make_ndarray(proto))
        for name, proto in response.outputs.items()
    }


def classify_rest(
    server: str,
    inputs: Mapping[str, Sequence[Any]],
    *,
    model_name: str = "default",
    version: int | None = None,
    signature: str = "serving_default",
    timeout_s: float = 30.0,
) -> dict[str, np.ndarray]:
    """Classifies a batch over REST; as `classify_grpc`, without TensorFlow."""
    url = f"http://{server}/v1/models/{urllib.parse.quote(model_name, safe='')}"
    if version is not None:
        url += f"/versions/{version}"
    reply = _get_json(url + "/metadata", None, timeout_s)
    found = _signature(
        signature,
        {
            name: Signature(_rest_dtypes(s["inputs"]), _rest_dtypes(s["outputs"]))
            for name, s in reply["metadata"]["signature_def"]["signature_def"].items()
        },
    )
    columns = {
        name: _as_json(_as_array(name, values, found.inputs[name]).tolist())
        for name, values in _complete(inputs, found, model_name).items()
    }
    body = {"signature_name": signature, "inputs": columns}
    outputs = _get_json(url + ":predict", json.dumps(body).encode(), timeout_s)
    outputs = outputs["outputs"]
    if len(found.outputs) == 1:  # the server leaves a single name out
        outputs = {next(iter(found.outputs)): outputs}
    return {
        name: _from_json(value, found.outputs[name]) for name, value in outputs.items()
    }


def _signature(name: str, signatures: Mapping[str, Signature]) -> Signature:
    if name not in signatures:
        known = sorted(n for n in signatures if not n.startswith("__"))
        raise InputError(
            f"the model has no signature {name!r}{_nearest(name, known)} "
            f"Its signatures: {', '.join(known)}."
        )
    return signatures[name]


def _complete(
    inputs: Mapping[str, Sequence[Any]], signature: Signature, model_name: str
) -> dict[str, Sequence[Any]]:
    """Checks names and sizes, and fills in the modalities that are missing.

    A server with batching on answers an empty request never, and lets one
    client's odd shapes fail the requests of others: they stop here.
    """
    known = sorted(signature.inputs)
    for name in inputs:
        if name not in signature.inputs:
            raise InputError(
                f"the model {model_name!r} has no input {name!r}"
                f"{_nearest(name, known)} Its inputs: {', '.join(known)}."
            )
    sizes = {name: len(values) for name, values in inputs.items()}
    if not sizes or 0 in sizes.values():
        raise InputError(f"no product to classify; the inputs are {', '.join(known)}.")
    if len(set(sizes.values())) > 1:
        raise InputError(
            "every input must hold the same number of products. Received: "
            + ", ".join(f"{name} {size}" for name, size in sizes.items())
        )
    complete = dict(inputs)
    for name, dtype in signature.inputs.items():
        if name not in complete and dtype != "string":
            raise InputError(f"the input {name!r} of dtype {dtype} is missing.")
        complete.setdefault(name, [""] * max(sizes.values()))
    return complete


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def _as_array(name: str, values: Sequence[Any], dtype: str) -> np.ndarray:
    """One input as an array; strings become bytes, a number's text a number."""
    if dtype == "string":
        array = np.array(values, object)
        flat = [v.encode() if isinstance(v, str) else v for v in array.ravel()]
        if not all(isinstance(value, bytes) for value in flat):
            raise InputError(f"the input {name!r} takes text or bytes.")
        array.ravel()[:] = flat
        return array
    try:
        parsed = [json.loads(v) if isinstance(v, str | bytes) else v for v in values]
        return np.array(parsed, _NUMPY_NAMES.get(dtype, dtype))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the input {name!r} takes {dtype}: {error}") from error


def _dtypes(infos) -> dict[str, str]:
    from tensorflow.core.framework import types_pb2

    return {
        name: types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
        for name, info in infos.items()
    }


def _rest_dtypes(infos: Mapping[str, Any]) -> dict[str, str]:
    return {n: i["dtype"].removeprefix("DT_").lower() for n, i in infos.items()}


def _decoded(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "O" or name.endswith(_BYTES_SUFFIX):
        return array
    decoded = [value.decode("utf-8", "replace") for value in array.ravel()]
    return np.array(decoded, object).reshape(array.shape)


def _as_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _from_json(value: Any, dtype: str) -> np.ndarray:
    if dtype == "string":
        return np.array(_unpacked(value), object)
    return np.array(value, _NUMPY_NAMES.get(dtype, dtype))


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(item) for item in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def _get_json(url: str, body: bytes | None, timeout_s: float) -> Any:
    try:
        # No proxy: the server is named by its own address.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, data=body, timeout=timeout_s) as reply:
            return json.loads(reply.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        with error:
            text = error.read().decode("utf-8", "replace")
        try:
            message = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            message = text or error.reason
        raise ServerError(f"HTTP {error.code}", message) from error
    except json.JSONDecodeError as error:
        raise ServerError("INTERNAL", f"the reply is not JSON: {error}") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise InputError(f"--server: {error}") from error
    except http.client.HTTPException as error:
        host = urllib.parse.urlsplit(url).netloc
        raise ServerError(
            "UNAVAILABLE", f"{host} does not answer in HTTP; is it the gRPC port?"
        ) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise ServerError("DEADLINE_EXCEEDED", f"after {timeout_s} s") from error
        host = urllib.parse.urlsplit(url).netloc
        raise ServerError("UNAVAILABLE", f"{host}: {reason}") from error
