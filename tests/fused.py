"""Towers' outputs made up for tests of heads: signal in them, and some absent."""

import numpy as np

from tfmm import metrics
from tfmm.heads.inputs import Examples, Problem, TowerShape

NAMES = ("title", "description", "image")
STRENGTHS = (3.0, 2.0, 1.5)


def examples(
    task, products=120, labels=4, names=NAMES, absent=0.15, seed=0, features=5
) -> Examples:
    """Products of which every tower knows something; features say it too."""
    generator = np.random.default_rng(seed)
    if task == "single_label":
        targets = generator.integers(labels, size=products).astype(np.int32)
        truth = metrics.one_hot(targets, labels)
    else:
        truth = generator.random((products, labels)) < 0.35
        targets = truth.astype(np.float32)
    projection = np.random.default_rng(99).normal(size=(labels, features))
    present = generator.random((products, len(names))) >= absent
    present[~present.any(axis=1), 0] = True
    inputs = {}
    for position, name in enumerate(names):
        here = present[:, position]
        noise = generator.normal(size=truth.shape)
        logits = STRENGTHS[position % 3] * (truth - 0.5) + noise
        seen = truth @ projection + generator.normal(size=(products, features))
        inputs[name] = {
            "features": np.float32(seen * here[:, None]),
            "logits": np.float32(logits * here[:, None]),
            "present": here,
        }
    return Examples(inputs, targets, np.arange(products, dtype=np.int32))


def problem(task, fit=None, held_out=None, seed=0) -> Problem:
    """What a head is built for; made-up products unless given."""
    fit = examples(task, seed=1) if fit is None else fit
    tower = next(iter(fit.inputs.values()))
    labels, features = tower["logits"].shape[1], tower["features"].shape[1]
    if held_out is None:
        held_out = examples(task, 60, labels, tuple(fit.inputs), 0.15, 2, features)
    return Problem(
        task=task,
        shapes={
            name: TowerShape(x["features"].shape[1], x["logits"].shape[1])
            for name, x in fit.inputs.items()
        },
        modalities={name: (name,) for name in fit.inputs},
        prior_logits=np.linspace(-0.3, 0.3, labels).tolist(),
        seed=seed,
        fit=fit,
        held_out=held_out,
    )


def answer(model, inputs) -> dict[str, np.ndarray]:
    """What a head says of nested arrays."""
    return {k: np.asarray(v) for k, v in model(dict(inputs), training=False).items()}
