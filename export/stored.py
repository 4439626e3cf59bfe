"""What an exported model says of the test products, by the outputs store."""

from dataclasses import dataclass

import numpy as np

from tfmm import results, selective
from tfmm.classifier import Classifier
from tfmm.hiding import images_hidden
from tfmm.run import Run

NEAR = 1e-5


@dataclass(frozen=True)
class Stored:
    """Answers of `n` test products, with the rule that skips images applied.

    Attributes:
        ids: `(n,)` strings.
        probabilities: float32 `(n, C)`, calibrated.
        present: bool `(n,)`: whether there was anything to go by.
        sure: bool `(n,)`: whose images the rule passes over, if there are any.
        skipped: bool `(n,)`: those of them that have one.
        near: bool `(n,)`: too near their threshold for two machines to agree.
    """

    ids: np.ndarray
    probabilities: np.ndarray
    present: np.ndarray
    sure: np.ndarray
    skipped: np.ndarray
    near: np.ndarray


def stored_answers(run: Run, model: Classifier) -> Stored:
    """Reads them.

    Raises:
        RunError: If outputs are missing, truncated or stale.
    """
    settings = run.read_experiment()
    said, present = results.read_probabilities(run, settings, model.name, "test")
    ids = np.asarray(results.read_outputs(run, settings, model.name, "test").ids)
    sure, skipped, near = np.zeros((3, len(said)), bool)
    if model.rule is not None:
        found = selective.evidence(run, settings, model.name, "test")
        skipped = found.with_image & ~selective.looked_at(found, model.rule)
        limits = np.asarray(model.rule.thresholds)[found.label]
        near = np.abs(found.confidence - limits) < NEAR
        hidden = images_hidden(settings, model.name)
        without, worded = results.read_case(run, settings, model.name, "test", hidden)
        sure = worded & (found.confidence >= limits)
        said = np.where(skipped[:, None], without, said)
    return Stored(ids, said, present, sure, skipped, near)
