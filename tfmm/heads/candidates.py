"""What boosted trees are told of a product and a label that it may have."""

from dataclasses import dataclass

import numpy as np
from keras import ops

from tfmm.heads.inputs import HeadInputs, to_probabilities

# How many features tell of one tower, of all of them together, and of the label itself.
OF_A_TOWER, TOGETHER, OF_A_LABEL = 4, 7, 1


@dataclass(frozen=True)
class Candidates:
    """Labels worth asking about, and what is known of each, in the graph.

    Attributes:
        features: float32 `(batch, C, F)`, NaN where an absent tower would speak.
        asked: bool `(batch, C)`.
    """

    features: object
    asked: object


def candidates(
    task: str, towers: HeadInputs, prior_logits, num_candidates: int
) -> Candidates:
    """Describes every label of every product in the same words.

    Each tower tells a label's log-probability (`multi_label`: its logit), in which
    trees split as they would in its probability; its rank, 0 for the tower's first;
    how far it is ahead of the tower's best other label; and whether it is present.
    All towers together: the largest and the mean probability, the product rule's
    score, its rank and how far it is ahead, how many towers have it first, and how
    many are present. Of the label itself: how frequent it was in training.

    Args:
        task: `single_label` or `multi_label`.
        towers: The head's inputs.
        prior_logits: `C` logits of the labels' shares.
        num_candidates: The best labels of each tower are asked about, this many;
            0: all labels.
    """
    features, firsts, asked = [], [], []
    here = [ops.expand_dims(x, -1) for x in ops.unstack(towers.present, axis=1)]
    counts = [ops.cast(x, "float32") for x in here]
    if task == "single_label":
        scores = [ops.log_softmax(x, axis=-1) for x in towers.logits]
    else:
        scores = towers.logits
    num_labels = len(prior_logits)
    for score, present, count in zip(scores, here, counts, strict=True):
        rank = _rank(score)
        for value in (score, rank, _ahead(score)):
            features.append(ops.where(present, value, float("nan")))
        features.append(ops.zeros_like(score) + count)
        firsts.append(ops.cast(ops.equal(rank, 0), "float32") * count)
        asked.append(present & (rank < (num_candidates or num_labels)))
    number = sum(counts)
    probabilities = [
        to_probabilities(task, x) * count
        for x, count in zip(towers.logits, counts, strict=True)
    ]
    product = sum(x * count for x, count in zip(scores, counts, strict=True))
    prior = ops.expand_dims(ops.convert_to_tensor(prior_logits, "float32"), 0)
    together = [
        ops.max(ops.stack(probabilities), axis=0),
        sum(probabilities) / ops.maximum(number, 1.0),
        product,
        _rank(product),
        _ahead(product),
        sum(firsts),
        ops.zeros_like(product) + number,
        ops.zeros_like(product) + prior,
    ]
    return Candidates(
        features=ops.stack([*features, *together], axis=-1),
        asked=ops.any(ops.stack(asked), axis=0),
    )


def subjects(num_towers: int) -> np.ndarray:
    """What each feature of `candidates` tells of: int `(F,)`.

    A tower's position; after the last one comes all towers together, and then the
    label itself.

    Example:
    >>> subjects(1).tolist()
    [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2]
    """
    sizes = [*num_towers * [OF_A_TOWER], TOGETHER, OF_A_LABEL]
    return np.repeat(np.arange(len(sizes)), sizes)


def _rank(scores):
    """How many labels stand before each: higher ones, and equal ones further left."""
    return ops.cast(ops.argsort(ops.argsort(-scores, axis=-1), axis=-1), "float32")


def _ahead(scores):
    """Each label's score less that of the best other label; 0 without others."""
    values, _ = ops.top_k(scores, min(2, scores.shape[-1]))
    best, second = values[:, :1], values[:, -1:]
    return ops.where(ops.equal(scores, best), scores - second, scores - best)
