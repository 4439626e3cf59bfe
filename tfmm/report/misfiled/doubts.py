"""Confident learning: which labels out-of-fold probabilities speak against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Rows at a time: what is made on the way stays small beside the probabilities.
BLOCK_ROWS = 4_096
# A mean of equal probabilities may come out above each of them.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Facts:
    """`f` pairs of a product and a label, in the order of products.

    Attributes:
        rows: int64 `(f,)`.
        labels: int64 `(f,)`.
        probabilities: float32 `(f,)`, what the judge gives that label there.
        confident: bool `(f,)`, whether the confident joint counts it as an error.
    """

    rows: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    confident: np.ndarray

    def of(self, row: int) -> slice:
        """Where the pairs of one product are."""
        start, stop = np.searchsorted(self.rows, [row, row + 1])
        return slice(start, stop)


@dataclass(frozen=True)
class Doubts:
    """What a judge has against the labels of `n` products.

    Attributes:
        surprise: float32 `(n,)`, in nats: how little the judge expected the product's
            label; with several, the least expected of them, or of those it lacks. The
            higher, the more suspect.
        wrong: Labels that products have and, by the judge, should not.
        missing: Labels that they lack and should have. Single-label: one for each of
            `wrong`, of the same product.
    """

    surprise: np.ndarray
    wrong: Facts
    missing: Facts

    @property
    def confident(self) -> np.ndarray:
        """bool `(n,)`: the products of which the confident joint counts a label."""
        found = np.zeros(len(self.surprise), bool)
        for facts in (self.wrong, self.missing):
            found[facts.rows[facts.confident]] = True
        return found


class Confidence:
    """The confident joint of all products judged, in two passes over them.

    Judges are not equally sure of every label, so a probability counts as confident
    from a threshold of that label's own: the mean probability of the label among the
    products that have it. A product that has label `i` and is confidently `j` is one
    of `joint[i, j]`; if several labels are confident, `j` is the most probable of
    them. Each row of the joint, stretched to the products that have `i`, estimates how
    many of them belong to `j`: what is off the diagonal is misfiled.

    With several labels a product, each label is a question of its own with the answers
    yes and no, and the joint is `(C, 2, 2)`.

    Args:
        task: `single_label` or `multi_label`.
        num_labels: `C`.

    Reference:
    - [Northcutt et al., 2021](https://arxiv.org/abs/1911.00068), section 3.1. Its
        package cleanlab has the same thresholds and the same joint.
    """

    def __init__(self, task: str, num_labels: int):
        self._single = task == "single_label"
        answers = 1 if self._single else 2
        self._sums = np.zeros((answers, num_labels))
        self._counts = np.zeros((answers, num_labels), np.int64)
        shape = (num_labels, num_labels) if self._single else (num_labels, 2, 2)
        self.joint = np.zeros(shape, np.int64)

    def learn(self, targets: np.ndarray, probabilities: np.ndarray) -> None:
        """First pass: takes in products, for the thresholds.

        Args:
            targets: int `(n,)` or float `(n, C)`.
            probabilities: float `(n, C)`, calibrated.
        """
        num_labels = self._sums.shape[1]
        for block in _blocks(len(targets)):
            own, said = targets[block], probabilities[block]
            if self._single:
                given = said[np.arange(len(own)), own]
                self._sums[0] += np.bincount(own, given, num_labels)
                self._counts[0] += np.bincount(own, minlength=num_labels)
            else:
                yes = own > 0
                self._sums[1] += np.where(yes, said, 0.0).sum(axis=0, dtype=np.float64)
                self._sums[0] += np.where(yes, 0.0, 1.0 - said).sum(
                    axis=0, dtype=np.float64
                )
                self._counts[1] += yes.sum(axis=0)
                self._counts[0] += (~yes).sum(axis=0)

    @property
    def thresholds(self) -> np.ndarray:
        """float64 `(1, C)`, or `(2, C)` of no and yes; infinite without a product."""
        means = np.full(self._sums.shape, np.inf)
        np.divide(self._sums, self._counts, out=means, where=self._counts > 0)
        return means - ROUNDING

    def doubt(self, targets: np.ndarray, probabilities: np.ndarray) -> Doubts:
        """Second pass: what there is against products, once all are learned from.

        Args:
            targets, probabilities: As in `learn`.
        """
        doubt = self._doubt_single if self._single else self._doubt_multi
        parts = [
            doubt(targets[block], probabilities[block], block.start)
            for block in _blocks(len(targets))
        ]
        return Doubts(
            np.concatenate([np.zeros(0, np.float32), *(x.surprise for x in parts)]),
            _joined([x.wrong for x in parts]),
            _joined([x.missing for x in parts]),
        )

    def _doubt_single(self, own: np.ndarray, said: np.ndarray, start: int) -> Doubts:
        rows = np.arange(len(own))
        sure = np.where(said >= self.thresholds[0], said, np.float32(-1.0))
        guess = np.argmax(sure, axis=1)
        known = sure[rows, guess] >= 0
        np.add.at(self.joint, (own[known], guess[known]), 1)
        given = said[rows, own]
        others = said.copy()
        others[rows, own] = -1.0
        likely = np.argmax(others, axis=1)
        best = others[rows, likely]
        here = np.flatnonzero(best > given)
        counted = (known & (guess != own))[here]
        wrong = Facts(here + start, own[here].astype(np.int64), given[here], counted)
        missing = Facts(here + start, likely[here], best[here], counted)
        return Doubts(_nats(given), wrong, missing)

    def _doubt_multi(self, own: np.ndarray, said: np.ndarray, start: int) -> Doubts:
        yes = own > 0
        no_threshold, yes_threshold = self.thresholds
        sure_no, sure_yes = 1.0 - said >= no_threshold, said >= yes_threshold
        # Where both are confident the more probable answer counts.
        counts_yes = sure_yes & (~sure_no | (said > 0.5))
        counts_no = sure_no & ~counts_yes
        for answer, mask in ((0, ~yes), (1, yes)):
            self.joint[:, answer, 0] += (counts_no & mask).sum(axis=0)
            self.joint[:, answer, 1] += (counts_yes & mask).sum(axis=0)
        as_given = np.where(yes, said, 1.0 - said)
        return Doubts(
            _nats(as_given.min(axis=1)),
            _facts(yes & (said < 0.5), said, counts_no, start),
            _facts(~yes & (said > 0.5), said, counts_yes, start),
        )

    def error_rates(self) -> dict[str, float]:
        """How much the joint estimates to be misfiled, after the second pass.

        Returns:
            `wrong_rate`, of the labels given the share that should not be;
            multi-label also `missing_rate`, labels that should be and are not, to one
            that is given.
        """
        if self._single:
            stays = self.joint.diagonal()
            goes = self.joint.sum(axis=1) - stays
            return {"wrong_rate": _moved(stays, goes, self._counts[0])}
        no, yes = self._counts
        (no_no, no_yes), (yes_no, yes_yes) = self.joint.transpose(1, 2, 0)
        missing = _moved(no_no, no_yes, no) * float(no.sum() / yes.sum())
        return {"wrong_rate": _moved(yes_yes, yes_no, yes), "missing_rate": missing}


def _nats(probabilities: np.ndarray) -> np.ndarray:
    """How surprising what has these probabilities is."""
    return -np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def _moved(stays: np.ndarray, goes: np.ndarray, counts: np.ndarray) -> float:
    """The share that belongs elsewhere, of all.

    Args:
        stays, goes: int `(m,)`, of the products that were counted in a row of the
            joint. One that stays is reckoned with at least.
        counts: int `(m,)`, how many products each row stands for.
    """
    shares = goes / (goes + np.maximum(stays, 1))
    return float((counts * shares).sum() / counts.sum())


def _facts(
    chosen: np.ndarray, said: np.ndarray, counts: np.ndarray, start: int
) -> Facts:
    rows, labels = np.nonzero(chosen)
    return Facts(rows + start, labels, said[rows, labels], counts[rows, labels])


def _joined(parts: Sequence[Facts]) -> Facts:
    none = Facts(
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        np.zeros(0, np.float32),
        np.zeros(0, bool),
    )
    together = zip(*(vars(part).values() for part in (none, *parts)), strict=True)
    return Facts(*map(np.concatenate, together))


def _blocks(count: int) -> list[slice]:
    return [
        slice(start, min(start + BLOCK_ROWS, count))
        for start in range(0, count, BLOCK_ROWS)
    ]
