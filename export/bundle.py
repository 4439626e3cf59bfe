"""A run's classifier -> a SavedModel directory."""

from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import tensorflow as tf

from export import (
    ABOUT_FILE,
    BATCHING_FILE,
    EXTRA,
    GOLDEN_FILE,
    MAX_BATCH_SIZE,
    WARMUP_FILE,
    sums,
)
from export.golden import golden_requests, write_warm_up
from export.model_card import model_card
from export.reference import reference
from export.rule import Choice, choose
from export.stored import stored_answers
from tfmm import classifier, results
from tfmm.classifier import Classifier
from tfmm.errors import ExportError
from tfmm.run import Run, replacing, write_json

# What signatures answer, out of what the classifier says.
SERVING_DEFAULT = ("labels", "scores", "assigned", "image_used", "image_status")
PROBABILITIES = ("probabilities",)

# For two cores, where requests of one product come from many clients at once.
BATCHING = f"""max_batch_size {{ value: {MAX_BATCH_SIZE} }}
batch_timeout_micros {{ value: 5000 }}
num_batch_threads {{ value: 1 }}
max_enqueued_batches {{ value: 100 }}
"""


def write(
    run: Run,
    head: str | None,
    target: Path,
    *,
    image_budget: float | None = None,
    max_loss: float | None = None,
) -> Choice | None:
    """Writes `target`, a numbered version directory, in one move.

    Args:
        run: A fitted run.
        head: A head or a tower; what `[export]` names if `None`.
        target: `MODELS/NAME/N`, not there yet.
        image_budget: Greatest share of images that the model looks at, in [0, 1].
        max_loss: Greatest loss that skipping images may cost, in [0, 1]; instead of
            `image_budget`. With neither every image is looked at.

    Returns:
        The rule that skips images and its curve, if there is one.

    Raises:
        RunError: If something is missing or stale in the run.
        ExperimentError: If there is no such head.
        ExportError: If `target` is there or cannot be written, or a rule is asked of
            a model that has no images to skip.
    """
    if target.exists():
        raise ExportError(f"{target}: is there already; versions are kept")
    choice = None
    if image_budget is not None or max_loss is not None:
        choice = choose(run, head, image_budget=image_budget, max_loss=max_loss)
    model = classifier.load(run, head, choice.rule if choice else None)
    stored = stored_answers(run, model)
    golden = golden_requests(run, model, stored)
    expected = reference(run, model, stored)
    try:
        with replacing(target) as partial:
            save(model, partial)
            extra = partial / EXTRA
            extra.mkdir()
            write_json(extra / GOLDEN_FILE, golden)
            write_json(extra / ABOUT_FILE, _about(run, model, choice))
            expected.write(partial)
            write_warm_up(extra / WARMUP_FILE, golden, model, target.parent.name)
            (partial / BATCHING_FILE).write_text(BATCHING, encoding="utf-8")
            card = model_card(run, model, target.parent.name, expected, choice)
            (partial / "model_card.md").write_text(card, encoding="utf-8")
            sums.write(partial)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror}") from None
    return choice


def save(model: Classifier, path: Path) -> None:
    """Saves the signatures, the variables and the label names."""
    root = tf.Module()
    # Each inner variable once. Keras objects as attributes would save a second copy
    # of every handle, and the server restores only that one.
    unique = {id(w): w.value for network in model.models for w in network.weights}
    root.variables_held = list(unique.values())
    root.resources_held = resources(model.models)
    labels = path.with_name(f"{path.name}.assets") / "labels.txt"
    labels.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = "".join(f"{name}\n" for name in model.label_names)
        labels.write_text(text, encoding="utf-8")
        root.labels = tf.saved_model.Asset(str(labels))
        signatures = {
            "serving_default": _signature(model, model.answer, SERVING_DEFAULT),
            "probabilities": _signature(model, model.answer, PROBABILITIES),
            "explain": _signature(model, model.explain),
            "embed": _signature(model, model.embed),
        }
        tf.saved_model.save(root, str(path), signatures=signatures)
    finally:
        labels.unlink(missing_ok=True)
        labels.parent.rmdir()


def resources(networks: Iterable[keras.Model]) -> list:
    """What networks hold beside variables: look-up tables, tokenizers' models.

    Found wherever TensorFlow's own tracking leads from a network: attributes of
    layers, of layers inside of layers, and of `tf.Module`s such as those of
    tensorflow-text. So a layer must only keep what it uses as an attribute.

    Args:
        networks: Keras models.

    Returns:
        Each `tf.saved_model.experimental.TrackableResource` once.
    """
    found = {
        id(held): held
        for network in networks
        for held in tf.train.TrackableView(network).descendants()
        if isinstance(held, tf.saved_model.experimental.TrackableResource)
    }
    return list(found.values())


def _signature(
    model: Classifier, function: Callable, wanted: tuple[str, ...] | None = None
) -> Callable:
    def serve(**inputs):
        answer = function(_guarded(inputs))
        return {key: x for key, x in answer.items() if wanted is None or key in wanted}

    return tf.function(serve).get_concrete_function(**model.signature())


def _guarded(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Refuses wrong ranks, unequal batches and an empty batch inside the graph.

    The server compares only the type of what it is sent.
    """
    guarded = {
        name: tf.ensure_shape(value, [None], name=f"{name}_must_be_a_batch_of_strings")
        for name, value in inputs.items()
    }
    first, *others = guarded
    rows = tf.size(guarded[first])
    checks = [
        tf.debugging.assert_positive(rows, f"{first}: the batch is empty"),
        *(
            tf.debugging.assert_equal(
                tf.size(guarded[name]),
                rows,
                f"{name} and {first} hold different numbers of products",
            )
            for name in others
        ),
    ]
    with tf.control_dependencies(checks):
        return {name: tf.identity(value) for name, value in guarded.items()}


def _about(run: Run, model: Classifier, choice: Choice | None) -> dict:
    """What `tfmm.predict` needs to read a catalog for this bundle, and where it is
    from.
    """
    settings, info = run.read_experiment(), run.read_info()
    about = {
        "id": settings.catalog.id,
        "modalities": {name: x.model_dump() for name, x in model.modalities.items()},
        "model": model.name,
        "task": model.task,
        "fingerprint": results.outputs_fingerprint(
            run, settings, model.name, info["catalog"]["fingerprint"]
        ),
    }
    return about if choice is None else {**about, "image_rule": choice.about()}
