import functools
import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfmm import image

RED, GREEN = (250, 10, 20), (0, 200, 100)


def picture(mode="RGB", size=(50, 30)):
    """Left half red, right half green."""
    array = np.zeros((size[1], size[0], 3), np.uint8)
    array[:, : size[0] // 2], array[:, size[0] // 2 :] = RED, GREEN
    return Image.fromarray(array).convert(mode)


def encoded(img, kind, **options):
    file = io.BytesIO()
    img.save(file, kind, **options)
    return file.getvalue()


@functools.cache
def decoder(size):
    """One graph for all batches, as in training and in serving."""
    files = tf.TensorSpec([None], tf.string)
    return tf.function(lambda x: image.decode_batch(x, size), input_signature=[files])


def decode(*files, size=8):
    images, status = decoder(size)(tf.constant(list(files), tf.string))
    return images.numpy(), [image.STATUSES[code] for code in status.numpy()]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("WEBP", {"quality": 100}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_every_format_gives_the_same_picture(kind, options):
    images, status = decode(encoded(picture(), kind, **options))
    assert status == ["used"]
    np.testing.assert_allclose(images[0, 4, 0], RED, atol=6)
    np.testing.assert_allclose(images[0, 4, 7], GREEN, atol=6)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("L", "PNG"), ("L", "BMP"), ("LA", "PNG"), ("1", "PNG")],
)
def test_grey_pictures_have_three_equal_channels(mode, kind):
    images, status = decode(encoded(picture(mode), kind))
    assert status == ["used"]
    np.testing.assert_allclose(images[..., :1] - images, 0)
    assert 60 < images.mean() < 180


def test_cmyk_jpeg_keeps_its_colors():
    images, status = decode(encoded(picture("CMYK"), "JPEG", quality=95))
    assert status == ["used"]
    np.testing.assert_allclose(images[0, 4, 0], RED, atol=8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_any_depth_keep_their_colors(bits):
    indexed = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    images, status = decode(encoded(indexed, "PNG", bits=bits))
    assert status == ["used"]
    np.testing.assert_allclose(images[0, 4, 0], RED, atol=2)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_are_white(kind):
    img = picture("RGBA")
    img.putalpha(Image.new("L", img.size, 0))
    options = {"lossless": True} if kind == "WEBP" else {}
    images, _ = decode(encoded(img, kind, **options))
    np.testing.assert_allclose(images, 255.0, atol=1)


def test_a_transparent_palette_color_is_white():
    indexed = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    left = indexed.getpixel((0, 0))
    images, _ = decode(encoded(indexed, "PNG", transparency=left))
    np.testing.assert_allclose(images[0, 4, 0], 255.0, atol=1)
    np.testing.assert_allclose(images[0, 4, 7], GREEN, atol=2)


def test_a_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (20, 20), RED), Image.new("RGB", (20, 20), GREEN)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    images, _ = decode(file.getvalue())
    np.testing.assert_allclose(images[0, 4, 4], RED, atol=2)


def test_resizing_is_antialiased():
    array = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    images, _ = decode(encoded(Image.fromarray(array), "PNG"))
    expected = tf.image.resize(array.astype(np.float32), [8, 8], antialias=True)
    np.testing.assert_array_equal(images[0], np.round(np.clip(expected, 0, 255)))


def bomb(width, height):
    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


GOOD = encoded(picture(), "PNG")
WEBP_SIZES = {
    "VP8X": b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\x00\x40\x00" * 2,
    "VP8L": b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + b"\xff" * 9,
    "VP8 ": b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f",
}
BAD = {
    "garbage": (b"hello", "not an image"),
    "html": (b"<html>" * 99, "not an image"),
    "one byte": (b"\xff", "not an image"),
    "jpeg head": (b"\xff\xd8\xff", "corrupt"),
    "half a png": (GOOD[:60], "corrupt"),
    "png head": (b"\x89PNG", "corrupt"),
    "gif head": (b"GIF89a", "corrupt"),
    "bmp head": (b"BM", "corrupt"),
    "webp head": (b"RIFF\0\0\0\0WEBP", "corrupt"),
    "short jpeg": (encoded(picture(), "JPEG")[:400], "corrupt"),
    "png bomb": (bomb(20_000, 20_000), "too large"),
    "long gif": (b"GIF89a" + b"\0" * image.MAX_GIF_BYTES, "too large"),
    **{f"webp bomb {k}": (v, "too large") for k, v in WEBP_SIZES.items()},
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_told_and_leaves_its_neighbours_alone(name):
    bad, expected = BAD[name]
    alone, _ = decode(GOOD)
    images, status = decode(GOOD, bad, b"", GOOD)
    assert status == ["used", expected, "missing", "used"]
    np.testing.assert_array_equal(images[0], alone[0])
    np.testing.assert_array_equal(images[3], alone[0])
    assert not images[1:3].any()


def test_an_empty_batch_is_an_empty_answer():
    images, status = image.decode_batch(tf.zeros([0], tf.string), 8)
    assert images.shape == (0, 8, 8, 3)
    assert status.shape == (0,)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_training_and_serving_decode_alike(tmp_path, kind):
    file = encoded(picture(), kind)
    (tmp_path / "x").write_bytes(file)
    images, _ = decode(file)
    read = image.decode_file(tf.constant(str(tmp_path / "x")), 8)
    np.testing.assert_array_equal(read, images[0])
    np.testing.assert_array_equal(images, np.uint8(images))  # fit for a cache of bytes


def test_a_saved_model_decodes_as_training_does(tmp_path):
    files = [encoded(picture(), kind) for kind in ("JPEG", "PNG")] + [b"", b"hello"]
    module = tf.Module()
    module.decode = tf.function(
        lambda raw: image.decode_batch(raw, 8),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    tf.saved_model.save(module, tmp_path)
    images, status = tf.saved_model.load(tmp_path).decode(tf.constant(files))
    np.testing.assert_array_equal(images, decode(*files)[0])
    assert [image.STATUSES[code] for code in status] == decode(*files)[1]


def test_a_bad_training_file_stops(tmp_path):
    with pytest.raises(tf.errors.OpError):
        image.decode_file(tf.constant("/nowhere/x.png"), 8)
    for name in ("garbage", "short jpeg", "png bomb"):
        path = tmp_path / name
        path.write_bytes(BAD[name][0])
        with pytest.raises(tf.errors.InvalidArgumentError):
            image.decode_file(tf.constant(str(path)), 8)


def test_a_gif_is_bounded_by_its_screen_too():
    header = b"GIF89a" + struct.pack("<HH", 20_000, 20_000) + b"\0" * 20
    assert decode(header)[1] == ["too large"]


def photo(side):
    """Something with as much detail as a photograph has."""
    generator = np.random.default_rng(3)
    coarse = Image.fromarray(generator.integers(0, 255, (16, 16, 3), np.uint8))
    array = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), float)
    array += generator.normal(0, 8, array.shape)
    return Image.fromarray(np.uint8(np.clip(array, 0, 255)))


@pytest.mark.parametrize(
    ("side", "expected"), [(63, 63), (127, 127), (128, 64), (256, 64), (600, 75)]
)
def test_a_large_jpeg_is_decoded_at_twice_the_size_or_more(side, expected):
    file = tf.constant(encoded(photo(side), "JPEG", quality=90))
    found = image._decode_jpeg(file, tf.constant([side, side]), 32)
    assert found.shape[0] == expected


def test_a_large_jpeg_looks_as_if_it_had_been_decoded_whole():
    file = encoded(photo(600), "JPEG", quality=90)
    [found], status = decode(file, size=32)
    assert status == ["used"]
    whole = tf.image.resize(tf.io.decode_jpeg(file), [32, 32], antialias=True)
    assert np.abs(found - whole).mean() < 1.5


def test_the_shorter_side_of_a_large_jpeg_decides():
    file = tf.constant(encoded(photo(600).resize((600, 60)), "JPEG"))
    assert image._decode_jpeg(file, tf.constant([60, 600]), 32).shape == (60, 600, 3)
