from dataclasses import replace

import numpy as np
import pytest

from tfmm import audit, experiment, image, image_cache
from tfmm import catalog as catalogs
from tfmm.errors import RunError


@pytest.fixture(scope="module")
def products(catalog_file, experiment_file):
    return audit.check_inputs(
        catalogs.load(catalog_file, experiment.load(experiment_file))
    )


@pytest.fixture
def made(tmp_path, products):
    path = tmp_path / "cache" / "image-16"
    image_cache.ready(path, products, "image", 16)
    return path


def decoded(products, size=16):
    rows = np.arange(len(products))
    rows = rows[products.present("image", rows) & (products.split != "")]
    return rows, np.stack(
        list(image.decode_files(products.images["image"][rows], size))
    )


def test_a_cache_holds_what_decoding_gives(made, products):
    cache = image_cache.ready(made, products, "image", 16)
    rows, expected = decoded(products)
    assert cache.dtype == np.uint8
    assert cache.shape == (len(products), 16, 16, 3)
    np.testing.assert_array_equal(np.float32(cache[rows]), expected)
    others = np.setdiff1d(np.arange(len(products)), rows)
    assert len(others)
    assert not cache[others].any()


def test_a_cache_is_made_once(made, products, monkeypatch):
    monkeypatch.setattr(image, "decode_files", None)
    assert image_cache.ready(made, products, "image", 16).any()


def test_a_cache_cannot_be_written_to(made, products):
    with pytest.raises(ValueError, match="read-only"):
        image_cache.ready(made, products, "image", 16)[0] = 0


def is_made_again(made, products, capfd, told):
    cache = image_cache.ready(made, products, "image", 16)
    assert told in capfd.readouterr().err
    rows, expected = decoded(products)
    np.testing.assert_array_equal(cache[rows], expected)
    assert [x.name for x in made.parent.iterdir()] == [made.name]


def test_a_stale_cache_is_made_again(made, products, capfd):
    other = replace(products, sha256="another file")
    is_made_again(made, other, capfd, "made from another catalog or decoder")


def test_another_decoder_makes_a_cache_again(made, products, capfd, monkeypatch):
    monkeypatch.setattr(image, "DECODER_VERSION", image.DECODER_VERSION + 1)
    is_made_again(made, products, capfd, "made from another catalog or decoder")


@pytest.mark.parametrize("length", [0, 100, 5_000])
def test_a_truncated_cache_is_made_again(made, products, capfd, length):
    with (made / "images.npy").open("r+b") as file:
        file.truncate(length)
    is_made_again(made, products, capfd, "lost or damaged")


@pytest.mark.parametrize("name", ["images.npy", "cache.json"])
def test_a_lost_part_makes_a_cache_again(made, products, capfd, name):
    (made / name).unlink()
    is_made_again(made, products, capfd, "lost or damaged")


def test_something_else_in_its_place_is_made_again(made, products, capfd):
    np.save(made / "images.npy", np.zeros((2, 2)))
    is_made_again(made, products, capfd, "replaced by something else")


def test_a_cache_that_was_interrupted_leaves_nothing(tmp_path, products, monkeypatch):
    monkeypatch.setattr(image_cache, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        image_cache.ready(tmp_path / "image-16", products, "image", 16)
    assert not list(tmp_path.iterdir())


def interrupt(path, content):
    raise KeyboardInterrupt


def test_a_full_disk_is_told_before_any_work(tmp_path, products, monkeypatch):
    full = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: full)
    with pytest.raises(
        RunError, match=r"Received: 0\.0 GB free; set catalog\.cache_im"
    ):
        image_cache.ready(tmp_path / "image-16", products, "image", 16)
    assert not list(tmp_path.iterdir())
