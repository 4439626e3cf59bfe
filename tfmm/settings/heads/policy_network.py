"""`[heads.NAME]`: a learned late fusion (papers B and C)."""

from typing import Literal, Self

from pydantic import model_validator

from tfmm.settings.base import (
    Activation,
    BelowOne,
    Count,
    Name,
    NotNegative,
    Positive,
    Width,
    key,
)
from tfmm.settings.heads.base import FittedHead
from tfmm.settings.training import Training

# Paper B's range of temperatures.
POWER_RANGE = (0.1, 4.0)


class PolicyNetwork(Training, FittedHead):
    """`model = "policy_network"`: a learned late fusion (papers B and C)."""

    model: Literal["policy_network"] = key(help="The network.")
    max_epochs: Count = key(200, "Training stops here at the latest.")
    monitor: Literal["top1", "micro_f1", "macro_f1", "loss"] = key(
        "loss", "Validation figure that decides what is better."
    )
    inputs: Literal["probabilities", "log_probabilities"] = key(
        "log_probabilities", "What it reads of each tower."
    )
    hidden_units: list[Width] = key([100], "Widths of the hidden layers.")
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
    boosted_tower: Name | Literal[""] = key(
        "",
        "Tower whose products count more (B's image-boost); none if empty.",
    )
    boost: Literal["constant", "proportional"] = key(
        "constant",
        "Where the boosted tower is right a product counts boost_constant times "
        "(constant), or 1 + (1 - p) boost_constant times (proportional), p the mean "
        "of what the other towers give its label; elsewhere once.",
    )
    boost_constant: Positive = key(
        2.0, "Of boost; below 1, constant damps (paper B: 0.655 and 2.639)."
    )
    temperatures: dict[Name, Positive] = key(
        {},
        "Tower -> the power that its probabilities are raised to (paper B's tau, in "
        "[0.1, 4]); 1 for those not named.",
    )
    learn_temperatures: bool = key(
        False, "Train the powers within [0.1, 4], from the given ones or 1."
    )

    @model_validator(mode="after")
    def _one_activation_each(self) -> Self:
        if len(self.hidden_units) != len(self.activations):
            raise ValueError(
                f"'activations' needs one entry for each of the "
                f"{len(self.hidden_units)} hidden_units. Received: {self.activations}"
            )
        return self

    @model_validator(mode="after")
    def _boosts_a_tower(self) -> Self:
        self.refuse_unused(
            ("boost", "a 'boosted_tower'", bool(self.boosted_tower)),
            ("boost_constant", "a 'boosted_tower'", bool(self.boosted_tower)),
        )
        return self

    @model_validator(mode="after")
    def _learned_powers_are_in_range(self) -> Self:
        low, high = POWER_RANGE
        for name, power in self.temperatures.items():
            if self.learn_temperatures and not low <= power <= high:
                raise ValueError(
                    f"'learn_temperatures' starts within [{low:g}, {high:g}]. "
                    f"Received: {name} = {power:g}"
                )
        return self

    @model_validator(mode="after")
    def _towers_are_its_own(self) -> Self:
        for name in (*filter(None, [self.boosted_tower]), *self.temperatures):
            if name not in self.towers:
                raise ValueError(
                    f"'boosted_tower' and 'temperatures' name towers of its own. "
                    f"Received: {name!r}"
                )
        return self
