"""Half an hour of everything at once: does a served bundle lose, err, or grow?

    python tools/soak.py models/products/1 --catalog catalog.csv --minutes 30

starts the development server on free ports with a copy of the bundle, and keeps
it busy with several clients at once, each of which draws what it sends next:

- good requests, by the official stubs, by plain HTTP in rows and in columns, by a
  slow client, and by the client library, which is told not to try again. All four
  signatures; batches of 1, 2, 7 and 32; products with each modality missing, and
  texts that are not UTF-8. Every answer is compared with what the SavedModel itself
  said of the same product before the load began: floats to 1e-6, labels, flags and
  statuses exactly. A refusal, for whatever reason, is a lost request;
- hostile images within good batches: the status must tell them, and the other
  rows must be answered as if they were alone;
- some hundred kinds of bad requests, down to bodies cut short and connections that
  vanish, each of which must be refused with its own code;
- calls that are given up, cancelled or past their deadline.

Every `--swap-every` seconds a new version appears beside the old one, and the old
one is taken away once the new one answers. `--second` alternates with another
bundle, so that an answer of the wrong version is seen where the protocol tells the
version. Memory, threads and open files of the server are looked at each second; the
last fifth of the time is held against the second one. What a server takes in its first
quarter of an hour, `--warm-up` leaves out: the C library's heap then holds all that
several threads and two versions at once ever need at a time.

With `--server` and `--rest` a running server is asked instead; it gets new versions
only if `--base-path` names the folder of its versions, and its memory is looked at
only if `--pid` names its process on this machine.

Exit status: 0; 1 if a good request was lost or answered wrongly, a bad one was not
refused as it should be, a version did not come up, or memory grew; 2 for bad input.
"""

import contextlib
import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmm.errors import command_line
from tfmm.options import ImagesFolder

# A change of version may not take longer than until the next one is due, and of
# those there must be one in each fifth of the time, or memory cannot be judged.
FEWEST_SWAPS = 5


def soak(
    bundle: Annotated[Path, typer.Argument(help="MODELS/NAME/N, as export wrote it.")],
    catalog: Annotated[Path, typer.Option(help="Table of products to send.")],
    images: ImagesFolder = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="How long.")] = 30.0,
    warm_up: Annotated[
        float, typer.Option(min=0.0, help="Minutes of the same before those.")
    ] = 0.0,
    clients: Annotated[int, typer.Option(min=1, help="Clients at once.")] = 3,
    think: Annotated[
        float, typer.Option(min=0.0, help="Mean seconds between a client's requests.")
    ] = 0.3,
    swap_every: Annotated[
        float, typer.Option(min=0.0, help="Seconds between versions; 0 for none.")
    ] = 60.0,
    second: Annotated[
        Path | None, typer.Option(help="Bundle to alternate with; same inputs.")
    ] = None,
    products: Annotated[int, typer.Option(min=1, help="Products to read.")] = 48,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds until a good request is lost.")
    ] = 60.0,
    may_grow: Annotated[
        float, typer.Option(min=0.001, help="Share by which memory may grow.")
    ] = 0.05,
    server: Annotated[
        str | None, typer.Option(help="gRPC HOST:PORT of a running server.")
    ] = None,
    rest: Annotated[str | None, typer.Option(help="Its REST HOST:PORT.")] = None,
    base_path: Annotated[
        Path | None, typer.Option(help="Folder of its versions, to add new ones.")
    ] = None,
    pid: Annotated[int | None, typer.Option(help="Its process, to watch.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    to: Annotated[Path | None, typer.Option(help="File for every number.")] = None,
) -> int:
    """Keeps a server busy with good, bad and hostile requests while versions change."""
    from soaking import SoakError

    if (server is None) != (rest is None):
        raise SoakError("--server and --rest go together")
    if server is None and (base_path is not None or pid is not None):
        raise SoakError("--base-path and --pid are of a running server: --server")
    swaps = swap_every > 0 and (server is None or base_path is not None)
    if swaps and minutes * 60 < FEWEST_SWAPS * swap_every:
        raise SoakError(
            f"--minutes {minutes:g} holds fewer than {FEWEST_SWAPS} times --swap-every "
            f"{swap_every:g} s: memory could not be judged"
        )
    if second is not None and not swaps:
        raise SoakError("--second needs new versions: --swap-every, --base-path")
    if to is not None and not to.parent.is_dir():
        raise SoakError(f"--to: no folder {to.parent}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    from soaking.products import make_pool

    started = datetime.datetime.now(datetime.UTC)
    bundles = [bundle] if second is None else [bundle, second]
    pool, num_unsure = make_pool(bundles, catalog, images or catalog.parent, products)
    say(
        f"{len(pool.products)} products, whole and in part, with their answers; "
        f"{num_unsure} left out, whose labels are too near to have a certain order"
    )
    # After the bad input has been told: this imports TensorFlow.
    from soaking.load import Options, Where, load

    options = Options(
        duration_s=minutes * 60,
        clients=clients,
        think_s=think,
        swap_every_s=swap_every if swaps else 0.0,
        timeout_s=timeout,
        may_grow=may_grow,
        seed=seed,
        warm_up_s=warm_up * 60,
    )
    with contextlib.ExitStack() as stack:
        if server is None:
            where = stack.enter_context(own_server(bundle))
        else:
            where = Where(server, rest, bundle.resolve().parent.name, base_path, pid)
        found = load(where, pool, bundles, options, say)
    result = {
        "started": started.isoformat(timespec="seconds"),
        "bundle": str(bundle),
        "second": None if second is None else str(second),
        "catalog": str(catalog),
        "server": server or "development server of its own",
        "products": len(pool.products),
        **asdict(options),
        **found,
    }
    if to is not None:
        to.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _report(result)
    return 1 if result["problems"] else 0


@contextlib.contextmanager
def own_server(bundle: Path) -> Iterator[Any]:
    """The development server on a copy of a bundle, as a `soaking.load.Where`."""
    from soaking.load import Where
    from soaking.server import DevelopmentServer

    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        model = bundle.resolve().parent.name
        base_path = Path(folder) / model
        shutil.copytree(bundle, base_path / "1")
        process = DevelopmentServer(model, base_path, Path(folder) / "server.log")
        try:
            address = process.grpc, process.rest
            yield Where(*address, model, base_path, process.pid, process)
        finally:
            process.stop()


def say(message: str) -> None:
    """Prints a line at once."""
    print(message, flush=True)


def _report(result: dict[str, Any]) -> None:
    say(f"\n{result['lasted_s']:.0f} s, {result['clients']} clients")
    for kind, outcomes in result["requests"].items():
        told = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
        ways = len(result["by_way"][kind])
        say(f"{kind}: {sum(outcomes.values())} in {ways} ways: {told}")
    swaps = result["swaps"]
    if swaps:
        longest = max(x["available_s"] for x in swaps)
        say(f"versions: {len(swaps)} new ones, the slowest up in {longest:.1f} s")
    held = result["memory"]
    if held is not None and "rss_mib" in held:
        for name, unit in (("rss_mib", " MiB"), ("threads", ""), ("files", "")):
            early, late = held[name]["early"], held[name]["late"]
            say(
                f"{name.removesuffix('_mib')}: {early:.0f}{unit} in the second fifth "
                f"of the time, {late:.0f}{unit} in the last"
            )
        say(f"slope: {held['rss_mib_per_hour']:+.0f} MiB an hour")
    for example in result["examples"]:
        say(f"  {example}")
    for problem in result["problems"]:
        say(f"PROBLEM {problem}")
    say(
        "soaked, and found fit"
        if not result["problems"]
        else "soaked, and found wanting"
    )


if __name__ == "__main__":
    command_line(soak, "python tools/soak.py")
