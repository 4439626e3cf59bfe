"""What every table of an experiment file is made of."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SPLITS = ("train", "fusion", "validation", "test")

LARGEST = 1e18  # its square is a float32 still
LARGEST_COUNT = 2**31 - 1  # what an int32 holds
MAX_WIDTH = 16_384  # a layer between two of that width takes 1 GB

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0.0, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
WidthOrZero = Annotated[int, Field(ge=0, le=MAX_WIDTH)]
Activation = Literal["linear", "sigmoid", "relu", "tanh"]


class Table(BaseModel):
    """A TOML table: frozen, refusing keys it does not know, and inf and nan.

    Numbers that no network could be built or trained with are refused by their types,
    so that an absurd one stops here and not in the middle of the work.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def refuse_unused(self, *rules: tuple[str, str, bool]) -> None:
        """Refuses keys that were changed and would do nothing.

        Args:
            rules: Key, what it needs, and whether that is so.
        """
        for name, needed, met in rules:
            default = type(self).model_fields[name].default
            if getattr(self, name) != default and not met:
                raise ValueError(f"{name!r} needs {needed}")


def key(default: Any = ..., help: str = "") -> Any:
    """One key with its default and its help text."""
    return Field(default, description=help)
