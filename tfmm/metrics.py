"""Measures of the papers, from probabilities.

What products have is counted as facts, pairs of a product and one of its labels. There
are few of them, where products times labels are many.
"""

import numpy as np
from scipy.special import expit, log_softmax, softmax

from tfmm.blocks import over_rows

ECE_BINS = 15
PROBABILITY_FLOOR = 1e-7
# Labels whose scores are sorted at a time: so many float32 are a line of the cache.
LABEL_BLOCK = 16


def probabilities(task: str, logits: np.ndarray) -> np.ndarray:
    """Softmax or sigmoid of logits `(n, C)`, by the task; float32."""
    function = softmax if task == "single_label" else expit
    options = {"axis": -1} if task == "single_label" else {}
    logits = np.asarray(logits)
    result = np.empty(logits.shape, np.float32)

    def fill(rows: slice) -> None:
        result[rows] = function(np.asarray(logits[rows], np.float64), **options)

    over_rows(fill, logits.shape)
    return result


def log_loss(task: str, targets: np.ndarray, logits: np.ndarray) -> float:
    """Mean cross-entropy in nats: a product (softmax) or a decision (sigmoid)."""
    logits, targets = np.asarray(logits), np.asarray(targets)

    def loss(rows: slice) -> np.ndarray:
        own = np.asarray(logits[rows], np.float64)
        if task == "single_label":
            own = log_softmax(own, axis=-1)
            return -own[np.arange(len(own)), targets[rows]]
        of_each = np.logaddexp(0.0, own) - targets[rows] * own
        return of_each.reshape(len(own), -1).mean(axis=1)

    return float(np.concatenate(over_rows(loss, logits.shape)).mean())


def quick_measures(
    task: str, targets: np.ndarray, logits: np.ndarray
) -> dict[str, float]:
    """What training looks at after an epoch: `loss`, `top1`, `micro_f1`, `macro_f1`.

    Thresholds are `default_thresholds`. Args and means as in `measures`; `logits`
    float `(n, C)`.
    """
    said = probabilities(task, logits)
    given = assigned(task, said, default_thresholds(task, said.shape[1]))
    found = of_counts(*_counts(*facts(task, targets), given))
    return {
        "loss": log_loss(task, targets, logits),
        "top1": float(is_right(task, targets, logits).mean()),
        **{key: found[key] for key in ("micro_f1", "macro_f1")},
    }


def facts(task: str, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The facts of targets int `(n,)` or float `(n, C)`, by product and then by label.

    Returns:
        Two arrays `(f,)`: rows, and the number of a label that the row has.
    """
    targets = np.asarray(targets)
    if task == "single_label":
        return np.arange(len(targets)), targets.astype(np.int64)

    def nonzero(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        own, labels = np.nonzero(targets[rows] > 0)
        return own + rows.start, labels

    parts = over_rows(nonzero, targets.shape)
    rows, labels = zip(*parts, strict=True) if parts else (([],), ([],))
    return np.concatenate(rows), np.concatenate(labels)


def _counts(
    rows: np.ndarray, labels: np.ndarray, given: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = given.shape[1]
    right = np.bincount(labels[given[rows, labels]], minlength=size)
    return right, column_sums(given), np.bincount(labels, minlength=size)


def column_sums(given: np.ndarray) -> np.ndarray:
    """int `(C,)`: how many rows of bool `(n, C)` are true."""
    parts = over_rows(lambda rows: np.count_nonzero(given[rows], axis=0), given.shape)
    return np.sum(parts, axis=0)


def of_counts(
    right: np.ndarray, given: np.ndarray, due: np.ndarray
) -> dict[str, float]:
    """The measures of decisions, from counts `(C,)`.

    Args:
        right: Products of each label that are given it.
        given: Products that are given it.
        due: Products that have it.

    Returns:
        `micro_`, `macro_` and `weighted_` `f1`; `micro_`, `mean_` and `weighted_`
        `precision` and `recall`. `macro_` and `mean_` are means over the labels that
        occur, `weighted_` are weighted by `due`. What is never given has precision 0.
    """
    occurs = due > 0
    each = {
        "precision": right / np.maximum(given, 1),
        "recall": right / np.maximum(due, 1),
        "f1": 2.0 * right / np.maximum(given + due, 1),
    }
    totals = right.sum(), given.sum(), due.sum()
    micro = {
        "precision": totals[0] / max(totals[1], 1),
        "recall": totals[0] / max(totals[2], 1),
        "f1": 2.0 * totals[0] / max(totals[1] + totals[2], 1),
    }
    result = {}
    for name, values in each.items():
        mean = "macro" if name == "f1" else "mean"
        result[f"micro_{name}"] = float(micro[name])
        result[f"{mean}_{name}"] = float(values[occurs].mean())
        result[f"weighted_{name}"] = float((values * due).sum() / max(totals[2], 1))
    return result


def average_precisions(
    rows: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """float `(C,)`: average precision of each label; NaN of one without products.

    The mean over a label's products of the precision among all that score no less:
    what scikit-learn sums over thresholds.

    Args:
        rows, labels: What `facts` returns.
        probabilities: float `(n, C)`.
    """
    num_labels = probabilities.shape[1]
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(num_labels + 1))
    result = np.full(num_labels, np.nan)

    def fill(blocks: slice) -> None:
        for first in range(blocks.start, blocks.stop):
            block = slice(first * LABEL_BLOCK, (first + 1) * LABEL_BLOCK)
            scores = np.sort(np.ascontiguousarray(probabilities[:, block].T), axis=1)
            for label, all_scores in enumerate(scores, first * LABEL_BLOCK):
                own = order[starts[label] : starts[label + 1]]
                if not len(own):
                    continue
                said = np.sort(probabilities[rows[own], label])
                reached = len(all_scores) - np.searchsorted(all_scores, said)
                right = len(said) - np.searchsorted(said, said)
                result[label] = (right / reached).mean()

    blocks = -(-num_labels // LABEL_BLOCK)
    over_rows(fill, (blocks, len(probabilities) * LABEL_BLOCK))
    return result


def ranks(
    rows: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """int `(f,)`: how many labels a product is told before one that it has.

    Those that are more probable, and of equally probable ones those before it.

    Args:
        rows, labels: What `facts` returns.
        probabilities: float `(n, C)`.

    Example:
    >>> ranks(np.array([0]), np.array([2]), np.array([[0.25, 0.5, 0.25]])).tolist()
    [2]
    """
    numbers = np.arange(probabilities.shape[1])

    def rank(some: slice) -> np.ndarray:
        said = probabilities[rows[some]]
        own = np.take_along_axis(said, labels[some, None], axis=1)
        before = (said == own) & (numbers < labels[some, None])
        return np.count_nonzero((said > own) | before, axis=1)

    parts = over_rows(rank, (len(rows), probabilities.shape[1]))
    return np.concatenate([np.zeros(0, int), *parts])


def best_ranks(rows: np.ndarray, ranks: np.ndarray, num_rows: int) -> np.ndarray:
    """int `(n,)`: the rank of each product's first label that it has."""
    best = np.full(num_rows, np.iinfo(np.int64).max)
    np.minimum.at(best, rows, ranks)
    return best


def is_right(task: str, targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """bool `(n,)`: the most probable label is the product's, or one of them."""
    best = np.argmax(scores, axis=1)
    if task == "single_label":
        return best == targets
    return targets[np.arange(len(targets)), best] > 0


def assigned(
    task: str, probabilities: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """bool `(n, C)`: the labels that are given to each product.

    Every label at or over its threshold `(C,)`; for `single_label` only the most
    probable one may be given.
    """
    over = probabilities >= thresholds
    if task == "single_label":
        over &= one_hot(np.argmax(probabilities, axis=1), over.shape[1])
    return over


def default_thresholds(task: str, num_labels: int) -> np.ndarray:
    """float32 `(C,)`, until some are fitted: 0, or 0.5 for `multi_label`."""
    return np.full(num_labels, 0.0 if task == "single_label" else 0.5, np.float32)


def measures(
    task: str,
    targets: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray | None = None,
    present: np.ndarray | None = None,
    given: np.ndarray | None = None,
) -> dict[str, float]:
    """What the papers measure, of one model on one split.

    Means over labels are taken over those that some product of the split has.

    Args:
        task: `single_label` or `multi_label`.
        targets: int `(n,)` label indices, or float `(n, C)` of zeros and ones.
        probabilities: float `(n, C)`.
        thresholds: float `(C,)`; `default_thresholds` if absent.
        present: bool `(n,)`, whether the model had anything to look at; a product
            of which it had nothing is assigned nothing. All true if absent.
        given: bool `(n, C)`, what is assigned, where more than thresholds decides
            (a hierarchy of labels); what `assigned` says if absent.

    Returns:
        What `of_counts` returns; `map`; `ece`; `top1`, `top3` and `top5` (any of so
        many first labels is the product's), each in [0, 1]. `top3` and `top5` are
        absent where there are no more labels.
    """
    num_labels = probabilities.shape[1]
    if thresholds is None:
        thresholds = default_thresholds(task, num_labels)
    if given is None:
        given = assigned(task, probabilities, thresholds)
    if present is not None:
        given = given & present[:, None]
    rows, labels = facts(task, targets)
    bins = calibration_bins(task, rows, labels, probabilities)
    first = best_ranks(rows, ranks(rows, labels, probabilities), len(probabilities))
    return {
        **of_counts(*_counts(rows, labels, given)),
        "map": float(np.nanmean(average_precisions(rows, labels, probabilities))),
        "ece": expected_error(bins),
        **{f"top{k}": float((first < k).mean()) for k in (1, 3, 5) if k < num_labels},
    }


def one_hot(targets: np.ndarray, num_labels: int) -> np.ndarray:
    """bool `(n, C)` from int `(n,)`."""
    return np.arange(num_labels) == np.asarray(targets)[:, None]


def calibration_bins(
    task: str,
    rows: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    bins: int = ECE_BINS,
) -> np.ndarray:
    """float `(3, bins)`: how many, their summed probability, how many were right.

    Bins are equally wide. Of the first choices for `single_label`, of all decisions
    for `multi_label`.

    Args:
        rows, labels: What `facts` returns.
        probabilities: float `(n, C)`.
    """

    def place(said: np.ndarray) -> np.ndarray:
        return np.minimum((said * bins).astype(int), bins - 1)

    def count(some: slice) -> np.ndarray:
        said = probabilities[some]
        said = (said.max(axis=1) if task == "single_label" else said).ravel()
        places = place(said)
        weighted = np.bincount(places, weights=said, minlength=bins)
        return np.stack([np.bincount(places, minlength=bins), weighted])

    parts = over_rows(count, probabilities.shape)
    if task == "single_label":
        right = np.argmax(probabilities, axis=1)[rows] == labels
        rows, labels = rows[right], labels[right]
    was = np.bincount(place(probabilities[rows, labels]), minlength=bins)
    return np.stack([*np.sum(parts, axis=0), was])


def expected_error(bins: np.ndarray) -> float:
    """The expected calibration error, from what `calibration_bins` returns.

    Reference:
    - [Guo et al., 2017](https://arxiv.org/abs/1706.04599), equation 3.
    """
    count, said, was = bins
    return float(np.abs(said - was).sum() / max(count.sum(), 1))


def calibration_error(
    task: str, truth: np.ndarray, probabilities: np.ndarray, bins: int = ECE_BINS
) -> float:
    """Expected calibration error of probabilities; `truth` is bool `(n, C)`."""
    rows, labels = np.nonzero(truth)
    return expected_error(calibration_bins(task, rows, labels, probabilities, bins))


def _clipped(probabilities: np.ndarray) -> np.ndarray:
    # As float64 first: the nearest float32 of the ceiling is another number.
    p = np.asarray(probabilities, np.float64)
    return np.clip(p, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)


def logits_of(task: str, probabilities: np.ndarray) -> np.ndarray:
    """Logits that give back the probabilities: log p, or log p - log(1 - p).

    Probabilities are first clipped to [1e-7, 1 - 1e-7].
    """
    p = _clipped(probabilities)
    logits = np.log(p) if task == "single_label" else np.log(p) - np.log1p(-p)
    return logits.astype(np.float32)


def loss_of(
    task: str, rows: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> float:
    """`log_loss` of `logits_of` probabilities `(n, C)`, from facts.

    Args:
        task: `single_label` or `multi_label`.
        rows, labels: What `facts` returns.
        probabilities: float `(n, C)`.
    """

    def rest(some: slice) -> float:
        p = _clipped(probabilities[some])
        if task == "single_label":
            return float(np.log(p.sum(axis=1)).sum())
        return float(-np.log1p(-p).sum())

    own = _clipped(probabilities[rows, labels])
    gain = np.log(own) if task == "single_label" else np.log(own) - np.log1p(-own)
    losses = sum(over_rows(rest, probabilities.shape)) - gain.sum()
    decided = len(probabilities) if task == "single_label" else probabilities.size
    return float(losses / decided)
