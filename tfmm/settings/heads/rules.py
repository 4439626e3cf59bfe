"""`[heads.NAME]`: rules on the towers' probabilities."""

from typing import Literal

from tfmm.settings.base import key
from tfmm.settings.heads.base import FittedHead, Head


class Rule(Head):
    """`model = "max" | "mean" | "product" | "mean_logits"`: fixed rules (A, B)."""

    model: Literal["max", "mean", "product", "mean_logits"] = key(help="The rule.")


class WeightedMean(FittedHead):
    """`model = "weighted_mean"`: a mean of probabilities, or of log-probabilities,
    with a fitted weight for each tower."""

    model: Literal["weighted_mean"] = key(help="The rule.")
    of: Literal["probabilities", "log_probabilities"] = key(
        "probabilities", "What is averaged."
    )
