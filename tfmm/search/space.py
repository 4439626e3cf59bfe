"""Spaces: from numbers that an algorithm draws to settings, and back.

An algorithm draws a *point*: a number for each label of the space. A range's is the
number itself, before it is rounded to its step; a choice's the place of its option.
Only labels of the options that were chosen have one.
"""

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from tfmm import experiment
from tfmm.errors import ExperimentError, did_you_mean
from tfmm.experiment import Experiment
from tfmm.progress import say
from tfmm.settings import ResNet50, Tbva
from tfmm.settings.search import (
    Branches,
    Choice,
    Constant,
    Entries,
    Items,
    Node,
    Range,
    SearchOptions,
    Space,
    is_of_experiment,
    options_of,
    space_of,
)

Point = Mapping[str, float]
# Of docs/report.md, those that are one number.
MEASURES = (
    *("top1", "top3", "top5", "map", "exact", "loss", "ece"),
    *("micro_f1", "micro_precision", "micro_recall"),
    *("macro_f1", "mean_precision", "mean_recall"),
    *("weighted_f1", "weighted_precision", "weighted_recall"),
)
READY = Path(__file__).with_name("ready.toml")


def with_ready_space(settings: Experiment, target: str, source: str) -> Experiment:
    """The experiment with `[search.TARGET]`: the ready one, if it has none itself.

    Raises:
        ExperimentError: If there is no such model, or no ready space for it.
    """
    models = (*settings.towers, *settings.heads)
    if target not in models:
        raise ExperimentError(
            f"{source}: --target {target} is no tower or head here"
            f"{did_you_mean(target, models)}"
        )
    if target in settings.search:
        return settings
    own = settings.model_settings(target)
    name = own.model
    if isinstance(own, Tbva) and isinstance(settings.towers[own.image_tower], ResNet50):
        name = "tbva_in_resnet50"
    ready = tomllib.loads(READY.read_text(encoding="utf-8"))
    if name not in ready:
        raise ExperimentError(
            f"{source}: --target {target}: a {name} has no ready space, and there is "
            f"no [search.{target}]"
        )
    say(f"{source}: no [search.{target}]: taking the ready space of {name}")
    data = written(settings)
    data.setdefault("search", {})[target] = ready[name]
    return experiment.check(data, source)


def measure_of(settings: Experiment, target: str) -> str:
    """The measure of `[search.TARGET]`; `ExperimentError` if there is none such."""
    measure = of(settings, target)[0].measure
    task = settings.catalog.task
    known = [x for x in MEASURES if task == "multi_label" or x != "exact"]
    if measure and measure not in known:
        raise ExperimentError(
            f"[search.{target}] measure = {measure!r}{did_you_mean(measure, known)}"
        )
    return measure or ("top1" if task == "single_label" else "micro_f1")


def check_labels(measure: str, num_labels: int, source: str) -> None:
    """Stops at a measure of the first so many labels where there are no more."""
    first = {"top3": 3, "top5": 5}.get(measure, 0)
    if first >= num_labels:
        raise ExperimentError(
            f"{source}: measure = {measure!r} needs more than {first} labels. "
            f"Received: {num_labels}"
        )


def of(settings: Experiment, target: str) -> tuple[SearchOptions, Space]:
    """The options and the space of `[search.TARGET]`, which must be there."""
    table = settings.search[target]
    keys = type(settings.model_settings(target)).model_fields
    return options_of(table), space_of(table, keys)


def written(settings: Experiment) -> dict[str, Any]:
    """The experiment as its file has it, without what it leaves to defaults."""
    return settings.model_dump(mode="json", exclude_unset=True)


def keys_of(space: Space) -> list[str]:
    """All keys that a point may set."""
    return [
        key
        for name, node in space.items()
        for key in (node.keys if isinstance(node, Branches) else (name,))
    ]


def is_whole(settings: Experiment, target: str) -> bool:
    """Whether trials make anew all that the model hears: other keys are drawn too."""
    return any(map(is_of_experiment, keys_of(of(settings, target)[1])))


def first_point(settings: Experiment, target: str) -> tuple[Point | None, str]:
    """The point of the experiment as written, or none and why."""
    _, space = of(settings, target)
    model = settings.model_settings(target)
    own = model.model_dump(mode="json")
    defaults = {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in type(model).model_fields.items()
        if not field.is_required()
    }
    for name in filter(is_of_experiment, keys_of(space)):
        own[name] = value_at(settings, target, name)
        try:
            without = with_values(settings, target, {name: None}, "the experiment")
        except ExperimentError:
            continue  # it has no default
        defaults[name] = value_at(without, target, name)
    try:
        return point_of(space, own, defaults), ""
    except ValueError as error:
        return None, str(error)


def value_at(settings: Experiment, target: str, name: str) -> Any:
    """The value of a searched key; `None` of one that the experiment does not have."""
    place: Any = settings.model_dump(mode="json")
    for part in _path(settings, target, name):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def _path(settings: Experiment, target: str, name: str) -> list[str]:
    """Where a searched key stands in the experiment."""
    if is_of_experiment(name):
        return name.split(".")
    return ["towers" if target in settings.towers else "heads", target, name]


def values_of(space: Space, point: Point) -> dict[str, Any]:
    """The keys that a point sets, and their values.

    A key of a nested choice that the drawn option does not bring is `None`: it goes
    back to its default.
    """
    values: dict[str, Any] = {}
    for name, node in space.items():
        if isinstance(node, Branches):
            place = int(point[name])
            values |= dict.fromkeys(node.keys)
            for own, inside in node.options[place].items():
                values[own] = _value(inside, f"{name}.{place}.{own}", point)
        else:
            values[name] = _value(node, name, point)
    return values


def _value(node: Node, label: str, point: Point) -> Any:
    if isinstance(node, Constant):
        return node.value
    if isinstance(node, Range):
        return nearest(node, point[label])
    if isinstance(node, Choice):
        place = int(point[label])
        return _value(node.options[place], f"{label}.{place}", point)
    if isinstance(node, Items):
        return [_value(x, f"{label}.{i}", point) for i, x in enumerate(node.items)]
    assert isinstance(node, Entries)
    return {k: _value(x, f"{label}.{k}", point) for k, x in node.entries.items()}


def nearest(node: Range, drawn: float) -> float | int:
    """The number of a range that is nearest to one that was drawn."""
    value = min(max(drawn, node.low), node.high)
    if node.step:
        steps = round((value - node.low) / node.step)
        value = min(node.low + steps * node.step, node.high)
        steps = math.floor((node.high - node.low) / node.step + 1e-9)
        value = min(value, node.low + steps * node.step)
        # 0.1 + 2 * 0.1 is not 0.3.
        value = float(f"{value:.12g}")
    return round(value) if node.is_whole else value


def drawn_between(node: Range) -> tuple[float, float]:
    """Between which numbers to draw, so that the ends come up as often as others."""
    half = node.step / 2
    low = node.low - half
    if node.is_log:
        low = max(low, node.low / 2)
    return low, node.high + half


def point_of(
    space: Space, own: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Point:
    """The point that gives settings as they stand.

    Args:
        space: The space.
        own: The settings: key -> value.
        defaults: Key -> default, of keys that have one.

    Raises:
        ValueError: If the space does not hold them; it says why.
    """
    point: dict[str, float] = {}
    for name, node in space.items():
        if not isinstance(node, Branches):
            point |= _point(node, name, own.get(name, defaults.get(name)), name)
            continue
        for place, option in enumerate(node.options):
            rest = [x for x in node.keys if x not in option]
            if any(own.get(x, defaults.get(x)) != defaults.get(x) for x in rest):
                continue
            try:
                inside = [
                    _point(
                        x, f"{name}.{place}.{key}", own.get(key, defaults.get(key)), key
                    )
                    for key, x in option.items()
                ]
            except ValueError:
                continue
            point[name] = place
            for part in inside:
                point |= part
            break
        else:
            raise ValueError(f"no option of {name!r} is what is written")
    return point


def _point(node: Node, label: str, value: Any, where: str) -> dict[str, float]:
    wrong = ValueError(f"{where} = {json.dumps(value)} is outside of the space")
    if isinstance(node, Constant):
        if node.value != value:
            raise wrong
        return {}
    if isinstance(node, Range):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or nearest(node, value) != value:
            raise wrong
        return {label: value}
    if isinstance(node, Choice):
        for place, option in enumerate(node.options):
            try:
                inside = _point(option, f"{label}.{place}", value, where)
            except ValueError:
                continue
            return {label: place, **inside}
        raise wrong
    point: dict[str, float] = {}
    if isinstance(node, Items):
        if not isinstance(value, list) or len(value) != len(node.items):
            raise wrong
        for i, (inner, item) in enumerate(zip(node.items, value, strict=True)):
            point |= _point(inner, f"{label}.{i}", item, where)
        return point
    assert isinstance(node, Entries)
    if not isinstance(value, Mapping) or set(value) != set(node.entries):
        raise wrong
    for key, inner in node.entries.items():
        point |= _point(inner, f"{label}.{key}", value[key], where)
    return point


def with_values(
    settings: Experiment, target: str, values: Mapping[str, Any], source: str
) -> Experiment:
    """The experiment with some keys set; `None` takes a key back to its default.

    Raises:
        ExperimentError: If they are out of bounds or contradict each other.
    """
    data = written(settings)
    for name, value in values.items():
        *path, last = _path(settings, target, name)
        place = data
        for part in path:
            if value is None and part not in place:
                break  # it is at its default already
            if not isinstance(place.setdefault(part, {}), dict):
                raise ExperimentError(f"{source}: {name!r}: {part!r} is no table")
            place = place[part]
        else:
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
    return experiment.check(data, source)
