"""The report of a monitoring: as a document for machines, as a table for people."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from serving.drift import stability
from serving.drift.reference import Reference
from serving.drift.said import readable, sentence
from serving.drift.stability import Comparison, compare
from serving.drift.tally import Tally

# The worst first.
ORDER = (
    stability.DRIFT,
    stability.SOMEWHAT,
    stability.TOO_FEW,
    stability.NONE,
    stability.NOT_MEASURED,
)


def comparisons(live: Tally, reference: Reference) -> list[Comparison]:
    """Every measure compared, the worst verdict and the greatest index first."""
    found = [compare(m, live.counts[k]) for k, m in reference.measures.items()]
    return sorted(found, key=lambda x: (ORDER.index(x.verdict), -(x.index or 0.0)))


def document(
    live: Tally, windows: Mapping[datetime, Tally], reference: Reference
) -> dict[str, Any]:
    """Numbers and words of a comparison, for JSON.

    Args:
        live: `Tally` of all live products.
        windows: dict from the start of a window to its `Tally`; may be empty.
        reference: `Reference`.

    Returns:
        Dict of `drifted`, keys of measures, the worst first; `measures`, a list of
        dicts in the same order; `windows`, a list of dicts by time.
    """
    found = comparisons(live, reference)
    return {
        "drifted": [x.measure.key for x in found if x.verdict == stability.DRIFT],
        "measures": [_measure(x, live, reference) for x in found],
        "windows": [
            {
                "start": start.isoformat().replace("+00:00", "Z"),
                "requests": part.requests,
                "products": part.products,
                "measures": {
                    x.measure.key: {
                        "products": x.products,
                        "index": x.index,
                        "verdict": x.verdict,
                    }
                    for x in comparisons(part, reference)
                },
            }
            for start, part in sorted(windows.items())
        ],
    }


def _measure(found: Comparison, live: Tally, reference: Reference) -> dict[str, Any]:
    measure = found.measure
    changed = found.verdict in (stability.DRIFT, stability.SOMEWHAT)
    bins = (
        {"values": list(measure.values)}
        if measure.values
        else {"edges": list(measure.edges)}
    )
    numbers: dict[str, Any] = {}
    if not measure.values:
        numbers = {"mean": live.mean(measure.key), "reference_mean": measure.mean}
    if measure.name == "unknown_words":
        numbers["share"] = live.unknown_share(measure.key)
        numbers["reference_share"] = measure.share
    if measure.name == "label":
        numbers["catalog_shares"] = list(reference.label_shares.values())
    return {
        "key": measure.key,
        "name": measure.name,
        "modality": measure.modality,
        "verdict": found.verdict,
        "index": found.index,
        "by_chance": found.chance,
        "p_value": found.p_value,
        "products": found.products,
        "reference_products": measure.products,
        "reference_of": measure.of,
        **bins,
        "counts": list(found.counts),
        "reference_counts": list(measure.counts),
        **numbers,
        "said": sentence(found, live, reference) if changed else None,
    }


def print_report(console: Any, result: Mapping[str, Any]) -> None:
    """Prints what `document` returned as a table and sentences.

    Args:
        console: `rich.console.Console`.
        result: dict.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure", no_wrap=True)
    for title in ("products", "reference", "index", "by chance"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in result["measures"]:
        table.add_row(
            readable(row["key"]),
            f"{row['products']:,}",
            f"{row['reference_products']:,}",
            "" if row["index"] is None else f"{row['index']:.3f}",
            "" if row["by_chance"] is None else f"{row['by_chance']:.3f}",
            row["verdict"],
            style=STYLES.get(row["verdict"]),
        )
    console.print(table)
    for row in result["measures"]:
        if row["said"] is not None:
            console.print(f"{row['verdict']}: {row['said']}", highlight=False)
    if result["windows"]:
        _print_windows(console, result)


STYLES = {
    stability.DRIFT: "bold red",
    stability.SOMEWHAT: "yellow",
    stability.TOO_FEW: "dim",
    stability.NOT_MEASURED: "dim",
}


def _print_windows(console: Any, result: Mapping[str, Any]) -> None:
    """A line for each window, with the indices of the measures that ever changed."""
    from rich import box
    from rich.table import Table

    worst = [
        row["key"]
        for row in result["measures"]
        if any(
            part["measures"][row["key"]]["verdict"]
            in (stability.DRIFT, stability.SOMEWHAT)
            for part in result["windows"]
        )
    ]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("from (UTC)", no_wrap=True)
    table.add_column("products", justify="right", no_wrap=True)
    for key in worst:
        table.add_column(readable(key), justify="right")
    for part in result["windows"]:
        cells = []
        for key in worst:
            found = part["measures"][key]
            mark = MARKS.get(found["verdict"], "")
            cells.append(
                "" if found["index"] is None else f"{found['index']:.2f}{mark}"
            )
        table.add_row(part["start"][:16], f"{part['products']:,}", *cells)
    console.print(table)
    if worst:
        marks = ", ".join(
            f"{mark.strip()} {verdict}" for verdict, mark in MARKS.items()
        )
        console.print(f"index by window: {marks}", highlight=False)
    else:
        console.print("no measure changed in any window", highlight=False)


MARKS = {stability.DRIFT: " !!", stability.SOMEWHAT: " !", stability.TOO_FEW: " ?"}
