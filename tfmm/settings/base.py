"""What every table of an experiment file is made of."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SPLITS = ("train", "fusion", "validation", "test")

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Activation = Literal["linear", "sigmoid", "relu", "tanh"]


class Table(BaseModel):
    """A TOML table: frozen, refusing keys it does not know, and inf and nan."""

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
