"""`[search.NAME]`: what of a model to search, and how.

A key of the table is a key of the model, or of the experiment: in quotes and with dots,
or `seed`. Its value says what may be drawn:

    learning_rate = { low = 1e-5, high = 1e-1, scale = "log" }
    hidden_units = [[100], [{ low = 10, high = 400, step = 10 }]]    # choices
    temperatures = { title = { low = 0.1, high = 4.0 } }             # a table's values
    batch_size = 64                                                  # a constant
    penalty = [{}, { l2 = { low = 1e-7, high = 1, scale = "log" } }, { dropout = 0.5 }]

The last is a nested choice: it is no key itself, its options bring keys of their own.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from tfmm.errors import did_you_mean
from tfmm.settings.base import Count, CountOrZero, Positive, Table, key


@dataclass(frozen=True)
class Constant:
    """A value that is as it is."""

    value: Any


@dataclass(frozen=True)
class Range:
    """A number between `low` and `high`, both included.

    Attributes:
        low, high: The ends.
        is_log: Whether all orders of magnitude are as likely, or all numbers.
        step: Distance of neighbours, counted from `low`; 0: none.
        is_whole: Whether the number is an integer.
    """

    low: float
    high: float
    is_log: bool
    step: float
    is_whole: bool


@dataclass(frozen=True)
class Choice:
    """One of several options."""

    options: tuple["Node", ...]


@dataclass(frozen=True)
class Items:
    """A list whose items may be drawn each."""

    items: tuple["Node", ...]


@dataclass(frozen=True)
class Entries:
    """A table whose values may be drawn each."""

    entries: Mapping[str, "Node"]


@dataclass(frozen=True)
class Branches:
    """A nested choice: each option brings keys with spaces of their own."""

    options: tuple[Mapping[str, "Node"], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that any option brings."""
        return tuple(dict.fromkeys(name for option in self.options for name in option))


Node = Constant | Range | Choice | Items | Entries | Branches
Space = Mapping[str, Node]


class SearchOptions(Table):
    """`[search.NAME]`: how to search; all other keys of the table are the space
    (docs/search.md)."""

    measure: str = key(
        "",
        "Measure of the report on validation to maximise (loss and ece: to minimise); "
        "top1 (single_label) or micro_f1 (multi_label) if empty.",
    )
    data_rate: Annotated[float, Field(gt=0.0, le=1.0)] = key(
        1.0,
        "Share of the products to learn from in a trial, by label; the best is fitted "
        "once more on all (paper B: 0.1).",
    )
    trial_seconds: Positive = key(
        3600.0, "A trial that takes longer is ended and has failed."
    )
    median_stop: bool = key(
        True,
        "End a trial whose best epoch so far is worse than the median of the earlier "
        "trials' at the same epoch.",
    )
    stale_trials: CountOrZero = key(
        0, "End the search when so many trials in a row brought nothing better; 0: no."
    )
    startup_trials: Count = key(
        10, "Trials drawn at random before TPE has seen enough to suggest."
    )


ALGORITHMS = ("tpe", "random")
OPTIONS = frozenset(SearchOptions.model_fields)
RANGE_KEYS = ("low", "high", "scale", "step")
# Keys of the experiment that are in none of its tables.
TOP_KEYS = ("seed",)


def options_of(table: Mapping[str, Any]) -> SearchOptions:
    """The options of a search table; `ValueError` if one is wrong."""
    own = {name: value for name, value in table.items() if name in OPTIONS}
    try:
        return SearchOptions.model_validate(own, strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name, message = problem["loc"][0], problem["msg"]
        raise ValueError(
            f"{name}: {message[0].lower()}{message[1:]}. Received: {problem['input']!r}"
        ) from None


def is_of_experiment(name: str) -> bool:
    """Whether a key that is searched is one of the experiment and not of the model."""
    return "." in name or name in TOP_KEYS


def space_of(table: Mapping[str, Any], keys: Collection[str]) -> Space:
    """The space of a search table.

    Args:
        table: `[search.NAME]`.
        keys: Those of the model.

    Raises:
        ValueError: If a key is none of the model, or a space is malformed.
    """
    space: dict[str, Node] = {}
    for name, value in table.items():
        if name in OPTIONS:
            continue
        if name == "model":
            raise ValueError("'model' cannot be searched; give each a table of its own")
        if name in keys or is_of_experiment(name):
            space[name] = _drawn(value, name)
        elif isinstance(value, list) and value and all(map(_is_table, value)):
            options = tuple(
                _branch(x, f"{name} {i}", keys) for i, x in _numbered(value)
            )
            space[name] = Branches(options)
        else:
            known = [*keys, *OPTIONS, *TOP_KEYS]
            raise ValueError(
                f"the model has no key {name!r}{did_you_mean(name, known)}; a nested "
                "choice is a list of tables"
            )
    if not space:
        raise ValueError("there is nothing to search")
    taken: set[str] = set()
    for name, node in space.items():
        for own in node.keys if isinstance(node, Branches) else (name,):
            if own in taken:
                raise ValueError(f"{own!r} is drawn in two places")
            taken.add(own)
    return space


def _branch(table: Mapping[str, Any], where: str, keys: Collection[str]) -> Space:
    for name in table:
        if name == "model" or not (name in keys or is_of_experiment(name)):
            raise ValueError(
                f"{where}: the model has no key {name!r}{did_you_mean(name, keys)}"
            )
    return {name: _drawn(value, f"{where}: {name}") for name, value in table.items()}


def _drawn(value: Any, where: str) -> Node:
    """What a key's value says may be drawn."""
    if isinstance(value, list):
        if not value:
            raise ValueError(f"{where}: expected at least one choice. Received: []")
        return Choice(tuple(_value(x, f"{where}, {i}") for i, x in _numbered(value)))
    return _value(value, where)


def _value(value: Any, where: str) -> Node:
    """The same inside of a choice or of a table, where a list is a value."""
    if isinstance(value, list):
        items = tuple(_value(x, f"{where}, {i}") for i, x in _numbered(value))
        if all(isinstance(x, Constant) for x in items):
            return Constant(value)
        return Items(items)
    if not _is_table(value):
        return Constant(value)
    if "low" in value or "high" in value:
        return _range(value, where)
    entries = {name: _value(x, f"{where}.{name}") for name, x in value.items()}
    if all(isinstance(x, Constant) for x in entries.values()):
        return Constant(dict(value))
    return Entries(entries)


def _range(table: Mapping[str, Any], where: str) -> Range:
    for name in table:
        if name not in RANGE_KEYS:
            raise ValueError(
                f"{where}: a range has no {name!r}{did_you_mean(name, RANGE_KEYS)}"
            )
    for name in ("low", "high", "step"):
        value = table.get(name, 0)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in table and name != "step":
            raise ValueError(
                f"{where}: a range needs {name!r}. Received: {dict(table)}"
            )
        if not number or not math.isfinite(value):
            raise ValueError(f"{where}: {name} must be a number. Received: {value!r}")
    low, high, step = table["low"], table["high"], table.get("step", 0)
    scale = table.get("scale", "linear")
    if scale not in ("linear", "log"):
        raise ValueError(
            f"{where}: scale must be 'linear' or 'log'. Received: {scale!r}"
        )
    if not low < high:
        raise ValueError(
            f"{where}: low must be below high. Received: {low!r} and {high!r}"
        )
    if scale == "log" and low <= 0:
        raise ValueError(
            f"{where}: low must be above 0 on a log scale. Received: {low}"
        )
    is_whole = all(isinstance(x, int) for x in (low, high, step))
    if is_whole and "step" not in table:
        step = 1
    if "step" in table and not 0 < step <= high - low:
        raise ValueError(
            f"{where}: step must be above 0 and at most high - low. Received: {step!r}"
        )
    return Range(float(low), float(high), scale == "log", float(step), is_whole)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _numbered(values: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    return enumerate(values, start=1)
