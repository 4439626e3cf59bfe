"""How fast images come in, without a model.

    python tools/bench/image_pipeline.py hparams/ikea.toml --catalog catalog.csv

takes the products of a catalog that have a JPEG and times epochs of

- `bare`: what anybody would write first: `tf.data` with `read_file`, `decode_jpeg`,
  `resize` (antialiased), `batch`, `prefetch`;
- `plain`: our `dataset.epoch`, without augmentation;
- `augmented`: the same with the tower's own augmentation, or if it has none with
  paper B's (box, flip, brightness, saturation);
- `first`: an epoch that makes the cache of decoded images before it begins;
- `second`: an epoch that reads that cache.

They take turns in an order drawn anew for each round, so that whatever else the machine
does meets all of them. All run with TensorFlow's deterministic operations, as training
does. `epoch` is the time of a whole epoch, `start` the part of it until the first batch
(it does not grow with the catalog), `images/s` the speed from then on, `CPU` the
processor time of an image from then on, which other processes disturb less. Figures
are the best of the rounds, since other work only ever makes them worse; ratios are
those of the figures.

Files are read from the system's page cache: a round that is not counted goes first.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tensorflow as tf
import typer

from tfmm import audit, dataset, experiment, image, image_cache
from tfmm.catalog import Catalog
from tfmm.catalog import load as load_catalog
from tfmm.dataset import Inputs
from tfmm.errors import TfmmError, command_line, did_you_mean
from tfmm.options import CatalogFile, Changes, Hparams, ImagesFolder
from tfmm.progress import progress
from tfmm.run import write_json
from tfmm.settings import Augmentation, ImageTower

WAYS = ("bare", "plain", "augmented", "first", "second")
PAPER_B = Augmentation(
    flip=True, min_box_area=0.1, brightness=0.13, saturation=(0.5, 1.5)
)


@dataclass(frozen=True)
class Epoch:
    """What one epoch took.

    Attributes:
        start_s: Seconds until the first batch.
        epoch_s: Seconds in all.
        images_per_s: Of the batches after the first.
        cpu_us: Microseconds of processor time per image of those.
    """

    start_s: float
    epoch_s: float
    images_per_s: float
    cpu_us: float


def time_epoch(begin: Callable[[], tf.data.Dataset], batch_size: int) -> Epoch:
    """Reads through a dataset that `begin` makes."""
    started = time.perf_counter()
    batches = iter(begin())
    next(batches)
    first, cpu = time.perf_counter(), time.process_time()
    images = sum(len(tf.nest.flatten(batch)[0]) for batch in batches)
    ended, cpu_ended = time.perf_counter(), time.process_time()
    if images < batch_size:
        raise TfmmError(
            f"expected at least three batches of {batch_size} products with a JPEG"
        )
    return Epoch(
        first - started,
        ended - started,
        images / (ended - first),
        1e6 * (cpu_ended - cpu) / images,
    )


def bare(paths: np.ndarray, size: int, batch_size: int) -> tf.data.Dataset:
    """The loop that ours is held against."""

    def read(path):
        decoded = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(decoded, [size, size], antialias=True)

    return (
        tf.data.Dataset.from_tensor_slices(paths)
        .map(read, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(2)
    )


def measure(
    catalog: Catalog, rows: np.ndarray, tower: ImageTower, rounds: int
) -> dict[str, list[Epoch]]:
    """Times all ways of reading, in turns.

    Args:
        catalog: A checked catalog.
        rows: Its products with a JPEG.
        tower: Whose sizes, batch and augmentation are used.
        rounds: Epochs of each way.

    Returns:
        Way -> its epochs.
    """
    plain = Inputs(tower.modality, tower.image_size)
    changes = tower.augmentation
    if changes == Augmentation():
        changes = PAPER_B
    augmented = replace(plain, load_size=tower.load_size, augmentation=changes)
    size, batch_size = tower.image_size, tower.batch_size
    paths = catalog.images[tower.modality][rows]
    timed: dict[str, list[Epoch]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        progress("rounds", rounds + 1) as show,
    ):

        def read(inputs: Inputs, number: int, caches: Any = None) -> tf.data.Dataset:
            return dataset.epoch(catalog, rows, inputs, batch_size, (0, number), caches)

        def cached(cache: Path, number: int) -> tf.data.Dataset:
            caches = {size: image_cache.ready(cache, catalog, tower.modality, size)}
            return read(plain, number, caches)

        for number in range(rounds + 1):
            shuffled = np.random.default_rng((0, number)).permutation(paths)
            cache = Path(folder) / str(number)
            ways: Mapping[str, Callable[[], tf.data.Dataset]] = {
                "bare": lambda paths=shuffled: bare(paths, size, batch_size),
                "plain": lambda number=number: read(plain, number),
                "augmented": lambda number=number: read(augmented, number),
                "first": lambda cache=cache, number=number: cached(cache, number),
                "second": lambda cache=cache, number=number: cached(cache, number),
            }
            order = np.random.default_rng(number).permutation(list(ways)).tolist()
            order.remove("second")
            order.insert(order.index("first") + 1, "second")
            for name in order:
                epoch = time_epoch(ways[name], batch_size)
                if number:
                    timed.setdefault(name, []).append(epoch)
            show(number + 1)
    return timed


def numbers(timed: Mapping[str, list[Epoch]]) -> dict[str, Any]:
    """The best figures of each way, and their ratios."""
    ways = {
        name: {
            "epoch_s": min(x.epoch_s for x in timed[name]),
            "start_s": min(x.start_s for x in timed[name]),
            "images_per_s": max(x.images_per_s for x in timed[name]),
            "cpu_us": min(x.cpu_us for x in timed[name]),
        }
        for name in WAYS
    }

    def ratio(key: str, over: str, under: str) -> float:
        return ways[over][key] / ways[under][key]

    return {
        "ways": ways,
        "plain_speed_over_bare": ratio("images_per_s", "plain", "bare"),
        "bare_cpu_over_plain": ratio("cpu_us", "bare", "plain"),
        "augmented_speed_over_plain": ratio("images_per_s", "augmented", "plain"),
        "second_epoch_over_first": ratio("epoch_s", "second", "first"),
        "second_epoch_over_plain": ratio("epoch_s", "second", "plain"),
    }


def format_table(report: Mapping[str, Any]) -> str:
    """The report as a plain table."""
    lines = [
        f"{report['images']} images, {report['image_size']} px, {report['rounds']} "
        "rounds",
        "",
        f"{'':<10}{'epoch':>10}{'start':>10}{'images/s':>10}{'CPU':>10}",
    ]
    for name, way in report["ways"].items():
        lines.append(
            f"{name:<10}{way['epoch_s']:>8.2f} s{way['start_s']:>8.2f} s"
            f"{way['images_per_s']:>10.0f}{way['cpu_us']:>7.0f} us"
        )
    lines.append("")
    lines += [
        f"{key.replace('_', ' '):<28}{value:.3f}"
        for key, value in report.items()
        if "_over_" in key
    ]
    return "\n".join(lines)


def image_pipeline(
    hparams: Hparams,
    catalog: CatalogFile,
    images: ImagesFolder = None,
    tower: Annotated[str, typer.Option(help="The image tower to read for.")] = "image",
    rounds: Annotated[int, typer.Option(min=1, help="Epochs of each way.")] = 7,
    set_: Changes = None,
    to: Annotated[
        Path | None, typer.Option(help="File for the numbers (JSON).")
    ] = None,
) -> None:
    """Times reading a catalog's images against a bare tf.data loop."""
    settings = experiment.load(hparams, set_ or [])
    towers = {k: v for k, v in settings.towers.items() if isinstance(v, ImageTower)}
    if tower not in towers:
        raise TfmmError(
            f"--tower: no image tower of that name{did_you_mean(tower, towers)}. "
            f"Received: {tower}"
        )
    if not catalog.is_file():
        raise TfmmError(f"{catalog}: no such catalog file")
    if to is not None and not to.parent.is_dir():
        raise TfmmError(
            f"--to: expected a file in a folder that exists. Received: {to}"
        )
    tf.config.experimental.enable_op_determinism()
    products = audit.check_inputs(load_catalog(catalog, settings, images))
    chosen = towers[tower]
    rows = np.concatenate([products.rows(s) for s in np.unique(products.split) if s])
    rows = rows[products.present(chosen.modality, rows)]
    paths = products.images[chosen.modality][rows]
    rows = rows[[image.read_file(x)[0].startswith(image.JPEG) for x in paths]]
    timed = measure(products, rows, chosen, rounds)
    report = {
        "images": len(rows),
        "image_size": chosen.image_size,
        "rounds": rounds,
        **numbers(timed),
    }
    if to is not None:
        write_json(to, report)
    print(format_table(report))


if __name__ == "__main__":
    command_line(image_pipeline, "python tools/bench/image_pipeline.py")
