"""`[heads.NAME]`: fusion of features, on frozen towers or together with them."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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
from tfmm.settings.heads.base import FitSplit, FittedHead
from tfmm.settings.training import Training

MAX_PRODUCTS = 16_384  # a hidden layer of 200 over them has 3.3 million weights


class FeatureFusion(Training, FittedHead):
    """What early fusion and joint training share: the network on the features."""

    learning_rate: Positive = key(3e-4, "Rate, once warmed up.")
    monitor: Literal["top1", "micro_f1", "macro_f1", "loss"] = key(
        "loss", "Validation figure that decides what is better."
    )
    projection: Literal["dense", "convolution", "none"] = key(
        "dense",
        "How each tower's features are brought to projection_units: a dense layer "
        "(paper B), a 1-d convolution along them (paper D), or as they are.",
    )
    projection_units: Width = key(200, "Width that each tower's features get.")
    projection_activation: Activation = key("relu", "Activation of the projection.")
    combine: Literal["concatenate", "add", "average", "max", "highway", "cross"] = key(
        "concatenate",
        "How the towers meet: joined; added, averaged or the greatest; highway: a "
        "learned gate for each feature; cross: joined with all pairwise products.",
    )
    cross_units: Count = key(
        16, "Width that vectors are brought to before products are taken. cross."
    )
    hidden_units: list[Width] = key([200], "Widths of the hidden layers.")
    hidden_activation: Activation = key("tanh", "Activation of the hidden layers.")
    dropout: BelowOne = key(
        0.5, "Share of the combination and of each hidden layer dropped in training."
    )
    l2: NotNegative = key(0.0, "L2 penalty on the weights.")
    initializer_stddev: NotNegative = key(
        0.0, "Spread of the first weights (truncated normal); 0: each layer's own."
    )
    matching_weight: NotNegative = key(
        0.0, "Weight of the loss that matching vectors be alike (paper B's AUX)."
    )
    num_negatives: Count = key(
        5, "Products of other labels that each is told apart from. matching_weight."
    )
    modality_dropout: BelowOne = key(
        0.1, "Chance that a tower is hidden from a training product."
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        self.refuse_unused(
            ("cross_units", "combine = 'cross'", self.combine == "cross"),
            ("num_negatives", "a 'matching_weight'", self.matching_weight > 0),
            ("projection_units", "a projection", self.projection != "none"),
            ("projection_activation", "a projection", self.projection != "none"),
        )
        return self

    @model_validator(mode="after")
    def _widths_meet(self) -> Self:
        if self.projection == "none" and self.combine not in ("concatenate", "cross"):
            raise ValueError(
                f"combine = {self.combine!r} needs features of one width, which "
                'projection = "none" does not give'
            )
        if self.matching_weight and self.projection == "none":
            raise ValueError(
                "'matching_weight' compares vectors of one width, which "
                'projection = "none" does not give'
            )
        return self

    @model_validator(mode="after")
    def _products_are_few(self) -> Self:
        pairs = math.comb(len(self.towers), 2)
        products = pairs * self.cross_units**2
        if self.combine == "cross" and products > MAX_PRODUCTS:
            raise ValueError(
                f"'cross_units' must leave at most {MAX_PRODUCTS:,} products. "
                f"Received: {self.cross_units}, which makes {products:,} of "
                f"{len(self.towers)} towers"
            )
        return self


class EarlyFusion(FeatureFusion):
    """`model = "early_fusion"`: a network on the features of frozen towers
    (papers A, B and D)."""

    model: Literal["early_fusion"] = key(help="The network.")
    towers: Annotated[list[Name], Field(min_length=1)] = key(
        help="Towers it fuses; heads may stand among them. Of a single one it is "
        "another classifier on its features, to compare with (paper B)."
    )
    max_epochs: Count = key(100, "Training stops here at the latest.")
    start_from: Literal["zero", "product"] = key(
        "product", "What it adds to: nothing, or the product rule's logits."
    )

    @model_validator(mode="after")
    def _one_tower_has_nothing_to_meet(self) -> Self:
        several = len(self.towers) > 1
        self.refuse_unused(
            ("combine", "two towers", several),
            ("matching_weight", "two towers", several),
        )
        return self


# Names in a joint network that its towers' inputs cannot have beside them.
LAYERS = ("combined", "cross", "features", "logits", "output", "present")
TOWER_LAYERS = ("cross", "present", "projection", "standardized", "tower", "vector")


class Joint(FeatureFusion):
    """`model = "joint"`: towers and fusion trained as one network (paper A)."""

    model: Literal["joint"] = key(help="The network.")
    towers: Annotated[list[Name], Field(min_length=2)] = key(
        help="Towers of one modality each that become parts of it. All of their layers "
        "train; their trainable_layers, stages and character_noise have no part in it."
    )
    start_from: Literal["towers", "scratch"] = key(
        "towers", "The trained towers' weights, or new ones."
    )
    fit_on: FitSplit | Annotated[list[FitSplit], Field(min_length=1)] = key(
        "train", "Always train: it sees the products themselves."
    )
    max_epochs: Count = key(10, "Training stops here at the latest.")
    rate_factors: dict[Name, Positive] = key(
        {}, "Tower -> what its rate is of learning_rate; 1 for those not named."
    )

    @model_validator(mode="after")
    def _trains_on_train(self) -> Self:
        if self.fit_on != "train":
            raise ValueError(f"fit_on must be 'train'. Received: {self.fit_on!r}")
        for name in self.rate_factors:
            if name not in self.towers:
                raise ValueError(
                    f"'rate_factors' names towers of its own. Received: {name!r}"
                )
        return self

    @model_validator(mode="after")
    def _towers_have_names_of_their_own(self) -> Self:
        taken = {f"{name}_{part}" for name in self.towers for part in TOWER_LAYERS}
        for name in self.towers:
            if name in taken | set(LAYERS) or name.startswith("hidden_"):
                raise ValueError(
                    "'towers' of a joint network must not be named as its layers are. "
                    f"Received: {name!r}"
                )
        return self
