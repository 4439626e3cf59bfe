"""Batches of a catalog's products, labelled by a model: in this process or another."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmm.errors import RunError

BATCH = 64


@dataclass(frozen=True)
class Reads:
    """What a model reads of a catalog.

    Attributes:
        id: The column of ids.
        modalities: Modality name -> its `settings.Modality`.
    """

    id: str
    modalities: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """`n` products as a model wants them, images not yet opened.

    Attributes:
        ids: `n` texts.
        texts: Modality name -> `n` texts, `""` where missing; rows of tables too.
        paths: Modality name -> `n` absolute paths of images, `""` where missing.
    """

    ids: list[str]
    texts: dict[str, list[str]]
    paths: dict[str, list[str]]


@dataclass(frozen=True)
class Labelled:
    """What a model says of one product: `k` labels, the most probable first."""

    id: str
    labels: list[str]
    scores: list[float]
    assigned: list[bool]
    problem: str

    def row(self) -> dict[str, Any]:
        """The row of a table, with a column for each rank."""
        row: dict[str, Any] = {"id": self.id}
        answers = zip(self.labels, self.scores, self.assigned, strict=True)
        for rank, (label, score, assigned) in enumerate(answers, start=1):
            row[f"label_{rank}"] = label
            row[f"score_{rank}"] = score
            row[f"assigned_{rank}"] = assigned
        return row | {"problem": self.problem}


def open_model(path: Path, head: str | None) -> tuple[Reads, Callable[[], Callable]]:
    """Finds out what a run or a SavedModel reads.

    Returns:
        That, and a function that loads the model itself: from a dict of string
        tensors `(batch,)` by modality to what `serving_default` answers.

    Raises:
        RunError: If it is neither, or not whole; loading a SavedModel raises it too.
    """
    from tfmm.run import Run, read_json
    from tfmm.settings import Modality

    if Run(path).exists:
        from tfmm import classifier

        loaded = classifier.load(Run(path), head)
        reads = Reads(Run(path).read_experiment().catalog.id, dict(loaded.modalities))
        return reads, lambda: _compiled(loaded)
    file = path / "assets.extra" / "tfmm.json"
    if not (path / "saved_model.pb").exists() or not file.exists():
        raise RunError(f"{path}: neither a run nor a SavedModel that export wrote")
    if head is not None:
        raise RunError(f"{path}: a SavedModel has one head; --head is for runs")
    about = read_json(file)
    if not isinstance(about, dict) or not {"id", "modalities"} <= set(about):
        raise RunError(f"{file}: not what export writes")
    wanted = {name: Modality(**x) for name, x in about["modalities"].items()}
    return Reads(about["id"], wanted), lambda: _loaded(path)


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


def products(table: Any, reads: Reads, images: Path) -> Batch:
    """Takes from a chunk of a table what the model reads; checks it.

    Raises:
        CatalogError: If a column is missing, or a cell is nothing to read.
    """
    from tfmm import catalog

    ids = table.text_column(reads.id)
    texts, paths = catalog.modalities(table, reads.modalities, images)
    return Batch(
        ids,
        {name: values.tolist() for name, values in texts.items()},
        {name: values.tolist() for name, values in paths.items()},
    )


def read_inputs(batch: Batch) -> tuple[dict[str, list], dict[str, list[str]]]:
    """Opens the images of a batch.

    Returns:
        Two dicts. Modality name -> a str (text) or bytes (image file) for each product,
        texts first; image modality -> what is wrong with each file, `""` if nothing.
    """
    from tfmm import image

    columns: dict[str, list] = dict(batch.texts)
    problems = {}
    for name, files in batch.paths.items():
        read = [image.read_file(file) for file in files]
        columns[name] = [content for content, _ in read]
        problems[name] = [problem for _, problem in read]
    return columns, problems


def label(batch: Batch, reads: Reads, answer: Callable) -> list[Labelled]:
    """Labels the products of one batch, in their order.

    Args:
        batch: The products; their images are opened here.
        reads: What the model reads.
        answer: The model, loaded.
    """
    import tensorflow as tf

    from tfmm import cells

    columns, wrong = read_inputs(batch)
    problems: list[list[str]] = [[] for _ in batch.ids]
    for name, of_files in wrong.items():
        for found, problem in zip(problems, of_files, strict=True):
            found += [f"{name}: {problem}"] if problem else []
    inputs = {name: tf.constant(values) for name, values in columns.items()}
    result = {key: value.numpy() for key, value in answer(inputs).items()}
    num_cells = {
        name: len(x.columns)
        for name, x in reads.modalities.items()
        if x.kind == "table"
    }
    worded = [
        cells.present(inputs[name], num_cells.get(name, 0)).numpy()
        for name in batch.texts
    ]
    labelled = []
    for row, product in enumerate(batch.ids):
        for position, name in enumerate(batch.paths):
            status = result["image_status"][row, position].decode()
            if status not in ("used", "missing", "skipped"):
                problems[row].append(f"{name}: {status}")
        present = [bool(values[row]) for values in worded]
        present += list(result["image_used"][row]) if batch.paths else []
        if not any(present):
            problems[row].append("nothing to go by: every modality is missing")
        if not product.strip():
            problems[row].append("no id")
        labelled.append(
            Labelled(
                product,
                [x.decode() for x in result["labels"][row]],
                result["scores"][row].tolist(),
                result["assigned"][row].tolist(),
                "; ".join(problems[row]),
            )
        )
    return labelled
