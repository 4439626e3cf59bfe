"""python -m export.verify: does a bundle do what it says, where it will be served?

Runs in a process of its own and imports nothing of `tfmm`. The graph is loaded and
called as TensorFlow Serving does it: variables restored by the saver, inputs fed
without any check but their type.
"""

import argparse
import base64
import itertools
import json
import os
import sys
from pathlib import Path

import numpy as np

from export import ABOUT_FILE, EXTRA, GOLDEN_FILE

BOUND = 1e-5
BATCHES = (1, 2, 7)
SIGNATURES = ("serving_default", "probabilities")

# Ops that run Python, which a server does not have.
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}

# What REST can carry.
OUTPUT_TYPES = ("DT_FLOAT", "DT_INT32", "DT_INT64", "DT_BOOL", "DT_STRING")


class Failure(Exception):
    """A check that a bundle does not pass; its text is one line."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export.verify", description="Checks an exported model."
    )
    parser.add_argument("bundle", type=Path, help="MODELS/NAME/N")
    bundle = parser.parse_args().bundle
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        verify(bundle)
    except Failure as failure:
        print(f"python -m export.verify: {bundle}: {failure}", file=sys.stderr)
        return 2
    print(f"{bundle}: verified")
    return 0


def verify(bundle: Path) -> None:
    """Runs every check and prints a line for each; `Failure` at the first that fails.

    Args:
        bundle: `MODELS/NAME/N`.
    """
    golden = _read_golden(bundle)
    graph = _read_graph(bundle)
    print(f"ops: {check_ops(graph)} kinds, all of them in a stock server")
    print(f"variables: {check_variables(graph)} read, all of them restored on loading")
    print(f"outputs: {check_outputs(graph)}, all of types that gRPC and REST carry")
    served = Served(bundle)
    names = sorted(served.inputs["serving_default"])
    if set(names) != set(golden["products"][0]["inputs"]):
        raise Failure(f"the golden requests do not fit the inputs {names}")
    difference = check_golden(served, golden)
    print(f"golden requests at batch 1, 2 and 7: greatest difference {difference:.2g}")
    print(f"missing modalities: {check_missing(served, golden)} cases answered")
    print(f"wrong requests: {check_refusals(served, golden)} kinds refused")


class Served:
    """A bundle in a session, called as TensorFlow Serving calls it.

    Attributes:
        inputs: Signature -> names of its inputs.
        outputs: Signature -> names of its outputs.
        labels: The label names, by `assets/labels.txt`.
    """

    def __init__(self, bundle: Path):
        import tensorflow as tf
        from tensorflow.core.protobuf import config_pb2

        tf.get_logger().setLevel("ERROR")  # the loader of sessions says it is old
        self.errors = tf.errors
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            try:
                loaded = tf.compat.v1.saved_model.load(
                    self.session, ["serve"], str(bundle)
                )
                text = (bundle / "assets" / "labels.txt").read_text(encoding="utf-8")
            except (OSError, RuntimeError, ValueError, tf.errors.OpError) as error:
                raise Failure(f"does not load: {_line(error)}") from None
        self.labels = text.split("\n")[:-1]
        self.inputs, self.outputs, self._calls = {}, {}, {}
        for name in signatures(loaded):
            signature = loaded.signature_def[name]
            self.inputs[name] = list(signature.inputs)
            self.outputs[name] = list(signature.outputs)
            # The way in that compares no shapes, as the server does not; the public
            # ones refuse in Python what the graph itself should refuse.
            self._calls[name] = self.session._make_callable_from_options(
                config_pb2.CallableOptions(
                    feed=[x.name for x in signature.inputs.values()],
                    fetch=[x.name for x in signature.outputs.values()],
                )
            )

    def __call__(self, signature: str, inputs: dict) -> dict[str, np.ndarray]:
        """Calls a signature; errors are TensorFlow's."""
        fed = [inputs[name] for name in self.inputs[signature]]
        answer = self._calls[signature](*fed)
        return dict(zip(self.outputs[signature], answer, strict=True))


def check_ops(graph) -> int:
    """Every op is TensorFlow's or TensorFlow Text's, runs on a CPU, runs no Python.

    Returns:
        How many kinds of op there are.
    """
    from tensorflow.python.framework import kernels, op_def_registry

    nodes = [*graph.graph_def.node]
    for function in graph.graph_def.library.function:
        nodes += function.node_def
        if function.attr["_XlaMustCompile"].b:
            raise Failure(f"function {function.signature.name} must be compiled by XLA")
    functions = {x.signature.name for x in graph.graph_def.library.function}
    kinds = {node.op for node in nodes} - functions
    for node in nodes:
        if node.attr["_XlaMustCompile"].b:
            raise Failure(f"op {node.name} ({node.op}) must be compiled by XLA")
    python = sorted(kinds & PYTHON_OPS)
    if python:
        raise Failure(f"runs Python, which a server does not have: {python[0]}")
    foreign = {kind for kind in kinds if op_def_registry.get(kind) is None}
    if foreign:
        import tensorflow_text  # the one library of ops that the stock server adds

        assert tensorflow_text.__version__
    for kind in sorted(kinds):
        if op_def_registry.get(kind) is None:
            raise Failure(f"op {kind} is neither TensorFlow's nor TensorFlow Text's")
        # Ops that only call a function have no kernel of their own.
        found = kernels.get_registered_kernels_for_op(kind).kernel
        if found and not {x.device_type for x in found} & {"CPU", "DEFAULT"}:
            raise Failure(f"op {kind} has no CPU kernel")
    return len(kinds)


def check_variables(graph) -> int:
    """Every variable that a signature reads is one that loading restores.

    A variable that is saved under a second handle loads in Python and fails at the
    server's first request.

    Returns:
        How many variables the signatures read.
    """
    nodes = {node.name: node for node in graph.graph_def.node}

    def handles(node_name: str) -> set[str]:
        """The variables anywhere before a node."""
        found, seen, open_ends = set(), set(), [node_name]
        while open_ends:
            name = open_ends.pop()
            if name in seen:
                continue
            seen.add(name)
            if nodes[name].op == "VarHandleOp":
                found.add(name)
            open_ends += [x.split(":")[0].lstrip("^") for x in nodes[name].input]
        return found

    restore = graph.saver_def.restore_op_name.split(":")[0]
    if restore not in nodes:
        raise Failure("has no op that restores variables")
    restored = handles(restore)
    read: set[str] = set()
    for name in signatures(graph):
        for output in graph.signature_def[name].outputs.values():
            read |= handles(output.name.split(":")[0])
    lost = sorted(read - restored)
    if lost:
        raise Failure(f"variable {lost[0]} is read by a signature and never restored")
    if not read:
        raise Failure("no signature reads a variable: this is no trained model")
    return len(read)


def signatures(graph) -> list[str]:
    """The signatures that a client can call; those of the design must be there."""
    # The saver's own bookkeeping bears such a name.
    names = [name for name in graph.signature_def if not name.startswith("__")]
    for name in SIGNATURES:
        if name not in names:
            raise Failure(f"has no signature {name!r}")
    return names


def check_outputs(graph) -> int:
    """Every output of every signature has a type that a client can be sent.

    Returns:
        How many outputs there are.
    """
    from tensorflow.core.framework import types_pb2

    count = 0
    for signature in signatures(graph):
        for name, output in graph.signature_def[signature].outputs.items():
            count += 1
            kind = types_pb2.DataType.Name(output.dtype)
            if kind not in OUTPUT_TYPES:
                raise Failure(f"{signature}: output {name!r} is of type {kind}")
    return count


def check_golden(served: Served, golden: dict) -> float:
    """Golden requests get their stored answers, alone and in batches.

    Returns:
        The greatest difference of any probability or score.
    """
    products = golden["products"]
    worst = 0.0
    for size in BATCHES:
        for start in range(0, len(products), size):
            chosen = [products[(start + i) % len(products)] for i in range(size)]
            expected = np.array([x["probabilities"] for x in chosen])
            inputs = _inputs(chosen)
            answer = served("probabilities", inputs)["probabilities"]
            if answer.shape != expected.shape:
                raise Failure(
                    f"probabilities have shape {answer.shape}, not {expected.shape}"
                )
            worst = max(worst, float(np.abs(answer - expected).max()))
            top = served("serving_default", inputs)
            order = np.argsort(-expected, axis=1, kind="stable")[:, : golden["top_k"]]
            ranked = np.take_along_axis(expected, order, axis=1)
            worst = max(worst, float(np.abs(top["scores"] - ranked).max()))
            finite = np.isfinite(answer).all() and np.isfinite(expected).all()
            if worst > BOUND or not finite:
                raise Failure(
                    f"answers differ from the stored ones by {worst:.2g} "
                    f"(bound {BOUND:g}) at batch {size}"
                )
            _check_labels(served, top, expected)
            for other in set(served.inputs) - set(SIGNATURES):
                served(other, inputs)
    return worst


def _check_labels(served: Served, top: dict, expected: np.ndarray) -> None:
    """Each label stands beside its own score (equal scores may change places)."""
    index = {name: i for i, name in enumerate(served.labels)}
    for row, names in enumerate(top["labels"]):
        for rank, name in enumerate(names):
            known = index.get(name.decode())
            if known is None:
                raise Failure(f"answers a label that labels.txt lacks: {name!r}")
            if abs(expected[row, known] - top["scores"][row, rank]) > BOUND:
                raise Failure(f"gives {name.decode()!r} another label's score")


def check_missing(served: Served, golden: dict) -> int:
    """Every proper subset of the modalities is answered; the empty one by the shares.

    Returns:
        How many cases were tried.
    """
    whole = max(golden["products"], key=lambda x: sum(map(bool, x["inputs"].values())))
    inputs = _inputs([whole])
    nothing = {name: np.array([b""], object) for name in inputs}
    cases = [
        {name: (inputs if name in kept else nothing)[name] for name in inputs}
        for size in range(len(inputs))
        for kept in itertools.combinations(inputs, size)
    ]
    for case in cases:
        left = sorted(name for name, value in case.items() if value[0])
        said = served("probabilities", case)["probabilities"]
        if not np.isfinite(said).all():
            raise Failure(f"with only {left} the probabilities are not finite")
        top = served("serving_default", case)
        if left:
            continue
        if top["assigned"].any():
            raise Failure("assigns labels to a product without any modality")
        if np.abs(said - golden["nothing"]).max() > BOUND:
            raise Failure("does not give the label shares without any modality")
    return len(cases)


def check_refusals(served: Served, golden: dict) -> int:
    """Wrong ranks, types, unequal and empty batches are refused, not answered.

    Returns:
        How many kinds of wrong request were tried.
    """
    inputs = _inputs(golden["products"][:1])
    kinds = 0
    wrongs = {
        "rank 0": lambda x: np.array(x[0], object),
        "rank 2": lambda x: x[:, None],
        "rank 3": lambda x: x[:, None, None],
        "numbers": lambda x: np.zeros([1], np.float32),
    }
    if len(inputs) > 1:
        wrongs["another batch size"] = lambda x: np.concatenate([x, x])
    for signature in served.inputs:
        cases = [
            (f"{name} of {what}", {**inputs, name: make(inputs[name])})
            for name in inputs
            for what, make in wrongs.items()
        ]
        cases.append(("an empty batch", {k: v[:0] for k, v in inputs.items()}))
        for what, case in cases:
            kinds += 1
            try:
                served(signature, case)
            except served.errors.InvalidArgumentError:
                continue
            except served.errors.InternalError:
                if "numbers" in what:
                    continue  # the server compares types before the graph runs
                raise
            raise Failure(f"{signature} answers {what} instead of refusing it")
    served(SIGNATURES[0], inputs)  # still alive
    return kinds


def _inputs(products: list[dict]) -> dict[str, np.ndarray]:
    return {
        name: np.array([base64.b64decode(x["inputs"][name]) for x in products], object)
        for name in products[0]["inputs"]
    }


def _read_golden(bundle: Path) -> dict:
    path = bundle / EXTRA / GOLDEN_FILE
    try:
        golden = json.loads(path.read_text(encoding="utf-8"))
        inputs = set(golden["products"][0]["inputs"])
        for product in golden["products"]:
            whole = len(product["probabilities"]) == len(golden["nothing"])
            if not whole or set(product["inputs"]) != inputs or golden["top_k"] < 1:
                raise ValueError("its products do not fit each other")
            for value in product["inputs"].values():
                base64.b64decode(value, validate=True)
        about = json.loads((bundle / EXTRA / ABOUT_FILE).read_text(encoding="utf-8"))
        if set(about["modalities"]) != inputs:
            raise ValueError(f"{ABOUT_FILE} names other inputs")
        return golden
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Failure(
            f"no usable golden requests ({path.name}): {_line(error)}"
        ) from None


def _read_graph(bundle: Path):
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        content = (bundle / "saved_model.pb").read_bytes()
        model = saved_model_pb2.SavedModel.FromString(content)
    except (OSError, DecodeError) as error:
        raise Failure(f"no SavedModel: {_line(error)}") from None
    if not model.meta_graphs:
        raise Failure("no SavedModel: saved_model.pb is empty")
    return model.meta_graphs[0]


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    sys.exit(main())
