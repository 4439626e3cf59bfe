"""TOML -> checked, frozen Experiment; overrides; messages that name the key."""

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator

from tfmm.errors import ExperimentError, did_you_mean
from tfmm.settings import (
    TOWER_KINDS,
    CalibrationSettings,
    Catalog,
    Export,
    Gate,
    HeadSettings,
    Joint,
    Modality,
    Name,
    Table,
    Tbva,
    TowerSettings,
    key,
    wiring,
)
from tfmm.settings.search import options_of, space_of

# Names that layers and answers bear, so that no modality or model can.
RESERVED_NAMES = (
    *("features", "logits", "present", "targets", "labels", "scores"),
    "self",  # a signature's inputs are keyword arguments
)


class Experiment(Table):
    """A whole experiment file, checked.

    Attributes:
        seed: Where every random draw starts.
        catalog: How the table is read and split.
        modalities: The named inputs of a product.
        towers: One model of one modality each.
        heads: Models that fuse towers.
        calibration: How logits become probabilities and decisions.
        export: What is served; absent if the file has no `[export]`.
        search: Model -> its space and the options of its search.
    """

    seed: Annotated[int, Field(ge=0, lt=2**31)] = key(0, "Where random draws start.")
    catalog: Catalog = key(help="How the table is read and split.")
    modalities: Annotated[dict[Name, Modality], Field(min_length=1)] = key(
        help="The named inputs of a product."
    )
    towers: Annotated[dict[Name, TowerSettings], Field(min_length=1)] = key(
        help="One model of one modality each."
    )
    heads: dict[Name, HeadSettings] = key({}, "Models that fuse towers.")
    calibration: CalibrationSettings = key(
        CalibrationSettings(), "How logits become probabilities and decisions."
    )
    export: Export | None = key(None, "What is served.")
    search: dict[Name, dict[str, Any]] = key(
        {}, "Spaces that tfmm.search draws a model's settings from."
    )

    @model_validator(mode="after")
    def _names_meet(self) -> Self:
        for table in ("modalities", "towers", "heads"):
            for name in getattr(self, table):
                if name in RESERVED_NAMES:
                    raise ValueError(
                        f"[{table}.{name}] has a reserved name; choose another"
                    )
        self.calibration.method_for(self.catalog.task)
        wiring.check_towers(self.modalities, self.towers, TOWER_KINDS)
        wiring.check_heads(
            self.catalog.task, self.towers, self.heads, self.catalog.folds
        )
        models = (*self.towers, *self.heads)
        if self.export and self.export.head not in models:
            raise ValueError(
                f"[export] head = {self.export.head!r} is no head or tower here"
                f"{did_you_mean(self.export.head, models)}"
            )
        for target, space in self.search.items():
            if target not in models:
                raise ValueError(
                    f"[search.{target}] is no tower or head here"
                    f"{did_you_mean(target, models)}"
                )
            try:
                options_of(space)
                space_of(space, type(self.model_settings(target)).model_fields)
            except ValueError as error:
                raise ValueError(f"[search.{target}] {error}") from None
        other = {
            "single_label": ("positive_weight", 1.0, "the sigmoid loss of multi_label"),
            "multi_label": ("class_weights", "none", "the softmax of single_label"),
        }
        name, default, place = other[self.catalog.task]
        for table, all_models in (("towers", self.towers), ("heads", self.heads)):
            for model_name, model in all_models.items():
                # A gate's loss is its own, and the same for both tasks.
                alien = getattr(model, name, default) != default
                if alien and not isinstance(model, Gate):
                    raise ValueError(
                        f"[{table}.{model_name}] {name} belongs to {place}. "
                        f"Received: task = {self.catalog.task!r}"
                    )
        return self

    def model_settings(self, name: str) -> Any:
        """The settings of the tower or head called `name`."""
        return self.towers[name] if name in self.towers else self.heads[name]

    def inputs_of(self, name: str) -> list[str]:
        """The models that the model `name` hears: itself if it is a tower."""
        return [name] if name in self.towers else list(self.heads[name].towers)

    def towers_of(self, name: str) -> list[str]:
        """The towers that the model `name` hears, also by way of other heads.

        In the order in which they are first heard.
        """
        if name in self.towers:
            return [name]
        found = [x for heard in self.inputs_of(name) for x in self.towers_of(heard)]
        return list(dict.fromkeys(found))

    def sources_of(self, name: str) -> list[str]:
        """The models under `name` that see products: towers and joint networks."""
        if self.sees_products(name):
            return [name]
        found = [x for heard in self.inputs_of(name) for x in self.sources_of(heard)]
        return list(dict.fromkeys(found))

    def sees_products(self, name: str) -> bool:
        """Whether a model reads products, and not other models' outputs."""
        return name in self.towers or isinstance(self.heads[name], Joint)

    def starts_from(self, name: str) -> list[str]:
        """The models that `name` is made from, by their outputs or their weights."""
        model = self.model_settings(name)
        if isinstance(model, Tbva):
            return [model.image_tower, model.text_tower]
        return [] if name in self.towers else list(model.towers)

    def modalities_of(self, name: str) -> list[str]:
        """The modalities that a model reads, in the experiment's order."""
        read = {
            self.towers[part].modality
            for tower in self.towers_of(name)
            for part in (tower, *self.starts_from(tower))
        }
        return [modality for modality in self.modalities if modality in read]

    def towers_in_order(self) -> list[str]:
        """The towers, each after those that it starts from."""
        return sorted(self.towers, key=lambda x: isinstance(self.towers[x], Tbva))

    def heads_in_order(self) -> list[str]:
        """The heads, each after those that it hears."""
        return wiring.in_order(self.heads)

    def has_out_of_fold(self, name: str) -> bool:
        """Whether a model has outputs of the split `train_oof`."""
        return wiring.has_out_of_fold(name, self.towers, self.heads, self.catalog.folds)


def load(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Experiment:
    """Reads and checks an experiment file.

    Args:
        path: A TOML file.
        overrides: `key=value` with dotted keys, applied in order; a value is read
            as TOML, or taken as a string if it is no TOML value.

    Returns:
        The checked experiment.

    Raises:
        ExperimentError: If the file is missing or no TOML, a key is unknown or of
            the wrong type, or keys contradict each other. The message is one line
            naming file, table and key, and the nearest name.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*.toml"))
        hint = did_you_mean(str(path), near) if near else ""
        raise ExperimentError(f"{path}: no such experiment file{hint}") from None
    except IsADirectoryError:
        raise ExperimentError(f"{path}: expected a TOML file, not a folder") from None
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ExperimentError(f"{path}: not a TOML file: {error}") from None
    for override in overrides:
        _apply(data, override)
    return check(data, str(path))


def check(data: dict[str, Any], source: str) -> Experiment:
    """Turns plain data into an Experiment; `source` opens the error message."""
    try:
        # Through JSON because pydantic's strict mode takes JSON's types as TOML
        # means them: 1 for a float is fine, "1" is not.
        return Experiment.model_validate_json(
            json.dumps(data, default=str), strict=True
        )
    except ValidationError as error:
        raise ExperimentError(f"{source}: {_first_message(error)}") from None


def _apply(data: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    parts = dotted.strip().split(".")
    if not equals or not all(parts):
        raise ExperimentError(f"--set: expected key=value. Received: {override!r}")
    value: Any = text.strip()
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = {}
    if len(parsed) == 1:  # a line break in it must not smuggle in other keys
        value = parsed["value"]
    table = data
    for depth, part in enumerate(parts[:-1]):
        if part not in table:
            options = list(table) if depth else list(Experiment.model_fields)
            named = depth == 1 and parts[0] in ("modalities", "towers", "heads")
            if named or (depth == 0 and part not in options):
                raise ExperimentError(
                    f"--set {dotted}: the experiment has no "
                    f"[{'.'.join(parts[: depth + 1])}]{did_you_mean(part, options)}"
                )
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ExperimentError(f"--set {dotted}: {part!r} is not a table")
    table[parts[-1]] = value


def _first_message(error: ValidationError) -> str:
    """One line for the first thing that pydantic found wrong."""
    problems = error.errors(include_url=False)
    problem = problems[0]
    kind, received = problem["type"], problem["input"]
    tables, model = _walk(problem["loc"])
    name = tables.pop() if tables else ""
    where = f"[{'.'.join(tables)}] " if tables else ""
    if kind == "extra_forbidden":
        keys = model.model_fields if model else ()
        return f"{where or 'the file '}has no key {name!r}{did_you_mean(name, keys)}"
    if kind == "missing":
        return f"{where or 'the file '}needs a key {name!r}"
    if kind == "union_tag_not_found":
        return f"[{'.'.join([*tables, name])}] needs a key 'model'"
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        options = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return (
            f"[{'.'.join([*tables, name])}] has no model = {context['tag']!r}"
            f"{did_you_mean(context['tag'], options)}"
        )
    if kind == "value_error":
        place = f"[{'.'.join([*tables, name])}] " if name else ""
        return f"{place}{problem['ctx']['error']}"
    # A value that may be of several types has a problem with each.
    same = [p for p in problems if _walk(p["loc"])[0] == [*tables, name]]
    expected = " or ".join(dict.fromkeys(_expected(p["msg"]) for p in same))
    return f"{where}{name}: expected {expected}. Received: {received!r}"


def _expected(message: str) -> str:
    """What goes after "expected", of pydantic's "List should have at least ..."."""
    _, should, rest = message.partition(" should ")
    if not should:
        return message
    rest = rest.replace(" after validation", "")
    return rest.removeprefix("be ") if rest.startswith("be ") else f"to {rest}"


def _walk(loc: tuple[Any, ...]) -> tuple[list[str], type[BaseModel] | None]:
    """The keys of a location, and the table class that holds the last of them."""
    names: list[str] = []
    holder: Any = None
    inside: Any = Experiment
    for part in map(str, loc):
        if part == "[key]":
            continue
        tagged = _tagged(inside, part)
        if tagged is not None:
            inside = tagged
            continue
        fields = getattr(inside, "model_fields", None)
        arguments = get_args(inside)
        if get_origin(inside) is list and hasattr(arguments[0], "model_fields"):
            names.append(str(int(part) + 1))  # a table of a list of tables
            holder, inside = None, arguments[0]
            continue
        if fields is None and get_origin(inside) is not dict:
            break  # what follows tells members of a list or of a union of types
        names.append(part)
        holder = inside if fields is not None else None
        if fields is None:
            inside = arguments[1]
        else:
            inside = fields[part].annotation if part in fields else None
            if type(None) in get_args(inside):  # a table that need not be there
                inside = get_args(inside)[0]
    return names, holder


def _tagged(annotation: Any, tag: str) -> type[BaseModel] | None:
    """The member of a union of tables whose `model` may be `tag`."""
    for member in get_args(annotation):
        for option in (member, *get_args(member)):
            fields = getattr(option, "model_fields", {})
            if "model" in fields and tag in get_args(fields["model"].annotation):
                return option
    return None
