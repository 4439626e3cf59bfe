"""What a served model saves by skipping images.

    python tools/bench/selective.py FULL SELECTIVE --catalog catalog.csv

FULL and SELECTIVE are two bundles of one head, MODELS/NAME/N, exported with
`--all-images` and with `--image-budget` or `--max-loss`. Both are loaded into this
process and answer the same products, in batches of each of `--batch`, in turns whose
order is drawn anew for each round. Times are the best of the rounds, since other work
only ever makes them worse; the ratio is theirs. `images` is the share of the images
that SELECTIVE looked at, and `same` the share of the products whose first label is
that of FULL.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tensorflow as tf
import tensorflow_text
import typer

from tfmm import catalog as catalogs
from tfmm import image, tables
from tfmm.errors import CatalogError, RunError, command_line
from tfmm.options import CatalogFile, ImagesFolder
from tfmm.settings import Modality

assert tensorflow_text.__version__  # links the ops that a bundle needs

ROUNDS = 5
FOLDER = Path("assets.extra")


def load(bundle: Path) -> tuple[Any, dict[str, Any]]:
    """The SavedModel and what `tfmm.json` says of it."""
    try:
        about = json.loads((bundle / FOLDER / "tfmm.json").read_text(encoding="utf-8"))
        return tf.saved_model.load(str(bundle)), about
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise RunError(f"{bundle}: not what export writes: {error}") from None


def products(
    table_file: Path, images: Path | None, about: dict[str, Any], count: int
) -> dict[str, np.ndarray]:
    """Raw inputs of the first products of a catalog that have an image."""
    wanted = {name: Modality(**x) for name, x in about["modalities"].items()}
    table = next(tables.read_chunks(table_file, 4 * count))
    texts, paths = catalogs.modalities(table, wanted, images or table_file.parent)
    inputs = {name: np.array(values, object) for name, values in texts.items()}
    for name, files in paths.items():
        inputs[name] = np.array([image.read_file(file)[0] for file in files], object)
    if not paths:
        raise RunError("the bundles read no images")
    here = np.any([inputs[name] != b"" for name in paths], axis=0)
    rows = np.flatnonzero(here)[:count]
    if len(rows) < count:
        raise CatalogError(
            f"{table_file}: of the first {4 * count} products fewer than {count} have "
            "an image"
        )
    return {name: values[rows] for name, values in inputs.items()}


def selective(
    full: Annotated[Path, typer.Argument(help="Looks at every image.")],
    skipping: Annotated[Path, typer.Argument(help="Skips some.", metavar="SELECTIVE")],
    catalog: CatalogFile,
    images: ImagesFolder = None,
    batch: Annotated[list[int] | None, typer.Option(help="Products a request.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Products in a round.")] = 256,
) -> None:
    """Times both bundles on the same products."""
    (whole, about), (part, _) = load(full), load(skipping)
    calls = {
        "full": whole.signatures["serving_default"],
        "selective": part.signatures["serving_default"],
    }
    sizes = [size for size in batch or [1, 8, 32] if 0 < size <= count]
    if not sizes:
        raise CatalogError(f"expected a --batch of 1 to {count}")
    inputs = products(catalog, images, about, count)
    generator = np.random.default_rng(0)
    print(f"{count} products with an image")
    print(
        f"{'batch':>6}{'full':>12}{'selective':>12}{'ratio':>8}{'images':>9}{'same':>8}"
    )
    for size in sizes:
        requests = [
            {
                name: tf.constant(values[start : start + size])
                for name, values in inputs.items()
            }
            for start in range(0, count - size + 1, size)
        ]
        said = {
            name: [call(**request) for request in requests]
            for name, call in calls.items()
        }
        best = dict.fromkeys(calls, np.inf)
        for _ in range(ROUNDS):
            for name in generator.permutation(list(calls)):
                started = time.perf_counter()
                for request in requests:
                    calls[name](**request)
                best[name] = min(best[name], time.perf_counter() - started)
        speed = {name: len(requests) * size / taken for name, taken in best.items()}
        used = np.concatenate([x["image_used"].numpy() for x in said["selective"]])
        first = {
            name: np.concatenate([x["labels"][:, 0].numpy() for x in answers])
            for name, answers in said.items()
        }
        print(
            f"{size:6}{speed['full']:10.0f}/s{speed['selective']:10.0f}/s"
            f"{speed['selective'] / speed['full']:8.2f}{used.mean():9.1%}"
            f"{(first['full'] == first['selective']).mean():8.1%}"
        )


if __name__ == "__main__":
    command_line(selective, "python tools/bench/selective.py")
