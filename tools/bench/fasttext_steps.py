"""What a training step of the tower `fasttext` costs, by the number of buckets.

    python tools/bench/fasttext_steps.py hparams/fashion.toml --catalog catalog.csv \\
        --modality title --optimizer sgd

trains one tower with few and one with many buckets on a catalog's texts, an epoch each
in turns, and prints the median of their ratios. Then a fresh process trains only the
large one and prints how much memory it took at most, measured from after a small
tower was trained, by the size of its table.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tfmm import experiment
from tfmm.catalog import Catalog
from tfmm.catalog import load as load_catalog
from tfmm.errors import command_line
from tfmm.options import CatalogFile, Hparams

BUCKETS = (20_000, 2_000_000)
ROUNDS = 12


def training(catalog: Catalog, modality: str, buckets: int, optimizer_name: str):
    """A compiled `network`, and a function that gives an epoch of it."""
    import keras

    from tfmm import prepared
    from tfmm.optimizers import optimizer
    from tfmm.settings import FastText
    from tfmm.towers.fasttext import fasttext

    settings = FastText(
        model="fasttext", modality=modality, optimizer=optimizer_name, buckets=buckets
    )
    keras.utils.set_random_seed(0)
    rows = catalog.present_rows(modality, "train")
    texts, targets = catalog.texts[modality][rows], catalog.targets(rows)
    model = fasttext(settings, len(catalog.label_names), list(texts))
    epoch = prepared.epochs(
        model.get_layer("prepare"), texts, targets, settings.batch_size, 0, 0.0
    )
    network, rule = model.get_layer("network"), optimizer(settings)
    loss = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    network.compile(rule, loss=loss, jit_compile=False)
    rule.build(network.trainable_variables)
    return network, epoch


def seconds_of(network, epoch, number: int) -> float:
    """Of one epoch, by its steps."""
    data = epoch(number)
    started = time.perf_counter()
    network.fit(data, verbose=0, shuffle=False)
    return (time.perf_counter() - started) / int(data.cardinality())


def peak_bytes() -> int:
    """Most memory that this process has had (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def fasttext_steps(
    hparams: Hparams,
    catalog: CatalogFile,
    modality: Annotated[str, typer.Option(help="Modality to read.")],
    optimizer: Annotated[str, typer.Option(help="sgd or adagrad.")] = "sgd",
    memory_only: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Measures step and memory of few and of many buckets."""
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    products = load_catalog(catalog, experiment.load(hparams), None)
    if memory_only:
        seconds_of(*training(products, modality, 10, optimizer), 1)
        before = peak_bytes()
        network, epoch = training(products, modality, BUCKETS[1], optimizer)
        seconds_of(network, epoch, 1)
        table = network.get_layer("embedding").embeddings
        times = (peak_bytes() - before) / (4 * int(np.prod(table.shape)))
        print(f"{optimizer}: memory at most {times:.2f} times the table")
        return
    both = [training(products, modality, buckets, optimizer) for buckets in BUCKETS]
    times = [[seconds_of(*one, number) for one in both] for number in range(ROUNDS + 1)]
    few, many = np.median(times[1:], axis=0)  # the first traces
    ratio = np.median([large / small for small, large in times[1:]])
    least = np.min(times[1:], axis=0)
    print(
        f"{optimizer}: {few * 1000:.2f} ms a step with {BUCKETS[0]:,} buckets, "
        f"{many * 1000:.2f} ms with {BUCKETS[1]:,}; ratio {ratio:.2f}, "
        f"of the quickest epochs {least[1] / least[0]:.2f}"
    )
    subprocess.run([sys.executable, *sys.argv, "--memory-only"], check=True)


if __name__ == "__main__":
    command_line(fasttext_steps, "python tools/bench/fasttext_steps.py")
