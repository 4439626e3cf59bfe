"""Whether a report's numbers are what scikit-learn makes of the stored outputs.

    python tools/report_check.py RUN [--split test]

Opens the files of a run itself: targets, logits, calibration, answers with modalities
hidden. From them it computes what `report.json` says, by scikit-learn and in plain
ways that share no code with `tfmm.report`. Prints both; what differs is marked, and
then the exit status is 1. For runs whose labels are not held to a hierarchy.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import scipy.sparse
import sklearn.metrics as sk
import typer
from scipy.special import expit, softmax
from scipy.stats import binomtest

from tfmm.errors import RunError, command_line

TOLERANCE = 1e-6  # figures
ROUNDED = 5.1e-5  # arrays, told to four decimals


class Checked:
    """The stored answers of one split of a run, and what was compared."""

    def __init__(self, run: Path, split: str):
        self.run, self.split = run, split
        self.differing = self.compared = 0
        self.report = json.loads(
            (run / "report" / split / "report.json").read_text(encoding="utf-8")
        )
        self.single = self.report["task"] == "single_label"
        self.truth = self.targets(split)
        self.groups = np.load(run / "outputs" / "targets" / f"{split}.groups.npy")
        shares = self.targets("train").mean(axis=0, dtype=np.float64)
        p = np.clip(shares, 1e-7, 1 - 1e-7)
        self.prior = np.float32(np.log(p) if self.single else np.log(p / (1 - p)))

    def targets(self, split: str) -> np.ndarray:
        """bool `(n, C)`."""
        place = self.run / "outputs" / "targets"
        shape = json.loads((place / f"{split}.json").read_text())["shape"]
        if len(shape) == 1:
            labels = np.load(place / f"{split}.npy")
            return np.eye(self.report["labels"], dtype=bool)[labels]
        if shape[1] > 1000:
            return scipy.sparse.load_npz(place / f"{split}.npz").toarray() > 0
        return np.load(place / f"{split}.npy") > 0

    def said(
        self, model: str, case: str = "", calibrated: bool = True, split: str = ""
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities `(n, C)` and what is assigned, with `case` hidden."""
        place = self.run / "outputs" / model / (split or self.split)
        if case:
            stored = dict(
                np.load(place.with_name(f"{place.name}.cases") / f"{case}.npz")
            )
        else:
            stored = {k: np.load(place / f"{k}.npy") for k in ("logits", "present")}
        fitted = json.loads(
            (self.run / "outputs" / model / "calibration.json").read_text()
        )
        logits, present = stored["logits"], stored["present"][:, None]
        if calibrated:
            logits = logits * np.float32(fitted["scales"])
            logits = logits + np.float32(fitted["shifts"])
        logits = np.where(present, logits, self.prior).astype(np.float64)
        p = np.float32(softmax(logits, axis=1) if self.single else expit(logits))
        given = p >= np.float32(fitted["thresholds"])
        if self.single:
            given &= np.arange(p.shape[1]) == p.argmax(axis=1)[:, None]
        return p, given & present

    def same(self, what: str, told: Any, found: Any, tolerance: float) -> None:
        """Notes whether two numbers or arrays agree; None is NaN."""
        a, b = (np.atleast_1d(np.array(x, float)) for x in (told, found))
        gap = np.abs(a - b) if a.shape == b.shape else np.array([np.inf])
        if a.shape == b.shape:
            gap = np.where(np.isnan(a) & np.isnan(b), 0.0, gap)
        good = bool((gap <= tolerance).all())
        self.compared += 1
        self.differing += not good
        if a.size == 1 or not good:
            shown = [
                f"{x[0]:.6f}" if x.size == 1 else f"{x.size} numbers" for x in (a, b)
            ]
            mark = "" if good else "   DIFFERENT"
            print(f"{what:<52}{shown[0]:>14}{shown[1]:>14}{mark}")
        else:
            print(f"{what:<52}{f'{a.size} numbers':>14}{'the same':>14}")


def shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """NaN where there is no whole."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(wholes > 0, parts / wholes, np.nan)


def check_model(run: Checked, name: str, told: dict[str, Any]) -> None:
    """The figures of one model that need no other."""
    truth, (p, given) = run.truth, run.said(name)
    occurring = np.flatnonzero(truth.any(axis=0))
    first = p.argmax(axis=1)
    right = truth[np.arange(len(p)), first]
    run.same(f"{name}: top1", told["top1"], right.mean(), TOLERANCE)
    for average, words in (
        ("micro", ("micro_f1", "micro_precision", "micro_recall")),
        ("macro", ("macro_f1", "mean_precision", "mean_recall")),
        ("weighted", ("weighted_f1", "weighted_precision", "weighted_recall")),
    ):
        for word, score in zip(
            words, (sk.f1_score, sk.precision_score, sk.recall_score), strict=True
        ):
            options = {} if average == "micro" else {"labels": occurring}
            found = score(truth, given, average=average, zero_division=0, **options)
            run.same(f"{name}: {word}", told[word], found, TOLERANCE)
    found = sk.average_precision_score(truth[:, occurring], p[:, occurring])
    run.same(f"{name}: map", told["map"], found, TOLERANCE)
    for k in (3, 5):
        if f"top{k}" in told:
            best = np.argsort(-p, axis=1, kind="stable")[:, :k]
            hits = np.take_along_axis(truth, best, axis=1)
            run.same(f"{name}: top{k}", told[f"top{k}"], hits.any(1).mean(), TOLERANCE)
            if not run.single:
                found = (hits.sum(axis=1) / truth.sum(axis=1)).mean()
                run.same(
                    f"{name}: recall at {k}",
                    told["recall_at"][str(k)],
                    found,
                    TOLERANCE,
                )
                found = hits.mean()
                run.same(
                    f"{name}: precision at {k}",
                    told["precision_at"][str(k)],
                    found,
                    TOLERANCE,
                )
    if not run.single:
        found = sk.accuracy_score(truth, given)
        run.same(f"{name}: exact", told["exact"], found, TOLERANCE)
    clipped = np.clip(p.astype(np.float64), 1e-7, 1 - 1e-7)
    if run.single:
        normal = clipped / clipped.sum(axis=1, keepdims=True)
        found = sk.log_loss(truth.argmax(axis=1), normal, labels=np.arange(p.shape[1]))
    else:
        found = sk.log_loss(truth.ravel(), clipped.ravel())
    run.same(f"{name}: loss", told["loss"], found, TOLERANCE)
    each = sk.precision_recall_fscore_support(truth, given, zero_division=np.nan)
    arrays = told["per_label"]
    for word, found in zip(("precision", "recall", "f1"), each[:3], strict=True):
        run.same(f"{name}: {word} of labels", arrays[word], found, ROUNDED)
    tables = sk.multilabel_confusion_matrix(truth, given)
    run.same(f"{name}: found of labels", arrays["found"], tables[:, 1, 1], 0)
    run.same(f"{name}: given of labels", arrays["given"], tables[:, :, 1].sum(1), 0)
    check_curves(run, name, told, p, right)
    check_confused(run, name, told["confused"], given)


def check_curves(
    run: Checked, name: str, told: dict[str, Any], p: np.ndarray, right: np.ndarray
) -> None:
    """Calibration, and the share of the products that could be filed."""
    for when, calibrated in (("after", True), ("before", False)):
        q = run.said(name, calibrated=calibrated)[0]
        said = (q.max(axis=1) if run.single else q).ravel()
        was = (
            run.truth[np.arange(len(q)), q.argmax(axis=1)] if run.single else run.truth
        )
        place = np.minimum((said * 15).astype(int), 14)
        told_curve = told["calibration_curve"][when]
        bins = [place == x for x in range(15)]
        found = [x.sum() for x in bins]
        run.same(f"{name}: calibration {when}, counts", told_curve["count"], found, 0)
        found = [was.ravel()[x].mean() if x.any() else np.nan for x in bins]
        run.same(
            f"{name}: calibration {when}, right", told_curve["right"], found, ROUNDED
        )
    if not run.single:
        return
    for plan in told["coverage"].get("wanted", ()):
        filed = p.max(axis=1) >= (
            np.inf if plan["threshold"] is None else plan["threshold"]
        )
        what = f"{name}: for {plan['precision']:.2f}"
        run.same(f"{what} filed", plan["filed"], filed.mean(), TOLERANCE)
        if filed.any():
            run.same(f"{what} reached", plan["reached"], right[filed].mean(), TOLERANCE)


def check_confused(
    run: Checked, name: str, told: list[list[int]], given: np.ndarray
) -> None:
    """The labels that are taken for each other."""
    if run.single:
        some = given.any(axis=1)
        pairs = run.truth[some].argmax(axis=1), given[some].argmax(axis=1)
        table = sk.confusion_matrix(*pairs, labels=np.arange(given.shape[1]))
        np.fill_diagonal(table, 0)
    else:
        missed, wrong = run.truth & ~given, given & ~run.truth
        table = missed.T.astype(int) @ wrong.astype(int)
    found = np.sort(table[table > 0])[::-1][: len(told)]
    run.same(f"{name}: confused, by rank", [x[2] for x in told], found, 0)
    found = [table[true, label] for true, label, _ in told]
    run.same(f"{name}: confused, by pair", [x[2] for x in told], found, 0)


def check_cases(run: Checked, name: str, told: dict[str, Any]) -> None:
    """What a head says with modalities hidden, and what that takes away."""
    p, given = run.said(name)
    first, rows = p.argmax(axis=1), np.arange(len(p))
    images = told.get("image_gain")
    for modality, lost in told.get("leave_one_out", {}).items():
        q, hidden = run.said(name, modality)
        told_case = told["missing"][f"without_{modality}"]
        found = sk.f1_score(run.truth, hidden, average="micro", zero_division=0)
        run.same(
            f"{name}: micro_f1 without {modality}",
            told_case["micro_f1"],
            found,
            TOLERANCE,
        )
        if lost["products"] < len(p):
            continue  # which products have it, these files do not tell alone
        fall = run.truth[rows, first].mean() - run.truth[rows, q.argmax(1)].mean()
        run.same(f"{name}: top1 lost without {modality}", lost["top1"], fall, TOLERANCE)
        found = (p - q)[run.truth].mean(dtype=np.float64)
        run.same(f"{name}: p lost without {modality}", lost["true"], found, TOLERANCE)
        found = (p - q)[rows, first].mean(dtype=np.float64)
        run.same(
            f"{name}: first lost without {modality}", lost["first"], found, TOLERANCE
        )
        if modality != "image" or images is None:
            continue
        gained, gone = given & ~hidden & run.truth, hidden & ~given & run.truth
        run.same(f"{name}: gained by images", images["gained"], gained.sum(0), 0)
        run.same(f"{name}: lost by images", images["lost"], gone.sum(0), 0)
        values = [
            sk.f1_score(run.truth, x, average=None, zero_division=np.nan)
            for x in (given, hidden)
        ]
        run.same(
            f"{name}: F1 that images add", images["f1"], values[0] - values[1], 1.1e-4
        )
        sums = [
            np.bincount(run.groups, weights=x) for x in (gained.astype(int) - gone).T
        ]
        tests = [
            binomtest(int((x > 0).sum()), int((x != 0).sum())).pvalue
            if x.any()
            else np.nan
            for x in sums
        ]
        run.same(f"{name}: sign tests of images", images["p"], tests, ROUNDED)


def check_groups(run: Checked) -> None:
    """Who is right where towers are, and where they are not."""
    right, found = {}, {}
    for name in run.report["models"]:
        p, given = run.said(name)
        right[name] = run.truth[np.arange(len(p)), p.argmax(axis=1)]
        found[name] = given & run.truth
    for pair, groups in run.report["groups"].items():
        first, second = (right[x] for x in pair.split("|"))
        members = (first & second, first & ~second, ~first & second, ~first & ~second)
        for (group, told), inside in zip(groups.items(), members, strict=True):
            run.same(f"{pair}: {group}", told["products"], inside.sum(), 0)
            for head, share in told["right"].items():
                run.same(
                    f"{pair}: {group}, {head}",
                    share,
                    right[head][inside].mean(),
                    TOLERANCE,
                )
    towers = [x for x, m in run.report["models"].items() if m["kind"] == "tower"]
    count = np.sum([found[x] for x in towers], axis=0)
    none = (run.truth & (count == 0)).sum(axis=0)
    run.same("found by no tower", run.report["towers_found"]["none"], none, 0)
    order = [none[x] for x in run.report["worst_labels"]["by_count"]]
    most = np.sort(none[none > 0])[::-1][: len(order)]
    run.same("worst labels by count", order, most, 0)
    for pair, groups in run.report["groups_per_label"].items():
        first, second = (found[x] for x in pair.split("|"))
        told = np.array(list(groups.values()))
        run.same(f"{pair}: both, of labels", told[0], (first & second).sum(axis=0), 0)
        run.same(f"{pair}: all, of labels", told.sum(axis=0), run.truth.sum(axis=0), 0)
    counts = run.report["products_per_label"]
    run.same("products per label", counts["here"], run.truth.sum(axis=0), 0)
    run.same("training products", counts["train"], run.targets("train").sum(axis=0), 0)


def report_check(
    run: Annotated[Path, typer.Argument(help="A run that has a report.")],
    split: Annotated[str, typer.Option(help="Of the report.")] = "test",
) -> None:
    """Recomputes the numbers of a run's report and compares."""
    file = run / "report" / split / "report.json"
    if not file.exists():
        raise RunError(f"{file}: no such file; run tfmm.evaluate")
    checked = Checked(run, split)
    if 'hierarchy = "consistent"' in (run / "experiment.toml").read_text():
        raise RunError(
            f"{run}: its labels are held to a hierarchy, which this is not for"
        )
    print(f"{'':<52}{'report':>14}{'here':>14}")
    for name, told in checked.report["models"].items():
        check_model(checked, name, told)
        check_cases(checked, name, told)
    check_groups(checked)
    print(f"{checked.compared} compared, {checked.differing} different")
    if checked.differing:
        sys.exit(1)


if __name__ == "__main__":
    command_line(report_check, "python tools/report_check.py")
