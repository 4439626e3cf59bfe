"""Findings about the images of one modality."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmm.audit import shared, twins
from tfmm.audit.findings import Finding, Row, about, fix_if_many, rate, rows_of
from tfmm.audit.pictures import UPRIGHT, Checked, Pictures
from tfmm.audit.twins import Twins
from tfmm.catalog import Catalog

TINY_PX = 32  # shorter side
SINGLE_COLOR_RANGE = 8  # of 255, in every channel


def find(
    catalog: Catalog, name: str, checked: Checked, seen: Pictures, image_size: int
) -> tuple[list[Finding], dict[str, float], dict[str, Any], Twins]:
    """What there is to say of an image modality.

    Args:
        catalog: The checked catalog.
        name: The modality.
        checked: What cannot be used.
        seen: What was seen of the others.
        image_size: Side in pixels that the largest of its towers reads; 0 if none.

    Returns:
        Findings, also those of nothing; the rates that limits look at; what the page
        says of the modality; and who shares a picture, placeholders apart.
    """
    facts = seen.facts
    used = facts["used"]
    of = int(used.sum())
    shorter = np.minimum(facts["width"], facts["height"])
    single = used & (facts["spread"] <= SINGLE_COLOR_RANGE)
    alike = twins.of_pictures(facts["code"], seen.small, used & ~single)
    placeholder = shared.placeholders(catalog, alike)
    real = alike.without(placeholder)
    twin_finding, twin_rate = shared.twins_in_test(catalog, real, name, "image")
    missing = (catalog.images[name] == "") & ~np.isin(
        np.arange(len(catalog)), list(checked.bad)
    )
    findings = [
        _unreadable(catalog, name, checked, of),
        twin_finding,
        shared.placeholder_finding(catalog, alike, name, "image"),
        _simple(
            *("single_color_images", catalog, name, single, of),
            title="of a single colour",
            advice="Nothing to see: find the picture, or leave the cell empty.",
        ),
        _simple(
            *("rotated_images", catalog, name, facts["orientation"] != UPRIGHT, of),
            title="on their side or their head, by their EXIF tag",
            advice="Only the EXIF tag of these files says which side is up. Browsers "
            "turn such photographs, TensorFlow does not, neither in training nor when "
            "served. Turn the pixels and drop the tag, for example with "
            "PIL.ImageOps.exif_transpose, and do the same where products come in.",
            detail=lambda _, row: f"EXIF orientation {facts['orientation'][row]}",
        ),
        _simple(
            *("tiny_images", catalog, name, (shorter > 0) & (shorter < TINY_PX), of),
            title=f"a side under {TINY_PX} pixels",
            advice="Thumbnails of thumbnails: find the originals, or leave them out.",
            detail=lambda _, row: f"{facts['width'][row]} x {facts['height'][row]}",
        ),
        _simple(
            *("enlarged_images", catalog, name),
            *((shorter > 0) & (shorter < image_size), of),
            level="note",
            title=f"a side under image_size = {image_size}",
            advice="They are enlarged. A smaller image_size costs less time and loses "
            "nothing there.",
            detail=lambda _, row: f"{facts['width'][row]} x {facts['height'][row]}",
        ),
        *shared.sharing(catalog, real, name, "image"),
        Finding(
            *("missing_images", name, "note", "no image"),
            *(int(missing.sum()), len(catalog), "products"),
            "Heads answer without it, by the other modalities.",
            rows_of(catalog, np.flatnonzero(missing)),
        ),
    ]
    useless = int((single | placeholder).sum())
    rates = {"image_twin_rate": twin_rate, "placeholder_rate": rate(useless, of)}
    return findings, rates, _about(facts, of), real


def _unreadable(catalog: Catalog, name: str, checked: Checked, of: int) -> Finding:
    count = len(checked.bad)
    rows = [
        Row(str(catalog.ids[row]), (), reason) for row, reason in checked.bad.items()
    ]
    return Finding(
        *("unreadable_images", name, fix_if_many(count, of + count)),
        "cannot be used",
        *(count, of + count, "images"),
        "Training takes these products as having no image. catalog/bad_images.csv has "
        "the paths; max_bad_image_rate says how many are too many.",
        rows,
    )


def _simple(
    kind: str,
    catalog: Catalog,
    name: str,
    found: np.ndarray,
    of: int,
    *,
    title: str,
    advice: str,
    level: str = "",
    detail=about,
) -> Finding:
    """A finding about some of the images that can be used."""
    rows = np.flatnonzero(found)
    level = level or fix_if_many(len(rows), of)
    named = rows_of(catalog, rows, detail)
    return Finding(kind, name, level, title, len(rows), of, "images", advice, named)


def _about(facts: np.ndarray, of: int) -> dict[str, Any]:
    known = facts[facts["width"] > 0]
    about: dict[str, Any] = {"kind": "image", "present": of}
    if len(known):
        shorter = np.minimum(known["width"], known["height"])
        about["shorter_side_px"] = _quantiles(shorter)
        about["formats"] = dict(Counter(known["format"].tolist()).most_common())
    return about


def _quantiles(values: Sequence[int] | np.ndarray) -> dict[str, int]:
    """Where the 5th, 50th and 95th of a hundred lie."""
    found = np.quantile(values, [0.05, 0.5, 0.95], method="nearest")
    return dict(zip(("p5", "median", "p95"), map(int, found), strict=True))
