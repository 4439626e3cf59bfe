"""How long heads take to be fitted, and how much memory.

    python tools/bench/heads.py [--products 10000] [--labels 100] [--towers 3]

Every head, with its own defaults, on the same made-up outputs of towers: each knows
something of the labels and lacks a tenth of the products. Prints the seconds of
fitting, the share of the best tower's errors that the head mends on other products
of the same kind, and at the end the seconds of all and the most memory that the
process ever held.
"""

import resource
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tfmm import metrics, train
from tfmm.errors import command_line
from tfmm.head_data import array_batches
from tfmm.heads.inputs import Examples, Problem, TowerShape
from tfmm.results import predictor
from tfmm.settings import (
    BoostedTrees,
    EarlyFusion,
    Gate,
    LogisticStack,
    PolicyNetwork,
    Ridge,
    Rule,
    WeightedMean,
)
from tfmm.stages.heads import fit
from tfmm.train import Places

FEATURES = 128


def outputs_of_towers(
    task: str, products: int, labels: int, towers: int, seed: int
) -> Examples:
    """Made-up outputs of towers that know something each."""
    generator = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(labels, FEATURES))
    if task == "single_label":
        targets = generator.integers(labels, size=products).astype(np.int32)
        truth = metrics.one_hot(targets, labels)
    else:
        truth = generator.random((products, labels)) < 3 / labels
        targets = truth.astype(np.float32)
    present = generator.random((products, towers)) >= 0.1
    present[~present.any(axis=1), 0] = True
    inputs = {}
    for tower in range(towers):
        here = present[:, tower, None]
        logits = generator.normal(size=truth.shape) + (3.5 - 0.5 * tower) * truth
        features = truth @ directions + 3 * generator.normal(size=(products, FEATURES))
        inputs[f"tower_{tower}"] = {
            "features": np.float32(features * here),
            "logits": np.float32(logits * here),
            "present": here[:, 0],
        }
    return Examples(inputs, targets, np.arange(products, dtype=np.int32))


def heads_of(task: str, towers: list[str]) -> dict:
    """Every head that is fitted on stored outputs, at its defaults."""
    return {
        **{
            rule: Rule(model=rule, towers=towers)
            for rule in ("max", "mean", "product", "mean_logits")
        },
        "weighted_mean": WeightedMean(model="weighted_mean", towers=towers),
        "ridge": Ridge(model="ridge", towers=towers),
        "logistic_stack": LogisticStack(model="logistic_stack", towers=towers),
        "policy_network": PolicyNetwork(model="policy_network", towers=towers),
        "gate": Gate(model="gate", towers=towers),
        "early_fusion": EarlyFusion(model="early_fusion", towers=towers),
        "boosted_trees": BoostedTrees(model="boosted_trees", towers=towers),
    }


def right(task: str, targets: np.ndarray, logits: np.ndarray) -> float:
    return float(metrics.is_right(task, targets, logits).mean())


def heads(
    products: Annotated[int, typer.Option(min=100)] = 10_000,
    labels: Annotated[int, typer.Option(min=3)] = 100,
    towers: Annotated[int, typer.Option(min=2)] = 3,
    task: Annotated[str, typer.Option(help="single_label or multi_label.")] = (
        "single_label"
    ),
    only: Annotated[list[str] | None, typer.Option(help="A head.")] = None,
) -> None:
    """Fits every head on made-up outputs and prints how long each took."""
    made = [
        outputs_of_towers(task, count, labels, towers, seed)
        for seed, count in enumerate((products, products // 5, products // 5))
    ]
    problem = Problem(
        task=task,
        shapes={name: TowerShape(FEATURES, labels) for name in made[0].inputs},
        modalities={name: (name,) for name in made[0].inputs},
        prior_logits=[0.0] * labels,
        seed=0,
        fit=made[0],
        held_out=made[1],
    )
    best = max(
        right(task, made[2].targets, x["logits"]) for x in made[2].inputs.values()
    )
    print(f"{products} products, {labels} labels, {towers} towers, {task}")
    print(f"{'head':<16}{'seconds':>9}{'top1':>8}   (best tower {best:.3f})")
    seconds = {}
    names = tuple(str(x) for x in range(labels))
    for name, head in heads_of(task, list(problem.shapes)).items():
        if only and name not in only:
            continue
        train.deterministic(0)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            places = Places(place / "log.csv", place / "board", place / "training")
            started = time.monotonic()
            model, _ = fit(name, head, problem, names, "", places)
            seconds[name] = time.monotonic() - started
        predict = predictor(model)
        batches = array_batches(dict(made[2].inputs), 256)
        said = np.concatenate([predict(batch)["logits"] for batch in batches])
        top1 = right(task, made[2].targets, said)
        print(f"{name:<16}{seconds[name]:>9.1f}{top1:>8.3f}", flush=True)
    without = sum(x for name, x in seconds.items() if name != "boosted_trees")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"all but boosted_trees: {without:.1f} s; most memory: {memory:.2f} GB")


if __name__ == "__main__":
    command_line(heads, "python tools/bench/heads.py")
