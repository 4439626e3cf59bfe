"""python -m export.verify: does a bundle do what it says, where it will be served?

Runs in a process of its own and imports nothing of `tfmm`. The graph is loaded and
called as TensorFlow Serving does it: variables restored by the saver, inputs fed
without any check but their type; from another folder than the one it was written to.
With `--server` the answers are those of a running server instead.
"""

import argparse
import base64
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from export import ABOUT_FILE, EXTRA, GOLDEN_FILE, SIGNATURES, answers, sums
from export.failure import Failure, first_line
from export.graph import check_ops, check_outputs, check_variables, read_graph
from export.served import Remote, Served
from serving.drift.reference import ReferenceError, read_reference


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export.verify", description="Checks an exported model."
    )
    parser.add_argument("bundle", type=Path, help="MODELS/NAME/N")
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="gRPC port of a server that serves the bundle; by default it is loaded "
        "in this process",
    )
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        verify(options.bundle, options.server)
    except Failure as failure:
        place = options.bundle
        print(f"python -m export.verify: {place}: {failure}", file=sys.stderr)
        return 2
    print(f"{options.bundle}: verified")
    return 0


def verify(bundle: Path, server: str | None = None) -> None:
    """Runs every check and prints a line for each; `Failure` at the first that fails.

    Args:
        bundle: `MODELS/NAME/N`.
        server: `HOST:PORT` of a gRPC port behind which the bundle is served.
    """
    golden, images = _read_golden(bundle)
    graph = read_graph(bundle)
    print(f"files: {check_files(bundle)}, as they were written")
    print(f"ops: {check_ops(graph)} kinds, all of them in a stock server")
    print(f"variables: {check_variables(graph)} read, all of them restored on loading")
    print(f"outputs: {check_outputs(graph)}, all of types that gRPC and REST carry")
    if server is not None:
        _check_answers(_remote(bundle, server), golden, images)
    else:
        _check_alone(bundle, golden, images)
    print(f"reference: {check_reference(bundle, golden, images)}")


def _check_alone(bundle: Path, golden: dict, images: list[str]) -> None:
    """Loads the bundle in this process, from another folder, and asks it."""
    with tempfile.TemporaryDirectory() as folder:
        moved = Path(folder) / bundle.name
        shutil.copytree(bundle, moved)
        started = time.perf_counter()
        served = Served(moved)
        loaded_s = time.perf_counter() - started
        print(f"loaded from another folder in {loaded_s:.1f} s")
        _check_answers(served, golden, images)


def _remote(bundle: Path, server: str) -> Remote:
    try:
        return Remote(bundle, server)
    except ValueError:
        raise Failure(
            "its folder is not called by its version; a server would not load it"
        ) from None


def _check_answers(served: Served | Remote, golden: dict, images: list[str]) -> None:
    names = sorted(served.inputs["serving_default"])
    if set(names) != set(golden["products"][0]["inputs"]):
        raise Failure(f"the golden requests do not fit the inputs {names}")
    print(f"first answers: {_first_answers(served, golden)}")
    difference = answers.check_golden(served, served.labels, golden)
    sizes = ", ".join(map(str, answers.BATCHES))
    print(f"golden requests at batch {sizes}: greatest difference {difference:.2g}")
    print(f"missing modalities: {answers.check_missing(served, golden)} cases answered")
    bad = answers.check_hostile(served, golden, images)
    print(f"bad images: {bad} kinds told, and their neighbours answered")
    refused = answers.check_refusals(served, served.inputs, golden)
    print(f"wrong requests: {refused} kinds refused")


def _first_answers(served: Served | Remote, golden: dict) -> str:
    """How long each signature takes at its first request."""
    inputs = answers.batch(golden["products"][:1])
    times = []
    for signature in SIGNATURES:
        started = time.perf_counter()
        served(signature, inputs)
        times.append(f"{signature} {time.perf_counter() - started:.1f} s")
    return ", ".join(times)


def check_files(bundle: Path) -> str:
    """Every file is what was exported, and none was added.

    Returns:
        How many there are, and how large together.
    """
    try:
        wrong = sums.differing(bundle)
    except (OSError, ValueError) as error:
        raise Failure(f"no usable sums of its files: {first_line(error)}") from None
    if wrong:
        raise Failure(f"{wrong[0]} is not what was exported")
    names = sums.files(bundle)
    size = sum((bundle / name).stat().st_size for name in names)
    return f"{len(names)} of {size / 1e6:.1f} MB"


def check_reference(bundle: Path, golden: dict, images: list[str]) -> str:
    """The reference statistics are there, and those that `serving.monitor` reads.

    Returns:
        How many measures there are, and of how many products.
    """
    try:
        found = read_reference(bundle)
    except ReferenceError as error:
        raise Failure(str(error)) from None
    inputs = set(golden["products"][0]["inputs"])
    if set(found.inputs) != inputs or list(found.images) != images:
        raise Failure(
            f"the reference statistics do not fit the inputs {sorted(inputs)}"
        )
    return (
        f"{len(found.measures)} measures of {found.products['catalog']} products, "
        f"{len(found.vocabularies)} vocabularies"
    )


def _read_golden(bundle: Path) -> tuple[dict, list[str]]:
    """The golden requests, and which inputs are images."""
    path = bundle / EXTRA / GOLDEN_FILE
    try:
        golden = json.loads(path.read_text(encoding="utf-8"))
        inputs = set(golden["products"][0]["inputs"])
        for product in golden["products"]:
            whole = len(product["probabilities"]) == len(golden["nothing"])
            if not whole or set(product["inputs"]) != inputs or golden["top_k"] < 1:
                raise ValueError("its products do not fit each other")
            if not isinstance(product["skipped"], bool):
                raise ValueError("it does not say whose images are skipped")
            for value in product["inputs"].values():
                base64.b64decode(value, validate=True)
        about = json.loads((bundle / EXTRA / ABOUT_FILE).read_text(encoding="utf-8"))
        if set(about["modalities"]) != inputs:
            raise ValueError(f"{ABOUT_FILE} names other inputs")
        kinds = {name: x["kind"] for name, x in about["modalities"].items()}
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise Failure(
            f"no usable golden requests ({path.name}): {first_line(error)}"
        ) from None
    return golden, [name for name, kind in kinds.items() if kind == "image"]


if __name__ == "__main__":
    sys.exit(main())
