"""What it saves to decode large photos at a part of their size, and what it changes.

    python tools/bench/large_photos.py --catalog catalog.csv --column image

takes images of a catalog, enlarges them to `--px` on the longer side with grain, as a
camera leaves it, writes them as JPEG of quality 90, and decodes them to each of
`--sizes`

- `whole`: every pixel decoded, then resized with antialiasing;
- `part`: as `tfmm.image` does, at 1/2, 1/4 or 1/8 while that leaves twice the size.

Both take turns, in an order drawn anew for each round; times are the best of the
rounds and the ratio is theirs. `difference` is the mean over pixels of the absolute
difference between the two in grey levels of 0 to 255, `largest` the greatest of all.
"""

import io
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import typer
from PIL import Image

from tfmm import image, tables
from tfmm.errors import CatalogError, command_line
from tfmm.options import CatalogFile, ImagesFolder

ROUNDS = 7
GRAIN = 4.0  # standard deviation in grey levels


def photos(paths: list[Path], px: int) -> list[bytes]:
    """Enlarged images as JPEG files."""
    generator = np.random.default_rng(0)
    files = []
    for path in paths:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        scale = px / max(picture.size)
        wanted = tuple(max(1, round(side * scale)) for side in picture.size)
        array = np.asarray(picture.resize(wanted, Image.Resampling.LANCZOS), float)
        array = np.clip(array + generator.normal(0, GRAIN, array.shape), 0, 255)
        file = io.BytesIO()
        Image.fromarray(np.uint8(array)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def ways(size: int) -> dict:
    """The two ways as functions from a batch of files to pixels."""
    spec = [tf.TensorSpec([None], tf.string)]

    def whole(files):
        def row(file):
            decoded = tf.io.decode_jpeg(file, 3, **image.JPEG_OPTIONS)
            resized = tf.image.resize(decoded, [size, size], antialias=True)
            return tf.round(tf.clip_by_value(resized, 0.0, 255.0))

        return tf.map_fn(row, files, fn_output_signature=tf.float32)

    def part(files):
        def row(file):
            sides = tf.io.extract_jpeg_shape(file)[:2]
            return image._resize(image._decode_jpeg(file, sides, size), size)

        return tf.map_fn(row, files, fn_output_signature=tf.float32)

    return {
        "whole": tf.function(whole, input_signature=spec),
        "part": tf.function(part, input_signature=spec),
    }


def large_photos(
    catalog: CatalogFile,
    column: Annotated[str, typer.Option(help="Its column of image paths.")] = "image",
    images: ImagesFolder = None,
    px: Annotated[int, typer.Option(help="Longer side of the photos.")] = 1_600,
    sizes: Annotated[list[int] | None, typer.Option(help="Sides to decode to.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Photos.")] = 24,
) -> None:
    """Times both ways and compares their pixels."""
    table = next(tables.read_chunks(catalog, 10 * count))
    folder = images or catalog.parent
    paths = [folder / name for name in table.text_column(column) if name]
    paths = [path for path in paths if path.is_file()][:count]
    if not paths:
        raise CatalogError(f"{catalog}: column {column!r} names no image file")
    files = tf.constant(photos(paths, px))
    print(f"{len(paths)} photos of {px} px")
    print(
        f"{'size':>6}{'whole':>12}{'part':>12}{'ratio':>8}{'difference':>12}{'largest':>9}"
    )
    generator = np.random.default_rng(0)
    for size in sizes or [64, 96, 224]:
        functions = ways(size)
        pixels = {name: way(files).numpy() for name, way in functions.items()}
        best = dict.fromkeys(functions, np.inf)
        for _ in range(ROUNDS):
            for name in generator.permutation(list(functions)):
                started = time.perf_counter()
                functions[name](files)
                taken = time.perf_counter() - started
                best[name] = min(best[name], taken / len(paths))
        apart = np.abs(pixels["whole"] - pixels["part"])
        print(
            f"{size:6}{best['whole'] * 1e3:9.2f} ms{best['part'] * 1e3:9.2f} ms"
            f"{best['whole'] / best['part']:8.2f}{apart.mean():12.2f}{apart.max():9.0f}"
        )


if __name__ == "__main__":
    command_line(large_photos, "python tools/bench/large_photos.py")
