"""What is wrong with an exported graph, seen without running it."""

from pathlib import Path

from export import SIGNATURES
from export.failure import Failure, first_line

# Ops that run Python, which a server does not have.
PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}

# What REST can carry.
OUTPUT_TYPES = ("DT_FLOAT", "DT_INT32", "DT_INT64", "DT_BOOL", "DT_STRING")


def read_graph(bundle: Path):
    """The graph of a bundle, as its file holds it, and its signatures."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        content = (bundle / "saved_model.pb").read_bytes()
        model = saved_model_pb2.SavedModel.FromString(content)
    except (OSError, DecodeError) as error:
        raise Failure(f"no SavedModel: {first_line(error)}") from None
    if not model.meta_graphs:
        raise Failure("no SavedModel: saved_model.pb is empty")
    return model.meta_graphs[0]


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
