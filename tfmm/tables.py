"""Table files: CSV, TSV, JSON lines and Parquet, whole or in chunks."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

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
        numbers: The number of each row in the file: as a spreadsheet counts, so 2
            after a header line, and 1 otherwise.
    """

    path: Path
    columns: dict[str, list[Any]]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def row_number(self, row: int) -> int:
        return self.numbers[row]

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
            encoded, names a column twice, or a row has the wrong number of cells.
    """
    chunks = list(read_chunks(path, 10_000))
    columns: dict[str, list[Any]] = {name: [] for name in chunks[0].columns}
    numbers: list[int] = []
    for chunk in chunks:
        numbers.extend(chunk.numbers)
        for name, cells in chunk.columns.items():
            columns[name].extend(cells)
    return Table(chunks[0].path, columns, numbers)


def read_chunks(path: Path, rows: int) -> Iterator[Table]:
    """Reads a table `rows` rows at a time; memory does not grow with the file.

    Blank lines are skipped.

    Yields:
        At least one table; every one with the same columns.

    Raises:
        CatalogError: As `read` does, as soon as the row is met.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise CatalogError(f"{path}: expected a table ending in {', '.join(SUFFIXES)}")
    empty = True
    try:
        if not path.is_file():
            found = "a folder, not a" if path.is_dir() else "no such"
            raise CatalogError(f"{path}: {found} catalog file")
        if kind == "parquet":
            chunks = _parquet(path, rows)
        elif kind == "json":
            chunks = _grouped(path, _json_lines(path), rows)
        else:
            chunks = _grouped(path, _separated(path, kind), rows)
        for table in chunks:
            empty = empty and not len(table)
            yield table
    except UnicodeDecodeError:
        raise CatalogError(_wrong_encoding(path, kind)) from None
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror}") from None
    if empty:
        raise CatalogError(f"{path}: the file holds no products")


def _grouped(
    path: Path, records: Iterator[tuple[int, dict[str, Any]]], rows: int
) -> Iterator[Table]:
    while group := list(islice(records, rows)):
        names = group[0][1]
        columns = {name: [record[name] for _, record in group] for name in names}
        yield Table(path, columns, [number for number, _ in group])


def _separated(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    names: list[str] = []
    number = 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for number, cells in enumerate(reader, start=1):
                if not cells:
                    continue
                if not names:
                    _check_names(path, cells)
                    names = cells
                    continue
                if len(cells) != len(names):
                    raise CatalogError(
                        f"{path}:{number}: expected {len(names)} cells, as in the "
                        f"header. Received: {len(cells)}"
                    )
                yield number, dict(zip(names, cells, strict=True))
        except csv.Error as error:
            raise CatalogError(f"{path}:{number + 1}: not a table: {error}") from None
    if not names:
        raise CatalogError(f"{path}: the file is empty")


def _check_names(path: Path, names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        if "\0" in name:
            raise CatalogError(f"{path}: {name!r:.80} is not UTF-8; is it UTF-16?")
        if name and name in names[:position]:
            raise CatalogError(f"{path}: the column {name!r} is there twice")


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file, each with every key that any of them has."""
    # Read twice: many writers leave a key out where it holds nothing.
    names = dict.fromkeys(name for _, record in _json_objects(path) for name in record)
    for number, record in _json_objects(path):
        yield number, {name: _cell(record.get(name)) for name in names}


def _json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                if "\\u" in line:  # only so can half a surrogate pair be written
                    json.dumps(record, ensure_ascii=False).encode("utf-8")
            except json.JSONDecodeError as error:
                raise CatalogError(f"{path}:{number}: no JSON: {error.msg}") from None
            except (ValueError, RecursionError) as error:
                raise CatalogError(f"{path}:{number}: unusable JSON: {error}") from None
            if not isinstance(record, dict):
                raise CatalogError(f"{path}:{number}: expected a JSON object")
            yield number, record


def _parquet(path: Path, rows: int) -> Iterator[Table]:
    start = 1
    try:
        with pq.ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=rows):
                columns = {
                    name: _parquet_cells(path, start, name, column)
                    for name, column in zip(
                        batch.schema.names, batch.columns, strict=True
                    )
                }
                yield Table(path, columns, range(start, start + batch.num_rows))
                start += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise CatalogError(f"{path}: not a whole Parquet file: {message}") from None


def _parquet_cells(path: Path, start: int, name: str, column: Iterable) -> list[Any]:
    cells = []
    for number, cell in enumerate(column, start=start):
        try:
            cells.append(_cell(cell.as_py()))
        except UnicodeDecodeError as error:
            raise CatalogError(
                f"{path}:{number}: {name!r} is not UTF-8. Received: "
                f"{error.object!r:.80}"
            ) from None
    return cells


def _cell(value: Any) -> Any:
    """Null and NaN, which is what pandas writes for it, are `""`."""
    return "" if value is None or value != value else value


def _wrong_encoding(path: Path, kind: str) -> str:
    """Names the row and the column of the first byte that is no UTF-8."""
    advice = "is not UTF-8 (save the file as UTF-8)"
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows: Iterable[list[str]] = ([line] for line in file)
        if kind != "json":
            rows = csv.reader(file, delimiter=kind)
        header: list[str] | None = None
        try:
            for number, cells in enumerate(rows, start=1):
                for position, cell in enumerate(cells):
                    if any("\udc80" <= letter <= "\udcff" for letter in cell):
                        column = "the line"
                        if kind != "json" and header is None:
                            column = "the header"
                        elif header is not None and position < len(header):
                            column = repr(header[position])
                        return (
                            f"{path}:{number}: {column} {advice}. Received: "
                            f"{cell.encode('utf-8', 'surrogateescape')!r:.80}"
                        )
                if kind != "json":
                    header = header or cells
        except csv.Error:
            pass  # beyond the first wrong byte nothing need be a table
    return f"{path}: {advice}"
