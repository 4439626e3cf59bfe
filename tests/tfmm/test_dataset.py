import numpy as np
import pytest
import tensorflow as tf

from tfmm import audit, dataset, experiment, image, image_cache
from tfmm import catalog as catalogs
from tfmm.dataset import Inputs
from tfmm.settings import Augmentation


@pytest.fixture(scope="module")
def products(catalog_file, experiment_file):
    return audit.check_inputs(
        catalogs.load(catalog_file, experiment.load(experiment_file))
    )


def texts(data):
    return [x for inputs, _ in data for x in inputs["title"].numpy().tolist()]


def test_an_epoch_is_the_same_epoch_every_time_and_no_other(products):
    rows = products.rows("train")
    reads = {"title": Inputs("title")}
    first = texts(dataset.epoch(products, rows, reads, 4, (0, 1)))
    assert texts(dataset.epoch(products, rows, reads, 4, (0, 1))) == first
    assert texts(dataset.epoch(products, rows, reads, 4, (0, 2))) != first
    assert texts(dataset.epoch(products, rows, reads, 4, (1, 1))) != first
    assert sorted(first) == sorted(x.encode() for x in products.texts["title"][rows])


def test_targets_stay_with_their_products(products):
    rows = products.rows("train")
    names = np.array(products.label_names)
    for inputs, outputs in dataset.epoch(
        products, rows, {"title": Inputs("title")}, 4, (0, 1)
    ):
        titles = inputs["title"].numpy()
        for title, target in zip(titles, outputs["logits"], strict=True):
            has_lamp = "lamp" in names[target.numpy() > 0]
            assert has_lamp == (b"bright" in title) or not title


def test_images_are_decoded_as_they_are_served(products):
    rows = products.rows("train")
    rows = rows[products.present("image", rows)][:5]
    (batch,) = dataset.batches(products, rows, {"image": Inputs("image", 16)}, 8)
    encoded = [tf.io.read_file(path) for path in products.images["image"][rows]]
    expected, _ = image.decode_batch(tf.stack(encoded), 16)
    np.testing.assert_array_equal(batch["image"], expected)


EVERYTHING = Augmentation(
    flip=True,
    min_box_area=0.1,
    rotation_degrees=20.0,
    brightness=0.13,
    saturation=(0.5, 1.5),
)


def pictures(products, reads, batch_size=64, seed=(0, 1), **options):
    rows = products.present_rows("image", "train")
    data = dataset.epoch(products, rows, {"image": reads}, batch_size, seed, **options)
    return np.concatenate([inputs["image"] for inputs, _ in data])


def test_flips_come_from_the_seed_and_the_epoch(products):
    reads = Inputs("image", 16, augmentation=Augmentation(flip=True))
    plain, flipped = pictures(products, Inputs("image", 16)), pictures(products, reads)
    changed = (flipped != plain).any(axis=(1, 2, 3))
    assert 0 < changed.sum() < len(plain)
    np.testing.assert_array_equal(flipped[changed], plain[changed][:, :, ::-1])


def test_augmentation_comes_from_the_seed_and_the_epoch(products):
    reads = Inputs("image", 16, 24, EVERYTHING)
    first = pictures(products, reads)
    assert first.shape[1:] == (16, 16, 3)
    np.testing.assert_array_equal(pictures(products, reads), first)
    assert (pictures(products, reads, seed=(0, 2)) != first).any()
    assert (pictures(products, reads, seed=(1, 1)) != first).any()


def test_augmentation_does_not_know_of_batches(products):
    reads = Inputs("image", 16, 24, EVERYTHING)
    np.testing.assert_array_equal(
        pictures(products, reads, batch_size=5), pictures(products, reads)
    )


def test_only_training_is_augmented(products):
    rows = products.present_rows("image", "train")
    for reads in (Inputs("image", 16), Inputs("image", 16, 24, EVERYTHING)):
        (batch,) = dataset.batches(products, rows, {"image": reads}, 64)
        expected = image.decode_files(products.images["image"][rows], 16)
        np.testing.assert_array_equal(batch["image"], list(expected))


def test_a_cache_gives_what_decoding_gives(products, tmp_path):
    rows = products.present_rows("image", "train")
    reads = Inputs("image", 16, 24, EVERYTHING)
    caches = {
        ("image", size): image_cache.ready(
            tmp_path / str(size), products, "image", size
        )
        for size in reads.sizes
    }
    assert set(caches) == {("image", 16), ("image", 24)}
    (live,) = dataset.batches(products, rows, {"image": reads}, 64)
    (cached,) = dataset.batches(products, rows, {"image": reads}, 64, caches)
    np.testing.assert_array_equal(cached["image"], live["image"])
    np.testing.assert_array_equal(
        pictures(products, reads, batch_size=5, caches=caches),
        pictures(products, reads, batch_size=5),
    )


def test_a_string_has_no_size(products):
    assert Inputs("title").sizes == set()
    assert Inputs("image", 16).sizes == {16}


def test_arrays_are_shuffled_together():
    inputs = {"title": {"logits": np.arange(10.0)}}
    targets = {"logits": np.arange(10)}
    data = dataset.arrays_epoch(inputs, targets, 4, (0, 1), np.arange(10.0))
    for values, truth, weights in data:
        np.testing.assert_array_equal(values["title"]["logits"], truth["logits"])
        np.testing.assert_array_equal(weights["logits"], truth["logits"])


@pytest.mark.parametrize("cached", [False, True])
def test_a_model_of_several_inputs_is_told_what_is_missing(products, tmp_path, cached):
    reads = {
        "title": Inputs("title", flagged=True),
        "picture": Inputs("image", 16, flagged=True),
    }
    caches = {}
    if cached:
        caches["image", 16] = image_cache.ready(tmp_path / "c", products, "image", 16)
    rows = np.arange(len(products))
    (whole,) = dataset.batches(products, rows, reads, 64, caches)
    here = products.present("image", rows)
    assert 0 < here.sum() < len(rows)
    np.testing.assert_array_equal(whole["picture_present"], here)
    assert not whole["picture"].numpy()[~here].any()
    (hidden,) = dataset.batches(products, rows, reads, 64, caches, hidden={"title"})
    assert not hidden["title_present"].numpy().any()
    assert set(hidden["title"].numpy()) == {b""}
    np.testing.assert_array_equal(hidden["picture"], whole["picture"])


def test_modality_dropout_hides_an_input_and_never_the_last_one(products):
    reads = {
        "title": Inputs("title", flagged=True),
        "picture": Inputs("image", 16, flagged=True),
    }
    rows = np.arange(len(products))
    (batch, _), *_ = dataset.epoch(products, rows, reads, 64, (0, 1), {}, 0.7)
    seen = [batch[f"{key}_present"].numpy() for key in reads]
    assert not batch["picture"].numpy()[~seen[1]].any()
    assert (np.sum(seen, axis=0) == 1).sum() > len(rows) / 3
    assert np.any(seen, axis=0).all()
