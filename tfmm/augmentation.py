"""Random changes of training images: drawn outside the graph, made in it.

What is drawn depends on a generator alone and each image has draws of its own, so
neither the size of a batch nor the number of threads changes a pixel.
"""

import numpy as np
import tensorflow as tf

from tfmm.settings import Augmentation


def draw(
    settings: Augmentation,
    count: int,
    load_size: int,
    image_size: int,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draws what happens to some images.

    The box is drawn as `tf.image.sample_distorted_bounding_box` does it: its aspect
    uniformly in `box_aspect`, its height uniformly between that of the least area
    and the greatest that fits, its place uniformly. An aspect with which the least
    area does not fit, which TensorFlow draws again, is never drawn. The box is turned
    about its own middle by an angle that is uniform to both sides; what it then shows
    from outside the image is the image mirrored at its edge.

    Aspect and area are those of the loaded square, not of the file's own picture
    (ours: images are loaded as squares).

    Args:
        settings: How far changes go.
        count: `n`, the number of images.
        load_size: Side in pixels of the images.
        image_size: Side in pixels of the results.
        generator: Where randomness comes from. Settings that are off draw too, so
            that turning one on does not change the others.

    Returns:
        `transform`, float32 `(n, 8)`: the projective transform from a pixel of the
        result to the pixel of the image that is seen there, as
        `ImageProjectiveTransformV3` takes it; `brightness`, float32 `(n,)` in
        [-255, 255]: what is added; `saturation`, float32 `(n,)`: a factor.

    Reference:
    - Åberg 2018 (box, flip, brightness, saturation); Verma et al. 2020 (rotation,
        flip, crop).
    """
    draws = generator.random((8, count))
    flip, turn, aspect, height, left, top, brightness, saturation = draws
    low = max(settings.box_aspect[0], settings.min_box_area)
    high = min(settings.box_aspect[1], 1.0 / settings.min_box_area)
    aspect = low + (high - low) * aspect
    least = np.sqrt(settings.min_box_area / aspect)
    greatest = np.minimum(1.0, 1.0 / aspect)
    height = np.minimum(least + (greatest - least) * height, greatest)
    width = height * aspect
    left, top = (1.0 - width) * left, (1.0 - height) * top
    angle = np.radians(settings.rotation_degrees) * (2.0 * turn - 1.0)
    mirrored = np.where(settings.flip & (flip < 0.5), -1.0, 1.0)

    # The middle of the box, and a step of one result pixel to the right and down.
    middle_x, middle_y = load_size * (left + width / 2), load_size * (top + height / 2)
    right = load_size / image_size * width * mirrored
    down = load_size / image_size * height
    cos, sin = np.cos(angle), np.sin(angle)
    right_x, right_y = right * cos, right * sin
    down_x, down_y = -down * sin, down * cos
    # Pixels lie half a step off the corner, in the image and in the result.
    center = (image_size - 1) / 2
    transform = np.stack(
        [
            right_x,
            down_x,
            middle_x - 0.5 - center * (right_x + down_x),
            right_y,
            down_y,
            middle_y - 0.5 - center * (right_y + down_y),
            np.zeros(count),
            np.zeros(count),
        ],
        axis=1,
    )
    low, high = settings.saturation
    return {
        "transform": transform.astype(np.float32),
        "brightness": np.float32(255 * settings.brightness * (2 * brightness - 1)),
        "saturation": np.float32(low + (high - low) * saturation),
    }


def augment(
    settings: Augmentation,
    images: tf.Tensor,
    draws: dict[str, tf.Tensor],
    image_size: int,
) -> tf.Tensor:
    """Makes the drawn changes: box, turn and mirror at once, brightness, saturation.

    Pixels are read bilinearly, without a filter against aliasing, as paper B resizes
    its boxes. A result pixel covers at most two pixels of the image each way, since
    `load_size` is at most twice `image_size`, so that none is passed over. A mere
    mirror image is exact.

    Brightness is added, and saturation multiplied in the HSV color space with hue
    and value kept: `c' = v - (v - c) * min(factor, v / (v - w))`, where `v` is the
    pixel's greatest channel and `w` its least. So both are what `tf.image` does to a
    single image (`adjust_brightness`, `adjust_saturation`). The result of each is
    clipped to [0, 255].

    Args:
        settings: What is on; what is off costs nothing.
        images: float32 or uint8 `(batch, load_size, load_size, 3)` in [0, 255].
        draws: The rows of what `draw` returns that belong to these images.
        image_size: Side in pixels of the results.

    Returns:
        float32 `(batch, image_size, image_size, 3)` in [0, 255].
    """
    images = tf.cast(images, tf.float32)
    if settings.flip or settings.rotation_degrees or settings.min_box_area < 1.0:
        images = tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=draws["transform"],
            output_shape=[image_size, image_size],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )
    if settings.brightness:
        images += draws["brightness"][:, None, None, None]
        images = tf.clip_by_value(images, 0.0, 255.0)
    if settings.saturation != (1.0, 1.0):
        greatest = tf.reduce_max(images, axis=-1, keepdims=True)
        least = tf.reduce_min(images, axis=-1, keepdims=True)
        # A grey pixel stays what it is whatever the factor.
        full = greatest / tf.maximum(greatest - least, 1e-6)
        factor = tf.minimum(draws["saturation"][:, None, None, None], full)
        images = greatest - (greatest - images) * factor
        images = tf.clip_by_value(images, 0.0, 255.0)
    return tf.ensure_shape(images, [None, image_size, image_size, 3])
