"""What every head starts from: the towers' answers as Keras inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from tfmm.dataset import units_of
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
class Examples:
    """Products that a head learns from, or is watched on.

    Attributes:
        inputs: Tower -> float32 `features` `(n, d)`, calibrated `logits` `(n, C)`,
            bool `present` `(n,)`; zeros where it is absent.
        targets: int32 `(n,)` or float32 `(n, C)`.
        groups: int32 `(n,)`: products of one group belong together.
    """

    inputs: Mapping[str, Mapping[str, np.ndarray]]
    targets: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Problem:
    """What a head is built for, and from.

    Attributes:
        task: `single_label` or `multi_label`.
        shapes: The towers' shapes, by name, in order.
        modalities: Tower -> the modalities that it looks at; in training those of the
            same ones are hidden together.
        prior_logits: `C` logits for products that no tower sees.
        seed: Of every random draw.
        fit: What it is fitted on; of no products for a rule.
        held_out: What decides when to stop.
    """

    task: str
    shapes: Mapping[str, TowerShape]
    modalities: Mapping[str, tuple[str, ...]]
    prior_logits: Sequence[float]
    seed: int
    fit: Examples
    held_out: Examples

    @property
    def units(self) -> list[int]:
        """For each tower a number, the same for those of the same modalities."""
        return units_of(self.modalities[name] for name in self.shapes)


@dataclass(frozen=True)
class Lesson:
    """What of a head is trained by gradient, and on what.

    Attributes:
        model: Takes the head's inputs and shares its weights; its outputs are named
            as `losses`.
        losses: Output -> loss of targets and that output.
        targets: Output -> array `(n, ...)` for the products of `Problem.fit`.
        weights: float32 `(n,)`: how much each product counts; all the same if absent.
    """

    model: keras.Model
    losses: Mapping[str, keras.losses.Loss]
    targets: Mapping[str, np.ndarray]
    weights: np.ndarray | None = None


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
