"""Has a running server take up a changed models.config at once.

Run: python serving/deploy/reload.py --server 127.0.0.1:8500 \
         serving/deploy/config/models.config

The file replaces the server's whole set of models. A server that polls the file
(--model_config_file_poll_wait_seconds) does the same by itself; this says what
came of it. TensorFlow Serving sets the labels before it loads versions, so a
label moves to a new version in a second step, once the version is AVAILABLE.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Sends one HandleReloadConfigRequest.

    Args:
        argv: Sequence of str. Options; those of the process if None.

    Returns:
        int. 0, or 1 if the server refused or did not answer, or 2 for bad input;
        then one line on standard error says why.
    """
    parser = argparse.ArgumentParser(
        "reload.py", description="Sends a models.config to a running server."
    )
    parser.add_argument("file", type=Path, help="a ModelServerConfig in text form")
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="gRPC")
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="S",
        help="a model that is new to the server is waited for (default: 300)",
    )
    parser.add_argument(
        "--authority", type=Path, metavar="PEM", help="TLS: who signed the server"
    )
    parser.add_argument("--key", type=Path, metavar="PEM", help="TLS: the client's key")
    parser.add_argument(
        "--certificate", type=Path, metavar="PEM", help="TLS: the client's certificate"
    )
    options = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import grpc
    from google.protobuf import text_format
    from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

    request = model_management_pb2.ReloadConfigRequest()
    try:
        text_format.Parse(options.file.read_text(encoding="utf-8"), request.config)
        channel = _channel(options)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        return _fail(2, f"{getattr(error, 'filename', None) or options.file}: {error}")
    models = request.config.model_config_list.config
    if not models:
        # The server would unload every model that it has.
        return _fail(2, f"{options.file}: expected a model_config_list with models.")
    with channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        try:
            reply = stub.HandleReloadConfigRequest(request, timeout=options.timeout)
        except grpc.RpcError as error:
            return _fail(1, f"{error.code().name}: {error.details()}")
    if reply.status.error_code:
        code = grpc_code(reply.status.error_code)
        return _fail(1, f"{code}: {reply.status.error_message}")
    names = ", ".join(model.name for model in models)
    print(f"{options.server}: serves {names} as {options.file} says")
    return 0


def grpc_code(number: int) -> str:
    """The name of a canonical code, for example "FAILED_PRECONDITION" for 9."""
    import grpc

    names = {code.value[0]: code.name for code in grpc.StatusCode}
    return names.get(number, f"code {number}")


def _channel(options: argparse.Namespace):
    import grpc

    if options.authority is None:
        return grpc.insecure_channel(options.server)
    pem = [
        path.read_bytes() if path is not None else None
        for path in (options.authority, options.key, options.certificate)
    ]
    return grpc.secure_channel(options.server, grpc.ssl_channel_credentials(*pem))


def _fail(exit_code: int, problem: str) -> int:
    print(f"reload.py: {' '.join(problem.split())}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
