"""The async client."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from tfmm_client.client import Products
from tfmm_client.errors import InputError, ServerError
from tfmm_client.model import Metadata, Reply, Signature, VersionStatus
from tfmm_client.retries import Deadline

Value = TypeVar("Value")


class AsyncClient(BaseClient):
    """As `Client`, for asyncio: every call is awaited.

    Takes the options of `BaseClient`. A client belongs to the event loop of its
    first call.
    """

    _open_transport: Any = None

    async def classify(
        self, products: Products, *, timeout_s: float | None = None
    ) -> list[Answer]:
        """As `Client.classify`."""
        question = self._products("serving_default", products, *CLASSIFY_OUTPUTS)
        return read_answers(await self._outputs(question, timeout_s))

    async def probabilities(
        self, products: Products, *, timeout_s: float | None = None
    ) -> list[list[float]]:
        """As `Client.probabilities`."""
        question = self._products("probabilities", products, "probabilities")
        return (await self._outputs(question, timeout_s))["probabilities"]

    async def explain(
        self, products: Products, *, timeout_s: float | None = None
    ) -> list[Explanation]:
        """As `Client.explain`."""
        question = self._products("explain", products, "contributions")
        return read_explanations(await self._outputs(question, timeout_s))

    async def embed(
        self, products: Products, *, timeout_s: float | None = None
    ) -> list[list[float]]:
        """As `Client.embed`."""
        question = self._products("embed", products, "embedding")
        return (await self._outputs(question, timeout_s))["embedding"]

    async def predict(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """As `Client.predict`."""
        return await self._outputs(Question(signature, lambda _: inputs), timeout_s)

    async def signatures(
        self, *, timeout_s: float | None = None
    ) -> dict[str, Signature]:
        """As `Client.signatures`."""
        return dict((await self._ask_metadata(self._deadline(timeout_s))).signatures)

    async def signature(
        self, name: str, *, timeout_s: float | None = None
    ) -> Signature:
        """As `Client.signature`."""
        return await self._checked(
            lambda metadata: find_signature(metadata, name, self._model.name),
            self._deadline(timeout_s),
        )

    async def status(self, *, timeout_s: float | None = None) -> list[VersionStatus]:
        """As `Client.status`."""
        deadline = self._deadline(timeout_s)
        call = partial(self._try, self._transport.status, deadline)
        return (await self._run([call], deadline))[0]

    async def close(self) -> None:
        """Closes the connections."""
        if self._open_transport is not None:
            await self._open_transport.close()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    @property
    def _transport(self) -> Any:
        """Opened by the first call, for it belongs to the loop that runs then."""
        if self._open_transport is None and self._server.is_grpc:
            from tfmm_client.grpc_transport import AsyncGrpcTransport

            self._open_transport = AsyncGrpcTransport(self._server, self._model)
        elif self._open_transport is None:
            from tfmm_client.rest_transport import AsyncRestTransport

            self._open_transport = AsyncRestTransport(self._server, self._model)
        return self._open_transport

    async def _outputs(
        self, question: Question, timeout_s: float | None
    ) -> dict[str, Any]:
        deadline = self._deadline(timeout_s)
        value_bytes = self._transport.value_bytes
        parts = await self._checked(
            lambda metadata: self._cut(metadata, question, value_bytes), deadline
        )
        calls = [partial(self._ask, part, deadline) for part in parts]
        return self._join(parts, await self._run(calls, deadline))

    async def _checked(
        self, check: Callable[[Metadata], Value], deadline: Deadline
    ) -> Value:
        """Checks a question; one that does not fit, against the newest version."""
        known = self._metadata
        if known is not None:
            try:
                return check(known)
            except InputError:
                pass  # the server may have another version by now
        return check(await self._ask_metadata(deadline))

    async def _ask_metadata(self, deadline: Deadline) -> Metadata:
        call = partial(self._try, self._transport.metadata, deadline)
        (self._metadata,) = await self._run([call], deadline)
        return self._metadata

    async def _ask(self, part: Batch, deadline: Deadline) -> Reply:
        start_s = time.monotonic()
        reply = await self._try(partial(self._transport.predict, part), deadline)
        return self._answered(part, reply, start_s)

    async def _try(
        self, call: Callable[[float], Awaitable[Value]], deadline: Deadline
    ) -> Value:
        """Makes a call until it is answered or is not to be tried again."""
        num_tries = 0
        while True:
            try:
                return await call(deadline.required_s())
            except ServerError as error:
                num_tries += 1
                wait_s = self._retries.wait_s(error, num_tries, deadline)
                if wait_s is None:
                    self._refused(error)
                    raise
            await asyncio.sleep(wait_s)

    async def _run(
        self, calls: Sequence[Callable[[], Awaitable[Value]]], deadline: Deadline
    ) -> list[Value]:
        """Makes calls side by side, and waits for them no longer than the deadline."""
        gate = asyncio.Semaphore(self._max_in_flight)

        async def through_gate(call: Callable[[], Awaitable[Value]]) -> Value:
            async with gate:
                return await call()

        try:
            async with asyncio.timeout(deadline.left_s()), asyncio.TaskGroup() as group:
                tasks = [group.create_task(through_gate(call)) for call in calls]
        except TimeoutError:
            raise deadline.passed() from None
        except BaseExceptionGroup as errors:
            # The others were cancelled; the first one says why.
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]
