"""Measures of the papers, from probabilities; scikit-learn does the counting."""

from typing import Any

import numpy as np
from scipy.special import expit, log_softmax, softmax
from sklearn import metrics as sklearn_metrics

ECE_BINS = 15
BOOTSTRAP_DRAWS = 2_000
PROBABILITY_FLOOR = 1e-7


def probabilities(task: str, logits: np.ndarray) -> np.ndarray:
    """Softmax or sigmoid of logits `(n, C)`, by the task; float32."""
    function = softmax if task == "single_label" else expit
    options = {"axis": -1} if task == "single_label" else {}
    return function(np.asarray(logits, np.float64), **options).astype(np.float32)


def log_loss(task: str, targets: np.ndarray, logits: np.ndarray) -> float:
    """Mean cross-entropy in nats: a product (softmax) or a decision (sigmoid)."""
    logits = np.asarray(logits, np.float64)
    if task == "single_label":
        chosen = log_softmax(logits, axis=-1)[np.arange(len(targets)), targets]
        return float(-chosen.mean())
    return float((np.logaddexp(0.0, logits) - targets * logits).mean())


def quick_measures(
    task: str, targets: np.ndarray, logits: np.ndarray
) -> dict[str, float]:
    """What training looks at after an epoch: `loss`, `top1`, `micro_f1`, `macro_f1`.

    Thresholds are `default_thresholds`. Args and means as in `measures`; `logits`
    float `(n, C)`.
    """
    said = probabilities(task, logits)
    given = assigned(task, said, default_thresholds(task, said.shape[1]))
    truth = one_hot(targets, said.shape[1]) if task == "single_label" else targets > 0
    return {
        "loss": log_loss(task, targets, logits),
        "top1": float(is_right(task, targets, logits).mean()),
        **_f1(truth, given),
    }


def _f1(truth: np.ndarray, given: np.ndarray) -> dict[str, float]:
    f1 = sklearn_metrics.f1_score
    return {
        "micro_f1": float(f1(truth, given, average="micro", zero_division=0)),
        "macro_f1": float(f1(truth, given, **_over_occurring(truth))),
    }


def _over_occurring(truth: np.ndarray) -> dict[str, Any]:
    """Options for a mean over the labels that occur.

    By `labels`, since scikit-learn takes a lone column cut out for two classes.
    """
    occurring = np.flatnonzero(truth.any(axis=0))
    return {"labels": occurring, "average": "macro", "zero_division": 0}


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

    Means over labels (`macro_f1`, `mean_precision`, `mean_recall`, `map`) are taken
    over the labels that some product of the split has.

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
        `top1`, `top5` (any of the first five is the product's), `micro_f1`,
        `macro_f1`, `mean_precision`, `mean_recall`, `map`, `ece`, each in [0, 1].
        `top5` is absent with five labels or fewer.
    """
    num_labels = probabilities.shape[1]
    if thresholds is None:
        thresholds = default_thresholds(task, num_labels)
    if given is None:
        given = assigned(task, probabilities, thresholds)
    if present is not None:
        given = given & present[:, None]
    truth = one_hot(targets, num_labels) if task == "single_label" else targets > 0
    occurring = np.flatnonzero(truth.any(axis=0))
    options = _over_occurring(truth)
    result = {
        "top1": float(is_right(task, targets, probabilities).mean()),
        **_f1(truth, given),
        "mean_precision": float(
            sklearn_metrics.precision_score(truth, given, **options)
        ),
        "mean_recall": float(sklearn_metrics.recall_score(truth, given, **options)),
        "map": float(
            sklearn_metrics.average_precision_score(
                truth[:, occurring], probabilities[:, occurring], average="macro"
            )
        ),
        "ece": calibration_error(task, truth, probabilities),
    }
    if num_labels > 5:
        first = np.argpartition(-probabilities, 5, axis=1)[:, :5]
        hits = np.take_along_axis(truth, first, axis=1).any(axis=1)
        result["top5"] = float(hits.mean())
    return result


def one_hot(targets: np.ndarray, num_labels: int) -> np.ndarray:
    """bool `(n, C)` from int `(n,)`."""
    return np.arange(num_labels) == np.asarray(targets)[:, None]


def calibration_error(
    task: str, truth: np.ndarray, probabilities: np.ndarray, bins: int = ECE_BINS
) -> float:
    """Expected calibration error with equally wide bins.

    Over the first choices for `single_label`, over all decisions for `multi_label`.

    Reference:
    - [Guo et al., 2017](https://arxiv.org/abs/1706.04599), equation 3.
    """
    if task == "single_label":
        best = np.argmax(probabilities, axis=1)[:, None]
        said = np.take_along_axis(probabilities, best, axis=1).ravel()
        was = np.take_along_axis(truth, best, axis=1).ravel()
    else:
        said, was = probabilities.ravel(), truth.ravel()
    index = np.minimum((said * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    gap = np.abs(
        np.bincount(index, weights=said, minlength=bins)
        - np.bincount(index, weights=was, minlength=bins)
    )
    return float(gap[count > 0].sum() / max(len(said), 1))


def logits_of(task: str, probabilities: np.ndarray) -> np.ndarray:
    """Logits that give back the probabilities: log p, or log p - log(1 - p).

    Probabilities are first clipped to [1e-7, 1 - 1e-7].
    """
    p = np.clip(probabilities, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    p = p.astype(np.float64)
    logits = np.log(p) if task == "single_label" else np.log(p) - np.log1p(-p)
    return logits.astype(np.float32)


def interval(values: np.ndarray, groups: np.ndarray, seed: int) -> list[float]:
    """The 95 % bootstrap interval of a mean, drawing whole groups.

    Products of one group share texts: variants that are right together are one piece
    of evidence, not several. With the differences of two models as values it is the
    paired interval.

    Args:
        values: `(n,)` booleans or numbers.
        groups: int `(n,)`, from 0 without gaps; all different for no groups.
        seed: Of the draws.

    Returns:
        The lower and the upper edge.

    Example:
    >>> interval(np.ones(10), np.arange(10), seed=0)
    [1.0, 1.0]
    """
    sums, counts = np.bincount(groups, weights=values), np.bincount(groups)
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(BOOTSTRAP_DRAWS):
        drawn = generator.integers(len(sums), size=len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    return [float(edge) for edge in np.percentile(means, (2.5, 97.5))]
