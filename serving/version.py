"""One version of a model: its directory, its state and its session."""

import importlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from serving.batching import BatchQueue, OnCancel
from serving.config import ConfigError
from serving.load_options import LoadOptions
from serving.metrics import microseconds_since
from serving.status import CODES, StatusError

# The real server refuses a warm-up file of more records.
MAX_WARM_UP_RECORDS = 1000


class Version:
    """One version directory, loaded the way TensorFlow Serving loads it.

    Python's own `tf.saved_model.load` restores through the object graph, the
    C++ server through the restore op of the meta graph. An export can pass the
    first and fail the second, so this class takes the second way: a TensorFlow 1
    session with the tag `serve`.

    Args:
        model_name: str.
        number: int. The version.
        path: Path of the version directory.
        options: `LoadOptions`.

    Attributes:
        state: str. "START", "LOADING", "AVAILABLE", "UNLOADING" or "END".
        error: `StatusError` or None. Why the load failed; the state is then "END".
    """

    def __init__(
        self, model_name: str, number: int, path: Path, options: LoadOptions
    ) -> None:
        self.model_name = model_name
        self.number = number
        self.path = path
        self.state = "START"
        self.error: StatusError | None = None
        self.signatures: Mapping = {}
        self._options = options
        self._session = None
        # By the tensors fed and fetched, as a signature names them.
        self._queues: dict[tuple[frozenset, frozenset], BatchQueue] = {}
        self._lock = threading.Lock()
        self._num_leases = 0

    def load(self) -> None:
        """Loads the directory, runs its warm-up requests and becomes AVAILABLE.

        Never raises for a bad directory: the state becomes "END" and `error`
        says why.
        """
        self.state = "LOADING"
        try:
            self._open_session()
            self._open_queues()
            if self._options.warm_up:
                self._warm_up()
        except Exception as error:
            # A SavedModel is a program of someone else's. Whatever its load
            # raises, the versions that already answer must go on answering.
            self._fail(_as_status(error))
        else:
            self.state = "AVAILABLE"

    def acquire(self) -> bool:
        """Takes a lease, so that the session stays open; False if not AVAILABLE."""
        with self._lock:
            if self.state != "AVAILABLE":
                return False
            self._num_leases += 1
            return True

    def release(self) -> None:
        """Gives a lease back; the last one closes a version being unloaded."""
        with self._lock:
            self._num_leases -= 1
            last = self._num_leases == 0 and self.state == "UNLOADING"
        if last:
            self._close()

    def unload(self) -> None:
        """Takes no more leases, and closes once those given out are back."""
        with self._lock:
            self.state = "UNLOADING"
            idle = self._num_leases == 0
        if idle:
            self._close()

    def abandon(self) -> None:
        """Closes at once; a request under way is cancelled. For the server's end."""
        self._close()

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Mapping[str, tuple[str, str]],
        timeout_ms: int | None = None,
        on_cancel: OnCancel | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs the graph, in a batch with other requests where that is set up.

        As in the real server, the dtype of a feed is checked and its shape is
        not: an input without `tf.ensure_shape` gets what the client sent.

        Args:
            feeds: dict from tensor name to array.
            fetches: dict from output name to a tensor's name and its dtype name,
                for example `{"scores": ("StatefulPartitionedCall:0", "float")}`.
            timeout_ms: int, at least 1, or None for no limit.
            on_cancel: `OnCancel`, or None if the client cannot tell. A request that
                waits for its batch then ends; one that runs does not.

        Returns:
            Dict from output name to array; strings are object arrays of bytes.

        Raises:
            StatusError: With the code that the graph ended in; with batching,
                also those of `BatchQueue.call`.
        """
        start_s = time.monotonic()
        tensors = dict(fetches.values())
        # A request for some outputs only is in no queue and runs by itself.
        queue = self._queues.get((frozenset(feeds), frozenset(tensors)))
        if queue is None:
            values = self._run(feeds, tensors, timeout_ms)
        else:
            values = queue.call(feeds, timeout_ms, on_cancel)
        self._options.metrics.runtime_latency.observe(
            microseconds_since(start_s, time.monotonic),
            self.model_name,
            "Predict",
            "TF1",
        )
        return {name: values[tensor] for name, (tensor, _) in fetches.items()}

    def _run(
        self,
        feeds: Mapping[str, np.ndarray],
        tensors: Mapping[str, str],
        timeout_ms: int | None,
    ) -> dict[str, np.ndarray]:
        """Runs the graph once for `tensors`, by name with their dtype names."""
        import tensorflow as tf

        # Session.run and its callables compare shapes in Python, which the C++
        # server does not; below them there is only this private call.
        from tensorflow.python.client import pywrap_tf_session

        session = self._session
        if session is None:
            raise StatusError("UNAVAILABLE", "The version has been unloaded.")
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms or 0)
        buffer = pywrap_tf_session.TF_NewBufferFromString(options.SerializeToString())
        try:
            values = pywrap_tf_session.TF_SessionRun_wrapper(
                session._session,
                buffer,
                {_tensor(session, name): array for name, array in feeds.items()},
                [_tensor(session, name) for name in tensors],
                [],
                None,
            )
        except tf.errors.OpError as error:
            raise _as_status(error) from error
        finally:
            pywrap_tf_session.TF_DeleteBuffer(buffer)
        return {
            name: np.asarray(value, object if dtype == "string" else None)
            for (name, dtype), value in zip(tensors.items(), values, strict=True)
        }

    def _open_session(self) -> None:
        import tensorflow as tf

        # The stock server links TensorFlow Text, so its ops must be known here.
        importlib.import_module("tensorflow_text")
        config = self._options.session_config()
        session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
        try:
            with session.graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(
                    session, [tf.saved_model.SERVING], str(self.path)
                )
        except BaseException:
            session.close()
            raise
        # Copies: a message that is a part of another one keeps all of it, here the
        # graph, for as long as the status of this version is kept.
        self.signatures = {
            name: type(signature).FromString(signature.SerializeToString())
            for name, signature in meta_graph.signature_def.items()
        }
        self._session = session

    def _open_queues(self) -> None:
        from serving.predict import dtype_name

        try:
            parameters = self._options.batching_parameters(self.path)
        except ConfigError as error:
            raise StatusError("INVALID_ARGUMENT", str(error)) from error
        if parameters is None:
            return
        for signature in self.signatures.values():
            feeds = frozenset(info.name for info in signature.inputs.values())
            tensors = {x.name: dtype_name(x) for x in signature.outputs.values()}
            key = (feeds, frozenset(tensors))
            if feeds and key not in self._queues:
                self._queues[key] = self._options.scheduler.add_queue(
                    parameters,
                    lambda inputs, timeout_ms, tensors=tensors: self._run(
                        inputs, tensors, timeout_ms
                    ),
                )

    def _warm_up(self) -> None:
        path = self.path / "assets.extra" / "tf_serving_warmup_requests"
        if not path.exists():
            return
        start_s, code = time.monotonic(), "OK"
        try:
            self._run_warm_up_records(path)
        except Exception as error:
            code = _as_status(error).code
            raise
        finally:
            self._options.metrics.model_warmup_latency.observe(
                microseconds_since(start_s, time.monotonic), str(self.path), code
            )

    def _run_warm_up_records(self, path: Path) -> None:
        import tensorflow as tf
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis import prediction_log_pb2

        from serving.predict import predict

        records = tf.data.TFRecordDataset([str(path)]).as_numpy_iterator()
        for index, record in enumerate(records):
            place = f"warm-up record {index}"
            if index >= MAX_WARM_UP_RECORDS:
                raise StatusError(
                    "INVALID_ARGUMENT",
                    "Number of warmup records exceeds the maximum "
                    f"({MAX_WARM_UP_RECORDS}) at {path}",
                )
            try:
                log = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as error:
                raise StatusError(
                    "INVALID_ARGUMENT", f"Failed to parse {place} from {path}"
                ) from error
            kind = log.WhichOneof("log_type")
            if kind != "predict_log":
                raise StatusError(
                    "UNIMPLEMENTED",
                    f"{place} of {path} is a {kind}; this server runs predict_log.",
                )
            try:
                predict(self, log.predict_log.request)
            except StatusError as error:
                raise StatusError(error.code, f"{place}: {error.message}") from error

    def _fail(self, error: StatusError) -> None:
        self._close()
        self.error = error

    def _close(self) -> None:
        queues, self._queues = self._queues, {}
        for queue in queues.values():
            self._options.scheduler.remove_queue(queue)
        session, self._session = self._session, None
        if session is not None:
            session.close()
        self.state = "END"


def _tensor(session, name: str):
    try:
        return session.graph.get_tensor_by_name(name)._as_tf_output()
    except (KeyError, ValueError) as error:
        message = f"The signature names the tensor {name!r}, not in the graph."
        raise StatusError("INVALID_ARGUMENT", message) from error


def _as_status(error: Exception) -> StatusError:
    """The status of an error that TensorFlow or the file system raised."""
    if isinstance(error, StatusError):
        return error
    number = getattr(error, "error_code", None)
    text = str(getattr(error, "message", error))
    if isinstance(number, int) and 0 < number < len(CODES):
        return StatusError(CODES[number], text)
    if isinstance(error, OSError):
        return StatusError("NOT_FOUND", text)
    return StatusError("INVALID_ARGUMENT", f"{type(error).__name__}: {text}")
