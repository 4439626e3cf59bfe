"""A development server of the soak's own, and the versions that it is given."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from soaking import FIRST, SoakError
from tfmm_client import Client, ServerError

ROOT = Path(__file__).resolve().parents[2]
STOP_LIMIT_S = 60.0
POLL_S = 0.2


class DevelopmentServer:
    """`python -m serving.server` on free ports of 127.0.0.1.

    Args:
        model: Name to serve under.
        base_path: Folder of its versions.
        log: File for what it says on standard error.

    Attributes:
        grpc: `HOST:PORT`.
        rest: `HOST:PORT`.
        pid: int.

    Raises:
        SoakError: If it does not come up.
    """

    def __init__(self, model: str, base_path: Path, log: Path) -> None:
        paths = [str(ROOT), str(ROOT / "serving" / "client")]
        paths += [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "serving.server", "--port=0"),
                    *("--rest_api_port=-1", f"--model_name={model}"),
                    f"--model_base_path={base_path}",
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
        self.pid = self._process.pid
        self._log = log
        ready = next((x for x in self._process.stdout if x.startswith("ready:")), None)
        if ready is None:
            self._process.wait()
            said = log.read_text(errors="replace").strip().splitlines()
            raise SoakError(f"the server did not start: {said[-1] if said else ''}")
        self.grpc, self.rest = re.findall(r"127\.0\.0\.1:\d+", ready)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def tracebacks(self) -> int:
        """How many errors it wrote down that it did not expect."""
        return self._log.read_text(errors="replace").count("Traceback (most recent")

    def stop(self) -> int:
        """Ends it by SIGTERM, or after a minute by SIGKILL; its exit status."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._process.stdout.close()


@dataclass(frozen=True)
class Swap:
    """One change of version.

    Attributes:
        version: The new one.
        available_s: From its appearance to its first answer.
        unloaded_s: Until the old one was gone, in seconds after that.
    """

    version: int
    available_s: float
    unloaded_s: float


class Swapper:
    """Puts a new version beside the old one every so often, and takes the old away.

    Args:
        base_path: Folder of the versions, with one version in it.
        bundles: What new versions are copies of, in turn; the version that is there
            is one of the first.
        client: `Client` that asks for the states of versions.
        every_s: Seconds from one change to the next.
        limit_s: Seconds that a change may take.

    Attributes:
        swaps: List of `Swap`.
        problem: Why a change did not come about; empty if all did.
    """

    def __init__(
        self,
        base_path: Path,
        bundles: Sequence[Path],
        client: Client,
        *,
        every_s: float,
        limit_s: float = 300.0,
    ) -> None:
        self.swaps: list[Swap] = []
        self.problem = ""
        self._base_path = base_path
        self._bundles = bundles
        self._client = client
        self._every_s = every_s
        self._limit_s = limit_s
        self.version = max(versions(base_path))
        self._bundle_of = {self.version: FIRST}
        self._settled = True
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Lets a change under way come to its end."""
        self._stopped.set()
        self._thread.join()

    def is_settled(self) -> bool:
        return self._settled

    def bundle_of(self, version: int) -> int | None:
        """Which bundle a version is a copy of; None for one that is none of ours."""
        return self._bundle_of.get(version)

    def _run(self) -> None:
        due_s = time.monotonic() + self._every_s
        while not self._stopped.wait(max(0.0, due_s - time.monotonic())):
            due_s += self._every_s
            self._settled = False
            try:
                self.swaps.append(self._swap())
            except (OSError, ServerError, TimeoutError) as error:
                self.problem = f"version {self.version}: {error}"
                return
            finally:
                self._settled = True

    def _swap(self) -> Swap:
        old, new = self.version, self.version + 1
        place = len(self._bundle_of) % len(self._bundles)
        # Under a name that is no version, so that no half of it is seen.
        partial = self._base_path / f"{new}.partial"
        shutil.copytree(self._bundles[place], partial)
        self._bundle_of[new] = place
        self.version = new
        partial.rename(self._base_path / str(new))
        available_s = self._wait(new, "AVAILABLE")
        unloaded_s = self._wait(old, "END")
        shutil.rmtree(self._base_path / str(old))
        return Swap(new, available_s, unloaded_s)

    def _wait(self, version: int, wanted: str) -> float:
        start_s = time.monotonic()
        while True:
            states = {x.version: x for x in self._client.status()}
            found = states.get(version)
            # A server may forget a version that has ended.
            state = "END" if found is None and wanted == "END" else "unknown"
            if found is not None:
                state = found.state
            if state == wanted:
                return time.monotonic() - start_s
            if found is not None and found.error:
                raise TimeoutError(found.error)
            if time.monotonic() - start_s > self._limit_s:
                raise TimeoutError(
                    f"version {version} is {state}, not {wanted}, after "
                    f"{self._limit_s:g} s"
                )
            time.sleep(POLL_S)


def versions(base_path: Path) -> list[int]:
    """The versions in a folder.

    Raises:
        SoakError: If there are none.
    """
    found = [
        int(path.name)
        for path in (base_path.iterdir() if base_path.is_dir() else ())
        if re.fullmatch("[0-9]{1,18}", path.name) and path.is_dir()
    ]
    if not found:
        raise SoakError(f"{base_path}: expected a folder of numbered versions")
    return found
