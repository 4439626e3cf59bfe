"""Where in an image a network looks: attention of `tbva`, Grad-CAM of the others."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from tfmm import dataset, results
from tfmm.catalog import Catalog
from tfmm.exhibits.grad_cam import grad_cam
from tfmm.exhibits.reasons import DIGITS, Told
from tfmm.experiment import Experiment
from tfmm.run import Run
from tfmm.settings import SPLITS, Tbva
from tfmm.stages import answers

SAMPLE = 256  # products that the figures over all are means of; images take long
STRONGEST = 10
BATCH = 32
GRID_DIGITS = 3


def maps_of(
    run: Run,
    settings: Experiment,
    catalog: Catalog,
    split: str,
    names: list[str],
    rows: np.ndarray,
) -> Iterator[Told]:
    """`attention` of towers and `maps` of products; docs/report.md lists them.

    Args:
        run: A run.
        settings: Its experiment.
        catalog: The products; `test` of it for a split that is not of the run.
        split: As in the outputs store.
        names: Models whose outputs are there.
        rows: int `(m,)`, the products to tell of one by one.

    Raises:
        RunError: If a model or outputs are missing, damaged or stale.
    """
    size = len(catalog.rows(split if split in SPLITS else "test"))
    generator = np.random.default_rng(settings.seed)
    drawn = generator.choice(size, min(SAMPLE, size), replace=False)
    for name in names:
        if name not in settings.towers:
            continue
        if not any(part.image_size for part in results.reads(settings, name).values()):
            continue
        attends = isinstance(settings.towers[name], Tbva)
        asked = np.union1d(rows, drawn) if attends else rows
        stored = results.read_outputs(run, settings, name, split)
        asked = asked[np.asarray(stored.present)[asked]]
        model = results.load_model(run, name)
        look = attention(model) if attends else grad_cam(model)
        if look is None or not len(asked):
            continue
        some = stored.take(asked)
        said = results.probabilities(run, settings, name, some.logits, some.present)
        labels = said.argmax(axis=1)
        grids = _grids(run, settings, catalog, split, name, asked, labels, look)
        of_each = {
            int(row): {
                "kind": "attention" if attends else "grad_cam",
                **({} if attends else {"label": int(label)}),
                **of_grid(grid),
            }
            for row, label, grid in zip(asked, labels, grids, strict=True)
            if row in rows
        }
        inside = np.isin(asked, drawn)
        of_all = {}
        if attends and inside.any():
            of_all = {"attention": of_grids(grids[inside])}
        yield name, of_all, of_each


def attention(model: keras.Model) -> Callable:
    """A function from a batch to the maps that a `tbva` tower itself puts out."""
    predict = results.predictor(model)
    return lambda batch, _: predict(batch)["attention"]


def _grids(
    run: Run,
    settings: Experiment,
    catalog: Catalog,
    split: str,
    name: str,
    asked: np.ndarray,
    labels: np.ndarray,
    look: Callable,
) -> np.ndarray:
    """float32 `(m, H, W)`: the maps of the products `asked`."""
    products = catalog.rows(split if split in SPLITS else "test")
    reads = results.reads(settings, name)
    # Decoded images are kept of the run's own catalog alone.
    own = split in SPLITS
    caches = answers.caches_of(run, settings, catalog, reads) if own else None
    batches = dataset.batches(catalog, products[asked], reads, BATCH, caches)
    return np.concatenate(
        [
            look(batch, labels[number * BATCH :][:BATCH])
            for number, batch in enumerate(batches)
        ]
    )


def of_grid(grid: np.ndarray) -> dict[str, Any]:
    """What is told of one map, float `(H, W)`, at least 0."""
    order = np.argsort(-grid, axis=None, kind="stable")
    cells = [np.unravel_index(place, grid.shape) for place in order[:STRONGEST]]
    return {
        "grid": _scaled(grid),
        "strongest": [[int(i), int(j)] for i, j in cells if grid[i, j] > 0],
        "border": round(float(border_share(grid[None])[0]), DIGITS),
    }


def of_grids(grids: np.ndarray) -> dict[str, Any]:
    """What is told of many maps, float `(m, H, W)`, each summing to 1."""
    even = np.ones((1, *grids.shape[1:]))
    return {
        "products": len(grids),
        "border": round(float(border_share(grids).mean()), DIGITS),
        "expected": round(float(border_share(even)[0]), DIGITS),
        "mean": _scaled(grids.mean(axis=0)),
    }


def border_share(grids: np.ndarray) -> np.ndarray:
    """Share of each map `(m, H, W)` in its outermost ring of cells; 0 of an empty one.

    Example:
    >>> border_share(np.ones((1, 4, 4)))
    array([0.75])
    """
    whole = grids.sum(axis=(1, 2), dtype=float)
    inner = grids[:, 1:-1, 1:-1].sum(axis=(1, 2), dtype=float)
    return np.divide(whole - inner, whole, out=np.zeros(len(grids)), where=whole > 0)


def _scaled(grid: np.ndarray) -> list[list[float]]:
    """Rows of a map, its largest cell 1."""
    largest = grid.max()
    shown = grid / largest if largest > 0 else grid
    return np.round(shown.astype(float), GRID_DIGITS).tolist()
