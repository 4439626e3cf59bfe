"""What the models of a run say: stored outputs, calibrated, and the models themselves.

Knows what each model was made from, so that nothing stale is ever read. Heads and
reports get their outputs here and open no file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
from tfmm.heads.inputs import Examples
from tfmm.hiding import case_key, case_names
from tfmm.hierarchy import Hierarchy
from tfmm.layers import LAYERS
from tfmm.outputs import Outputs
from tfmm.pretrained.camembert import CamembertTokens
from tfmm.pretrained.flaubert import FlaubertTokens
from tfmm.pretrained.text_tokens import TextTokens
from tfmm.run import Run, fingerprint, read_json
from tfmm.settings import Augmentation, Joint, Tbva


def model_fingerprint(run: Run, settings: Experiment, name: str) -> str:
    """What a model is made from: its settings, the catalog, the models it hears."""
    shared = [settings.seed, settings.catalog.task, run.read_info()["catalog"]]
    own = settings.model_settings(name).model_dump(mode="json")
    catalog = shared[2]["fingerprint"]
    heard = [
        [x, model_fingerprint(run, settings, x), weights_hash(run, x)]
        for x in settings.starts_from(name)
    ]
    if name in settings.towers:
        modality = settings.modalities[own["modality"]].model_dump(mode="json")
        files = run.read_info()["weights_files"].get(name, "")
        # Other pixels than a tower was trained on make it another tower.
        decoder = image.DECODER_VERSION if modality["kind"] == "image" else 0
        parts = [shared[:2], catalog, own, modality, files, decoder]
        return fingerprint("tower", *parts, *([heard] if heard else []))
    of_folds = "train_oof" in settings.heads[name].fit_splits
    folds = settings.catalog.folds if of_folds else 0
    # A joint network hears no calibrated logits.
    method = settings.calibration.method_for(settings.catalog.task)
    method = "" if isinstance(settings.heads[name], Joint) else method
    return fingerprint("head", shared[:2], own, heard, folds, method)


def outputs_fingerprint(
    run: Run, settings: Experiment, name: str, catalog_fingerprint: str
) -> str:
    """What a model's outputs of a split are made from."""
    model = model_fingerprint(run, settings, name)
    return fingerprint("outputs", model, weights_hash(run, name), catalog_fingerprint)


def _mark(run: Run, settings: Experiment, name: str, split: str) -> str:
    _, catalog_fingerprint, _ = outputs.targets_info(run.outputs, split)
    return outputs_fingerprint(run, settings, name, catalog_fingerprint)


def read_outputs(run: Run, settings: Experiment, name: str, split: str) -> Outputs:
    """A model's outputs of a split; `RunError` if missing, truncated or stale."""
    mark = _mark(run, settings, name, split)
    return outputs.read(run.outputs / name / split, mark)


def calibration_fingerprint(run: Run, settings: Experiment, name: str) -> str:
    """What a model's calibration is made from."""
    mark = _mark(run, settings, name, "validation")
    own = settings.calibration.model_dump(mode="json")
    tree = (settings.catalog.hierarchy, settings.catalog.path_separator)
    return fingerprint("calibration", mark, own, tree)


def read_calibration(run: Run, settings: Experiment, name: str) -> Calibration:
    """A model's calibration; `RunError` if missing or stale."""
    mark = calibration_fingerprint(run, settings, name)
    return calibration.read(run.calibration_file(name), mark, len(run.read_labels()))


def hierarchy(run: Run, settings: Experiment) -> Hierarchy | None:
    """The tree of the labels, if answers are to respect it."""
    if settings.catalog.hierarchy == "none":
        return None
    return Hierarchy(run.read_labels(), settings.catalog.path_separator)


def read_probabilities(
    run: Run, settings: Experiment, name: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities `(n, C)` of a split, and `present` `(n,)`.

    A product that the model has nothing to look at of gets the label shares.
    """
    stored = read_outputs(run, settings, name, split)
    present = np.asarray(stored.present)
    return probabilities(run, settings, name, stored.logits, present), present


def probabilities(
    run: Run, settings: Experiment, name: str, logits: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Calibrated probabilities `(m, C)` of a model's logits, for any products.

    Args:
        run: A run.
        settings: Its experiment.
        name: The model.
        logits: float32 `(m, C)`, not calibrated.
        present: bool `(m,)`; the others get the label shares.
    """
    return calibration.probabilities(
        settings.catalog.task,
        read_calibration(run, settings, name),
        hierarchy(run, settings),
        *(prior_logits(run, settings), logits, present),
    )


def assigned(
    run: Run, settings: Experiment, name: str, said: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """bool `(n, C)`: the labels that a model gives, of its calibrated probabilities."""
    fitted, tree = read_calibration(run, settings, name), hierarchy(run, settings)
    return calibration.assigned(settings.catalog.task, fitted, tree, said, present)


def prior_logits(run: Run, settings: Experiment) -> list[float]:
    """Logits `(C,)` of the label shares among the training products."""
    shares = np.array(train_counts(run)) / train_products(run)
    return metrics.logits_of(settings.catalog.task, shares).tolist()


def train_products(run: Run) -> int:
    """How many products towers are trained on."""
    return outputs.targets_info(run.outputs, "train")[0][0]


def train_counts(run: Run) -> tuple[int, ...]:
    """Of each label, how many of the training products have it."""
    names = run.read_labels()
    counts = outputs.label_counts(run.outputs, "train", len(names))
    if len(counts) != len(names):
        raise RunError(
            f"{run.labels_file}: holds {len(names)} labels and the targets "
            f"have {len(counts)}; run tfmm.fit --resume"
        )
    return counts


def head_inputs(
    run: Run, settings: Experiment, name: str, split: str
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """What a head reads of a split, and the products' ids.

    Returns:
        Tower, or head that it hears -> `features` `(n, d)`, calibrated `logits`
        `(n, C)`, `present` `(n,)`.
    """
    inputs = {}
    ids = None
    for heard in settings.inputs_of(name):
        stored = read_outputs(run, settings, heard, split)
        if ids is not None and not np.array_equal(ids, stored.ids):
            raise RunError(f"{run.path}: towers of {name} hold different products")
        ids = stored.ids
        inputs[heard] = calibrated(run, settings, heard, stored)
    return inputs, np.asarray(ids)


def calibrated(
    run: Run, settings: Experiment, name: str, stored: Outputs
) -> dict[str, np.ndarray]:
    """Stored outputs as heads read them: logits calibrated, zeros where absent."""
    present = np.asarray(stored.present)
    applied = read_calibration(run, settings, name).apply(stored.logits)
    return {
        "features": np.asarray(stored.features),
        "logits": applied * present[:, None],
        "present": present,
    }


def examples(
    run: Run, settings: Experiment, name: str, splits: Sequence[str]
) -> Examples:
    """What a head is fitted on: one split, or several joined."""
    inputs, targets, groups = [], [], []
    for split in splits:
        inputs.append(head_inputs(run, settings, name, split)[0])
        targets.append(outputs.read_targets(run.outputs, split)[0])
        groups.append(outputs.read_groups(run.outputs, split))
    if not sum(map(len, targets)):
        raise RunError(f"{run.path}: {' and '.join(splits)} hold no products")
    # Groups never share a split, but their numbers start from 0 in each.
    shifts = np.cumsum([0, *(x.max(initial=-1) + 1 for x in groups)])
    return Examples(
        tf.nest.map_structure(lambda *parts: np.concatenate(parts), *inputs),
        np.concatenate(targets),
        np.concatenate([x + y for x, y in zip(groups, shifts, strict=False)]),
    )


class Cases(Mapping[str, tuple[np.ndarray, np.ndarray]]):
    """What a model says with modalities hidden, each read when it is asked for."""

    def __init__(self, run: Run, settings: Experiment, name: str, split: str):
        self._place = (run, settings, name, split)
        stored: list[str] = []
        if run.cases(name, split).exists():
            mark = _mark(run, settings, name, split)
            stored = outputs.known_cases(run.cases(name, split), mark)
        self._hidden = {
            case: hidden
            for case, hidden in case_names(settings, name).items()
            if case_key(hidden) in stored
        }

    def __getitem__(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        return read_case(*self._place, self._hidden[case])

    def __iter__(self) -> Iterator[str]:
        return iter(self._hidden)

    def __len__(self) -> int:
        return len(self._hidden)


def read_cases(run: Run, settings: Experiment, name: str, split: str) -> Cases:
    """What a model says of a split with modalities hidden.

    Returns:
        Of `case_names` those that are stored -> calibrated probabilities `(n, C)`,
        the label shares where nothing is left, and `present` `(n,)`. Asking for one
        that is truncated raises `RunError`.

    Raises:
        RunError: If they are stale.
    """
    return Cases(run, settings, name, split)


def read_case(
    run: Run, settings: Experiment, name: str, split: str, hidden: frozenset[str]
) -> tuple[np.ndarray, np.ndarray]:
    """What a model says of a split without `hidden`, as `read_probabilities`.

    Raises:
        RunError: If it is not stored, truncated or stale.
    """
    place, key = run.cases(name, split), case_key(hidden)
    stored: list[str] = []
    if place.exists():
        stored = outputs.known_cases(place, _mark(run, settings, name, split))
    if key not in stored:
        raise RunError(
            f"{place}: has no answers without {' and '.join(sorted(hidden))}; "
            "run tfmm.fit --resume"
        )
    said = outputs.read_case(place, key, ("logits", "present"))
    present = said["present"]
    return probabilities(run, settings, name, said["logits"], present), present


def has_any(
    run: Run, settings: Experiment, name: str, split: str, modalities: frozenset[str]
) -> np.ndarray:
    """bool `(n,)`: the products that have one of a model's modalities."""
    here = [
        np.asarray(read_outputs(run, settings, tower, split).present)
        for tower in settings.towers_of(name)
        if settings.towers[tower].modality in modalities
    ]
    return np.any(here, axis=0)


def reads(settings: Experiment, name: str) -> dict[str, Inputs]:
    """What a model that sees products reads of them: its input -> what to read.

    Towers name their inputs after modalities, a joint network after its towers.
    """
    model = settings.model_settings(name)
    if isinstance(model, Joint):
        return {
            tower: replace(inputs, flagged=True)
            for tower in model.towers
            for inputs in reads(settings, tower).values()
        }
    if isinstance(model, Tbva):
        return reads(settings, model.image_tower) | reads(settings, model.text_tower)
    return {
        model.modality: Inputs(
            model.modality,
            getattr(model, "image_size", 0),
            getattr(model, "load_size", None),
            getattr(model, "augmentation", Augmentation()),
        )
    }


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
