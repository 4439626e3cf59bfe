"""The run directory: the only place that knows the names inside it.

RUN/
  experiment.toml            the resolved experiment; `tfmm.fit` takes it again
  run.json                   commands and when, versions, catalog hash
  catalog/labels.txt         the label names, in order
  catalog/splits.csv         id, split of every product
  catalog/left_out.csv       id, reason: no usable label, or data_rate
  catalog/bad_images.csv     id, modality, path, reason
  catalog/samples.json       raw inputs of a few test products
  catalog/sizes.csv          id, split and, by modality, characters or bytes as given
  catalog/test_texts.json    texts of test products, for what is counted in words
  audit/                     audit.json, index.html, findings.csv, groups.csv
  catalog/products.parquet   what every product looks like; see products.py.
                             NAME.products.parquet: of another catalog
  models/MODEL/model.keras   a tower or a head
  models/MODEL/model.json    its fingerprint and how training went
  models/MODEL/log.csv       a line an epoch
  models/MODEL/tensorboard/  the same for TensorBoard
  models/MODEL/training/     checkpoint and best weights, until training ends
  models/MODEL/folds/N/      the same for the tower of a fold, and what it says
  cache/MODALITY-SIDE/       decoded images; may be deleted
  outputs/                   see outputs.py
  exhibits/SPLIT/            what reports show that needs models; see exhibits/
  report/SPLIT/              report.json, index.html, *.png
  search/MODEL/              see search/__init__.py
  lock                       held by the process that works here
"""

import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from tfmm import __version__, experiment
from tfmm.errors import RunError
from tfmm.experiment import Experiment

LIBRARIES = (
    "tensorflow",
    "tensorflow-text",
    "keras",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "lightgbm",
    "tensorflow-serving-api",
    "matplotlib",
    "pillow",
    "py3langid",
    "pydantic",
    "keras-hub",
    "sentencepiece",
    "safetensors",
    "h5py",
)

# What settings that name a file may hold instead of a path.
NOT_PATHS = ("none", "imagenet", "preset", "random", "english")


# What a run holds at its top; a folder with anything else is somebody's own.
OWN_NAMES = {
    "audit",
    "cache",
    "catalog",
    "exhibits",
    "experiment.toml",
    "lock",
    "models",
    "outputs",
    "report",
    "run.json",
    "search",
}
LEFTOVER = r"\..+\.\d+\.(partial|old)"


def fingerprint(*parts: Any) -> str:
    """64 bits, as hexadecimal, of anything that JSON can hold.

    Example:
    >>> fingerprint({"a": 1}) == fingerprint({"a": 1})
    True
    >>> fingerprint({"a": 1}) == fingerprint({"a": 2})
    False
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path`; what is there at the end takes its place.

    Works for files and for directories. After an error nothing is left behind and
    `path` is as it was.

    Raises:
        RunError: If the place cannot be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        partial.touch()  # now rather than after hours of work
        partial.unlink()
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        yield partial
        if partial.is_dir() and path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            os.rename(path, old)
            os.rename(partial, path)
            _remove(old)
        else:
            os.replace(partial, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS):
            raise RunError(f"{path}: cannot be written: {error.strerror}") from None
        raise
    finally:
        _remove(partial)


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of_files(tower: Any) -> str:
    """A hash of the files and folders that a tower's settings name; "" if none."""
    named = {
        key: Path(value)
        for key in ("weights", "embedding", "stop_words", "preset")
        if (value := getattr(tower, key, "")) and value not in NOT_PATHS
    }
    found = {}
    for key, path in named.items():
        if path.is_file():
            found[key] = file_hash(path)
        elif path.is_dir():
            for file in sorted(x for x in path.rglob("*") if x.is_file()):
                found[f"{key}/{file.relative_to(path)}"] = file_hash(file)
    return fingerprint(found) if found else ""


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON in one move: a reader sees the old file or the new one."""
    with replacing(path) as partial:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Reads JSON of a run; `RunError` if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; the run is not that far yet") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged: {error}") from None


class Run:
    """The names inside one run directory.

    Args:
        path: The directory. It need not exist yet.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.experiment_file = self.path / "experiment.toml"
        self.info_file = self.path / "run.json"
        self.catalog = self.path / "catalog"
        self.labels_file = self.path / "catalog" / "labels.txt"
        self.splits_file = self.path / "catalog" / "splits.csv"
        self.samples_file = self.catalog / "samples.json"
        self.sizes_file = self.catalog / "sizes.csv"
        self.test_texts_file = self.catalog / "test_texts.json"
        self.audit = self.path / "audit"
        self.audit_file = self.audit / "audit.json"
        self.outputs = self.path / "outputs"

    def products_file(self, name: str = "") -> Path:
        """Of the run's catalog, or of another one that is called `name` here."""
        return self.catalog / f"{name}{'.' if name else ''}products.parquet"

    def model_file(self, name: str) -> Path:
        return self.path / "models" / name / "model.keras"

    def model_info_file(self, name: str) -> Path:
        return self.path / "models" / name / "model.json"

    def log_file(self, name: str) -> Path:
        return self.path / "models" / name / "log.csv"

    def tensorboard(self, name: str) -> Path:
        return self.path / "models" / name / "tensorboard"

    def training(self, name: str) -> Path:
        return self.path / "models" / name / "training"

    def fold(self, name: str, fold: int) -> Path:
        return self.path / "models" / name / "folds" / str(fold)

    def cases(self, name: str, split: str) -> Path:
        return self.outputs / name / f"{split}.cases"

    def image_cache(self, modality: str, size: int) -> Path:
        return self.path / "cache" / f"{modality}-{size}"

    def calibration_file(self, name: str) -> Path:
        return self.outputs / name / "calibration.json"

    def exhibits_file(self, split: str) -> Path:
        return self.path / "exhibits" / split / "exhibits.json"

    def report(self, split: str) -> Path:
        return self.path / "report" / split

    def search(self, name: str) -> Path:
        return self.path / "search" / name

    @property
    def exists(self) -> bool:
        return self.info_file.exists()

    def require(self) -> None:
        """Raises `RunError` unless this is a run."""
        if not self.exists:
            found = "no such folder" if not self.path.exists() else "not a run"
            raise RunError(f"{self.path}: {found}; expected what tfmm.fit --run made")

    def read_experiment(self) -> Experiment:
        """The resolved experiment that the run was made with."""
        self.require()
        return experiment.load(self.experiment_file)

    def read_info(self) -> dict[str, Any]:
        """`run.json`: the command, the versions, the catalog's hashes."""
        self.require()
        info = read_json(self.info_file)
        try:
            needed = info["catalog"]["fingerprint"], info["commands"]
            known = all(needed) and isinstance(info["weights_files"], dict)
        except (KeyError, TypeError):
            known = False
        if not known:
            raise RunError(f"{self.info_file}: not what tfmm.fit writes; use a new run")
        return info

    def read_labels(self) -> tuple[str, ...]:
        """The label names, in the order of every output."""
        self.require()
        try:
            text = self.labels_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(
                f"{self.labels_file}: cannot be read: {error}; run tfmm.fit --resume"
            ) from None
        *names, rest = text.split("\n")
        if rest or len(names) < 2:
            raise RunError(
                f"{self.labels_file}: truncated: expected two labels or more, a line "
                f"each; run tfmm.fit --resume"
            )
        return tuple(names)

    def write_start(
        self, settings: Experiment, command: list[str], catalog: dict[str, Any]
    ) -> None:
        """Writes what makes a directory a run, or notes that it is gone on with.

        Args:
            settings: The resolved experiment.
            command: The command line.
            catalog: `path`, `sha256` and `fingerprint` of the catalog.
        """
        content = settings.model_dump(mode="json", exclude_none=True)
        for column in {"group", "split"} - settings.catalog.model_fields_set:
            del content["catalog"][column]  # used if there; named, they must be there
        with replacing(self.experiment_file) as partial:
            partial.write_text(tomli_w.dumps(content), encoding="utf-8")
        commands = self.read_info()["commands"] if self.exists else []
        now = datetime.now(UTC).isoformat(timespec="seconds")
        weights_files = {
            name: found
            for name, tower in settings.towers.items()
            if (found := _hash_of_files(tower))
        }
        versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
        write_json(
            self.info_file,
            {
                "tfmm": __version__,
                "commands": [*commands, {"at": now, "command": command}],
                "catalog": catalog,
                "weights_files": weights_files,
                "seed": settings.seed,
                "python": platform.python_version(),
                "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
                "versions": versions,
            },
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from working in this run meanwhile.

        Raises:
            RunError: If another process holds it. A killed process holds nothing.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path}: expected a folder to write the run into")
        is_new = not self.path.exists()
        names = set() if is_new else {x.name for x in self.path.iterdir()}
        foreign = {x for x in names - OWN_NAMES if not re.fullmatch(LEFTOVER, x)}
        if not self.exists and foreign:
            raise RunError(
                f"{self.path}: expected a new folder or a run; it holds other files, "
                f"such as {min(foreign)!r}"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / "lock").open("a")
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be written: {error.strerror}"
            ) from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.path}: another process is working in this run"
                ) from None
            # Left by a killed process. Listed first: they lie inside each other.
            for partial in list(self.path.rglob(".*")):
                if re.fullmatch(LEFTOVER, partial.name):
                    _remove(partial)
            try:
                yield
            finally:
                if is_new and [x.name for x in self.path.iterdir()] == ["lock"]:
                    shutil.rmtree(self.path)  # stopped before anything was made
