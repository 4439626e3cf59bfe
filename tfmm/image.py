"""Image decoding and resizing as graph functions, shared by training and export."""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

# What became of an image; position = the code that the graph works with.
STATUSES = ("missing", "used", "not an image", "too large", "corrupt", "skipped")
MISSING, USED, NOT_AN_IMAGE, TOO_LARGE, CORRUPT, SKIPPED = range(len(STATUSES))

# Part of what caches of decoded images are known by: to be raised when this file
# begins to give other pixels for the same bytes.
DECODER_VERSION = 2

MAX_PIXELS = 50_000_000  # width x height; a decoded image takes 3 bytes a pixel
MAX_FILE_BYTES = 100_000_000
# A GIF's frames may be larger than its header says, and each byte may stand for some
# 1,400 pixels of one byte: so a length that a server survives, not one that it likes.
MAX_GIF_BYTES = 250_000


def decode_batch(
    encoded: tf.Tensor, size: int, *, whole: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of image files; a bad one does not touch its neighbours.

    Args:
        encoded: string `(batch,)`: JPEG, PNG, GIF (first frame), BMP or WebP bytes;
            `""` for a missing image.
        size: Side in pixels.
        whole: Decode every pixel, however large the image.

    Returns:
        float32 `(batch, size, size, 3)`, whole numbers in [0, 255], black where not
        `USED`; and int32 `(batch,)` positions in `STATUSES`.
    """
    rows = tf.size(encoded, out_type=tf.int64)

    def row(index):
        image, status = _decode(encoded[index], MAX_PIXELS if whole else size)
        return index, _resize(image, size), status

    # An element that raises is dropped, so a bad row costs only itself. A dataset
    # that stays empty cannot be taken as one batch, hence the last element, which
    # stands for no row.
    decoded = tf.data.Dataset.range(rows).map(
        row, num_parallel_calls=2, deterministic=True
    )
    last = tf.data.Dataset.from_tensors(
        (rows, tf.zeros([size, size, 3]), tf.constant(MISSING))
    )
    index, images, status = (
        decoded.ignore_errors().concatenate(last).batch(rows + 1).get_single_element()
    )
    index, images, status = index[:-1, None], images[:-1], status[:-1]
    shape = tf.stack([rows, size, size, 3])
    images = tf.ensure_shape(tf.scatter_nd(index, images, shape), [None, size, size, 3])
    # A row that never came back keeps code 0 after the scatter.
    came_back = tf.scatter_nd(index, tf.ones_like(status), rows[None]) > 0
    status = tf.scatter_nd(index, status, rows[None])
    return images, tf.where(came_back, status, CORRUPT)


def decode_file(path: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes one image file of a checked catalog, to the pixels of `decode_batch`.

    A small JPEG is decoded and resized in less time than TensorFlow needs to go
    through all the branches of `_decode`. Since the file was checked, its first bytes
    are enough to know one.

    Args:
        path: string scalar.
        size: Side in pixels.

    Returns:
        float32 `(size, size, 3)`, whole numbers in [0, 255]. A file that cannot be
        used raises `tf.errors.InvalidArgumentError`.
    """
    encoded = tf.io.read_file(path)
    is_jpeg = tf.equal(tf.strings.substr(encoded, 0, len(JPEG)), JPEG)
    image = tf.cond(
        is_jpeg,
        lambda: _decode_jpeg(encoded, tf.io.extract_jpeg_shape(encoded)[:2], size),
        lambda: _decode_any(encoded, path, size),
    )
    return _resize(image, size)


def decode_files(paths: np.ndarray, size: int) -> tf.data.Dataset:
    """Decodes image files of a checked catalog in parallel.

    Args:
        paths: `(n,)` strings; `""` where there is no image.
        size: Side in pixels.

    Returns:
        Dataset of what `decode_file` returns, in the order of `paths`; black where
        there is no image.
    """

    def decode(path):
        return decode_file(path, size)

    def decode_or_black(path):
        nothing = partial(tf.zeros, [size, size, 3])
        return tf.cond(tf.equal(path, ""), nothing, partial(decode, path))

    whole = all(path != "" for path in paths)
    return tf.data.Dataset.from_tensor_slices(paths).map(
        decode if whole else decode_or_black,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


# A call that stays a call: put in line, its operations would be walked through for
# every JPEG too.
@tf.function(
    input_signature=[
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.int32),
    ],
    autograph=False,
    experimental_attributes={"_noinline": True},
)
def _decode_any(encoded: tf.Tensor, path: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    image, status = _decode(encoded, size)

    def fail():
        # Says the path, which is no number. An assertion would do, were it not
        # stateful: see `_numbers`.
        return tf.fill(
            [1, 1, 3], tf.strings.to_number(tf.strings.join(["Cannot use ", path]))
        )

    return tf.cond(tf.equal(status, USED), lambda: image, fail)


def _decode(encoded: tf.Tensor, size: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """One image and its status; raises where only decoding shows the damage."""

    def jpeg():
        sides = tf.io.extract_jpeg_shape(encoded)[:2]
        return _if_small(_product(sides), lambda: _decode_jpeg(encoded, sides, size))

    return tf.switch_case(
        _kind(encoded),
        [
            lambda: _nothing(MISSING),
            jpeg,
            lambda: _if_small(
                _product(_numbers(encoded, 16, 2, tf.int32, little=False)),
                lambda: _on_white(_decode_png(encoded)),
            ),
            lambda: _if_small(
                _gif_pixels(encoded),
                lambda: _float(tf.io.decode_image(encoded, 3, expand_animations=False)),
            ),
            lambda: _if_small(
                _product(_numbers(encoded, 18, 2, tf.int32)),
                lambda: _on_white(tf.io.decode_bmp(encoded)),
            ),
            lambda: _if_small(
                _webp_pixels(encoded),
                lambda: _on_white(tf.io.decode_webp(encoded)[0]),
            ),
            lambda: _nothing(NOT_AN_IMAGE),
        ],
    )


def _kind(encoded: tf.Tensor) -> tf.Tensor:
    """Which of the branches of `_decode` a file takes."""
    # Padded, because a substring that ends past the end is short.
    head = tf.strings.join([tf.strings.substr(encoded, 0, 12), b"\0" * 12])
    head = tf.io.decode_raw(tf.strings.substr(head, 0, 12), tf.uint8)
    wanted = b"".join(magic.ljust(12, b"?") for magic in MAGIC)
    wanted = np.frombuffer(wanted, np.uint8).reshape(-1, 12)
    fits = tf.reduce_all((head == wanted) | (wanted == ord("?")), axis=1)
    kind = 1 + tf.argmax(tf.cast(fits, tf.int32), output_type=tf.int32)
    return tf.where(tf.equal(tf.strings.length(encoded), 0), 0, kind)


def _if_small(
    pixels: tf.Tensor, decode: Callable[[], tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cond(
        pixels > MAX_PIXELS,
        lambda: _nothing(TOO_LARGE),
        lambda: (decode(), tf.constant(USED)),
    )


def _nothing(status: int) -> tuple[tf.Tensor, tf.Tensor]:
    return _float(tf.zeros([1, 1, 3])), tf.constant(status)


# The first bytes of each kind of file; any byte for "?". The last fits every file.
JPEG = b"\xff\xd8\xff"
MAGIC = (JPEG, b"\x89PNG", b"GIF8", b"BM", b"RIFF????WEBP", b"")

# The exact transform, so that training and serving agree to the last digit. Half a
# JPEG is still a picture of the product; less is not.
JPEG_OPTIONS = {"dct_method": "INTEGER_ACCURATE", "acceptable_fraction": 0.5}


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    image = tf.ensure_shape(image, [None, None, 3])
    image = tf.image.resize(image, [size, size], antialias=True)
    # Whole numbers, so that a cache of bytes holds the very same pixels.
    image = tf.round(tf.clip_by_value(image, 0.0, 255.0))
    return tf.ensure_shape(image, [size, size, 3])


def _decode_jpeg(
    encoded: tf.Tensor, sides: tf.Tensor, size: int | tf.Tensor
) -> tf.Tensor:
    """Decodes a JPEG, a large one at 1/2, 1/4 or 1/8 of its size.

    The shorter side is left at least twice as long as it is to be, so that resizing
    still has the last word.

    Args:
        encoded: string scalar.
        sides: int32 `(2,)`, by its header.
        size: Side in pixels that it will be resized to.
    """
    ratios = np.array([2, 4, 8], np.int32)
    steps = tf.cast(tf.reduce_min(sides) // ratios >= 2 * size, tf.int32)
    branches = [partial(_at_ratio, encoded, ratio) for ratio in (1, *ratios.tolist())]
    return tf.switch_case(tf.reduce_sum(steps), branches)


def _at_ratio(encoded: tf.Tensor, ratio: int) -> tf.Tensor:
    return _float(tf.io.decode_jpeg(encoded, 3, ratio=ratio, **JPEG_OPTIONS))


def _float(image: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.cast(image, tf.float32), [None, None, 3])


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    """A PNG with its alpha channel, where it has one or a transparent colour."""
    # A palette shows its transparent colours only when alpha is asked for. Asking for
    # alpha on fewer than 8 bits gives 2 ** bits - 1 for opaque instead of 255.
    header = _numbers(encoded, 24, 2, tf.uint8)
    bits, color_type = tf.cast(header[0], tf.int32), header[1]
    opaque = tf.cast(tf.bitwise.left_shift(1, tf.minimum(bits, 8)) - 1, tf.uint8)
    with_alpha = tf.reduce_any(tf.equal(color_type, tf.constant([3, 4, 6], tf.uint8)))

    def decode_alpha():
        image = tf.io.decode_png(encoded, channels=4)
        alpha = image[..., 3:]
        mistaken = (bits < 8) & tf.reduce_all(tf.equal(alpha, opaque))
        alpha = tf.where(mistaken, tf.constant(255, tf.uint8), alpha)
        return tf.concat([image[..., :3], alpha], axis=-1)

    return tf.cond(
        with_alpha, decode_alpha, lambda: tf.io.decode_png(encoded, channels=3)
    )


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """Puts an image with alpha on white, as a shop's page shows it."""
    image = tf.cast(image, tf.float32)
    channels = tf.shape(image)[-1]

    def blend():
        alpha = image[..., 3:4] / 255.0
        return image[..., :3] * alpha + 255.0 * (1.0 - alpha)

    def grey():
        return tf.repeat(image[..., :1], 3, axis=-1)

    def color():
        return image[..., :3]

    image = tf.case(
        [(tf.equal(channels, 4), blend), (tf.equal(channels, 1), grey)], default=color
    )
    return tf.ensure_shape(image, [None, None, 3])


def _numbers(
    encoded: tf.Tensor, start: int, count: int, dtype: tf.DType, little: bool = True
) -> tf.Tensor:
    """`count` numbers of a header; raises where the file ends before.

    Checked by shape, because an assertion is stateful, and a pipeline that is so runs
    on one thread when TensorFlow is to be deterministic.
    """
    raw = tf.strings.substr(encoded, start, count * dtype.size)
    return tf.ensure_shape(tf.io.decode_raw(raw, dtype, little_endian=little), [count])


def _product(sides: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.abs(tf.cast(sides, tf.float32)))


def _gif_pixels(encoded: tf.Tensor) -> tf.Tensor:
    screen = _product(_numbers(encoded, 6, 2, tf.uint16))
    return tf.where(tf.strings.length(encoded) > MAX_GIF_BYTES, np.inf, screen)


def _webp_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """Pixels by the header of each of WebP's three kinds of first chunk."""
    chunk = tf.strings.substr(encoded, 12, 4)
    data = tf.cast(_numbers(encoded, 20, 10, tf.uint8), tf.int32)

    def extended():  # 24-bit canvas width - 1 and height - 1
        return (
            1 + data[4] + data[5] * 256 + data[6] * 65536,
            1 + data[7] + data[8] * 256 + data[9] * 65536,
        )

    def lossless():  # 14 bits each, after one signature byte
        return (
            1 + data[1] + (data[2] & 0x3F) * 256,
            1 + data[2] // 64 + data[3] * 4 + (data[4] & 0x0F) * 1024,
        )

    def lossy():  # 14 bits each, after a frame tag and a start code
        return data[6] + (data[7] & 0x3F) * 256, data[8] + (data[9] & 0x3F) * 256

    sides = tf.case(
        [(tf.equal(chunk, b"VP8X"), extended), (tf.equal(chunk, b"VP8L"), lossless)],
        default=lossy,
    )
    return _product(tf.stack(sides))


def read_file(path: str) -> tuple[bytes, str]:
    """Reads an image file outside the graph.

    Args:
        path: A path, `""` for none.

    Returns:
        The bytes, `b""` if they cannot be had; and what is wrong, `""` if nothing.
    """
    if not path:
        return b"", ""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            return b"", "not a file"
        if about.st_size > MAX_FILE_BYTES:
            return b"", f"larger than {MAX_FILE_BYTES} bytes"
        content = Path(path).read_bytes()
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"
    return content, "" if content else "empty file"


def file_bytes(path: str) -> int:
    """The size of a file, 0 for `""` and for what is no file."""
    try:
        about = os.stat(path)
    except OSError:
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0
