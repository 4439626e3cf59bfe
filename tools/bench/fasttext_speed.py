"""The tower `fasttext` beside the reference implementation: quality, speed, memory.

    python tools/bench/fasttext_speed.py hparams/fashion.toml --catalog catalog.csv \\
        --modality title --reference-python OTHER/bin/python

Quality: both train on the split `train` with the tower's own settings, for each rate
asked for; the rate that is best on `validation` is reported on `test`. The reference
updates once a text and its threads race, so it has other rates, and other figures at
each run. It reads the texts as `tfmm.text.clean` leaves them.

Speed: words, the end of each text counted as one, a second of training. Both are
timed over a short and a long training in turns, on the same processors; the difference
is what the additional epochs cost, without start, vocabulary and preparation.

`fasttext_steps.py` measures what a step costs by the number of buckets, and memory.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tfmm import experiment
from tfmm.catalog import Catalog
from tfmm.catalog import load as load_catalog
from tfmm.errors import TfmmError, command_line
from tfmm.options import CatalogFile, Changes, Hparams
from tfmm.progress import say
from tfmm.run import write_json
from tfmm.settings import FastText

REFERENCE = Path(__file__).with_name("fasttext_reference.py")
STEPS_AT_ONCE = 16
SHORT_EPOCHS, LONG_EPOCHS = 5, 25


def train(settings: FastText, catalog: Catalog, seed: int) -> dict[str, float]:
    """Trains the tower, its rate falling to 0.

    Returns:
        `validation` and `test`, shares of right answers; `seconds`, all of it, and
        `epoch_seconds`, the median over the epochs after the first.
    """
    import keras
    import tensorflow as tf

    from tfmm import prepared
    from tfmm.optimizers import optimizer
    from tfmm.towers.fasttext import fasttext

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    started = time.perf_counter()
    name = settings.modality
    rows = catalog.present_rows(name, "train")
    texts, targets = catalog.texts[name][rows], catalog.targets(rows)
    model = fasttext(settings, len(catalog.label_names), list(texts))
    network, prepare = model.get_layer("network"), model.get_layer("prepare")
    noise = settings.character_noise
    epoch = prepared.epochs(prepare, texts, targets, settings.batch_size, seed, noise)
    steps = settings.max_epochs * int(epoch(1).cardinality())
    rule = optimizer(settings)
    rule.learning_rate = keras.optimizers.schedules.PolynomialDecay(
        settings.learning_rate, steps, 0.0
    )
    network.compile(
        rule,
        loss={"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        jit_compile=False,
        steps_per_execution=STEPS_AT_ONCE,
    )
    seconds = []
    for number in range(1, settings.max_epochs + 1):
        epoch_started = time.perf_counter()
        network.fit(epoch(number), verbose=0, shuffle=False)
        seconds.append(time.perf_counter() - epoch_started)
    result = {
        "seconds": time.perf_counter() - started,
        "epoch_seconds": float(np.median(seconds[1:])),
    }
    for split in ("validation", "test"):
        rows = catalog.present_rows(name, split)
        logits = np.concatenate(
            [
                model.predict_on_batch({name: tf.constant(part.tolist())})["logits"]
                for part in np.array_split(catalog.texts[name][rows], 8)
            ]
        )
        result[split] = float((logits.argmax(axis=1) == catalog.targets(rows)).mean())
    return result


def write_texts(catalog: Catalog, modality: str, folder: Path) -> int:
    """Writes `SPLIT.txt` as the reference reads it; counts the words of `train`."""
    import tensorflow as tf

    from tfmm import text

    words = 0
    for split in ("train", "validation", "test"):
        rows = catalog.present_rows(modality, split)
        cleaned = text.clean(tf.constant(catalog.texts[modality][rows].tolist()))
        lines = [
            f"__label__{label} {line.decode()}\n"
            for label, line in zip(catalog.targets(rows), cleaned.numpy(), strict=True)
        ]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
        if split == "train":  # the label of a line stands in for its end
            words = sum(len(line.split()) for line in lines)
    return words


def reference(
    python: Path, settings: FastText, folder: Path, runs: list[dict], threads: int
) -> list[dict[str, float]]:
    """Trains the reference once for each of `runs`; `TfmmError` if it fails."""
    shared = {
        "dim": settings.embedding_dim,
        "minn": settings.min_character_ngram,
        "maxn": settings.max_character_ngram,
        "wordNgrams": settings.word_ngrams,
        "minCount": settings.min_word_count,
        "bucket": settings.buckets,
        "loss": "softmax",
        "thread": threads,
        "verbose": 0,
    }
    files = [f"{split}={folder / split}.txt" for split in ("validation", "test")]
    done = subprocess.run(
        [python, REFERENCE, folder / "train.txt", *files],
        input=json.dumps({"shared": shared, "runs": runs}),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise TfmmError(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def compare(
    catalog: Catalog,
    settings: FastText,
    python: Path,
    rates: tuple[list[float], list[float]],
    repeats: int,
    threads: int,
    seed: int,
) -> dict[str, Any]:
    """Quality and speed of both, beside each other.

    Args:
        catalog: Where the products are; single-label.
        settings: Of the tower.
        python: Interpreter that has the reference.
        rates: Ours, and the reference's.
        repeats: Times that both are timed.
        threads: Of each.
        seed: Of ours.
    """
    epochs = settings.max_epochs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = write_texts(catalog, settings.modality, folder)
        runs = [{"lr": rate, "epoch": epochs} for rate in rates[1]]
        theirs = reference(python, settings, folder, runs, threads)
        ours = []
        for rate in rates[0]:
            chosen = settings.model_copy(update={"learning_rate": rate})
            ours.append({"lr": rate, **train(chosen, catalog, seed)})
            say(f"rate {rate:g}: {ours[-1]['validation']:.4f} on validation")
        best = {
            "tfmm": max(ours, key=lambda run: run["validation"]),
            "reference": max(theirs, key=lambda run: run["validation"]),
        }
        chosen = settings.model_copy(update={"learning_rate": best["tfmm"]["lr"]})
        rate = best["reference"]["lr"]
        times = []
        for _ in range(repeats):
            short, long = reference(
                python,
                settings,
                folder,
                [{"lr": rate, "epoch": n} for n in (SHORT_EPOCHS, LONG_EPOCHS)],
                threads,
            )
            reference_epoch = (long["seconds"] - short["seconds"]) / (
                LONG_EPOCHS - SHORT_EPOCHS
            )
            ran = train(chosen.model_copy(update={"max_epochs": 10}), catalog, seed)
            times.append((words / ran["epoch_seconds"], words / reference_epoch))
    return {
        "modality": settings.modality,
        "words": words,
        "rates": {"tfmm": ours, "reference": theirs},
        "best": best,
        "words_per_second": times,
        "ratio": float(np.median([own / their for own, their in times])),
    }


def numbers(text: str) -> list[float]:
    """Rates, separated by commas."""
    return [float(part) for part in text.split(",")]


def fasttext_speed(
    hparams: Hparams,
    catalog: CatalogFile,
    modality: Annotated[str, typer.Option(help="Modality to read.")],
    reference_python: Annotated[
        Path, typer.Option(help="Interpreter that has the package fasttext.")
    ],
    rates: Annotated[str, typer.Option(help="Our rates.")] = "16,32",
    reference_rates: Annotated[str, typer.Option(help="Its rates.")] = "0.25,0.5,1",
    repeats: Annotated[int, typer.Option(help="Times that both are timed.")] = 3,
    threads: Annotated[int, typer.Option(help="Processors of each.")] = 2,
    set_: Changes = None,
    to: Annotated[
        Path | None, typer.Option(help="File for the numbers (JSON).")
    ] = None,
) -> None:
    """Trains the tower and the reference on a catalog's texts and prints both."""
    settings = experiment.load(hparams, set_ or [])
    products = load_catalog(catalog, settings, None)
    if products.task != "single_label":
        raise TfmmError(f"{hparams}: expected single_label. Received: {products.task}")
    # Before TensorFlow counts the processors; the reference's process inherits it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    tower = FastText(model="fasttext", modality=modality)
    both = (numbers(rates), numbers(reference_rates))
    report = compare(
        *(products, tower, reference_python, both, repeats, threads, settings.seed)
    )
    if to is not None:
        write_json(to, report)
    print(f"{'':<12}{'rate':>8}{'validation':>12}{'test':>8}{'words/s':>12}")
    for place, name in enumerate(("tfmm", "reference")):
        run = report["best"][name]
        speed = np.median([pair[place] for pair in report["words_per_second"]])
        print(
            f"{name:<12}{run['lr']:>8g}{run['validation']:>12.4f}{run['test']:>8.4f}"
            f"{speed:>12,.0f}"
        )
    each = ", ".join(f"{own / their:.2f}" for own, their in report["words_per_second"])
    print(f"words a second, ours by the reference's: {report['ratio']:.2f} ({each})")


if __name__ == "__main__":
    command_line(fasttext_speed, "python tools/bench/fasttext_speed.py")
