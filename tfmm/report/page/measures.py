"""All measures of the papers, how training went, and calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfmm.page import (
    Block,
    Cell,
    Fold,
    Picture,
    Pictures,
    Section,
    Table,
    Words,
    drawing,
)
from tfmm.report.tables import (
    count,
    first_models,
    in_order,
    percent,
    place_of_best,
)

# A measure that no model has gets no column. Of each: what it is called, how it is
# written, and whether the largest (1) or the least (-1) is best.
GROUPS: Mapping[str, Mapping[str, tuple[str, str, int]]] = {
    "Finding the label": {
        "top1": ("Top-1", "%", 1),
        "top3": ("Top-3", "%", 1),
        "top5": ("Top-5", "%", 1),
        "exact": ("All labels exact", "%", 1),
        "precision_at.1": ("Precision at 1", "%", 1),
        "precision_at.3": ("Precision at 3", "%", 1),
        "precision_at.5": ("Precision at 5", "%", 1),
        "recall_at.1": ("Recall at 1", "%", 1),
        "recall_at.3": ("Recall at 3", "%", 1),
        "recall_at.5": ("Recall at 5", "%", 1),
        "map": ("mAP", "%", 1),
        "policy_accuracy": ("Policy accuracy", "%", 1),
    },
    "Precision, recall and F1": {
        "micro_precision": ("Micro precision", "%", 1),
        "micro_recall": ("Micro recall", "%", 1),
        "micro_f1": ("Micro-F1", "%", 1),
        "mean_precision": ("Mean precision", "%", 1),
        "mean_recall": ("Mean recall", "%", 1),
        "macro_f1": ("Macro-F1", "%", 1),
        "weighted_precision": ("Weighted precision", "%", 1),
        "weighted_recall": ("Weighted recall", "%", 1),
        "weighted_f1": ("Weighted F1", "%", 1),
        "given": ("Labels given", "2", 0),
        "unassigned": ("Without any", "%", 0),
    },
    "Probabilities": {
        "loss": ("Loss", "3", -1),
        "validation.loss": ("Loss on validation", "3", -1),
        "ece": ("ECE", "%", -1),
        "ece_uncalibrated": ("ECE before", "%", -1),
        "temperature": ("Temperature", "2", 0),
        "threshold": ("Threshold", "2", 0),
    },
    "What it took": {
        "present": ("Products with anything to look at", "n", 0),
        "parameters": ("Parameters", "n", 0),
        "epochs": ("Epochs", "n", 0),
        "best_epoch": ("Best epoch", "n", 0),
        "seconds": ("Seconds of training", "n", 0),
        "epoch_seconds": ("Seconds an epoch", "1", 0),
    },
}
ABOUT = {
    "Precision, recall and F1": "Micro: over all decisions. Mean and macro: means over "
    "the labels that occur here, so that rare labels count as much as frequent ones. "
    "Weighted: by their products.",
    "Probabilities": "Loss: cross-entropy in nats. ECE: expected calibration error; "
    "before: of the outputs as they were before calibration. Lower is better.",
}
SHOWN = 6  # pictures of models before the fold
MEASURES = {
    "top1": ("top-1", drawing.GREEN),
    "micro_f1": ("micro-F1", drawing.BLUE),
    "macro_f1": ("macro-F1", drawing.VIOLET),
}


def section(numbers: Mapping[str, Any]) -> Section:
    """Tables of every measure."""
    blocks: list[Block] = []
    for title in GROUPS:
        table = measure_table(numbers, title)
        if len(table.columns) > 1:
            about = ABOUT.get(title)
            blocks += [Words(title, heading=True), table]
            blocks += [Words(about)] if about else []
    return Section(
        "measures",
        "All measures",
        "Every measure of the papers for every model, to compare with other work; "
        "what one decides by is in the sections above.",
        blocks,
    )


def measure_table(numbers: Mapping[str, Any], title: str) -> Table:
    """The measures of one of `GROUPS` that any model has, in %, nats or counts."""
    models = in_order(numbers)
    single = numbers["task"] == "single_label"
    found = {
        key: {name: _value(model, key) for name, model in models.items()}
        for key in GROUPS[title]
        # Single-label models give each product one label.
        if not (single and key in ("given", "unassigned"))
    }
    found = {
        key: values
        for key, values in found.items()
        if any(x is not None for x in values.values())
    }
    rows = []
    for name in models:
        row = [Cell(name)]
        for key, values in found.items():
            _, style, sign = GROUPS[title][key]
            value = values[name]
            if value is None:
                row.append(Cell())
                continue
            known = [sign * x for x in values.values() if x is not None]
            best = sign != 0 and sign * value == max(known)
            row.append(Cell(_write(value, style), best=best))
        rows.append(row)
    columns = ["Model", *(GROUPS[title][key][0] for key in found)]
    return Table(title, columns, rows, place_of_best(models, numbers))


def _value(model: Mapping[str, Any], key: str) -> float | None:
    found: Any = model
    for step in key.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _write(value: float, style: str) -> str:
    if style == "%":
        return percent(value)
    return count(value) if style == "n" else f"{value:.{style}f}"


def learning(numbers: Mapping[str, Any]) -> Section | None:
    """Loss and measures over the epochs of each model that was trained."""
    trained = {x: m for x, m in in_order(numbers).items() if m.get("learning")}
    if not trained:
        return None
    pictures = [
        _learning_picture(name, model, place)
        for place, (name, model) in enumerate(trained.items())
    ]
    return Section(
        "learning",
        "Learning curves",
        "How training went, epoch by epoch. A training loss that falls on while that "
        "of validation rises says that the model learns products by heart: more "
        "products or more dropout help. Curves that still rise at the end ask for more "
        "epochs.",
        _folded(
            [Pictures(pictures[:SHOWN])],
            [Pictures(pictures[SHOWN:])] if pictures[SHOWN:] else [],
            f"{len(pictures[SHOWN:])} more models",
        ),
    )


def _folded(first: Sequence[Block], rest: Sequence[Block], title: str) -> list[Block]:
    return [*first, *([Fold(title, rest)] if rest else [])]


def _learning_picture(name: str, model: Mapping[str, Any], place: int) -> Picture:
    log = model["learning"]
    epochs = log["epoch"]
    stages = log.get("stage", [])
    starts = [
        epochs[i]
        for i in range(1, len(stages))
        if stages[i] != stages[i - 1] and stages[i - 1]
    ]

    def line(axes: Any, key: str, title: str, color: str) -> None:
        known = [
            (x, y)
            for x, y in zip(epochs, log.get(key, []), strict=False)
            if y is not None
        ]
        if known:
            marker = "o" if len(known) == 1 else ""
            xs, ys = zip(*known, strict=True)
            axes.plot(xs, ys, color=color, marker=marker, label=title)

    def paint(left: Any, right: Any) -> None:
        line(left, "train_loss", "training", drawing.GREY)
        line(left, "loss", "validation", drawing.RED)
        left.set_ylabel("loss")
        for key, (title, color) in MEASURES.items():
            # Of single-label both are the same.
            if key != "micro_f1" or log.get(key) != log.get("top1"):
                line(right, key, title, color)
        right.set_ylim(0, 1)
        drawing.percents(right.yaxis)
        for axes in (left, right):
            for start in starts:
                axes.axvline(start - 0.5, color=drawing.INK, linewidth=0.6, alpha=0.5)
            if model.get("best_epoch") is not None:
                best = model["best_epoch"]
                axes.axvline(best, color=drawing.INK, linewidth=1, linestyle=":")
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            if axes.get_legend_handles_labels()[0]:
                axes.legend()

    return drawing.picture(
        f"learning-{place}",
        f"Loss and measures of {name} over {len(epochs)} epochs",
        paint,
        title=f"{name}; dotted: the epoch that was kept",
        width=430,
        height=185,
        columns=2,
    )


def calibration(numbers: Mapping[str, Any]) -> Section | None:
    """How often a model is right that says it is so sure."""
    models = in_order(numbers)
    names = first_models(numbers, len(models), len(models))
    names = [x for x in names if models[x].get("calibration_curve")]
    if not names:
        return None
    shown = first_models(numbers, 2, 4)
    order = [*(x for x in shown if x in names), *(x for x in names if x not in shown)]
    pictures = [
        _calibration_picture(name, models[name]["calibration_curve"], place)
        for place, name in enumerate(order)
    ]
    what = (
        "first choices"
        if numbers["task"] == "single_label"
        else "decisions over labels"
    )
    return Section(
        "calibration",
        "Calibration",
        "Whether a probability can be taken at its word: of all products that a model "
        "is 80 % sure of, 80 % should be right. A line below the diagonal boasts; do "
        "not set thresholds by hand there.",
        [
            Words(
                f"Of {what}, in 15 bins; larger dots stand for more of them. Thin: "
                "before calibration."
            ),
            *_folded(
                [Pictures(pictures[:SHOWN])],
                [Pictures(pictures[SHOWN:])] if pictures[SHOWN:] else [],
                f"{len(pictures[SHOWN:])} more models",
            ),
        ],
    )


def _calibration_picture(name: str, curves: Mapping[str, Any], place: int) -> Picture:
    def known(curve: Mapping[str, Any]) -> tuple[list, list, list]:
        points = [
            x
            for x in zip(
                curve["confidence"], curve["right"], curve["count"], strict=True
            )
            if x[2]
        ]
        return tuple(map(list, zip(*points, strict=True)))  # type: ignore[return-value]

    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=drawing.INK, linewidth=0.8, linestyle=":")
        if "before" in curves:
            sure, right, _ = known(curves["before"])
            axes.plot(sure, right, color=drawing.YELLOW, linewidth=1, label="before")
        sure, right, counts = known(curves["after"])
        axes.plot(sure, right, color=drawing.GREEN, label="calibrated")
        most = max(counts)
        sizes = [6 + 60 * (x / most) ** 0.5 for x in counts]
        axes.scatter(sure, right, s=sizes, color=drawing.GREEN, linewidth=0)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.04)
        axes.set_xlabel("how sure")
        axes.set_ylabel("right")
        drawing.percents(axes.xaxis)
        drawing.percents(axes.yaxis)
        axes.legend(loc="upper left")

    return drawing.picture(
        f"calibration-{place}",
        f"Calibration of {name}: share that is right by probability",
        paint,
        title=name,
        width=300,
        height=230,
    )
