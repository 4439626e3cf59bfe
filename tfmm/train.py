"""The one training scheme, for any model and any dataset."""

import csv
import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np
import tensorflow as tf

from tfmm.errors import RunError
from tfmm.progress import progress, say
from tfmm.run import replacing
from tfmm.settings import Training

MIN_IMPROVEMENT = 1e-5  # Algorithm 1 of paper B


@dataclass(frozen=True)
class Places:
    """Where training leaves its files.

    Attributes:
        log: CSV, a line an epoch.
        tensorboard: Folder of event files.
        training: Folder of the checkpoint; gone when training has ended.
    """

    log: Path
    tensorboard: Path
    training: Path


@dataclass
class Schedule:
    """Algorithm 1 of paper B: when to halve the rate, when to stop.

    An epoch is better if its figure beats the best so far by `MIN_IMPROVEMENT`.
    After `patience` epochs in a row that are not better the rate is halved, at most
    `max_halvings` times; after that many again, training stops. An improvement sets
    the count back to zero (ours: the text's reading; the printed pseudo-code never
    does).

    Args:
        patience: Epochs.
        max_halvings: Times.

    Reference:
    - Åberg 2018, Algorithm 1.
    """

    patience: int
    max_halvings: int
    best: float = -math.inf
    best_epoch: int = 0
    stale: int = 0
    halvings: int = 0
    stopped: bool = False

    def after(self, epoch: int, figure: float) -> bool:
        """Takes an epoch's validation figure (more is better); True to halve now."""
        if figure > self.best + MIN_IMPROVEMENT:
            self.best, self.best_epoch, self.stale = figure, epoch, 0
            return False
        self.stale += 1
        if self.stale < self.patience:
            return False
        self.stale = 0
        if self.halvings == self.max_halvings:
            self.stopped = True
            return False
        self.halvings += 1
        return True


def deterministic(seed: int) -> None:
    """Makes what follows depend on `seed` alone, also on several CPU threads."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train(
    name: str,
    model: keras.Model,
    loss: keras.losses.Loss,
    settings: Training,
    seed: int,
    epoch_data: Callable[[int], tf.data.Dataset],
    validate: Callable[[], dict[str, float]],
    places: Places,
) -> dict:
    """Trains `model` in place and leaves it with the weights of its best epoch.

    Whatever is random in an epoch comes from `(seed, epoch)`, and everything that an
    epoch needs of the earlier ones is in the checkpoint. So a run that was killed
    and started again ends with the weights of one that was not.

    Args:
        name: For messages.
        model: With an output `logits`.
        loss: Of targets and logits.
        settings: Optimiser, rate, batch, schedule.
        seed: The run's seed.
        epoch_data: Epoch, from 1 -> shuffled pairs `(inputs, {"logits": targets})`.
        validate: Measures the model as it is: `settings.monitor` and what else is to
            be logged. `loss` is taken as better when lower.
        places: Where files go; a checkpoint found there is continued.

    Returns:
        `epochs`, `best_epoch`, `halvings`, `best` (the figures of that epoch) and
        `seconds`.

    Raises:
        RunError: If the loss is not finite, or the checkpoint does not fit.
    """
    started = time.monotonic()
    optimizer = _optimizer(settings)
    model.compile(optimizer=optimizer, loss={"logits": loss}, jit_compile=False)
    optimizer.build(model.trainable_variables)
    schedule = Schedule(settings.patience_epochs, settings.max_halvings)
    history: list[dict[str, float]] = []
    checkpoint, best = places.training / "checkpoint.npz", places.training / "best.npz"
    spent = 0.0
    if checkpoint.exists():
        state = _load(checkpoint, [*model.weights, *optimizer.variables])
        schedule = Schedule(**state["schedule"])
        history, spent = state["history"], state["seconds"]
        say(f"{name}: going on after epoch {len(history) - 1}")
    writer = tf.summary.create_file_writer(str(places.tensorboard))

    def end_of_epoch(epoch: int, figures: dict[str, float]) -> None:
        sign = -1.0 if settings.monitor == "loss" else 1.0
        halve = schedule.after(epoch, sign * figures[settings.monitor])
        rate = float(optimizer.learning_rate)
        history.append({"epoch": epoch, "learning_rate": rate, **figures})
        if halve:
            optimizer.learning_rate.assign(rate / 2)
        if schedule.best_epoch == epoch:
            _save(best, model.weights, {})
        state = {
            "schedule": schedule.__dict__,
            "history": history,
            "seconds": spent + time.monotonic() - started,
        }
        _save(checkpoint, [*model.weights, *optimizer.variables], state)
        _write_log(places.log, history)
        with writer.as_default(step=epoch):
            for key, value in history[-1].items():
                tf.summary.scalar(key, value)
        told = ", ".join(f"{key} {value:.4f}" for key, value in figures.items())
        say(f"{name}: epoch {epoch}, {told}" + (", rate halved" if halve else ""))

    if not history:
        end_of_epoch(0, validate())
    while len(history) <= settings.max_epochs and not schedule.stopped:
        epoch = len(history)
        _reset_random_layers(model, seed, epoch)
        data = epoch_data(epoch)
        with progress(f"{name}: epoch {epoch}", int(data.cardinality())) as show:
            steps = keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda step, logs, show=show: show(step + 1)
            )
            logs = model.fit(data, verbose=0, shuffle=False, callbacks=[steps]).history
        train_loss = logs["loss"][-1]
        if not math.isfinite(train_loss):
            raise RunError(
                f"{name}: the loss is {train_loss} in epoch {epoch}; "
                f"lower its learning_rate ({float(optimizer.learning_rate):g})"
            )
        end_of_epoch(epoch, {"train_loss": train_loss, **validate()})
    writer.close()
    _load(best, model.weights)
    return {
        "epochs": len(history) - 1,
        "best_epoch": schedule.best_epoch,
        "halvings": schedule.halvings,
        "best": history[schedule.best_epoch],
        "seconds": round(spent + time.monotonic() - started, 1),
    }


def forget_checkpoint(places: Places) -> None:
    """Removes the checkpoint, once the model itself is kept or starts anew."""
    shutil.rmtree(places.training, ignore_errors=True)


def weights_hash(model: keras.Model) -> str:
    """64 bits, as hexadecimal, of all weights of a model."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:16]


def _optimizer(settings: Training) -> keras.optimizers.Optimizer:
    rate = settings.learning_rate
    match settings.optimizer:
        case "adam":
            return keras.optimizers.Adam(rate)
        case "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay)
        case "rmsprop":
            return keras.optimizers.RMSprop(rate, momentum=settings.momentum)
        case "sgd":
            return keras.optimizers.SGD(rate, momentum=settings.momentum)


def _reset_random_layers(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets every dropout's random state from the seed and the epoch.

    Keras keeps that state out of its checkpoints.
    """
    layers = [x for x in model._flatten_layers() if hasattr(x, "seed_generator")]
    for position, layer in enumerate(layers):
        draw = np.random.default_rng((seed, epoch, position)).integers(2**31, size=2)
        layer.seed_generator.state.assign(draw.astype("uint32"))


def _save(path: Path, variables: list, state: dict) -> None:
    arrays = {f"v{i}": variable.numpy() for i, variable in enumerate(variables)}
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, state=text, **arrays)


def _load(path: Path, variables: list) -> dict:
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as arrays:
            if len(arrays.files) != len(variables) + 1:
                raise ValueError("it holds another number of variables")
            for i, variable in enumerate(variables):
                variable.assign(arrays[f"v{i}"])
            return json.loads(arrays["state"].tobytes() or b"{}")
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise RunError(f"{path}: not a checkpoint of this model: {error}") from None


def _write_log(path: Path, history: list[dict[str, float]]) -> None:
    text = io.StringIO()
    names = list(history[-1])
    log = csv.DictWriter(text, names, restval="", lineterminator="\n")
    log.writeheader()
    log.writerows(history)
    with replacing(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
