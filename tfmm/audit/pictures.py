"""One look at every image: can it be used, and what is there to know about it."""

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import tensorflow as tf
from PIL import Image

from tfmm import image

SIDE = 32  # pixels to which every image is brought
SMALL_SIDE = 16  # pixels that are kept, to compare pictures by
HASH_SIDE = 8  # frequencies that the hash is made of, each way
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = 1
BATCH = 64

FACTS = np.dtype(
    [
        ("used", "?"),  # it can be used; nothing else is known of the others
        ("width", "i4"),  # by the header; 0 if Pillow does not understand it
        ("height", "i4"),
        ("format", "U8"),
        ("orientation", "u1"),  # EXIF; UPRIGHT if there is none
        ("spread", "u1"),  # largest range of a channel, of 255
        ("code", "u8"),  # perceptual hash
    ]
)


@dataclass(frozen=True)
class Checked:
    """What must be known of a modality's images.

    Attributes:
        bad: Position -> reason for every file that cannot be used.
        digest: Hash of the bytes of all files.
    """

    bad: dict[int, str]
    digest: str


@dataclass(frozen=True)
class Pictures:
    """What was seen of the `n` images of a modality.

    Attributes:
        checked: Which cannot be used.
        facts: `(n,)` of `FACTS`.
        small: uint8 `(n, SMALL_SIDE, SMALL_SIDE, 3)`, the picture made small.
    """

    checked: Checked
    facts: np.ndarray
    small: np.ndarray


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
def _decode(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return image.decode_batch(encoded, SIDE, whole=True)


def look(
    paths: Sequence[str], report: Callable[[int], None] = lambda done: None
) -> Pictures:
    """Opens and decodes image files once, as training and serving will.

    Args:
        paths: Absolute paths, `""` for none.
        report: Called with the number of paths done.
    """
    facts = np.zeros(len(paths), FACTS)
    facts["orientation"] = UPRIGHT
    small = np.zeros((len(paths), SMALL_SIDE, SMALL_SIDE, 3), np.uint8)
    bad: dict[int, str] = {}
    digest = hashlib.sha256()
    for start in range(0, len(paths), BATCH):
        batch = []
        for position, path in enumerate(paths[start : start + BATCH], start):
            encoded, problem = image.read_file(path)
            if problem:
                bad[position] = problem
            digest.update(hashlib.sha256(encoded).digest())
            batch.append(encoded)
        pixels, statuses = (x.numpy() for x in _decode(tf.constant(batch)))
        for position, status in enumerate(statuses, start):
            if status == image.USED:
                _read_header(facts[position], batch[position - start])
            elif status != image.MISSING:
                bad[position] = image.STATUSES[status]
        here = slice(start, start + len(batch))
        facts["used"][here] = statuses == image.USED
        facts["spread"][here] = np.ptp(pixels, axis=(1, 2)).max(axis=1)
        facts["code"][here] = perceptual_hash(pixels)
        small[here] = make_small(pixels)
        report(start + len(batch))
    return Pictures(Checked(bad, digest.hexdigest()), facts, small)


def digest_of(paths: Sequence[str], report: Callable[[int], None]) -> str:
    """The `digest` that `look` would find, without decoding anything."""
    digest = hashlib.sha256()
    for position, path in enumerate(paths, 1):
        digest.update(hashlib.sha256(image.read_file(path)[0]).digest())
        report(position)
    return digest.hexdigest()


def perceptual_hash(pixels: np.ndarray) -> np.ndarray:
    """64 bits of each picture that survive another size and another compression.

    The signs of the lowest `8 x 8` frequencies of the brightness (its cosine
    transform) about their median, as imagehash's `phash` has them. Colour plays no
    part, so that pictures with equal hashes are only candidates for being the same.

    Args:
        pixels: float `(n, SIDE, SIDE, 3)` in [0, 255].

    Returns:
        uint64 `(n,)`.

    Example:
    >>> dark = np.random.default_rng(0).uniform(0, 99, (SIDE, SIDE, 3))
    >>> codes = perceptual_hash(np.stack([dark, 1.5 * dark, dark[::-1]]))
    >>> np.bitwise_count(codes ^ codes[0]).tolist()
    [0, 0, 36]
    """
    waves = scipy.fft.dctn(pixels @ LUMINANCE, axes=(1, 2))
    waves = waves[:, :HASH_SIDE, :HASH_SIDE].reshape(len(pixels), -1)
    bits = waves > np.median(waves, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def make_small(pixels: np.ndarray) -> np.ndarray:
    """uint8 `(n, SMALL_SIDE, SMALL_SIDE, 3)`: means over squares of pixels."""
    step = SIDE // SMALL_SIDE
    parts = pixels.reshape(-1, SMALL_SIDE, step, SMALL_SIDE, step, 3)
    return np.round(parts.mean(axis=(2, 4))).astype(np.uint8)


def _read_header(facts: np.void, encoded: bytes) -> None:
    """Fills in what the header says; the pixels are not decoded again."""
    try:
        with warnings.catch_warnings(action="ignore"), _opened(encoded) as opened:
            facts["width"], facts["height"] = opened.size
            facts["format"] = opened.format
            # Pillow would decode a PNG to the end in search of the tag.
            if "exif" in opened.info:
                turn = opened.getexif().get(ORIENTATION, UPRIGHT)
                facts["orientation"] = turn if turn in range(1, 9) else UPRIGHT
    except Exception:  # Pillow's many parsers; TensorFlow could decode the picture
        facts["width"] = facts["height"] = 0


def _opened(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded))
