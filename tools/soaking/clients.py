"""The clients that keep a server busy, each a thread with connections of its own."""

import random
import threading
import traceback
from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from export.hostile import hostile_images
from serving.load.transports import GrpcTransport
from soaking.products import Pool
from soaking.questions import Question, difference, draw
from soaking.tally import (
    EXPECTED,
    GIVEN_UP,
    LOST,
    RIGHT,
    UNEXPECTED,
    WRONG,
    Tally,
)
from soaking.ways import Refusal, Server, open_ways
from soaking.wrong import WrongRequests

# Of twenty requests.
KINDS = {"good": 11, "hostile": 3, "bad": 5, GIVEN_UP: 1}
# A client that gives up does so after a time drawn up to this.
LONGEST_PATIENCE_S = 0.1


class SoakClient:
    """One client: it draws what to send next, sends it, and thinks for a while.

    Args:
        number: Which client; with `seed` it decides what is drawn.
        server: Where to ask.
        pool: Products and answers.
        tally: Where outcomes are counted.
        bundle_of: Version -> place of the bundle whose answers it must give, None
            for a version that should not be there.
        options: `soaking.load.Options`; between two requests it thinks for a time
            drawn from the exponential distribution of mean `think_s`.
    """

    def __init__(
        self,
        number: int,
        server: Server,
        pool: Pool,
        tally: Tally,
        bundle_of: Callable[[int], int | None],
        options: Any,
    ) -> None:
        self.bug = ""
        self._random = random.Random(f"{options.seed} {number}")
        self._server = server
        self._pool = pool
        self._tally = tally
        self._bundle_of = bundle_of
        self._think_s = options.think_s
        self._hostile = [
            (name, kind, content)
            for name, good in pool.pictures()[:3]
            for kind, content in hostile_images(good).items()
        ]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"client {number}")
        self._thread.daemon = True

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Sends nothing more."""
        self._stopped.set()

    def join(self) -> None:
        """Waits for the last answer."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._send_until_stopped()
        except Exception:
            # A bug of the soak's own must not look like a quiet server.
            self.bug = traceback.format_exc()

    def _send_until_stopped(self) -> None:
        ways = open_ways(self._server)
        wrong = WrongRequests(self._server, self._pool.products[0])
        impatient = _Impatient(self._server)
        kinds = dict(KINDS)
        if not self._hostile:
            del kinds["hostile"]
        try:
            while not self._stopped.is_set():
                (kind,) = self._random.choices(list(kinds), list(kinds.values()))
                if kind == "bad":
                    case = self._random.choice(wrong.all)
                    code = case.send()
                    right = code in case.expected
                    problem = (
                        "" if right else f"{code}, not {' or '.join(case.expected)}"
                    )
                    outcome = EXPECTED if right else UNEXPECTED
                    self._tally.add(kind, case.name, outcome, problem)
                elif kind == GIVEN_UP:
                    self._give_up(impatient)
                else:
                    way = self._random.choice(ways)
                    hostile = self._hostile if kind == "hostile" else ()
                    self._ask(kind, way, draw(self._random, self._pool, hostile))
                self._stopped.wait(self._random.expovariate(1.0) * self._think_s)
        finally:
            for holder in (*ways, wrong, impatient):
                holder.close()

    def _ask(self, kind: str, way: Any, question: Question) -> None:
        columns = question.inputs(self._pool)
        asked = f"{question.signature} of {len(question.places)}"
        try:
            reply = way.ask(question.signature, columns)
        except Refusal as error:
            self._tally.add(kind, way.name, LOST, f"{asked}: {error}")
            return
        problem = self._judge(question, reply.outputs, reply.version)
        outcome = WRONG if problem else RIGHT
        self._tally.add(kind, way.name, outcome, problem and f"{asked}: {problem}")

    def _judge(
        self, question: Question, outputs: dict[str, Any], version: int | None
    ) -> str:
        """What is wrong with an answer; empty if nothing is."""
        answers = self._pool.answers
        if version is not None:
            place = self._bundle_of(version)
            if place is None:
                return f"by version {version}, which was not to be served"
            answers = [answers[place]]
        problems = [difference(question, outputs, said) for said in answers]
        # Where the protocol does not tell the version, each may have answered.
        return "" if None in problems else str(problems[0])

    def _give_up(self, impatient: "_Impatient") -> None:
        question = draw(self._random, self._pool)
        cancels = self._random.random() < 0.5
        patience_s = self._random.uniform(0.001, LONGEST_PATIENCE_S)
        code, outputs, version = impatient.ask(
            question.signature, question.inputs(self._pool), patience_s, cancels
        )
        way = "cancelled" if cancels else "deadline"
        if code == "OK":
            problem = self._judge(question, outputs, version)
            self._tally.add(GIVEN_UP, way, WRONG if problem else RIGHT, problem)
        elif code in ("CANCELLED", "DEADLINE_EXCEEDED"):
            self._tally.add(GIVEN_UP, way, EXPECTED)
        else:
            self._tally.add(GIVEN_UP, way, UNEXPECTED, code)


class _Impatient:
    """gRPC calls that are cancelled, or have a deadline, before they are answered."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._channel = grpc.insecure_channel(server.grpc)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def ask(
        self, signature: str, columns: dict, patience_s: float, cancels: bool
    ) -> tuple[str, dict[str, Any], int | None]:
        """The code, and the outputs and the version if the answer came in time."""
        transport = GrpcTransport(self._server.target(self._server.grpc, signature))
        request = transport.prepare(columns)
        timeout_s = self._server.timeout_s if cancels else patience_s
        call = self._stub.Predict.future(request, timeout=timeout_s)
        try:
            if cancels:
                threading.Event().wait(patience_s)
                call.cancel()
            reply = call.result()
        except grpc.FutureCancelledError:
            return "CANCELLED", {}, None
        except grpc.RpcError as error:
            return error.code().name, {}, None
        finally:
            transport.close()
        return "OK", transport.arrays(reply), reply.model_spec.version.value

    def close(self) -> None:
        self._channel.close()
