"""Learning curves over the number of training products, as a section of a page."""

from collections.abc import Mapping
from typing import Any

from tfmm.page import Cell, Picture, Section, Table, Words, drawing
from tfmm.report.runs.apart import shown_figures
from tfmm.report.tables import FIGURES, TITLES, count, percent, points, span

# Keys by which runs differ in what they learn from, and in nothing else.
SHARES = ("catalog.data_rate", "catalog.splits.")
# Of the names below a picture.
COLUMNS, LEGEND_HEIGHT = 2, 17


def section(numbers: Mapping[str, Any]) -> Section | None:
    """What models gain from more training products; None where that is not known."""
    curve = numbers.get("learning_curve")
    if curve is None or not curve["models"]:
        return None
    figures = shown_figures(numbers)
    others = [
        entry["key"]
        for entry in numbers["settings"]
        if not entry["key"].startswith(SHARES)
    ]
    notes = [
        f"On the {count(curve['products'])} products that all runs tested, among the "
        f"{count(curve['labels'])} labels that all have, in % with 95 % intervals. "
        "Gain: from the fewest training products to the most, in points, paired "
        "(paper B, tables 5.3 and 5.6)."
    ]
    if others:
        notes.append(
            "The runs differ in more than what they were trained on: "
            f"{len(others)} other settings, listed below."
        )
    return Section(
        "learning",
        "More products to learn from",
        "Whether labelling more products would pay: a line that still rises says yes.",
        [
            *(_picture(curve, figure) for figure in figures),
            *(_table(numbers, curve, figure) for figure in figures),
            *map(Words, notes),
        ],
    )


def _picture(curve: Mapping[str, Any], figure: str) -> Picture:
    models = sorted(
        curve["models"].items(), key=lambda item: item[1][figure][-1], reverse=True
    )
    title = f"{TITLES[figure]} over training products"
    ticks = sorted({x for _, model in models for x in model["train"]})

    def paint(axes: Any) -> None:
        axes.set_xscale("log")
        # Lines of the same colour follow each other, told apart by how they are drawn.
        for place, (name, model) in enumerate(models):
            cycle, own = divmod(place, len(drawing.LINES))
            color, style = drawing.LINES[own], ("-", "--", ":")[cycle % 3]
            low, high = zip(*model[f"{figure}_interval"], strict=True)
            if not cycle:
                axes.vlines(model["train"], low, high, color=color, alpha=0.4)
            axes.plot(
                model["train"],
                model[figure],
                style,
                marker="o",
                markersize=4,
                color=color,
                label=drawing.short(name),
            )
        axes.set_xticks(ticks, [count(x) for x in ticks])
        axes.minorticks_off()
        drawing.percents(axes.yaxis)
        axes.set_xlabel("training products")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=COLUMNS)

    said = "; ".join(
        f"{name} {', '.join(percent(x) for x in model[figure])}"
        for name, model in models
    )
    return drawing.picture(
        f"learning-{figure}",
        f"{title}, {', '.join(map(count, ticks))}, in %: {said}",
        paint,
        title=title,
        height=drawing.HEIGHT + LEGEND_HEIGHT * -(-len(models) // COLUMNS),
    )


def _table(numbers: Mapping[str, Any], curve: Mapping[str, Any], figure: str) -> Table:
    runs = {
        name: run["split_products"]["train"] for name, run in numbers["runs"].items()
    }
    shown = sorted(runs, key=lambda name: runs[name])
    columns = [
        "Model",
        *(f"{count(runs[name])} ({name})" for name in shown),
        f"Gain in {FIGURES[figure]}",
    ]
    rows = []
    for name, model in curve["models"].items():
        found = dict(
            zip(
                model["runs"],
                zip(model[figure], model[f"{figure}_interval"], strict=True),
                strict=True,
            )
        )
        row = [Cell(name)]
        for run in shown:
            value, edges = found.get(run, (None, ()))
            row.append(
                Cell() if value is None else Cell(percent(value), span(edges, percent))
            )
        gain = model[f"gain_{figure}"]
        note = span(model[f"gain_{figure}_interval"], points)
        rows.append([*row, Cell(points(gain), note, order=gain)])
    return Table(f"{TITLES[figure]} over training products", columns, rows)
