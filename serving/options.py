"""The flags of the development server: those of tensorflow_model_server."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from serving.config import (
    ConfigError,
    ModelConfig,
    check_base_path,
    check_labels_at_start,
    read_model_config_file,
)
from serving.flags import FlagParser

FIRST_LINE = (
    "Development server for laptops and tests; "
    "in production run TensorFlow Serving (see serving/README.md)."
)

_Add = Callable[..., argparse.Action]


def build_parser() -> FlagParser:
    """The flags: those of tensorflow_model_server, and `--host`."""
    parser = FlagParser("python -m serving.server", FIRST_LINE)
    _add_models(parser.add_argument)
    _add_ports(parser.add_argument)
    _add_runs(parser.add_argument)
    return parser


def model_configs(options: argparse.Namespace) -> list[ModelConfig]:
    """The models that the flags name.

    Args:
        options: What `build_parser().parse` returned.

    Returns:
        List of `ModelConfig`, at least one.

    Raises:
        ConfigError: If the flags name none, or a directory that is none.
    """
    file = options.model_config_file
    if file is not None:
        configs = read_model_config_file(file)
        if not options.allow_version_labels_for_unavailable_models:
            for config in configs:
                check_labels_at_start(str(file), config)
        return configs
    if options.model_base_path is None:
        raise ConfigError("one of --model_base_path and --model_config_file is needed")
    config = ModelConfig(options.model_name, options.model_base_path)
    check_base_path("--model_base_path", config)
    return [config]


def parallelism(options: argparse.Namespace) -> tuple[int, int]:
    """The threads within an op and between ops that the flags ask for.

    Args:
        options: What `build_parser().parse` returned.

    Returns:
        Tuple of int; 0 leaves it to TensorFlow.

    Raises:
        ConfigError: If all three flags are set, as in the real server.
    """
    within = options.tensorflow_intra_op_parallelism
    between = options.tensorflow_inter_op_parallelism
    both = options.tensorflow_session_parallelism
    if within and between and both:
        raise ConfigError(
            "either --tensorflow_session_parallelism or "
            "--tensorflow_intra_op_parallelism and --tensorflow_inter_op_parallelism, "
            "not all three"
        )
    return (within, between) if within or between else (both, both)


def check_batching(options: argparse.Namespace) -> None:
    """Refuses flags of batching without batching.

    Raises:
        ConfigError: If `--enable_batching` is missing.
    """
    for flag in ("batching_parameters_file", "enable_per_model_batching_parameters"):
        if getattr(options, flag) and not options.enable_batching:
            raise ConfigError(f"--{flag} is set without --enable_batching")


def _add_models(add: _Add) -> None:
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
        "--model_config_file_poll_wait_seconds",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="seconds between reads of --model_config_file; "
        "0 reads it once (default: %(default)s)",
    )
    add(
        "--file_system_poll_wait_seconds",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="seconds between looks for new versions; "
        "0 looks once (default: %(default)s)",
    )
    _add_boolean(
        add,
        "--allow_version_labels_for_unavailable_models",
        "accept version_labels of versions that are not loaded yet",
    )
    add(
        "--enable_model_warmup",
        type=_boolean,
        default=True,
        metavar="BOOL",
        help="run assets.extra/tf_serving_warmup_requests (default: true)",
    )


def _add_ports(add: _Add) -> None:
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
        metavar="MILLISECONDS",
        help="longest run of a REST request (default: %(default)s)",
    )
    _add_boolean(
        add,
        "--rest_api_enable_cors_support",
        "let web pages of other origins call REST",
    )
    add(
        "--grpc_max_threads",
        type=_positive,
        default=4 * (os.cpu_count() or 1),
        metavar="THREADS",
        help="gRPC requests run at a time (default: %(default)s)",
    )
    _add_boolean(
        add,
        "--enable_grpc_healthcheck_service",
        "answer grpc.health.v1.Health",
    )
    add(
        "--monitoring_config_file",
        type=Path,
        metavar="FILE",
        help="MonitoringConfig in text form; puts Prometheus metrics on the REST port",
    )


def _add_runs(add: _Add) -> None:
    _add_boolean(add, "--enable_batching", "join requests to batches")
    add(
        "--batching_parameters_file",
        type=Path,
        metavar="FILE",
        help="BatchingParameters in text form, for --enable_batching",
    )
    _add_boolean(
        add,
        "--enable_per_model_batching_parameters",
        "join the requests of versions that hold a batching_params.pbtxt, by its "
        "values; of --batching_parameters_file only the threads count then",
    )
    for flag, what in (
        ("session", "both of the following"),
        ("intra_op", "threads that one op may use"),
        ("inter_op", "ops that run at a time"),
    ):
        add(
            f"--tensorflow_{flag}_parallelism",
            type=_count,
            default=0,
            metavar="THREADS",
            help=f"{what}; 0 leaves it to TensorFlow (default: %(default)s)",
        )


def _add_boolean(add: _Add, flag: str, what: str) -> None:
    add(
        flag,
        type=_boolean,
        nargs="?",
        const=True,
        default=False,
        metavar="BOOL",
        help=f"{what} (default: false)",
    )


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


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected 0 or more. Received: {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"expected seconds, 0 or more. Received: {text!r}"
        )
    return value
