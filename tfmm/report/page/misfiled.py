"""The listings that look misfiled, of which `misfiled.html` shows more."""

from collections.abc import Mapping
from typing import Any

from tfmm.page import Block, Cell, Links, Section, Table, Words
from tfmm.report.tables import count, percent

FIRST = 20


def section(numbers: Mapping[str, Any]) -> Section | None:
    """How many, and the first of them."""
    found = numbers.get("misfiled")
    if not found:
        return None
    single = "missing_rate" not in found
    rates = f"{percent(found['wrong_rate'])} % of the labels may be wrong"
    if not single:
        rates += f", and {percent(found['missing_rate'])} % as many missing"
    first = found["first"][:FIRST]
    rows = [
        [
            Cell(entry["id"], entry["split"]),
            Cell(", ".join(entry["given"]), words=True),
            Cell(", ".join(x["label"] for x in entry["missing"]), words=True),
            Cell(f"{entry['surprise']:.1f}"),
            Cell(_text(entry), words=True),
        ]
        for entry in first
    ]
    columns = ["Product", "Filed under", "Likely", "Surprise", "Text"]
    blocks: list[Block] = [
        Words(
            f"{count(found['listed'])} of {count(found['products'])} listings are on "
            f"the list, {count(found['confident'])} of them with confidence; {rates}, "
            "an estimate that counts what the models get wrong too. Surprise: how "
            "little the model expected the label as it stands, in nats."
        ),
        Table(f"The first {len(first)} listings that look misfiled", columns, rows),
    ]
    return Section(
        "misfiled",
        "Listings that look misfiled",
        "Products that a model that never learned from them would have filed "
        "elsewhere, the most surprising first: check these by hand.",
        [
            *blocks,
            Links(
                {
                    "misfiled.html": "The first, with pictures",
                    "misfiled.csv": "The whole list",
                }
            ),
        ],
    )


def _text(entry: Mapping[str, Any]) -> str:
    text = " · ".join(x.replace("\t", " · ") for x in entry["texts"].values() if x)
    return text if len(text) <= 120 else text[:119] + "…"
