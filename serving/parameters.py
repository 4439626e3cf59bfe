"""The files of parameters that TensorFlow Serving reads in text form.

`tensorflow-serving-api` leaves out the messages that these files hold, so their
fields are declared here, in a descriptor pool of their own: beside the real
messages, should a later release bring them, they would clash.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from serving.config import ConfigError, read_message

METRICS_PATH = "/monitoring/prometheus/metrics"
# Inside a version directory; read with --enable_per_model_batching_parameters.
BATCHING_FILE = "batching_params.pbtxt"

_INT = ".google.protobuf.Int64Value"
_BATCHING_FIELDS = {
    "max_batch_size": _INT,
    "batch_timeout_micros": _INT,
    "max_enqueued_batches": _INT,
    "num_batch_threads": _INT,
    "thread_pool_name": ".google.protobuf.StringValue",
    "allowed_batch_sizes": "repeated int64",
    "pad_variable_length_inputs": "bool",
    "enable_large_batch_splitting": ".google.protobuf.BoolValue",
    "max_execution_batch_size": _INT,
}


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined to batches; the defaults are TensorFlow Serving's.

    Attributes:
        max_batch_size: int. Rows of a batch, and of a request.
        batch_timeout_micros: int. Microseconds that a batch waits to be filled.
        max_enqueued_batches: int. Batches that wait, for each signature; requests
            beyond are refused.
        num_batch_threads: int or None. Batches that run at a time, of all models
            together; None is one for each processor.
        thread_pool_name: str. A label in the metrics.
        allowed_batch_sizes: tuple of int. Batches are filled up to the next of
            these with copies of a row; empty is any size.
        pad_variable_length_inputs: bool. Pad inputs that differ past their first
            dimension, with the first element of each.
        enable_large_batch_splitting: bool. Cut requests of more rows than
            `max_execution_batch_size` in pieces.
        max_execution_batch_size: int or None. Rows of a batch that runs; read only
            with `enable_large_batch_splitting`. None is `max_batch_size`.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int | None = None
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

    @property
    def rows_per_batch(self) -> int:
        """The most rows that run at a time."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size:
            return self.max_execution_batch_size
        return self.max_batch_size


def read_batching_parameters(path: Path) -> BatchingParameters:
    """Reads a BatchingParameters message in protobuf text format.

    Args:
        path: Path of the file.

    Returns:
        `BatchingParameters`.

    Raises:
        ConfigError: If the file cannot be read or does not hold the message, or
            if its values do not go together.
    """
    message = read_message(path, _messages()["BatchingParameters"])
    values: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if _BATCHING_FIELDS[descriptor.name].startswith(".google"):
            value = value.value
        values[descriptor.name] = value
    values["allowed_batch_sizes"] = tuple(message.allowed_batch_sizes)
    parameters = BatchingParameters(**values)
    if problem := _problem(parameters):
        raise ConfigError(f"{path}: {problem}")
    return parameters


def read_monitoring_config(path: Path) -> str | None:
    """Reads a MonitoringConfig message in protobuf text format.

    Args:
        path: Path of the file.

    Returns:
        str. The path on the REST port that answers with the metrics; None if the
        file switches them off.

    Raises:
        ConfigError: If the file cannot be read or does not hold the message, or
            if its path does not begin with "/".
    """
    prometheus = read_message(path, _messages()["MonitoringConfig"]).prometheus_config
    if not prometheus.enable:
        return None
    url_path = prometheus.path or METRICS_PATH
    if not url_path.startswith("/"):
        raise ConfigError(
            f"{path}: the path of prometheus_config must begin with '/'. "
            f"Received: {url_path!r}"
        )
    return url_path


def _problem(parameters: BatchingParameters) -> str | None:
    """What is wrong with the values, in the words of the real server."""
    for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
        value = getattr(parameters, name)
        if value is not None and value < 1:
            return f"{name} must be positive; was {value}"
    if parameters.batch_timeout_micros < 0:
        return (
            "batch_timeout_micros must be non-negative; was "
            f"{parameters.batch_timeout_micros}"
        )
    split = (
        parameters.enable_large_batch_splitting
        and parameters.max_execution_batch_size is not None
    )
    if split and not (
        1 <= parameters.max_execution_batch_size <= parameters.max_batch_size
    ):
        return (
            "When enable_large_batch_splitting is true, max_batch_size must be "
            "greater than or equal to max_execution_batch_size, and both positive; "
            f"were {parameters.max_batch_size} and "
            f"{parameters.max_execution_batch_size}"
        )
    sizes = parameters.allowed_batch_sizes
    if sizes and (min(sizes) < 1 or list(sizes) != sorted(set(sizes))):
        return f"allowed_batch_sizes must ascend from 1 or more; were {list(sizes)}"
    if sizes and sizes[-1] != parameters.rows_per_batch:
        name = "max_execution_batch_size" if split else "max_batch_size"
        return (
            f"Last entry in allowed_batch_sizes must match {name}; last entry was "
            f"{sizes[-1]}; expected {parameters.rows_per_batch}"
        )
    return None


@cache
def _messages() -> dict[str, type]:
    """The message classes by name."""
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
        wrappers_pb2,
    )

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/parameters.proto",
        package="serving.parameters",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    declared = {
        "BatchingParameters": _BATCHING_FIELDS,
        "PrometheusConfig": {"enable": "bool", "path": "string"},
        "MonitoringConfig": {
            "prometheus_config": ".serving.parameters.PrometheusConfig"
        },
    }
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in declared.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields.items(), start=1):
            field = message.field.add(name=field_name, number=number)
            repeated = kind.startswith("repeated ")
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind.startswith("."):
                field.type, field.type_name = kinds.TYPE_MESSAGE, kind
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.split()[-1].upper()}")
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"serving.parameters.{name}")
        )
        for name in declared
    }
