"""A space against the experiment, before any trial: each value tried once."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tfmm.errors import ExperimentError
from tfmm.experiment import Experiment
from tfmm.search import space as spaces
from tfmm.search.space import nearest
from tfmm.settings.search import Branches, Choice, Constant, Entries, Items, Node, Range
from tfmm.settings.wiring import fitted_on


def check(settings: Experiment, target: str, source: str) -> bool:
    """Stops if an end of a range, or an option, is none that its key may have.

    Each is tried with the first of everything else, and with everything else as it is
    written: what only goes together with some of the rest is allowed.

    Returns:
        Whether the model is fitted on products of `validation` in any of these, or as
        it is written: all trials are then measured on the rest of them.

    Raises:
        ExperimentError: Naming the key and its value.
    """
    _, space = spaces.of(settings, target)
    base: dict[str, Any] = {}
    for name, node in space.items():
        if isinstance(node, Branches):
            base |= next(_of_branches(node))
        else:
            base[name] = next(_probes(node))
    found = [settings]
    for name, node in space.items():
        some = isinstance(node, Branches)
        sets = _of_branches(node) if some else ({name: x} for x in _probes(node))
        found += [_tried(settings, target, base, values, source) for values in sets]
    return any("validation" in fitted_on(target, tried.heads) for tried in found)


def _tried(
    settings: Experiment,
    target: str,
    base: Mapping[str, Any],
    values: Mapping[str, Any],
    source: str,
) -> Experiment:
    try:
        return spaces.with_values(settings, target, {**base, **values}, source)
    except ExperimentError:
        pass  # perhaps because of the rest
    try:
        return spaces.with_values(settings, target, values, source)
    except ExperimentError as error:
        message = str(error).removeprefix(f"{source}: ")
        raise ExperimentError(
            f"{source}: [search.{target}] {_told(values)}: {message}"
        ) from None


def _of_branches(node: Branches) -> Iterator[dict[str, Any]]:
    """What the options of a nested choice set, one of their values at a time."""
    for option in node.options:
        first = {key: next(_probes(x)) for key, x in option.items()}
        unset = dict.fromkeys(node.keys)
        yield unset | first
        for key, inside in option.items():
            for value in _probes(inside):
                yield unset | first | {key: value}


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None
    )


def _probes(node: Node) -> Iterator[Any]:
    """Values that stand for a space: ends of ranges, every option, one at a time."""
    if isinstance(node, Constant):
        yield node.value
    elif isinstance(node, Range):
        yield nearest(node, node.low)
        yield nearest(node, node.high)
    elif isinstance(node, Choice):
        for option in node.options:
            yield from _probes(option)
    else:
        assert isinstance(node, Items | Entries)
        listed = isinstance(node, Items)
        inner = dict(enumerate(node.items)) if isinstance(node, Items) else node.entries
        first = {key: next(_probes(x)) for key, x in inner.items()}
        for key, x in inner.items():
            for value in _probes(x):
                made = {**first, key: value}
                yield list(made.values()) if listed else made
