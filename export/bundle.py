"""A run's classifier -> a SavedModel directory."""

import base64
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from export import ABOUT_FILE, EXTRA, GOLDEN_FILE, WARMUP_FILE
from export.model_card import model_card
from tfmm import classifier, metrics, results
from tfmm.classifier import Classifier
from tfmm.errors import ExportError
from tfmm.run import Run, read_json, replacing, write_json

# What each signature answers, out of what the classifier says.
SERVING_DEFAULT = ("labels", "scores", "assigned", "image_used", "image_status")
PROBABILITIES = ("probabilities",)


def write(run: Run, head: str | None, target: Path) -> None:
    """Writes `target`, a numbered version directory, in one move.

    Args:
        run: A fitted run.
        head: A head or a tower; what `[export]` names if `None`.
        target: `MODELS/NAME/N`, not there yet.

    Raises:
        RunError: If something is missing or stale in the run.
        ExperimentError: If there is no such head.
        ExportError: If `target` is there or cannot be written.
    """
    if target.exists():
        raise ExportError(f"{target}: is there already; versions are kept")
    model = classifier.load(run, head)
    golden = golden_requests(run, model)
    try:
        with replacing(target) as partial:
            save(model, partial)
            extra = partial / EXTRA
            extra.mkdir()
            write_json(extra / GOLDEN_FILE, golden)
            write_json(extra / ABOUT_FILE, _about(run, model))
            _write_warm_up(extra / WARMUP_FILE, golden, target.parent.name)
            card = model_card(run, model, target.parent.name)
            (partial / "model_card.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{target}: cannot be written: {error.strerror}") from None


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
            "serving_default": _signature(model, SERVING_DEFAULT),
            "probabilities": _signature(model, PROBABILITIES),
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


def _signature(model: Classifier, wanted: tuple[str, ...]) -> Callable:
    def serve(**inputs):
        answer = model.answer(_guarded(inputs))
        return {key: answer[key] for key in wanted if key in answer}

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


def golden_requests(run: Run, model: Classifier) -> dict:
    """A few real products with the answers that the outputs store holds of them.

    Returns:
        `products`: for each its `id`, `inputs` (modality -> base64) and
        `probabilities` `(C,)`; `nothing`, the `(C,)` label shares that a product
        without any modality gets; `top_k`.
    """
    samples = read_json(run.samples_file)
    settings = run.read_experiment()
    stored, _ = results.read_probabilities(run, settings, model.name, "test")
    return {
        "top_k": model.top_k,
        "nothing": _probabilities_of_nothing(model),
        "products": [
            {
                "id": sample["id"],
                "inputs": {name: sample["inputs"][name] for name in model.modalities},
                "probabilities": np.round(stored[sample["row"]], 9).tolist(),
            }
            for sample in samples
        ],
    }


def _probabilities_of_nothing(model: Classifier) -> list[float]:
    shares = metrics.probabilities(model.task, model.prior[None])[0]
    return np.round(shares, 9).tolist()


def _about(run: Run, model: Classifier) -> dict:
    """What `tfmm.predict` needs to read a catalog for this bundle."""
    settings = run.read_experiment()
    return {
        "id": settings.catalog.id,
        "modalities": {name: x.model_dump() for name, x in model.modalities.items()},
    }


def _write_warm_up(path: Path, golden: dict, name: str) -> None:
    """One request for each signature; the server runs them before it takes others."""
    products = golden["products"]
    richest = max(products, key=lambda x: sum(map(bool, x["inputs"].values())))
    with tf.io.TFRecordWriter(str(path)) as records:
        for signature in ("serving_default", "probabilities"):
            request = predict_pb2.PredictRequest(
                model_spec=model_pb2.ModelSpec(name=name, signature_name=signature)
            )
            for modality, value in richest["inputs"].items():
                tensor = tf.make_tensor_proto([base64.b64decode(value)])
                request.inputs[modality].CopyFrom(tensor)
            log = prediction_log_pb2.PredictionLog(
                predict_log=prediction_log_pb2.PredictLog(request=request)
            )
            records.write(log.SerializeToString())
