"""Predict on protocol buffers: the checks of TensorFlow Serving, in its order."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from serving.batching import OnCancel
from serving.status import StatusError
from serving.version import Version

DEFAULT_SIGNATURE = "serving_default"

# The field that holds a dtype's values. The real server fills these and not
# `tensor_content`, and some clients read them without a helper.
_VALUE_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "uint8": "int_val",
    "int16": "int_val",
    "uint16": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "object": "string_val",
}


def predict(
    version: Version,
    request,
    timeout_ms: int | None = None,
    on_cancel: OnCancel | None = None,
):
    """Answers a PredictRequest on one version.

    Inputs that the signature has defaults for may be left out.

    Args:
        version: `Version`, AVAILABLE, or loading and being warmed up.
        request: `PredictRequest`. Its `model_spec` gives the signature; name and
            version have been resolved to `version`.
        timeout_ms: int, at least 1, or None for no limit.
        on_cancel: `OnCancel`, or None if the client cannot tell.

    Returns:
        `PredictResponse` with the version used and the signature's name.

    Raises:
        StatusError: As the real server: FAILED_PRECONDITION for an unknown
            signature, INVALID_ARGUMENT for inputs or outputs it does not have.
    """
    from tensorflow_serving.apis import predict_pb2

    signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    signature = version.signatures.get(signature_name)
    if signature is None:
        raise StatusError(
            "FAILED_PRECONDITION",
            f'Serving signature key "{signature_name}" not found.',
        )
    check_input_count(signature, request.inputs)
    arrays = _request_arrays(signature, request.inputs)
    outputs = run_signature(
        version, signature, arrays, request.output_filter, timeout_ms, on_cancel
    )
    response = predict_pb2.PredictResponse()
    response.model_spec.name = version.model_name
    response.model_spec.version.value = version.number
    response.model_spec.signature_name = signature_name
    for name, array in outputs.items():
        response.outputs[name].CopyFrom(tensor_proto(array))
    return response


def check_input_count(signature, names: Iterable[str]) -> None:
    """Refuses more inputs than the signature has, or fewer without defaults.

    Args:
        signature: `SignatureDef`.
        names: The names of the inputs sent.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    sent, known = set(names), set(signature.inputs)
    if len(sent) > len(known) or (len(sent) < len(known) and not signature.defaults):
        raise _invalid(
            f"input size does not match signature: {len(sent)}!={len(known)} "
            f"len({_braces(sent)}) != len({_braces(known)}). "
            f"Sent extra: {_braces(sent - known)}. "
            f"Missing but required: {_braces(known - sent)}."
        )


def run_signature(
    version: Version,
    signature,
    arrays: Mapping[str, np.ndarray],
    output_filter: Iterable[str] = (),
    timeout_ms: int | None = None,
    on_cancel: OnCancel | None = None,
) -> dict[str, np.ndarray]:
    """Runs one signature on arrays.

    Args:
        version: `Version`.
        signature: `SignatureDef` of that version.
        arrays: dict from input name to array; every input.
        output_filter: The outputs wanted; all of them if empty.
        timeout_ms: int, at least 1, or None for no limit.
        on_cancel: `OnCancel`, or None if the client cannot tell.

    Returns:
        Dict from output name to array.

    Raises:
        StatusError: INVALID_ARGUMENT for an output asked for twice or unknown;
            otherwise the code that the graph ended in.
    """
    wanted: list[str] = []
    for name in output_filter:
        if name not in signature.outputs:
            raise _invalid(
                f"output tensor alias not found in signature: {name} Outputs "
                f"expected to be in the set {_braces(signature.outputs)}."
            )
        if name in wanted:
            raise _invalid(f"duplicate output tensor alias: {name}")
        wanted.append(name)
    return version.run(
        {signature.inputs[name].name: array for name, array in arrays.items()},
        {
            name: (signature.outputs[name].name, dtype_name(signature.outputs[name]))
            for name in wanted or sorted(signature.outputs)
        },
        timeout_ms,
        on_cancel,
    )


def dtype_name(tensor_info) -> str:
    """The dtype of a `TensorInfo` as TensorFlow's errors name it.

    Returns:
        str, for example "float", "string" or "int64".
    """
    from tensorflow.core.framework import types_pb2

    return types_pb2.DataType.Name(tensor_info.dtype).removeprefix("DT_").lower()


def tensor_proto(array: np.ndarray):
    """An array as a `TensorProto`, in the value fields as the real server does.

    Args:
        array: np.ndarray. Strings are an object array of bytes.

    Returns:
        `TensorProto`.
    """
    import tensorflow as tf

    field = _VALUE_FIELDS.get(array.dtype.name)
    if field is None:  # half, bfloat16, complex and the quantised: rare, any form
        return tf.make_tensor_proto(array)
    proto = tf.make_tensor_proto(
        np.zeros(0, array.dtype) if field != "string_val" else [],
        dtype=tf.string if field == "string_val" else None,
        shape=[0],
    )
    proto.ClearField("tensor_content")
    proto.tensor_shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    getattr(proto, field).extend(array.ravel().tolist())
    return proto


def _request_arrays(signature, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {}
    for name in sorted(signature.inputs):
        if name in inputs:
            arrays[name] = _array(name, inputs[name])
        elif name in signature.defaults:
            arrays[name] = _array(name, signature.defaults[name])
        else:
            raise _invalid(
                f"Signature input alias: {name}(feed name: "
                f"{signature.inputs[name].name}) not found in request and no default "
                "value provided. Inputs expected to be in the request "
                f"{_braces(inputs)}, or default input alias set: "
                f"{','.join(sorted(signature.defaults))}"
            )
    used = sorted(set(inputs) & set(signature.inputs))
    if len(used) != len(inputs):
        raise _invalid(
            "Inputs contains invalid name. Used request inputs: "
            f"{','.join(used)}, request input: {','.join(sorted(inputs))}"
        )
    return arrays


def _array(name: str, proto) -> np.ndarray:
    import tensorflow as tf

    # make_ndarray would take -1 for "whatever fits"; the C++ server refuses it.
    sizes = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise _invalid(f"tensor parsing error: {name}")
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise _invalid(f"tensor parsing error: {name}") from error


def _braces(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _invalid(message: str) -> StatusError:
    return StatusError("INVALID_ARGUMENT", message)
