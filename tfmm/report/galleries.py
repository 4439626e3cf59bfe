"""Products worth looking at, chosen by what models made of them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tfmm import products, results
from tfmm.experiment import Experiment
from tfmm.report.answers import Truth
from tfmm.report.numbers import Measured
from tfmm.run import Run

SHOWN = 12  # products of a gallery
OF_A_LABEL = 3  # of them with the same label
WORST = 5  # labels with a gallery of their own
FIRST = 3  # of each model's labels

TYPICAL = "drawn at random, since these are what is usual."


def choose(measured: Measured, seed: int) -> list[dict[str, Any]]:
    """Chooses the galleries of a report; docs/report.md lists them.

    Where a model was wrong, the products come first of which it was surest: they are
    where models differ most, and where labels may be wrong. The same answers and the
    same seed give the same products.

    Args:
        measured: A report's numbers and answers.
        seed: Of the draws.
    """
    truth, groups = measured.truth, measured.groups
    right = {name: answer.right for name, answer in measured.answers.items()}
    sure = {name: answer.certainty for name, answer in measured.answers.items()}
    at_random = np.random.default_rng(seed).random(truth.products)
    towers, head, best = _models(measured.numbers)
    found = []

    def add(kind, title, about, models, members, first, **more) -> None:
        """`first`: float `(n,)`, the members with the largest are shown first."""
        rows = np.flatnonzero(members)
        if not len(rows):
            return
        order = rows[np.argsort(-first[rows], kind="stable")]
        labels = None if kind == "worst_label" else _first_labels(truth)
        found.append(
            {
                "kind": kind,
                "title": title,
                "about": about,
                "models": models,
                **more,
                "products": len(rows),
                "rows": _varied(order, groups, labels),
            }
        )

    if len(towers) == 1:
        [name] = towers
        about = f"Products whose first label by {name} is right, {TYPICAL}"
        add("right", f"{name} right", about, towers, right[name], at_random)
        about = (
            f"Products whose first label by {name} is wrong; first those that it was "
            "surest of."
        )
        add("wrong", f"{name} wrong", about, towers, ~right[name], sure[name])
    else:
        a, b = towers
        about = f"Products whose first label is right by both towers, {TYPICAL}"
        both = right[a] & right[b]
        add("both", f"{a} and {b} right", about, towers, both, at_random)
        for kind, one, other in (("only_first", a, b), ("only_second", b, a)):
            about = (
                f"Products that {one} has right and {other} wrong; first those that "
                f"{other} was surest of."
            )
            members = right[one] & ~right[other]
            add(kind, f"Only {one} right", about, towers, members, sure[other])
        about = (
            "Products that both towers have wrong; first those that both were surest "
            "of, of which some may be filed wrongly."
        )
        least = np.minimum(sure[a], sure[b])
        neither = ~right[a] & ~right[b]
        add("none", f"Neither {a} nor {b} right", about, towers, neither, least)
    if head is not None and best is not None:
        about = (
            f"Products that {head} has right and its best tower, {best}, wrong; first "
            f"those that {best} was surest of."
        )
        members = right[head] & ~right[best]
        add("rescued", f"Rescued by {head}", about, [head, best], members, sure[best])
        about = (
            f"Products that {head} has wrong and its best tower, {best}, right; first "
            f"those that {head} was surest of."
        )
        members = ~right[head] & right[best]
        add("broken", f"Broken by {head}", about, [head, best], members, sure[head])
    judge = head if head is not None else towers[0]
    answer = measured.answers[judge]
    names = measured.numbers["label_names"]
    for label in measured.numbers["models"][judge]["worst"]["by_share"][:WORST]:
        missed = (truth.labels == label) & ~answer.found
        members = np.zeros(truth.products, bool)
        members[truth.rows[missed]] = True
        doubt = np.zeros(truth.products)
        doubt[truth.rows[missed]] = 1.0 - answer.probability[missed]
        about = (
            f"Products of the label {names[label]} that {judge} does not give it; "
            "first those of which it held that label for the least probable."
        )
        title = f"Missed: {names[label]}"
        add("worst_label", title, about, [judge], members, doubt, label=label)
    return found


def _models(numbers: Mapping[str, Any]) -> tuple[list[str], str | None, str | None]:
    """The best towers, two if there are so many; the best head, and its best tower."""
    models = numbers["models"]
    towers = [x for x in models if models[x]["kind"] == "tower"]
    ranked = [x for x in numbers["ranking"] if x in towers] or towers
    head = numbers.get("best_head")
    return ranked[:2], head, None if head is None else models[head]["best_tower"]


def _first_labels(truth: Truth) -> np.ndarray:
    """int `(n,)`: a label of each product, -1 of one without."""
    rows, places = np.unique(truth.rows, return_index=True)
    found = np.full(truth.products, -1)
    found[rows] = truth.labels[places]
    return found


def _varied(
    order: np.ndarray, groups: np.ndarray, labels: np.ndarray | None
) -> list[int]:
    """The first of an order, but one of a group and few of a label."""
    chosen: list[int] = []
    seen: set[int] = set()
    count: dict[int, int] = {}
    for row in order:
        label = -1 if labels is None else int(labels[row])
        full = labels is not None and count.get(label, 0) == OF_A_LABEL
        if full or int(groups[row]) in seen:
            continue
        chosen.append(int(row))
        seen.add(int(groups[row]))
        count[label] = count.get(label, 0) + 1
        if len(chosen) == SHOWN:
            break
    return chosen


def rows_of(galleries: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """int `(m,)`: the products of all galleries, rising."""
    return np.array(sorted({row for x in galleries for row in x["rows"]}), int)


def show(
    run: Run, settings: Experiment, split: str, numbers: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What `report.json` tells of the products of galleries.

    Of models' outputs only these products are read, one model at a time.

    Args:
        run: A run.
        settings: Its experiment.
        split: The split that is reported.
        numbers: The content of `report.json`, with `galleries`.

    Raises:
        RunError: If the run does not keep what products look like, or outputs are
            missing or damaged.
    """
    rows = rows_of(numbers["galleries"])
    looks = products.read(run, split).take(rows)
    found: dict[str, dict[str, Any]] = {
        str(row): {
            "id": str(looks.ids[place]),
            **looks.shown(place),
            "labels": looks.labels[place].tolist(),
            "said": {},
        }
        for place, row in enumerate(rows)
    }
    models = [x for x, about in numbers["models"].items() if about["kind"] == "tower"]
    models += [numbers["best_head"]] if "best_head" in numbers else []
    for name in models:
        stored = results.read_outputs(run, settings, name, split).take(rows)
        said = results.probabilities(run, settings, name, stored.logits, stored.present)
        order = np.argsort(-said, axis=1, kind="stable")[:, :FIRST]
        for place, row in enumerate(rows):
            if stored.present[place]:
                found[str(row)]["said"][name] = [
                    [int(label), round(float(said[place, label]), 4)]
                    for label in order[place]
                ]
    return found
