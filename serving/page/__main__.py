"""A page on which sellers file their products, over a served model.

Run: python -m serving.page --server 127.0.0.1:8500 --model_name products \
         [--bundle models/products/1] [--port 8600]

It asks the model server over gRPC and needs no TensorFlow. Without the server it
comes up all the same, says so, and goes on when the server is there. Needs
starlette and uvicorn: pip install -e '.[page]'.
"""

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Sequence

from serving.flags import FlagError
from serving.page.form import FormError, Told, make_form, read_bundle, read_inputs
from serving.page.options import MIB, build_parser
from tfmm_client import Client, InputError, Retries, ServerError

# A server that hangs is not waited for; the page finds out by itself.
FIRST_LOOK_S = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the page until SIGTERM or SIGINT.

    Args:
        argv: Sequence of str. Flags; those of the process if None.

    Returns:
        int. 0 after a signal, or 2 for a bad flag or a model that is up and is not
        what the flags say; then one line on standard error says why.
    """
    try:
        options = build_parser().parse(sys.argv[1:] if argv is None else argv)
        told = _told(options)
        try:
            import uvicorn

            from serving.page.app import make_app
        except ImportError as error:
            raise FlagError(
                f"{error.name} is not installed: pip install -e '.[page]'"
            ) from None
        _check_model(options, told)
        app = make_app(
            f"grpc://{options.server}",
            options.model_name,
            version=options.version,
            version_label=options.label,
            told=told,
            timeout_s=options.timeout,
            max_picture_bytes=options.max_picture_mib * MIB,
        )
        listener = _listen(options.host, options.port)
    except (FlagError, FormError, InputError) as error:
        print(f"serving.page: {error}", file=sys.stderr)
        return 2
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises a signal again once it has stopped; this one then hears it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with listener:
        port = listener.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"ready: http://{host}:{port}/", flush=True)
        asyncio.run(server.serve(sockets=[listener]))
    return 0


def _told(options: argparse.Namespace) -> Told | None:
    if options.bundle is not None:
        return read_bundle(options.bundle)
    return None if options.inputs is None else read_inputs(options.inputs)


def _check_model(options: argparse.Namespace, told: Told | None) -> None:
    """Looks at the model if it is up; a page may well start before its server.

    Raises:
        FormError: If it is up, and its inputs are not what the flags say.
        InputError: If the server's address is none.
    """
    with Client(
        f"grpc://{options.server}",
        options.model_name,
        version=options.version,
        version_label=options.label,
        timeout_s=min(options.timeout, FIRST_LOOK_S),
        retries=Retries(max_tries=1),
    ) as client:
        try:
            form = make_form(client.signatures(), told, options.model_name)
        except ServerError as error:
            later = "the page says so until that changes"
            print(f"serving.page: {error}; {later}", file=sys.stderr)
            return
    if form.explains and not form.has_order:
        print(
            "serving.page: contributions are not shown: --bundle or --inputs would say "
            "whose is whose",
            file=sys.stderr,
        )


def _listen(host: str, port: int) -> socket.socket:
    """Opens the port.

    Raises:
        FlagError: If it cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise FlagError(f"--host={host} --port={port}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
