"""Real products with their answers, and the requests that warm a server up."""

import base64
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from export import MAX_BATCH_SIZE, SIGNATURES
from export.stored import Stored
from tfmm import metrics
from tfmm.classifier import Classifier
from tfmm.run import Run, read_json


def golden_requests(run: Run, model: Classifier, stored: Stored) -> dict:
    """A few real products with the answers that the outputs store holds of them.

    Args:
        run: The run.
        model: The classifier.
        stored: What it says of the test products.

    Returns:
        `products`: for each its `id`, `inputs` (modality -> base64), `probabilities`
        `(C,)` and, with a rule, whether its images are `skipped`; `nothing`, the
        `(C,)` label shares that a product without any modality gets; `top_k`.
    """
    samples = read_json(run.samples_file)
    shares = metrics.probabilities(model.task, model.prior[None])[0]
    return {
        "top_k": model.top_k,
        "nothing": np.round(shares, 9).tolist(),
        "products": [
            {
                "id": sample["id"],
                "inputs": {name: sample["inputs"][name] for name in model.modalities},
                "probabilities": np.round(
                    stored.probabilities[sample["row"]], 9
                ).tolist(),
                "skipped": bool(stored.skipped[sample["row"]]),
            }
            for sample in samples
            if not stored.near[sample["row"]]
        ],
    }


def write_warm_up(path: Path, golden: dict, model: Classifier, name: str) -> None:
    """Requests that the server runs before it takes others.

    For each signature one of a single product and one of `MAX_BATCH_SIZE`. The first
    has an image and nothing else, and every other one of the second, so that no rule
    skips it.

    Args:
        path: File to write.
        golden: What `golden_requests` returns.
        model: The classifier.
        name: What the model is served as.
    """
    products = golden["products"]
    richest = max(
        products,
        key=lambda x: (
            sum(bool(x["inputs"][name]) for name in model.images),
            sum(map(bool, x["inputs"].values())),
        ),
    )
    whole = {key: base64.b64decode(x) for key, x in richest["inputs"].items()}
    pictured = {key: x if key in model.images else b"" for key, x in whole.items()}
    if not any(pictured.values()):
        pictured = whole
    rows = [pictured if place % 2 == 0 else whole for place in range(MAX_BATCH_SIZE)]
    with tf.io.TFRecordWriter(str(path)) as records:
        for signature in SIGNATURES:
            for batch in (rows[:1], rows):
                request = predict_pb2.PredictRequest(
                    model_spec=model_pb2.ModelSpec(name=name, signature_name=signature)
                )
                for modality in whole:
                    tensor = tf.make_tensor_proto([row[modality] for row in batch])
                    request.inputs[modality].CopyFrom(tensor)
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                records.write(log.SerializeToString())
