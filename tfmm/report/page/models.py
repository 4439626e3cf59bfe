"""Which model to use: what each reaches, what heads gain, how the best compare."""

from collections.abc import Mapping
from typing import Any

from tfmm.page import Block, Cell, Picture, Pictures, Section, Table, Words, drawing
from tfmm.report.tables import (
    FIGURES,
    TITLES,
    in_order,
    percent,
    place_of_best,
    points,
    shown_figures,
    span,
)

NOTES = {
    "train": "its towers were trained on those products",
    "train_oof": "answers of towers that were not trained on the product",
    "validation": "the split that also calibrates and ranks",
}


def section(numbers: Mapping[str, Any]) -> Section:
    """Every model with its interval."""
    pictures = [_picture(numbers, figure) for figure in shown_figures(numbers)]
    blocks: list[Block] = [
        Pictures(pictures),
        model_table(numbers),
        Words(
            "Towers, then heads, each from the best on validation; the best head is "
            "the best there, never here. Bold: the best of the column. Gain: over the "
            "best of the towers that the head hears. Of oracle: the gain in top-1 as "
            "a share (%) of what the oracle of those towers would gain. Small under a "
            "figure: its 95 % interval, a bootstrap over groups of products, paired "
            "for gains."
        ),
    ]
    if numbers["pairs"]:
        blocks += [
            Words("The best heads against each other", heading=True),
            pair_table(numbers),
            Words(
                "The first heads on validation, differences with 95 % intervals. "
                "Better: the one that the whole interval speaks for. Heads that are "
                "not told apart are equally good here: take the simpler one."
            ),
        ]
    return Section(
        "models",
        "Models",
        "How good each tower and each head is; take the green one, unless a simpler "
        "one is not told apart from it.",
        blocks,
    )


def model_table(numbers: Mapping[str, Any]) -> Table:
    """What each model reaches and what heads gain, with intervals."""
    models = in_order(numbers)
    by = numbers["ranked_by"]
    shown = shown_figures(numbers)
    has_fit = any("fit_on" in model for model in models.values())
    columns = ["Model"]
    columns += [f"{TITLES[by]} on validation"] if numbers["ranking"] else []
    columns += [TITLES[key] for key in shown]
    columns += [f"Gain in {FIGURES[key]}" for key in shown]
    columns.append("Of oracle")
    columns += ["Fitted on"] if has_fit else []
    best = {key: max(model[key] for model in models.values()) for key in shown}
    rows = []
    for name, model in models.items():
        is_best = name == numbers.get("best_head")
        note = f"{model['model']}; best head on validation" if is_best else ""
        row = [Cell(name, note or model["model"])]
        if numbers["ranking"]:
            own = model.get("ranked_on_own_products")
            note = "fitted on products of it" if own else ""
            figure = percent(model["validation"][by]) if "validation" in model else ""
            row.append(Cell(figure, note))
        for key in shown:
            note = span(model[f"{key}_interval"], percent)
            row.append(Cell(percent(model[key]), note, model[key] == best[key]))
        for key in shown:
            end = "" if key == "top1" else f"_{key}"
            if model["kind"] == "head":
                gain = model[f"gain{end}"]
                note = span(model[f"gain{end}_interval"], points)
                note += f" over {model[f'best_tower{end}']}"
                row.append(Cell(points(gain), note, order=gain))
            else:
                row.append(Cell())
        share = model["oracle_share"]
        text = "" if share is None else f"{100 * share:.0f}"
        row.append(Cell(text.replace("-", "\u2212"), order=share))
        row += [_fitted_on(model)] if has_fit else []
        rows.append(row)
    return Table("Models", columns, rows, place_of_best(models, numbers))


def pair_table(numbers: Mapping[str, Any]) -> Table:
    """The first heads against each other."""
    shown = shown_figures(numbers)
    columns = ["Heads"]
    for key in shown:
        columns += [f"Difference in {FIGURES[key]}", "Better"]
    rows = []
    for pair, found in numbers["pairs"].items():
        first, second = pair.split("|")
        row = [Cell(first, f"against {second}")]
        for key in shown:
            low, high = found[f"{key}_interval"]
            better = first if low > 0 else second if high < 0 else "not told apart"
            note = span((low, high), points)
            row.append(Cell(points(found[key]), note, order=found[key]))
            row.append(Cell(better, words=True))
        rows.append(row)
    return Table("The best heads against each other", columns, rows)


def _fitted_on(model: Mapping[str, Any]) -> Cell:
    splits = model.get("fit_on", [])
    notes = [NOTES[split] for split in splits if split in NOTES]
    if model["model"] == "joint":
        notes = ["trained on those products together with its towers"]
    return Cell(", ".join(splits), "; ".join(notes), words=True)


def _picture(numbers: Mapping[str, Any], figure: str) -> Picture:
    models, best = in_order(numbers), numbers.get("best_head")
    oracle = numbers["oracle"].get(figure)
    title = FIGURES[figure]

    def paint(axes: Any) -> None:
        edges = [x for model in models.values() for x in model[f"{figure}_interval"]]
        low, high = min(edges), max([*edges, *([oracle] if oracle is not None else [])])
        room = max(high - low, 0.02)
        for row, (name, model) in enumerate(models.items()):
            color = drawing.BLUE if model["kind"] == "head" else drawing.GREY
            color = drawing.GREEN if name == best else color
            interval = model[f"{figure}_interval"]
            axes.plot(interval, [row, row], color=color, linewidth=2.5)
            axes.plot([model[figure]], [row], "o", color=color, markersize=7)
            axes.text(
                *(high + 0.06 * room, row, percent(model[figure])),
                va="center",
                fontweight="bold" if name == best else "normal",
            )
        if oracle is not None:
            axes.axvline(oracle, color=drawing.INK, linestyle=":", linewidth=1)
            axes.text(oracle, -0.8, "oracle", ha="center", fontsize=9)
        axes.set_yticks(range(len(models)), [drawing.short(x) for x in models])
        axes.set_ylim(len(models) - 0.4, -1.1)
        axes.set_xlim(max(0.0, low - 0.05 * room), high + 0.2 * room)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        drawing.percents(axes.xaxis)

    return drawing.picture(
        f"models-{figure}",
        f"{TITLES[figure]} of every model with its interval",
        paint,
        title=f"{title} with its 95 % interval: towers grey, heads blue, the best "
        "head green",
        width=460,
        height=19 * len(models) + 55,
    )
