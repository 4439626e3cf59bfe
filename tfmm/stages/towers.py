"""Training one tower, and once more without each fold for out-of-fold outputs."""

import shutil
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from tfmm import (
    calibration,
    dataset,
    devices,
    metrics,
    outputs,
    prepared,
    results,
    train,
)
from tfmm.catalog import Catalog
from tfmm.dataset import Caches
from tfmm.errors import ExperimentError, RunError
from tfmm.experiment import Experiment
from tfmm.losses import loss_for
from tfmm.progress import say
from tfmm.run import Run, fingerprint, replacing
from tfmm.settings import Tbva
from tfmm.splits import folds_of
from tfmm.stages import answers, keeping
from tfmm.towers import TOWERS
from tfmm.towers.output import initialize
from tfmm.towers.tbva import tbva
from tfmm.train import Places

# Updates on prepared ids take so little that calling each from Python would double it.
PREPARED_STEPS = 16


def fit_tower(run: Run, settings: Experiment, catalog: Catalog, name: str) -> None:
    """Trains a tower and writes its outputs and calibration, unless all is there."""
    mark = results.model_fingerprint(run, settings, name)
    reads = results.reads(settings, name)
    caches: Caches = {}
    if not keeping.is_fitted(run, name, mark):
        caches = answers.caches_of(run, settings, catalog, reads)
        rows = catalog.present_rows(settings.towers[name].modality, "train")
        model, result = fit_on(
            run, settings, catalog, name, rows, caches, mark, keeping.places(run, name)
        )
        keeping.keep(run, name, mark, model, result)
    answers.write_all(run, settings, name, catalog, caches)
    if settings.has_out_of_fold(name):
        _write_out_of_fold(run, settings, catalog, name, caches)


def fit_on(
    run: Run,
    settings: Experiment,
    catalog: Catalog,
    name: str,
    rows: np.ndarray,
    caches: Caches,
    mark: str,
    places: Places,
) -> tuple[keras.Model, dict]:
    """Trains a tower on some rows; the model as it is kept, and how it went."""
    train.deterministic(settings.seed)
    tower = settings.towers[name]
    reads = results.reads(settings, name)
    held_out = catalog.present_rows(tower.modality, "validation")
    texts = catalog.texts.get(tower.modality)
    training_texts = () if texts is None else texts[rows]
    targets = catalog.targets(held_out)
    build = partial(_build, run, settings, name, catalog, training_texts)
    strategy = devices.strategy(tower.devices)
    with strategy.scope():
        model = build(tower.precision)
        predict = results.predictor(model)
    layers = {layer.name: layer for layer in model.layers}
    prepare = layers.get("prepare")
    if prepare is not None:
        epoch_data = prepared.epochs(
            prepare,
            training_texts,
            catalog.targets(rows),
            tower.batch_size,
            settings.seed,
            tower.character_noise,
        )
    else:

        def epoch_data(epoch: int) -> tf.data.Dataset:
            seed = (settings.seed, epoch)
            hide = getattr(tower, "modality_dropout", 0.0)
            return dataset.epoch(
                *(catalog, rows, reads, tower.batch_size, seed, caches, hide),
                always=[tower.modality],
            )

    def validate() -> dict[str, float]:
        data = dataset.batches(catalog, held_out, reads, answers.PREDICT_BATCH, caches)
        logits = np.concatenate([predict(batch)["logits"] for batch in data])
        return metrics.quick_measures(catalog.task, targets, logits)

    if tower.devices > 1:
        whole = epoch_data

        def epoch_data(epoch: int) -> tf.data.Dataset:
            return devices.even(
                whole(epoch), len(rows), tower.batch_size, tower.devices
            )

    trained = model
    if prepare is not None:
        # A model of its own, or the network would be saved with an optimiser.
        network = layers["network"]
        trained = keras.Model(network.input, network.output)
    loss = loss_for(catalog.task, tower, run.read_labels(), catalog.targets(rows))
    with strategy.scope():
        result = keeping.trained(
            *(name, tower, settings.seed, mark, trained, {"logits": loss}),
            *(epoch_data, validate, places),
            1 if prepare is None else PREPARED_STEPS,
        )
    if tower.precision != "float32" or tower.devices > 1:
        # What is kept computes in float32 on one device, with the same weights.
        plain = build("float32")
        plain.set_weights(model.get_weights())
        model = plain
    return model, result


def untrained(
    run: Run, settings: Experiment, catalog: Catalog, name: str
) -> keras.Model:
    """A tower as its training starts, in float32."""
    texts = catalog.texts.get(settings.towers[name].modality)
    rows = catalog.present_rows(settings.towers[name].modality, "train")
    training_texts = () if texts is None else texts[rows]
    return _build(run, settings, name, catalog, training_texts, "float32")


def _build(
    run: Run,
    settings: Experiment,
    name: str,
    catalog: Catalog,
    training_texts,
    precision: str,
) -> keras.Model:
    tower = settings.towers[name]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    num_classes = len(catalog.label_names)
    try:
        if isinstance(tower, Tbva):
            parts = [results.load_model(run, x) for x in settings.starts_from(name)]
            model = tbva(tower, *parts, num_classes)
        else:
            model = TOWERS[tower.model](tower, num_classes, list(training_texts))
    except ExperimentError as error:
        raise ExperimentError(f"[towers.{name}] {error}") from None
    finally:
        keras.config.set_dtype_policy(before)
    if tower.initializer_stddev and not isinstance(tower, Tbva):
        loaded = {
            id(weight)
            for layer in model._flatten_layers()
            if layer.name == tower.loaded_layer
            for weight in layer.weights
        }
        initialize(model, tower.initializer_stddev, settings.seed, loaded)
    return model


def _write_out_of_fold(
    run: Run, settings: Experiment, catalog: Catalog, name: str, caches: Caches
) -> None:
    """Trains the tower without each fold and writes what it says of it."""
    folds = settings.catalog.folds
    rows = catalog.rows("train")
    # Out-of-fold logits go through two calibrations.
    method = settings.calibration.method_for(settings.catalog.task)
    mark = fingerprint("folds", folds, method, catalog.fingerprint())
    outputs.write_targets(run.outputs, "train_oof", catalog.targets(rows), mark)
    outputs.write_groups(run.outputs, "train_oof", catalog.groups[rows])
    try:
        results.read_outputs(run, settings, name, "train_oof")
        return
    except RunError:
        pass  # missing, truncated or stale: made again below
    modality = settings.towers[name].modality
    present = catalog.present(modality, rows)
    home = folds_of(catalog.groups[rows], folds)
    reads = results.reads(settings, name)
    caches = caches or answers.caches_of(run, settings, catalog, reads)
    said: dict[str, np.ndarray] = {}
    for fold in range(folds):
        inside = present & (home == fold)
        without = rows[present & (home != fold)]
        answer = _one_fold(
            run, settings, catalog, name, fold, without, rows[inside], caches
        )
        for key, values in answer.items():
            if key not in said:
                said[key] = np.zeros((len(rows), values.shape[1]), np.float32)
            said[key][inside] = values
    outputs.write(
        run.outputs / name / "train_oof",
        results.outputs_fingerprint(run, settings, name, mark),
        catalog.ids[rows],
        present,
        [{key: values[present] for key, values in said.items()}],
    )
    shutil.rmtree(run.fold(name, 0).parent, ignore_errors=True)


def _one_fold(
    run: Run,
    settings: Experiment,
    catalog: Catalog,
    name: str,
    fold: int,
    rows: np.ndarray,
    asked: np.ndarray,
    caches: Caches,
) -> dict[str, np.ndarray]:
    """`features` and `logits` of the products `asked`, by a tower trained on `rows`.

    Every network is sure of itself in its own way. The logits are such that the kept
    tower's calibration makes of them what the fold's own would.
    """
    folder = run.fold(name, fold)
    file = folder / "answers.npz"
    mark = fingerprint(
        *(results.model_fingerprint(run, settings, name), rows.tolist()),
        *(asked.tolist(), settings.calibration.method_for(settings.catalog.task)),
    )
    if file.exists():
        with np.load(file) as kept:
            if str(kept["mark"]) == mark:
                return {key: kept[key] for key in ("features", "logits")}
    say(f"{name}: fold {fold + 1} of {settings.catalog.folds}")
    places = Places(folder / "log.csv", folder / "tensorboard", folder / "training")
    model, _ = fit_on(run, settings, catalog, name, rows, caches, mark, places)
    predict = results.predictor(model)
    reads = results.reads(settings, name)

    def ask(some: np.ndarray) -> dict[str, np.ndarray]:
        batches = dataset.batches(catalog, some, reads, answers.PREDICT_BATCH, caches)
        parts = list(map(predict, batches))
        return {
            key: np.concatenate([part[key] for part in parts])
            for key in ("features", "logits")
        }

    held_out = catalog.present_rows(settings.towers[name].modality, "validation")
    own = calibration.fit(
        *(catalog.task, catalog.targets(held_out), ask(held_out)["logits"], ""),
        settings.calibration,
    )
    kept_one = results.read_calibration(run, settings, name)
    result = ask(asked)
    result["logits"] = kept_one.undone(own.apply(result["logits"]))
    with replacing(file) as partial_file, partial_file.open("wb") as opened:
        np.savez(opened, mark=mark, **result)
    train.forget_checkpoint(places)
    return result
