"""The list of the products that are misfiled in all likelihood, the likeliest first."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfmm import outputs, products
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.report.misfiled.doubts import Confidence, Doubts, Facts
from tfmm.report.misfiled.judges import OWN_PARTS, Judge, Opinion, ask, choose
from tfmm.run import Run, replacing
from tfmm.settings import SPLITS
from tfmm.settings.wiring import fitted_on

# So many products are shown, and so many kinds of mistake told.
FIRST = 100
KINDS = 20


@dataclass(frozen=True)
class Judged:
    """The products of a split, and what there is against their labels.

    Attributes:
        judge: Who judged.
        ids: `(n,)` strings, of the products that could be judged.
        targets: int `(n,)` or float `(n, C)`.
        doubts: Of the same products.
        left: How many products of the split could not be judged.
    """

    judge: Judge
    ids: np.ndarray
    targets: np.ndarray
    doubts: Doubts
    left: int

    def given(self, row: int) -> np.ndarray:
        """The labels of a product, as indices."""
        if self.targets.ndim == 1:
            return self.targets[row : row + 1]
        return np.flatnonzero(self.targets[row] > 0)

    def likely(self, row: int) -> np.ndarray:
        """The labels that the judge would rather see; none if it is sure of none."""
        wrong = self.doubts.wrong.labels[self.doubts.wrong.of(row)]
        missing = self.doubts.missing.labels[self.doubts.missing.of(row)]
        return np.union1d(np.setdiff1d(self.given(row), wrong), missing)


@dataclass(frozen=True)
class Listing:
    """All products judged; iterating gives the listed ones, the likeliest first.

    Attributes:
        parts: Split by split.
        rates: What `Confidence.error_rates` estimates.
        order: int `(m, 2)`: part and row of each product that is listed.
    """

    parts: tuple[Judged, ...]
    rates: Mapping[str, float]
    order: np.ndarray

    @property
    def products(self) -> int:
        """How many products were judged."""
        return sum(len(part.ids) for part in self.parts)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[Judged, int]]:
        for part, row in self.order:
            yield self.parts[part], int(row)


def judges(
    run: Run, settings: Experiment, split: str, report: Mapping[str, Any]
) -> list[Judge]:
    """Who judges what for the report of a split.

    The report of `test` lists the whole catalog, as far as there are models that were
    not fitted on a product; that of another split lists the split.

    Args:
        run: A run.
        settings: Its experiment.
        split: The split that is reported.
        report: The content of `report.json`: `models` and `ranking`.
    """
    models = report["models"]
    validation = {x: models[x]["validation"] for x in report["ranking"]}
    ranking = [x for x in validation if not models[x].get("ranked_on_own_products")]
    found = []
    for part in OWN_PARTS if split == "test" else (split,):
        try:
            empty = not len(outputs.read_targets(run.outputs, part)[0])
        except RunError:
            if part == split:
                raise
            continue  # an experiment without folds has no `train_oof`
        judge = None if empty else choose(run, settings, part, validation, ranking)
        found += [judge] if judge else []
    return found


def judge(run: Run, settings: Experiment, judges: Sequence[Judge]) -> Listing:
    """Lets every judge look at its products, twice, one at a time."""
    confidence = Confidence(settings.catalog.task, len(run.read_labels()))
    for one in judges:
        _, targets, said = _known(run, settings, one, ask(run, settings, one))
        confidence.learn(targets, said)
        del said
    parts = []
    for one in judges:
        opinion = ask(run, settings, one)
        ids, targets, said = _known(run, settings, one, opinion)
        doubts = confidence.doubt(targets, said)
        parts.append(Judged(one, ids, targets, doubts, len(opinion.ids) - len(ids)))
        del opinion, said
    found = []
    for place, part in enumerate(parts):
        rows = np.union1d(part.doubts.wrong.rows, part.doubts.missing.rows)
        found += [(-part.doubts.surprise[row], place, row) for row in rows]
    order = np.array([x[1:] for x in sorted(found)], int).reshape(-1, 2)
    rates = confidence.error_rates() if any(len(x.ids) for x in parts) else {}
    return Listing(tuple(parts), rates, order)


def _known(
    run: Run, settings: Experiment, judge: Judge, opinion: Opinion
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, targets and probabilities of the products that can be judged.

    Another catalog may hold products that the run's models were fitted on.
    """
    fit = opinion.present.copy()
    if judge.split not in (*SPLITS, "train_oof"):
        seen = {"train"}.union(*(fitted_on(x, settings.heads) for x in judge.models))
        for split in seen - {"train_oof"}:
            fit &= ~np.isin(opinion.ids, products.read(run, split).ids.astype(str))
    if fit.all():
        return opinion.ids, opinion.targets, opinion.probabilities
    return opinion.ids[fit], opinion.targets[fit], opinion.probabilities[fit]


def numbers(
    run: Run,
    settings: Experiment,
    split: str,
    found: Listing,
    names: Sequence[str],
) -> dict[str, Any]:
    """What `report.json` tells of misfiled products.

    Args:
        run: A run.
        settings: Its experiment.
        split: The split that is reported.
        found: Who was judged and is listed.
        names: The labels.
    """
    confident = sum(int(part.doubts.confident.sum()) for part in found.parts)
    shown = [
        _entry(part, row, names)
        for (part, row), _ in zip(found, range(FIRST), strict=False)
    ]
    _show(run, shown)
    return {
        "products": found.products,
        "left": sum(part.left for part in found.parts),
        "judges": [
            {
                "split": part.judge.split,
                "judge": part.judge.name,
                "products": len(part.ids),
                "listed": int((found.order[:, 0] == place).sum()),
            }
            for place, part in enumerate(found.parts)
        ],
        "listed": len(found),
        "confident": confident,
        **found.rates,
        **_kinds(settings, found, names),
        "first": shown,
    }


def _entry(part: Judged, row: int, names: Sequence[str]) -> dict[str, Any]:
    doubts = part.doubts
    sides = doubts.wrong, doubts.missing

    def told(facts: Facts) -> list[dict[str, Any]]:
        here = facts.of(row)
        return [
            {"label": names[label], "probability": round(float(said), 4)}
            for label, said in zip(
                facts.labels[here], facts.probabilities[here], strict=True
            )
        ]

    return {
        "id": str(part.ids[row]),
        "split": part.judge.split,
        "judge": part.judge.name,
        "surprise": round(float(doubts.surprise[row]), 3),
        "confident": any(x.confident[x.of(row)].any() for x in sides),
        "given": [names[label] for label in part.given(row)],
        "likely": [names[label] for label in part.likely(row)],
        "wrong": told(doubts.wrong),
        "missing": told(doubts.missing),
    }


def _show(run: Run, entries: Sequence[dict[str, Any]]) -> None:
    """Adds what the products look like."""
    looks = {}
    for split in {entry["split"] for entry in entries}:
        here = products.read(run, split)
        looks[split] = here, {str(name): row for row, name in enumerate(here.ids)}
    for entry in entries:
        here, rows = looks[entry["split"]]
        entry |= here.shown(rows[entry["id"]])


def _kinds(
    settings: Experiment, found: Listing, names: Sequence[str]
) -> dict[str, list[list]]:
    """Which mistakes the confident joint counts most often."""
    wrong: Counter = Counter()
    missing: Counter = Counter()
    pairs: Counter = Counter()
    for part in found.parts:
        sides = part.doubts.wrong, part.doubts.missing
        gone, due = (side.labels[side.confident].tolist() for side in sides)
        wrong.update(gone)
        missing.update(due)
        if settings.catalog.task == "single_label":
            pairs.update(zip(gone, due, strict=True))
    if settings.catalog.task == "single_label":
        common = pairs.most_common(KINDS)
        return {"pairs": [[names[a], names[b], count] for (a, b), count in common]}
    common = (wrong + missing).most_common(KINDS)
    return {"labels": [[names[x], wrong[x], missing[x]] for x, _ in common]}


def write_csv(
    path: Path, settings: Experiment, found: Listing, names: Sequence[str]
) -> None:
    """Writes everything that is listed; labels are joined as the catalog joins them.

    Single-label: the label given and the likely one, each with its probability.
    Multi-label: the labels given, those that the judge would rather see, and which of
    them are wrong and which missing, with their probabilities.
    """
    single = settings.catalog.task == "single_label"
    separator = settings.catalog.label_separator

    def join(labels: Sequence[str]) -> str:
        if single:
            return labels[0]
        if separator == "json":
            return json.dumps(labels, ensure_ascii=False)
        return separator.join(labels)

    def side(facts: list[dict[str, Any]]) -> tuple[str, str]:
        said = " ".join(f"{x['probability']:.4f}" for x in facts)
        return join([x["label"] for x in facts]), said

    head = ("id", "split", "judge", "surprise", "confident")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if single:
        writer.writerow(
            (*head, "given", "given_probability", "likely", "likely_probability")
        )
    else:
        sides = ("wrong", "wrong_probability", "missing", "missing_probability")
        writer.writerow((*head, "given", "likely", *sides))
    for part, row in found:
        entry = _entry(part, row, names)
        told = (*side(entry["wrong"]), *side(entry["missing"]))
        if not single:
            told = (join(entry["given"]), join(entry["likely"]), *told)
        confident = "yes" if entry["confident"] else "no"
        writer.writerow((*(entry[x] for x in head[:-1]), confident, *told))
    with replacing(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8", newline="")
