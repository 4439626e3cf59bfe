"""How well a run finds the labels that were changed on purpose.

    python tools/flips_found.py RUN --key flips.csv

RUN was fitted on the catalog that `tools/flip_labels.py` wrote, and the key says which
labels it changed. All products that can be judged are ranked as the report ranks them
and in the ways of cleanlab. Of each ranking: precision among the first 100, average
precision (scikit-learn), and of the changed products in the report's list the share for
which the likely label is the one that was changed. A ranking by chance has the share
changed in all three columns but the last.

`--judge NAME` lets one model judge every split, also where it was fitted on it: so
that a judge can be compared with another. Needs cleanlab: `pip install -e '.[test]'`.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from cleanlab import count, filter, multilabel_classification, rank
from sklearn.metrics import average_precision_score

from tfmm.errors import CatalogError, RunError, command_line, did_you_mean
from tfmm.report.misfiled import listing
from tfmm.report.misfiled.judges import Judge, ask
from tfmm.run import Run, read_json

FIRST = 100


def read_key(path: Path) -> dict[str, tuple[str, str]]:
    """Id -> the label that went and the one that came."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["id"]: (row["was"], row["is"]) for row in rows}
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        raise CatalogError(
            f"{path}: expected the key that tools/flip_labels.py wrote"
        ) from None


def cleanlab_scores(
    task: str, targets: np.ndarray, said: np.ndarray
) -> dict[str, np.ndarray]:
    """What cleanlab makes of probabilities `(n, C)`: name -> `(n,)`, low is suspect."""
    if task == "multi_label":
        labels = [np.flatnonzero(row).tolist() for row in targets]
        score = multilabel_classification.get_label_quality_scores
        ways = {
            "averaged": {"method": "exponential_moving_average", "alpha": 0.8},
            "softmin": {"method": "softmin"},
        }
        return {
            f"{method}, {way}": score(
                labels, said, method=method, aggregator_kwargs=options
            )
            for method in ("self_confidence", "confidence_weighted_entropy")
            for way, options in ways.items()
        }
    methods = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
    scores = {
        method: rank.get_label_quality_scores(targets, said, method=method)
        for method in methods
    }
    scores |= {
        f"{method}, less thresholds": rank.get_label_quality_scores(
            targets, said, method=method, adjust_pred_probs=True
        )
        for method in methods[:2]
    }
    joint = count.compute_confident_joint(targets, said)
    for by in ("confident_learning", "prune_by_noise_rate", "both"):
        found = filter.find_label_issues(
            targets, said, filter_by=by, confident_joint=joint, n_jobs=1
        )
        # Those that a filter finds come before all others.
        scores[f"{by}, normalized_margin"] = scores["normalized_margin"] - 2.0 * found
    return scores


def measured(is_flipped: np.ndarray, suspicion: np.ndarray) -> tuple[float, float]:
    """Precision among the first 100, and average precision, of `(n,)` scores."""
    first = np.argsort(-suspicion, kind="stable")[:FIRST]
    return (
        float(is_flipped[first].mean()),
        float(average_precision_score(is_flipped, suspicion)),
    )


def told(found: listing.Listing, names: tuple[str, ...], key: Mapping) -> float:
    """Of the changed products listed, for how many the likely labels put it right."""
    right = []
    for part, row in found:
        flip = key.get(str(part.ids[row]))
        if flip:
            was, new = flip
            likely = {names[label] for label in part.likely(row)}
            right.append(was in likely and new not in likely)
    return float(np.mean(right)) if right else 0.0


def flips_found(
    run: Annotated[Path, typer.Argument(help="A run that tfmm.fit made.")],
    key: Annotated[Path, typer.Option(help="What tools/flip_labels.py changed.")],
    judge: Annotated[
        str | None, typer.Option(help="One model for every split.")
    ] = None,
) -> None:
    """Prints how high the changed products are ranked."""
    flips = read_key(key)
    place = Run(run)
    settings = place.read_experiment()
    names = place.read_labels()
    report = read_json(place.report("test") / "report.json")
    judges = listing.judges(place, settings, "test", report)
    if judge is not None:
        models = (*settings.towers, *settings.heads)
        if judge not in models:
            raise RunError(f"--judge {judge}{did_you_mean(judge, models)}")
        judges = [
            Judge(one.split, (judge,))
            for one in judges
            if (place.outputs / judge / one.split).is_dir()
        ]
    found = listing.judge(place, settings, judges)
    for part in found.parts:
        print(f"{part.judge.split}: {len(part.ids)} products by {part.judge.name}")
    ids = np.concatenate([part.ids for part in found.parts])
    is_flipped = np.isin(ids, list(flips))
    opinions = [ask(place, settings, one) for one in judges]
    targets = np.concatenate([x.targets[x.present] for x in opinions])
    said = np.concatenate([x.probabilities[x.present] for x in opinions])
    ours = np.concatenate([part.doubts.surprise for part in found.parts])
    rankings = {"the report's": ours} | {
        f"cleanlab: {name}": -scores
        for name, scores in cleanlab_scores(
            settings.catalog.task, targets, said
        ).items()
    }
    listed = np.zeros(len(ids), bool)
    starts = np.cumsum([0, *(len(part.ids) for part in found.parts)])
    listed[starts[found.order[:, 0]] + found.order[:, 1]] = True
    print(
        f"{len(ids)} products judged, {is_flipped.sum()} changed "
        f"({is_flipped.mean():.4f}), {listed.sum()} listed, of the changed "
        f"{listed[is_flipped].mean():.3f}, put right {told(found, names, flips):.3f}; "
        + ", ".join(f"{name} {value:.4f}" for name, value in found.rates.items())
    )
    print(f"{'ranking':52} first {FIRST}   average precision")
    for name, suspicion in rankings.items():
        precision, average = measured(is_flipped, suspicion)
        print(f"{name:52} {precision:9.2f}   {average:9.3f}")


if __name__ == "__main__":
    command_line(flips_found, "tools/flips_found.py")
