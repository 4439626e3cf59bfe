"""What TensorFlow's seed costs when it is set before every epoch.

    python tools/bench/epochs.py [--products 1000] [--epochs 12] [--rounds 3]

Setting it drops TensorFlow's optimised graphs, so that each epoch makes them again;
`tfmm.train` sets it once a training. Fits heads on the outputs that
`tools/bench/heads.py` makes up, with and without, in turn. Prints the medians of
the seconds of an epoch, what they are of one another, and whether both end with the
same weights.
"""

import tempfile
from pathlib import Path
from typing import Annotated
from unittest import mock

import heads as made_up
import numpy as np
import tensorflow as tf
import typer

from tfmm import train
from tfmm.errors import command_line
from tfmm.heads.inputs import Problem, TowerShape
from tfmm.settings import FittedHead
from tfmm.stages.heads import fit
from tfmm.train import Places

LABELS, TOWERS = 57, 2


def problem_of(products: int) -> Problem:
    """Made-up outputs of two towers to fit on, and as many to be watched on."""
    made = [
        made_up.outputs_of_towers("single_label", products, LABELS, TOWERS, seed)
        for seed in range(2)
    ]
    return Problem(
        task="single_label",
        shapes={x: TowerShape(made_up.FEATURES, LABELS) for x in made[0].inputs},
        modalities={x: (x,) for x in made[0].inputs},
        prior_logits=[0.0] * LABELS,
        seed=0,
        fit=made[0],
        held_out=made[1],
    )


def fitted(head: FittedHead, problem: Problem, seeded: bool) -> tuple[float, str]:
    """Seconds of an epoch, and the hash of the weights in the end.

    Args:
        head: What is fitted.
        problem: And on what.
        seeded: Whether TensorFlow's seed is set before every epoch.
    """
    train.deterministic(0)
    reset = train._reset_random_layers

    def reset_all(model, seed, epoch):
        if seeded:
            tf.random.set_seed(seed + epoch)
        reset(model, seed, epoch)

    names = tuple(str(x) for x in range(LABELS))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(train, "_reset_random_layers", reset_all),
    ):
        place = Path(folder)
        places = Places(place / "log.csv", place / "board", place / "training")
        model, result = fit("head", head, problem, names, "", places)
    return result["epoch_seconds"], train.weights_hash(model)


def epochs(
    products: Annotated[int, typer.Option(min=100)] = 1_000,
    epochs: Annotated[int, typer.Option(min=3)] = 12,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
) -> None:
    """Times the epochs of heads with TensorFlow's seed set before each, and once."""
    problem = problem_of(products)
    print(f"{products} products, {LABELS} labels, {TOWERS} towers, {epochs} epochs")
    print(f"{'head':<16}{'before each':>12}{'once':>8}{'ratio':>8}  weights")
    made = made_up.heads_of("single_label", list(problem.shapes))
    for name in ("policy_network", "gate", "early_fusion"):
        head = made[name].model_copy(
            update={"max_epochs": epochs, "patience_epochs": epochs}
        )
        seconds: dict[bool, list[float]] = {True: [], False: []}
        hashes = set()
        for _ in range(rounds):
            for seeded, took in seconds.items():
                epoch_seconds, mark = fitted(head, problem, seeded)
                took.append(epoch_seconds)
                hashes.add(mark)
        each, once = (float(np.median(seconds[x])) for x in (True, False))
        told = "the same" if len(hashes) == 1 else "different"
        ratio = f"{each / once:.2f}"
        print(f"{name:<16}{each:>12.2f}{once:>8.2f}{ratio:>8}  {told}", flush=True)


if __name__ == "__main__":
    command_line(epochs, "python tools/bench/epochs.py")
