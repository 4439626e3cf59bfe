"""What one run of several says of a split: all that a comparison needs of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfmm import bootstrap, metrics, outputs, results
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.report import answers, comparison
from tfmm.report.answers import Answer, Truth
from tfmm.report.said import TRAINING_KEYS, measured, on_validation
from tfmm.run import Run, read_json
from tfmm.settings import SPLITS
from tfmm.settings.wiring import fitted_on

Labels = frozenset[str]


@dataclass(frozen=True)
class Kept:
    """What one model says of `n` products, among some of the labels.

    Attributes:
        right: bool `(n,)`, whether the most probable of these labels is right.
        found: int `(n,)`, how many of these labels it gives and the product has.
        given: int `(n,)`, how many of them it gives.
    """

    right: np.ndarray
    found: np.ndarray
    given: np.ndarray


@dataclass(frozen=True)
class Side:
    """One run of a comparison.

    Attributes:
        name: What it is called.
        run: Where it is.
        settings: Its experiment.
        label_names: Its `C` labels.
        ids: `(n,)` strings, the products of the split.
        groups: int `(n,)`, those that are drawn together.
        truth: The labels that they have.
        elsewhere: Split -> ids of the run's other products.
        said: Labels -> model -> what it says among them.
        numbers: What `comparison.json` tells of the run alone.
    """

    name: str
    run: Run
    settings: Experiment
    label_names: tuple[str, ...]
    ids: np.ndarray
    groups: np.ndarray
    truth: Truth
    elsewhere: Mapping[str, np.ndarray]
    said: Mapping[Labels, Mapping[str, Kept]]
    numbers: Mapping[str, Any]


def read(
    name: str, run: Run, settings: Experiment, split: str, among: Iterable[Labels]
) -> Side:
    """Reads what the models of a run say, one after the other.

    Args:
        name: What to call the run.
        run: A run whose models have outputs of the split.
        settings: Its experiment.
        split: A split, or the name given to another labelled catalog.
        among: Sets of its labels; models are asked for their first choice among each.

    Raises:
        RunError: If no model has outputs, the split is empty, or outputs are missing,
            damaged or stale.
    """
    targets, catalog = outputs.read_targets(run.outputs, split)
    if not len(targets):
        raise RunError(f"{run.path}: the split {split!r} holds no products")
    label_names = run.read_labels()
    truth = Truth.of(settings.catalog.task, targets, len(label_names))
    names = measured(run, settings, split)
    groups = outputs.read_groups(run.outputs, split)
    columns = {
        labels: np.array([x in labels for x in label_names], bool) for labels in among
    }
    found: dict[str, dict[str, Any]] = {}
    own: dict[str, Kept] = {}
    said: dict[Labels, dict[str, Kept]] = {labels: {} for labels in columns}
    for model in names:
        probabilities, present = results.read_probabilities(run, settings, model, split)
        given = results.assigned(run, settings, model, probabilities, present)
        answer = answers.look(truth, probabilities, given)
        own[model] = _kept(truth, answer)
        found[model] = {
            **_about(run, settings, model),
            "present": int(present.sum()),
            **_measures(truth, answer, probabilities),
        }
        for labels, chosen in columns.items():
            said[labels][model] = (
                own[model]
                if chosen.all()
                else _kept_among(truth, probabilities, given, chosen)
            )
        del probabilities, given
    known = [x for x in SPLITS if (run.outputs / "targets" / f"{x}.json").exists()]
    info = run.read_info()
    numbers = {
        "path": str(run.path),
        "products": truth.products,
        "labels": truth.num_labels,
        "split_products": {
            x: outputs.targets_info(run.outputs, x)[0][0] for x in known
        },
        "table": info["catalog"]["sha256"],
        "catalog": catalog,
        **_against_each_other(
            truth, found, own, bootstrap.Draws(groups, settings.seed)
        ),
    }
    ids = np.asarray(results.read_outputs(run, settings, names[0], split).ids)
    return Side(
        name=name,
        run=run,
        settings=settings,
        label_names=label_names,
        ids=ids.astype(str),
        groups=groups,
        truth=truth,
        elsewhere=_elsewhere(run, settings, split),
        said=said,
        numbers=numbers,
    )


def _elsewhere(run: Run, settings: Experiment, split: str) -> dict[str, np.ndarray]:
    """The ids of the other splits, as far as a tower has outputs of them."""
    found = {}
    for other in SPLITS:
        if other == {"train_oof": "train"}.get(split, split):
            continue
        for tower in settings.towers:
            if (run.outputs / tower / other).is_dir():
                stored = results.read_outputs(run, settings, tower, other)
                found[other] = np.asarray(stored.ids).astype(str)
                break
    return found


def _about(run: Run, settings: Experiment, name: str) -> dict[str, Any]:
    info = read_json(run.model_info_file(name))
    found: dict[str, Any] = {
        "kind": "tower" if name in settings.towers else "head",
        "model": settings.model_settings(name).model,
        "towers": settings.towers_of(name),
        "validation": on_validation(run, settings, name)[0],
        **{key: info[key] for key in TRAINING_KEYS if key in info},
    }
    if name in settings.heads:
        fit_on = sorted(fitted_on(name, settings.heads))
        found["ranked_on_own_products"] = "validation" in fit_on
        found |= {"fit_on": fit_on} if fit_on else {}
    return found


def _measures(
    truth: Truth, answer: Answer, probabilities: np.ndarray
) -> dict[str, Any]:
    facts = truth.rows, truth.labels
    ranks = metrics.ranks(*facts, probabilities)
    bins = metrics.calibration_bins(truth.task, *facts, probabilities)
    return {
        **answers.measures(truth, answer, ranks, probabilities),
        "loss": metrics.loss_of(truth.task, *facts, probabilities),
        "ece": metrics.expected_error(bins),
    }


def _kept(truth: Truth, answer: Answer) -> Kept:
    return Kept(answer.right, truth.per_product(answer.found), answer.given)


def _kept_among(
    truth: Truth, probabilities: np.ndarray, given: np.ndarray, chosen: np.ndarray
) -> Kept:
    """`Kept` among the labels `chosen`, bool `(C,)`, as if there were no others."""
    part = among(truth, chosen)
    answer = answers.look(part, probabilities[:, chosen], given[:, chosen])
    return _kept(part, answer)


def among(truth: Truth, chosen: np.ndarray) -> Truth:
    """The same products with the labels `chosen`, bool `(C,)`, alone."""
    keep = chosen[truth.labels]
    numbers = np.cumsum(chosen) - 1
    return Truth(
        truth.task,
        truth.rows[keep],
        numbers[truth.labels[keep]],
        truth.products,
        int(chosen.sum()),
    )


def _against_each_other(
    truth: Truth,
    found: dict[str, dict[str, Any]],
    own: Mapping[str, Kept],
    draws: bootstrap.Draws,
) -> dict[str, Any]:
    """`models` with intervals and gains, how they rank, and which is the best."""
    right = {name: kept.right for name, kept in own.items()}
    top1 = comparison.top1_draws(right, draws)
    micro_f1 = None
    if truth.task == "multi_label":
        counts = {name: (kept.found, kept.given) for name, kept in own.items()}
        micro_f1 = comparison.micro_f1_draws(truth.due, counts, draws)
    for name, model in found.items():
        model["top1_interval"] = bootstrap.edges(top1[name])
        if micro_f1 is not None:
            model["micro_f1_interval"] = bootstrap.edges(micro_f1[name])
        if model["kind"] == "head":
            towers = model["towers"]
            model |= comparison.against_towers(name, towers, right, top1)
            if micro_f1 is not None:
                model |= comparison.against_towers_micro_f1(name, towers, micro_f1)
    by = "top1" if truth.task == "single_label" else "micro_f1"
    ranking = comparison.rank({x: m["validation"] for x, m in found.items()}, by)
    towers = [name for name in ranking if found[name]["kind"] == "tower"]
    return {
        "ranked_by": by,
        "ranking": ranking,
        "best": [*comparison.best_heads(found, ranking), *towers][0],
        "models": found,
    }
