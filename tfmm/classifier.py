"""A run's towers, calibration and head as one graph: raw inputs to category names.

What is predicted, exported and served is this one function.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfmm import cells, image, results
from tfmm.calibration import Calibration
from tfmm.dataset import Inputs
from tfmm.errors import ExperimentError, did_you_mean
from tfmm.experiment import Experiment
from tfmm.fusion import Fusion, calibrated
from tfmm.run import Run
from tfmm.settings import Modality

DEFAULT_TOP_K = 5


@dataclass(frozen=True)
class Source:
    """A trained model that sees products, and what it reads of them.

    Attributes:
        model: dict of its inputs -> `features`, `logits`, and of some `attention`.
        reads: Input -> what is read for it.
        needs: Modalities without any of which it is absent.
        calibration: What its logits go through before a head reads them.
    """

    model: keras.Model
    reads: Mapping[str, Inputs]
    needs: tuple[str, ...]
    calibration: Calibration

    @property
    def sees_images(self) -> bool:
        return any(inputs.image_size for inputs in self.reads.values())


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
        self.sources: dict[str, Source] = {}
        for source in settings.sources_of(name):
            needs = settings.modalities_of(source)
            if source in settings.towers:
                needs = [settings.towers[source].modality]
            self.sources[source] = Source(
                results.load_model(run, source),
                results.reads(settings, source),
                tuple(needs),
                results.read_calibration(run, settings, source),
            )
        self.towers = settings.towers_of(name)
        self.modalities: dict[str, Modality] = {
            modality: settings.modalities[modality]
            for modality in settings.modalities_of(name)
        }
        self.fusion = None
        if not settings.sees_products(name):
            self.fusion = Fusion(run, settings, name)
        self.calibration = results.read_calibration(run, settings, name)
        self.thresholds = np.float32(self.calibration.thresholds)
        self.hierarchy = results.hierarchy(run, settings)
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
        heads = [] if self.fusion is None else self.fusion.models.values()
        return [*(source.model for source in self.sources.values()), *heads]

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
        if self.hierarchy is None:
            over = scores >= tf.gather(self.thresholds, indices)
        else:
            given = self.hierarchy.assigned_in_graph(probabilities, self.thresholds)
            over = tf.gather(given, indices, batch_dims=1)
        if self.task == "single_label":
            over &= tf.range(self.top_k) == 0
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
        for source in self.sources.values():
            for part in source.reads.values():
                key = (part.modality, part.image_size)
                if part.image_size and key not in decoded:
                    decoded[key] = image.decode_batch(inputs[key[0]], key[1])
        heard = {
            name: _ask(source, self._values(source, inputs, decoded))
            for name, source in self.sources.items()
        }
        present = tf.stack([x["present"] for x in heard.values()], axis=1)
        any_present = tf.reduce_any(present, axis=1)
        if self.fusion is None:
            logits = heard[self.name]["logits"]
        else:
            for name, source in self.sources.items():
                here = tf.cast(heard[name]["present"], tf.float32)[:, None]
                logits = calibrated(source.calibration, heard[name]["logits"])
                heard[name]["logits"] = logits * here
            logits = self.fusion(heard)["logits"]
        logits = calibrated(self.calibration, logits)
        logits = tf.where(any_present[:, None], logits, self.prior)
        if self.task == "single_label":
            probabilities = tf.nn.softmax(logits)
        else:
            probabilities = tf.sigmoid(logits)
        if self.hierarchy is not None:
            probabilities = self.hierarchy.consistent_in_graph(probabilities)
        statuses = {modality: status for (modality, _), (_, status) in decoded.items()}
        return probabilities, any_present, statuses

    def _values(self, source: Source, inputs, decoded) -> dict[str, tf.Tensor]:
        """What a source takes, with what of it is there as `INPUT_present`."""
        values = {}
        for key, part in source.reads.items():
            raw = inputs[part.modality]
            if part.image_size:
                values[key], status = decoded[part.modality, part.image_size]
                here = tf.equal(status, image.USED)
            else:
                about = self.modalities[part.modality]
                num_cells = len(about.columns) if about.kind == "table" else 0
                here = cells.present(raw, num_cells)
                values[key] = tf.where(here, raw, "")
            values[f"{key}_present"] = here
        return values


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


def _ask(source: Source, values: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What a source says; zeros for the products that it has nothing to see of.

    A network of images runs on the rows that it has something of, and on no others.
    """
    here = [
        values[f"{key}_present"]
        for key, part in source.reads.items()
        if part.modality in source.needs
    ]
    present = tf.reduce_any(tf.stack(here, axis=1), axis=1)
    taken = {key: values[key] for key in source.model.input}
    if not source.sees_images:
        said = source.model(taken, training=False)
        mask = tf.cast(present, tf.float32)[:, None]
        return {**{key: x * mask for key, x in said.items()}, "present": present}
    rows = tf.where(present)
    shapes = {key: value.shape[1:] for key, value in source.model.output.items()}

    def run():
        some = {key: tf.gather(value, rows[:, 0]) for key, value in taken.items()}
        said = source.model(some, training=False)
        return [said[key] for key in shapes]

    def nothing():
        return [tf.zeros([0, *shape]) for shape in shapes.values()]

    some = tf.cond(tf.size(rows) > 0, run, nothing)
    batch = tf.shape(present, out_type=tf.int64)[:1]
    result = {"present": present}
    for (key, shape), found in zip(shapes.items(), some, strict=True):
        size = tf.concat([batch, tf.constant(shape, tf.int64)], axis=0)
        whole = tf.scatter_nd(rows, found, size)
        result[key] = tf.ensure_shape(whole, [None, *shape])
    return result
