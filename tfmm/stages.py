"""The stages that fit and search both call: one tower, one head."""

from itertools import chain

import keras
import numpy as np
import tensorflow as tf

from tfmm import (
    calibration,
    dataset,
    devices,
    image_cache,
    metrics,
    outputs,
    prepared,
    results,
    train,
)
from tfmm.catalog import Catalog
from tfmm.dataset import Inputs
from tfmm.errors import ExperimentError, RunError
from tfmm.experiment import Experiment
from tfmm.head_data import array_batches, hide_towers, take
from tfmm.heads import HEADS
from tfmm.heads.inputs import Examples, Problem, TowerShape
from tfmm.losses import loss_for
from tfmm.progress import say
from tfmm.run import Run, file_hash, read_json, replacing, write_json
from tfmm.settings import SPLITS, Training
from tfmm.towers import TOWERS
from tfmm.towers.output import initialize
from tfmm.train import Places

PREDICT_BATCH = 64
# Updates on prepared ids take so little that calling each from Python would double it.
PREPARED_STEPS = 16
# Paper B's cut of the validation split, for heads that are fitted on it.
VALIDATION_SHARE_TO_FIT = 0.7


def check(settings: Experiment, catalog: Catalog) -> None:
    """Stops, before any work, at what only the catalog or the machine can tell.

    Raises:
        ExperimentError: If a weight of a loss names an unknown label, or a tower asks
            for more devices than there are.
    """
    here = devices.available()
    for name in (*settings.towers, *settings.heads):
        own = settings.model_settings(name)
        if isinstance(own, Training):
            targets = catalog.targets(catalog.rows("train"))
            try:
                loss_for(settings.catalog.task, own, catalog.label_names, targets)
            except ExperimentError as error:
                table = "towers" if name in settings.towers else "heads"
                raise ExperimentError(f"[{table}.{name}] {error}") from None
        if getattr(own, "devices", 1) > len(here):
            raise ExperimentError(
                f"[towers.{name}] devices = {own.devices} is more than this machine "
                f"has. Received: {', '.join(here)}"
            )


def fit_tower(run: Run, settings: Experiment, catalog: Catalog, name: str) -> None:
    """Trains a tower and writes its outputs and calibration, unless all is there."""
    tower = settings.towers[name]
    mark = results.model_fingerprint(run, settings, name)
    caches: dict[int, np.ndarray] = {}
    if not _is_fitted(run, name, mark):
        train.deterministic(settings.seed)
        rows = catalog.present_rows(tower.modality, "train")
        held_out = catalog.present_rows(tower.modality, "validation")
        texts = catalog.texts.get(tower.modality)
        training_texts = () if texts is None else texts[rows]
        reads = results.tower_inputs(tower)
        caches = _caches(run, settings, catalog, reads)
        targets = catalog.targets(held_out)
        strategy = devices.strategy(tower.devices)
        with strategy.scope():
            model = _build(settings, name, catalog, training_texts, tower.precision)
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
                return dataset.epoch(
                    catalog, rows, reads, tower.batch_size, seed, caches
                )

        def validate() -> dict[str, float]:
            data = dataset.batches(catalog, held_out, reads, PREDICT_BATCH, caches)
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
        with strategy.scope():
            result = _train(
                *(run, settings, name, mark, trained, catalog.targets(rows)),
                *(epoch_data, validate, 1 if prepare is None else PREPARED_STEPS),
            )
        if tower.precision != "float32" or tower.devices > 1:
            # What is kept computes in float32 on one device, with the same weights.
            plain = _build(settings, name, catalog, training_texts, "float32")
            plain.set_weights(model.get_weights())
            model = plain
        _keep(run, name, mark, model, result)
    splits = {split: split for split in SPLITS}
    _write_outputs(run, settings, name, catalog, splits, caches)


def _caches(
    run: Run, settings: Experiment, catalog: Catalog, reads: Inputs
) -> dict[int, np.ndarray]:
    """Side -> the decoded images that a tower reads, if the catalog keeps them."""
    if not settings.catalog.cache_images:
        return {}
    return {
        size: image_cache.ready(
            run.image_cache(reads.modality, size), catalog, reads.modality, size
        )
        for size in sorted(reads.sizes)
    }


def _build(
    settings: Experiment, name: str, catalog: Catalog, training_texts, precision: str
) -> keras.Model:
    tower = settings.towers[name]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = TOWERS[tower.model](
            tower, len(catalog.label_names), list(training_texts)
        )
    except ExperimentError as error:
        raise ExperimentError(f"[towers.{name}] {error}") from None
    finally:
        keras.config.set_dtype_policy(before)
    if tower.initializer_stddev:
        loaded = {
            id(weight)
            for layer in model._flatten_layers()
            if layer.name == tower.loaded_layer
            for weight in layer.weights
        }
        initialize(model, tower.initializer_stddev, settings.seed, loaded)
    return model


def fit_head(run: Run, settings: Experiment, name: str) -> None:
    """Fits a head on stored outputs and writes its own, unless all is there."""
    head = settings.heads[name]
    mark = results.model_fingerprint(run, settings, name)
    if not _is_fitted(run, name, mark):
        train.deterministic(settings.seed)
        task = settings.catalog.task
        fit_on = getattr(head, "fit_on", "validation")  # a rule needs only the shapes
        inputs, _ = results.head_inputs(run, settings, name, fit_on)
        targets, _ = outputs.read_targets(run.outputs, fit_on)
        shapes = {
            tower: TowerShape(values["features"].shape[1], values["logits"].shape[1])
            for tower, values in inputs.items()
        }
        everything = Examples(inputs, targets, outputs.read_groups(run.outputs, fit_on))
        model = HEADS[head.model](
            head,
            Problem(
                task=task,
                shapes=shapes,
                prior_logits=results.prior_logits(run, settings),
                seed=settings.seed,
                fit=everything,
                held_out=everything,
            ),
        )
        if isinstance(head, Training):
            held_out, held_out_targets = inputs, targets
            if fit_on == "validation":
                rows, rest = _cut_validation(run, settings)
                held_out, held_out_targets = take(inputs, rest), targets[rest]
                inputs, targets = take(inputs, rows), targets[rows]
            else:
                held_out, _ = results.head_inputs(run, settings, name, "validation")
                held_out_targets, _ = outputs.read_targets(run.outputs, "validation")
            predict = results.predictor(model)

            def validate() -> dict[str, float]:
                logits = np.concatenate(
                    [
                        predict(batch)["logits"]
                        for batch in array_batches(held_out, PREDICT_BATCH)
                    ]
                )
                return metrics.quick_measures(task, held_out_targets, logits)

            def epoch_data(epoch: int) -> tf.data.Dataset:
                seed = (settings.seed, epoch)
                seen = hide_towers(inputs, head.modality_dropout, seed)
                return dataset.arrays_epoch(seen, targets, head.batch_size, seed)

            result = _train(
                run, settings, name, mark, model, targets, epoch_data, validate
            )
        else:
            result = {}
        _keep(run, name, mark, model, result)
    _write_outputs(run, settings, name, None, {split: split for split in SPLITS})


def write_outputs_of(
    run: Run, settings: Experiment, name: str, catalog: Catalog, split: str
) -> None:
    """Writes a model's outputs of another labelled catalog, as split `split`."""
    _write_outputs(run, settings, name, catalog, {split: "test"})


def _write_outputs(
    run: Run,
    settings: Experiment,
    name: str,
    catalog: Catalog | None,
    splits: dict[str, str],
    caches: dict[int, np.ndarray] | None = None,
) -> None:
    """Writes the outputs that are missing or stale, then the calibration.

    Args:
        splits: Name in the store -> split of the catalog.
        caches: Decoded images of this catalog, by side.
    """
    predict = None
    for stored_as, split in splits.items():
        try:
            results.read_outputs(run, settings, name, stored_as)
            continue
        except RunError:
            pass  # missing, truncated or stale: made again below
        if name in settings.towers:
            tower = settings.towers[name]
            rows = catalog.rows(split)
            ids, present = catalog.ids[rows], catalog.present(tower.modality, rows)
            reads = results.tower_inputs(tower)
            batches = dataset.batches(
                catalog, rows[present], reads, PREDICT_BATCH, caches
            )
        elif not len(outputs.read_targets(run.outputs, stored_as)[0]):
            continue
        else:
            inputs, ids = results.head_inputs(run, settings, name, stored_as)
            present = np.any([x["present"] for x in inputs.values()], axis=0)
            some = take(inputs, np.flatnonzero(present))
            batches = array_batches(some, PREDICT_BATCH)
        if not len(ids):
            continue
        if predict is None:
            model = results.load_model(run, name)
            predict = results.predictor(model)
            # Tells the widths even where no product has anything to look at.
            widths = {key: x.shape[1] for key, x in model.output.items()}
            nothing = {key: np.zeros((0, width)) for key, width in widths.items()}
        _, catalog_fingerprint = outputs.read_targets(run.outputs, stored_as)
        outputs.write(
            run.outputs / name / stored_as,
            results.outputs_fingerprint(run, settings, name, catalog_fingerprint),
            ids,
            present,
            chain([nothing], map(predict, batches)),
        )
    try:
        results.read_calibration(run, settings, name)
    except RunError:
        _calibrate(run, settings, name)


def _cut_validation(run: Run, settings: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the validation split to fit a head on, and the rest; whole groups."""
    groups = outputs.read_groups(run.outputs, "validation")
    place = np.random.default_rng(settings.seed).permutation(groups.max() + 1)[groups]
    order = np.argsort(place, kind="stable")
    edge = place[order[int(len(order) * VALIDATION_SHARE_TO_FIT)]]
    rows, rest = np.flatnonzero(place < edge), np.flatnonzero(place >= edge)
    if not len(rows):
        raise RunError(
            f"{run.path}: the split 'validation' holds one group of products; "
            'fit_on = "validation" must cut it in two'
        )
    return rows, rest


def _calibrate(run: Run, settings: Experiment, name: str) -> None:
    targets, catalog_fingerprint = outputs.read_targets(run.outputs, "validation")
    stored = results.read_outputs(run, settings, name, "validation")
    present = np.flatnonzero(stored.present)
    if getattr(settings.model_settings(name), "fit_on", "") == "validation":
        held_out = _cut_validation(run, settings)[1]
        present = np.intersect1d(present, held_out)
    mark = results.outputs_fingerprint(run, settings, name, catalog_fingerprint)
    fitted = calibration.fit(
        settings.catalog.task, targets[present], stored.logits[present], mark
    )
    calibration.write(run.calibration_file(name), fitted)


def _train(
    run: Run,
    settings: Experiment,
    name,
    mark,
    model,
    targets,
    epoch_data,
    validate,
    steps_per_call=1,
) -> dict:
    own = settings.model_settings(name)
    places = _places(run, name)
    started_as = run.training(name) / "fingerprint.json"
    if not started_as.exists() or read_json(started_as) != mark:
        train.forget_checkpoint(places)
        write_json(started_as, mark)
    loss = loss_for(settings.catalog.task, own, run.read_labels(), targets)
    return train.train(
        *(name, model, loss, own, settings.seed, epoch_data, validate, places),
        steps_per_call,
    )


def _places(run: Run, name: str) -> Places:
    return Places(run.log_file(name), run.tensorboard(name), run.training(name))


def _keep(run: Run, name: str, mark: str, model: keras.Model, result: dict) -> None:
    with replacing(run.model_file(name)) as file:
        # Keras insists on the suffix.
        whole = file.with_name(file.name + ".keras")
        try:
            model.save(whole)
            whole.rename(file)
        finally:
            whole.unlink(missing_ok=True)
    info = {
        "fingerprint": mark,
        "weights": train.weights_hash(model),
        "file": file_hash(run.model_file(name)),
        "parameters": model.count_params(),
        **result,
    }
    write_json(run.model_info_file(name), info)
    train.forget_checkpoint(_places(run, name))


def _is_fitted(run: Run, name: str, mark: str) -> bool:
    file = run.model_info_file(name)
    if not file.exists():
        return False
    try:
        info = read_json(file)
        made_from, kept = info["fingerprint"], info["file"]
    except (RunError, KeyError, TypeError):
        made_from, kept = "", ""
    if made_from != mark:
        say(f"{name}: made from other settings or another catalog; fitting it again")
        return False
    model = run.model_file(name)
    if not model.exists() or file_hash(model) != kept:
        say(f"{name}: {model} is lost or damaged; fitting it again")
        return False
    return True
