"""Labels that are paths: closed upwards, and answers that respect the tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfmm.errors import CatalogError

if TYPE_CHECKING:  # a catalog is read without TensorFlow
    import tensorflow as tf


def path_of(label: str, separator: str) -> tuple[str, ...]:
    """The steps of a path; white space about the separator does not count.

    Args:
        label: Such as `Apparel > Topwear > Tshirts`; without a separator it is a root.
        separator: Such as ` > `; more than white space.

    Raises:
        CatalogError: If a step is empty.

    Example:
    >>> path_of("Apparel >Topwear", " > ")
    ('Apparel', 'Topwear')
    """
    path = tuple(step.strip() for step in label.split(separator.strip()))
    if not all(path):
        raise CatalogError(
            f"expected steps with {separator!r} between them. Received: {label!r:.80}"
        )
    return path


def with_ancestors(labels: Iterable[str], separator: str) -> list[str]:
    """The labels with every label above them, each once, a parent before its child.

    Args:
        labels: A product's labels.
        separator: Mark between the steps of a path; in the result it is as given here.

    Raises:
        CatalogError: If a step of a path is empty.

    Example:
    >>> with_ancestors(["Apparel>Shoes", "Sale"], " > ")
    ['Apparel', 'Apparel > Shoes', 'Sale']
    """
    closed: dict[str, None] = {}
    for label in labels:
        path = path_of(label, separator)
        for end in range(1, len(path) + 1):
            closed[separator.join(path[:end])] = None
    return list(closed)


class Hierarchy:
    """The tree of labels that are paths, and what it makes of a model's answers.

    A label's parent is the longest proper prefix of its path that is a label.

    `consistent` moves probabilities so that none is above its parent's. There are two
    ways to mend a child that is more probable than its parent: to believe the child
    and lift the parent to it, `max` over the label and all below it; or to believe the
    parent and lower the child to it, `min` over the label and all above it. Both give
    consistent answers, so their mean is one too, and it is what is taken. Answers that
    are consistent are left as they are.

    `assigned` gives a label if it and every label above it reach their thresholds.
    On each path that is the deepest label that does, or else its parent.

    The methods with `_in_graph` do the same in TensorFlow, with equal numbers: plain
    operations without a loop, whose work grows with the labels times their depth.

    Args:
        label_names: The `C` labels.
        separator: Mark between the steps of a path.

    Attributes:
        parents: int32 `(C,)`, the index of each label's parent; -1 for roots.
        depths: int32 `(C,)`, the number of labels above each.

    Raises:
        CatalogError: If a step of a path is empty, or two labels are one path.

    Example:
    >>> tree = Hierarchy(["Shoes", "Shoes > Boots", "Toys"], " > ")
    >>> tree.parents.tolist()
    [-1, 0, -1]
    >>> tree.consistent(np.array([[0.5, 0.75, 0.25]], np.float32)).tolist()
    [[0.625, 0.625, 0.25]]
    """

    def __init__(self, label_names: Sequence[str], separator: str):
        paths = [path_of(name, separator) for name in label_names]
        index: dict[tuple[str, ...], int] = {}
        for position, path in enumerate(paths):
            if path in index:
                raise CatalogError(
                    "expected each path once. Received: "
                    f"{label_names[index[path]]!r} and {label_names[position]!r}"
                )
            index[path] = position
        # Of each label: itself and all above it, the nearest first.
        lines = [
            [
                index[path[:end]]
                for end in range(len(path), 0, -1)
                if path[:end] in index
            ]
            for path in paths
        ]
        self.parents = np.array(
            [line[1] if len(line) > 1 else -1 for line in lines], np.int32
        )
        self.depths = np.array([len(line) - 1 for line in lines], np.int32)
        # Pairs of a label and one above it or itself, by the lower and by the upper.
        lower = np.repeat(np.arange(len(lines)), self.depths + 1)
        upper = np.concatenate(lines)
        self._lower, self._above = lower, upper
        order = np.argsort(upper, kind="stable")
        self._upper, self._below = upper[order], lower[order]
        self._first_above = np.searchsorted(self._lower, np.arange(len(lines)))
        self._first_below = np.searchsorted(self._upper, np.arange(len(lines)))

    def consistent(self, probabilities: np.ndarray) -> np.ndarray:
        """float32 `(n, C)`, no label more probable than its parent."""
        said = np.asarray(probabilities, np.float32)
        lifted = np.maximum.reduceat(said[:, self._below], self._first_below, axis=1)
        lowered = np.minimum.reduceat(said[:, self._above], self._first_above, axis=1)
        return (lifted + lowered) * np.float32(0.5)

    def assigned(self, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """bool `(n, C)`: a label and all above it reach their thresholds `(C,)`."""
        over = probabilities >= thresholds
        return np.logical_and.reduceat(over[:, self._above], self._first_above, axis=1)

    def consistent_in_graph(self, probabilities: tf.Tensor) -> tf.Tensor:
        """`consistent` of a float32 tensor `(batch, C)`."""
        import tensorflow as tf

        said = tf.transpose(probabilities)
        labels = len(self.parents)
        lifted = tf.math.unsorted_segment_max(
            tf.gather(said, self._below), self._upper, labels
        )
        lowered = tf.math.unsorted_segment_min(
            tf.gather(said, self._above), self._lower, labels
        )
        return tf.transpose((lifted + lowered) * 0.5)

    def assigned_in_graph(
        self, probabilities: tf.Tensor, thresholds: np.ndarray
    ) -> tf.Tensor:
        """`assigned` of a float32 tensor `(batch, C)`; `thresholds` float32 `(C,)`."""
        import tensorflow as tf

        over = tf.cast(tf.transpose(probabilities >= thresholds), tf.int32)
        every = tf.math.unsorted_segment_min(
            tf.gather(over, self._above), self._lower, len(self.parents)
        )
        return tf.transpose(every > 0)
