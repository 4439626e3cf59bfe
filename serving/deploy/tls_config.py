"""Writes the file that TensorFlow Serving's --ssl_config_file reads.

Run: python serving/deploy/tls_config.py --key server.key \
         --certificate server.pem [--client-authority clients.pem] --to tls.config

The server wants the text of the PEM files inside a protobuf text file, and not
their paths. With a client authority it answers only clients that show a
certificate which that authority has signed. TLS covers gRPC only: REST stays
plain and belongs behind a proxy.
"""

import argparse
import os
import ssl
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Characters that text format escapes inside a quoted string.
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": None})


class PemError(ValueError):
    """A file that holds not what it should; one line of text."""


def tls_config(key: str, certificate: str, client_authority: str = "") -> str:
    """The text of an SSLConfig.

    Args:
        key: str. PEM text of the server's private key.
        certificate: str. PEM text of its certificate, followed by those of the
            authorities between it and the root.
        client_authority: str. PEM text of the authority that signs the clients'
            certificates; empty asks clients for none.

    Returns:
        str. The file's text.

    Example:
    >>> print(tls_config("KEY\\n", "CERTIFICATE\\n"), end="")
    server_key: "KEY\\n"
    server_cert: "CERTIFICATE\\n"
    client_verify: false
    """
    fields = {"server_key": key, "server_cert": certificate}
    if client_authority:
        fields["custom_ca"] = client_authority
    lines = [f'{name}: "{text.translate(_ESCAPES)}"' for name, text in fields.items()]
    lines.append(f"client_verify: {'true' if client_authority else 'false'}")
    return "\n".join(lines) + "\n"


def _read(option: str, path: Path, kind: str) -> str:
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        raise PemError(f"{option}: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PemError(f"{option}: {path}: is not PEM text.") from error
    begins = [line for line in text.splitlines() if line.startswith("-----BEGIN ")]
    if not begins or not all(line.endswith(f"{kind}-----") for line in begins):
        found = ", ".join(begins) or "no PEM block"
        raise PemError(f"{option}: {path}: expected a {kind} in PEM. Received: {found}")
    return text


def _check_pair(key: Path, certificate: Path) -> None:
    """A server that cannot use its key would start and refuse every client."""

    def no_password() -> str:
        raise PemError(
            f"--key: {key}: the key is encrypted; the server needs it plain."
        )

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        reason = error.reason or "cannot be read"
        raise PemError(
            f"--key and --certificate do not go together: {reason}"
        ) from error


def _write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
        os.replace(name, path)
    except OSError as error:
        raise PemError(f"--to: {path}: {error.strerror}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file.

    Args:
        argv: Sequence of str. Options; those of the process if None.

    Returns:
        int. 0, or 2 for bad input; then one line on standard error says why.
    """
    parser = argparse.ArgumentParser(
        "tls_config.py", description="PEM files to TensorFlow Serving's SSLConfig."
    )
    add = parser.add_argument
    add("--key", type=Path, required=True, help="the server's private key")
    add("--certificate", type=Path, required=True, help="its certificate and chain")
    add(
        "--client-authority",
        type=Path,
        help="ask clients for a certificate that this authority has signed",
    )
    add("--to", type=Path, required=True, help="file to write, mode 600")
    options = parser.parse_args(argv)
    try:
        key = _read("--key", options.key, "PRIVATE KEY")
        certificate = _read("--certificate", options.certificate, "CERTIFICATE")
        authority = ""
        if options.client_authority is not None:
            authority = _read(
                "--client-authority", options.client_authority, "CERTIFICATE"
            )
        _check_pair(options.key, options.certificate)
        _write_private(options.to, tls_config(key, certificate, authority))
    except PemError as error:
        print(f"tls_config.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
