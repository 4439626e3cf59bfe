"""A table file -> a checked Catalog, its label space and its splits."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tfmm import tables
from tfmm.errors import CatalogError
from tfmm.experiment import Experiment
from tfmm.hierarchy import with_ancestors
from tfmm.run import fingerprint
from tfmm.settings import Modality
from tfmm.splits import splits, thinned
from tfmm.tables import Table

CELL_SEPARATOR = "\t"  # between the cells of a modality of kind `table`


@dataclass(frozen=True)
class BadImage:
    """An image that a product names and that nobody can use."""

    row: int
    id: str
    modality: str
    path: str
    reason: str


@dataclass(frozen=True)
class Catalog:
    """A checked table of `n` products.

    Attributes:
        path: The file it was read from.
        sha256: Of that file.
        task: `single_label` or `multi_label`.
        ids: `(n,)` strings, each once.
        texts: Modality name -> `(n,)` strings, `""` where missing; rows of tables too.
        images: Modality name -> `(n,)` absolute paths, `""` where missing.
        label_names: The `C` labels, sorted.
        label_indices: For each product its labels, as indices.
        groups: `(n,)` strings: products of one group share a split and are drawn
            together in intervals; a product without one is a group of its own.
        split: `(n,)` strings, `""` for a product that is left out.
        left_out: id -> why the product is neither trained on nor measured.
        thinned_out: ids of the products that `data_rate` keeps out of train and fusion.
        bad_images: Images that were named and turned out unusable.
        images_digest: Hash of the bytes of all images, once they were checked.
        split_groups: Groups that a split column spreads over several splits.
        unknown_labels: Labels met that a finished run, whose labels count, lacks.
        num_cells: Modality name -> cells of a row, for those of kind `table`.
        sizes: Modality name -> int64 `(n,)`: characters of the texts and bytes of the
            image files as they were given, 0 where there is none; filled by
            `tfmm.audit.check_inputs`, before it makes what is of no use missing.
    """

    path: Path
    sha256: str
    task: str
    ids: np.ndarray
    texts: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    label_names: tuple[str, ...]
    label_indices: tuple[np.ndarray, ...]
    groups: np.ndarray
    split: np.ndarray
    left_out: dict[str, str]
    thinned_out: tuple[str, ...] = ()
    bad_images: tuple[BadImage, ...] = ()
    images_digest: str = ""
    split_groups: tuple[str, ...] = ()
    unknown_labels: tuple[str, ...] = ()
    num_cells: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str) -> np.ndarray:
        """Indices `(m,)` of the products of a split, in the file's order."""
        return np.flatnonzero(self.split == split)

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """What a model should say of products that have labels.

        Returns:
            float32 `(m, C)` of zeros and ones for `multi_label`; int32 `(m,)` of
            label indices for `single_label`.
        """
        if self.task == "single_label":
            return np.array([self.label_indices[row][0] for row in rows], np.int32)
        targets = np.zeros((len(rows), len(self.label_names)), np.float32)
        for position, row in enumerate(rows):
            targets[position, self.label_indices[row]] = 1.0
        return targets

    def present(self, modality: str, rows: np.ndarray) -> np.ndarray:
        """bool `(m,)`: whether the products have this modality."""
        values = (self.texts | self.images)[modality]
        return np.array([bool(values[row]) for row in rows], bool)

    def present_rows(self, modality: str, split: str) -> np.ndarray:
        """The rows of a split that have a modality; `CatalogError` if none has."""
        rows = self.rows(split)
        rows = rows[self.present(modality, rows)]
        if not len(rows):
            raise CatalogError(f"{self.path}: no product of {split!r} has a {modality}")
        return rows

    def fingerprint(self) -> str:
        """Changes with the file, its images, the ids, the labels or the splits."""
        return fingerprint(
            self.sha256,
            self.images_digest,
            self.ids.tolist(),
            self.label_names,
            [indices.tolist() for indices in self.label_indices],
            self.split.tolist(),
            *([self.groups.astype(str).tolist()] if self._has_groups else []),
        )

    @property
    def _has_groups(self) -> bool:
        return not np.array_equal(self.groups.astype(str), self.ids.astype(str))

    def without_images(self, bad: Sequence[BadImage], digest: str) -> "Catalog":
        """The same catalog with unusable images turned into missing ones."""
        images = {name: paths.copy() for name, paths in self.images.items()}
        for image in bad:
            images[image.modality][image.row] = ""
        return replace(self, images=images, bad_images=tuple(bad), images_digest=digest)


def load(
    path: Path,
    settings: Experiment,
    images: Path | None = None,
    label_names: Sequence[str] | None = None,
) -> Catalog:
    """Reads and checks a catalog; images are not opened here.

    Args:
        path: CSV, TSV, JSON lines or Parquet, by its suffix.
        settings: The experiment that maps the columns.
        images: Folder that image paths are relative to; the file's own by default.
        label_names: A finished run's labels. Then the labels are those, others are
            ignored, and every labelled product is put into the split `test`.

    Returns:
        The catalog.

    Raises:
        CatalogError: One line with file, row and column: a missing column, an
            empty or duplicate id, an unknown split, an empty file, a wrong
            encoding, fewer than two labels, too many products without a label.
    """
    path = Path(path)
    table = tables.read(path)
    options = settings.catalog
    ids = _ids(table, options.id)
    texts, paths = modalities(table, settings.modalities, images or path.parent)
    given = _labels(table, settings)
    if label_names is None:
        names = _label_space(given, options.min_products_per_label)
        if len(names) < 2:
            raise CatalogError(
                f"{path}: fewer than two labels with at least "
                f"{options.min_products_per_label} products in column "
                f"{options.labels!r}. Received: {list(names)}"
            )
    else:
        names = tuple(label_names)
    index = {name: position for position, name in enumerate(names)}
    indices = tuple(
        np.array(sorted({index[name] for name in row if name in index}), np.int32)
        for row in given
    )
    left_out = {
        row: "no label that is kept" if given[row] else "no label"
        for row, found in enumerate(indices)
        if not len(found)
    }
    rate = len(left_out) / len(ids)
    if rate > options.max_unlabelled_rate:
        row = min(left_out)
        raise CatalogError(
            f"{path}: {len(left_out)} of {len(ids)} products have no usable label "
            f"(the first: {table.where(row)}), more than max_unlabelled_rate = "
            f"{options.max_unlabelled_rate:g} allows"
        )
    groups = _groups(table, settings, ids)
    if label_names is None:
        split, split_groups = splits(table, settings.catalog, groups)
    else:
        split, split_groups = np.full(len(ids), "test", dtype="<U10"), ()
    split[list(left_out)] = ""
    thinned_out: list[str] = []
    if label_names is None and options.data_rate < 1.0:
        for name in ("train", "fusion"):
            rows = np.flatnonzero(split == name)
            kept = thinned([indices[x] for x in rows], groups[rows], options.data_rate)
            split[rows[~kept]] = ""
            thinned_out += ids[rows[~kept]].tolist()
    unknown = {name for row in given for name in row if name not in index}
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Catalog(
        path=path,
        sha256=sha256,
        task=options.task,
        ids=ids,
        texts=texts,
        images=paths,
        label_names=names,
        label_indices=indices,
        groups=groups,
        split=split,
        left_out={str(ids[row]): reason for row, reason in left_out.items()},
        thinned_out=tuple(thinned_out),
        split_groups=split_groups,
        unknown_labels=() if label_names is None else tuple(sorted(unknown)),
        num_cells={
            name: len(modality.columns)
            for name, modality in settings.modalities.items()
            if modality.kind == "table"
        },
    )


def modalities(
    table: Table, wanted: Mapping[str, Modality], images: Path
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The texts and the absolute image paths of a table's products.

    Returns:
        Two dicts by modality name: `(n,)` texts, and `(n,)` paths. A text is its
        columns' cells without outer white space, the empty ones left out, joined
        by a space. A table's row is all of its cells with single spaces for the white
        space inside, joined by `CELL_SEPARATOR`. Missing is `""` in both.
    """
    texts, paths = {}, {}
    for name, modality in wanted.items():
        columns = [table.text_column(column) for column in modality.columns]
        if modality.kind == "text":
            joined = [
                " ".join(cell for cell in map(str.strip, row) if cell)
                for row in zip(*columns, strict=True)
            ]
            texts[name] = np.array(joined, object)
        elif modality.kind == "table":
            rows = [
                CELL_SEPARATOR.join(" ".join(cell.split()) for cell in row)
                for row in zip(*columns, strict=True)
            ]
            texts[name] = np.array(
                [row if row.strip(CELL_SEPARATOR) else "" for row in rows], object
            )
        else:
            for row, cell in enumerate(columns[0]):
                if "\0" in cell:  # no system call takes it
                    raise CatalogError(
                        f"{table.where(row)}: {modality.columns[0]!r} holds a NUL "
                        f"byte. Received: {cell!r:.80}"
                    )
            found = [
                str((images / cell.strip()).absolute()) if cell.strip() else ""
                for cell in columns[0]
            ]
            paths[name] = np.array(found, object)
    return texts, paths


def _ids(table: Table, column: str) -> np.ndarray:
    ids = [cell.strip() for cell in table.text_column(column)]
    first: dict[str, int] = {}
    for row, product in enumerate(ids):
        if not product:
            raise CatalogError(f"{table.where(row)}: {column!r} is empty")
        if product in first:
            raise CatalogError(
                f"{table.where(row)}: {column!r} is a duplicate. Received: "
                f"{product!r}, which is also in row {table.row_number(first[product])}"
            )
        first[product] = row
    return np.array(ids, object)


def _labels(table: Table, settings: Experiment) -> list[tuple[str, ...]]:
    """Each product's labels as written, without repetitions."""
    options = settings.catalog
    column = options.labels
    single = options.task == "single_label"
    result = []
    for row, cell in enumerate(table.column(column)):
        if isinstance(cell, str) and options.label_separator == "json":
            try:
                cell = json.loads(cell) if cell.strip() else []
            except (ValueError, RecursionError) as error:
                raise CatalogError(
                    f"{table.where(row)}: {column!r} is no JSON list ({error}). "
                    f"Received: {cell!r:.80}"
                ) from None
            names = [cell] if isinstance(cell, str) else cell
        elif isinstance(cell, str):
            names = [cell] if single else cell.split(options.label_separator)
        else:
            names = cell
        if not isinstance(names, list) or not all(isinstance(x, str) for x in names):
            raise CatalogError(
                f"{table.where(row)}: {column!r} must be text or a list of texts. "
                f"Received: {cell!r:.80}"
            )
        names = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
        for name in names:
            # labels.txt holds a label a line, as UTF-8.
            broken = any("\ud800" <= letter <= "\udfff" for letter in name)
            if broken or len(name.splitlines()) > 1:
                what = "half a surrogate pair" if broken else "a line break"
                raise CatalogError(
                    f"{table.where(row)}: {column!r} holds {what}. "
                    f"Received: {name!r:.80}"
                )
        if single and len(names) > 1:
            raise CatalogError(
                f"{table.where(row)}: {column!r} holds {len(names)} labels and the "
                f"task is single_label. Received: {list(names)}"
            )
        if options.hierarchy == "consistent":
            try:
                names = tuple(with_ancestors(names, options.path_separator))
            except CatalogError as error:
                raise CatalogError(f"{table.where(row)}: {column!r}: {error}") from None
        result.append(names)
    mark = options.path_separator
    of_paths = options.hierarchy == "consistent"
    if of_paths and not any(mark in name for names in result for name in names):
        raise CatalogError(
            f"{table.path}: {column!r}: hierarchy = 'consistent' and no label has "
            f"another above it; expected paths with {mark!r} between their steps"
        )
    return result


def _label_space(
    given: Iterable[tuple[str, ...]], min_products: int
) -> tuple[str, ...]:
    counts = Counter(name for names in given for name in names)
    return tuple(sorted(name for name, n in counts.items() if n >= min_products))


def _groups(table: Table, settings: Experiment, ids: np.ndarray) -> np.ndarray:
    column = settings.catalog.group
    if column not in table and "group" not in settings.catalog.model_fields_set:
        return ids
    cells = [cell.strip() for cell in table.text_column(column)]
    return np.array([g or i for g, i in zip(cells, ids, strict=True)], object)
