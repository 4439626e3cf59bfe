"""Every number of a report; docs/report.md lists them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmm import bootstrap, metrics, outputs, results
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.report import answers, comparison, confusion, labels
from tfmm.report.answers import Answer, Truth, figures, look
from tfmm.report.confusion import Paths
from tfmm.report.coverage import coverage, sureness
from tfmm.report.leaving_out import left_out
from tfmm.report.said import Said, Stored, measured
from tfmm.run import Run
from tfmm.settings import SPLITS


@dataclass(frozen=True)
class Catalogued:
    """What a report tells of the products beside the models' answers.

    Attributes:
        split: What to call the products that are measured.
        task: `single_label` or `multi_label`.
        label_names: The `C` labels.
        path_separator: Mark between the steps of labels that are paths.
        train_counts: int `(C,)`, training products of each label, if known.
        split_products: Split -> products of the run.
    """

    split: str
    task: str
    label_names: Sequence[str]
    path_separator: str
    train_counts: Sequence[int] | None = None
    split_products: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """The numbers of a report, and what they are counted from.

    Attributes:
        numbers: The content of `report.json`, but for what shows single products.
        truth: The labels that the products have.
        answers: Model -> what is kept of its answers.
        groups: int `(n,)`, from 0 without gaps: products that belong together.
    """

    numbers: dict[str, Any]
    truth: Truth
    answers: Mapping[str, Answer]
    groups: np.ndarray


def compute(run: Run, settings: Experiment, split: str) -> dict[str, Any]:
    """The numbers of `of_run` alone."""
    return of_run(run, settings, split).numbers


def of_run(run: Run, settings: Experiment, split: str) -> Measured:
    """Computes the numbers of one split from stored outputs.

    Models are those of the experiment whose outputs are there, and their towers'.
    Measures that a task or a model does not have are absent.

    Raises:
        RunError: If no model has outputs, the split is empty, or outputs are damaged
            or stale.
    """
    targets, _ = outputs.read_targets(run.outputs, split)
    if not len(targets):
        raise RunError(f"{run.path}: the split {split!r} holds no products")

    names = measured(run, settings, split)
    known = [x for x in SPLITS if (run.outputs / "targets" / f"{x}.json").exists()]
    about = Catalogued(
        split=split,
        task=settings.catalog.task,
        label_names=run.read_labels(),
        path_separator=settings.catalog.path_separator,
        train_counts=results.train_counts(run),
        split_products={x: outputs.targets_info(run.outputs, x)[0][0] for x in known},
    )
    groups = outputs.read_groups(run.outputs, split)
    models = Stored(run, settings, split, names)
    truth = Truth.of(about.task, targets, len(about.label_names))
    del targets
    return _measured(about, truth, groups, settings.seed, models)


def measure(
    about: Catalogued,
    targets: np.ndarray,
    groups: np.ndarray,
    seed: int,
    models: Mapping[str, Said],
) -> dict[str, Any]:
    """Computes the numbers of `report.json` from what models say.

    Reads no file, so products of several runs can be measured together.

    Args:
        about: What to tell of the products.
        targets: int `(n,)` or float `(n, C)`; at least one product.
        groups: int `(n,)`, from 0 without gaps: products that are drawn together.
        seed: Of the bootstrap's draws.
        models: Name -> what it says of the products, in the order to report them;
            with every head the towers that it hears. Each is asked for once.
    """
    truth = Truth.of(about.task, targets, len(about.label_names))
    return _measured(about, truth, groups, seed, models).numbers


def _measured(
    about: Catalogued,
    truth: Truth,
    groups: np.ndarray,
    seed: int,
    models: Mapping[str, Said],
) -> Measured:
    paths = Paths(about.label_names, about.path_separator)
    draws = bootstrap.Draws(groups, seed)
    found: dict[str, dict[str, Any]] = {}
    said: dict[str, Answer] = {}
    near: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name in models:
        # Not bound to a name: it is gone before the next is read.
        found[name], said[name], near[name] = _own(
            truth, models[name], paths, draws, seed
        )
    towers = [name for name in found if found[name]["kind"] == "tower"]
    heads = [name for name in found if found[name]["kind"] == "head"]
    right = {name: answer.right for name, answer in said.items()}
    top1 = comparison.top1_draws(right, draws)
    micro_f1 = None
    if about.task == "multi_label":
        counts = {
            name: (truth.per_product(answer.found), answer.given)
            for name, answer in said.items()
        }
        micro_f1 = comparison.micro_f1_draws(truth.due, counts, draws)
    for name, model in found.items():
        model["top1_interval"] = bootstrap.edges(top1[name])
        if micro_f1 is not None:
            model["micro_f1_interval"] = bootstrap.edges(micro_f1[name])
        model["oracle_share"] = None
        if name in heads:
            beneath = model["towers"]
            model |= comparison.against_towers(name, beneath, right, top1)
            if micro_f1 is not None:
                model |= comparison.against_towers_micro_f1(name, beneath, micro_f1)
        if paths.any:
            best = model.get("best_tower")
            model["within_parent"] = _within_parent(
                truth, paths, said, near, name, best
            )
    by = "top1" if about.task == "single_label" else "micro_f1"
    known = {name: x["validation"] for name, x in found.items() if "validation" in x}
    ranking = comparison.rank(known, by)
    best_heads = comparison.best_heads(found, ranking)
    oracle = np.any([right[tower] for tower in towers], axis=0)
    numbers = {
        "split": about.split,
        "task": about.task,
        "products": truth.products,
        "labels": truth.num_labels,
        **_of_labels(about, truth, paths),
        "models": found,
        "ranked_by": by,
        "ranking": ranking,
        **({"best_head": best_heads[0]} if best_heads else {}),
        "pairs": comparison.pairs(best_heads, top1, micro_f1),
        "oracle": {"top1": float(oracle.mean())},
        "towers_right": comparison.towers_right(towers, heads, right),
        "groups": comparison.tower_pairs(towers, heads, right),
        **_of_towers(truth, [x for x in ranking if x in towers] or towers, said),
    }
    return Measured(numbers, truth, said, groups)


def _of_labels(about: Catalogued, truth: Truth, paths: Paths) -> dict[str, Any]:
    counts = {"here": truth.support.tolist()}
    if about.train_counts is not None:
        counts["train"] = list(about.train_counts)
    found: dict[str, Any] = {
        "label_names": list(about.label_names),
        "products_per_label": counts,
    }
    if about.split_products:
        found["split_products"] = dict(about.split_products)
    if paths.any:
        found["path_separator"] = about.path_separator
    return found


def _of_towers(
    truth: Truth, towers: Sequence[str], said: Mapping[str, Answer]
) -> dict[str, Any]:
    """What towers find of each label; `towers` from the best on."""
    found = labels.towers_found(truth, towers, said)
    return {
        "towers_found": found,
        "groups_per_label": labels.groups_per_label(truth, towers, said),
        "worst_labels": labels.worst(np.array(found["none"]), truth.support),
    }


def _own(
    truth: Truth, said: Said, paths: Paths, draws: bootstrap.Draws, seed: int
) -> tuple[dict[str, Any], Answer, tuple[np.ndarray, np.ndarray]]:
    """A model's figures that need no other model, and what is kept of its answers."""
    answer = look(truth, said.probabilities, said.assigned)
    facts = truth.rows, truth.labels
    ranks = metrics.ranks(*facts, said.probabilities)
    bins = metrics.calibration_bins(truth.task, *facts, said.probabilities)
    curves = {"after": answers.calibration_curve(bins)}
    found: dict[str, Any] = {
        "kind": said.kind,
        "model": said.model,
        "towers": list(said.towers),
        "present": int(said.present.sum()),
        **answers.measures(truth, answer, ranks, said.probabilities),
        "loss": metrics.loss_of(truth.task, *facts, said.probabilities),
        "ece": metrics.expected_error(bins),
    }
    if said.uncalibrated is not None:
        before = metrics.calibration_bins(truth.task, *facts, said.uncalibrated())
        found["ece_uncalibrated"] = metrics.expected_error(before)
        curves["before"] = answers.calibration_curve(before)
    if said.validation is not None:
        found["validation"] = dict(said.validation)
    if said.kind == "head":
        found["ranked_on_own_products"] = said.ranked_on_own_products
    if said.fit_on:
        found["fit_on"] = list(said.fit_on)
    if said.image_curve is not None:
        found["image_curve"] = [dict(point) for point in said.image_curve]
    missed = truth.support - truth.per_label(answer.found)
    sure = sureness(
        truth, answer, ranks, said.probabilities, said.assigned, draws.groups
    )
    found |= {
        "calibration_curve": curves,
        "per_label": labels.per_label(truth, answer),
        "worst": labels.worst(missed, truth.support),
        "confused": confusion.confused(truth, said.assigned),
        "coverage": coverage(truth.task, sure, said.held_out, seed),
        **_cases(truth, answer, said, draws),
        **said.about,
    }
    near = paths.nearness(truth, said.assigned) if paths.any else ()
    return found, answer, near


def _cases(
    truth: Truth, seen: Answer, said: Said, draws: bootstrap.Draws
) -> dict[str, Any]:
    """What a head says with modalities hidden."""
    if not said.cases:
        return {}
    missing = {"all": figures(truth, seen)}
    without: dict[str, Any] = {}
    found: dict[str, Any] = {"missing": missing, "leave_one_out": without}
    for case in said.cases:
        probabilities, assigned = said.cases[case]
        hidden = look(truth, probabilities, assigned)
        missing[case] = figures(truth, hidden)
        modality = case.removeprefix("without_")
        if case.startswith("without_") and modality in said.has:
            first = probabilities[np.arange(truth.products), seen.first]
            without[modality] = left_out(
                truth, seen, hidden, first, said.has[modality], draws
            )
        if case == said.image_case:
            found["image_gain"] = labels.image_gain(truth, seen, hidden, draws.groups)
        del probabilities, assigned
    return found


def _within_parent(
    truth: Truth,
    paths: Paths,
    said: Mapping[str, Answer],
    near: Mapping[str, tuple[np.ndarray, np.ndarray]],
    name: str,
    best_tower: str | None,
) -> dict[str, Any]:
    counts = paths.has_parent[truth.labels]
    own = said[name].found
    found = {"missed": confusion.within_parent(counts & ~own, near[name])}
    if best_tower is not None:
        tower = said[best_tower].found
        found["corrected"] = confusion.within_parent(
            counts & own & ~tower, near[best_tower]
        )
        found["broken"] = confusion.within_parent(counts & ~own & tower, near[name])
    return found
