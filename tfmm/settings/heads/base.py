"""What every `[heads.NAME]` has, and what those that are fitted have."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tfmm.settings.base import Name, Table, key

FitSplit = Literal["fusion", "train", "train_oof", "validation"]


class Head(Table):
    """What every head has."""

    towers: Annotated[list[Name], Field(min_length=2)] = key(
        help="Towers it fuses; heads may stand among them."
    )

    @property
    def fit_splits(self) -> tuple[str, ...]:
        """The splits whose outputs it is fitted on; none for a fixed rule."""
        return ()


class FittedHead(Head):
    """What every head has that learns from stored outputs."""

    fit_on: FitSplit | Annotated[list[FitSplit], Field(min_length=1)] = key(
        "fusion",
        "Split whose outputs it is fitted on, or several: fusion, train_oof (needs "
        "[catalog] folds), validation, or train, which its towers were trained on.",
    )

    @property
    def fit_splits(self) -> tuple[str, ...]:
        return (self.fit_on,) if isinstance(self.fit_on, str) else tuple(self.fit_on)

    @model_validator(mode="after")
    def _splits_go_together(self) -> Self:
        splits = self.fit_splits
        if len(set(splits)) != len(splits):
            raise ValueError(f"'fit_on' names a split twice. Received: {list(splits)}")
        if "validation" in splits and len(splits) > 1:
            raise ValueError(
                "'fit_on' cuts the split validation in two and takes no other beside "
                f"it. Received: {list(splits)}"
            )
        if {"train", "train_oof"} <= set(splits):
            raise ValueError(
                "'fit_on' takes train or train_oof, which are the same products. "
                f"Received: {list(splits)}"
            )
        return self
