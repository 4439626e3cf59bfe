"""python -m tfmm.predict: a catalog in, a labelled catalog out."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from tfmm.errors import CatalogError, RunError, command_line

BATCH = 64


def predict(
    model: Annotated[
        Path, typer.Argument(help="A run, or a SavedModel that `export` wrote.")
    ],
    catalog: Annotated[
        Path, typer.Option(help="Table of products; labels not needed.")
    ],
    to: Annotated[Path, typer.Option(help="Table to write: .csv or .parquet.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images; the table's by default.")
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Head or tower of a run; [export]'s by default.")
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
    from tfmm.progress import progress, say
    from tfmm.run import replacing

    answer, about = _from_model(model, head)
    problems: Counter[str] = Counter()
    done = 0
    with (
        replacing(to) as partial,
        WRITERS[to.suffix.lower()](partial) as write,
        progress("predict", None) as show,
    ):
        for table in tables.read_chunks(catalog, BATCH):
            rows = list(_label(table, about, images or catalog.parent, answer))
            problems.update(row["problem"] for row in rows if row["problem"])
            write(rows)
            done += len(rows)
            show(done)
    say(f"predict: {done} products, {problems.total()} with a problem: {to}")
    for problem, count in problems.most_common():
        say(f"  {count} x {problem}")


def _from_model(path: Path, head: str | None) -> tuple[Callable, dict[str, Any]]:
    """A function from a batch to an answer, and what it reads of a product."""
    from tfmm.run import Run, read_json

    if Run(path).exists:
        from tfmm import classifier

        loaded = classifier.load(Run(path), head)
        settings = Run(path).read_experiment()
        about = {
            "id": settings.catalog.id,
            "modalities": {
                name: x.model_dump() for name, x in loaded.modalities.items()
            },
        }
        return _compiled(loaded), about
    file = path / "assets.extra" / "tfmm.json"
    if not (path / "saved_model.pb").exists() or not file.exists():
        raise RunError(f"{path}: neither a run nor a SavedModel that export wrote")
    if head is not None:
        raise RunError(f"{path}: a SavedModel has one head; --head is for runs")
    about = read_json(file)
    if not isinstance(about, dict) or not {"id", "modalities"} <= set(about):
        raise RunError(f"{file}: not what export writes")
    return _loaded(path), about


def _compiled(loaded: Any) -> Callable:
    import tensorflow as tf

    # One traced graph for every batch, as the export has one.
    return tf.function(loaded.answer, input_signature=[loaded.signature()])


def _loaded(path: Path) -> Callable:
    import tensorflow as tf
    import tensorflow_text  # links the ops that the graph needs

    assert tensorflow_text.__version__
    try:
        model = tf.saved_model.load(str(path))
    except (OSError, LookupError, TypeError, ValueError, tf.errors.OpError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: does not load: {line}") from None
    serve = model.signatures["serving_default"]

    def answer(inputs: dict[str, Any]) -> dict[str, Any]:
        return serve(**inputs)

    answer.keep = model  # the signature holds its variables by weak references only
    return answer


def read_inputs(
    table: Any, about: dict[str, Any], images: Path
) -> tuple[dict[str, list], dict[str, list[str]]]:
    """The raw inputs of a table's products, as a model takes them.

    Args:
        table: A `tfmm.tables.Table`.
        about: What `assets.extra/tfmm.json` of an export says of its modalities.
        images: Folder of the images.

    Returns:
        Two dicts. Input -> a str (text) or bytes (image file) for each product, texts
        first; image input -> what is wrong with each file, `""` if nothing.
    """
    from tfmm import catalog, image
    from tfmm.settings import Modality

    wanted = {name: Modality(**x) for name, x in about["modalities"].items()}
    texts, paths = catalog.modalities(table, wanted, images)
    inputs = {name: values.tolist() for name, values in texts.items()}
    problems = {}
    for name, files in paths.items():
        read = [image.read_file(file) for file in files]
        inputs[name] = [content for content, _ in read]
        problems[name] = [problem for _, problem in read]
    return inputs, problems


def _label(
    table: Any, about: dict[str, Any], images: Path, answer: Callable
) -> Iterator[dict[str, Any]]:
    """Labels the products of one chunk of a table."""
    import tensorflow as tf

    from tfmm import cells

    if not len(table):
        return
    ids = table.text_column(about["id"])
    values, files = read_inputs(table, about, images)
    problems: list[list[str]] = [[] for _ in ids]
    for name, of_files in files.items():
        for found, problem in zip(problems, of_files, strict=True):
            found += [f"{name}: {problem}"] if problem else []
    inputs = {name: tf.constant(column) for name, column in values.items()}
    result = {key: value.numpy() for key, value in answer(inputs).items()}
    num_cells = {
        name: len(x["columns"])
        for name, x in about["modalities"].items()
        if x["kind"] == "table"
    }
    worded = [
        cells.present(inputs[name], num_cells.get(name, 0)).numpy()
        for name in values
        if name not in files
    ]
    image_names = list(files)
    for row, product in enumerate(ids):
        for position, name in enumerate(image_names):
            status = result["image_status"][row, position].decode()
            if status not in ("used", "missing", "skipped"):
                problems[row].append(f"{name}: {status}")
        present = [bool(values[row]) for values in worded]
        present += list(result.get("image_used", [[]] * len(ids))[row])
        if not any(present):
            problems[row].append("nothing to go by: every modality is missing")
        if not product.strip():
            problems[row].append("no id")
        labelled: dict[str, Any] = {"id": product}
        for rank, label in enumerate(result["labels"][row], start=1):
            labelled[f"label_{rank}"] = label.decode()
            labelled[f"score_{rank}"] = float(result["scores"][row, rank - 1])
            labelled[f"assigned_{rank}"] = bool(result["assigned"][row, rank - 1])
        yield labelled | {"problem": "; ".join(problems[row])}


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
