"""Where the server is: its URL, and the certificates for TLS."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tfmm_client.errors import InputError, nearest

SCHEMES = {"grpc": False, "grpcs": True, "http": False, "https": True}


@dataclass(frozen=True)
class Tls:
    """PEM files for `grpcs://` and `https://`.

    Args:
        authorities: Path or None. Certificates to trust; None trusts those that
            come with gRPC or with httpx.
        certificate: Path or None. The client's own, where the server asks for one.
        key: Path or None. Its private key.

    Raises:
        InputError: If only one of `certificate` and `key` is given, or a file
            cannot be read.
    """

    authorities: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise InputError("tls: certificate and key go together. Received: one.")
        for name in ("authorities", "certificate", "key"):
            self.read(name)

    def read(self, name: str) -> bytes | None:
        """The bytes of one of the files, None if it is not given."""
        path = getattr(self, name)
        try:
            return None if path is None else Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"tls: {name}: {path}: {error.strerror}") from error


@dataclass(frozen=True)
class Server:
    """A checked address.

    Attributes:
        is_grpc: bool. gRPC or REST.
        is_encrypted: bool. With TLS or without.
        address: str. `HOST:PORT`; REST may leave the port out.
        path: str. What stands before `/v1/models` in a REST URL, "" mostly.
        tls: `Tls`.
        headers: dict from str to str. Sent with every call (gRPC: metadata), for
            a proxy that asks who is there.
    """

    is_grpc: bool
    is_encrypted: bool
    address: str
    path: str
    tls: Tls
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, url: str, tls: Tls | None = None, headers: Mapping[str, str] | None = None
    ) -> "Server":
        """Reads a URL.

        Args:
            url: str. `grpc://HOST:PORT`, `grpcs://HOST:PORT`, or
                `http[s]://HOST[:PORT][/PATH]`.
            tls: `Tls` or None.
            headers: dict or None.

        Returns:
            `Server`.

        Raises:
            InputError: If it is not such a URL, or `tls` is given without TLS.

        Example:
        >>> Server.parse("grpc://127.0.0.1:8500").address
        '127.0.0.1:8500'
        >>> Server.parse("127.0.0.1:8500")
        Traceback (most recent call last):
        tfmm_client.errors.InputError: the server's URL must start with grpc://, \
grpcs://, http:// or https://. Received: '127.0.0.1:8500'
        """
        scheme = url.partition("://")[0]
        if "://" not in url or scheme not in SCHEMES:
            hint = nearest(scheme, SCHEMES) if "://" in url else "."
            raise InputError(
                "the server's URL must start with grpc://, grpcs://, http:// or "
                f"https://{hint} Received: {url!r}"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise InputError(f"not a URL: {error}. Received: {url!r}") from error
        is_grpc, is_encrypted = scheme.startswith("grpc"), SCHEMES[scheme]
        path = parts.path.rstrip("/")
        if not host or parts.query or parts.fragment or "@" in parts.netloc:
            raise InputError(f"expected {scheme}://HOST:PORT. Received: {url!r}")
        if is_grpc and (port is None or path):
            raise InputError(
                f"expected {scheme}://HOST:PORT and no path. Received: {url!r}"
            )
        if tls is not None and not is_encrypted:
            raise InputError(f"tls needs {scheme}s://. Received: {url!r}")
        # gRPC takes lower-case names only, and HTTP does not care.
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        return cls(is_grpc, is_encrypted, parts.netloc, path, tls or Tls(), lower)
