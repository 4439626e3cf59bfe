"""What a report keeps of answers: a little of each product, each label, each fact."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmm import metrics
from tfmm.blocks import over_rows


@dataclass(frozen=True)
class Truth:
    """The labels that `n` products have, as `f` facts: a product and one label of it.

    Attributes:
        task: `single_label` or `multi_label`.
        rows: int `(f,)`, rising.
        labels: int `(f,)`.
        products: `n`.
        num_labels: `C`.
    """

    task: str
    rows: np.ndarray
    labels: np.ndarray
    products: int
    num_labels: int

    @classmethod
    def of(cls, task: str, targets: np.ndarray, num_labels: int) -> "Truth":
        """From targets int `(n,)` or float `(n, C)`."""
        return cls(task, *metrics.facts(task, targets), len(targets), num_labels)

    @property
    def support(self) -> np.ndarray:
        """int `(C,)`: products of each label."""
        return self.per_label(np.ones(len(self.labels), bool))

    @property
    def due(self) -> np.ndarray:
        """int `(n,)`: labels of each product."""
        return np.bincount(self.rows, minlength=self.products)

    def per_label(self, chosen: np.ndarray) -> np.ndarray:
        """int `(C,)`: of each label, how many facts are `chosen`, bool `(f,)`."""
        return np.bincount(self.labels[chosen], minlength=self.num_labels)

    def per_product(self, values: np.ndarray) -> np.ndarray:
        """float `(n,)`: the sum of `values` `(f,)` over each product's facts."""
        return np.bincount(self.rows, weights=values, minlength=self.products)


@dataclass(frozen=True)
class Answer:
    """What one model says of the products of a `Truth`.

    Attributes:
        first: int `(n,)`, the most probable label.
        certainty: float32 `(n,)`, its probability.
        right: bool `(n,)`, whether the product has it.
        found: bool `(f,)`, whether a product is given a label that it has.
        probability: float32 `(f,)`, of the labels that products have.
        given: int `(n,)`, how many labels each product is given.
        label_given: int `(C,)`, how many products each label is given to.
    """

    first: np.ndarray
    certainty: np.ndarray
    right: np.ndarray
    found: np.ndarray
    probability: np.ndarray
    given: np.ndarray
    label_given: np.ndarray


def look(truth: Truth, probabilities: np.ndarray, assigned: np.ndarray) -> Answer:
    """Looks at probabilities float `(n, C)` and at what is assigned, bool `(n, C)`."""

    def of(rows: slice) -> tuple[np.ndarray, ...]:
        own, given = probabilities[rows], assigned[rows]
        first = np.argmax(own, axis=1)
        return (
            first,
            np.take_along_axis(own, first[:, None], axis=1)[:, 0],
            np.count_nonzero(given, axis=1),
            np.count_nonzero(given, axis=0),
        )

    parts = list(zip(*over_rows(of, probabilities.shape), strict=True))
    first = np.concatenate(parts[0])
    right = np.zeros(truth.products, bool)
    right[truth.rows[truth.labels == first[truth.rows]]] = True
    return Answer(
        first=first,
        certainty=np.concatenate(parts[1]),
        right=right,
        found=assigned[truth.rows, truth.labels],
        probability=probabilities[truth.rows, truth.labels],
        given=np.concatenate(parts[2]),
        label_given=np.sum(parts[3], axis=0),
    )


def decisions(truth: Truth, answer: Answer) -> dict[str, float]:
    """What `metrics.of_counts` says of the labels that an answer gives."""
    found = truth.per_label(answer.found)
    return metrics.of_counts(found, answer.label_given, truth.support)


def figures(truth: Truth, answer: Answer) -> dict[str, float]:
    """`top1`, `micro_f1` and `macro_f1`."""
    found = decisions(truth, answer)
    return {
        "top1": float(answer.right.mean()),
        **{key: found[key] for key in ("micro_f1", "macro_f1")},
    }


def measures(
    truth: Truth, answer: Answer, ranks: np.ndarray, probabilities: np.ndarray
) -> dict[str, Any]:
    """The measures of the papers and a few beside them; docs/report.md lists them.

    Args:
        truth: What products have.
        answer: What `look` makes of the probabilities.
        ranks: What `metrics.ranks` says of the facts.
        probabilities: float `(n, C)`.
    """
    best = metrics.best_ranks(truth.rows, ranks, truth.products)
    numbers = [k for k in (1, 3, 5) if k < truth.num_labels]
    precisions = metrics.average_precisions(truth.rows, truth.labels, probabilities)
    found: dict[str, Any] = {
        **decisions(truth, answer),
        "top1": float(answer.right.mean()),
        **{f"top{k}": float((best < k).mean()) for k in numbers if k > 1},
        "map": float(np.nanmean(precisions)),
        "given": float(answer.given.mean()),
        "unassigned": float((answer.given == 0).mean()),
    }
    if truth.task == "multi_label":
        right = truth.per_product(answer.found)
        found["exact"] = float(((right == answer.given) & (right == truth.due)).mean())
        hits = {k: truth.per_product(ranks < k) for k in numbers}
        due = np.maximum(truth.due, 1)
        found["precision_at"] = {str(k): float(x.mean() / k) for k, x in hits.items()}
        found["recall_at"] = {str(k): float((x / due).mean()) for k, x in hits.items()}
    return found


def calibration_curve(bins: np.ndarray) -> Mapping[str, list]:
    """What `metrics.calibration_bins` returns, as a report tells it."""
    count, said, was = bins
    full = count > 0
    return {
        "count": count.astype(int).tolist(),
        "confidence": rounded(np.divide(said, count, where=full, out=_nothing(full))),
        "right": rounded(np.divide(was, count, where=full, out=_nothing(full))),
    }


def _nothing(like: np.ndarray) -> np.ndarray:
    return np.full(like.shape, np.nan)


def rounded(values: np.ndarray, digits: int = 4) -> list[float | None]:
    """Numbers for JSON, so short that a thousand of them are; None for NaN."""
    return [
        None if value != value else round(float(value), digits)
        for value in np.asarray(values, float)
    ]
