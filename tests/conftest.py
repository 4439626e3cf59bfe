"""One run on a tiny catalog, which many tests look at."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import process
from filelock import FileLock
from tiny import EXPERIMENT, write_catalog

# Whatever the caller's is: tests read what commands print.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def pytest_collection_finish():
    """Keeps what was imported out of every search for garbage from here on."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A function that has a folder made once, for all processes that run tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def place(name: str, make: Callable[[Path], None]) -> Path:
        whole, made = folder / f"shared_{name}", folder / f"shared_{name}.made"
        with FileLock(folder / f"shared_{name}.lock"):
            if not made.exists():
                make(whole)
                made.touch()
        return whole

    return place


@pytest.fixture(scope="session")
def catalog_file(shared) -> Path:
    return shared("catalog", write_catalog) / "catalog.csv"


@pytest.fixture(scope="session")
def experiment_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hparams") / "tiny.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def fitted(shared, catalog_file, experiment_file) -> Path:
    """A run that the command made. Tests must not write into it."""

    def fit(run: Path) -> None:
        done = process(
            *("-m", "tfmm.fit", experiment_file, "--catalog", catalog_file),
            *("--run", run),
        )
        assert done.returncode == 0, done.stderr

    return shared("run", fit)


@pytest.fixture(scope="session")
def bundle(shared, fitted) -> Path:
    """What the export command made of the fitted run."""

    def export(models: Path) -> None:
        done = process("-m", "export", fitted, "--to", models / "tiny")
        assert done.returncode == 0, done.stderr

    return shared("models", export) / "tiny" / "1"
