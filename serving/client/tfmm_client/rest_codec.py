"""REST's paths, bodies and replies, by TensorFlow Serving's rules for JSON."""

import array
import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tfmm_client.batch import Batch
from tfmm_client.errors import ServerError
from tfmm_client.model import (
    Metadata,
    Model,
    Reply,
    Signature,
    TensorInfo,
    VersionStatus,
    dtype_from_enum,
)

# The gRPC code that a status most often stands for; the server has fewer statuses
# than codes.
CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def model_path(model: Model) -> str:
    """The path of a model, or of one of its versions.

    Example:
    >>> model_path(Model("our shop", version=3))
    '/v1/models/our%20shop/versions/3'
    """
    path = f"/v1/models/{quote(model.name, safe='')}"
    if model.version is not None:
        path += f"/versions/{model.version}"
    elif model.version_label is not None:
        path += f"/labels/{quote(model.version_label, safe='')}"
    return path


def value_bytes(value: Any) -> int:
    """What a value takes in the body, its comma included, rounded up."""
    if isinstance(value, bytes):
        return 4 * ((len(value) + 2) // 3) + len('{"b64":""},')
    if isinstance(value, str):
        return len(json.dumps(value, ensure_ascii=False).encode()) + 1
    # The longest float, "-2.2250738585072014e-308", and brackets around it.
    return 32


def predict_body(batch: Batch) -> bytes:
    """The body of a predict request, in column form.

    Text is a JSON string. Bytes are `{"b64": ...}` in the standard alphabet with
    padding, whatever they hold. NaN and Infinity are bare words, as the server
    reads and writes them.
    """
    inputs = {name: _as_json(t.nested()) for name, t in batch.inputs.items()}
    body = {"signature_name": batch.signature_name, "inputs": inputs}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _as_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode("ascii")}
    return value


def read_json(content: bytes) -> Any:
    """The JSON of a reply; bytes that are not UTF-8 are replaced, as over gRPC.

    Raises:
        ServerError: INTERNAL if it is not JSON.
    """
    try:
        return json.loads(content.decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        raise ServerError("INTERNAL", f"the reply is not JSON: {error}") from error


def read_error(status: int, content: bytes) -> ServerError:
    """The error that a reply of another status than 200 stands for."""
    text = content.decode("utf-8", "replace")
    try:
        message = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):  # a proxy's page, or nothing
        message = text[:1000]
    return ServerError(CODES.get(status, "UNKNOWN"), message, status)


def read_reply(content: bytes, model: Model, batch: Batch) -> Reply:
    """The answer to a predict request in column form.

    Args:
        content: bytes. The JSON.
        model: `Model` that was asked.
        batch: `Batch` that was sent; its signature says what the outputs are.

    Returns:
        `Reply`, equal to what gRPC gives: a float32 has its float32 value, a
        `{"b64": ...}` is bytes.

    Raises:
        ServerError: INTERNAL if it is no such answer.
    """
    infos = batch.signature.outputs
    reply = read_json(content)
    try:
        outputs = reply["outputs"]
        if len(infos) == 1:  # the server leaves a single name out
            outputs = {next(iter(infos)): outputs}
        read = {
            name: _from_json(value, infos[name].dtype if name in infos else "")
            for name, value in outputs.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerError("INTERNAL", f"not a predict reply: {error!r}") from error
    return Reply(read, model.version)


def _from_json(value: Any, dtype: str) -> Any:
    if isinstance(value, list):
        if dtype == "float" and value and not isinstance(value[0], list):
            # The decimal digits stand for a float32, whose exact value this is.
            return array.array("f", value).tolist()
        return [_from_json(item, dtype) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    return array.array("f", [value])[0] if dtype == "float" else value


def read_metadata(content: bytes) -> Metadata:
    """The reply to a metadata request.

    Raises:
        ServerError: INTERNAL if it is none.
    """
    reply = read_json(content)
    try:
        signatures = reply["metadata"]["signature_def"]["signature_def"]
        return Metadata(
            int(reply["model_spec"]["version"]),
            {
                name: Signature(_read_infos(s["inputs"]), _read_infos(s["outputs"]))
                for name, s in signatures.items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerError("INTERNAL", f"not a metadata reply: {error!r}") from error


def _read_infos(infos: Mapping[str, Any]) -> dict[str, TensorInfo]:
    read = {}
    for name, info in infos.items():
        shape = info["tensor_shape"]
        sizes = tuple(int(dim["size"]) for dim in shape["dim"])
        unknown = shape["unknown_rank"]
        read[name] = TensorInfo(
            dtype_from_enum(info["dtype"]), None if unknown else sizes
        )
    return read


def read_statuses(content: bytes) -> list[VersionStatus]:
    """The reply to a status request.

    Raises:
        ServerError: INTERNAL if it is none.
    """
    reply = read_json(content)
    try:
        return [
            VersionStatus(
                int(entry["version"]), entry["state"], entry["status"]["error_message"]
            )
            for entry in reply["model_version_status"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError("INTERNAL", f"not a status reply: {error!r}") from error
