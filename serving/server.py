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
from contextlib import ExitStack
from dataclasses import replace

from serving import memory
from serving.config import ConfigError, ModelConfig
from serving.flags import FlagError
from serving.options import (
    FIRST_LINE,
    build_parser,
    check_batching,
    model_configs,
    parallelism,
)
from serving.parameters import (
    BatchingParameters,
    read_batching_parameters,
    read_monitoring_config,
)

# How long an answer under way may take once the server has been told to stop.
_GRACE_S = 2.0


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
    memory.share_arenas()
    try:
        options = build_parser().parse(sys.argv[1:] if argv is None else argv)
        print(FIRST_LINE, flush=True)
        _check_port_is_free("port", options.host, options.port)
        _check_port_is_free("rest_api_port", options.host, options.rest_api_port)
        # TensorFlow's start-up notes would bury what this server has to say.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        configs = model_configs(options)
        check_batching(options)
        metrics_path = None
        if options.monitoring_config_file is not None:
            metrics_path = read_monitoring_config(options.monitoring_config_file)
        with ExitStack() as stack:
            return _serve(options, configs, metrics_path, stopped, stack)
    except (ConfigError, FlagError) as error:
        print(f"serving.server: {error}", file=sys.stderr)
        return 2


def _load_options(options: argparse.Namespace, stack: ExitStack):
    from serving.batching import BatchScheduler
    from serving.load_options import LoadOptions

    within, between = parallelism(options)
    load_options = LoadOptions(
        warm_up=options.enable_model_warmup,
        intra_op_threads=within,
        inter_op_threads=between,
        batching_per_model=options.enable_per_model_batching_parameters,
    )
    if not options.enable_batching:
        return load_options
    if options.batching_parameters_file is None:
        parameters = BatchingParameters(thread_pool_name="model_server_batch_threads")
    else:
        parameters = read_batching_parameters(options.batching_parameters_file)
    scheduler = BatchScheduler(parameters, load_options.metrics)
    stack.callback(scheduler.close)
    return replace(load_options, scheduler=scheduler)


def _serve(
    options: argparse.Namespace,
    configs: list[ModelConfig],
    metrics_path: str | None,
    stopped: threading.Event,
    stack: ExitStack,
) -> int:
    """Loads, answers until `stopped`, and closes by way of `stack`."""
    load_options = _load_options(options, stack)

    import tensorflow as tf

    from serving.config_poller import ConfigPoller
    from serving.models import ModelStore

    tf.get_logger().setLevel("ERROR")
    store = ModelStore(
        configs,
        load_options,
        labels_before_load=options.allow_version_labels_for_unavailable_models,
    )
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
    grpc_server, rest_server, where = _open_ports(options, store, metrics_path)
    store.start(interval_s)
    config_interval_s = options.model_config_file_poll_wait_seconds
    if options.model_config_file is not None and config_interval_s > 0:
        poller = ConfigPoller(store, options.model_config_file, config_interval_s)
        poller.start()
        stack.callback(poller.stop)
    models = ", ".join(
        f"{name} (version {', '.join(map(str, numbers))})"
        for name, numbers in store.available().items()
    )
    print(f"ready: {where}, models: {models}", flush=True)
    stopped.wait()
    stopping = grpc_server.stop(_GRACE_S)
    if rest_server is not None:
        rest_server.shutdown()
        rest_server.server_close()
        rest_server.drain(_GRACE_S)
    stopping.wait(_GRACE_S)
    # Cancels what still waits and runs, which the threads of the requests wait for.
    stack.close()
    store.stop()
    if rest_server is not None:
        rest_server.drain(_GRACE_S)
    return 0


def _open_ports(options: argparse.Namespace, store, metrics_path: str | None):
    """The gRPC server, the REST server or None, and where they listen."""
    from serving import grpc_service, rest

    try:
        grpc_server, port = grpc_service.start(
            store,
            options.host,
            options.port,
            options.grpc_max_threads,
            health_service=options.enable_grpc_healthcheck_service,
        )
    except OSError as error:
        raise ConfigError(f"--port={options.port}: {error}") from error
    grpc_text = f"gRPC {options.host}:{port}"
    if options.rest_api_port == 0:
        return grpc_server, None, f"{grpc_text}, REST off"
    rest_options = rest.RestOptions(
        timeout_ms=options.rest_api_timeout_in_ms,
        cors=options.rest_api_enable_cors_support,
        metrics_path=metrics_path,
    )
    try:
        rest_server, rest_port = rest.start(
            store, options.host, max(options.rest_api_port, 0), rest_options
        )
    except OSError as error:
        grpc_server.stop(0).wait()
        raise ConfigError(
            f"--rest_api_port={options.rest_api_port}: {error}"
        ) from error
    return grpc_server, rest_server, f"{grpc_text}, REST {options.host}:{rest_port}"


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed. The interpreter's own way out would take TensorFlow
    # apart, which takes seconds, and wait for a load under way.
    os._exit(exit_code)
