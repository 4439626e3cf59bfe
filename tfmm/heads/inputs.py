"""What every head starts from: the towers' answers as Keras inputs."""

from collections.abc import Mapping
from dataclasses import dataclass

import keras
from keras import ops

from tfmm.metrics import PROBABILITY_FLOOR


@dataclass(frozen=True)
class TowerShape:
    """How wide a tower's answer is.

    Attributes:
        features: `d`.
        classes: `C`.
    """

    features: int
    classes: int


@dataclass(frozen=True)
class HeadInputs:
    """Symbolic inputs of a head.

    Attributes:
        nested: Tower name -> `features`, `logits`, `present`: the model's inputs.
        present: bool `(batch, towers)`.
        features: For each tower `(batch, d)`.
        logits: For each tower `(batch, C)`.
    """

    nested: dict
    present: object
    features: list
    logits: list


def head_inputs(shapes: Mapping[str, TowerShape]) -> HeadInputs:
    """Makes the inputs for towers of the given shapes, in their order."""
    nested = {
        name: {
            "features": keras.Input((shape.features,), name=f"{name}_features"),
            "logits": keras.Input((shape.classes,), name=f"{name}_logits"),
            "present": keras.Input((), dtype="bool", name=f"{name}_present"),
        }
        for name, shape in shapes.items()
    }
    return HeadInputs(
        nested=nested,
        present=ops.stack([tower["present"] for tower in nested.values()], axis=1),
        features=[tower["features"] for tower in nested.values()],
        logits=[tower["logits"] for tower in nested.values()],
    )


def to_probabilities(task: str, logits):
    """Softmax or sigmoid of `(batch, C)`, by the task, in the graph."""
    if task == "single_label":
        return ops.softmax(logits, axis=-1)
    return ops.sigmoid(logits)


def to_logits(task: str, probabilities):
    """log p, or log p - log(1 - p); p clipped to [1e-7, 1 - 1e-7]."""
    p = ops.clip(probabilities, PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    if task == "single_label":
        return ops.log(p)
    return ops.log(p) - ops.log1p(-p)
