"""When to ask again, and the time that all of it may take."""

import random
import time
from dataclasses import dataclass

from tfmm_client.errors import InputError, ServerError


@dataclass(frozen=True)
class Retries:
    """Asks again while the server is unavailable, later and later.

    Only UNAVAILABLE is tried again (over REST: 503, and a connection that was
    refused or broke before an answer). Every other code would come back the same
    or, as RESOURCE_EXHAUSTED, become worse by asking.

    After try n the wait is `first_wait_s * factor ** (n - 1)`, at most
    `longest_wait_s`, times a random number from [0.5, 1), so that clients that
    lost the same server do not come back in step. A wait that would pass the
    deadline is not begun.

    Args:
        max_tries: int. Tries of one request, the first included; 1 never retries.
        first_wait_s: float. Longest wait after the first try.
        factor: float. What each wait is multiplied with, at least 1.
        longest_wait_s: float. No wait is longer.

    Raises:
        InputError: If a value is out of its range.

    Example:
    >>> Retries(first_wait_s=0.1).longest_wait_after(3)
    0.4
    """

    max_tries: int = 5
    first_wait_s: float = 0.1
    factor: float = 2.0
    longest_wait_s: float = 5.0

    def __post_init__(self) -> None:
        if self.max_tries < 1:
            raise InputError(f"max_tries must be 1 or more. Received: {self.max_tries}")
        if min(self.first_wait_s, self.longest_wait_s) < 0 or self.factor < 1:
            raise InputError(f"waits must be >= 0 and factor >= 1. Received: {self}")

    def longest_wait_after(self, num_tries: int) -> float:
        """The wait in seconds after so many tries, before the random factor."""
        wait_s = self.first_wait_s * self.factor ** (num_tries - 1)
        return min(wait_s, self.longest_wait_s)

    def wait_s(
        self, error: ServerError, num_tries: int, deadline: "Deadline"
    ) -> float | None:
        """The wait before the next try, or None if there is to be none.

        Args:
            error: `ServerError` of the last try.
            num_tries: int. Tries made so far, at least 1.
            deadline: `Deadline` of the whole call.

        Returns:
            Seconds, or None.
        """
        if error.code != "UNAVAILABLE" or num_tries >= self.max_tries:
            return None
        wait_s = self.longest_wait_after(num_tries) * random.uniform(0.5, 1.0)
        return wait_s if wait_s < deadline.left_s() else None


class Deadline:
    """The moment by which a call must be over, parts and retries included.

    Args:
        timeout_s: float. Seconds from now, above 0.

    Raises:
        InputError: If `timeout_s` is not above 0.
    """

    def __init__(self, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise InputError(f"timeout_s must be above 0. Received: {timeout_s}")
        self._timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds that are left; negative once it has passed."""
        return self._end - time.monotonic()

    def required_s(self) -> float:
        """Seconds that are left.

        Raises:
            ServerError: DEADLINE_EXCEEDED if none are.
        """
        left_s = self.left_s()
        if left_s <= 0:
            raise self.passed()
        return left_s

    def passed(self) -> ServerError:
        """The error to raise when the deadline has passed."""
        return ServerError("DEADLINE_EXCEEDED", f"no answer in {self._timeout_s:g} s")
