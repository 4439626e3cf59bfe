"""The one training scheme, for any model and any dataset."""

import csv
import hashlib
import io
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import keras
import numpy as np
import tensorflow as tf

from tfmm.errors import RunError
from tfmm.optimizers import optimizer
from tfmm.progress import progress, say
from tfmm.run import replacing
from tfmm.schedule import Schedule, rate_factor
from tfmm.settings import Optimization, Tower, Training


class Enough(Exception):
    """Raised by the watch of a training that shall end with its best epoch so far."""


@dataclass(frozen=True)
class Places:
    """Where training leaves its files, and who else is told how it goes.

    Attributes:
        log: CSV, a line an epoch.
        tensorboard: Folder of event files.
        training: Folder of the checkpoint; gone when training has ended.
        watch: Called with the figures of each epoch; what it raises ends the training,
            `Enough` with the best epoch so far.
    """

    log: Path
    tensorboard: Path
    training: Path
    watch: Callable[[Mapping[str, float]], None] = lambda figures: None


def deterministic(seed: int) -> None:
    """Makes what follows depend on `seed` alone, also on several CPU threads."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train(
    name: str,
    model: keras.Model,
    losses: Mapping[str, keras.losses.Loss],
    settings: Training,
    seed: int,
    epoch_data: Callable[[int], tf.data.Dataset],
    validate: Callable[[], dict[str, float]],
    places: Places,
    steps_per_call: int = 1,
    rate_factors: Mapping[int, float] | None = None,
) -> dict:
    """Trains `model` in place and leaves it with the weights of its best epoch.

    Whatever is random in an epoch comes from `(seed, epoch)`, and everything that an
    epoch needs of the earlier ones is in the checkpoint. So a run that was killed
    and started again ends with the weights of one that was not.

    Epochs are counted through all stages. A stage starts from the best weights so
    far, with an optimiser of its own. Call it in the scope of a `tf.distribute`
    strategy that `model` was built in.

    Args:
        name: For messages.
        model: With the outputs that `losses` names.
        losses: Output -> loss of its targets and it.
        settings: Optimiser, rate, batch, schedule; of a tower also its stages.
        seed: The run's seed.
        epoch_data: Epoch, from 1 -> shuffled pairs of inputs and of a dict from output
            to targets, or triples with weights.
        validate: Measures the model as it is: `settings.monitor` and what else is to
            be logged. `loss` is taken as better when lower.
        places: Where files go; a checkpoint found there is continued.
        steps_per_call: Updates between two looks at the rate and the progress bar.
        rate_factors: `id` of a weight -> what its rate is of the others'.

    Returns:
        `epochs`, `best_epoch`, `halvings` (of the last stage), `best` (the figures of
        that epoch), `seconds` in all, and `epoch_seconds`, the median of an epoch's
        training without its validation.

    Raises:
        RunError: If the loss is not finite, or the checkpoint does not fit.
    """
    plan = settings.stage_plan() if isinstance(settings, Tower) else [("all", settings)]
    # In a strategy's scope Keras averages a first batch over the devices to build the
    # model by, which strings do not allow. Ours is built; without a strategy of its
    # own it takes the scope's and leaves that out.
    model._distribute_strategy = None
    made = _Progress(name, model, settings, places, rate_factors or {})
    made.restore(plan)
    if not made.history:
        made.end_of_epoch(0, validate())
    with suppress(Enough):
        for number, (trainable_layers, optimization) in enumerate(plan, start=1):
            if number < made.stage:
                continue
            if number > made.stage:
                made.next_stage(optimization)
            set_trainable(model, trainable_layers)
            rule = made.optimizer or optimizer(optimization, made.rate_factors)
            made.optimizer = rule
            model.compile(
                optimizer=rule,
                loss=dict(losses),
                steps_per_execution=steps_per_call,
                jit_compile=False,
            )
            if not rule.built:
                rule.build(model.trainable_variables)
            while not made.stage_is_over(optimization):
                epoch = len(made.history)
                _reset_random_layers(model, seed, epoch)
                figures = _one_epoch(
                    name, model, epoch, epoch_data(epoch), optimization, made
                )
                made.end_of_epoch(epoch, {**figures, **validate()})
    return made.finish()


class _Progress:
    """What is known between two epochs, and its files."""

    def __init__(
        self,
        name: str,
        model: keras.Model,
        settings: Training,
        places: Places,
        rate_factors: Mapping[int, float],
    ):
        self.rate_factors = rate_factors
        self.name, self.model, self.places = name, model, places
        self.monitor = settings.monitor
        self.started = time.monotonic()
        self.spent = 0.0
        self.history: list[dict[str, float]] = []
        self.stage = 0
        self.stage_epochs = 0
        self.epoch_seconds: list[float] = []
        self.schedule = Schedule(0, 0)
        self.optimizer: keras.optimizers.Optimizer | None = None
        self.checkpoint = places.training / "checkpoint.npz"
        self.best = places.training / "best.npz"
        self.writer = tf.summary.create_file_writer(str(places.tensorboard))

    def restore(self, plan: list) -> None:
        """Takes up the checkpoint, if there is one."""
        if not self.checkpoint.exists():
            return
        state = _read_state(self.checkpoint)
        self.schedule = Schedule(**state["schedule"])
        self.history, self.spent = state["history"], state["seconds"]
        self.stage, self.stage_epochs = state["stage"], state["stage_epochs"]
        self.epoch_seconds = state["epoch_seconds"]
        variables = [*self.model.weights]
        if self.stage:
            trainable_layers, optimization = plan[self.stage - 1]
            set_trainable(self.model, trainable_layers)
            self.optimizer = optimizer(optimization, self.rate_factors)
            self.optimizer.build(self.model.trainable_variables)
            variables += self.optimizer.variables
        _load(self.checkpoint, variables)
        say(f"{self.name}: going on after epoch {len(self.history) - 1}")

    def next_stage(self, optimization: Optimization) -> None:
        """Starts a stage from the best weights so far."""
        if self.stage:
            _load(self.best, self.model.weights)
        self.stage, self.stage_epochs, self.optimizer = self.stage + 1, 0, None
        patience = (
            optimization.patience_epochs if optimization.schedule == "plateau" else 0
        )
        self.schedule = Schedule(
            patience,
            optimization.max_halvings,
            self.schedule.best,
            self.schedule.best_epoch,
        )

    def stage_is_over(self, optimization: Optimization) -> bool:
        return self.schedule.stopped or self.stage_epochs >= optimization.max_epochs

    def end_of_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Logs an epoch, judges it, and writes the checkpoint."""
        sign = -1.0 if self.monitor == "loss" else 1.0
        halve = self.schedule.after(epoch, sign * figures[self.monitor])
        self.history.append({"epoch": epoch, "stage": self.stage, **figures})
        self.stage_epochs += bool(self.stage)
        if self.schedule.best_epoch == epoch:
            _save(self.best, self.model.weights, {})
        state = {
            "schedule": self.schedule.__dict__,
            "history": self.history,
            "stage": self.stage,
            "stage_epochs": self.stage_epochs,
            "epoch_seconds": self.epoch_seconds,
            "seconds": self.seconds(),
        }
        variables = [*self.model.weights]
        if self.optimizer is not None:
            variables += self.optimizer.variables
        _save(self.checkpoint, variables, state)
        _write_log(self.places.log, self.history)
        with self.writer.as_default(step=epoch):
            for key, value in self.history[-1].items():
                tf.summary.scalar(key, value)
        told = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
        say(f"{self.name}: epoch {epoch}, {told}" + (", rate halved" if halve else ""))
        self.places.watch(self.history[-1])

    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def finish(self) -> dict:
        """Leaves the model with its best weights; what `train` returns."""
        self.writer.close()
        _load(self.best, self.model.weights)
        return {
            "epochs": len(self.history) - 1,
            "best_epoch": self.schedule.best_epoch,
            "halvings": self.schedule.halvings,
            "best": self.history[self.schedule.best_epoch],
            "seconds": round(self.seconds(), 1),
            "epoch_seconds": float(np.median(self.epoch_seconds or [0.0])),
        }


def _one_epoch(
    name: str,
    model: keras.Model,
    epoch: int,
    data: tf.data.Dataset,
    optimization: Optimization,
    made: _Progress,
) -> dict[str, float]:
    """Trains one epoch; the rate it ended with and its loss."""
    steps = int(data.cardinality())
    before = made.stage_epochs * steps

    rate = 0.0

    def set_rate(step, logs=None):
        nonlocal rate
        factor = rate_factor(optimization, before + step, steps, made.schedule.halvings)
        rate = optimization.learning_rate * factor
        model.optimizer.learning_rate.assign(rate)

    set_rate(0)
    callbacks = []
    if optimization.warmup_epochs or optimization.schedule != "plateau":
        callbacks.append(keras.callbacks.LambdaCallback(on_train_batch_begin=set_rate))
    started = time.monotonic()
    with progress(f"{name}: epoch {epoch}", steps) as show:
        callbacks.append(
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda step, logs: show(step + 1)
            )
        )
        logs = model.fit(data, verbose=0, shuffle=False, callbacks=callbacks).history
    loss = logs["loss"][-1]
    if not math.isfinite(loss):
        raise RunError(
            f"{name}: the loss is {loss} in epoch {epoch}; "
            f"lower its learning_rate ({optimization.learning_rate:g})"
        )
    made.epoch_seconds.append(round(time.monotonic() - started, 2))
    return {"learning_rate": rate, "train_loss": loss}


def set_trainable(model: keras.Model, trainable_layers: int | str) -> None:
    """Freezes the backbone's first layers; the rest of the model trains.

    Batch normalisation of a frozen layer stays in inference mode, as Keras does.

    Args:
        model: A tower; its backbone, if any, is the layer called `backbone`.
        trainable_layers: How many of the backbone's last layers train, or `"all"`.
    """
    backbones = [x for x in model._flatten_layers() if x.name == "backbone"]
    for backbone in backbones:
        count = len(backbone.layers)
        frozen = 0 if trainable_layers == "all" else max(count - trainable_layers, 0)
        for position, layer in enumerate(backbone.layers):
            layer.trainable = position >= frozen


def forget_checkpoint(places: Places) -> None:
    """Removes the checkpoint, once the model itself is kept or starts anew."""
    shutil.rmtree(places.training, ignore_errors=True)


def weights_hash(model: keras.Model) -> str:
    """64 bits, as hexadecimal, of all weights of a model."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:16]


def _reset_random_layers(model: keras.Model, seed: int, epoch: int) -> None:
    """Sets every layer's random state, and Python's, from the seed and the epoch.

    Keras keeps that state out of its checkpoints. `keras.utils.set_random_seed` would
    also make TensorFlow forget its optimised graphs, and so make them in every epoch.
    """
    generators = [
        x for layer in model._flatten_layers() for x in layer._seed_generators
    ]
    for position, generator in enumerate(generators):
        draw = np.random.default_rng((seed, epoch, position)).integers(2**31, size=2)
        generator.state.assign(draw.astype("uint32"))
    draw = int(np.random.default_rng((seed, epoch)).integers(2**31))
    random.seed(draw)
    np.random.seed(draw)


def _save(path: Path, variables: list, state: dict) -> None:
    """Writes an .npz, one array at a time: a table of 2,000,000 rows is large."""
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    with replacing(path) as partial, ZipFile(partial, "w") as file:
        _write_array(file, "state", text)
        for i, variable in enumerate(variables):
            _write_array(file, f"v{i}", np.asarray(variable.numpy()))


def _write_array(file: ZipFile, name: str, array: np.ndarray) -> None:
    with file.open(f"{name}.npy", "w", force_zip64=True) as part:
        np.lib.format.write_array(part, array, allow_pickle=False)


def _load(path: Path, variables: list) -> None:
    with _opened(path) as arrays:
        if len(arrays.files) != len(variables) + 1:
            raise ValueError("it holds another number of variables")
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"v{i}"])


def _read_state(path: Path) -> dict:
    with _opened(path) as arrays:
        state = json.loads(arrays["state"].tobytes() or b"{}")
        if "epoch_seconds" not in state:
            raise ValueError("its state is not whole")
        return state


@contextmanager
def _opened(path: Path) -> Iterator:
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as arrays:
            yield arrays
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise RunError(f"{path}: not a checkpoint of this model: {error}") from None


def _write_log(path: Path, history: list[dict[str, float]]) -> None:
    text = io.StringIO()
    names = list(dict.fromkeys(key for figures in history for key in figures))
    log = csv.DictWriter(text, names, restval="", lineterminator="\n")
    log.writeheader()
    log.writerows(history)
    with replacing(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
