"""What a run keeps of its catalog."""

import base64
import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfmm import outputs, products
from tfmm.catalog import Catalog
from tfmm.errors import RunError
from tfmm.run import Run, replacing, write_json
from tfmm.settings import SPLITS

NUM_SAMPLES = 8
NUM_TEXTS = 5_000  # test products whose texts are kept


def write(run: Run, catalog: Catalog) -> None:
    """Writes the labels, the splits and what was left out into the run."""
    with replacing(run.labels_file) as file:
        lines = "".join(f"{name}\n" for name in catalog.label_names)
        file.write_text(lines, encoding="utf-8")
    splits = zip(catalog.ids, catalog.split, strict=True)
    write_csv(run.splits_file, ("id", "split"), splits)
    write_left_out(run.catalog, catalog)
    write_json(run.samples_file, _samples(catalog))
    sizes = zip(catalog.ids, catalog.split, *catalog.sizes.values(), strict=True)
    write_csv(run.sizes_file, ("id", "split", *catalog.sizes), sizes)
    write_json(run.test_texts_file, _test_texts(catalog))
    products.write(run, catalog)
    for split in SPLITS:
        write_targets(run, catalog, split, split)


def _samples(catalog: Catalog) -> list[dict]:
    """Raw inputs of a few test products, one that lacks something among them.

    An export keeps them, with their stored answers, as its golden requests.
    """
    rows = catalog.rows("test")
    names = (*catalog.texts, *catalog.images)
    whole = np.all([catalog.present(name, rows) for name in names], axis=0)
    spread = np.linspace(0, len(rows) - 1, min(NUM_SAMPLES, len(rows))).astype(int)
    chosen = {*spread.tolist(), *np.flatnonzero(whole)[:1], *np.flatnonzero(~whole)[:1]}
    samples = []
    for position in sorted(map(int, chosen)):
        row = rows[position]
        values = {name: texts[row].encode() for name, texts in catalog.texts.items()}
        for name, paths in catalog.images.items():
            values[name] = Path(paths[row]).read_bytes() if paths[row] else b""
        inputs = {k: base64.b64encode(v).decode() for k, v in values.items()}
        samples.append({"id": str(catalog.ids[row]), "row": position, "inputs": inputs})
    return samples


def _test_texts(catalog: Catalog) -> dict[str, list[str]]:
    """Modality -> texts of the test products, or of `NUM_TEXTS` spread over them.

    No tower has met their words, so an export can tell how many are new to it.
    """
    rows = catalog.rows("test")
    rows = rows[np.linspace(0, len(rows) - 1, min(NUM_TEXTS, len(rows))).astype(int)]
    return {
        name: texts[rows].tolist()
        for name, texts in catalog.texts.items()
        if name not in catalog.num_cells
    }


@dataclass(frozen=True)
class Sizes:
    """How much a catalog's products have of each modality, as they were given.

    Attributes:
        ids: `(n,)` strings.
        split: `(n,)` strings, `""` for a product that was left out.
        of: Modality name -> int64 `(n,)`: characters of texts, bytes of image files,
            0 where there is none.
    """

    ids: np.ndarray
    split: np.ndarray
    of: dict[str, np.ndarray]


def read_sizes(run: Run) -> Sizes:
    """What `write` kept of the sizes; `RunError` if it is missing or damaged."""
    path = run.sizes_file
    (_, _, *names), rows = _read_csv(path)
    try:
        ids, split, *columns = zip(*rows, strict=True)
        of = {
            name: np.array(column, np.int64)
            for name, column in zip(names, columns, strict=True)
        }
    except ValueError as error:
        raise RunError(f"{path}: damaged: {error}; run tfmm.fit --resume") from None
    return Sizes(np.array(ids, object), np.array(split, object), of)


def read_bad_images(run: Run) -> dict[tuple[str, str], str]:
    """(id, modality) -> why the image cannot be used."""
    _, rows = _read_csv(run.catalog / "bad_images.csv")
    return {(product, modality): reason for product, modality, _, reason in rows}


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; run tfmm.fit --resume") from None
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{path}: damaged: {error}; run tfmm.fit --resume") from None
    if any(len(row) != len(header) for row in rows):
        raise RunError(f"{path}: damaged: rows differ; run tfmm.fit --resume")
    return header, rows


def write_left_out(folder: Path, catalog: Catalog) -> None:
    """Lists the products and images that nobody could use, with the reasons."""
    thinned_out = dict.fromkeys(catalog.thinned_out, "data_rate")
    rows = (catalog.left_out | thinned_out).items()
    write_csv(folder / "left_out.csv", ("id", "reason"), rows)
    write_csv(
        folder / "bad_images.csv",
        ("id", "modality", "path", "reason"),
        ((x.id, x.modality, x.path, x.reason) for x in catalog.bad_images),
    )


def write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    """Writes a table in one move."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with replacing(path) as partial_file:
        partial_file.write_text(text.getvalue(), encoding="utf-8")


def write_targets(run: Run, catalog: Catalog, split: str, name: str) -> None:
    """Writes the targets of a catalog's split into the store, as split `name`."""
    rows = catalog.rows(split)
    targets = catalog.targets(rows)
    outputs.write_targets(run.outputs, name, targets, catalog.fingerprint())
    outputs.write_groups(run.outputs, name, catalog.groups[rows])
