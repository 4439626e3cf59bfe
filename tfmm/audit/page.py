"""The page of an audit, drawn from `audit.json` and the images of its examples."""

from pathlib import Path
from typing import Any

from tfmm import page
from tfmm.audit.findings import percent
from tfmm.catalog import Catalog
from tfmm.thumbnail import thumbnail

LEVELS = {
    "fix": "Put this right before training",
    "look": "Look at this",
    "note": "Good to know",
}


def draw(report: dict[str, Any], catalog: Catalog, folder: Path) -> None:
    """Writes `index.html`, which needs no other file.

    Args:
        report: The content of `audit.json`.
        catalog: Whose images the examples show.
        folder: Where.
    """
    page.write(
        folder / "index.html",
        "tfmm.audit",
        "page.html.jinja",
        report=report,
        levels=LEVELS,
        by_level={
            level: [x for x in report["findings"] if x["level"] == level]
            for level in LEVELS
        },
        pictures=_pictures(report, catalog),
        percent=percent,
    )


def _pictures(report: dict[str, Any], catalog: Catalog) -> dict[str, dict[str, str]]:
    """Of each image modality, the data URIs of the examples' images, by id."""
    row_of = {str(name): row for row, name in enumerate(catalog.ids)}
    found: dict[str, dict[str, str]] = {}
    for finding in report["findings"]:
        paths = catalog.images.get(finding["modality"])
        if paths is None:
            continue
        known = found.setdefault(finding["modality"], {})
        for example in finding["examples"]:
            for name in (example["id"], *example["with"]):
                if name not in known:
                    known[name] = thumbnail(paths[row_of[name]])
    return found
