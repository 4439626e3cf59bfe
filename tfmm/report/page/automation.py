"""What may be filed without a person looking."""

from collections.abc import Mapping
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
from tfmm.report.page.headline import WANTED
from tfmm.report.tables import (
    best_model,
    first_models,
    in_order,
    percent,
    place_of_best,
    share_cell,
    span,
)


def section(numbers: Mapping[str, Any]) -> Section:
    """Coverage: curves, and what a wanted precision leaves to file."""
    name = best_model(numbers)
    wanted = numbers["models"][name]["coverage"].get("wanted", [])
    pictures = [_curves(numbers)]
    blocks: list[Block] = []
    if wanted:
        pictures.insert(0, _shares(name, wanted))
        blocks = [
            Words(f"With {name}", heading=True),
            wanted_table(wanted),
            Words(
                "Threshold: how sure the model must be, the lowest that gave the "
                "wanted precision on validation; under it the 95 % interval over draws "
                "of validation. Reached: what it gives here. Suggested: not filed, but "
                "the right label is most likely among the first few, for a person to "
                "pick. To a person: neither."
            ),
            Fold(
                f"Every model at {WANTED:.0%}".replace("%", " %"),
                [model_table(numbers)],
            ),
        ]
    return Section(
        "automation",
        "What may be filed automatically",
        "How many products can be filed without a person at the precision that you "
        "want, how many a person only has to confirm, and how many are left: choose "
        "the row, and take its threshold into use.",
        [Pictures(pictures), *blocks],
    )


def wanted_table(wanted: list[Mapping[str, Any]]) -> Table:
    """A row for each wanted precision."""
    most = {key: None for x in wanted for key in x.get("contains", {})}
    count = wanted[0]["suggestions"]
    columns = [
        *("Wanted precision", "Threshold", "Filed", "Reached"),
        f"Suggested (first {count})",
        *(
            f"Right among the first {key}" if key != "1" else "First right"
            for key in most
        ),
        "To a person",
    ]
    rows = []
    for found in wanted:
        row = [Cell(f"{100 * found['precision']:.0f} %"), _threshold(found)]
        row.append(share_cell(found["filed"]))
        row.append(_reached(found))
        row.append(share_cell(found["suggested"]))
        contains = found.get("contains", {})
        row += [
            Cell() if key not in contains else Cell(percent(contains[key]))
            for key in most
        ]
        row.append(share_cell(found["person"]))
        rows.append(row)
    return Table("What may be filed at each wanted precision", columns, rows)


def model_table(numbers: Mapping[str, Any]) -> Table:
    """Every model at the precision that the page begins with."""
    models = {
        name: found
        for name, model in in_order(numbers).items()
        for found in model["coverage"].get("wanted", [])
        if found["precision"] == WANTED
    }
    most = max((x["filed"] for x in models.values()), default=0)
    rows = [
        [
            Cell(name),
            _threshold(found),
            share_cell(found["filed"], best=found["filed"] == most),
            _reached(found),
            share_cell(found["suggested"]),
            share_cell(found["person"]),
        ]
        for name, found in models.items()
    ]
    columns = ["Model", "Threshold", "Filed", "Reached", "Suggested", "To a person"]
    return Table("Every model", columns, rows, place_of_best(models, numbers))


def _threshold(found: Mapping[str, Any]) -> Cell:
    value = found["threshold"]
    edges = found.get("threshold_interval") or [None, None]
    low, high = ("none" if x is None else f"{x:.3f}" for x in edges)
    note = f"{low}\u00a0to\u00a0{high}"
    return Cell("none", note) if value is None else Cell(f"{value:.3f}", note)


def _reached(found: Mapping[str, Any]) -> Cell:
    if "reached" not in found:
        return Cell()
    interval = span(found["reached_interval"], percent)
    return Cell(percent(found["reached"]), interval)


def _shares(name: str, wanted: list[Mapping[str, Any]]) -> Picture:
    parts = {
        "filed": drawing.GREEN,
        "suggested": drawing.BLUE,
        "person": drawing.GREY,
    }

    def paint(axes: Any) -> None:
        for row, found in enumerate(wanted):
            left = 0.0
            for key, color in parts.items():
                axes.barh(row, found[key], left=left, color=color, height=0.62)
                if found[key] > 0.07:
                    axes.text(
                        *(left + found[key] / 2, row, f"{100 * found[key]:.0f} %"),
                        ha="center",
                        va="center",
                        color="white",
                        fontweight="bold",
                    )
                left += found[key]
        for key, title in zip(
            parts, ("filed", "suggested", "to a person"), strict=True
        ):
            axes.barh(0, 0, color=parts[key], label=title)
        axes.set_yticks(
            range(len(wanted)), [f"{100 * x['precision']:.0f} %" for x in wanted]
        )
        axes.set_ylabel("wanted precision")
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(visible=False)
        drawing.percents(axes.xaxis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)

    return drawing.picture(
        "automation-shares",
        "Shares of the products that are filed, suggested, or left to a person",
        paint,
        title=f"What becomes of the products, with {name}",
    )


def _curves(numbers: Mapping[str, Any]) -> Picture:
    models = numbers["models"]
    names = first_models(numbers, 3, 2)

    def paint(axes: Any) -> None:
        lowest = 1.0
        for color, name in zip(drawing.LINES, names, strict=False):
            curve = models[name]["coverage"]["curve"]
            known = [
                x
                for x in zip(curve["filed"], curve["precision"], strict=True)
                if x[1] is not None
            ]
            if not known:
                continue
            filed, precision = zip(*known, strict=True)
            lowest = min(lowest, *precision)
            style = "--" if models[name]["kind"] == "tower" else "-"
            axes.plot(
                *(filed, precision, style),
                color=color,
                marker="o" if len(known) == 1 else "",
                label=drawing.short(name),
            )
        axes.axhline(WANTED, color=drawing.INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(max(0.0, lowest - 0.03), 1.01)
        axes.set_xlabel("share filed, the surest first")
        axes.set_ylabel("precision")
        drawing.percents(axes.xaxis)
        drawing.percents(axes.yaxis)
        axes.legend(loc="lower left")

    return drawing.picture(
        "automation-curves",
        "Precision against the share of the products that is filed: "
        + ", ".join(names),
        paint,
        title="Precision against the share filed; dashed: towers",
    )
