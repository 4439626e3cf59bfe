import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tfmm import augmentation
from tfmm.settings import Augmentation, ResNet50


def noise(count=6, size=16):
    """Pictures of any color, whole numbers."""
    shape = (count, size, size, 3)
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.float32)


def smooth(count=6, size=32):
    """Pictures without sharp edges, and unlike their mirror images."""
    y, x = np.mgrid[:size, :size] / size
    channels = np.stack([200 * x, 100 + 80 * np.sin(3 * y + x), 200 * x * y], axis=-1)
    return np.repeat(np.float32(channels)[None], count, axis=0)


def changed(settings, images, size=None, seed=0, **fixed):
    """Augments; `fixed` takes the place of what was drawn."""
    load_size = images.shape[1]
    size = size or load_size
    generator = np.random.default_rng(seed)
    draws = augmentation.draw(settings, len(images), load_size, size, generator)
    return augmentation.augment(settings, images, draws | fixed, size).numpy(), draws


def test_nothing_is_on_by_default():
    images = noise()
    np.testing.assert_array_equal(changed(Augmentation(), images)[0], images)


def test_a_flip_is_the_exact_mirror_image_of_half_of_all():
    images = noise(200, 15)
    flipped, _ = changed(Augmentation(flip=True), images)
    is_mirror = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    is_same = (flipped == images).all(axis=(1, 2, 3))
    assert (is_mirror ^ is_same).all()
    assert 70 < is_mirror.sum() < 130


def test_bytes_are_taken_as_they_are():
    settings = Augmentation(flip=True, saturation=(0.5, 1.5))
    np.testing.assert_array_equal(
        changed(settings, noise().astype(np.uint8))[0], changed(settings, noise())[0]
    )


def test_a_box_of_the_whole_image_is_the_image():
    images = noise()
    settings = Augmentation(min_box_area=1.0 - 1e-9, box_aspect=(1.0, 1.0))
    np.testing.assert_allclose(changed(settings, images)[0], images, atol=0.01)


def test_the_whole_of_an_image_twice_as_large_is_its_average():
    images = noise(size=32)
    settings = Augmentation(min_box_area=1.0 - 1e-9, box_aspect=(1.0, 1.0))
    halves, _ = changed(settings, images, 16)
    averages = images.reshape(6, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(halves, averages, atol=0.01)


def test_a_box_is_what_cropping_and_resizing_gives():
    images = smooth()
    settings = Augmentation(min_box_area=0.1)
    boxes, draws = changed(settings, images)
    for image, box, transform in zip(images, boxes, draws["transform"], strict=True):
        width, height = transform[0] * 32, transform[4] * 32
        left = transform[2] + 0.5 - transform[0] / 2
        top = transform[5] + 0.5 - transform[4] / 2
        assert left >= -1e-4
        assert top >= -1e-4
        assert left + width <= 32 + 1e-4
        assert top + height <= 32 + 1e-4
        # crop_and_resize counts from the middle of the first pixel to the last's.
        last_x, last_y = (
            left + width - transform[0] / 2,
            top + height - transform[4] / 2,
        )
        corners = [[transform[5], transform[2], last_y - 0.5, last_x - 0.5]]
        expected = tf.image.crop_and_resize(
            image[None], np.float32(corners) / 31, [0], [32, 32], extrapolation_value=-1
        )[0].numpy()
        inside = (expected >= 0).all(axis=-1)  # it does not look past the edge
        assert inside.mean() > 0.9
        np.testing.assert_allclose(box[inside], expected[inside], atol=0.05)


@pytest.mark.parametrize("least", [0.1, 0.85])
def test_boxes_are_spread_as_tensorflow_spreads_them(least):
    count, side = 1000, 1000
    settings = Augmentation(min_box_area=least)
    generator = np.random.default_rng(0)
    transform = augmentation.draw(settings, count, side, side, generator)["transform"]
    ours = transform[:, 0], transform[:, 4], transform[:, 2] / side

    def sample(seed):
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            [side, side, 3],
            tf.zeros([1, 0, 4]),
            tf.stack([seed, 7]),
            aspect_ratio_range=settings.box_aspect,
            area_range=(least, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        return tf.stack([size[1], size[0], begin[1]]) / side

    theirs = (
        tf.map_fn(sample, tf.range(count), fn_output_signature=tf.float64).numpy().T
    )
    for mine, other in zip(ours, theirs, strict=True):
        shares = np.linspace(0.05, 0.95, 10)
        np.testing.assert_allclose(
            np.quantile(mine, shares), np.quantile(other, shares), atol=0.05
        )


def test_a_quarter_turn_is_rot90():
    images = noise()
    quarter = augmentation.draw(
        Augmentation(rotation_degrees=90.0), 6, 16, 16, Fixed(turn=1.0)
    )
    turned, _ = changed(Augmentation(rotation_degrees=90.0), images, **quarter)
    np.testing.assert_allclose(turned, tf.image.rot90(images), atol=0.01)


class Fixed:
    """A generator whose draws are known."""

    def __init__(self, turn):
        self.turn = turn

    def random(self, shape):
        draws = np.full(shape, 0.5)
        draws[1] = self.turn
        return draws


def test_turns_go_as_far_to_either_side_as_told():
    settings = Augmentation(rotation_degrees=30.0)
    generator = np.random.default_rng(0)
    transform = augmentation.draw(settings, 500, 16, 16, generator)["transform"]
    angles = np.degrees(np.arctan2(transform[:, 3], transform[:, 0]))
    assert -30 <= angles.min() < -28
    assert 28 < angles.max() <= 30
    # The middle of the image stays where it is.
    middle = transform[:, :2] @ [7.5, 7.5] + transform[:, 2]
    np.testing.assert_allclose(middle, 7.5, atol=1e-4)


def test_brightness_is_that_of_tf_image():
    settings = Augmentation(brightness=0.13)
    images = noise()
    brighter, draws = changed(settings, images)
    assert np.abs(draws["brightness"]).max() <= 0.13 * 255
    assert len(set(draws["brightness"])) == len(images)
    for image, result, delta in zip(images, brighter, draws["brightness"], strict=True):
        expected = tf.image.adjust_brightness(image, delta)
        np.testing.assert_allclose(result, np.clip(expected, 0, 255), atol=1e-3)


def test_saturation_is_that_of_tf_image():
    settings = Augmentation(saturation=(0.5, 1.5))
    images = noise()
    images[0] = 100.0  # grey
    images[1] = 0.0  # black
    images[2] = [255.0, 0.0, 0.0]  # as colorful as can be
    results, draws = changed(settings, images)
    factors = draws["saturation"]
    assert ((factors >= 0.5) & (factors <= 1.5)).all()
    for image, result, factor in zip(images, results, factors, strict=True):
        expected = tf.image.adjust_saturation(image, factor)
        np.testing.assert_allclose(result, expected, atol=0.01)


def test_one_more_change_leaves_the_others_as_they_were():
    def draws(**settings):
        generator = np.random.default_rng(0)
        return augmentation.draw(Augmentation(**settings), 9, 16, 16, generator)

    some, more = draws(min_box_area=0.5), draws(min_box_area=0.5, brightness=0.1)
    np.testing.assert_array_equal(some["transform"], more["transform"])


def test_everything_at_once_stays_in_range():
    settings = Augmentation(
        flip=True,
        min_box_area=0.1,
        rotation_degrees=180.0,
        brightness=1.0,
        saturation=(0.0, 9.0),
    )
    results, _ = changed(settings, noise(50, 24), 16)
    assert results.shape == (50, 16, 16, 3)
    assert results.dtype == np.float32
    assert results.min() >= 0
    assert results.max() <= 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"saturation": (1.5, 0.5)}, r"'saturation' must be \[least, greatest\]"),
        ({"min_box_area": 0.9, "box_aspect": (1.2, 1.3)}, "no such box keeps"),
        ({"box_aspect": (0.5, 0.8)}, "no such box keeps"),
        ({"min_box_area": 0.0}, "greater than 0"),
    ],
)
def test_impossible_changes_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Augmentation(**settings)


@pytest.mark.parametrize(
    ("load_size", "area", "message"),
    [
        (48, 1.0, "'load_size' is for boxes"),
        (32, 0.1, "from image_size = 40 to twice that. Received: 32"),
        (81, 0.1, "from image_size = 40 to twice that. Received: 81"),
    ],
)
def test_load_sizes_that_do_not_fit_are_refused(load_size, area, message):
    def tower(load_size, area):
        return ResNet50(
            model="resnet50",
            modality="image",
            image_size=40,
            load_size=load_size,
            augmentation={"min_box_area": area},
        )

    assert tower(80, 0.1).load_size == 80
    assert tower(40, 1.0).load_size == 40
    with pytest.raises(ValidationError, match=message):
        tower(load_size, area)
