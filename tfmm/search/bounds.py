"""A space against the experiment, before any trial: each value tried once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfmm.errors import ExperimentError
from tfmm.experiment import Experiment
from tfmm.search import space as spaces
from tfmm.search.space import nearest
from tfmm.settings.search import Branches, Choice, Constant, Entries, Items, Node, Range
from tfmm.settings.wiring import fitted_on

# The others change what products there are, their labels or their splits.
CATALOG_KEYS = ("folds", "cache_images")


def probes(settings: Experiment, target: str, source: str) -> list[Experiment]:
    """The experiment as written, and with each value of the space in turn.

    Ends of ranges and options are tried with the first of everything else, and if that
    cannot be, with everything else as it is written: what only goes together with some
    of the rest is allowed.

    Raises:
        ExperimentError: If an end or an option is none that its key may have, or a key
            cannot be searched. It names the key and its value.
    """
    _, space = spaces.of(settings, target)
    for name in spaces.keys_of(space):
        if reason := _refusal(name, target):
            raise ExperimentError(f"{source}: [search.{target}] {name!r}: {reason}")
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
    return found


def hearing(
    settings: Experiment, target: str, tried: Sequence[Experiment]
) -> list[Experiment]:
    """Of the experiments that were tried, one for each set of models heard.

    Where trials make anew all that the target hears, only the one as written.
    """
    if spaces.is_whole(settings, target):
        return [settings]
    return list({tuple(x.starts_from(target)): x for x in tried}.values())


def cuts_validation(
    settings: Experiment, target: str, tried: Sequence[Experiment], source: str
) -> bool:
    """Whether some trials are fitted on a part of `validation`.

    Then all are measured on the rest of it, so that all are on the same products.

    Raises:
        ExperimentError: If the seed is searched too, which draws that part.
    """
    if not any("validation" in fitted_on(target, x.heads) for x in tried):
        return False
    if "seed" in spaces.keys_of(spaces.of(settings, target)[1]):
        raise ExperimentError(
            f"{source}: [search.{target}] 'seed': it draws which part of validation a "
            "head is fitted on, so that trials could not be compared; expected no "
            "'validation' in fit_on"
        )
    return True


def _refusal(name: str, target: str) -> str:
    """Why a key cannot be searched; empty if it can."""
    table, _, rest = name.partition(".")
    if not rest:
        return ""
    if table in ("towers", "heads") and rest.startswith(f"{target}."):
        own, _, inside = rest.partition(".")[2].partition(".")
        wanted = f"{own} = {{ {inside} = ... }}" if inside else repr(own)
        return f"it is the model's own; expected {wanted}"
    if table in ("search", "export"):
        return f"nothing that a trial does depends on [{table}]"
    if table == "catalog" and rest not in CATALOG_KEYS:
        return (
            "trials would have other products, labels or splits than the run; of "
            f"[catalog] only {' and '.join(CATALOG_KEYS)} can be searched"
        )
    return ""


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
    told = [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None]
    return ", ".join(told or [f"{key} at its default" for key in values])


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
