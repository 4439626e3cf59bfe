"""The whole way once, on the drawn sample catalog: python tools/demo.py [--to demo]

Makes the catalog, fits, evaluates, exports, verifies, starts the development server,
classifies one product over gRPC and over REST, and stops the server. Every command is
printed as it would be typed.
"""

import argparse
import contextlib
import csv
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_LIMIT_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=Path("demo"), help="new folder")
    to = parser.parse_args().to
    if to.exists():
        parser.exit(2, f"tools/demo.py: {to} is there already; give another --to\n")
    started = time.monotonic()
    catalog, run, model = to / "catalog", to / "run", to / "models" / "sample"
    table = catalog / "catalog.csv"
    python(ROOT / "tools" / "sample_catalog.py", "--to", catalog)
    experiment = ROOT / "hparams" / "demo.toml"
    python("-m", "tfmm.fit", experiment, "--catalog", table, "--run", run)
    python("-m", "tfmm.evaluate", run, "--split", "test")
    python("-m", "export", run, "--to", model)
    python("-m", "export.verify", model / "1")
    with server(model) as (grpc, rest):
        product = whole_product(table)
        asked = [
            *("--title", product["title"]),
            *("--description", product["description"]),
            *("--image", catalog / product["image"]),
            *("--model_name", model.name),
        ]
        print(f"\n# One product; its labels are {product['labels']}")
        python("-m", "serving.classify", "--server", f"127.0.0.1:{grpc}", *asked)
        rest_server = f"127.0.0.1:{rest}"
        python("-m", "serving.classify", "--server", rest_server, "--rest", *asked)
    print(f"\nThe report: {run / 'report' / 'test' / 'index.html'}")
    print(f"Done in {time.monotonic() - started:.0f} s")


def python(*arguments: object) -> None:
    """Runs a Python command, and stops the demo if it fails."""
    words = [str(x) for x in arguments]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    status = subprocess.run([sys.executable, *words]).returncode
    if status:
        sys.exit(f"tools/demo.py: the command above ended with {status}")


@contextlib.contextmanager
def server(model: Path):
    """The development server on two free ports, until the block ends."""
    grpc, rest = free_port(), free_port()
    words = [
        *("-m", "serving.server"),
        f"--model_name={model.name}",
        f"--model_base_path={model.resolve()}",
        f"--port={grpc}",
        f"--rest_api_port={rest}",
    ]
    print(f"\n$ python {shlex.join(words)} &", flush=True)
    process = subprocess.Popen([sys.executable, *words])
    try:
        wait_for(rest, process)
        yield grpc, rest
    finally:
        process.terminate()
        process.wait(timeout=30)
        print(f"\n# Server stopped with status {process.returncode}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    """Waits until something listens; the server does once its models are loaded."""
    limit = time.monotonic() + START_LIMIT_S
    while time.monotonic() < limit:
        if process.poll() is not None:
            sys.exit(f"tools/demo.py: the server ended with {process.returncode}")
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.2)
    sys.exit(f"tools/demo.py: the server was not ready after {START_LIMIT_S:.0f} s")


def whole_product(table: Path) -> dict[str, str]:
    """The first product that has a title, a description and a picture."""
    with table.open(encoding="utf-8", newline="") as file:
        for product in csv.DictReader(file):
            whole = all(product[x] for x in ("title", "description", "image", "labels"))
            if whole and (table.parent / product["image"]).is_file():
                return product
    sys.exit(f"tools/demo.py: {table} has no product with everything")


if __name__ == "__main__":
    main()
