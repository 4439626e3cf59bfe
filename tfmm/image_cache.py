"""Decoded images of a catalog on disk, so that they are decoded once.

CACHE/images.npy   uint8 (n, size, size, 3) by row of the catalog, memory-mapped
CACHE/cache.json   the fingerprint of what they were made from

Pixels are whole numbers (see `tfmm.image`), so bytes hold what decoding gives and what
is served, bit for bit.
"""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfmm import image
from tfmm.catalog import Catalog
from tfmm.errors import RunError
from tfmm.progress import progress, say
from tfmm.run import fingerprint, read_json, replacing, write_json

WRITE_BATCH = 64


def ready(path: Path, catalog: Catalog, modality: str, size: int) -> np.ndarray:
    """The cache of one image modality at one size, made now unless it is there.

    One that was made from another catalog, by another decoder or TensorFlow, or that
    is cut off, is made again. Bytes that changed inside the file are not noticed.

    Args:
        path: The cache's folder.
        catalog: A checked catalog.
        modality: The image modality.
        size: Side in pixels.

    Returns:
        uint8 `(n, size, size, 3)` by row of the catalog, memory-mapped, not to be
        written to. Rows without an image or a split are black and take no room on
        the disk.

    Raises:
        RunError: If the disk has no room for it.
    """
    mark = fingerprint(
        catalog.fingerprint(), modality, size, image.DECODER_VERSION, tf.__version__
    )
    shape = (len(catalog), size, size, 3)
    cache = _read(path, mark, shape)
    if cache is None:
        _write(path, mark, catalog, modality, shape)
        cache = _read(path, mark, shape)
    if cache is None:
        raise RunError(f"{path}: another process changes it")
    return cache


def _read(path: Path, mark: str, shape: tuple[int, ...]) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        found = read_json(path / "cache.json")
        if found != {"fingerprint": mark}:
            say(f"{path}: made from another catalog or decoder; making it again")
            return None
        cache = np.lib.format.open_memmap(path / "images.npy", mode="r")
    except (RunError, OSError, ValueError, EOFError):
        say(f"{path}: lost or damaged; making it again")
        return None
    if cache.shape != shape or cache.dtype != np.uint8:
        say(f"{path}: replaced by something else; making it again")
        return None
    return cache


def _write(
    path: Path, mark: str, catalog: Catalog, modality: str, shape: tuple[int, ...]
) -> None:
    rows = np.arange(len(catalog))
    rows = rows[catalog.present(modality, rows) & (catalog.split != "")]
    image_bytes = int(np.prod(shape[1:]))
    with replacing(path) as partial:
        partial.mkdir()
        free = shutil.disk_usage(partial).free
        if free < len(rows) * image_bytes:
            raise RunError(
                f"{path}: cached images take {len(rows) * image_bytes / 1e9:.1f} GB. "
                f"Received: {free / 1e9:.1f} GB free; set catalog.cache_images = false"
            )
        file = partial / "images.npy"
        # Writes the head, and a hole of the right length.
        start = np.lib.format.open_memmap(
            file, mode="w+", dtype=np.uint8, shape=shape
        ).offset
        paths = catalog.images[modality][rows]
        batches = image.decode_files(paths, shape[1]).batch(WRITE_BATCH).prefetch(2)
        done = 0
        # Written, not mapped: a full disk is then an error and not the end of the
        # process.
        with (
            file.open("r+b") as opened,
            progress(f"{modality}: decoding images", len(rows)) as show,
        ):
            for batch in batches.as_numpy_iterator():
                for pixels in batch.astype(np.uint8):
                    opened.seek(start + int(rows[done]) * image_bytes)
                    opened.write(pixels.tobytes())
                    done += 1
                show(done)
        write_json(partial / "cache.json", {"fingerprint": mark})
