"""Puts a known share of a catalog's products under a wrong label.

    python tools/flip_labels.py HPARAMS.toml --catalog catalog.csv --rate 0.03 \\
        --to flipped.csv --key flips.csv

reads the catalog as `tfmm.fit` does and draws a share of the products that have a
label. Each gets one label changed into another, drawn from all labels of the
experiment that it does not have: its only label (single_label), or one of its labels
(multi_label). The key lists what was changed. The same seed draws the same products.

A run fitted on `flipped.csv` (`--images` names the folder of the images) should find
them again; `tools/flips_found.py` tells how well.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tfmm import experiment, tables
from tfmm.catalog import Catalog
from tfmm.catalog import load as load_catalog
from tfmm.errors import ExperimentError, command_line
from tfmm.options import CatalogFile, Changes, Hparams
from tfmm.run import replacing

KEY_COLUMNS = ("id", "was", "is")


def draw(catalog: Catalog, rate: float, seed: int) -> dict[int, tuple[str, str]]:
    """Which products to change, and how.

    Args:
        catalog: Whose labels count; products that are left out keep theirs.
        rate: Share of the products to change, in (0, 1).
        seed: Of the draw.

    Returns:
        Row -> the label that goes and the one that comes, in the order of rows.
    """
    generator = np.random.default_rng(seed)
    rows = np.flatnonzero(catalog.split != "")
    chosen = generator.choice(rows, round(rate * len(rows)), replace=False)
    names = catalog.label_names
    flips = {}
    for row in np.sort(chosen):
        own = catalog.label_indices[row]
        others = np.setdiff1d(np.arange(len(names)), own)
        if len(others):
            was, new = generator.choice(own), generator.choice(others)
            flips[int(row)] = names[was], names[new]
    return flips


def flipped(cell: Any, was: str, new: str, separator: str) -> str:
    """A cell of labels with one of them changed; written as text, not as a list.

    Example:
    >>> flipped("lamp|floor", "lamp", "rug", "|")
    'rug|floor'
    >>> flipped('["lamp", "floor"]', "floor", "rug", "json")
    '["lamp", "rug"]'
    """
    as_json = separator == "json"
    if isinstance(cell, str):
        cell = json.loads(cell) if as_json else cell.split(separator)
    labels = [cell] if isinstance(cell, str) else cell
    labels = [new if label.strip() == was else label for label in labels]
    if not as_json:
        return separator.join(labels)
    return json.dumps(labels, ensure_ascii=False)


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with replacing(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8", newline="")


def flip_labels(
    hparams: Hparams,
    catalog: CatalogFile,
    to: Annotated[Path, typer.Option(help="CSV file to write the catalog into.")],
    key: Annotated[Path, typer.Option(help="CSV file to write the changes into.")],
    rate: Annotated[
        float, typer.Option(help="Share of the products, above 0 and below 1.")
    ] = 0.03,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    set_: Changes = None,
) -> None:
    """Writes a catalog with some labels changed at random, and which."""
    if not 0 < rate < 1:
        raise ExperimentError(f"--rate: expected a share above 0 and below 1: {rate}")
    for path in (to, key):
        if path.suffix != ".csv":
            raise ExperimentError(f"expected a file ending in .csv. Received: {path}")
    settings = experiment.load(hparams, set_ or [])
    options = settings.catalog
    if options.hierarchy != "none":
        raise ExperimentError(
            f"{hparams}: expected labels that do not bring others along. Received: "
            f"hierarchy = {options.hierarchy!r}"
        )
    products = load_catalog(catalog, settings)
    flips = draw(products, rate, seed)
    table = tables.read(catalog)
    columns = {
        name: list(cells) if name == options.labels else table.text_column(name)
        for name, cells in table.columns.items()
    }
    labels = columns[options.labels]
    separator = options.label_separator
    single = options.task == "single_label" and separator != "json"
    for row, cell in enumerate(labels):
        was, new = flips.get(row, ("", ""))
        if single and isinstance(cell, str):
            labels[row] = new or cell  # a single label may hold the separator
        else:
            labels[row] = flipped(cell, was, new, separator)
    _write(to, list(columns), list(zip(*columns.values(), strict=True)))
    listed = [(str(products.ids[row]), was, new) for row, (was, new) in flips.items()]
    _write(key, KEY_COLUMNS, listed)
    print(f"{to}: {len(flips)} of {len(products)} products changed")


if __name__ == "__main__":
    command_line(flip_labels, "tools/flip_labels.py")
