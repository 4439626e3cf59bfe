"""Table files: CSV, TSV, JSON lines and Parquet, whole or in chunks."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tfmm.errors import CatalogError, did_you_mean

SUFFIXES = {
    ".csv": ",",
    ".tsv": "\t",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Table:
    """Rows of a table file.

    Attributes:
        path: The file.
        columns: Column name -> cells: text, or what JSON and Parquet hold there.
        first_row: The number that `row_number` gives the first row: as a
            spreadsheet counts, so 2 after a header line, and 1 otherwise.
    """

    path: Path
    columns: dict[str, list[Any]]
    first_row: int

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def row_number(self, row: int) -> int:
        return row + self.first_row

    def where(self, row: int) -> str:
        """`catalog.csv:118`, for messages."""
        return f"{self.path}:{self.row_number(row)}"

    def column(self, name: str) -> list[Any]:
        """The cells of a column; `CatalogError` with the nearest name if none."""
        if name not in self.columns:
            raise CatalogError(
                f"{self.path}: no column {name!r}{did_you_mean(name, self.columns)}"
            )
        return self.columns[name]

    def text_column(self, name: str) -> list[str]:
        """The cells of a column as text; numbers as written, null as `""`."""
        texts = []
        for row, cell in enumerate(self.column(name)):
            if isinstance(cell, list | dict | bytes):
                raise CatalogError(
                    f"{self.where(row)}: {name!r} must be text. Received: {cell!r:.80}"
                )
            texts.append(cell if isinstance(cell, str) else str(cell))
        return texts


def read(path: Path) -> Table:
    """Reads a whole table.

    Raises:
        CatalogError: If the file is missing, empty, of an unknown kind, wrongly
            encoded, or a row has the wrong number of cells.
    """
    chunks = list(read_chunks(path, 10_000))
    columns: dict[str, list[Any]] = {name: [] for name in chunks[0].columns}
    for chunk in chunks:
        for name, cells in chunk.columns.items():
            columns[name].extend(cells)
    return Table(chunks[0].path, columns, chunks[0].first_row)


def read_chunks(path: Path, rows: int) -> Iterator[Table]:
    """Reads a table `rows` rows at a time; memory does not grow with the file.

    Yields:
        At least one table; every one with the same columns.

    Raises:
        CatalogError: As `read` does, as soon as the row is met.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise CatalogError(
            f"{path}: expected a table ending in {', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise CatalogError(f"{path}: no such catalog file")
    reader = {"json": _json_lines, "parquet": _parquet}.get(kind, _separated)
    empty = True
    try:
        for table in reader(path, rows):
            empty = empty and not len(table)
            yield table
    except UnicodeDecodeError as error:
        raise CatalogError(_wrong_encoding(path, kind, error)) from None
    if empty:
        raise CatalogError(f"{path}: the file holds no products")


def _separated(path: Path, rows: int) -> Iterator[Table]:
    try:
        with pd.read_csv(
            path,
            sep=SUFFIXES[path.suffix.lower()],
            dtype=object,
            keep_default_na=False,
            engine="python",  # the C engine fills short rows up in silence
            encoding="utf-8-sig",
            chunksize=rows,
            on_bad_lines="error",
            index_col=False,
        ) as chunks:
            for frame in chunks:
                yield _from_frame(path, frame)
    except pd.errors.EmptyDataError:
        raise CatalogError(f"{path}: the file is empty") from None
    except pd.errors.ParserError as error:
        message = " ".join(str(error).split())
        raise CatalogError(f"{path}: not a table: {message}") from None


def _from_frame(path: Path, frame: pd.DataFrame) -> Table:
    first_row = int(frame.index[0]) + 2 if len(frame) else 2
    # With the default markers off, only a cell that is not there at all is null.
    short = frame.isna().any(axis=1).to_numpy()
    if short.any():
        row = int(short.argmax()) + first_row
        raise CatalogError(f"{path}:{row}: the row has fewer cells than the header")
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return Table(path, columns, first_row)


def _json_lines(path: Path, rows: int) -> Iterator[Table]:
    columns: dict[str, list[Any]] = {}
    start, count = 1, 0
    names: list[str] | None = None
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise CatalogError(f"{path}:{number}: no JSON: {error.msg}") from None
            if not isinstance(record, dict):
                raise CatalogError(f"{path}:{number}: expected a JSON object")
            if names is None:
                names = list(record)
                columns = {name: [] for name in names}
            for name in record:
                if name not in columns:
                    raise CatalogError(
                        f"{path}:{number}: key {name!r} is not in the first line"
                        f"{did_you_mean(name, names)}"
                    )
            for name in names:
                value = record.get(name)
                columns[name].append("" if value is None else value)
            count += 1
            if count == rows:
                yield Table(path, columns, start)
                columns = {name: [] for name in names}
                start, count = number + 1, 0
    if count or names is None:
        yield Table(path, columns, start)


def _parquet(path: Path, rows: int) -> Iterator[Table]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError(f"{path}: not a Parquet file: {error}") from None
    start = 1
    with file:
        for batch in file.iter_batches(batch_size=rows):
            columns = {
                name: ["" if cell is None else cell for cell in column.to_pylist()]
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            yield Table(path, columns, start)
            start += batch.num_rows
        if start == 1:
            yield Table(path, {name: [] for name in file.schema_arrow.names}, 1)


def _wrong_encoding(path: Path, kind: str, error: UnicodeDecodeError) -> str:
    """Names the row and the column of the first byte that is no UTF-8."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        if kind == "json":
            rows: Iterator[list[str]] = ([line] for line in file)
            header = ["the line"]
        else:
            rows = csv.reader(file, delimiter=kind)
            header = next(rows)
        first = 1 if kind == "json" else 2
        for number, cells in enumerate(rows, start=first):
            for column, cell in zip(header, cells, strict=False):
                if any("\udc80" <= letter <= "\udcff" for letter in cell):
                    return (
                        f"{path}:{number}: {column!r} is not UTF-8 "
                        f"(save the file as UTF-8). Received: "
                        f"{cell.encode('utf-8', 'surrogateescape')!r:.80}"
                    )
    return f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8"
