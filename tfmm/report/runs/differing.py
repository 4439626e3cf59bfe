"""Which settings differ between experiments, key by key."""

from collections.abc import Iterator, Mapping
from typing import Any

from tfmm.experiment import Experiment

# Tables of tables that an experiment gives names of its own to.
NAMED = ("modalities", "towers", "heads")


def differing(experiments: Mapping[str, Experiment]) -> list[dict[str, Any]]:
    """The keys that do not have the same value everywhere.

    A modality, tower or head that some experiment lacks is one entry, whose values
    say of what kind it is where it is there. A model that is built by another builder
    shares few keys with its namesake: of those, what both have is compared.

    Args:
        experiments: By what their runs are called.

    Returns:
        For each key, in the order of an experiment file, `key` and `values`: run ->
        its value; a run that has no such key is absent.
    """
    tables = {
        name: settings.model_dump(mode="json", exclude_none=True)
        for name, settings in experiments.items()
    }
    return [{"key": key, "values": values} for key, values in _walk("", tables)]


def _walk(
    place: str, tables: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys under `place` that differ, and what each run that has one has there."""
    own_names = place in NAMED
    of_builders = {repr(table.get("model")) for table in tables.values()}
    for key in dict.fromkeys(key for table in tables.values() for key in table):
        path = f"{place}.{key}" if place else key
        has = {name: table[key] for name, table in tables.items() if key in table}
        is_missing = len(has) < len(tables)
        if is_missing and len(of_builders) > 1:
            continue
        if own_names and is_missing:
            yield path, {name: _kind(table) for name, table in has.items()}
        if all(isinstance(value, dict) for value in has.values()):
            below = has if own_names else {name: has.get(name, {}) for name in tables}
            yield from _walk(path, below)
        elif is_missing or any(
            value != next(iter(has.values())) for value in has.values()
        ):
            yield path, has


def _kind(table: Mapping[str, Any]) -> str:
    """What a modality, a tower or a head is."""
    return table.get("model") or table["kind"]
