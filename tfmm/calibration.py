"""Temperatures and thresholds, fitted on held-out outputs."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from tfmm import metrics
from tfmm.errors import RunError
from tfmm.run import read_json, write_json

TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Calibration:
    """How a model's logits become probabilities and decisions.

    Attributes:
        fingerprint: Of the outputs it was fitted on.
        temperature: Logits are divided by it.
        thresholds: `C` probabilities from which a label is assigned (multi_label).
    """

    fingerprint: str
    temperature: float
    thresholds: tuple[float, ...]


def fit(
    task: str, targets: np.ndarray, logits: np.ndarray, fingerprint: str
) -> Calibration:
    """Fits one temperature and, for `multi_label`, one threshold for all labels.

    The temperature is the one with the least cross-entropy. The threshold is the one
    with the best micro-F1 at that temperature; 0.5 if no label is ever right.

    Args:
        task: `single_label` or `multi_label`.
        targets: int `(n,)` or float `(n, C)`; at least one product.
        logits: float `(n, C)`.
        fingerprint: Of the outputs.

    Reference:
    - [Guo et al., 2017](https://arxiv.org/abs/1706.04599), section 4.2.
    """
    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(
        lambda x: metrics.log_loss(task, targets, logits / math.exp(x)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-3},
    )
    # Through float32, because that is what the exported graph holds.
    temperature = float(np.float32(math.exp(found.x)))
    threshold = 0.5
    if task == "multi_label":
        calibrated = metrics.probabilities(task, logits / np.float32(temperature))
        threshold = best_threshold(targets, calibrated)
    return Calibration(fingerprint, temperature, (threshold,) * logits.shape[1])


def best_threshold(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """The one threshold with the best micro-F1, halfway to the next score below.

    Example:
    >>> targets = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> best_threshold(targets, np.array([[0.9, 0.1], [0.3, 0.2]]))
    0.25
    """
    order = np.argsort(-probabilities, axis=None, kind="stable")
    scores = probabilities.ravel()[order].astype(np.float64)
    truth = targets.ravel()[order] > 0
    if not truth.any():
        return 0.5
    right = np.cumsum(truth)
    f1 = 2 * right / (np.arange(1, len(truth) + 1) + truth.sum())
    # A cut between equal scores cannot be made.
    f1[:-1][scores[:-1] == scores[1:]] = -1.0
    cut = int(np.argmax(f1))
    below = scores[cut + 1] if cut + 1 < len(scores) else 0.0
    threshold = np.float32((scores[cut] + below) / 2)
    # Between neighbours the half may be rounded down, onto the score below.
    return float(threshold if threshold > below else scores[cut])


def write(path: Path, calibration: Calibration) -> None:
    write_json(path, asdict(calibration))


def read(path: Path, fingerprint: str) -> Calibration:
    """Reads a calibration; `RunError` if damaged or fitted on other outputs."""
    content = read_json(path)
    try:
        found = Calibration(**{**content, "thresholds": tuple(content["thresholds"])})
    except (KeyError, TypeError):
        raise RunError(f"{path}: not what a calibration file holds") from None
    if found.fingerprint != fingerprint:
        raise RunError(f"{path}: stale; run tfmm.fit --resume")
    return found
