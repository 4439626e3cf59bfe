"""`[towers.NAME]` of the tower that reads cells of a table."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from tfmm.errors import did_you_mean
from tfmm.settings.base import BelowOne, Count, Width, key
from tfmm.settings.training import Tower


class TableTower(Tower):
    """`model = "table"`: numbers and categories, such as price, brand and colour."""

    model: Literal["table"] = key(help="The network.")
    numbers: list[str] = key([], "Columns of the modality that hold numbers.")
    categories: list[str] = key([], "Columns of the modality that hold categories.")
    log_numbers: bool = key(
        True, "Take sign(x) log(1 + |x|) of numbers before they are scaled, for prices."
    )
    buckets: Annotated[Count, Field(lt=2**31 - 10_000)] = key(
        10_000, "Buckets that categories are hashed to."
    )
    embedding_dim: Width = key(16, "Size of a category's vector.")
    hidden_units: Annotated[list[Width], Field(min_length=1)] = key(
        [64], "Widths of the hidden layers; the last one is the features."
    )
    dropout: BelowOne = key(0.2, "Share of the features dropped while training.")

    # Known to the modality and no key of the tower's; see `read_from`.
    _columns: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _reads_something(self) -> Self:
        if not self.numbers and not self.categories:
            raise ValueError("a table tower needs 'numbers' or 'categories'")
        both = set(self.numbers) & set(self.categories)
        if both:
            raise ValueError(f"{min(both)!r} is in both 'numbers' and 'categories'")
        for name in ("numbers", "categories"):
            columns = getattr(self, name)
            if len(set(columns)) != len(columns):
                raise ValueError(f"{name!r} names a column twice. Received: {columns}")
        return self

    def read_from(self, columns: Sequence[str]) -> None:
        """Tells the tower where its columns are; the experiment does, once checked.

        Args:
            columns: Columns of the modality, in order.

        Raises:
            ValueError: If one of the tower's is not among them.
        """
        for column in (*self.numbers, *self.categories):
            if column not in columns:
                raise ValueError(
                    f"{column!r} is no column of [modalities.{self.modality}]"
                    f"{did_you_mean(column, columns)}"
                )
        self._columns = tuple(columns)

    def positions(self, names: Sequence[str]) -> list[int]:
        """Places of columns in a row of the modality, from 0.

        Raises:
            ValueError: If `read_from` did not tell.
        """
        if not self._columns:
            raise ValueError("a table tower must be told its columns by `read_from`")
        return [self._columns.index(name) for name in names]
