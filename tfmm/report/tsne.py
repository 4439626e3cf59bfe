"""Towers' features in two dimensions."""

from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tfmm import results
from tfmm.experiment import Experiment
from tfmm.report.answers import rounded
from tfmm.report.numbers import Measured
from tfmm.run import Run

# Of one tower, and of all together: 1,000 products take 4 to 7 s on one processor.
PRODUCTS, PRODUCTS_IN_ALL = 1_000, 4_000
LEAST = 10
DIMENSIONS = 50
PERPLEXITY = 30.0
GROUPS = ("all_right", "only_this", "this_and_some", "others_only", "none")


def of_towers(
    run: Run, settings: Experiment, split: str, measured: Measured
) -> dict[str, dict[str, Any]]:
    """Places products of the split in a plane, for each tower (A, figure 3).

    The same products for every tower, as far as it has something to look at.

    Returns:
        What docs/report.md lists under `tsne`. Towers with too few products, or whose
        features are all the same, are absent.

    Raises:
        RunError: If outputs are missing or damaged.
    """
    models = measured.numbers["models"]
    towers = [name for name in models if models[name]["kind"] == "tower"]
    size = measured.truth.products
    number = min(PRODUCTS, PRODUCTS_IN_ALL // len(towers), size)
    generator = np.random.default_rng(settings.seed)
    drawn = np.sort(generator.choice(size, number, replace=False))
    found = {}
    for name in towers:
        stored = results.read_outputs(run, settings, name, split)
        rows = drawn[np.asarray(stored.present)[drawn]]
        features = np.asarray(stored.features[rows])
        if len(rows) < LEAST or not np.ptp(features, axis=0).any():
            continue
        plane, perplexity = embed(features, settings.seed)
        right = measured.answers[name].right[rows]
        others = [measured.answers[x].right[rows] for x in towers if x != name]
        found[name] = {
            "x": rounded(plane[:, 0], 2),
            "y": rounded(plane[:, 1], 2),
            "rows": rows.tolist(),
            "group": groups_of(right, others),
            "perplexity": round(perplexity, 2),
        }
    return found


def groups_of(right: np.ndarray, others: list[np.ndarray]) -> list[str]:
    """By whose first label is right: `GROUPS`.

    Args:
        right: bool `(m,)`, of this tower.
        others: The same of every other tower.

    Example:
    >>> groups_of(np.array([True, False]), [np.array([False, True])])
    ['only_this', 'others_only']
    """
    every = np.all([right, *others], axis=0)
    some = np.any([np.zeros_like(right), *others], axis=0)
    kinds = [every, right & ~some, right, some]
    return np.select(kinds, GROUPS[:-1], GROUPS[-1]).tolist()


def embed(features: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """t-SNE of features that are not all the same, and its perplexity.

    On one processor: several add up in an order of their own, and the smallest
    difference leads to another plane.

    Args:
        features: float `(m, d)`, of `LEAST` products or more.
        seed: Of the draws.

    Returns:
        float `(m, 2)`, and the perplexity.

    Reference:
    - van der Maaten and Hinton, 2008, "Visualizing Data using t-SNE".
    """
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    dimensions = min(DIMENSIONS, *features.shape)
    with threadpool_limits(1):
        reduced = PCA(dimensions, random_state=seed).fit_transform(features)
        start = "pca" if dimensions > 1 else "random"
        plane = TSNE(perplexity=perplexity, init=start, random_state=seed)
        return plane.fit_transform(reduced), perplexity
