"""The status codes that TensorFlow Serving answers with, and nothing else."""

# Canonical codes by number, as in google.rpc.Code; gRPC and TensorFlow share them.
CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)

# TensorFlow Serving's own table (model_servers/http_server.cc).
HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


class StatusError(Exception):
    """A request or a load that ends in a status other than OK.

    Args:
        code: str. One of `CODES`, not "OK".
        message: str. The text that the client reads.

    Raises:
        ValueError: If `code` is not an error code.

    Example:
    >>> str(StatusError("NOT_FOUND", "Servable not found for request: Latest(a)"))
    'NOT_FOUND: Servable not found for request: Latest(a)'
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in CODES[1:]:
            raise ValueError(f"code must be an error code. Received: code={code!r}")
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """The HTTP status that REST answers with, for example 404."""
        return HTTP_STATUS[self.code]

    @property
    def number(self) -> int:
        """The canonical code's number, for example 5 for NOT_FOUND."""
        return CODES.index(self.code)
