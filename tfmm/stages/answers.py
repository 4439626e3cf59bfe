"""What a fitted model says of every split, with everything there and in part."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import keras
import numpy as np
import tensorflow as tf

from tfmm import calibration, dataset, image_cache, outputs, results
from tfmm.catalog import Catalog
from tfmm.dataset import Caches, Reads
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.fusion import Fusion
from tfmm.head_data import array_batches, take
from tfmm.heads.gate import policy_accuracy
from tfmm.hiding import case_key, hidden_sets, images_hidden
from tfmm.run import Run, read_json, write_json
from tfmm.settings import SPLITS, Gate
from tfmm.settings.wiring import fitted_on

PREDICT_BATCH = 64
# Paper B's cut of the validation split, for heads that are fitted on it.
VALIDATION_SHARE_TO_FIT = 0.7


def caches_of(
    run: Run, settings: Experiment, catalog: Catalog, reads: Reads
) -> dict[tuple[str, int], np.ndarray]:
    """The decoded images that a model reads, if the catalog keeps them."""
    if not settings.catalog.cache_images:
        return {}
    return {
        (inputs.modality, size): image_cache.ready(
            run.image_cache(inputs.modality, size), catalog, inputs.modality, size
        )
        for inputs in reads.values()
        for size in sorted(inputs.sizes)
    }


def write_all(
    run: Run,
    settings: Experiment,
    name: str,
    catalog: Catalog,
    caches: Caches | None = None,
) -> None:
    """Writes a model's outputs of the run's own splits, and its calibration."""
    splits = {split: split for split in SPLITS}
    _write(run, settings, name, catalog, splits, caches)
    try:
        results.read_calibration(run, settings, name)
    except RunError:
        _calibrate(run, settings, name)
    if name in settings.heads and settings.has_out_of_fold(name):
        _write(run, settings, name, catalog, {"train_oof": "train"}, caches)
    every = hidden_sets(settings, name)
    _write_cases(run, settings, name, catalog, "test", "test", every, caches)
    # What the rule that skips images is fitted on.
    images = images_hidden(settings, name)
    held = [images] if images else []
    _write_cases(run, settings, name, catalog, *2 * ["validation"], held, caches)


def write_outputs_of(
    run: Run, settings: Experiment, name: str, catalog: Catalog, split: str
) -> None:
    """Writes a model's outputs of another labelled catalog, as split `split`."""
    _write(run, settings, name, catalog, {split: "test"}, None)
    every = hidden_sets(settings, name)
    _write_cases(run, settings, name, catalog, split, "test", every, None)


def _write(
    run: Run,
    settings: Experiment,
    name: str,
    catalog: Catalog,
    splits: Mapping[str, str],
    caches: Caches | None,
) -> None:
    """Writes the outputs that are missing or stale.

    Args:
        splits: Name in the store -> split of the catalog.
        caches: Decoded images of this catalog.
    """
    predict = None
    for stored_as, split in splits.items():
        try:
            results.read_outputs(run, settings, name, stored_as)
            continue
        except RunError:
            pass  # missing, truncated or stale: made again below
        if settings.sees_products(name):
            rows = catalog.rows(split)
            ids, present = catalog.ids[rows], present_of(settings, name, catalog, rows)
            reads = results.reads(settings, name)
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
            nothing = {
                key: np.zeros((0, model.output[key].shape[1]))
                for key in ("features", "logits")
            }
        _, catalog_fingerprint = outputs.read_targets(run.outputs, stored_as)
        outputs.write(
            run.outputs / name / stored_as,
            results.outputs_fingerprint(run, settings, name, catalog_fingerprint),
            ids,
            present,
            chain([nothing], map(predict, batches)),
        )
        own = settings.model_settings(name)
        if isinstance(own, Gate):
            _note_policy_accuracy(run, settings, name, stored_as, model, inputs)


def _note_policy_accuracy(
    run: Run,
    settings: Experiment,
    name: str,
    split: str,
    model: keras.Model,
    inputs: dict,
) -> None:
    """Keeps how often a gate rightly says which tower to believe, for the report."""
    targets, _ = outputs.read_targets(run.outputs, split)
    head, task = settings.heads[name], settings.catalog.task
    agreed = policy_accuracy(head, task, inputs, targets, model)
    info = read_json(run.model_info_file(name))
    known = info.get("policy_accuracy", {})
    if agreed is not None:
        info["policy_accuracy"] = {**known, split: agreed}
        write_json(run.model_info_file(name), info)


def present_of(
    settings: Experiment,
    name: str,
    catalog: Catalog,
    rows: np.ndarray,
    hidden: Collection[str] = (),
) -> np.ndarray:
    """bool `(m,)`: which products a model that sees products has something of.

    A tower needs its modality, whatever else it reads; a joint network any of them.
    """
    if name in settings.towers:
        needed = [settings.towers[name].modality]
    else:
        needed = settings.modalities_of(name)
    seen = [x for x in needed if x not in hidden]
    here = [catalog.present(modality, rows) for modality in seen]
    return np.any(here, axis=0) if here else np.zeros(len(rows), bool)


def _write_cases(
    run: Run,
    settings: Experiment,
    name: str,
    catalog: Catalog,
    stored_as: str,
    split: str,
    cases: Sequence[frozenset[str]],
    caches: Caches | None,
) -> None:
    """Writes what a model says with modalities hidden, unless all is there."""
    path = run.cases(name, stored_as)
    _, catalog_fingerprint = outputs.read_targets(run.outputs, stored_as)
    mark = results.outputs_fingerprint(run, settings, name, catalog_fingerprint)
    try:
        stored = outputs.read_cases(path, mark)
        if set(map(case_key, cases)) <= set(stored):
            return
    except RunError:
        pass  # missing, truncated or stale: made again below
    rows = catalog.rows(split)
    if not len(rows) or not cases:
        return
    model = results.load_model(run, name)
    width = model.output["features"].shape[1]
    if settings.sees_products(name):
        predict = results.predictor(model)
    else:
        predict = fusion_predictor(run, settings, name)
    answers = {}
    for hidden in cases:
        batches: Iterable
        if settings.sees_products(name):
            present = present_of(settings, name, catalog, rows, hidden)
            reads = results.reads(settings, name)
            batches = dataset.batches(
                catalog, rows[present], reads, PREDICT_BATCH, caches, hidden
            )
        else:
            inputs = {
                source: heard(run, settings, source, stored_as, hidden)
                for source in settings.sources_of(name)
            }
            present = np.any([x["present"] for x in inputs.values()], axis=0)
            some = take(inputs, np.flatnonzero(present))
            batches = array_batches(some, PREDICT_BATCH)
        said = {"logits": np.zeros((len(rows), len(catalog.label_names)), np.float32)}
        if settings.sees_products(name):
            said["features"] = np.zeros((len(rows), width), np.float32)
        parts = [predict(batch) for batch in batches]
        for key, values in said.items():
            if parts:
                values[present] = np.concatenate([part[key] for part in parts])
        answers[case_key(hidden)] = {**said, "present": present}
    outputs.write_cases(path, mark, answers)


def fusion_predictor(run: Run, settings: Experiment, name: str):
    """A function from a batch of sources' answers to the head's."""
    fusion = Fusion(run, settings, name)
    forward = tf.function(fusion, reduce_retracing=True)

    def predict(batch) -> dict[str, np.ndarray]:
        return {"logits": forward(batch)["logits"].numpy()}

    return predict


def heard(
    run: Run,
    settings: Experiment,
    source: str,
    split: str,
    hidden: frozenset[str],
    rows: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """What heads hear of a tower or a joint network with modalities hidden.

    Args:
        run: A run.
        settings: Its experiment.
        source: A tower or a joint network.
        split: As in the outputs store.
        hidden: Modalities that are taken as if no product had them.
        rows: int `(m,)`, the products to tell of; all of them if absent.

    Returns:
        `features` `(m, d)`, calibrated `logits` `(m, C)`, `present` `(m,)`.

    Raises:
        RunError: If outputs are missing, truncated or stale.
    """
    stored = results.read_outputs(run, settings, source, split)
    own = frozenset(settings.modalities_of(source)) & hidden
    told = own in hidden_sets(settings, source)
    if told:
        _, catalog_fingerprint = outputs.read_targets(run.outputs, split)
        mark = results.outputs_fingerprint(run, settings, source, catalog_fingerprint)
        cases = outputs.read_cases(run.cases(source, split), mark)
        stored = replace(stored, **cases[case_key(own)])
    if rows is not None:
        stored = stored.take(rows)
    if own and not told:
        nothing = np.zeros(len(stored.ids), bool)
        stored = replace(
            stored,
            features=np.zeros_like(stored.features),
            logits=np.zeros_like(stored.logits),
            present=nothing,
        )
    return results.calibrated(run, settings, source, stored)


def cut_validation(run: Run, settings: Experiment) -> tuple[np.ndarray, np.ndarray]:
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
    targets, _ = outputs.read_targets(run.outputs, "validation")
    stored = results.read_outputs(run, settings, name, "validation")
    present = np.flatnonzero(stored.present)
    if "validation" in fitted_on(name, settings.heads):
        held_out = cut_validation(run, settings)[1]
        present = np.intersect1d(present, held_out)
    tree = results.hierarchy(run, settings)
    fitted = calibration.fit(
        settings.catalog.task,
        targets[present],
        stored.logits[present],
        results.calibration_fingerprint(run, settings, name),
        settings.calibration,
        None if tree is None else tree.consistent,
    )
    calibration.write(run.calibration_file(name), fitted)
