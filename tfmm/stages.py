"""The stages that fit and search both call: audit, one tower, one head.

The only place that opens the outputs store for heads.
"""

import base64
import csv
import io
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmm import calibration, dataset, image, metrics, outputs, train
from tfmm.calibration import Calibration
from tfmm.catalog import BadImage, Catalog
from tfmm.catalog import load as load_catalog
from tfmm.dataset import Inputs
from tfmm.errors import CatalogError, RunError
from tfmm.experiment import Experiment
from tfmm.heads import HEADS
from tfmm.heads.inputs import TowerShape
from tfmm.losses import loss_for
from tfmm.outputs import Outputs
from tfmm.progress import progress, say
from tfmm.run import Run, fingerprint, read_json, replacing, write_json
from tfmm.settings import SPLITS, Training
from tfmm.towers import TOWERS
from tfmm.train import Places

PREDICT_BATCH = 64
NUM_SAMPLES = 8
# Paper B's cut of the validation split, for heads that are fitted on it.
VALIDATION_SHARE_TO_FIT = 0.7


def audit(settings: Experiment, path: Path, images: Path | None) -> Catalog:
    """Reads a catalog and opens every image once.

    Returns:
        The catalog, with images that cannot be used turned into missing ones.

    Raises:
        CatalogError: For what `tfmm.catalog.load` refuses, more bad images than
            `max_bad_image_rate` allows, or a split that is needed and empty.
    """
    catalog = check_images(load_catalog(path, settings, images))
    named = sum(bool(p) for paths in catalog.images.values() for p in paths)
    named += len(catalog.bad_images)
    limit = settings.catalog.max_bad_image_rate
    if named and len(catalog.bad_images) / named > limit:
        first = catalog.bad_images[0]
        raise CatalogError(
            f"{path}: {len(catalog.bad_images)} of {named} images cannot be used, more "
            f"than max_bad_image_rate = {limit:g} allows. The first: {first.path} "
            f"(product {first.id}): {first.reason}"
        )
    needed = {"train", "validation", "test"}
    needed |= {getattr(head, "fit_on", "test") for head in settings.heads.values()}
    for split in SPLITS:
        count = len(catalog.rows(split))
        if not count and split in needed:
            raise CatalogError(f"{path}: no product falls into the split {split!r}")
    counts = ", ".join(f"{split} {len(catalog.rows(split))}" for split in SPLITS)
    say(
        f"catalog: {len(catalog)} products, {len(catalog.label_names)} labels; {counts}"
        f"; left out for want of a label {len(catalog.left_out)}"
        f"; images that cannot be used {len(catalog.bad_images)}"
    )
    if catalog.split_groups:
        say(
            f"catalog: {len(catalog.split_groups)} groups lie in several splits, as "
            f"the split column says; the first: {catalog.split_groups[0]}"
        )
    return catalog


def check_images(catalog: Catalog) -> Catalog:
    """Opens every image; those that cannot be used become missing."""
    bad: list[BadImage] = []
    digests = []
    for name, paths in catalog.images.items():
        with progress(f"{name}: checking images", len(paths)) as show:
            reasons, digest = image.check_files(paths, show)
        digests.append(digest)
        bad += [
            BadImage(row, str(catalog.ids[row]), name, str(paths[row]), reason)
            for row, reason in reasons.items()
        ]
    return catalog.without_images(bad, "".join(digests))


def write_audit(run: Run, catalog: Catalog) -> None:
    """Writes the labels, the splits and what was left out into the run."""
    with replacing(run.labels_file) as file:
        lines = "".join(f"{name}\n" for name in catalog.label_names)
        file.write_text(lines, encoding="utf-8")
    splits = zip(catalog.ids, catalog.split, strict=True)
    _write_csv(run.splits_file, ("id", "split"), splits)
    write_left_out(run.catalog, catalog)
    write_json(run.samples_file, _samples(catalog))
    for split in SPLITS:
        write_targets(run, catalog, split, split)


def _samples(catalog: Catalog) -> list[dict]:
    """Raw inputs of a few test products, one that lacks something among them.

    An export keeps them, with their stored answers, as its golden requests.
    """
    rows = catalog.rows("test")
    names = (*catalog.texts, *catalog.images)
    whole = np.all([catalog.present(name, rows) for name in names], axis=0)
    spread = np.linspace(0, len(rows) - 1, min(NUM_SAMPLES, len(rows))).astype(int)
    chosen = {*spread.tolist(), *np.flatnonzero(whole)[:1], *np.flatnonzero(~whole)[:1]}
    samples = []
    for position in sorted(map(int, chosen)):
        row = rows[position]
        values = {name: texts[row].encode() for name, texts in catalog.texts.items()}
        for name, paths in catalog.images.items():
            values[name] = Path(paths[row]).read_bytes() if paths[row] else b""
        inputs = {k: base64.b64encode(v).decode() for k, v in values.items()}
        samples.append({"id": str(catalog.ids[row]), "row": position, "inputs": inputs})
    return samples


def write_left_out(folder: Path, catalog: Catalog) -> None:
    """Lists the products and images that nobody could use, with the reasons."""
    _write_csv(folder / "left_out.csv", ("id", "reason"), catalog.left_out.items())
    _write_csv(
        folder / "bad_images.csv",
        ("id", "modality", "path", "reason"),
        ((x.id, x.modality, x.path, x.reason) for x in catalog.bad_images),
    )


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with replacing(path) as partial_file:
        partial_file.write_text(text.getvalue(), encoding="utf-8")


def write_targets(run: Run, catalog: Catalog, split: str, name: str) -> None:
    """Writes the targets of a catalog's split into the store, as split `name`."""
    targets = catalog.targets(catalog.rows(split))
    outputs.write_targets(run.outputs, name, targets, catalog.fingerprint())


def fit_tower(run: Run, settings: Experiment, catalog: Catalog, name: str) -> None:
    """Trains a tower and writes its outputs and calibration, unless all is there."""
    tower = settings.towers[name]
    mark = model_fingerprint(run, settings, name)
    if not _is_fitted(run, name, mark):
        train.deterministic(settings.seed)
        rows = _present_rows(catalog, tower.modality, "train")
        held_out = _present_rows(catalog, tower.modality, "validation")
        texts = catalog.texts.get(tower.modality)
        training_texts = () if texts is None else list(texts[rows])
        model = TOWERS[tower.model](tower, len(catalog.label_names), training_texts)
        reads = tower_inputs(tower)
        targets = catalog.targets(held_out)
        predict = predictor(model)

        def validate() -> dict[str, float]:
            data = dataset.batches(catalog, held_out, reads, PREDICT_BATCH)
            logits = np.concatenate([predict(batch)["logits"] for batch in data])
            return metrics.quick_measures(catalog.task, targets, logits)

        def epoch_data(epoch: int) -> tf.data.Dataset:
            return dataset.epoch(
                catalog, rows, reads, tower.batch_size, (settings.seed, epoch)
            )

        _train_and_keep(run, settings, name, mark, model, epoch_data, validate)
    _write_outputs(run, settings, name, catalog, {split: split for split in SPLITS})


def fit_head(run: Run, settings: Experiment, name: str) -> None:
    """Fits a head on stored outputs and writes its own, unless all is there."""
    head = settings.heads[name]
    mark = model_fingerprint(run, settings, name)
    if not _is_fitted(run, name, mark):
        train.deterministic(settings.seed)
        task = settings.catalog.task
        fit_on = getattr(head, "fit_on", "fusion")
        inputs, _ = head_inputs(run, settings, name, fit_on)
        targets, _ = outputs.read_targets(run.outputs, fit_on)
        shapes = {
            tower: TowerShape(values["features"].shape[1], values["logits"].shape[1])
            for tower, values in inputs.items()
        }
        model = HEADS[head.model](head, shapes, prior_logits(run, settings), task)
        if isinstance(head, Training):
            held_out, held_out_targets = inputs, targets
            rows = np.arange(len(targets))
            if fit_on == "validation":
                order = np.random.default_rng(settings.seed).permutation(rows)
                rows, rest = np.split(order, [int(len(rows) * VALIDATION_SHARE_TO_FIT)])
                held_out, held_out_targets = _take(inputs, rest), targets[rest]
                inputs, targets = _take(inputs, rows), targets[rows]
            else:
                held_out, _ = head_inputs(run, settings, name, "validation")
                held_out_targets, _ = outputs.read_targets(run.outputs, "validation")
            predict = predictor(model)

            def validate() -> dict[str, float]:
                logits = np.concatenate(
                    [predict(batch)["logits"] for batch in _array_batches(held_out)]
                )
                return metrics.quick_measures(task, held_out_targets, logits)

            def epoch_data(epoch: int) -> tf.data.Dataset:
                seed = (settings.seed, epoch)
                seen = _hide_towers(inputs, head.modality_dropout, seed)
                return dataset.arrays_epoch(seen, targets, head.batch_size, seed)

            _train_and_keep(run, settings, name, mark, model, epoch_data, validate)
        else:
            _keep(run, name, mark, model, {})
    _write_outputs(run, settings, name, None, {split: split for split in SPLITS})


def model_fingerprint(run: Run, settings: Experiment, name: str) -> str:
    """What a model is made from: its settings, the catalog, for a head its towers."""
    shared = [settings.seed, settings.catalog.task, run.read_info()["catalog"]]
    own = settings.model_settings(name).model_dump(mode="json")
    if name in settings.towers:
        modality = settings.modalities[own["modality"]].model_dump(mode="json")
        return fingerprint("tower", shared[:2], shared[2]["fingerprint"], own, modality)
    towers = [
        [tower, model_fingerprint(run, settings, tower), _weights(run, tower)]
        for tower in own["towers"]
    ]
    return fingerprint("head", shared[:2], own, towers)


def outputs_fingerprint(
    run: Run, settings: Experiment, name: str, catalog_fingerprint: str
) -> str:
    """What a model's outputs of a split are made from."""
    model = model_fingerprint(run, settings, name)
    return fingerprint("outputs", model, _weights(run, name), catalog_fingerprint)


def read_outputs(run: Run, settings: Experiment, name: str, split: str) -> Outputs:
    """A model's outputs of a split; `RunError` if missing, truncated or stale."""
    _, catalog_fingerprint = outputs.read_targets(run.outputs, split)
    mark = outputs_fingerprint(run, settings, name, catalog_fingerprint)
    return outputs.read(run.outputs / name / split, mark)


def read_calibration(run: Run, settings: Experiment, name: str) -> Calibration:
    """A model's calibration; `RunError` if missing or stale."""
    _, catalog_fingerprint = outputs.read_targets(run.outputs, "validation")
    mark = outputs_fingerprint(run, settings, name, catalog_fingerprint)
    return calibration.read(run.calibration_file(name), mark)


def read_probabilities(
    run: Run, settings: Experiment, name: str, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities `(n, C)` of a split, and `present` `(n,)`.

    A product that the model has nothing to look at of gets the label shares.
    """
    stored = read_outputs(run, settings, name, split)
    temperature = np.float32(read_calibration(run, settings, name).temperature)
    present = np.asarray(stored.present)
    prior = np.float32(prior_logits(run, settings))
    logits = np.where(present[:, None], stored.logits / temperature, prior)
    return metrics.probabilities(settings.catalog.task, logits), present


def prior_logits(run: Run, settings: Experiment) -> list[float]:
    """Logits `(C,)` of the label shares among the training products."""
    targets, _ = outputs.read_targets(run.outputs, "train")
    if settings.catalog.task == "single_label":
        counts = np.bincount(targets, minlength=len(run.read_labels()))
        shares = counts / counts.sum()
    else:
        shares = targets.mean(axis=0)
    return metrics.logits_of(settings.catalog.task, shares).tolist()


def head_inputs(
    run: Run, settings: Experiment, name: str, split: str
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """What a head reads of a split, and the products' ids.

    Returns:
        Tower -> `features` `(n, d)`, calibrated `logits` `(n, C)`, `present` `(n,)`.
    """
    inputs = {}
    ids = None
    for tower in settings.towers_of(name):
        stored = read_outputs(run, settings, tower, split)
        temperature = np.float32(read_calibration(run, settings, tower).temperature)
        if ids is not None and not np.array_equal(ids, stored.ids):
            raise RunError(f"{run.path}: towers of {name} hold different products")
        ids = stored.ids
        inputs[tower] = {
            "features": np.asarray(stored.features),
            "logits": stored.logits / temperature,
            "present": np.asarray(stored.present),
        }
    return inputs, np.asarray(ids)


def tower_inputs(tower: Training) -> Inputs:
    """What a tower with these settings reads of a product."""
    return Inputs(
        tower.modality,
        getattr(tower, "image_size", 0),
        getattr(tower, "random_flip", False),
    )


def load_model(run: Run, name: str) -> keras.Model:
    """The trained tower or head; `RunError` if it is not there."""
    path = run.model_file(name)
    if not path.exists():
        raise RunError(f"{path}: no such model; run tfmm.fit --resume")
    return keras.saving.load_model(path, compile=False)


def predictor(model: keras.Model):
    """A function from a batch of inputs to NumPy `features` and `logits`."""
    shapes = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype, x.name), model.input
    )
    forward = tf.function(partial(model, training=False), input_signature=[shapes])

    def predict(batch) -> dict[str, np.ndarray]:
        return {key: value.numpy() for key, value in forward(batch).items()}

    return predict


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
) -> None:
    """Writes the outputs that are missing or stale, then the calibration.

    Args:
        splits: Name in the store -> split of the catalog.
    """
    predict = None
    for stored_as, split in splits.items():
        try:
            read_outputs(run, settings, name, stored_as)
            continue
        except RunError:
            pass  # missing, truncated or stale: made again below
        if name in settings.towers:
            tower = settings.towers[name]
            rows = catalog.rows(split)
            ids, present = catalog.ids[rows], catalog.present(tower.modality, rows)
            batches = dataset.batches(
                catalog, rows[present], tower_inputs(tower), PREDICT_BATCH
            )
        else:
            inputs, ids = head_inputs(run, settings, name, stored_as)
            present = np.any([x["present"] for x in inputs.values()], axis=0)
            batches = _array_batches(_take(inputs, np.flatnonzero(present)))
        if not len(ids):
            continue
        if predict is None:
            predict = predictor(load_model(run, name))
        _, catalog_fingerprint = outputs.read_targets(run.outputs, stored_as)
        outputs.write(
            run.outputs / name / stored_as,
            outputs_fingerprint(run, settings, name, catalog_fingerprint),
            ids,
            present,
            map(predict, batches),
        )
    try:
        read_calibration(run, settings, name)
    except RunError:
        _calibrate(run, settings, name)


def _calibrate(run: Run, settings: Experiment, name: str) -> None:
    targets, catalog_fingerprint = outputs.read_targets(run.outputs, "validation")
    stored = read_outputs(run, settings, name, "validation")
    present = np.flatnonzero(stored.present)
    mark = outputs_fingerprint(run, settings, name, catalog_fingerprint)
    fitted = calibration.fit(
        settings.catalog.task, targets[present], stored.logits[present], mark
    )
    calibration.write(run.calibration_file(name), fitted)


def _train_and_keep(
    run: Run, settings: Experiment, name, mark, model, epoch_data, validate
) -> None:
    own = settings.model_settings(name)
    places = Places(run.log_file(name), run.tensorboard(name), run.training(name))
    started_as = run.training(name) / "fingerprint.json"
    if not started_as.exists() or read_json(started_as) != mark:
        train.forget_checkpoint(places)
        write_json(started_as, mark)
    loss = loss_for(settings.catalog.task, own.positive_weight)
    result = train.train(
        name, model, loss, own, settings.seed, epoch_data, validate, places
    )
    _keep(run, name, mark, model, result)
    train.forget_checkpoint(places)


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
        "parameters": model.count_params(),
        **result,
    }
    write_json(run.model_info_file(name), info)


def _is_fitted(run: Run, name: str, mark: str) -> bool:
    file = run.model_info_file(name)
    if not file.exists():
        return False
    if read_json(file)["fingerprint"] == mark:
        return True
    say(f"{name}: made from other settings or another catalog; fitting it again")
    return False


def _weights(run: Run, name: str) -> str:
    return read_json(run.model_info_file(name))["weights"]


def _present_rows(catalog: Catalog, modality: str, split: str) -> np.ndarray:
    rows = catalog.rows(split)
    rows = rows[catalog.present(modality, rows)]
    if not len(rows):
        raise CatalogError(f"{catalog.path}: no product of {split!r} has a {modality}")
    return rows


def _take(inputs: dict, rows: np.ndarray) -> dict:
    return tf.nest.map_structure(lambda array: array[rows], inputs)


def _array_batches(inputs: dict) -> Iterator[dict]:
    count = len(next(iter(inputs.values()))["present"])
    for start in range(0, count, PREDICT_BATCH):
        yield _take(inputs, np.arange(start, min(start + PREDICT_BATCH, count)))


def _hide_towers(inputs: dict, rate: float, seed: tuple[int, int]) -> dict:
    """Hides each tower from a random share of the products; never the last one."""
    if not rate:
        return inputs
    present = np.stack([x["present"] for x in inputs.values()], axis=1)
    draws = np.random.default_rng((*seed, 2)).random(present.shape)
    kept = present & (draws >= rate)
    # Where all would be hidden, the one with the greatest draw stays.
    luckiest = np.argmax(np.where(present, draws, -1.0), axis=1)
    none = present.any(axis=1) & ~kept.any(axis=1)
    kept[none, luckiest[none]] = True
    return {
        tower: {
            "features": values["features"] * kept[:, position, None],
            "logits": values["logits"] * kept[:, position, None],
            "present": kept[:, position],
        }
        for position, (tower, values) in enumerate(inputs.items())
    }
