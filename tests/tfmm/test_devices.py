"""Several devices and half precision, by the command, on a catalog of titles."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from tiny import EXPERIMENT, write_catalog

from tfmm import results
from tfmm.run import Run

# Two logical devices on the one CPU, before TensorFlow looks at it.
ON_TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
half = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [half, half])
from tfmm.errors import command_line
from tfmm.fit import fit
command_line(fit, "fit")
"""


@pytest.fixture(scope="module")
def catalog_file(tmp_path_factory):
    """46 products, 24 of them to train on: two devices can share each batch of 8."""
    return write_catalog(tmp_path_factory.mktemp("catalog") / "even", products=46)


@pytest.fixture(scope="module")
def titles_only(tmp_path_factory):
    """An experiment with one text tower without dropout."""
    head = EXPERIMENT[: EXPERIMENT.index("[modalities.image]")]
    start = EXPERIMENT.index("[towers.title]")
    tower = EXPERIMENT[start : EXPERIMENT.index("[towers.image]")]
    path = tmp_path_factory.mktemp("hparams") / "titles.toml"
    path.write_text(f"{head}{tower}dropout = 0.0\n", encoding="utf-8")
    return path


def fit(experiment_file, catalog_file, run, *sets):
    words = [experiment_file, "--catalog", catalog_file, "--run", run]
    for override in sets:
        words += ["--set", override]
    return subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES, *map(str, words)],
        capture_output=True,
        text=True,
    )


def curve(run):
    with (run / "models" / "title" / "log.csv").open() as file:
        log = list(csv.DictReader(file))
    return [[float(row[x]) for x in ("train_loss", "loss")] for row in log[1:]]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, titles_only, catalog_file):
    run = tmp_path_factory.mktemp("runs") / "one"
    done = fit(titles_only, catalog_file, run)
    assert done.returncode == 0, done.stderr
    return run


def test_two_devices_have_the_loss_curve_of_one(
    tmp_path, titles_only, catalog_file, one_device
):
    done = fit(titles_only, catalog_file, tmp_path / "two", "towers.title.devices=2")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(curve(tmp_path / "two"), curve(one_device), rtol=1e-4)


def test_more_devices_than_there_are_stop_before_any_work(
    tmp_path, titles_only, catalog_file
):
    done = fit(titles_only, catalog_file, tmp_path / "x", "towers.title.devices=3")
    assert done.returncode == 2
    assert "[towers.title] devices = 3 is more than this machine has" in done.stderr
    assert not (tmp_path / "x").exists()


def test_what_half_precision_trained_is_kept_and_answers_in_float32(
    tmp_path, titles_only, catalog_file, one_device
):
    run = tmp_path / "half"
    done = fit(
        *(titles_only, catalog_file, run),
        'towers.title.precision="mixed_bfloat16"',
    )
    assert done.returncode == 0, done.stderr
    assert curve(run) != curve(one_device)
    np.testing.assert_allclose(curve(run), curve(one_device), rtol=0.1)
    place = Run(run)
    model = results.load_model(place, "title")
    assert {layer.compute_dtype for layer in model.layers[1:]} <= {"float32", "int32"}
    logits = np.load(place.outputs / "title" / "test" / "logits.npy")
    assert logits.dtype == np.float32
    assert (logits != logits.astype(np.float16)).any()
