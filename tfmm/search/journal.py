"""`search.jsonl`: what is searched, and what became of each trial, as it ended."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfmm.errors import RunError
from tfmm.progress import say
from tfmm.run import replacing


@dataclass(frozen=True)
class Record:
    """A trial that has ended.

    Attributes:
        number: From 0; -1 of the refit of the best one, of which the last one counts.
        point: What the algorithm drew; absent of the experiment as written where the
            space does not hold it.
        values: The keys that were set, and their values.
        outcome: As `trial.Outcome`, as plain data.
        at: Seconds of searching until it ended, in all.
    """

    number: int
    point: dict[str, float] | None
    values: dict[str, Any]
    outcome: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0

    @property
    def status(self) -> str:
        return self.outcome["status"]

    @property
    def value(self) -> float | None:
        return self.outcome["value"]


class Journal:
    """The file of a search.

    Args:
        path: The file.
        about: What is searched and how. A journal of anything else is refused.
        resume: Whether there may be one already.

    Raises:
        RunError: If there is one and may not be, or it is of another search.
    """

    def __init__(self, path: Path, about: dict[str, Any], resume: bool):
        self._path = path
        self.records: dict[int, Record] = {}
        if path.exists() and not resume:
            raise RunError(
                f"{path}: a search is there already; add --resume to go on with it"
            )
        if path.exists():
            self._read(about)
        else:
            with replacing(path) as partial:
                partial.write_text(_line(about), encoding="utf-8")

    def _read(self, about: dict[str, Any]) -> None:
        *lines, rest = self._path.read_bytes().split(b"\n")
        if rest:
            say(f"{self._path}: the last line is not whole; that trial is done again")
            with replacing(self._path) as partial:
                partial.write_bytes(b"".join(x + b"\n" for x in lines))
        try:
            head, *records = [json.loads(line) for line in lines]
            if not isinstance(head, dict):
                raise ValueError("its first line is no table")
            found = [Record(**x) for x in records]
            numbers = [x.number for x in found if x.number >= 0]
            if len(set(numbers)) != len(numbers):
                raise ValueError("a trial is there twice")
            if any(not {"status", "value"} <= set(x.outcome) for x in found):
                raise ValueError("a trial has no outcome")
        except (ValueError, TypeError) as error:
            raise RunError(f"{self._path}: damaged: {error}") from None
        differing = [key for key in about if head.get(key) != about[key]]
        if differing:
            key = differing[0]
            where, was, now = _difference(key, head.get(key), about[key])
            raise RunError(
                f"{self._path}: of another search: its {where} is {json.dumps(was)}, "
                f"now it is {json.dumps(now)}; search in another run, or remove that "
                "folder"
            )
        self.records = {x.number: x for x in found}

    def add(self, record: Record) -> None:
        """Writes a trial down, for good."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(asdict(record)))
            file.flush()
            os.fsync(file.fileno())
        self.records[record.number] = record

    def trials(self, numbers: Iterable[int]) -> list[Record]:
        return [self.records[number] for number in numbers]


def _difference(where: str, was: Any, now: Any) -> tuple[str, Any, Any]:
    """The first key in which two tables differ, with what it was and is."""
    while isinstance(was, dict) and isinstance(now, dict):
        keys = [x for x in [*now, *was] if was.get(x) != now.get(x)]
        if not keys:
            break  # one has a key, of nothing, that the other lacks
        where, was, now = f"{where}.{keys[0]}", was.get(keys[0]), now.get(keys[0])
    return where, was, now


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, allow_nan=False) + "\n"
