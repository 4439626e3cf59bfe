"""What is taken for what, and how near the wrong labels are."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from tfmm.blocks import over_rows
from tfmm.errors import CatalogError
from tfmm.hierarchy import path_of
from tfmm.report.answers import Truth

NUM_CONFUSED = 30


def confused(truth: Truth, assigned: np.ndarray) -> list[list[int]]:
    """The pairs of labels that are confused most.

    Of several labels none stands for another. So a pair is a label that a product has
    and is not given, with one that it is given and does not have; with one label each
    this is the right one and the one in its stead.

    Args:
        truth: What products have.
        assigned: bool `(n, C)`.

    Returns:
        Up to `NUM_CONFUSED` triples: the label missed, the label given, products.
    """

    def count(rows: slice) -> scipy.sparse.csr_array:
        has = _facts(truth, rows)
        wrong, missed = assigned[rows].copy(), np.zeros(assigned[rows].shape, bool)
        missed[has] = ~wrong[has]
        wrong[has] = False
        some = wrong.any(axis=1)  # the others confuse nothing
        sparse = [scipy.sparse.csr_array(x[some], dtype=int) for x in (missed, wrong)]
        return scipy.sparse.csr_array(sparse[0].T @ sparse[1])

    empty = scipy.sparse.csr_array((truth.num_labels,) * 2, dtype=int)
    table = sum(over_rows(count, assigned.shape), start=empty).tocoo()
    true, given = table.coords
    order = np.lexsort((given, true, -table.data))[:NUM_CONFUSED]
    return np.stack([true, given, table.data], axis=1)[order].tolist()


def _facts(truth: Truth, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """The facts of a block of rows, counted from its first."""
    some = slice(*np.searchsorted(truth.rows, (rows.start, rows.stop)))
    return truth.rows[some] - rows.start, truth.labels[some]


class Paths:
    """Labels that are paths, by the steps above them.

    A name that is no path, such as one with an empty step, is a root of its own.

    Args:
        label_names: The `C` labels.
        separator: Mark between the steps.

    Attributes:
        any: Whether some label has more than one step.
        has_parent: bool `(C,)`.
    """

    def __init__(self, label_names: Sequence[str], separator: str):
        paths = [_path(name, separator) for name in label_names]
        numbers: dict[tuple[str, ...], int] = {}
        below = [
            [numbers.setdefault(path[:end], len(numbers)) for end in _ends(path)]
            for path in paths
        ]
        self.has_parent = np.array([len(path) > 1 for path in paths])
        self.any = bool(self.has_parent.any())
        self._parent = np.array([x[max(len(x) - 2, 0)] for x in below])
        self._top = np.array([x[0] for x in below])
        # Of each label every step on its way, itself included.
        steps = np.concatenate(below)
        labels = np.repeat(np.arange(len(paths)), [len(x) for x in below])
        self._on_path = scipy.sparse.csr_array(
            (np.ones(len(steps), int), (labels, steps)),
            shape=(len(paths), len(numbers)),
        )

    def nearness(
        self, truth: Truth, assigned: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of each fact, whether the product is given a label near.

        Args:
            truth: What products have.
            assigned: bool `(n, C)`.

        Returns:
            bool `(f,)`: one inside the label's parent, or the parent; bool `(f,)`: one
            inside the topmost step of its path.
        """

        def near(rows: slice) -> np.ndarray:
            own, labels = _facts(truth, rows)
            given = scipy.sparse.csr_array(assigned[rows], dtype=int)
            reached = scipy.sparse.csr_array(given @ self._on_path)
            return np.stack(
                [
                    np.asarray(reached[own, steps[labels]]).ravel() > 0
                    for steps in (self._parent, self._top)
                ]
            )

        empty = np.zeros((2, 0), bool)
        parts = [empty, *over_rows(near, assigned.shape)]
        inside, top = np.concatenate(parts, axis=1)
        return inside, top


def _path(name: str, separator: str) -> tuple[str, ...]:
    try:
        return path_of(name, separator)
    except CatalogError:
        return (name,)


def _ends(path: tuple[str, ...]) -> range:
    return range(1, len(path) + 1)


def within_parent(
    chosen: np.ndarray, near: tuple[np.ndarray, np.ndarray]
) -> dict[str, int]:
    """How many of the `chosen` facts there are, and how many have a label near."""
    inside, top = near
    return {
        "products": int(chosen.sum()),
        "inside": int((chosen & inside).sum()),
        "top": int((chosen & top).sum()),
    }
