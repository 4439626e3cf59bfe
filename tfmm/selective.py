"""The rule that skips images where words suffice, and its curve."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from tfmm import outputs, results
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.hiding import images_hidden
from tfmm.run import Run

NEVER = 2.0  # a confidence that none reaches: the image is always looked at
NUM_FOLDS = 5
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)  # scikit-learn's C of the regression
# Beside a slope that all labels share, a label's own offset costs twice as much.
LABEL_SCALE = 0.7
# The graph's confidence and a stored one may differ past this.
CONFIDENCE_FLOOR = 1e-4
LARGEST_LOGIT = float(np.log(1.0 / CONFIDENCE_FLOOR - 1.0))
# Products of a curve's points, as shares of those that have an image.
SHARES = tuple(np.round(np.arange(0.0, 1.01, 0.05), 2).tolist())


@dataclass(frozen=True)
class Rule:
    """When a model answers without looking at the images.

    It first answers with every image hidden. If the most probable label's confidence
    is at least that label's threshold, this is the answer.

    Attributes:
        thresholds: `C` confidences; `NEVER` for a label that always needs the image.
        images: Share of the products with an image whose image is looked at, in [0, 1],
            of those that the rule was fitted on.
        measure: What the model then reaches there, `top1` or `micro_f1` by the task.
        full: The same when every image is looked at.
        fitted_on: Products that the rule was fitted on.
    """

    thresholds: tuple[float, ...]
    images: float
    measure: float
    full: float
    fitted_on: int


@dataclass(frozen=True)
class Evidence:
    """What a model says of `n` products with their images, and without.

    Attributes:
        confidence: float `(n,)`, without images: of the most probable label for
            `single_label`; for `multi_label` the probability, were labels
            independent, that every decision is right.
        label: int `(n,)`, the most probable label without images.
        with_image: bool `(n,)`, which have an image.
        decidable: bool `(n,)`, which have an image and something else.
        seen: float `(n, 3)`: right labels, given labels and true labels of the answer
            with images. For `single_label` one label is given, the most probable.
        skipped: float `(n, 3)`: the same without.
        groups: int `(n,)`.
        num_labels: `C`.
    """

    confidence: np.ndarray
    label: np.ndarray
    with_image: np.ndarray
    decidable: np.ndarray
    seen: np.ndarray
    skipped: np.ndarray
    groups: np.ndarray
    num_labels: int

    def measured(self, used: np.ndarray) -> float:
        """`top1` or `micro_f1` if the images of the products `used` are looked at."""
        right, given, true = np.where(used[:, None], self.seen, self.skipped).sum(0)
        return float(2.0 * right / max(given + true, 1.0))


def confidence(task: str, probabilities: np.ndarray) -> np.ndarray:
    """How sure an answer is, float `(n,)`, from probabilities `(n, C)`.

    The exported graph computes the same; see `Evidence.confidence`.
    """
    if task == "single_label":
        return probabilities.max(axis=1)
    sure = np.maximum(probabilities, 1.0 - probabilities)
    return np.exp(np.log(sure).sum(axis=1))


def evidence(run: Run, settings: Experiment, name: str, split: str) -> Evidence | None:
    """Reads what a model says of a split with images and without.

    Returns:
        None if the model has no image to skip, or nothing but images to go by.

    Raises:
        RunError: If outputs are missing, truncated or stale.
    """
    hidden = images_hidden(settings, name)
    if not hidden:
        return None
    targets, _ = outputs.read_targets(run.outputs, split)
    said, present = results.read_probabilities(run, settings, name, split)
    without, words = results.read_case(run, settings, name, split, hidden)
    has_image = results.has_any(run, settings, name, split, hidden)
    task = settings.catalog.task
    parts = []
    for probabilities, here in ((said, present), (without, words)):
        given = None
        if task == "multi_label":
            given = results.assigned(run, settings, name, probabilities, here)
        parts.append(_parts(targets, probabilities, given))
    return Evidence(
        confidence=confidence(task, without),
        label=without.argmax(axis=1),
        with_image=has_image,
        decidable=has_image & words,
        seen=parts[0],
        skipped=parts[1],
        groups=outputs.read_groups(run.outputs, split),
        num_labels=without.shape[1],
    )


def _parts(
    targets: np.ndarray, probabilities: np.ndarray, given: np.ndarray | None
) -> np.ndarray:
    if given is None:
        right = probabilities.argmax(axis=1) == targets
        return np.stack([right, *2 * [np.ones(len(right))]], axis=1).astype(np.float64)
    true = np.asarray(targets) > 0
    return np.stack(
        [(given & true).sum(axis=1), given.sum(axis=1), true.sum(axis=1)], axis=1
    ).astype(np.float64)


def enough(found: Evidence) -> bool:
    """Whether there are products enough to fit rules on."""
    return len(np.unique(found.groups[found.decidable])) >= NUM_FOLDS


class Risks:
    """The risk of skipping each product's image, and the rules that it makes.

    The risk, that the answer without the image is worse, is a logistic regression on
    the logit of the confidence and on the label, which shrinks labels of few products
    to the one slope and offset of all. Products are ranked by the risk that a
    regression gives them which was fitted on other groups; a loss is read off that
    ranking. A rule's thresholds are those of the regression on all of them, and a
    budget holds for what they look at here.

    Args:
        found: What a model says of products that neither towers nor head were fitted
            on.

    Raises:
        RunError: If there are too few products.
    """

    def __init__(self, found: Evidence):
        self.found = found
        rows = np.flatnonzero(found.decidable)
        groups = found.groups[rows]
        if not enough(found):
            raise RunError(
                f"{len(np.unique(groups))} groups of products on validation have an "
                f"image and something else; expected at least {NUM_FOLDS} to fit a "
                "rule on"
            )
        lost = _wrong(found.skipped[rows]) > _wrong(found.seen[rows])
        inputs = _inputs(found, rows)
        strength, self.risks = _out_of_fold(inputs, lost, groups)
        self.rows = rows
        self.slope, self.offsets = _final(inputs, lost, strength, found.num_labels)

    def rule(
        self, *, image_budget: float | None = None, max_loss: float | None = None
    ) -> Rule:
        """The rule that looks at the fewest images.

        Args:
            image_budget: Greatest share of images that are looked at, in [0, 1].
            max_loss: Greatest loss of `top1` or `micro_f1`, in [0, 1]; either this or
                `image_budget`.
        """
        found, rows = self.found, self.rows
        sure = _logits(found.confidence[rows])
        own = self.offsets[found.label[rows]] + self.slope * sure
        if image_budget is not None:
            # Products with nothing but an image always have it looked at.
            others = int((found.with_image & ~found.decidable).sum())
            allowed = int(image_budget * found.with_image.sum() + 1e-9) - others
            order = np.sort(own)[::-1]
            cut = int(np.clip(allowed, 0, len(rows)))
            # The first that is skipped, with all that are like it.
            level = order[cut] if cut < len(rows) else -np.inf
        else:
            assert max_loss is not None
            order = np.argsort(-self.risks, kind="stable")
            cut = _where_loss_begins(found, rows[order], max_loss)
            edges = np.concatenate([[1.0], self.risks[order], [0.0]])[cut : cut + 2]
            level = float(logit(edges.mean())) if cut < len(rows) else -np.inf
        thresholds = self._from(level)
        rule = Rule(
            thresholds=tuple(thresholds.astype(np.float64).tolist()),
            images=0.0,
            measure=0.0,
            full=found.measured(found.with_image),
            fitted_on=len(rows),
        )
        used = looked_at(found, rule)
        return replace(
            rule,
            images=float(used.sum() / max(found.with_image.sum(), 1)),
            measure=found.measured(used),
        )

    def _from(self, level: float) -> np.ndarray:
        """From what confidence each label's risk is at most `level`, a logit."""
        if self.slope == 0.0:
            return np.where(self.offsets <= level, 0.0, NEVER)
        edge = (level - self.offsets) / self.slope
        # As the graph holds it; a confidence at the edge is over it.
        exact = np.nextafter(np.float32(expit(edge)), np.float32(0.0))
        exact = np.where(edge > LARGEST_LOGIT, NEVER, exact)
        return np.where(edge < -LARGEST_LOGIT, 0.0, exact)


def looked_at(found: Evidence, rule: Rule) -> np.ndarray:
    """bool `(n,)`: the products whose images the rule has looked at."""
    thresholds = np.asarray(rule.thresholds)
    skipped = found.decidable & (found.confidence >= thresholds[found.label])
    return found.with_image & ~skipped


def curve(risks: Risks, of: Evidence) -> list[dict[str, float]]:
    """What a model reaches by the share of images that it looks at.

    Args:
        risks: Of `validation`.
        of: What the model says of the products to measure.

    Returns:
        For each `budget` of `SHARES` the share of `images` looked at of `of`, in
        [0, 1], and the `measure`; the same of `validation`, on which rules are fitted,
        as `validation_images` and `validation_measure`.
    """
    points = []
    for share in SHARES:
        rule = risks.rule(image_budget=share)
        used = looked_at(of, rule)
        points.append(
            {
                "budget": share,
                "images": float(used.sum() / max(of.with_image.sum(), 1)),
                "measure": of.measured(used),
                "validation_images": rule.images,
                "validation_measure": rule.measure,
            }
        )
    return points


def _wrong(parts: np.ndarray) -> np.ndarray:
    return parts[:, 1] + parts[:, 2] - 2.0 * parts[:, 0]


def _logits(confidence: np.ndarray) -> np.ndarray:
    return logit(np.clip(confidence, CONFIDENCE_FLOOR, 1.0 - CONFIDENCE_FLOOR))


def _inputs(found: Evidence, rows: np.ndarray) -> scipy.sparse.csr_array:
    """`(m, 1 + C)`: the logit of the confidence, and which label."""
    many = np.arange(len(rows))
    labels = scipy.sparse.csr_array(
        (np.full(len(rows), LABEL_SCALE), (many, found.label[rows])),
        shape=(len(rows), found.num_labels),
    )
    sure = _logits(found.confidence[rows])[:, None]
    return scipy.sparse.csr_array(scipy.sparse.hstack([sure, labels]))


def _regression(
    inputs: scipy.sparse.csr_array, lost: np.ndarray, strength: float
) -> LogisticRegression:
    """The risk, with two products that were never seen: one lost where confidence is
    least, one not where it is greatest. So there is a risk even where none was lost.
    """
    sure = inputs[:, [0]].toarray()[:, 0]
    unseen = np.zeros((2, inputs.shape[1]))
    unseen[:, 0] = sure.min(), sure.max()
    return LogisticRegression(C=strength, max_iter=1_000).fit(
        scipy.sparse.csr_array(scipy.sparse.vstack([inputs, unseen])),
        np.concatenate([lost, [True, False]]),
    )


def _final(
    inputs: scipy.sparse.csr_array, lost: np.ndarray, strength: float, num_labels: int
) -> tuple[float, np.ndarray]:
    """The slope and each label's offset, of the regression on all products."""
    model = _regression(inputs, lost, strength)
    slope = float(model.coef_[0, 0])
    if slope >= 0.0:
        # Confidence does not speak for skipping: only the label does.
        scale = scipy.sparse.diags_array([0.0, *[1.0] * num_labels])
        model = _regression(scipy.sparse.csr_array(inputs @ scale), lost, strength)
        slope = 0.0
    return slope, model.intercept_[0] + model.coef_[0, 1:] * LABEL_SCALE


def _out_of_fold(
    inputs: scipy.sparse.csr_array, lost: np.ndarray, groups: np.ndarray
) -> tuple[float, np.ndarray]:
    """The strength with the least loss, and each product's risk by other groups."""
    folds = list(GroupKFold(NUM_FOLDS).split(lost, groups=groups))
    best: tuple[float, float, np.ndarray] | None = None
    for strength in STRENGTHS:
        risks = np.empty(len(lost))
        for others, own in folds:
            model = _regression(inputs[others], lost[others], strength)
            risks[own] = model.predict_proba(inputs[own])[:, 1]
        loss = -np.log(np.where(lost, risks, 1.0 - risks)).mean()
        if best is None or loss < best[0]:
            best = (float(loss), strength, risks)
    assert best is not None
    return best[1], best[2]


def _where_loss_begins(found: Evidence, ranked: np.ndarray, max_loss: float) -> int:
    """How many of the products, the riskiest first, must have their images used."""
    always = found.with_image & ~found.decidable
    start = np.where(always[:, None], found.seen, found.skipped).sum(axis=0)
    change = np.cumsum(found.seen[ranked] - found.skipped[ranked], axis=0)
    totals = start + np.vstack([np.zeros(3), change])
    reached = 2.0 * totals[:, 0] / np.maximum(totals[:, 1] + totals[:, 2], 1.0)
    bad = np.flatnonzero(reached < reached[-1] - max_loss - 1e-12)
    # Past the last share that loses more, so that no greater one does.
    return int(bad[-1] + 1) if len(bad) else 0
