"""`[heads.NAME]`: linear models on the towers' probabilities."""

from typing import Annotated, Literal

from pydantic import Field

from tfmm.settings.base import Count, key
from tfmm.settings.heads.base import FittedHead

Strength = Annotated[float, Field(ge=1e-12, le=1e12)]
Strengths = Annotated[list[Strength], Field(min_length=1)]


class Ridge(FittedHead):
    """`model = "ridge"`: ridge regression on joined probabilities (paper C)."""

    model: Literal["ridge"] = key(help="The regression.")
    alphas: Strengths = key(
        [1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0],
        "Penalties to choose from by cross-validation over whole groups.",
    )


class LogisticStack(FittedHead):
    """`model = "logistic_stack"`: logistic regression on joined log-probabilities."""

    model: Literal["logistic_stack"] = key(help="The regression.")
    shrink_to: Literal["product", "zero"] = key(
        "product",
        "Where the penalty holds the weights: at a product of the towers with a fitted "
        "power each, or at zero, the common stack.",
    )
    strengths: Strengths | None = key(
        None,
        "Inverse penalties (scikit-learn's C); inner cross-validation chooses. Absent: "
        "0.0001 to 0.1 (product), 0.001 to 10 (zero), each ten times the one before.",
    )
    inner_folds: Annotated[Count, Field(ge=2)] = key(
        3, "Parts of the inner cross-validation; groups stay whole."
    )

    @property
    def strengths_to_try(self) -> list[float]:
        """`strengths`, ascending, or what stands for them."""
        powers = range(-4, 0) if self.shrink_to == "product" else range(-3, 2)
        return sorted(self.strengths or [10.0**power for power in powers])
