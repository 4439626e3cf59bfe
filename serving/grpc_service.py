"""The gRPC side: PredictionService and ModelService on the official stubs."""

import time
from collections.abc import Callable
from concurrent import futures
from typing import NoReturn, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from serving.config import ConfigError, model_configs
from serving.metrics import microseconds_since
from serving.models import ModelStore
from serving.predict import predict
from serving.status import StatusError

Reply = TypeVar("Reply")

# The real server cuts a status text here (grpc_status_util.cc).
_MESSAGE_CHARACTERS = 1024
_METADATA_FIELD = "signature_def"
# What the health service answers for; the real server leaves the package out.
HEALTH_NAMES = ("", "ModelService", "PredictionService")


def start(
    store: ModelStore,
    host: str,
    port: int,
    max_threads: int,
    *,
    health_service: bool = False,
) -> tuple[grpc.Server, int]:
    """Opens the gRPC port.

    Args:
        store: `ModelStore` that answers.
        host: str. Interface to listen on.
        port: int. 0 takes a free one.
        max_threads: int. Requests that run at the same time; more wait.
        health_service: bool. Answer `grpc.health.v1.Health` as well.

    Returns:
        Tuple of the started server and its port.

    Raises:
        OSError: If the port cannot be had.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(max_threads, thread_name_prefix="grpc"),
        options=[
            # As in the real server: no limit but that of protocol buffers.
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # By default a second server would share the port in silence.
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(store), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(store), server
    )
    if health_service:
        # The ports open once all models are there, so the answer is always yes.
        servicer = health.HealthServicer()
        for name in HEALTH_NAMES:
            servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(str(error)) from error
    server.start()
    return server, bound


def metadata(store: ModelStore, model_spec):
    """The signatures of a version, as `GetModelMetadataResponse`.

    Raises:
        StatusError: NOT_FOUND for an unknown model or version.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    with store.lease(model_spec) as version:
        for name, signature in version.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.model_spec.name = version.model_name
        response.model_spec.version.value = version.number
    response.metadata[_METADATA_FIELD].Pack(signatures)
    return response


def status(store: ModelStore, model_spec):
    """The state of every version of a model, as `GetModelStatusResponse`.

    A label in `model_spec` is passed over, as by the real server.

    Raises:
        StatusError: NOT_FOUND for an unknown model or version.
    """
    number = model_spec.version.value if model_spec.HasField("version") else None
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in store.statuses(model_spec.name, number):
        entry = response.model_version_status.add()
        entry.version = version.number
        entry.state = get_model_status_pb2.ModelVersionStatus.State.Value(version.state)
        if version.error is not None:
            entry.status.error_code = version.error.number
            entry.status.error_message = version.error.message
        else:
            entry.status.error_code = 0
    return response


def _refusal(method: str) -> Callable[[object, object, grpc.ServicerContext], None]:
    """A method that answers UNIMPLEMENTED."""

    def refuse(self, request, context):
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            f"{method} is not implemented by this development server.",
        )

    return refuse


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the Example-based calls are unimplemented.

    Args:
        store: `ModelStore` that answers.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def _predict(self, request, context):
        """Answers one PredictRequest; the client's deadline limits the run."""

        def call():
            _require_model_spec(request)
            remaining_s = context.time_remaining()
            # A call without a deadline reports none, or one years ahead.
            limited = remaining_s is not None and remaining_s < 2**31 / 1000
            timeout_ms = max(1, int(remaining_s * 1000)) if limited else None
            with self._store.lease(request.model_spec) as version:
                return predict(version, request, timeout_ms, context.add_callback)

        name, metrics = request.model_spec.name, self._store.metrics
        start_s, code = time.monotonic(), "UNKNOWN"
        try:
            reply = call()
        except StatusError as error:
            code = error.code
            _abort(context, error)
        else:
            code = "OK"
            metrics.request_latency.observe(
                microseconds_since(start_s, time.monotonic), name, "Predict", "GRPC"
            )
            return reply
        finally:
            metrics.request_count.increment(name, code)

    def _get_model_metadata(self, request, context):
        """Answers with the signatures of one version."""

        def call():
            _require_model_spec(request)
            if not request.metadata_field:
                raise StatusError(
                    "INVALID_ARGUMENT",
                    "GetModelMetadataRequest must specify at least one metadata_field",
                )
            for field in request.metadata_field:
                if field != _METADATA_FIELD:
                    raise StatusError(
                        "INVALID_ARGUMENT", f"Metadata field {field} is not supported"
                    )
            return metadata(self._store, request.model_spec)

        return _answer(context, call)

    # The stub's names, which are not Python's way to write a method.
    Predict = _predict
    GetModelMetadata = _get_model_metadata
    Classify = _refusal("Classify")
    Regress = _refusal("Regress")
    MultiInference = _refusal("MultiInference")


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus, and HandleReloadConfigRequest for another set of models.

    Args:
        store: `ModelStore` that answers.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def _get_model_status(self, request, context):
        """Answers with the states of one version or all."""

        def call():
            _require_model_spec(request)
            return status(self._store, request.model_spec)

        return _answer(context, call)

    def _reload_config(self, request, context):
        """Replaces the whole set of models; answers once the new ones are there."""

        def call():
            if request.config.WhichOneof("config") != "model_config_list":
                raise StatusError(
                    "INVALID_ARGUMENT",
                    "ServerModelConfig type not supported by HandleReloadConfigRequest."
                    " Only ModelConfigList is currently supported",
                )
            try:
                configs = model_configs("ReloadConfigRequest", request.config)
            except ConfigError as error:
                raise StatusError("INVALID_ARGUMENT", str(error)) from error
            self._store.reload(configs)
            return model_management_pb2.ReloadConfigResponse()

        return _answer(context, call)

    GetModelStatus = _get_model_status
    HandleReloadConfigRequest = _reload_config


def _answer(context: grpc.ServicerContext, call: Callable[[], Reply]) -> Reply:
    try:
        return call()
    except StatusError as error:
        _abort(context, error)


def _abort(context: grpc.ServicerContext, error: StatusError) -> NoReturn:
    context.abort(grpc.StatusCode[error.code], error.message[:_MESSAGE_CHARACTERS])
    raise error  # not reached: abort raises


def _require_model_spec(request) -> None:
    if not request.HasField("model_spec"):
        raise StatusError("INVALID_ARGUMENT", "Missing ModelSpec")
