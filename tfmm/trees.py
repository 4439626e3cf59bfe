"""Boosted trees as arrays, from the text that LightGBM writes of its models."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

# LightGBM takes what is not farther from zero than this float32 for zero.
ZERO = np.float32(1e-35)
MAX_LEAVES = 63
LARGEST = np.finfo(np.float32).max

_MODEL_KEYS = {
    *("version", "num_class", "num_tree_per_iteration", "label_index"),
    *("max_feature_idx", "objective", "feature_names", "feature_infos"),
    *("tree_sizes", "monotone_constraints"),
}
_SPLIT_KEYS = ("split_feature", "threshold", "decision_type")
_CHILD_KEYS = ("left_child", "right_child")
_TREE_KEYS = {
    *("num_leaves", "num_cat", "is_linear", "shrinkage", "split_gain"),
    *("leaf_value", "leaf_weight", "leaf_count"),
    *("internal_value", "internal_weight", "internal_count"),
    *_SPLIT_KEYS,
    *_CHILD_KEYS,
}
_NEVER_MISSING, _ZERO_IS_MISSING, _NAN_IS_MISSING = range(3)


@dataclass(frozen=True)
class Trees:
    """Trees whose splits all ask `column > threshold`.

    A column is a feature with its special values replaced by what sends them the way
    that LightGBM sends them: `-inf` to the left, `inf` to the right. Splits that treat
    these values differently read different columns.

    A split that answers yes rules out the leaves on its left, and one that answers no
    nothing: of the leaves that no split of the tree rules out, the first from the left
    is the one where the product ends, since each split on its path left only one side
    of the leaves before it. So splits can be asked in any order, and leaves be bits.

    `splits` is the largest number of splits of a tree, at least 1. A tree with fewer
    has some that never answer yes.

    Attributes:
        num_features: Columns of the matrix that LightGBM was trained on.
        num_classes: Scores of a row; tree `i` adds to score `i % num_classes`.
        features: int32 `(columns,)`: the feature that a column shows.
        ceilings: float32 `(columns,)`: what greater values are replaced by.
        at_zero: float32 `(columns,)`: what values within `ZERO` of 0 are replaced by.
        at_nan: float32 `(columns,)`: what NaN is replaced by.
        columns: int32 `(splits, trees)`.
        thresholds: float32 `(splits, trees)`.
        leaves_left: int64 `(splits, trees)`: the bits of the leaves, numbered from the
            left, that stay when a split answers yes.
        values: float64 `(trees, splits + 1)`: what each leaf adds.

    Reference:
    - Lucchese et al. 2015, "QuickScorer", section 3.
    """

    num_features: int
    num_classes: int
    features: np.ndarray
    ceilings: np.ndarray
    at_zero: np.ndarray
    at_nan: np.ndarray
    columns: np.ndarray
    thresholds: np.ndarray
    leaves_left: np.ndarray
    values: np.ndarray


def read_trees(text: str) -> Trees:
    """Reads what `lightgbm.Booster.model_to_string` returns.

    The trees ask the same of float32 rows as LightGBM: a float32 is at most a float64
    threshold exactly when it is at most that threshold rounded down to float32.

    Args:
        text: A model of numerical splits, with constant leaves, whose scores are the
            sums of its trees.

    Raises:
        ValueError: If the model has categorical splits, linear leaves, averaged trees
            (random forests), more than 63 leaves in a tree, or anything else that is
            not understood.
    """
    text, end, _ = text.partition("\nend of trees")
    first, *blocks = text.split("\nTree=")
    first = first.strip().removeprefix("tree\n")
    model = _keys(first, _MODEL_KEYS, "model")
    if not end or model.get("version") != "v4":
        raise ValueError(
            "A whole LightGBM text model of version v4 was expected. "
            f"Received: version={model.get('version')}, {len(text)} characters"
        )
    num_classes = int(model["num_tree_per_iteration"])
    announced = len(model["tree_sizes"].split())
    if not blocks or len(blocks) != announced or announced % num_classes:
        raise ValueError(
            f"The model announces {announced} trees, {num_classes} for each round. "
            f"Received: {len(blocks)}"
        )
    num_features = int(model["max_feature_idx"]) + 1
    trees = [_tree(block, num_features) for block in blocks]
    splits = max(1, *(len(tree["threshold"]) for tree in trees))
    shape = (splits, len(trees))
    known: dict[tuple, int] = {}
    columns = np.zeros(shape, np.int32)
    thresholds = np.full(shape, np.inf, np.float32)
    leaves_left = np.full(shape, -1, np.int64)
    values = np.zeros((len(trees), splits + 1))
    for position, tree in enumerate(trees):
        leaves, ruled_out = _from_left(tree)
        values[position, : len(leaves)] = tree["leaf_value"][leaves]
        for split, bits in enumerate(ruled_out):
            column = _column(*(tree[key][split] for key in _SPLIT_KEYS))
            columns[split, position] = known.setdefault(column, len(known))
            thresholds[split, position] = _rounded_down(tree["threshold"][split])
            leaves_left[split, position] = ~bits
    kinds = list(known) or [(0, np.inf, 0.0, 0.0)]
    features, *replaced = (np.array(part) for part in zip(*kinds, strict=True))
    ceilings, at_zero, at_nan = (part.astype(np.float32) for part in replaced)
    return Trees(
        num_features=num_features,
        num_classes=num_classes,
        features=features.astype(np.int32),
        ceilings=ceilings,
        at_zero=at_zero,
        at_nan=at_nan,
        columns=columns,
        thresholds=thresholds,
        leaves_left=leaves_left,
        values=values,
    )


def _keys(block: str, known: set[str], what: str) -> dict[str, str]:
    """The `key=value` lines of a model's head or of a tree."""
    found = {}
    for line in filter(None, block.split("\n")):
        key, _, value = line.partition("=")
        if key not in known:
            raise ValueError(
                f"A {what} with the keys {', '.join(sorted(known))} was expected. "
                f"Received: {line[:60]!r}"
            )
        found[key] = value
    return found


def _tree(block: str, num_features: int) -> dict[str, np.ndarray]:
    """Checked arrays of a tree; none but `leaf_value` has entries without splits."""
    number, _, lines = block.partition("\n")
    # What makes a tree another kind of tree is looked at before its other keys.
    kind = dict(line.split("=", 1) for line in lines.split("\n") if "=" in line)
    if kind.get("num_cat") != "0" or kind.get("is_linear", "0") != "0":
        raise ValueError(
            "Numerical splits and constant leaves were expected (num_cat=0, "
            f"is_linear=0). Received: tree {number} with "
            f"num_cat={kind.get('num_cat')}, is_linear={kind.get('is_linear')}"
        )
    found = _keys(lines, _TREE_KEYS, f"tree {number}")
    num_leaves = int(found["num_leaves"])
    if not 1 <= num_leaves <= MAX_LEAVES:
        raise ValueError(
            f"1 to {MAX_LEAVES} leaves were expected in a tree. Received: "
            f"tree {number} with num_leaves={num_leaves}"
        )
    tree = {"leaf_value": np.array(found["leaf_value"].split(), np.float64)}
    for key in (*_SPLIT_KEYS, *_CHILD_KEYS):
        kind_of_number = np.float64 if key == "threshold" else np.int64
        tree[key] = np.array(found.get(key, "").split(), kind_of_number)
    lengths = {key: len(value) for key, value in tree.items()}
    expected = {key: num_leaves - (key != "leaf_value") for key in tree}
    if lengths != expected:
        raise ValueError(f"Expected: {expected}. Received: tree {number}, {lengths}")
    features, decisions = tree["split_feature"], tree["decision_type"]
    if (
        ((features < 0) | (features >= num_features)).any()
        or ((decisions < 0) | (decisions >> 2 > _NAN_IS_MISSING) | decisions & 1).any()
        or np.isnan(tree["threshold"]).any()
        or not np.isfinite(tree["leaf_value"]).all()
    ):
        raise ValueError(
            f"Features below {num_features}, decision types of numerical splits, "
            f"thresholds and finite leaves were expected. Received: tree {number}, "
            f"{tree}"
        )
    return tree


def _from_left(tree: Mapping[str, np.ndarray]) -> tuple[list[int], list[int]]:
    """Leaves in order from the left, and each split's bits of those on its left."""
    leaves: list[int] = []
    ruled_out = [0] * len(tree["threshold"])
    seen: set[int] = set()

    def visit(node: int) -> None:
        if node in seen or not -len(tree["leaf_value"]) <= node < len(ruled_out):
            raise ValueError(
                f"Children that make a tree were expected. Received: "
                f"{tree['left_child']}, {tree['right_child']}"
            )
        seen.add(node)
        if node < 0:
            leaves.append(~node)
            return
        before = len(leaves)
        visit(int(tree["left_child"][node]))
        ruled_out[node] = (1 << len(leaves)) - (1 << before)
        visit(int(tree["right_child"][node]))

    visit(0 if ruled_out else -1)
    return leaves, ruled_out


def _column(feature: int, threshold: float, decision: int) -> tuple:
    """Feature, ceiling, and the replacements of zero and NaN that a split reads."""
    missing_goes = -np.inf if decision & 2 else np.inf
    kind = decision >> 2
    return (
        int(feature),
        # `x <= inf` holds for every x, `x <= LARGEST` for every x cut to it; what is
        # missing is replaced after the cut, and may still go to the right.
        float(LARGEST) if threshold == np.inf else np.inf,
        missing_goes if kind == _ZERO_IS_MISSING else 0.0,
        0.0 if kind == _NEVER_MISSING else missing_goes,
    )


def _rounded_down(threshold: float) -> np.float32:
    """The greatest float32 that is not above a float64, and no subnormal number.

    Subnormal thresholds, which TensorFlow takes for zero, can be moved: no value of a
    column lies between -ZERO and ZERO, but zero.
    """
    if abs(threshold) <= ZERO:
        return np.float32(0.0) if threshold >= 0 else -ZERO
    if threshold >= LARGEST:
        return LARGEST
    if threshold < -LARGEST:
        return np.float32(-np.inf)
    nearest = np.float32(threshold)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return below if nearest > threshold else nearest
