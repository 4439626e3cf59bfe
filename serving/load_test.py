"""How much load a server takes, with products of a catalog.

Run: python -m serving.load_test --server 127.0.0.1:8500 --model_name products \
         --catalog catalog.csv --columns title=title_masked image --users 4 \
         --batch 1 32 --duration 20 [--direct models/products/1] [--to load.json]

`--users N` is a closed loop of N clients, `--rate R` an open one of R requests a
second on average, in which a request's time counts from the moment it was due.
With `--direct` the same batches are also called on the SavedModel itself, in turn
with the server. Needs locust: pip install -e '.[load]'.
"""

import argparse
import datetime
import difflib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.flags import FlagError, FlagParser
from serving.load.products import CatalogError, batches, read_products, spoil


def build_parser() -> FlagParser:
    """The flags, where there is one with the names of `serving.classify`."""
    parser = FlagParser("python -m serving.load_test", "Measures a server under load.")
    add = parser.add_argument
    add("--server", required=True, metavar="HOST:PORT", help="its gRPC or REST port")
    add("--rest", action="store_true", help="the port is the REST port")
    add("--model_name", default="default", help="default: %(default)s")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--version", type=int, metavar="N", help="default: the highest")
    chosen.add_argument("--label", help="a version label, for example canary")
    add("--signature", default="serving_default", help="default: %(default)s")
    add("--timeout", type=_positive, default=30.0, metavar="S", help="of a request")
    add(
        "--catalog",
        type=Path,
        required=True,
        metavar="FILE",
        help=".csv, .tsv, .jsonl or .parquet, with a row for each product",
    )
    add(
        "--columns",
        nargs="+",
        required=True,
        metavar="INPUT[=COLUMN]",
        help="inputs of the model and the columns they are taken from; "
        "inputs left out are sent empty",
    )
    add(
        "--images",
        nargs="*",
        default=["image"],
        metavar="INPUT",
        help="inputs whose cells are paths, relative to the catalog (default: image)",
    )
    add(
        "--products",
        type=_count,
        default=256,
        metavar="N",
        help="how many products of the catalog to send, in turn (default: 256)",
    )
    add(
        "--without",
        nargs="+",
        default=[],
        metavar="INPUT=SHARE",
        help="empty an input of a share of the products, for example image=0.2",
    )
    add(
        "--corrupt",
        nargs="+",
        default=[],
        metavar="INPUT=SHARE",
        help="cut an input of a share of the products off in the middle",
    )
    loop = parser.add_mutually_exclusive_group(required=True)
    loop.add_argument(
        "--users", type=_count, metavar="N", help="closed loop of N users"
    )
    loop.add_argument(
        "--rate", type=_positive, metavar="R", help="open loop, R requests a second"
    )
    add(
        "--batch",
        nargs="+",
        type=_count,
        default=[1],
        metavar="N",
        help="products a request; several are measured in turn (default: 1)",
    )
    add("--duration", type=_positive, default=10.0, metavar="S", help="of each (10)")
    add(
        "--warm_up",
        type=_not_negative,
        default=2.0,
        metavar="S",
        help="time before each that does not count (2)",
    )
    add(
        "--direct",
        type=Path,
        metavar="DIR",
        help="the version directory: compare with calling it directly",
    )
    add("--seed", type=int, default=0, help="of every random choice (default: 0)")
    add("--to", type=Path, metavar="FILE", help="write every number as JSON")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more. Received: {text!r}")
    return int(text)


def _positive(text: str) -> float:
    value = _not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected more than 0. Received: {text!r}")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number. Received: {text!r}")
    return value


def _columns(words: Sequence[str]) -> dict[str, str]:
    columns = {}
    for word in words:
        name, _, column = word.partition("=")
        if not name or name in columns:
            raise FlagError(f"--columns: expected each INPUT once. Received: {word!r}")
        columns[name] = column or name
    return columns


def _shares(flag: str, words: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    shares = {}
    for word in words:
        name, _, text = word.partition("=")
        _check_known(flag, name, known)
        try:
            shares[name] = float(text)
        except ValueError:
            shares[name] = -1.0
        if not 0 <= shares[name] <= 1:
            raise FlagError(f"{flag}: expected INPUT=0 to 1. Received: {word!r}")
    return shares


def _check_known(flag: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
        raise FlagError(f"{flag}: unknown input {name!r}; {hint}")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measures what the flags ask for.

    locust has to be imported before: it patches the process's sockets.

    Args:
        options: What `build_parser` parsed.

    Returns:
        Dict of everything asked and found; `--to` writes it as JSON.

    Raises:
        FlagError: If a flag does not fit the model.
        CatalogError: If the catalog cannot be read.
        DirectError: If `--direct` is not what the server serves.
        RequestError: If the server does not answer at all.
    """
    from serving.load.report import compare, summarise
    from serving.load.transports import GrpcTransport, RestTransport, Target

    columns = _columns(options.columns)
    without = _shares("--without", options.without, list(columns))
    corrupt = _shares("--corrupt", options.corrupt, list(columns))
    for name in columns:
        if without.get(name, 0) + corrupt.get(name, 0) > 1:
            raise FlagError(f"--without and --corrupt of {name!r} are more than 1")
    products = read_products(
        options.catalog, columns, images=options.images, limit=options.products
    )
    products = spoil(products, without=without, corrupt=corrupt, seed=options.seed)
    target = Target(
        options.server,
        options.model_name,
        options.version,
        options.label,
        options.signature,
        options.timeout,
    )
    transport = RestTransport(target) if options.rest else GrpcTransport(target)
    inputs = transport.inputs()
    for name in columns:
        _check_known("--columns", name, sorted(inputs))
    for name, dtype in inputs.items():
        if dtype != "string":
            raise FlagError(f"the model's input {name!r} is {dtype}, not a string")
        for product in products:
            product.setdefault(name, b"")
    loop = {"users": options.users} if options.users else {"rate": options.rate}
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "server": options.server,
        "protocol": transport.name,
        "model_name": options.model_name,
        "version": options.version,
        "label": options.label,
        "signature": options.signature,
        "catalog": str(options.catalog),
        "columns": columns,
        "products": len(products),
        "without": without,
        "corrupt": corrupt,
        "loop": "closed" if options.users else "open",
        **loop,
        "duration_s": options.duration,
        "warm_up_s": options.warm_up,
        "timeout_s": options.timeout,
        "seed": options.seed,
        "runs": [],
    }
    for size in options.batch:
        requests = [transport.prepare(batch) for batch in batches(products, size)]
        samples = _loop(options, transport, requests)
        result["runs"].append(
            summarise(samples, batch_size=size, duration_s=options.duration)
        )
    if options.direct is not None:
        from serving.load.direct import DirectModel, take_turns

        model = DirectModel(options.direct).signature(options.signature)
        result["direct"] = {"model": str(options.direct), "batches": []}
        for size in options.batch:
            served, direct = take_turns(
                transport,
                model,
                batches(products, size),
                warm_up_s=options.warm_up,
                duration_s=options.duration,
            )
            result["direct"]["batches"].append(compare(served, direct, batch_size=size))
    transport.close()
    return result


def _loop(options: argparse.Namespace, transport: Any, requests: list[Any]) -> list:
    from serving.load.loops import closed_loop, open_loop

    times = {"warm_up_s": options.warm_up, "duration_s": options.duration}
    if options.users:
        return closed_loop(transport.send, requests, users=options.users, **times)
    return open_loop(
        transport.send, requests, rate=options.rate, seed=options.seed, **times
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, and prints what was found.

    Run it in a process of its own: locust patches the process.

    Args:
        argv: Sequence of str. Options; those of the process if None.

    Returns:
        int. 0, or 1 if the server answered no request of some run or is not to
        be reached, or 2 for bad input; then one line on standard error says why.
    """
    try:
        options = build_parser().parse(sys.argv[1:] if argv is None else argv)
        if options.to is not None and not options.to.parent.is_dir():
            raise FlagError(f"--to: no directory {options.to.parent}")
    except FlagError as error:
        print(f"serving.load_test: {error}", file=sys.stderr)
        return 2
    try:
        import locust  # noqa: F401  (patches sockets and threads; first of all)
    except ImportError:
        print(
            "serving.load_test: locust is not installed: pip install -e '.[load]'",
            file=sys.stderr,
        )
        return 2
    from grpc.experimental import gevent

    # Calls of gRPC then let the other users go on, as those of patched sockets do.
    gevent.init_gevent()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from serving.load.direct import DirectError
    from serving.load.report import as_text
    from serving.load.transports import RequestError

    try:
        result = run(options)
    except (CatalogError, FlagError, DirectError) as error:
        print(f"serving.load_test: {error}", file=sys.stderr)
        return 2
    except RequestError as error:
        print(f"serving.load_test: {options.server}: {error}", file=sys.stderr)
        return 1
    print(as_text(result))
    if options.to is not None:
        options.to.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if any(found["answered"] == 0 for found in result["runs"]):
        print("serving.load_test: a run had no answer at all", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # gRPC's threads and TensorFlow take seconds to be taken apart under gevent.
    os._exit(exit_code)
