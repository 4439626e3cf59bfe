"""The models being served: which versions there are, and how they come and go."""

import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from serving import memory
from serving.config import ModelConfig
from serving.load_options import LoadOptions
from serving.metrics import Metrics
from serving.status import StatusError
from serving.version import Version


class ModelStore:
    """Loads, swaps and unloads versions as their directories come and go.

    A new version is loaded beside the old one; requests move over when it is
    AVAILABLE, and the old one is unloaded when its last request is answered. A
    version that fails to load changes nothing for the clients; it is tried
    again when a file in its directory changes, so a directory that was found
    half copied comes up once it is whole.

    Args:
        configs: Sequence of `ModelConfig`.
        options: `LoadOptions`; None is its defaults.
        labels_before_load: bool. Let a new label name a version that is not
            AVAILABLE, as `--allow_version_labels_for_unavailable_models` does.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        options: LoadOptions | None = None,
        *,
        labels_before_load: bool = False,
    ) -> None:
        self._configs = {config.name: config for config in configs}
        self._labels = {config.name: config.labels for config in configs}
        self._options = options or LoadOptions()
        self._labels_before_load = labels_before_load
        self._versions: dict[str, dict[int, Version]] = {n: {} for n in self._configs}
        # What the directory of a failed version looked like when it was tried.
        self._failed: dict[tuple[str, int], frozenset] = {}
        self._lock = threading.Lock()
        # Held while versions come and go: by one poll or reload at a time.
        self._changing = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        # Versions whose memory has been given back.
        self._num_ended = 0
        self._warned: set[str] = set()

    @property
    def metrics(self) -> Metrics:
        """Where the requests to these models are counted."""
        return self._options.metrics

    def poll(self) -> None:
        """Looks at every model's directory once and loads and unloads to match."""
        with self._changing:
            for config in self._configs.values():
                if not self._stopped.is_set():
                    self._poll_model(config)
            self._give_back_memory()

    def reload(self, configs: Sequence[ModelConfig]) -> None:
        """Replaces the whole set of models.

        Models that are not in `configs` are unloaded, new ones are loaded, those
        that stay go on answering.

        Args:
            configs: Sequence of `ModelConfig`.

        Raises:
            StatusError: FAILED_PRECONDITION for a label on a version that is not
                AVAILABLE; nothing has changed then. UNKNOWN if a new model has no
                AVAILABLE version; the rest of the change stands.
        """
        with self._changing:
            labels = {config.name: self._checked_labels(config) for config in configs}
            old = self._configs
            with self._lock:
                self._configs = {config.name: config for config in configs}
                self._labels = labels
                for config in configs:
                    self._versions.setdefault(config.name, {})
            for name in set(old) - set(self._configs):
                self._unload(name, list(self._versions[name]))
            for config in configs:
                if not self._stopped.is_set():
                    self._poll_model(config)
            available = self.available()
            missing = [n for n in self._configs if n not in old and not available[n]]
        if missing:
            reasons = [self._reason(name) for name in missing]
            raise StatusError(
                "UNKNOWN",
                f"{len(missing)} model(s) did not become available: "
                f"{{{', '.join(reasons)}}}",
            )

    def start(self, interval_s: float) -> None:
        """Polls in a thread of its own every `interval_s` seconds; 0 does not."""
        if interval_s <= 0:
            return
        self._thread = threading.Thread(
            target=self._poll_forever, args=(interval_s,), name="poll", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Stops polling and closes every version, cancelling what still runs.

        Args:
            timeout_s: float. How long to wait for a load under way.
        """
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        for versions in list(self._versions.values()):
            for version in list(versions.values()):
                version.abandon()

    def waiting(self) -> list[str]:
        """The models of which no version has been found yet."""
        return [name for name in self._configs if not self._versions[name]]

    def failures(self) -> list[Version]:
        """For each model without an AVAILABLE version, the highest that failed."""
        failed = []
        for versions in self._versions.values():
            errors = [v for v in versions.values() if v.error is not None]
            if errors and not any(v.state == "AVAILABLE" for v in versions.values()):
                failed.append(max(errors, key=lambda v: v.number))
        return failed

    def available(self) -> dict[str, list[int]]:
        """The AVAILABLE version numbers of every model, ascending."""
        with self._lock:
            return {
                name: sorted(n for n, v in versions.items() if v.state == "AVAILABLE")
                for name, versions in self._versions.items()
            }

    @contextmanager
    def lease(self, model_spec) -> Iterator[Version]:
        """Finds the version that a request asks for and keeps it open meanwhile.

        Args:
            model_spec: `ModelSpec`. No version and no label is the highest
                AVAILABLE version.

        Yields:
            `Version`.

        Raises:
            StatusError: NOT_FOUND for an unknown model or version,
                INVALID_ARGUMENT for no name or an unknown label.
        """
        version = self._acquire(model_spec)
        try:
            yield version
        finally:
            version.release()

    def statuses(self, name: str, number: int | None = None) -> list[Version]:
        """The versions that the server has known, highest first.

        Args:
            name: str. The model.
            number: int or None. One version only.

        Returns:
            List of `Version`; those unloaded or failed are in state "END".

        Raises:
            StatusError: NOT_FOUND if there are none.
        """
        with self._lock:
            versions = dict(self._versions.get(name, {}))
        if number is not None and number not in versions:
            raise StatusError(
                "NOT_FOUND", f"Could not find version {number} of model {name}"
            )
        if number is not None:
            return [versions[number]]
        if not versions:
            raise StatusError(
                "NOT_FOUND", f"Could not find any versions of model {name}"
            )
        return [versions[n] for n in sorted(versions, reverse=True)]

    def _acquire(self, model_spec) -> Version:
        name, number = model_spec.name, None
        if not name:
            raise StatusError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        choice = model_spec.WhichOneof("version_choice")
        if choice == "version":
            number = model_spec.version.value
        elif choice == "version_label":
            number = self._labels.get(name, {}).get(model_spec.version_label)
            if number is None:
                raise StatusError(
                    "INVALID_ARGUMENT",
                    f"Unrecognized servable version label: {model_spec.version_label}",
                )
        with self._lock:
            versions = self._versions.get(name, {})
            candidates = sorted(versions, reverse=True) if number is None else [number]
            for candidate in candidates:
                if candidate in versions and versions[candidate].acquire():
                    return versions[candidate]
        request = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise StatusError("NOT_FOUND", f"Servable not found for request: {request}")

    def _checked_labels(self, config: ModelConfig) -> dict[str, int]:
        versions = self._versions.get(config.name, {})
        for label, number in config.labels.items():
            before = self._labels.get(config.name, {}).get(label, number)
            if self._labels_before_load and before == number:
                continue
            if number not in versions or versions[number].state != "AVAILABLE":
                raise StatusError(
                    "FAILED_PRECONDITION",
                    f"Request to assign label to version {number} of model "
                    f"{config.name}, which is not currently available for inference",
                )
        return config.labels

    def _reason(self, name: str) -> str:
        """Why a model has no AVAILABLE version."""
        for _, version in sorted(self._versions[name].items(), reverse=True):
            if version.error is not None:
                return (
                    f"{{name: {name} version: {version.number} due to error: "
                    f"{version.error}}}"
                )
        base_path = self._configs[name].base_path
        return f"{{name: {name} has no version in {base_path}}}"

    def _unload(self, name: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            if self._versions[name][number].state == "AVAILABLE":
                self._versions[name][number].unload()
                _log(f"{name} version {number} unloaded")

    def _give_back_memory(self) -> None:
        """After versions have ended; not by the request that was their last."""
        num_ended = sum(
            version.state == "END"
            for versions in self._versions.values()
            for version in versions.values()
        )
        if num_ended > self._num_ended:
            memory.give_back()
        self._num_ended = num_ended

    def _poll_forever(self, interval_s: float) -> None:
        while not self._stopped.wait(interval_s):
            self.poll()

    def _poll_model(self, config: ModelConfig) -> None:
        try:
            present = _version_directories(config.base_path)
        except OSError as error:
            # A base path out of reach is no order to unload what answers well.
            self._warn(f"{config.name}: {config.base_path}: {error.strerror}")
            return
        chosen = config.chosen(list(present))
        if not chosen:
            self._warn(f"{config.name}: no version found in {config.base_path}")
        versions = self._versions[config.name]
        for number in chosen:
            if self._stopped.is_set():
                return
            self._load(config.name, number, present[number])
        answering = [n for n in chosen if versions[n].state == "AVAILABLE"]
        if answering or not chosen:
            self._unload(config.name, [n for n in versions if n not in chosen])
        for number in [n for n in versions if n not in present]:
            self._failed.pop((config.name, number), None)

    def _load(self, name: str, number: int, path: Path) -> None:
        known = self._versions[name].get(number)
        if known is not None and known.state in ("AVAILABLE", "UNLOADING"):
            return
        contents = _contents(path)
        if self._failed.get((name, number)) == contents:
            return
        version = Version(name, number, path, self._options)
        with self._lock:
            self._versions[name][number] = version
        version.load()
        if version.error is None:
            self._failed.pop((name, number), None)
            self._warned.clear()
            _log(f"{name} version {number} available")
        else:
            self._failed[name, number] = contents
            problem = " ".join(str(version.error).split())
            _log(f"{name} version {number} failed to load: {problem}")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _log(message)


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _version_directories(base_path: Path) -> dict[int, Path]:
    return {
        int(child.name): child
        for child in sorted(base_path.iterdir())
        if re.fullmatch("[0-9]{1,18}", child.name) and child.is_dir()
    }


def _contents(path: Path) -> frozenset:
    """Names, sizes and times of the files; changes while a copy is under way."""
    found = set()
    for file in path.rglob("*"):
        try:
            stat = file.stat()
        except OSError:  # vanished between listing and looking
            continue
        found.add((str(file), stat.st_size, stat.st_mtime_ns))
    return frozenset(found)
