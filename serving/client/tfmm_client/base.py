"""What the sync and the async client have in common: all but the waiting."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfmm_client import batch as batches
from tfmm_client.batch import Batch
from tfmm_client.errors import InputError, ServerError
from tfmm_client.model import Metadata, Model, Reply, Signature
from tfmm_client.request_log import RequestLog
from tfmm_client.retries import Deadline, Retries
from tfmm_client.server import Server, Tls

# After such a refusal the model may be another one than the client knows.
_FORGET_AFTER = ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND")


class Question(NamedTuple):
    """A call of a client before it is checked against the model's signature.

    Attributes:
        signature_name: str.
        columns: Function from a `Signature` to a dict of columns.
        outputs: tuple of str. What the signature must answer with.
    """

    signature_name: str
    columns: Callable[[Signature], Mapping[str, Any]]
    outputs: tuple[str, ...] = ()


class BaseClient:
    """The options of a client, and the checks of what it is asked.

    Args:
        url: str. `grpc://HOST:PORT`, `http://HOST:PORT`, or `grpcs://` and
            `https://` for TLS.
        model: str. The served model's name.
        version: int or None. A version by its number.
        version_label: str or None. A version by its label. With neither, the
            highest version that is up answers.
        timeout_s: float. Limit of a call: all its parts, tries and waits.
        max_batch_size: int. Products in one request; larger batches are cut. The
            protocol does not tell the server's limit, so it must be given here
            where the server has one (its `max_batch_size`).
        max_request_bytes: int. Bytes of one request, as `max_batch_size`.
        max_in_flight: int. Requests of one call that are under way together.
        retries: `Retries`.
        tls: `Tls` or None. Certificates other than the usual ones.
        headers: dict or None. Sent with every request; gRPC calls them metadata.
        log: path or None. `requests.jsonl`, to which every answered
            classification is appended.
        log_texts: bool. Whether the log holds the texts themselves.

    Raises:
        InputError: If an option is out of its range or does not go with another.
    """

    def __init__(
        self,
        url: str,
        model: str = "default",
        *,
        version: int | None = None,
        version_label: str | None = None,
        timeout_s: float = 30.0,
        max_batch_size: int = 32,
        max_request_bytes: int = 32 * 2**20,
        max_in_flight: int = 4,
        retries: Retries | None = None,
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        log: Path | str | None = None,
        log_texts: bool = False,
    ) -> None:
        if version is not None and version_label is not None:
            raise InputError("version and version_label exclude each other.")
        if not model:
            raise InputError("the model's name is empty.")
        limits = {
            "max_batch_size": max_batch_size,
            "max_request_bytes": max_request_bytes,
            "max_in_flight": max_in_flight,
        }
        for name, value in limits.items():
            if value < 1:
                raise InputError(f"{name} must be 1 or more. Received: {value}")
        Deadline(timeout_s)  # checks the value
        self._server = Server.parse(url, tls, headers)
        self._model = Model(model, version, version_label)
        self._timeout_s = timeout_s
        self._max_batch_size = max_batch_size
        self._max_request_bytes = max_request_bytes
        self._max_in_flight = max_in_flight
        self._retries = retries or Retries()
        self._metadata: Metadata | None = None
        self._log = None if log is None else RequestLog(log, model, log_texts)
        self._open()

    def _open(self) -> None:
        """What a client does once its options are known to be right."""

    def _deadline(self, timeout_s: float | None) -> Deadline:
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    def _cut(
        self, metadata: Metadata, question: Question, value_bytes: Callable[[Any], int]
    ) -> list[Batch]:
        """Checks a question, and cuts it into requests.

        Raises:
            InputError: If it does not fit the model.
        """
        name, model_name = question.signature_name, self._model.name
        signature = batches.find_signature(metadata, name, model_name)
        for output in question.outputs:
            if output not in signature.outputs:
                raise InputError(
                    f"the signature {name!r} of the model {model_name!r} has no "
                    f"output {output!r}. Its outputs: "
                    f"{', '.join(sorted(signature.outputs))}."
                )
        columns = question.columns(signature)
        whole = batches.read_batch(columns, signature, name, model_name)
        return batches.split(
            whole, self._max_batch_size, self._max_request_bytes, value_bytes
        )

    def _products(
        self,
        signature_name: str,
        products: Sequence[Mapping[str, str | bytes]],
        *outputs: str,
    ) -> Question:
        """The question of the typed calls: products as rows."""
        return Question(
            signature_name,
            lambda signature: batches.read_products(
                products, signature, self._model.name
            ),
            outputs,
        )

    def _answered(self, part: Batch, reply: Reply, start_s: float) -> Reply:
        """Logs a reply, and notes a change of version."""
        known = self._metadata
        if known is not None and reply.version not in (None, known.version):
            self._metadata = None
        if self._log is not None:
            self._log.append(part, reply, time.monotonic() - start_s)
        return reply

    def _refused(self, error: ServerError) -> None:
        if error.code in _FORGET_AFTER:
            self._metadata = None

    def _join(self, parts: Sequence[Batch], replies: Sequence[Reply]) -> dict[str, Any]:
        return batches.join(parts, [reply.outputs for reply in replies])
