"""How far the models of runs are apart, as sections of a comparison's page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfmm.page import Block, Cell, Picture, Section, Table, Words, drawing
from tfmm.report.tables import FIGURES, TITLES, count, percent, points, span

# Rows of a picture; a table has the others.
MOST_ROWS = 30
ROW_HEIGHT = 21
OTHER_MEASURES = {
    "top5": "Top-5",
    "macro_f1": "Macro-F1",
    "map": "mAP",
    "ece": "ECE",
}


def shown_figures(numbers: Mapping[str, Any]) -> list[str]:
    """What ranks the models first, then `top1` if that is another figure."""
    by = numbers["ranked_by"]
    return [by, *(key for key in FIGURES if key == "top1" != by)]


def better(pair: Mapping[str, Any], told: Mapping[str, Any], figure: str) -> str | None:
    """The run that the whole interval of a difference speaks for, if any."""
    low, high = told[f"{figure}_interval"]
    first, second = pair["runs"]
    return first if low > 0 else second if high < 0 else None


def best(numbers: Mapping[str, Any]) -> Section:
    """The best models against each other, and what they were compared on."""
    told = [(pair, pair["best"]) for pair in numbers["pairs"] if "best" in pair]
    blocks: list[Block] = []
    if told:
        blocks = [
            _picture(numbers, "best", told),
            _table(numbers, "The best models", told),
            Words(
                "Differences are the first minus the second, in points, with 95 % "
                "intervals: a bootstrap over groups of products, paired, since both "
                "answered the same products. Better: the run that the whole interval "
                "speaks for. The best model of a run is the first head on its own "
                "validation, or the first tower, never the best here."
            ),
        ]
    blocks += [
        Words("What they were compared on", heading=True),
        _common_table(numbers),
        *(Words(text) for text in _reservations(numbers)),
    ]
    return Section(
        "best",
        "Best against best",
        "Which run to take: differences on the products that both runs tested.",
        blocks,
    )


def same_names(numbers: Mapping[str, Any]) -> Section | None:
    """Models of the same name against each other."""
    told = [
        (pair, model)
        for pair in numbers["pairs"]
        for model in pair.get("models", {}).values()
    ]
    if not told:
        return None
    blocks: list[Block] = []
    if len(told) <= MOST_ROWS:
        blocks.append(_picture(numbers, "same", told))
    return Section(
        "same",
        "Models of the same name",
        "What the other settings did to each model, on the products that both runs "
        "tested.",
        [*blocks, _table(numbers, "Models of the same name", told)],
    )


def models(numbers: Mapping[str, Any]) -> Section:
    """Every model of every run, by itself."""
    runs = numbers["runs"]
    names = dict.fromkeys(name for run in runs.values() for name in run["models"])
    kinds = {
        name: next(
            r["models"][name]["kind"] for r in runs.values() if name in r["models"]
        )
        for name in names
    }
    order = sorted(names, key=lambda name: kinds[name] == "head")
    blocks: list[Block] = []
    for figure in shown_figures(numbers):
        blocks.append(Words(TITLES[figure], heading=True))
        rows = []
        for name in order:
            row = [Cell(name, kinds[name])]
            for run in runs.values():
                model = run["models"].get(name)
                if model is None:
                    row.append(Cell())
                    continue
                note = span(model[f"{figure}_interval"], percent)
                is_best = name == run["best"]
                row.append(
                    Cell(percent(model[figure]), note, is_best, bar=model[figure])
                )
            rows.append(row)
        blocks.append(Table(TITLES[figure], ["Model", *runs], rows))
    blocks += [
        Words(
            "In %, with 95 % intervals, on all products and all labels that each run "
            "has itself: the figures of its own report. Bold: the best model of a run "
            "on its validation. Intervals of two runs that overlap say little; the "
            "differences above do."
        ),
        Words("Other measures of the best models", heading=True),
        _measure_table(numbers),
    ]
    return Section(
        "models",
        "All models",
        "What each model reaches in each run.",
        blocks,
    )


def _measure_table(numbers: Mapping[str, Any]) -> Table:
    bests = {name: run["models"][run["best"]] for name, run in numbers["runs"].items()}
    shown = [
        key for key in OTHER_MEASURES if any(key in model for model in bests.values())
    ]
    rows = [
        [
            Cell(name, numbers["runs"][name]["best"]),
            *(Cell(percent(model[key]) if key in model else "") for key in shown),
        ]
        for name, model in bests.items()
    ]
    columns = ["Run", *(OTHER_MEASURES[key] for key in shown)]
    return Table("Other measures of the best models", columns, rows)


def _table(
    numbers: Mapping[str, Any],
    title: str,
    told: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> Table:
    several = len(numbers["pairs"]) > 1
    sides = ["First", "Second"] if several else numbers["pairs"][0]["runs"]
    columns = ["Models", *(["Runs"] if several else [])]
    for figure in shown_figures(numbers):
        columns += [f"{TITLES[figure]}: {side}" for side in sides]
        columns += [f"Difference in {FIGURES[figure]}", "Better"]
    columns += [f"Right only: {side}" for side in sides]
    rows = []
    for pair, model in told:
        row = [Cell(_of_models(model))]
        row += [Cell(*_of_runs(pair), words=True)] if several else []
        for figure in shown_figures(numbers):
            row += [Cell(percent(x)) for x in model[f"{figure}_of"]]
            note = span(model[f"{figure}_interval"], points)
            row.append(Cell(points(model[figure]), note, order=model[figure]))
            winner = better(pair, model, figure)
            row.append(Cell(winner or "not told apart", words=True))
        rows.append([*row, *(Cell(count(x)) for x in model["only"])])
    return Table(title, columns, rows)


def _common_table(numbers: Mapping[str, Any]) -> Table:
    columns = ["Runs", "Products compared", "Groups", "Labels", "Table", "Catalog"]
    rows = []
    for pair in numbers["pairs"]:
        first, second = _of_runs(pair)
        rows.append(
            [
                Cell(first, second),
                Cell(count(pair.get("products", 0))),
                Cell(count(pair["groups"]) if "groups" in pair else ""),
                Cell(count(pair["labels"])),
                Cell(
                    "the same file" if pair["same_table"] else "another file",
                    words=True,
                ),
                Cell("the same" if pair["same_catalog"] else "differs", words=True),
            ]
        )
    return Table("What they were compared on", columns, rows)


# What is told of products that a pair is not compared on.
LEFT_OUT = {
    "learned_from": "are in train, fusion or validation of one of the runs",
    "relabelled": "do not have the same labels in both",
    "without_label": "have none of the labels that both runs have",
}


def _reservations(numbers: Mapping[str, Any]) -> list[str]:
    """What of each pair cannot be compared, and why."""
    found = []
    split = numbers["split"]
    for pair in numbers["pairs"]:
        said = []
        runs = pair["runs"]
        if "products" not in pair:
            said.append(
                f"only {pair['labels']} labels in common, so nothing is compared"
            )
        elif not pair["products"]:
            said.append(
                "no product can be compared, so there are no differences and no "
                "intervals"
            )
        if not pair["same_table"]:
            said.append("the catalogs are different files")
        elif not pair["same_catalog"]:
            said.append(
                "the table is the same file, but its products, labels, splits, groups "
                "or images are not"
            )
        for name, other in (runs, runs[::-1]):
            places = {x: n for x, n in pair["elsewhere"][name].items() if n}
            if not places:
                continue
            parts = [
                f"{count(n)} are not in {other} at all"
                if place == "nowhere"
                else f"{count(n)} are in {place} of {other}"
                for place, n in places.items()
            ]
            total = count(sum(places.values()))
            said.append(
                f"{total} products of {split} of {name} do not count "
                f"({', '.join(parts)})"
            )
        said += [
            f"{count(pair['left_out'][key])} products that both have {why}"
            for key, why in LEFT_OUT.items()
            if pair.get("left_out", {}).get(key)
        ]
        if said:
            found.append(f"{runs[0]} against {runs[1]}: {'; '.join(said)}.")
    if "label_names" in numbers:
        shared = numbers["label_names"]["shared"]
        others = [
            f"{name} has {count(len(own))} others ({_some(own)})"
            for name, own in numbers["label_names"]["others"].items()
            if own
        ]
        found.append(
            f"The runs do not have the same labels: {count(shared)} are in all of "
            f"them; {'; '.join(others)}. Two runs are compared among the labels that "
            "both have, as if there were no others."
        )
    return found


def _some(names: Sequence[str], most: int = 8) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _of_models(told: Mapping[str, Any]) -> str:
    first, second = told["models"]
    return first if first == second else f"{first} / {second}"


def _of_runs(pair: Mapping[str, Any]) -> tuple[str, str]:
    first, second = pair["runs"]
    return first, f"against {second}"


def _picture(
    numbers: Mapping[str, Any],
    key: str,
    told: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> Picture:
    """Differences with their intervals, about zero."""
    figure = numbers["ranked_by"]
    told = told[:MOST_ROWS]
    several = len(numbers["pairs"]) > 1
    title = f"Difference in {FIGURES[figure]}, points"
    if not several:
        first, second = numbers["pairs"][0]["runs"]
        title += f": {first} minus {second}"

    def name(pair: Mapping[str, Any], model: Mapping[str, Any]) -> str:
        runs = " \u2212 ".join(drawing.short(x) for x in pair["runs"])
        models = drawing.short(_of_models(model))
        return f"{models}, {runs}" if several else models

    def paint(axes: Any) -> None:
        for row, (pair, model) in enumerate(told):
            low, high = (100 * x for x in model[f"{figure}_interval"])
            clear = better(pair, model, figure)
            color = drawing.GREY if clear is None else drawing.GREEN
            color = drawing.RED if clear == pair["runs"][1] else color
            axes.plot([low, high], [row, row], color=color)
            axes.plot([100 * model[figure]], [row], "o", color=color, markersize=6)
        axes.axvline(0, color=drawing.INK, linewidth=1)
        axes.set_yticks(range(len(told)), [name(*x) for x in told])
        axes.set_ylim(len(told) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("points, with 95 % interval")

    said = ", ".join(
        f"{name(pair, model)} {points(model[figure])} "
        f"({span(model[f'{figure}_interval'], points)})"
        for pair, model in told
    )
    return drawing.picture(
        key,
        f"{title}: {said}",
        paint,
        title=title,
        height=ROW_HEIGHT * len(told) + 60,
    )
