"""What runs were made of, as sections of a comparison's page."""

import json
from collections.abc import Mapping
from typing import Any

from tfmm.page import Block, Cell, Section, Table, Words
from tfmm.report.tables import count

LONGEST = 60  # letters of a setting that is shown


def settings(numbers: Mapping[str, Any]) -> Section:
    """Which settings differ, and which versions."""
    blocks: list[Block] = []
    runs = list(numbers["runs"])
    if numbers["settings"]:
        rows = [
            [
                Cell(entry["key"]),
                *(Cell(_written(entry["values"], run), words=True) for run in runs),
            ]
            for entry in numbers["settings"]
        ]
        blocks.append(Table("Settings that differ", ["Setting", *runs], rows))
    else:
        blocks.append(Words("The experiments are the same, key by key."))
    if numbers["versions"]:
        rows = [
            [Cell(name), *(Cell(values.get(run, ""), words=True) for run in runs)]
            for name, values in numbers["versions"].items()
        ]
        blocks += [
            Words("Versions that differ", heading=True),
            Table("Versions that differ", ["Library", *runs], rows),
        ]
    return Section(
        "settings",
        "Settings that differ",
        "What may explain the differences; everything else is the same in all runs.",
        blocks,
    )


def runs(numbers: Mapping[str, Any]) -> Section:
    """The runs: where they are, and what they were trained and tested on."""
    found = numbers["runs"]
    splits = dict.fromkeys(x for run in found.values() for x in run["split_products"])
    columns = ["Run", f"Products of {numbers['split']}", "Labels"]
    columns += [f"In {split}" for split in splits]
    columns += ["Best model", "Catalog"]
    rows = []
    for name, run in found.items():
        row = [Cell(name, run["path"] if run["path"] != name else "")]
        row += [Cell(count(run[key])) for key in ("products", "labels")]
        for split in splits:
            known = split in run["split_products"]
            row.append(Cell(count(run["split_products"][split]) if known else ""))
        row.append(Cell(run["best"], words=True))
        row.append(Cell(run["catalog"], f"file {run['table'][:12]}", words=True))
        rows.append(row)
    return Section(
        "runs",
        "The runs",
        "What each was trained and tested on. Catalogs that are the same have the same "
        "fingerprint.",
        [Table("The runs", columns, rows)],
    )


def _written(values: Mapping[str, Any], run: str) -> str:
    """A setting as an experiment file has it; empty if it is not there."""
    if run not in values:
        return ""
    value = values[run]
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\u2026"
