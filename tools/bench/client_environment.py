"""What a machine needs that only asks: the client's packages, and how fast they load.

    python tools/bench/client_environment.py --server 127.0.0.1:8500 \
        --rest 127.0.0.1:8501 --model_name products

makes a fresh virtual environment, installs `serving/client` into it and nothing
else, and prints

- the packages that came, and what they take on disk, pip itself left out;
- for each of the imports below the time that it took, and the processor time of the
  whole process, of which that of an empty one is taken off: medians of `--rounds`
  processes, after one that does not count;
- with `--server` and `--rest`, what a process of that environment gets from a served
  model over gRPC and over REST, and how long it took from its start to its end.

`--beside tensorflow-serving-api` makes a second environment for the official stubs,
which bring TensorFlow; the processes of the two take turns. Processor time hardly
depends on what else the machine does; the other times do.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "serving" / "client"
MIB = 2**20

# What the first call over each protocol imports, beside the package itself.
IMPORTS = {
    "tfmm_client": "tfmm_client",
    "tfmm_client, gRPC": "tfmm_client.grpc_transport",
    "tfmm_client, REST": "tfmm_client.rest_transport",
}
STUBS = "tensorflow_serving.apis.prediction_service_pb2_grpc"
HEAVY = ("tensorflow", "numpy", "pandas")
CALL = f"""
import sys
from tfmm_client import Client

url, model = sys.argv[1:]
with Client(url, model) as client:
    inputs = client.signature("serving_default").inputs
    (answer,) = client.classify([dict.fromkeys(inputs, "red shoe")])
best = answer.suggestions[0]
print(f"{{best.label}} {{best.score:.3f}}")
assert not set({HEAVY}) & set(sys.modules)
"""


class Environment:
    """A fresh virtual environment with one thing installed.

    Args:
        folder: Where to make it.
        requirement: What pip installs.
    """

    def __init__(self, folder: Path, requirement: str) -> None:
        venv.create(folder, with_pip=True)
        self.python = folder / "bin" / "python"
        self._before = self._packages()
        self._run("-m", "pip", "install", "--quiet", requirement)
        (self._site,) = folder.glob("lib/python*/site-packages")

    def packages(self) -> list[str]:
        """Names and versions of what was installed."""
        return sorted(self._packages() - self._before)

    def mib(self) -> float:
        """What the packages take on disk, compiled files included."""
        old = {"pip", "setuptools", "_distutils_hack", "distutils-precedence.pth"}
        found = [
            file
            for entry in self._site.iterdir()
            if entry.name.split("-")[0] not in old and entry.name not in old
            for file in (entry.rglob("*") if entry.is_dir() else [entry])
            if file.is_file()
        ]
        # As `du` counts: whole blocks.
        return sum(512 * file.stat().st_blocks for file in found) / MIB

    def import_times(self, module: str) -> tuple[float, float]:
        """Seconds that an import took, and processor seconds of its process."""
        before = _processor_s()
        timed = (
            "import time; start_s = time.perf_counter(); "
            f"import {module}; print(time.perf_counter() - start_s)"
        )
        took_s = float(self._run("-c", timed).stdout)
        return took_s, _processor_s() - before

    def nothing_s(self) -> float:
        """Processor seconds of a process that does nothing."""
        before = _processor_s()
        self._run("-c", "pass")
        return _processor_s() - before

    def call(self, url: str, model: str) -> tuple[str, float]:
        """What a process of its own gets from a server, and its seconds."""
        start_s = time.perf_counter()
        done = self._run("-c", CALL, url, model)
        return done.stdout.strip(), time.perf_counter() - start_s

    def _packages(self) -> set[str]:
        listed = self._run("-m", "pip", "list", "--format", "freeze").stdout
        return set(listed.split())

    def _run(self, *words: str) -> subprocess.CompletedProcess:
        # Nothing of the clone: the environment must do with what it has.
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            [self.python, *words],
            capture_output=True,
            text=True,
            env=clean,
            cwd=self.python.parent,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            sys.exit(f"tools/bench/client_environment.py: {lines[-1]}")
        return done


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.HelpFormatter
    )
    add = parser.add_argument
    add("--server", metavar="HOST:PORT", help="gRPC port of a server to ask")
    add("--rest", metavar="HOST:PORT", help="REST port of a server to ask")
    add("--model_name", default="default", help="default: %(default)s")
    add("--rounds", type=int, default=5, help="processes of each (default: 5)")
    add("--beside", metavar="REQUIREMENT", help="e.g. tensorflow-serving-api==2.20.*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="client-environment-") as folder:
        # From a copy: building leaves files beside the sources.
        source = Path(folder) / "source"
        leftovers = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
        shutil.copytree(CLIENT, source, ignore=leftovers)
        client = Environment(Path(folder) / "client", str(source))
        measured = {name: (client, module) for name, module in IMPORTS.items()}
        environments = {"tfmm-client": client}
        if options.beside is not None:
            beside = Environment(Path(folder) / "beside", options.beside)
            environments[options.beside] = beside
            measured["the official stubs"] = (beside, STUBS)
        for name, environment in environments.items():
            packages = environment.packages()
            print(f"{name}: {len(packages)} packages, {environment.mib():.1f} MiB")
            if environment is client:
                print(f"  {', '.join(packages)}")
        _print_imports(measured, options.rounds)
        for url in (
            *([f"grpc://{options.server}"] if options.server else []),
            *([f"http://{options.rest}"] if options.rest else []),
        ):
            said, took_s = client.call(url, options.model_name)
            print(f"{url}: {said}, in {took_s:.2f} s")


def _print_imports(measured: dict[str, tuple[Environment, str]], rounds: int) -> None:
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
    idle: list[float] = []
    for number in range(rounds + 1):
        for name, (environment, module) in measured.items():
            found = environment.import_times(module)
            if number:  # the first one writes compiled files
                times[name].append(found)
                idle.append(environment.nothing_s())
    nothing_s = statistics.median(idle)
    print(f"{'import':24}{'time':>12}{'processor':>12}")
    for name, found in times.items():
        took_s, used_s = (statistics.median(x) for x in zip(*found, strict=True))
        print(f"{name:24}{took_s * 1e3:9.0f} ms{(used_s - nothing_s) * 1e3:9.0f} ms")


if __name__ == "__main__":
    main()
