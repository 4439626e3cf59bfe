"""Closed and open loops of requests, run by locust's users.

In a closed loop every user sends a request, waits for its answer, and sends the
next: a slow server is asked less. In an open loop requests arrive at a rate of
their own, whatever the server does, and a request's time counts from the moment
when it was due: a server that falls behind is seen to.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from serving.load.transports import RequestError


@dataclass(frozen=True)
class Sample:
    """One request.

    Attributes:
        due_s: float. When it was due, on the clock of `time.perf_counter`.
        started_s: float. When it was sent; later than due where the process
            that sends could not keep up.
        ended_s: float. When its answer was there.
        code: str. "OK", or as `RequestError.code`.
    """

    due_s: float
    started_s: float
    ended_s: float
    code: str

    @property
    def latency_s(self) -> float:
        """From due to answered."""
        return self.ended_s - self.due_s


def closed_loop(
    send: Callable[[Any], Any],
    requests: Sequence[Any],
    *,
    users: int,
    warm_up_s: float,
    duration_s: float,
) -> list[Sample]:
    """Sends requests in turn from a number of users.

    Args:
        send: Sends one request and returns its reply, or raises `RequestError`.
        requests: Sequence of prepared requests; each user starts at another.
        users: int. Requests under way at a time.
        warm_up_s: float. Time before the first request that counts.
        duration_s: float. Time in which requests count.

    Returns:
        List of `Sample`, the requests that were sent in that time.
    """
    from locust import User, constant, task
    from locust.exception import StopUser

    begin = time.perf_counter() + warm_up_s
    end = begin + duration_s
    numbers = iter(range(users))

    class Client(User):
        wait_time = constant(0)

        def on_start(self) -> None:
            self.next = next(numbers) * len(requests) // users

        @task
        def request(self) -> None:
            now = time.perf_counter()
            if now >= end:
                raise StopUser()
            request = requests[self.next % len(requests)]
            self.next += 1
            _timed(self.environment, send, request, due_s=now)

    return [sample for sample in _run(Client, users) if sample.due_s >= begin]


def open_loop(
    send: Callable[[Any], Any],
    requests: Sequence[Any],
    *,
    rate: float,
    warm_up_s: float,
    duration_s: float,
    seed: int = 0,
) -> list[Sample]:
    """Sends requests in turn at random moments, as independent clients would.

    The times between two of them are drawn from the exponential distribution of
    mean `1 / rate` (Poisson arrivals).

    Args:
        send: As in `closed_loop`.
        requests: Sequence of prepared requests.
        rate: float. Requests a second, on average.
        warm_up_s: float. Time before the first request that counts.
        duration_s: float. Time in which requests count.
        seed: int. The same seed draws the same moments.

    Returns:
        List of `Sample`, the requests that were due in that time; all of them
        have ended.
    """
    import gevent
    from locust import User, constant, task
    from locust.exception import StopUser

    begin = time.perf_counter() + warm_up_s
    end = begin + duration_s
    generator = random.Random(seed)

    class Arrivals(User):
        wait_time = constant(0)

        @task
        def arrive(self) -> None:
            due, number, under_way = time.perf_counter(), 0, []
            while (due := due + generator.expovariate(rate)) < end:
                gevent.sleep(max(0.0, due - time.perf_counter()))
                request = requests[number % len(requests)]
                under_way = [greenlet for greenlet in under_way if not greenlet.dead]
                under_way.append(
                    gevent.spawn(_timed, self.environment, send, request, due_s=due)
                )
                number += 1
            gevent.joinall(under_way, raise_error=True)
            raise StopUser()

    return [sample for sample in _run(Arrivals, 1) if sample.due_s >= begin]


def _timed(
    environment: Any, send: Callable[[Any], Any], request: Any, *, due_s: float
) -> None:
    started, code, problem = time.perf_counter(), "OK", None
    try:
        send(request)
    except RequestError as error:
        code, problem = error.code, error
    ended = time.perf_counter()
    environment.events.request.fire(
        request_type="predict",
        name="predict",
        response_time=(ended - due_s) * 1000,
        response_length=0,
        exception=problem,
        context={"sample": Sample(due_s, started, ended, code)},
    )


def _run(user_class: type, users: int) -> list[Sample]:
    from gevent import sleep
    from locust.env import Environment

    samples: list[Sample] = []
    # Bugs must end the test, not only the user that met one.
    environment = Environment(user_classes=[user_class], catch_exceptions=False)

    # locust's own statistics round times to two digits.
    def keep(context: dict[str, Any], **_: Any) -> None:
        samples.append(context["sample"])

    environment.events.request.add_listener(keep)
    runner = environment.create_local_runner()
    runner.start(users, spawn_rate=users)
    runner.spawning_greenlet.join()
    while runner.user_count:
        sleep(0.02)
    runner.quit()
    return samples
