"""The sync client."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

from tfmm_client.answers import (
    CLASSIFY_OUTPUTS,
    Answer,
    Explanation,
    read_answers,
    read_explanations,
)
from tfmm_client.base import BaseClient, Question
from tfmm_client.batch import Batch, find_signature
from tfmm_client.errors import InputError, ServerError
from tfmm_client.model import Metadata, Reply, Signature, VersionStatus
from tfmm_client.retries import Deadline

Value = TypeVar("Value")
Products = Sequence[Mapping[str, str | bytes]]


class Client(BaseClient):
    """Asks a served model; threads may share one client.

    Takes the options of `BaseClient`. The first call also asks the server for the
    model's signatures, against which every input is checked before it is sent. A
    batch larger than one request is cut, its parts are sent `max_in_flight` at a
    time, and the answers come back in order; if one part fails, so does the call.

    Every call takes `timeout_s` (None is the client's own) and raises `InputError`
    if the question does not fit the model, `ServerError` if the server refuses,
    fails or does not answer in time, and `OSError` if the log cannot be written.
    """

    _transport: Any

    def _open(self) -> None:
        # Imported here, so that REST needs no gRPC and gRPC no httpx.
        if self._server.is_grpc:
            from tfmm_client.grpc_transport import GrpcTransport

            self._transport = GrpcTransport(self._server, self._model)
        else:
            from tfmm_client.rest_transport import RestTransport

            self._transport = RestTransport(self._server, self._model)

    def classify(
        self, products: Products, *, timeout_s: float | None = None
    ) -> list[Answer]:
        """Asks for the labels of products.

        Args:
            products: Sequence of dicts from input name to str (text, or the cells
                of a table with tabs between them) or bytes (an encoded image). An
                input left out, or empty, is missing.
            timeout_s: float or None.

        Returns:
            List of `Answer`, one per product, in order.
        """
        question = self._products("serving_default", products, *CLASSIFY_OUTPUTS)
        return read_answers(self._outputs(question, timeout_s))

    def probabilities(
        self, products: Products, *, timeout_s: float | None = None
    ) -> list[list[float]]:
        """Asks for the probability of every label.

        Args:
            products: As `classify`.
            timeout_s: float or None.

        Returns:
            List `(products, labels)`, the labels in the order of the bundle's
            `assets/labels.txt`.
        """
        question = self._products("probabilities", products, "probabilities")
        return self._outputs(question, timeout_s)["probabilities"]

    def explain(
        self, products: Products, *, timeout_s: float | None = None
    ) -> list[Explanation]:
        """Asks what speaks for the first labels.

        Args:
            products: As `classify`.
            timeout_s: float or None.

        Returns:
            List of `Explanation`, one per product.
        """
        question = self._products("explain", products, "contributions")
        return read_explanations(self._outputs(question, timeout_s))

    def embed(
        self, products: Products, *, timeout_s: float | None = None
    ) -> list[list[float]]:
        """Asks for the vectors of products, for similarity search.

        Args:
            products: As `classify`.
            timeout_s: float or None.

        Returns:
            List `(products, embedding_dim)`, each vector of unit length.
        """
        question = self._products("embed", products, "embedding")
        return self._outputs(question, timeout_s)["embedding"]

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Asks any signature of any model, column by column.

        Args:
            signature: str.
            inputs: dict from input name to a sequence, the batch first: str,
                bytes, bool or numbers, nested as the input's shape asks. A string
                input left out is sent empty.
            timeout_s: float or None.

        Returns:
            Dict from output name to lists in lists, the batch first. Strings are
            str, or bytes where the output's name ends in `_bytes`.
        """
        return self._outputs(Question(signature, lambda _: inputs), timeout_s)

    def signatures(self, *, timeout_s: float | None = None) -> dict[str, Signature]:
        """Asks the server for the model's signatures, by name."""
        return dict(self._ask_metadata(self._deadline(timeout_s)).signatures)

    def signature(self, name: str, *, timeout_s: float | None = None) -> Signature:
        """One signature, as the client knows it already or else from the server.

        Raises:
            InputError: Also if the model has none of that name.
        """
        return self._checked(
            lambda metadata: find_signature(metadata, name, self._model.name),
            self._deadline(timeout_s),
        )

    def status(self, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """Asks for the states of the model's versions, or of the client's one."""
        deadline = self._deadline(timeout_s)
        call = partial(self._try, self._transport.status, deadline)
        return self._run([call], deadline)[0]

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _outputs(self, question: Question, timeout_s: float | None) -> dict[str, Any]:
        deadline = self._deadline(timeout_s)
        value_bytes = self._transport.value_bytes
        parts = self._checked(
            lambda metadata: self._cut(metadata, question, value_bytes), deadline
        )
        calls = [partial(self._ask, part, deadline) for part in parts]
        return self._join(parts, self._run(calls, deadline))

    def _checked(self, check: Callable[[Metadata], Value], deadline: Deadline) -> Value:
        """Checks a question; one that does not fit, against the newest version."""
        known = self._metadata
        if known is not None:
            try:
                return check(known)
            except InputError:
                pass  # the server may have another version by now
        return check(self._ask_metadata(deadline))

    def _ask_metadata(self, deadline: Deadline) -> Metadata:
        call = partial(self._try, self._transport.metadata, deadline)
        (self._metadata,) = self._run([call], deadline)
        return self._metadata

    def _ask(self, part: Batch, deadline: Deadline, stop: threading.Event) -> Reply:
        start_s = time.monotonic()
        reply = self._try(partial(self._transport.predict, part), deadline, stop)
        return self._answered(part, reply, start_s)

    def _try(
        self,
        call: Callable[[float], Value],
        deadline: Deadline,
        stop: threading.Event,
    ) -> Value:
        """Makes a call until it is answered or is not to be tried again."""
        num_tries = 0
        while True:
            try:
                return call(deadline.required_s())
            except ServerError as error:
                num_tries += 1
                wait_s = self._retries.wait_s(error, num_tries, deadline)
                if wait_s is None:
                    self._refused(error)
                    raise
            if stop.wait(wait_s):
                raise ServerError("CANCELLED", "another part of the batch failed")

    def _run(
        self, calls: Sequence[Callable[[threading.Event], Value]], deadline: Deadline
    ) -> list[Value]:
        """Makes calls side by side, and waits for them no longer than the deadline."""
        stop = threading.Event()
        if len(calls) == 1 and self._transport.is_strict:
            return [calls[0](stop)]
        threads = ThreadPoolExecutor(min(self._max_in_flight, len(calls)), "tfmm")
        try:
            futures = [threads.submit(call, stop) for call in calls]
            done, pending = wait(futures, deadline.left_s(), FIRST_EXCEPTION)
            for future in futures:
                if future in done:
                    future.result()
            if pending:
                raise deadline.passed()
            return [future.result() for future in futures]
        finally:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
