"""The tables of a report's page, as text; the page only lays them out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# So many towers meet in pairs on the page, which makes six; all are in report.json.
PAIRED_TOWERS = 4

# Shown in this order; a measure that no model has gets no column.
MEASURES = {
    "top1": "Top-1",
    "top5": "Top-5",
    "micro_f1": "Micro-F1",
    "macro_f1": "Macro-F1",
    "mean_precision": "Mean precision",
    "mean_recall": "Mean recall",
    "map": "mAP",
    "ece": "ECE",
    "ece_uncalibrated": "ECE before",
    "policy_accuracy": "Policy accuracy",
}
LOWER_IS_BETTER = ("ece", "ece_uncalibrated")
# What models can be ranked by, as it stands inside a sentence.
FIGURES = {"top1": "top-1", "micro_f1": "micro-F1"}
NOTES = {
    "train": "its towers were trained on those products",
    "train_oof": "answers of towers that were not trained on the product",
    "validation": "the split that also calibrates and ranks",
}


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what stands small beside it, and whether it is the best."""

    text: str = ""
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: What it is of; empty if its section says it.
        columns: Headings.
        rows: Cells, as many as columns.
        marked: Number of the row of the best head, if it is in the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    marked: int | None = None


def in_order(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The models to show: towers, then heads, each from the best on `validation`."""
    models = numbers["models"]
    ranking = numbers["ranking"]
    places = {name: place for place, name in enumerate(ranking)}
    order = sorted(
        models,
        key=lambda x: (models[x]["kind"] == "head", places.get(x, len(ranking))),
    )
    return {name: models[name] for name in order}


def shown_figures(numbers: Mapping[str, Any]) -> list[str]:
    """`top1`, and what ranks the models if that is another figure."""
    return [key for key in FIGURES if key in ("top1", numbers["ranked_by"])]


def model_table(numbers: Mapping[str, Any]) -> Table:
    """What each model reaches and what heads gain, with intervals."""
    models = in_order(numbers)
    by = numbers["ranked_by"]
    shown = shown_figures(numbers)
    has_fit = any("fit_on" in model for model in models.values())
    columns = ["Model"]
    columns += [f"{MEASURES[by]} on validation"] if numbers["ranking"] else []
    columns += [MEASURES[key] for key in shown]
    columns += ["Fitted on"] if has_fit else []
    columns += [f"Gain in {FIGURES[key]}" for key in shown]
    columns.append("Of oracle")
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
        row += [_fitted_on(model)] if has_fit else []
        for key in shown:
            end = "" if key == "top1" else f"_{key}"
            if model["kind"] == "head":
                note = span(model[f"gain{end}_interval"], points)
                note += f" over {model[f'best_tower{end}']}"
                row.append(Cell(points(model[f"gain{end}"]), note))
            else:
                row.append(Cell())
        share = model["oracle_share"]
        row.append(Cell("" if share is None else f"{100 * share:.0f}"))
        rows.append(row)
    return Table("", columns, rows, _place(models, numbers))


def measure_table(numbers: Mapping[str, Any]) -> Table:
    """The other measures of each model."""
    models = in_order(numbers)
    shown = [
        key
        for key in MEASURES
        if key not in shown_figures(numbers)
        and any(key in model for model in models.values())
    ]
    best = {
        key: (min if key in LOWER_IS_BETTER else max)(
            x[key] for x in models.values() if key in x
        )
        for key in shown
    }
    rows = [
        [
            Cell(name),
            *(
                Cell(percent(model[key]), best=model[key] == best[key])
                if key in model
                else Cell()
                for key in shown
            ),
        ]
        for name, model in models.items()
    ]
    columns = ["Model", *(MEASURES[key] for key in shown)]
    return Table("", columns, rows, _place(models, numbers))


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
            row.append(Cell(points(found[key]), span((low, high), points)))
            row.append(Cell(better))
        rows.append(row)
    return Table("", columns, rows)


def missing_table(numbers: Mapping[str, Any]) -> Table:
    """Heads when modalities are missing, by the figure that ranks them."""
    by = numbers["ranked_by"]
    heads = {x: m for x, m in _heads(numbers).items() if "missing" in m}
    cases = list(dict.fromkeys(x for m in heads.values() for x in m["missing"]))
    best = {
        case: max(
            m["missing"][case][by] for m in heads.values() if case in m["missing"]
        )
        for case in cases
    }
    rows = []
    for name, model in heads.items():
        row = [Cell(name)]
        for case in cases:
            figure = model["missing"].get(case, {}).get(by)
            row.append(
                Cell()
                if figure is None
                else Cell(percent(figure), best=figure == best[case])
            )
        rows.append(row)
    columns = ["Head", *(case.replace("_", " ", 1) for case in cases)]
    return Table("", columns, rows, _place(heads, numbers))


# Of a curve, what a page has room for.
SHOWN_BUDGETS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
KEPT = 0.99  # share of the figure with every image that is to be kept


def image_table(numbers: Mapping[str, Any]) -> Table:
    """What heads reach by the share of images that they look at."""
    heads = {x: m for x, m in _heads(numbers).items() if "image_curve" in m}
    rows = []
    for name, model in heads.items():
        points = model["image_curve"]
        wanted = KEPT * points[-1]["measure"]
        # Past the last budget that keeps less.
        short = [place for place, x in enumerate(points) if x["measure"] < wanted]
        least = points[short[-1] + 1 if short else 0]
        by_budget = {x["budget"]: x for x in points}
        rows.append(
            [
                Cell(name),
                *(
                    Cell(
                        percent(by_budget[budget]["measure"]),
                        f"{percent(by_budget[budget]['images'])} % of the images",
                    )
                    for budget in SHOWN_BUDGETS
                ),
                Cell(f"{percent(least['images'])} %"),
            ]
        )
    columns = ["Head", *(f"{budget:.0%}" for budget in SHOWN_BUDGETS)]
    columns.append(f"Images for {KEPT:.0%} of the last")
    return Table("", columns, rows, _place(heads, numbers))


def towers_right_table(numbers: Mapping[str, Any]) -> Table:
    """What heads make of the products that so many towers get right."""
    titles = {"none": "No tower", "one": "One", "several": "Several", "all": "All"}
    towers = [m for m in numbers["models"].values() if m["kind"] == "tower"]
    if len(towers) < 3:
        del titles["several"]
    table = _group_table(numbers, "", numbers["towers_right"], titles)
    first, *rest = table.rows
    rows = [[*first, Cell(), Cell()]]
    for row, model in zip(rest, _heads(numbers).values(), strict=True):
        changed = [model[key] for key in ("rescued", "broken_by_fusion")]
        cells = [Cell(str(x["products"]), f"{percent(x['share'])} %") for x in changed]
        rows.append([*row, *cells])
    return Table("", [*table.columns, "Rescued", "Broken"], rows, table.marked)


def shown_pairs(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of `groups`, the pairs of the best towers on `validation`."""
    towers = [x for x, m in in_order(numbers).items() if m["kind"] == "tower"]
    first = towers[:PAIRED_TOWERS]
    return {
        pair: groups
        for pair, groups in numbers["groups"].items()
        if all(tower in first for tower in pair.split("|"))
    }


def tower_pair_tables(numbers: Mapping[str, Any]) -> list[Table]:
    """What heads make of the four right/wrong groups of pairs of towers."""
    tables = []
    for pair, groups in shown_pairs(numbers).items():
        first, second = pair.split("|")
        titles = ("Both right", f"Only {first}", f"Only {second}", "None")
        named = dict(zip(groups, titles, strict=True))
        tables.append(_group_table(numbers, f"{first} / {second}", groups, named))
    return tables


def _group_table(
    numbers: Mapping[str, Any],
    title: str,
    groups: Mapping[str, Any],
    titles: Mapping[str, str],
) -> Table:
    """Groups of products against heads; `titles` are the groups' headings."""
    counts = [
        Cell(str(groups[key]["products"]), f"{percent(groups[key]['share'])} %")
        for key in titles
    ]
    rows = [[Cell("products"), *counts]]
    heads = _heads(numbers)
    for head in heads:
        shares = [groups[key]["right"].get(head) for key in titles]
        cells = [Cell() if x is None else Cell(percent(x)) for x in shares]
        rows.append([Cell(head), *cells])
    place = _place(heads, numbers)
    marked = None if place is None else place + 1
    return Table(title, ["Of these right", *titles.values()], rows, marked)


def _heads(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {x: m for x, m in in_order(numbers).items() if m["kind"] == "head"}


def _place(names: Iterable[str], numbers: Mapping[str, Any]) -> int | None:
    """Which of the names is the best head."""
    return {name: place for place, name in enumerate(names)}.get(
        numbers.get("best_head", "")
    )


def _fitted_on(model: Mapping[str, Any]) -> Cell:
    splits = model.get("fit_on", [])
    notes = [NOTES[split] for split in splits if split in NOTES]
    if model["model"] == "joint":
        notes = ["trained on those products together with its towers"]
    return Cell(", ".join(splits), "; ".join(notes))


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def span(edges: Iterable[float], style) -> str:
    return "\u00a0to\u00a0".join(map(style, edges))
