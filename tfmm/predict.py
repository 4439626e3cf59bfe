"""python -m tfmm.predict: a catalog in, a labelled catalog out."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmm import labelling, predict_spark, spark_context
from tfmm.errors import CatalogError, RunError, command_line
from tfmm.labelling import Batch, Labelled, Reads
from tfmm.options import ImagesFolder


def predict(
    model: Annotated[
        Path, typer.Argument(help="A run, or a SavedModel that `export` wrote.")
    ],
    catalog: Annotated[
        Path, typer.Option(help="Table of products; labels not needed.")
    ],
    to: Annotated[Path, typer.Option(help="Table to write: .csv or .parquet.")],
    images: ImagesFolder = None,
    head: Annotated[
        str | None, typer.Option(help="Head or tower of a run; [export]'s by default.")
    ] = None,
    spark: Annotated[
        str | None,
        typer.Option(
            metavar="MASTER",
            help="Label on a Spark: spark://HOST:7077, yarn, local[2].",
        ),
    ] = None,
) -> None:
    """Labels every product of a catalog."""
    if to.suffix.lower() not in WRITERS:
        raise CatalogError(f"{to}: expected a name ending in {' or '.join(WRITERS)}")
    if to.is_dir():
        raise CatalogError(f"{to}: expected a file to write, not a folder")
    if not catalog.is_file():
        raise CatalogError(f"{catalog}: no such catalog file")
    if to.exists() and to.samefile(catalog):
        raise CatalogError(f"{to}: the answers would replace the catalog itself")
    if not model.is_dir():
        raise RunError(f"{model}: no such run or SavedModel")

    from tfmm import tables
    from tfmm.progress import say
    from tfmm.run import replacing

    folder = images or catalog.parent
    if spark is not None:
        spark_context.check(spark)
    reads, load = labelling.open_model(model, head)
    batches = (
        labelling.products(table, reads, folder)
        for table in tables.read_chunks(catalog, labelling.BATCH)
        if len(table)
    )
    problems: Counter[str] = Counter()
    done = 0
    with replacing(to) as partial, WRITERS[to.suffix.lower()](partial) as write:
        if spark is None:
            answers = _label_here(batches, reads, load)
        else:
            answers = predict_spark.label(batches, model, head, spark, partial)
        with closing(answers):
            for labelled in answers:
                problems.update(x.problem for x in labelled if x.problem)
                write([x.row() for x in labelled])
                done += len(labelled)
    say(f"predict: {done} products, {problems.total()} with a problem: {to}")
    for problem, count in problems.most_common():
        say(f"  {count} x {problem}")


def _label_here(
    batches: Iterator[Batch], reads: Reads, load: Callable[[], Callable]
) -> Iterator[list[Labelled]]:
    from tfmm.progress import progress

    answer = load()
    done = 0
    with progress("predict", None) as show:
        for batch in batches:
            yield labelling.label(batch, reads, answer)
            done += len(batch.ids)
            show(done)


@contextmanager
def _csv_writer(path: Path) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = None

        def write(rows: list[dict[str, Any]]) -> None:
            nonlocal writer
            if writer is None:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
            writer.writerows(rows)

        yield write


@contextmanager
def _parquet_writer(path: Path) -> Iterator[Callable[[list[dict[str, Any]]], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None

    def write(rows: list[dict[str, Any]]) -> None:
        nonlocal writer
        table = pa.Table.from_pylist(rows)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


WRITERS = {".csv": _csv_writer, ".parquet": _parquet_writer}


if __name__ == "__main__":
    command_line(predict, "python -m tfmm.predict")
