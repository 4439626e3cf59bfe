"""One run on a tiny catalog, which many tests look at."""

import os
from pathlib import Path

import pytest
from tiny import EXPERIMENT, command, write_catalog

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="session")
def catalog_file(tmp_path_factory) -> Path:
    return write_catalog(tmp_path_factory.mktemp("catalog"))


@pytest.fixture(scope="session")
def experiment_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hparams") / "tiny.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, catalog_file, experiment_file) -> Path:
    """A run that the command made. Tests must not write into it."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    done = command(
        *("-m", "tfmm.fit", experiment_file, "--catalog", catalog_file, "--run", path)
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, fitted) -> Path:
    """What the export command made of the fitted run."""
    models = tmp_path_factory.mktemp("models") / "tiny"
    done = command("-m", "export", fitted, "--to", models)
    assert done.returncode == 0, done.stderr
    return models / "1"
