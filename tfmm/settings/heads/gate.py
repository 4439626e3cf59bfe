"""`[heads.NAME]`: a gate that learns which tower to believe (paper A)."""

from typing import Literal, Self

from pydantic import model_validator

from tfmm.settings.base import (
    BelowOne,
    Count,
    CountOrZero,
    Name,
    NotNegative,
    Positive,
    Width,
    key,
)
from tfmm.settings.heads.base import FittedHead
from tfmm.settings.training import Training


class Gate(Training, FittedHead):
    """`model = "gate"`: learns which tower to believe for each product (paper A).

    The first of its towers is believed unless it says otherwise.
    """

    model: Literal["gate"] = key(help="The gate.")
    learning_rate: Positive = key(1e-2, "Rate, once warmed up.")
    max_epochs: Count = key(100, "Training stops here at the latest.")
    patience_epochs: CountOrZero = key(
        10,
        "Epochs in a row without a better figure before halving; 0: never. plateau. A "
        "gate changes no answer until a score passes 0, so it needs more than others.",
    )
    positive_weight: Positive = key(
        5.0,
        "Weight of the products where another tower is right and the first is not, in "
        "either task (paper A's q): more of it switches more often.",
    )
    class_weights: Literal["none"] = key("none", "A gate's loss knows no labels.")
    inputs: Literal["top_1", "top_3", "all", "features"] = key(
        "top_3",
        "What it looks at: the greatest one or three, or all probabilities of each "
        "tower, in descending order (paper A's CP-1, CP-3, CP-all), or features.",
    )
    features_of: list[Name] = key(
        [], "Towers whose features it looks at; all of its towers if empty. features."
    )
    hidden_units: list[Width] = key(
        [10], "Widths of its hidden layers, ReLU; none for a single layer."
    )
    choice: Literal["hard", "soft"] = key(
        "hard",
        "hard takes one tower's answer, soft a mean by how likely each is right.",
    )
    dropout: BelowOne = key(0.0, "Share of each hidden layer dropped in training.")
    l2: NotNegative = key(0.0, "L2 penalty on the weights.")
    modality_dropout: BelowOne = key(
        0.0,
        "Chance that a tower is hidden from a training product; of use with three "
        "towers or more.",
    )

    @model_validator(mode="after")
    def _features_belong(self) -> Self:
        self.refuse_unused(
            ("features_of", "inputs = 'features'", self.inputs == "features")
        )
        for name in self.features_of:
            if name not in self.towers:
                raise ValueError(
                    f"'features_of' names one of its towers. Received: {name!r}"
                )
        return self
