"""A bundle that answers: loaded here, or behind a server."""

from pathlib import Path

import numpy as np

from export.failure import Failure, first_line
from export.graph import signatures

TIMEOUT_S = 60.0


class Refused(Exception):
    """A request that was not answered because it is wrong."""


class Served:
    """A bundle in a session, called as TensorFlow Serving calls it.

    Attributes:
        inputs: Signature -> names of its inputs.
        outputs: Signature -> names of its outputs.
        labels: The label names, by `assets/labels.txt`.

    Raises:
        Failure: If it does not load.
    """

    def __init__(self, bundle: Path):
        import tensorflow as tf
        from tensorflow.core.protobuf import config_pb2

        tf.get_logger().setLevel("ERROR")  # the loader of sessions says it is old
        self._errors = tf.errors
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            try:
                loaded = tf.compat.v1.saved_model.load(
                    self._session, ["serve"], str(bundle)
                )
                self.labels = read_labels(bundle)
            except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
                raise Failure(f"does not load: {first_line(error)}") from None
        self.inputs, self.outputs, self._calls = {}, {}, {}
        for name in signatures(loaded):
            signature = loaded.signature_def[name]
            self.inputs[name] = list(signature.inputs)
            self.outputs[name] = list(signature.outputs)
            # The way in that compares no shapes, as the server does not; the public
            # ones refuse in Python what the graph itself should refuse.
            self._calls[name] = self._session._make_callable_from_options(
                config_pb2.CallableOptions(
                    feed=[x.name for x in signature.inputs.values()],
                    fetch=[x.name for x in signature.outputs.values()],
                )
            )

    def __call__(self, signature: str, inputs: dict) -> dict[str, np.ndarray]:
        """Calls a signature.

        Raises:
            Refused: If the graph refuses what it is given.
        """
        fed = [inputs[name] for name in self.inputs[signature]]
        try:
            answer = self._calls[signature](*fed)
        except self._errors.InvalidArgumentError as error:
            raise Refused(first_line(error)) from None
        except self._errors.InternalError as error:
            # A server compares types before the graph runs; a session, while.
            if any(x.dtype != object for x in fed):
                raise Refused(first_line(error)) from None
            raise
        return dict(zip(self.outputs[signature], answer, strict=True))


class Remote:
    """A bundle behind TensorFlow Serving or the development server, over gRPC.

    Attributes are those of `Served`.

    Args:
        bundle: The version directory, `MODELS/NAME/N`, that the server serves.
        address: `HOST:PORT` of its gRPC port.

    Raises:
        Failure: If the server does not answer, or does not serve that version.
    """

    def __init__(self, bundle: Path, address: str):
        import grpc
        from tensorflow_serving.apis import (
            get_model_metadata_pb2,
            predict_pb2,
            prediction_service_pb2_grpc,
        )

        whole = bundle.resolve()
        self._name, self._version = whole.parent.name, int(whole.name)
        self._grpc, self._request = grpc, predict_pb2.PredictRequest
        channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", -1)]
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        question = get_model_metadata_pb2.GetModelMetadataRequest()
        question.model_spec.name = self._name
        question.model_spec.version.value = self._version
        question.metadata_field.append("signature_def")
        try:
            reply = self._stub.GetModelMetadata(question, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise Failure(f"{address}: {_said(error)}") from None
        found = get_model_metadata_pb2.SignatureDefMap()
        reply.metadata["signature_def"].Unpack(found)
        names = signatures(found)
        self.inputs = {x: list(found.signature_def[x].inputs) for x in names}
        self.outputs = {x: list(found.signature_def[x].outputs) for x in names}
        self.labels = read_labels(bundle)

    def __call__(self, signature: str, inputs: dict) -> dict[str, np.ndarray]:
        """Calls a signature.

        Raises:
            Refused: If the server answers INVALID_ARGUMENT.
            Failure: If it fails in another way.
        """
        import tensorflow as tf

        request = self._request()
        request.model_spec.name = self._name
        request.model_spec.version.value = self._version
        request.model_spec.signature_name = signature
        for name in self.inputs[signature]:
            request.inputs[name].CopyFrom(tf.make_tensor_proto(inputs[name]))
        try:
            reply = self._stub.Predict(request, timeout=TIMEOUT_S)
        except self._grpc.RpcError as error:
            if error.code() == self._grpc.StatusCode.INVALID_ARGUMENT:
                raise Refused(_said(error)) from None
            raise Failure(f"{signature}: {_said(error)}") from None
        return {name: tf.make_ndarray(x) for name, x in reply.outputs.items()}


def read_labels(bundle: Path) -> list[str]:
    """The label names of a bundle, in the order of its probabilities."""
    text = (bundle / "assets" / "labels.txt").read_text(encoding="utf-8")
    return text.split("\n")[:-1]


def _said(error) -> str:
    return f"{error.code().name}: {' '.join((error.details() or '').split())}"
