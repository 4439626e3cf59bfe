"""A run's towers, calibration and head as one graph: raw inputs to category names.

What is predicted, exported and served is this one function.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfmm import cells, image, results
from tfmm.errors import ExperimentError, did_you_mean
from tfmm.experiment import Experiment
from tfmm.run import Run
from tfmm.settings import Modality

DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Tower:
    """A trained tower and what it reads.

    Attributes:
        model: dict of its modality -> `features`, `logits`.
        modality: The modality's name.
        image_size: Side in pixels; 0 if it is no image.
        num_cells: Cells of a row; 0 if it is no table.
        temperature: Its logits are divided by it before a head reads them.
    """

    model: keras.Model
    modality: str
    image_size: int
    num_cells: int
    temperature: float


class Classifier:
    """Answers for raw products, in the graph.

    A plain Python object, so that an export can hold the models' variables without
    holding Keras objects. Answers depend on a row alone, never on its batch. Every
    non-empty subset of modalities is answered; without any, the label shares of the
    training products are, and nothing is assigned.

    Args:
        run: A run with the model and its towers fitted.
        settings: Its experiment.
        name: The head, or a single tower.
        top_k: Labels in an answer; at most all of them.

    Attributes:
        modalities: Name -> settings of the inputs, in the experiment's order.
        label_names: The `C` labels.
        top_k: Labels in an answer.

    Raises:
        RunError: If something is missing or stale in the run.
        ExperimentError: If there is no such model.
    """

    def __init__(self, run: Run, settings: Experiment, name: str, top_k: int):
        models = (*settings.towers, *settings.heads)
        if name not in models:
            raise ExperimentError(
                f"{run.path}: no head or tower {name!r}{did_you_mean(name, models)}"
            )
        self.name = name
        self.task = settings.catalog.task
        self.label_names = run.read_labels()
        self.top_k = min(top_k, len(self.label_names))
        self.towers: dict[str, Tower] = {}
        for tower in settings.towers_of(name):
            reads = results.tower_inputs(settings.towers[tower])
            about = settings.modalities[reads.modality]
            self.towers[tower] = Tower(
                results.load_model(run, tower),
                reads.modality,
                reads.image_size,
                len(about.columns) if about.kind == "table" else 0,
                results.read_calibration(run, settings, tower).temperature,
            )
        used = {tower.modality for tower in self.towers.values()}
        self.modalities: dict[str, Modality] = {
            modality: about
            for modality, about in settings.modalities.items()
            if modality in used
        }
        self.head = results.load_model(run, name) if name in settings.heads else None
        calibration = results.read_calibration(run, settings, name)
        self.temperature = np.float32(calibration.temperature)
        self.thresholds = np.float32(calibration.thresholds)
        self.prior = np.float32(results.prior_logits(run, settings))

    @property
    def images(self) -> list[str]:
        """The image modalities, in order."""
        return [
            name for name, about in self.modalities.items() if about.kind == "image"
        ]

    @property
    def models(self) -> list[keras.Model]:
        """Every Keras model inside."""
        towers = [tower.model for tower in self.towers.values()]
        return towers if self.head is None else [*towers, self.head]

    def signature(self) -> dict[str, tf.TensorSpec]:
        """What `answer` takes: string `(batch,)` for each modality."""
        return {
            name: tf.TensorSpec([None], tf.string, name) for name in self.modalities
        }

    def answer(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Classifies raw products.

        Args:
            inputs: Modality -> string `(batch,)`: the text, the bytes of an image
                file, or a table's cells in order with tabs between them, of which
                missing ones are empty and those past its columns are not read; `""`
                where all of it is missing.

        Returns:
            `probabilities` float32 `(batch, C)`; `labels` string, `scores` float32
            and `assigned` bool `(batch, top_k)`, the most probable first; with
            images also `image_used` bool and `image_status` string `(batch, images)`,
            one of `tfmm.image.STATUSES`.
        """
        probabilities, present, statuses = self._probabilities(inputs)
        scores, indices = tf.math.top_k(probabilities, self.top_k)
        if self.task == "single_label":
            over = tf.broadcast_to(tf.range(self.top_k) == 0, tf.shape(indices))
        else:
            over = scores >= tf.gather(self.thresholds, indices)
        result = {
            "probabilities": probabilities,
            "labels": tf.gather(tf.constant(self.label_names), indices),
            "scores": scores,
            "assigned": over & present[:, None],
        }
        if statuses:
            codes = tf.stack(list(statuses.values()), axis=1)
            result["image_used"] = tf.equal(codes, image.USED)
            result["image_status"] = tf.gather(tf.constant(image.STATUSES), codes)
        return result

    def _probabilities(self, inputs):
        decoded: dict[tuple[str, int], tuple[tf.Tensor, tf.Tensor]] = {}
        heard = {}
        for name, tower in self.towers.items():
            raw = inputs[tower.modality]
            if tower.image_size:
                key = (tower.modality, tower.image_size)
                if key not in decoded:
                    decoded[key] = image.decode_batch(raw, tower.image_size)
                images, status = decoded[key]
                heard[name] = _look_at(tower, images, tf.equal(status, image.USED))
            else:
                heard[name] = _read(tower, raw)
        present = tf.stack([x["present"] for x in heard.values()], axis=1)
        any_present = tf.reduce_any(present, axis=1)
        if self.head is None:
            logits = heard[self.name]["logits"]
        else:
            for name, tower in self.towers.items():
                heard[name]["logits"] /= np.float32(tower.temperature)
            logits = self.head(heard, training=False)["logits"]
        logits = tf.where(any_present[:, None], logits / self.temperature, self.prior)
        if self.task == "single_label":
            probabilities = tf.nn.softmax(logits)
        else:
            probabilities = tf.sigmoid(logits)
        statuses = {modality: status for (modality, _), (_, status) in decoded.items()}
        return probabilities, any_present, statuses


def load(run: Run, name: str | None = None) -> Classifier:
    """The classifier of a run.

    Args:
        run: A fitted run.
        name: A head or a tower; what `[export]` names by default.

    Raises:
        ExperimentError: If no model is named and the experiment has no `[export]`.
        RunError: If something is missing or stale in the run.
    """
    settings = run.read_experiment()
    if name is None and settings.export is None:
        models = ", ".join((*settings.heads, *settings.towers))
        raise ExperimentError(
            f"{run.path}: the experiment has no [export] head; name one: {models}"
        )
    top_k = settings.export.top_k if settings.export else DEFAULT_TOP_K
    return Classifier(run, settings, name or settings.export.head, top_k)


def _read(tower: Tower, texts: tf.Tensor) -> dict[str, tf.Tensor]:
    present = cells.present(texts, tower.num_cells)
    outputs = tower.model({tower.modality: texts}, training=False)
    here = tf.cast(present, tf.float32)[:, None]
    return {
        "features": outputs["features"] * here,
        "logits": outputs["logits"] * here,
        "present": present,
    }


def _look_at(
    tower: Tower, images: tf.Tensor, present: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Runs the network on the images that are there, and on no others."""
    rows = tf.where(present)
    widths = {key: value.shape[-1] for key, value in tower.model.output.items()}

    def run():
        some = tf.gather(images, rows[:, 0])
        outputs = tower.model({tower.modality: some}, training=False)
        return [outputs[key] for key in widths]

    def nothing():
        return [tf.zeros([0, width]) for width in widths.values()]

    some = tf.cond(tf.size(rows) > 0, run, nothing)
    batch = tf.shape(present, out_type=tf.int64)[0]
    result = {"present": present}
    for (key, width), values in zip(widths.items(), some, strict=True):
        whole = tf.scatter_nd(rows, values, tf.stack([batch, width]))
        result[key] = tf.ensure_shape(whole, [None, width])
    return result
