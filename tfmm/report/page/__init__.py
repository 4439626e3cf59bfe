"""The page of a report, drawn from its numbers and the products' image files."""

from pathlib import Path
from typing import Any

from tfmm import page
from tfmm.report.page import (
    automation,
    explaining,
    galleries,
    groups,
    headline,
    images,
    labels,
    measures,
    misfiled,
    models,
)

# In the order of what a person decides by them.
PARTS = (
    models.section,
    automation.section,
    images.section,
    labels.section,
    labels.confusion,
    groups.section,
    galleries.section,
    explaining.section,
    misfiled.section,
    measures.section,
    measures.learning,
    measures.calibration,
)


def draw(numbers: dict[str, Any], folder: Path) -> None:
    """Writes `index.html`, which needs no other file.

    Args:
        numbers: The content of `report.json`. What is absent there has no part on the
            page.
        folder: Where.
    """
    sections = [x for x in (part(numbers) for part in PARTS) if x is not None]
    page.write(
        folder / "index.html",
        "tfmm.report.page",
        "page.html.jinja",
        numbers=numbers,
        sentence=headline.sentence(numbers),
        tiles=headline.tiles(numbers),
        about=headline.about(numbers),
        sections=sections,
    )
