import numpy as np
import pytest
import tensorflow as tf

from tfmm import audit, dataset, experiment, image
from tfmm import catalog as catalogs
from tfmm.dataset import Inputs


@pytest.fixture(scope="module")
def products(catalog_file, experiment_file):
    return audit.check_inputs(
        catalogs.load(catalog_file, experiment.load(experiment_file))
    )


def texts(data):
    return [x for inputs, _ in data for x in inputs["title"].numpy().tolist()]


def test_an_epoch_is_the_same_epoch_every_time_and_no_other(products):
    rows = products.rows("train")
    reads = Inputs("title")
    first = texts(dataset.epoch(products, rows, reads, 4, (0, 1)))
    assert texts(dataset.epoch(products, rows, reads, 4, (0, 1))) == first
    assert texts(dataset.epoch(products, rows, reads, 4, (0, 2))) != first
    assert texts(dataset.epoch(products, rows, reads, 4, (1, 1))) != first
    assert sorted(first) == sorted(x.encode() for x in products.texts["title"][rows])


def test_targets_stay_with_their_products(products):
    rows = products.rows("train")
    names = np.array(products.label_names)
    for inputs, outputs in dataset.epoch(products, rows, Inputs("title"), 4, (0, 1)):
        titles = inputs["title"].numpy()
        for title, target in zip(titles, outputs["logits"], strict=True):
            has_lamp = "lamp" in names[target.numpy() > 0]
            assert has_lamp == (b"bright" in title) or not title


def test_images_are_decoded_as_they_are_served(products):
    rows = products.rows("train")
    rows = rows[products.present("image", rows)][:5]
    (batch,) = dataset.batches(products, rows, Inputs("image", 16), 8)
    encoded = [tf.io.read_file(path) for path in products.images["image"][rows]]
    expected, _ = image.decode_batch(tf.stack(encoded), 16)
    np.testing.assert_array_equal(batch["image"], expected)


def test_flips_come_from_the_seed_and_the_epoch(products):
    rows = products.rows("train")
    rows = rows[products.present("image", rows)]
    reads = Inputs("image", 16, random_flip=True)

    def images(epoch):
        data = dataset.epoch(products, rows, reads, 64, (0, epoch))
        return next(iter(data))[0]["image"].numpy()

    plain = next(iter(dataset.epoch(products, rows, Inputs("image", 16), 64, (0, 1))))
    plain = plain[0]["image"].numpy()
    np.testing.assert_array_equal(images(1), images(1))
    flipped = (images(1) != plain).any(axis=(1, 2, 3))
    assert 0 < flipped.sum() < len(rows)
    np.testing.assert_array_equal(images(1)[flipped], plain[flipped][:, :, ::-1])


def test_arrays_are_shuffled_together():
    inputs = {"title": {"logits": np.arange(10.0)}}
    data = dataset.arrays_epoch(inputs, np.arange(10), 4, (0, 1))
    for values, targets in data:
        np.testing.assert_array_equal(values["title"]["logits"], targets["logits"])
