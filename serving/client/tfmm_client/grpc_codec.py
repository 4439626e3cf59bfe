"""gRPC's requests and replies as messages; no connection here."""

from typing import Any

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
from tfmm_client.tensor_proto import read_proto_tensor, write_proto
from tfmm_client.wire import (
    GetModelMetadataRequest,
    GetModelStatusRequest,
    PredictRequest,
    SignatureDefMap,
    enum_name,
)

# An output whose name ends so holds bytes, not text; REST has the same rule.
BYTES_SUFFIX = "_bytes"
_METADATA_FIELD = "signature_def"


def value_bytes(value: Any) -> int:
    """What a value takes in a request, tag and length included, rounded up."""
    if isinstance(value, str):
        value = value.encode()
    return len(value) + 6 if isinstance(value, bytes) else 8


def predict_request(model: Model, batch: Batch) -> Any:
    """The `PredictRequest` for a batch."""
    request = PredictRequest()
    _write_spec(model, request.model_spec)
    request.model_spec.signature_name = batch.signature_name
    for name, tensor in batch.inputs.items():
        write_proto(tensor, request.inputs[name])
    return request


def metadata_request(model: Model) -> Any:
    """The `GetModelMetadataRequest` for the signatures."""
    request = GetModelMetadataRequest(metadata_field=[_METADATA_FIELD])
    _write_spec(model, request.model_spec)
    return request


def status_request(model: Model) -> Any:
    """The `GetModelStatusRequest`; the real server passes over a label in it."""
    request = GetModelStatusRequest()
    _write_spec(model, request.model_spec)
    return request


def _write_spec(model: Model, spec: Any) -> None:
    spec.name = model.name
    if model.version is not None:
        spec.version.value = model.version
    elif model.version_label is not None:
        spec.version_label = model.version_label


def read_reply(response: Any) -> Reply:
    """A `PredictResponse` as lists; text is decoded, bytes that are none replaced.

    Raises:
        ServerError: INTERNAL or UNIMPLEMENTED if an output cannot be read.
    """
    outputs = {}
    for name, proto in response.outputs.items():
        tensor = read_proto_tensor(name, proto)
        if tensor.dtype == "string" and not name.endswith(BYTES_SUFFIX):
            tensor.values[:] = [v.decode("utf-8", "replace") for v in tensor.values]
        outputs[name] = tensor.nested()
    return Reply(outputs, response.model_spec.version.value)


def read_metadata(response: Any) -> Metadata:
    """A `GetModelMetadataResponse` as signatures.

    Raises:
        ServerError: INTERNAL if it holds none.
    """
    if _METADATA_FIELD not in response.metadata:
        raise ServerError("INTERNAL", f"the metadata holds no {_METADATA_FIELD}")
    found = SignatureDefMap.FromString(response.metadata[_METADATA_FIELD].value)
    return Metadata(
        response.model_spec.version.value,
        {
            name: Signature(_read_infos(s.inputs), _read_infos(s.outputs))
            for name, s in found.signature_def.items()
        },
    )


def _read_infos(infos: Any) -> dict[str, TensorInfo]:
    read = {}
    for name, info in infos.items():
        dims = info.tensor_shape
        shape = None if dims.unknown_rank else tuple(dim.size for dim in dims.dim)
        dtype = dtype_from_enum(enum_name("tensorflow.DataType", info.dtype))
        read[name] = TensorInfo(dtype, shape)
    return read


def read_statuses(response: Any) -> list[VersionStatus]:
    """A `GetModelStatusResponse` as one entry per version."""
    return [
        VersionStatus(
            entry.version,
            enum_name("tensorflow.serving.ModelVersionStatus.State", entry.state),
            entry.status.error_message,
        )
        for entry in response.model_version_status
    ]
