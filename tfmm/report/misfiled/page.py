"""The page of misfiled listings, drawn from their part of `report.json`."""

from pathlib import Path
from typing import Any

from tfmm import page
from tfmm.thumbnail import thumbnail


def draw(report: dict[str, Any], split: str, folder: Path) -> None:
    """Writes `misfiled.html`, which needs no other file.

    Args:
        report: `misfiled` of `report.json`.
        split: What is reported.
        folder: Where.
    """
    pictures = [
        {name: thumbnail(path) for name, path in entry["images"].items()}
        for entry in report["first"]
    ]
    page.write(
        folder / "misfiled.html",
        "tfmm.report.misfiled",
        "page.html.jinja",
        report=report,
        split=split,
        entries=list(zip(report["first"], pictures, strict=True)),
        percent=percent,
    )


def percent(share: float) -> str:
    """A share as a person reads it, with a space that no line breaks at.

    Example:
    >>> [percent(share).replace("\\xa0", " ") for share in (0.0312, 0.97, 0.9993)]
    ['3.1 %', '97 %', '99.9 %']
    """
    value = 100.0 * share
    places = 0 if 9.95 <= value < 99.5 else 1
    return f"{value:.{places}f}\xa0%"
