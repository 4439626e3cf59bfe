"""Follows `--model_config_file` while the server runs."""

import sys
import threading
from pathlib import Path

from serving.config import ConfigError, read_model_config_file
from serving.models import ModelStore
from serving.status import StatusError


class ConfigPoller:
    """Reads the file again and again and makes the models match.

    As in the real server a file that cannot be followed changes nothing, and one
    that can is followed even if another set of models has been asked for over
    gRPC since.

    Args:
        store: `ModelStore` to change.
        path: Path of the ModelServerConfig.
        interval_s: float. Seconds between reads.
    """

    def __init__(self, store: ModelStore, path: Path, interval_s: float) -> None:
        self._store = store
        self._path = path
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._problem = ""

    def start(self) -> None:
        """Reads in a thread of its own."""
        threading.Thread(target=self._run, name="config", daemon=True).start()

    def stop(self) -> None:
        """Reads no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            try:
                self._store.reload(read_model_config_file(self._path))
                self._problem = ""
            except (ConfigError, StatusError) as error:
                # Once, not with every read.
                if str(error) != self._problem:
                    self._problem = str(error)
                    print(f"not reloaded: {error}", file=sys.stderr, flush=True)
