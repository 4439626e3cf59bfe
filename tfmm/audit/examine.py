"""All findings about a catalog, as files in the run; and the limits."""

from typing import Any

import numpy as np

from tfmm.audit import images, labels, shared, texts
from tfmm.audit.checks import Inspection, needed_splits
from tfmm.audit.findings import LEVELS, Finding, percent, rate, rows_of
from tfmm.audit.keep import write_csv
from tfmm.audit.page import draw
from tfmm.audit.twins import Twins
from tfmm.catalog import Catalog
from tfmm.errors import CatalogError
from tfmm.experiment import Experiment
from tfmm.progress import say
from tfmm.run import Run, write_json
from tfmm.settings import SPLITS

NUM_LINES = 5  # findings that are printed

# What each limit of `[catalog]` looks at.
LIMITED = {
    "image_twin_rate": "test products share their picture with train, fusion or "
    "validation",
    "text_twin_rate": "test products share their text with train, fusion or validation",
    "placeholder_rate": "images are placeholders or of a single colour",
    "empty_rate": "products hold nothing that a model could look at",
}


def examine(run: Run, settings: Experiment, found: Inspection) -> None:
    """Finds what is wrong with a catalog, writes it into the run, and stops at limits.

    An audit of this very catalog that the run holds is not made again.

    Args:
        run: Where `audit/` is written.
        settings: The experiment.
        found: What `inspect` returned.

    Raises:
        CatalogError: If more is wrong than a limit of `[catalog]` allows. The page is
            there then, to see what.
    """
    report = found.before
    if report is None:
        findings, groups, report = _find(settings, found)
        write_csv(
            run.audit / "findings.csv",
            ("finding", "modality", "id", "with", "detail"),
            (
                (x.name, x.modality, row.id, "|".join(row.others), row.detail)
                for x in findings
                for row in x.rows
            ),
        )
        ids = found.catalog.ids
        write_csv(
            run.audit / "groups.csv", ("id", "group"), zip(ids, groups, strict=True)
        )
        draw(report, found.catalog, run.audit)
        write_json(run.audit_file, report)  # last: it says that the others are there
        _say_worst(report)
    say(f"audit: {run.audit / 'index.html'}")
    for modality, rates in report["rates"].items():
        for key, share in rates.items():
            limit = getattr(settings.catalog, f"max_{key}")
            if share > limit:
                of = f"{modality}: " if modality else ""
                raise CatalogError(
                    f"{found.catalog.path}: {of}{share:.1%} of the "
                    f"{LIMITED[key]}, more than max_{key} = {limit:g} allows; see "
                    f"{run.audit / 'index.html'}"
                )


def _find(
    settings: Experiment, found: Inspection
) -> tuple[list[Finding], np.ndarray, dict[str, Any]]:
    """All findings, the worst first; groups of twins; and what `audit.json` holds."""
    catalog = found.catalog
    paths = settings.catalog.hierarchy == "consistent"
    separator = settings.catalog.path_separator if paths else ""
    findings = labels.find(catalog, needed_splits(settings), separator)
    rates: dict[str, dict[str, float]] = {}
    twins: list[Twins] = []
    about: dict[str, dict[str, Any]] = {}
    for name, modality in settings.modalities.items():
        if modality.kind == "image":
            towers = (x for x in settings.towers.values() if x.modality == name)
            sizes = [getattr(x, "image_size", 0) for x in towers]
            some, rates[name], about[name], alike = images.find(
                *(catalog, name, found.checked[name], found.pictures[name]),
                image_size=max(sizes, default=0),
            )
        elif modality.kind == "text":
            some, rates[name], about[name], alike = texts.find(catalog, name)
            leak, about[name]["label_names"] = labels.leaks(catalog, name, separator)
            some.append(leak)
        else:
            some, about[name] = texts.find_in_table(catalog, name)
            alike = None
        twins += [] if alike is None else [alike]
        findings += some
    empty = _empty(catalog)
    rates[""] = {"empty_rate": rate(empty.count, empty.of)}
    findings.append(empty)
    findings.sort(key=lambda x: (LEVELS.index(x.level), -rate(x.count, x.of)))
    groups = shared.joined_groups(catalog, twins)
    _, sizes = np.unique(groups.astype(str), return_counts=True)
    report = {
        "fingerprint": found.key,
        "catalog": str(catalog.path),
        "task": catalog.task,
        "products": len(catalog),
        "labels": len(catalog.label_names),
        "splits": {split: len(catalog.rows(split)) for split in SPLITS},
        "groups": {
            "given": len(set(catalog.groups.tolist())),
            "joined": len(sizes),
            "largest": int(sizes.max()),
        },
        "modalities": about,
        "rates": rates,
        "findings": [x.as_json() for x in findings if x.count],
        "not_found": [
            {
                "name": x.name,
                "modality": x.modality,
                "unit": x.unit,
                "title": x.title,
            }
            for x in findings
            if not x.count
        ],
        "images": {
            name: {"digest": x.digest, "bad": list(x.bad.items())}
            for name, x in found.checked.items()
        },
    }
    return findings, groups, report


def _empty(catalog: Catalog) -> Finding:
    everything = np.arange(len(catalog))
    names = (*catalog.texts, *catalog.images)
    present = [catalog.present(name, everything) for name in names]
    rows = np.flatnonzero(~np.any(present, axis=0))
    return Finding(
        *("empty_products", "", "fix" if len(rows) else "note"),
        "nothing that a model could look at",
        *(len(rows), len(catalog), "products"),
        "They get the label shares of the training products, whatever they are.",
        rows_of(catalog, rows),
    )


def _say_worst(report: dict[str, Any]) -> None:
    worst = [x for x in report["findings"] if x["level"] != "note"]
    for finding in worst[:NUM_LINES]:
        of = f"{finding['modality']}: " if finding["modality"] else ""
        share = percent(finding["count"], finding["of"])
        say(
            f"audit: {finding['level']}: {of}{finding['count']} of {finding['of']} "
            f"{finding['unit']} ({share}): {finding['title']}"
        )
    if len(worst) > NUM_LINES:
        say(f"audit: and {len(worst) - NUM_LINES} more findings")
