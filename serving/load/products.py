"""Products of a catalog as the batches that a load test sends."""

import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

Product = dict[str, bytes]


class CatalogError(ValueError):
    """A catalog that cannot be read; one line of text."""


def read_products(
    table: Path,
    columns: Mapping[str, str],
    *,
    images: Sequence[str] = (),
    limit: int = 256,
) -> list[Product]:
    """Reads the first products of a catalog.

    Args:
        table: Path. `.csv`, `.tsv`, `.jsonl` or `.parquet`.
        columns: dict from input of the model to column of the table.
        images: Sequence of str. Inputs whose cells are paths of image files,
            relative to the table's directory. An empty cell is no image.
        limit: int. How many products at most.

    Returns:
        List of dicts from input to bytes: the text in UTF-8, or the file.

    Raises:
        CatalogError: If the table, a column or an image is not there, or the
            table has no rows.
    """
    products = []
    try:
        for number, row in enumerate(islice(_rows(table), limit), start=1):
            product = {}
            for name, column in columns.items():
                if column not in row:
                    raise CatalogError(
                        f"{table}: has no column {column!r}. "
                        f"Its columns: {', '.join(map(str, row))}."
                    )
                product[name] = _cell(row[column])
                if name in images and product[name]:
                    path = table.parent / product[name].decode()
                    product[name] = _read_image(path, f"{table}: product {number}")
            products.append(product)
    except OSError as error:
        raise CatalogError(f"{table}: {error.strerror}.") from error
    except (csv.Error, ValueError) as error:
        if isinstance(error, CatalogError):
            raise
        problem = " ".join(str(error).split())
        raise CatalogError(f"{table}: cannot be read: {problem}") from error
    if not products:
        raise CatalogError(f"{table}: holds no products.")
    return products


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    suffix = table.suffix.lower()
    if suffix in (".csv", ".tsv"):
        delimiter = "\t" if suffix == ".tsv" else ","
        with table.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, delimiter=delimiter, strict=True):
                # Cells too many are under None, and cells that lack are None.
                if None in row or None in row.values():
                    raise ValueError(f"a row has not the header's cells: {row}")
                yield row
    elif suffix in (".jsonl", ".ndjson"):
        with table.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    elif suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(table) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    else:
        raise CatalogError(
            f"{table}: expected .csv, .tsv, .jsonl or .parquet. Received: {suffix!r}"
        )


def _cell(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return b"" if value is None else str(value).encode()


def _read_image(path: Path, place: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CatalogError(f"{place}: image {path}: {error.strerror}.") from error


def spoil(
    products: Sequence[Product],
    *,
    without: Mapping[str, float],
    corrupt: Mapping[str, float],
    seed: int = 0,
) -> list[Product]:
    """Empties some inputs and cuts some files short, as live products are.

    Shares are of the products that have the input at all, rounded to the nearest
    whole number, so that a run of few products has them too. One that is emptied is not
    also cut.

    Args:
        products: Sequence of products; left as they are.
        without: dict from input to the share of products that lose it, 0 to 1.
        corrupt: dict from input to the share whose bytes end in the middle.
        seed: int. The same seed chooses the same products.

    Returns:
        List of as many products.

    Example:
    >>> products = [{"image": b"12345678"}] * 4
    >>> spoilt = spoil(products, without={"image": 0.5}, corrupt={"image": 0.25})
    >>> sorted(product["image"] for product in spoilt)
    [b'', b'', b'1234', b'12345678']
    """
    generator = random.Random(seed)
    spoilt = [dict(product) for product in products]
    for name in sorted({*without, *corrupt}):
        have = [index for index, product in enumerate(products) if product.get(name)]
        generator.shuffle(have)
        num_emptied = round(len(have) * without.get(name, 0.0))
        num_cut = round(len(have) * corrupt.get(name, 0.0))
        for index in have[:num_emptied]:
            spoilt[index][name] = b""
        for index in have[num_emptied : num_emptied + num_cut]:
            value = spoilt[index][name]
            spoilt[index][name] = value[: len(value) // 2]
    return spoilt


def batches(products: Sequence[Product], size: int) -> list[dict[str, list[bytes]]]:
    """Every product in turn, in batches of one size; the last one starts over.

    Args:
        products: Sequence of products with the same inputs.
        size: int. Products in a batch.

    Returns:
        List of dicts from input to a list of `size` values.

    Example:
    >>> batches([{"title": b"a"}, {"title": b"b"}, {"title": b"c"}], 2)
    [{'title': [b'a', b'b']}, {'title': [b'c', b'a']}]
    """
    num_batches = -(-len(products) // size)
    return [
        {
            name: [
                products[(start * size + step) % len(products)][name]
                for step in range(size)
            ]
            for name in products[0]
        }
        for start in range(num_batches)
    ]
