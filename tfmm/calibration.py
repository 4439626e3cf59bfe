"""Scales, shifts and thresholds, fitted on held-out outputs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from tfmm import metrics
from tfmm.blocks import over_rows
from tfmm.errors import RunError
from tfmm.hierarchy import Hierarchy
from tfmm.run import read_json, write_json
from tfmm.settings import CalibrationSettings

TEMPERATURES = (0.05, 20.0)
# Spread of log(scale) and of the shift of labels about those of all labels. On six
# models each of two multi-label catalogs it gave less loss than 0.1 and 0.5 did.
PLATT_SPREAD = 0.2
PLATT_STEPS = 100
PLATT_LONGEST_STEP = 2.0  # or exp(log(scale)) could leave what floats hold
PLATT_BLOCK = 256  # labels fitted at a time, which bounds the memory
# Wrong products, not seen, that a threshold for a precision still reckons with.
UNSEEN_WRONG = 1.0
NEVER = 2.0  # a threshold that no probability reaches


@dataclass(frozen=True)
class Calibration:
    """How a model's logits become probabilities and decisions.

    Every number is one that float32 holds, because the exported graph holds float32.

    Attributes:
        fingerprint: Of the outputs it was fitted on.
        scales: `C` numbers over 0 that logits are multiplied by.
        shifts: `C` numbers that are added then.
        thresholds: `C` probabilities from which a label is assigned; over 1 for
            never.
        temperature: What all logits are divided by; None if labels differ.
    """

    fingerprint: str
    scales: tuple[float, ...]
    shifts: tuple[float, ...]
    thresholds: tuple[float, ...]
    temperature: float | None

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits, float32 `(n, C)`: `logits * scales + shifts`."""
        scaled = np.asarray(logits, np.float32) * np.float32(self.scales)
        return scaled + np.float32(self.shifts)

    def undone(self, logits: np.ndarray) -> np.ndarray:
        """The logits that `apply` makes these of, float32 `(n, C)`."""
        shifted = np.asarray(logits, np.float32) - np.float32(self.shifts)
        return shifted / np.float32(self.scales)


def fit(
    task: str,
    targets: np.ndarray,
    logits: np.ndarray,
    fingerprint: str,
    settings: CalibrationSettings | None = None,
    consistent: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Calibration:
    """Fits what turns logits into probabilities, and probabilities into decisions.

    The temperature is the one with the least cross-entropy. Platt scaling starts there
    and ends at a cross-entropy that is no greater: first one scale and one shift for
    all labels, then each label's own as far as its products tell.

    Thresholds are fitted on calibrated probabilities; see `thresholds_for`.

    Args:
        task: `single_label` or `multi_label`.
        targets: int `(n,)` or float `(n, C)`; at least one product.
        logits: float `(n, C)`.
        fingerprint: Of the outputs.
        settings: `[calibration]`; its defaults if absent.
        consistent: What calibrated probabilities `(n, C)` go through before
            thresholds are compared with them, if anything.

    Raises:
        ValueError: If the settings ask for what the task does not have.

    Reference:
    - [Guo et al., 2017](https://arxiv.org/abs/1706.04599), section 4.2.
    - Platt, 1999, Probabilistic outputs for support vector machines.
    """
    settings = settings or CalibrationSettings()
    logits = np.asarray(logits)
    num_labels = logits.shape[1]
    temperature = _temperature(task, targets, logits)
    scales = np.full(num_labels, 1.0 / temperature, np.float32)
    shifts = np.zeros(num_labels, np.float32)
    if settings.method_for(task) == "platt":
        scales, shifts = _platt(targets, logits, temperature)
    plain = Calibration(
        fingerprint,
        _numbers(scales),
        _numbers(shifts),
        (0.0,) * num_labels,
        None if settings.method_for(task) == "platt" else temperature,
    )
    probabilities = metrics.probabilities(task, plain.apply(logits))
    if consistent is not None:
        probabilities = consistent(probabilities)
    thresholds = thresholds_for(task, targets, probabilities, settings)
    return Calibration(
        fingerprint, plain.scales, plain.shifts, thresholds, plain.temperature
    )


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, np.float32(values)))


def _temperature(task: str, targets: np.ndarray, logits: np.ndarray) -> float:
    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(
        lambda x: metrics.log_loss(task, targets, logits / math.exp(x)),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-3},
    )
    if found.fun > metrics.log_loss(task, targets, logits):
        return 1.0
    return float(np.float32(math.exp(found.x)))


def _platt(
    targets: np.ndarray, logits: np.ndarray, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scales and shifts `(C,)` with the least penalised cross-entropy of each label.

    To a summed cross-entropy comes the squared distance of `(log(scale), shift)` from
    a centre, over `2 * PLATT_SPREAD**2`: a normal prior, which few products do not
    outweigh. All labels as one are fitted with the temperature as centre, and then
    each label with what was found for all.
    """
    targets, logits = np.asarray(targets, np.float64), np.asarray(logits, np.float64)
    centre = np.array([[-math.log(temperature)], [0.0]])
    centre = _platt_block(targets.reshape(-1, 1), logits.reshape(-1, 1), centre)
    found = np.repeat(centre, logits.shape[1], axis=1)
    for start in range(0, logits.shape[1], PLATT_BLOCK):
        block = slice(start, start + PLATT_BLOCK)
        found[:, block] = _platt_block(
            targets[:, block], logits[:, block], found[:, block]
        )
    return np.exp(found[0]), found[1]


def _platt_block(targets, logits, centre):
    """Scoring with halved steps; labels that have arrived are not looked at again.

    Args:
        centre: `(2, labels)`, where `log(scale)` and shift start and are held to.

    Returns:
        `(2, labels)`, of a penalised cross-entropy that is nowhere above the start's.
    """
    precision = 1.0 / PLATT_SPREAD**2
    found = centre.copy()
    active = np.arange(centre.shape[1])

    def objective(at, some):
        x = logits[:, some] * np.exp(at[0]) + at[1]
        loss = (np.logaddexp(0.0, x) - targets[:, some] * x).sum(axis=0)
        return loss + precision * ((at - centre[:, some]) ** 2).sum(axis=0) / 2

    for _ in range(PLATT_STEPS):
        here = found[:, active]
        scaled = logits[:, active] * np.exp(here[0])
        said = expit(scaled + here[1])
        wrong, weight = said - targets[:, active], said * (1.0 - said)
        slope = np.stack([(wrong * scaled).sum(axis=0), wrong.sum(axis=0)])
        slope += precision * (here - centre[:, active])
        both = (weight * scaled).sum(axis=0)
        scale_scale = (weight * scaled**2).sum(axis=0) + precision
        shift_shift = weight.sum(axis=0) + precision
        step = np.stack(
            [
                shift_shift * slope[0] - both * slope[1],
                scale_scale * slope[1] - both * slope[0],
            ]
        )
        step /= scale_scale * shift_shift - both**2
        step /= np.maximum(np.abs(step).max(axis=0) / PLATT_LONGEST_STEP, 1.0)
        now = objective(here, active)
        rate = np.ones(len(active))
        for halving in range(20):
            worse = objective(here - rate * step, active) > now
            if not worse.any():
                break
            # The last time the label stays where it is.
            rate[worse] = rate[worse] / 2 if halving < 19 else 0.0
        found[:, active] = here - rate * step
        active = active[(np.abs(rate * step) > 1e-6).any(axis=0)]
        if not len(active):
            break
    return found


def thresholds_for(
    task: str,
    targets: np.ndarray,
    probabilities: np.ndarray,
    settings: CalibrationSettings,
) -> tuple[float, ...]:
    """The probabilities from which labels are assigned, `C` numbers.

    For `multi_label` a label's own threshold (`best_threshold`, or
    `precision_threshold`) and the one for all decisions at once are mixed on the
    logit scale, `(n * own + shrinkage * all) / (n + shrinkage)` with `n` products of
    the label, because few products place a threshold by chance; a label without any
    gets the one for all. `NEVER` is mixed with nothing.

    For `single_label` there is one threshold for first choices: 0, which all reach,
    or what keeps the precision.
    """
    num_labels = probabilities.shape[1]
    if task == "single_label":
        threshold = 0.0
        if settings.threshold_for == "precision":
            right = metrics.is_right(task, targets, probabilities)
            first = probabilities.max(axis=1)
            threshold = precision_threshold(right, first, settings.target_precision)
        return (threshold,) * num_labels

    def threshold_of(truth: np.ndarray, said: np.ndarray) -> float:
        if settings.threshold_for == "precision":
            return precision_threshold(truth, said, settings.target_precision)
        return best_threshold(truth, said)

    everything = threshold_of(targets, probabilities)
    counts = (targets > 0).sum(axis=0)
    own = np.full(num_labels, everything)
    for label in np.flatnonzero(counts):
        own[label] = threshold_of(targets[:, label], probabilities[:, label])
    if not settings.shrinkage or everything == NEVER:
        return _numbers(own)
    floor = metrics.PROBABILITY_FLOOR
    logits, of_all = (logit(np.clip(x, floor, 1 - floor)) for x in (own, everything))
    mixed = counts * logits + settings.shrinkage * of_all
    mixed = expit(mixed / (counts + settings.shrinkage))
    return _numbers(np.where(own == NEVER, NEVER, mixed))


def best_threshold(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """The one threshold with the best F1, halfway to the next score below.

    Over all decisions at once, so of a matrix it is the micro-F1. 0.5 if no label is
    ever right.

    Example:
    >>> targets = np.array([[1.0, 0.0], [1.0, 0.0]])
    >>> best_threshold(targets, np.array([[0.9, 0.1], [0.3, 0.2]]))
    0.25
    """
    scores, right, possible = _cuts(targets, probabilities)
    if not right[-1]:
        return 0.5
    f1 = 2 * right / (np.arange(1, len(right) + 1) + right[-1])
    return _below(scores, int(np.argmax(np.where(possible, f1, -1.0))))


def precision_threshold(
    targets: np.ndarray, probabilities: np.ndarray, target: float
) -> float:
    """The lowest threshold at which at least `target` of what is assigned is right.

    As many decisions more as `UNSEEN_WRONG` are taken for wrong, since a few that
    happen to be right prove little: 0.9 needs nine right ones and no wrong one.
    `NEVER`, so that nothing is assigned, if there is no such threshold.

    Example:
    >>> targets = np.array([1, 1, 1, 0, 1])
    >>> precision_threshold(targets, np.array([0.9, 0.8, 0.6, 0.4, 0.2]), 0.75)
    0.5
    """
    scores, right, possible = _cuts(targets, probabilities)
    share = right / (np.arange(1, len(right) + 1) + UNSEEN_WRONG)
    good = np.flatnonzero(possible & (share >= target))
    if not len(good):
        return NEVER
    return _below(scores, int(good[-1]))


def _cuts(
    targets: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores from the highest, right ones so far, and whether a cut can follow."""
    order = np.argsort(-probabilities, axis=None, kind="stable")
    scores = probabilities.ravel()[order].astype(np.float64)
    right = np.cumsum(targets.ravel()[order] > 0)
    possible = np.append(scores[:-1] != scores[1:], True)
    return scores, right, possible


def _below(scores: np.ndarray, cut: int) -> float:
    """A float32 over the next score and not over the score of the cut."""
    below = scores[cut + 1] if cut + 1 < len(scores) else 0.0
    threshold = np.float32((scores[cut] + below) / 2)
    # Between neighbours the half may be rounded down, onto the score below.
    return float(threshold if threshold > below else scores[cut])


def probabilities(
    task: str,
    fitted: Calibration,
    tree: Hierarchy | None,
    prior_logits: Sequence[float],
    logits: np.ndarray,
    present: np.ndarray,
) -> np.ndarray:
    """Calibrated probabilities float32 `(n, C)`.

    Args:
        task: `single_label` or `multi_label`.
        fitted: The model's calibration.
        tree: Of the labels, if answers are to respect one.
        prior_logits: `(C,)`, for products that the model has nothing to look at of.
        logits: `(n, C)`.
        present: bool `(n,)`.
    """
    prior = np.float32(prior_logits)
    result = np.empty(logits.shape, np.float32)

    def fill(rows: slice) -> None:
        applied = np.where(present[rows, None], fitted.apply(logits[rows]), prior)
        said = metrics.probabilities(task, applied)
        result[rows] = said if tree is None else tree.consistent(said)

    over_rows(fill, logits.shape)
    return result


def assigned(
    task: str,
    fitted: Calibration,
    tree: Hierarchy | None,
    said: np.ndarray,
    present: np.ndarray,
) -> np.ndarray:
    """bool `(n, C)`: the labels that are given, of what `probabilities` returns."""
    thresholds = np.float32(fitted.thresholds)
    given = np.empty(said.shape, bool)

    def fill(rows: slice) -> None:
        if tree is None:
            own = metrics.assigned(task, said[rows], thresholds)
        else:
            own = tree.assigned(said[rows], thresholds)
        given[rows] = own & present[rows, None]

    over_rows(fill, said.shape)
    return given


def write(path: Path, calibration: Calibration) -> None:
    write_json(path, asdict(calibration))


def read(path: Path, fingerprint: str, num_labels: int) -> Calibration:
    """Reads a calibration; `RunError` if damaged or fitted on other outputs."""
    content = read_json(path)
    try:
        lists = {
            name: tuple(content[name]) for name in ("scales", "shifts", "thresholds")
        }
        found = Calibration(**{**content, **lists})
        numbers = np.array(list(lists.values()))  # refuses different lengths
        good = numbers.dtype.kind in "fi" and numbers.shape[1] == num_labels
        if not good or not np.isfinite(numbers).all() or (numbers[0] <= 0).any():
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise RunError(
            f"{path}: not what a calibration file holds; run tfmm.fit --resume"
        ) from None
    if found.fingerprint != fingerprint:
        raise RunError(f"{path}: stale; run tfmm.fit --resume")
    return found
