"""Labelling on a Spark.

The driver reads and checks the catalog as without Spark, and lays what the model
reads of it as Parquet parts beside the file to write. A task is one part. It labels
the very batches that one process would have labelled, and Spark brings the answers
back to the driver, which alone writes. Whatever Spark runs twice, it delivers once;
the driver still compares every id with the catalog's before anything is in place.
"""

import functools
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from tfmm import labelling, spark_context
from tfmm.errors import SparkError
from tfmm.labelling import BATCH, Batch, Labelled, Reads
from tfmm.progress import progress, say

PART_BATCHES = 16  # a task is seconds of work: long beside its start, short to lose
POLL_S = 0.5
PATIENCE_S = 30.0  # until a job without a running task is told

FIELDS = ("id", "labels", "scores", "assigned", "problem")
SCHEMA = (
    "number long, id string, labels array<string>, scores array<double>, "
    "assigned array<boolean>, problem string"
)


def label(
    batches: Iterable[Batch], model: Path, head: str | None, master: str, to: Path
) -> Iterator[list[Labelled]]:
    """Labels batches of products on a Spark.

    Executors must see the model, the images and the folder of `to` under the same
    paths as this process; they write nothing there.

    Args:
        batches: The products; all are read before Spark is started.
        model: A run or a SavedModel.
        head: Of a run.
        master: What Spark calls a master URL.
        to: A path; beside it lies a folder with the products meanwhile.

    Yields:
        The answers in the products' order, a batch at a time.

    Raises:
        SparkError: If Spark cannot do it, or what it brings is not one answer for
            every product.
        TfmmError: Of any kind that an executor met.
    """
    parts = to.absolute().with_name(f"{to.name}-products")
    try:
        sizes = _write_parts(batches, parts)
        with spark_context.context(master, "tfmm.predict") as context:
            rows = _run(context, master, model.absolute(), head, parts, sizes)
            checked = _in_order(rows, _ids(parts, len(sizes)), master)
            while batch := list(islice(checked, BATCH)):
                yield batch
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _write_parts(batches: Iterable[Batch], folder: Path) -> list[int]:
    """Writes products as FOLDER/PART.parquet, a row group a batch; their sizes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    batches = iter(batches)
    sizes: list[int] = []
    done = 0
    while part := list(islice(batches, PART_BATCHES)):
        tables = []
        for batch in part:
            columns: dict[str, Any] = {
                "number": pa.array(range(done, done + len(batch.ids)), pa.int64()),
                "id": pa.array(batch.ids, pa.string()),
            }
            for kind, values in (("text", batch.texts), ("image", batch.paths)):
                for name, cells in values.items():
                    columns[f"{kind} {name}"] = pa.array(cells, pa.string())
            tables.append(pa.table(columns))
            done += len(batch.ids)
        file = folder / f"{len(sizes)}.parquet"
        with pq.ParquetWriter(file, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)
        sizes.append(sum(map(len, tables)))
    return sizes


def _read_part(file: Path) -> Iterator[tuple[int, Batch]]:
    """The batches of a part as they were written, and the number of their first."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as part:
        for group in range(part.num_row_groups):
            columns = part.read_row_group(group).to_pydict()
            found: dict[str, dict[str, list[str]]] = {"text": {}, "image": {}}
            for column, cells in columns.items():
                kind, _, name = column.partition(" ")
                if name:
                    found[kind][name] = cells
            batch = Batch(columns["id"], found["text"], found["image"])
            yield columns["number"][0], batch


def _ids(folder: Path, parts: int) -> Iterator[str]:
    import pyarrow.parquet as pq

    for part in range(parts):
        yield from pq.read_table(folder / f"{part}.parquet")["id"].to_pylist()


def _in_order(rows: Iterable, ids: Iterable[str], master: str) -> Iterator[Labelled]:
    """Passes answers on, as long as each is that of the catalog's next product."""
    for number, (row, product) in enumerate(zip_longest(rows, ids)):
        found = None if row is None else (row.number, row.id)
        if found != (number, product):
            raise SparkError(
                f"{master}: expected one answer for every product. Received: {found} "
                f"where the catalog has {(number, product)}"
            )
        yield Labelled(row.id, row.labels, row.scores, row.assigned, row.problem)


def _run(
    context: Any,
    master: str,
    model: Path,
    head: str | None,
    parts: Path,
    sizes: list[int],
) -> Iterator[Any]:
    """Has Spark label all parts, then brings the rows of answers, in order."""
    from pyspark import StorageLevel
    from pyspark.sql import SparkSession

    seen = [model, parts, *_an_image(parts)]
    loads = context.accumulator(0)

    def answers(frames: Iterator) -> Iterator:
        return _label_parts(frames, model, head, parts, seen, loads)

    tasks = SparkSession(context).range(0, len(sizes), 1, len(sizes))
    # Kept on the executors' disks: fetched one by one, they would be made one by one.
    rows = tasks.mapInPandas(answers, SCHEMA).persist(StorageLevel.DISK_ONLY)
    with (
        ThreadPoolExecutor(1) as pool,
        progress("predict", sum(sizes)) as show,
    ):
        counting = pool.submit(rows.count)
        _watch(context, master, counting, lambda n: show(sum(sizes[:n])))
        counting.result()
    say(f"predict: {master}: {len(sizes)} tasks, {loads.value} loads of the model")
    yield from rows.toLocalIterator()


def _an_image(parts: Path) -> list[Path]:
    """One image that is there, if the first part has one."""
    for _, batch in _read_part(parts / "0.parquet"):
        for files in batch.paths.values():
            for file in files:
                if os.path.isfile(file):
                    return [Path(file)]
    return []


def _watch(context: Any, master: str, job: Future, show: Callable[[int], None]) -> None:
    """Shows how many tasks are done, and tells if nobody works on them."""
    tracker = context.statusTracker()
    idle_since = time.monotonic()
    while not wait([job], POLL_S).done:
        stages = [tracker.getStageInfo(x) for x in tracker.getActiveStageIds()]
        show(sum(x.numCompletedTasks for x in stages if x))
        if any(x.numActiveTasks for x in stages if x):
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > PATIENCE_S:
            idle_since = time.monotonic()
            say(f"predict: {master} runs none of our tasks: is a worker free?")


def _label_parts(
    frames: Iterable[Any],
    model: Path,
    head: str | None,
    parts: Path,
    seen: Iterable[Path],
    loads: Any,
) -> Iterator[Any]:
    """What an executor does: data frames of part numbers in, of answers out."""
    import pandas as pd
    from pyspark import TaskContext

    for path in seen:
        if not os.path.exists(path):
            raise SparkError(
                f"an executor on {socket.gethostname()} sees no {path}: the model, the "
                "images and the folder of --to need the same path on every machine"
            )
    before = _model.cache_info().misses
    reads, answer = _model(model, head, TaskContext.get().cpus())
    loads.add(_model.cache_info().misses - before)
    for frame in frames:
        for part in frame["id"]:
            for first, batch in _read_part(parts / f"{part}.parquet"):
                labelled = labelling.label(batch, reads, answer)
                columns = {x: [getattr(y, x) for y in labelled] for x in FIELDS}
                numbers = range(first, first + len(labelled))
                yield pd.DataFrame({"number": numbers, **columns})
            say(f"predict: part {part} is labelled")


@functools.cache
def _model(model: Path, head: str | None, cpus: int) -> tuple[Reads, Callable]:
    """The model, loaded once in the life of an executor's Python process.

    TensorFlow gets as many threads as Spark gave the task cores; by itself every
    Python of an executor would start one a core of the machine.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cpus)
    tf.config.threading.set_inter_op_parallelism_threads(cpus)
    reads, load = labelling.open_model(model, head)
    answer = load()
    say(f"predict: {model} is loaded, {cpus} threads")
    return reads, answer
