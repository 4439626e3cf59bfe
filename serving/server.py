"""A development server for laptops and tests, speaking TensorFlow Serving's protocol.

Run: python -m serving.server --model_name=NAME --model_base_path=MODELS/NAME \
         --port=8500 --rest_api_port=8501

It serves any SavedModel over gRPC and REST with the flags, the status codes and
the error texts of tensorflow_model_server. In production run that one;
`serving/README.md` has the command and lists where this one differs.
"""

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from serving.config import (
    ConfigError,
    ModelConfig,
    check_base_path,
    read_model_config_file,
)
from serving.flags import FlagError, FlagParser

FIRST_LINE = (
    "Development server for laptops and tests; "
    "in production run TensorFlow Serving (see serving/README.md)."
)
# How long an answer under way may take once the server has been told to stop.
_GRACE_S = 2.0


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false. Received: {text!r}")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535. Received: {text!r}")
    return int(text)


def _rest_port(text: str) -> int:
    return -1 if text == "-1" else _port(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more. Received: {text!r}")
    return int(text)


def build_parser() -> FlagParser:
    """The flags: those of tensorflow_model_server, and `--host`."""
    parser = FlagParser("python -m serving.server", FIRST_LINE)
    add = parser.add_argument
    add("--model_name", default="default", help="name that clients ask for")
    add(
        "--model_base_path",
        type=Path,
        metavar="DIR",
        help="directory that holds the version directories 1, 2, ...",
    )
    add(
        "--model_config_file",
        type=Path,
        metavar="FILE",
        help="ModelServerConfig in text form, for several models; "
        "--model_name and --model_base_path are then not read",
    )
    add(
        "--port",
        type=_port,
        default=8500,
        help="gRPC port; 0 takes a free one (default: %(default)s)",
    )
    add(
        "--rest_api_port",
        type=_rest_port,
        default=0,
        help="REST port; 0 is off, -1 takes a free one (default: %(default)s)",
    )
    add(
        "--host",
        default="127.0.0.1",
        help="interface of both ports (default: %(default)s; "
        "tensorflow_model_server listens on all)",
    )
    add(
        "--rest_api_timeout_in_ms",
        type=_positive,
        default=30000,
        help="longest run of a REST request (default: %(default)s)",
    )
    add(
        "--grpc_max_threads",
        type=_positive,
        default=4 * (os.cpu_count() or 1),
        help="gRPC requests run at a time (default: %(default)s)",
    )
    add(
        "--file_system_poll_wait_seconds",
        type=float,
        default=1.0,
        help="seconds between looks for new versions; "
        "0 looks once (default: %(default)s)",
    )
    add(
        "--enable_model_warmup",
        type=_boolean,
        default=True,
        metavar="BOOL",
        help="run assets.extra/tf_serving_warmup_requests (default: true)",
    )
    add(
        "--allow_version_labels_for_unavailable_models",
        type=_boolean,
        nargs="?",
        const=True,
        default=False,
        metavar="BOOL",
        help="accept version_labels in --model_config_file (default: false)",
    )
    return parser


def _model_configs(options: argparse.Namespace) -> list[ModelConfig]:
    if options.model_config_file is not None:
        return read_model_config_file(
            options.model_config_file,
            allow_labels=options.allow_version_labels_for_unavailable_models,
        )
    if options.model_base_path is None:
        raise ConfigError("one of --model_base_path and --model_config_file is needed")
    config = ModelConfig(options.model_name, options.model_base_path)
    check_base_path("--model_base_path", config)
    return [config]


def _check_port_is_free(flag: str, host: str, port: int) -> None:
    """Finds out before a load of minutes; the ports open only after it."""
    if port <= 0:
        return
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigError(
            f"--{flag}={port}: cannot listen on {host}:{port}: {error.strerror}"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the server until SIGTERM or SIGINT.

    Args:
        argv: Sequence of str. Flags; those of the process if None.

    Returns:
        int. 0 after a signal, 1 if a model's first load failed, 2 for a bad flag
        or configuration.
    """
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        options = build_parser().parse(sys.argv[1:] if argv is None else argv)
        print(FIRST_LINE, flush=True)
        _check_port_is_free("port", options.host, options.port)
        _check_port_is_free("rest_api_port", options.host, options.rest_api_port)
        # TensorFlow's start-up notes would bury what this server has to say.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        return _serve(options, _model_configs(options), stopped)
    except (ConfigError, FlagError) as error:
        print(f"serving.server: {error}", file=sys.stderr)
        return 2


def _serve(
    options: argparse.Namespace, configs: list[ModelConfig], stopped: threading.Event
) -> int:
    import tensorflow as tf

    from serving import grpc_service, rest
    from serving.models import ModelStore

    tf.get_logger().setLevel("ERROR")
    store = ModelStore(configs, warm_up=options.enable_model_warmup)
    interval_s = options.file_system_poll_wait_seconds
    store.poll()
    # As the real server, wait for a first version for as long as it takes.
    while store.waiting() and not stopped.wait(max(interval_s, 0.05)):
        store.poll()
    if stopped.is_set():
        store.stop()
        return 0
    if failures := store.failures():
        for version in failures:
            problem = " ".join(str(version.error).split())
            print(
                f"serving.server: {version.model_name} version {version.number} "
                f"({version.path}): {problem}",
                file=sys.stderr,
            )
        return 1
    try:
        grpc_server, port = grpc_service.start(
            store, options.host, options.port, options.grpc_max_threads
        )
    except OSError as error:
        raise ConfigError(f"--port={options.port}: {error}") from error
    rest_server, rest_text = None, "off"
    if options.rest_api_port != 0:
        try:
            rest_server, rest_port = rest.start(
                store,
                options.host,
                max(options.rest_api_port, 0),
                options.rest_api_timeout_in_ms,
            )
        except OSError as error:
            grpc_server.stop(0).wait()
            raise ConfigError(
                f"--rest_api_port={options.rest_api_port}: {error}"
            ) from error
        rest_text = f"{options.host}:{rest_port}"
    store.start(interval_s)
    models = ", ".join(
        f"{name} (version {', '.join(map(str, numbers))})"
        for name, numbers in store.available().items()
    )
    print(
        f"ready: gRPC {options.host}:{port}, REST {rest_text}, models: {models}",
        flush=True,
    )
    stopped.wait()
    stopping = grpc_server.stop(_GRACE_S)
    if rest_server is not None:
        rest_server.shutdown()
        rest_server.server_close()
        rest_server.drain(_GRACE_S)
    stopping.wait(_GRACE_S)
    # Cancels what still runs, which the threads of the requests wait for.
    store.stop()
    if rest_server is not None:
        rest_server.drain(_GRACE_S)
    return 0


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed. The interpreter's own way out would take TensorFlow
    # apart, which takes seconds, and wait for a load under way.
    os._exit(exit_code)
