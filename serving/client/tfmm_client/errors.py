"""What can go wrong, and whose fault it is.

InputError (ValueError)    what was asked does not fit; nothing was sent
ServerError (Exception)    the server refused, failed, or did not answer in time
"""

import difflib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """What was asked does not fit the client or the model; nothing was sent."""


class ServerError(Exception):
    """The server refused, failed, or did not answer in time.

    Attributes:
        code: str. The gRPC code's name, "NOT_FOUND" for example. A REST server
            tells only the HTTP status, which some codes share: then the most
            usual of them (400 is "INVALID_ARGUMENT").
        message: str. The server's text, on one line.
        http_status: int or None. The HTTP status, if the answer came over REST.
    """

    def __init__(self, code: str, message: str, http_status: int | None = None) -> None:
        self.code = code
        self.message = " ".join(message.split())
        self.http_status = http_status
        origin = code if http_status is None else f"HTTP {http_status}"
        super().__init__(f"{origin}: {self.message}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled by `args`, which hold the text alone.
        return type(self), (self.code, self.message, self.http_status)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, if any.

    Example:
    >>> "no input 'titel'" + nearest("titel", ["title", "image"])
    "no input 'titel'; did you mean 'title'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."
