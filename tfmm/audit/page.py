"""The page of an audit, drawn from `audit.json` and the images of its examples."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from tfmm import page
from tfmm.audit.findings import percent
from tfmm.catalog import Catalog
from tfmm.image import read_file

THUMBNAIL_PX = 96
WHITE = (255, 255, 255)
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
                    known[name] = _thumbnail(paths[row_of[name]])
    return found


def _thumbnail(path: str) -> str:
    """A small JPEG as a data URI, `""` if there is no image."""
    encoded, problem = read_file(path)
    if not encoded or problem:
        return ""
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            opened.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
            opened.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
            # As the model sees it: on white, and not turned by its EXIF tag.
            pixels = np.asarray(opened.convert("RGBA"))
    except (OSError, UnidentifiedImageError):
        return ""
    ground = Image.new("RGBA", pixels.shape[1::-1], (*WHITE, 255))
    ground.alpha_composite(Image.fromarray(pixels))
    file = io.BytesIO()
    ground.convert("RGB").save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
