"""What was drawn, parameter by parameter, for pictures and for importance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfmm.experiment import Experiment
from tfmm.search import space as spaces
from tfmm.search.journal import Record
from tfmm.settings.search import Branches, Choice, Constant, Node, Range, Space


@dataclass(frozen=True)
class Parameter:
    """A thing that was drawn.

    Attributes:
        name: A key, or what stands for an item or a value inside of it.
        is_log: Whether its numbers belong on a log scale.
        numbers: Of which trials it has values.
        values: Those: numbers, or other values that are told apart as text. `None`
            where an option was drawn that has no such parameter.
    """

    name: str
    is_log: bool
    numbers: Sequence[int]
    values: Sequence[Any]

    def of(self, number: int) -> Any:
        """Its value in a trial; `None` if it had none."""
        return dict(zip(self.numbers, self.values, strict=True)).get(number)

    @property
    def is_number(self) -> bool:
        """Whether its values lie on a line."""
        known = [x for x in self.values if x is not None]
        return bool(known) and all(
            isinstance(x, int | float) and not isinstance(x, bool) for x in known
        )


def parameters(
    settings: Experiment, target: str, space: Space, trials: Sequence[Record]
) -> list[Parameter]:
    """The parameters of a space, with what each trial had.

    The experiment as written counts with what it has of each key.
    """
    found = []
    numbers = [x.number for x in trials]
    written = {
        key: spaces.value_at(settings, target, key) for key in spaces.keys_of(space)
    }

    def values(key: str) -> list[Any]:
        return [
            written.get(key) if x.number == 0 else x.values.get(key) for x in trials
        ]

    for name, node in space.items():
        if isinstance(node, Constant):
            continue
        if isinstance(node, Branches):
            options = {
                place: " + ".join(option) or "none"
                for place, option in enumerate(node.options)
            }
            drawn = [
                None if x.point is None else options[int(x.point[name])] for x in trials
            ]
            found.append(Parameter(name, False, numbers, drawn))
            for key in node.keys:
                inside = [x[key] for x in node.options if key in x]
                own = values(key)
                # As written it may stand at its default, which no option brings.
                point = trials[0].point if trials else None
                if point is None or key not in node.options[int(point[name])]:
                    own[0] = None
                if not all(isinstance(x, Constant) for x in inside):
                    found.append(
                        Parameter(key, any(map(_is_log, inside)), numbers, own)
                    )
        else:
            found.append(Parameter(name, _is_log(node), numbers, values(name)))
    return [
        part
        for parameter in found
        for part in _apart(parameter)
        if any(x is not None for x in part.values)
    ]


def _apart(parameter: Parameter) -> list[Parameter]:
    """A list of one number is that number, a table its entries."""
    known = [x for x in parameter.values if x is not None]
    if known and all(isinstance(x, dict) for x in known):
        names = dict.fromkeys(name for x in known for name in x)
        return [
            Parameter(
                f"{parameter.name}.{name}",
                parameter.is_log,
                parameter.numbers,
                [None if x is None else x.get(name) for x in parameter.values],
            )
            for name in names
        ]
    if known and all(isinstance(x, list) and len(x) == 1 for x in known):
        values = [None if x is None else x[0] for x in parameter.values]
        return [Parameter(parameter.name, parameter.is_log, parameter.numbers, values)]
    return [parameter]


def _is_log(node: Node) -> bool:
    if isinstance(node, Range):
        return node.is_log
    if isinstance(node, Choice):
        values = [x.value for x in node.options if isinstance(x, Constant)]
        # [10], [20], [50] are drawn as the numbers that they hold.
        values = [x[0] if isinstance(x, list) and len(x) == 1 else x for x in values]
        numbers = [x for x in values if isinstance(x, int | float)]
        # 16, 32, 64, 128
        return (
            len(numbers) > 2 and min(numbers) > 0 and max(numbers) >= 8 * min(numbers)
        )
    return False
