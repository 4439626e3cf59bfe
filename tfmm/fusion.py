"""A head together with the heads that it hears, on what their towers say."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from tfmm import results
from tfmm.calibration import Calibration
from tfmm.experiment import Experiment
from tfmm.run import Run


class Fusion:
    """Towers' calibrated answers in, a head's answer out, in the graph.

    A plain Python object, as `tfmm.classifier.Classifier` is and for the same reason.

    Args:
        run: A run with the head, and the heads that it hears, fitted.
        settings: Its experiment.
        name: The head.

    Attributes:
        models: Head -> its Keras model, each after those that it hears.

    Raises:
        RunError: If something is missing or stale in the run.
    """

    def __init__(self, run: Run, settings: Experiment, name: str):
        self.settings, self.name = settings, name
        sources = settings.sources_of(name)
        self.models: dict[str, keras.Model] = {}
        self.calibrations: dict[str, Calibration] = {}
        for head in settings.heads_in_order():
            if head in sources or not _is_under(settings, head, name):
                continue
            self.models[head] = results.load_model(run, head)
            if head != name:
                found = results.read_calibration(run, settings, head)
                self.calibrations[head] = found

    def __call__(self, heard: Mapping[str, Mapping[str, tf.Tensor]]) -> dict:
        """What the head says.

        Args:
            heard: Tower, or joint network -> `features` `(batch, d)`, calibrated
                `logits` `(batch, C)`, `present` `(batch,)`; zeros where absent.

        Returns:
            `features`, `logits` (not calibrated) and `present` of the head.
        """
        # Some towers say more, which no head reads.
        read = ("features", "logits", "present")
        known = {x: {key: said[key] for key in read} for x, said in heard.items()}
        for head, model in self.models.items():
            inputs = {x: known[x] for x in self.settings.inputs_of(head)}
            said = model(inputs, training=False)
            present = tf.stack([x["present"] for x in inputs.values()], axis=1)
            present = tf.reduce_any(present, axis=1)
            known[head] = {**said, "present": present}
            if head in self.calibrations:
                here = tf.cast(present, tf.float32)[:, None]
                logits = calibrated(self.calibrations[head], said["logits"])
                known[head]["features"] = said["features"] * here
                known[head]["logits"] = logits * here
        return known[self.name]


def calibrated(calibration: Calibration, logits: tf.Tensor) -> tf.Tensor:
    """`Calibration.apply` of a float32 tensor `(batch, C)`, in the graph."""
    return logits * np.float32(calibration.scales) + np.float32(calibration.shifts)


def _is_under(settings: Experiment, head: str, name: str) -> bool:
    """Whether a head is `name` or one that `name` hears, at any depth."""
    if head == name:
        return True
    heard = [x for x in settings.inputs_of(name) if x in settings.heads]
    return any(_is_under(settings, head, x) for x in heard)
