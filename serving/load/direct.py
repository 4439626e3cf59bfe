"""The same requests as direct calls of the SavedModel, in turn with the server."""

import importlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.load.transports import Batch

# How far a float of the server's answer may be from the direct call's.
_TOLERANCE = 1e-3


class DirectError(Exception):
    """A SavedModel that cannot stand beside the server; one line of text."""


class DirectModel:
    """A SavedModel, called with arrays of bytes.

    Args:
        path: Path of the version directory.

    Raises:
        DirectError: If there is no SavedModel.
    """

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        # The server links TensorFlow Text, so the graph may use its ops.
        importlib.import_module("tensorflow_text")
        self._path = path
        try:
            self._model = tf.saved_model.load(str(path))
        except OSError as error:
            problem = " ".join(str(error).split())
            raise DirectError(f"--direct: {path}: {problem}") from error
        self._constant = tf.constant

    def signature(self, name: str) -> Callable[[Batch], dict[str, np.ndarray]]:
        """One of its signatures.

        Args:
            name: str.

        Returns:
            Function from a batch, a dict from input to a list of bytes, to a dict
            from output to array.

        Raises:
            DirectError: If there is none of that name.
        """
        try:
            signature = self._model.signatures[name]
        except KeyError as error:
            known = ", ".join(self._model.signatures)
            raise DirectError(
                f"--direct: {self._path}: has no signature {name!r}. It has: {known}."
            ) from error

        def call(batch: Batch) -> dict[str, np.ndarray]:
            inputs = {n: self._constant(list(v), "string") for n, v in batch.items()}
            return {n: output.numpy() for n, output in signature(**inputs).items()}

        return call


def take_turns(
    transport: Any,
    model: Callable[[Batch], dict[str, np.ndarray]],
    batches: Sequence[Batch],
    *,
    warm_up_s: float,
    duration_s: float,
) -> tuple[list[float], list[float]]:
    """Times the server and the direct call on the same batches, one after the other.

    Only one of the two works at a time, so each has all the cores; what the
    machine does besides falls on both.

    Args:
        transport: `GrpcTransport` or `RestTransport`.
        model: `DirectModel.signature` of the version that the server answers with.
        batches: Sequence of batches; all are of one size.
        warm_up_s: float. Time before the first pair that counts.
        duration_s: float. Time in which pairs count; there is at least one.

    Returns:
        Tuple of two lists of seconds: of the server's answers and of the direct
        calls.

    Raises:
        DirectError: If the answers differ, so that two models are compared.
        RequestError: If the server does not answer.
    """
    requests = [transport.prepare(batch) for batch in batches]
    served, direct = [], []
    _check_same(transport.arrays(transport.send(requests[0])), model(batches[0]))
    begin = time.perf_counter() + warm_up_s
    number = 0
    while not served or time.perf_counter() < begin + duration_s:
        index = number % len(batches)
        number += 1
        times = [time.perf_counter()]
        transport.send(requests[index])
        times.append(time.perf_counter())
        model(batches[index])
        times.append(time.perf_counter())
        if times[0] >= begin:
            served.append(times[1] - times[0])
            direct.append(times[2] - times[1])
    return served, direct


def _check_same(served: dict[str, np.ndarray], direct: dict[str, np.ndarray]) -> None:
    if served.keys() == {""}:  # REST leaves the name of a single output out
        served = dict.fromkeys(direct, served[""])
    if served.keys() != direct.keys():
        raise DirectError(
            f"--direct: the outputs differ: {sorted(direct)} against the server's "
            f"{sorted(served)}."
        )
    for name, expected in direct.items():
        found = served[name]
        same = found.shape == expected.shape and (
            expected.dtype.kind != "f"
            or np.allclose(found, expected, rtol=0, atol=_TOLERANCE)
        )
        if not same:
            raise DirectError(
                f"--direct: the server's {name!r} is not the direct call's: it serves "
                "another model or version."
            )
