"""What the models of a run say: stored outputs, calibrated, and the models themselves.

Knows what each model was made from, so that nothing stale is ever read. Heads and
reports get their outputs here and open no file.
"""

from functools import partial
from zipfile import BadZipFile

import keras
import numpy as np
import tensorflow as tf

from tfmm import calibration, image, metrics, outputs
from tfmm.calibration import Calibration
from tfmm.dataset import Inputs
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.layers import LAYERS
from tfmm.outputs import Outputs
from tfmm.pretrained.camembert import CamembertTokens
from tfmm.pretrained.flaubert import FlaubertTokens
from tfmm.pretrained.text_tokens import TextTokens
from tfmm.run import Run, fingerprint, read_json
from tfmm.settings import Augmentation, Training


def model_fingerprint(run: Run, settings: Experiment, name: str) -> str:
    """What a model is made from: its settings, the catalog, for a head its towers."""
    shared = [settings.seed, settings.catalog.task, run.read_info()["catalog"]]
    own = settings.model_settings(name).model_dump(mode="json")
    if name in settings.towers:
        modality = settings.modalities[own["modality"]].model_dump(mode="json")
        catalog = shared[2]["fingerprint"]
        files = run.read_info()["weights_files"].get(name, "")
        # Other pixels than a tower was trained on make it another tower.
        decoder = image.DECODER_VERSION if modality["kind"] == "image" else 0
        return fingerprint("tower", shared[:2], catalog, own, modality, files, decoder)
    towers = [
        [tower, model_fingerprint(run, settings, tower), weights_hash(run, tower)]
        for tower in own["towers"]
    ]
    return fingerprint("head", shared[:2], own, towers)


def outputs_fingerprint(
    run: Run, settings: Experiment, name: str, catalog_fingerprint: str
) -> str:
    """What a model's outputs of a split are made from."""
    model = model_fingerprint(run, settings, name)
    return fingerprint("outputs", model, weights_hash(run, name), catalog_fingerprint)


def read_outputs(run: Run, settings: Experiment, name: str, split: str) -> Outputs:
    """A model's outputs of a split; `RunError` if missing, truncated or stale."""
    _, catalog_fingerprint = outputs.read_targets(run.outputs, split)
    mark = outputs_fingerprint(run, settings, name, catalog_fingerprint)
    return outputs.read(run.outputs / name / split, mark)


def read_calibration(run: Run, settings: Experiment, name: str) -> Calibration:
    """A model's calibration; `RunError` if missing or stale."""
    _, catalog_fingerprint = outputs.read_targets(run.outputs, "validation")
    mark = outputs_fingerprint(run, settings, name, catalog_fingerprint)
    return calibration.read(run.calibration_file(name), mark)


def read_probabilities(
    run: Run, settings: Experiment, name: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities `(n, C)` of a split, and `present` `(n,)`.

    A product that the model has nothing to look at of gets the label shares.
    """
    stored = read_outputs(run, settings, name, split)
    temperature = np.float32(read_calibration(run, settings, name).temperature)
    present = np.asarray(stored.present)
    prior = np.float32(prior_logits(run, settings))
    logits = np.where(present[:, None], stored.logits / temperature, prior)
    return metrics.probabilities(settings.catalog.task, logits), present


def prior_logits(run: Run, settings: Experiment) -> list[float]:
    """Logits `(C,)` of the label shares among the training products."""
    targets, _ = outputs.read_targets(run.outputs, "train")
    if settings.catalog.task == "single_label":
        counts = np.bincount(targets, minlength=len(run.read_labels()))
        shares = counts / counts.sum()
    else:
        shares = targets.mean(axis=0)
    if len(shares) != len(run.read_labels()):
        raise RunError(
            f"{run.labels_file}: holds {len(run.read_labels())} labels and the targets "
            f"have {len(shares)}; run tfmm.fit --resume"
        )
    return metrics.logits_of(settings.catalog.task, shares).tolist()


def head_inputs(
    run: Run, settings: Experiment, name: str, split: str
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """What a head reads of a split, and the products' ids.

    Returns:
        Tower -> `features` `(n, d)`, calibrated `logits` `(n, C)`, `present` `(n,)`.
    """
    inputs = {}
    ids = None
    for tower in settings.towers_of(name):
        stored = read_outputs(run, settings, tower, split)
        temperature = np.float32(read_calibration(run, settings, tower).temperature)
        if ids is not None and not np.array_equal(ids, stored.ids):
            raise RunError(f"{run.path}: towers of {name} hold different products")
        ids = stored.ids
        inputs[tower] = {
            "features": np.asarray(stored.features),
            "logits": stored.logits / temperature,
            "present": np.asarray(stored.present),
        }
    return inputs, np.asarray(ids)


def tower_inputs(tower: Training) -> Inputs:
    """What a tower with these settings reads of a product."""
    return Inputs(
        tower.modality,
        getattr(tower, "image_size", 0),
        getattr(tower, "load_size", None),
        getattr(tower, "augmentation", Augmentation()),
    )


# What Keras must know to read our models back.
OWN_LAYERS = LAYERS | {
    keras.saving.get_registered_name(layer): layer
    for layer in (CamembertTokens, FlaubertTokens, TextTokens)
}


def load_model(run: Run, name: str) -> keras.Model:
    """The trained tower or head; `RunError` if it is not there."""
    path = run.model_file(name)
    if not path.exists():
        raise RunError(f"{path}: no such model; run tfmm.fit --resume")
    try:
        return keras.saving.load_model(path, custom_objects=OWN_LAYERS, compile=False)
    except (ValueError, OSError, KeyError, BadZipFile) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: damaged: {line}") from None


def predictor(model: keras.Model):
    """A function from a batch of inputs to NumPy `features` and `logits`."""
    shapes = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype, x.name), model.input
    )
    forward = tf.function(partial(model, training=False), input_signature=[shapes])

    def predict(batch) -> dict[str, np.ndarray]:
        return {key: value.numpy() for key, value in forward(batch).items()}

    return predict


def weights_hash(run: Run, name: str) -> str:
    """The hash of a fitted model's weights."""
    file = run.model_info_file(name)
    try:
        return read_json(file)["weights"]
    except (KeyError, TypeError):
        raise RunError(f"{file}: damaged; run tfmm.fit --resume") from None
