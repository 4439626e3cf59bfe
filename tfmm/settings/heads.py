"""`[heads.NAME]`: models that fuse towers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tfmm.settings.base import (
    Activation,
    BelowOne,
    Count,
    Name,
    NotNegative,
    Positive,
    Table,
    key,
)
from tfmm.settings.training import Training


class Rule(Table):
    """`model = "max" | "mean" | "product"`: rules on probabilities (paper B)."""

    model: Literal["max", "mean", "product"] = key(help="The rule.")
    towers: Annotated[list[Name], Field(min_length=2)] = key(help="Towers it fuses.")


class PolicyNetwork(Training):
    """`model = "policy_network"`: a learned late fusion (papers B and C)."""

    model: Literal["policy_network"] = key(help="The network.")
    towers: Annotated[list[Name], Field(min_length=2)] = key(help="Towers it fuses.")
    max_epochs: Count = key(200, "Training stops here at the latest.")
    monitor: Literal["top1", "micro_f1", "macro_f1", "loss"] = key(
        "loss", "Validation figure that decides what is better."
    )
    inputs: Literal["probabilities", "log_probabilities"] = key(
        "log_probabilities", "What it reads of each tower."
    )
    hidden_units: list[Count] = key([100], "Widths of the hidden layers.")
    activations: list[Activation] = key(["tanh"], "Activation of each hidden layer.")
    dropout: BelowOne = key(0.0, "Share of each hidden layer dropped in training.")
    l2: NotNegative = key(0.0, "L2 penalty on the weights.")
    initializer_stddev: Positive = key(
        0.01, "Spread of the first weights (truncated normal; paper B)."
    )
    start_from: Literal["zero", "product"] = key(
        "product", "What it adds to: nothing, or the product rule's logits."
    )
    modality_dropout: BelowOne = key(
        0.1, "Chance that a tower is hidden from a training product."
    )
    fit_on: Literal["fusion", "train", "validation"] = key(
        "fusion", "Split whose outputs it is fitted on."
    )

    @model_validator(mode="after")
    def _one_activation_each(self) -> Self:
        if len(self.hidden_units) != len(self.activations):
            raise ValueError(
                f"'activations' needs one entry for each of the "
                f"{len(self.hidden_units)} hidden_units. Received: {self.activations}"
            )
        return self
