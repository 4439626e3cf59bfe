"""The page of a report, drawn from its numbers."""

from pathlib import Path
from typing import Any

import jinja2

from tfmm.report import pictures, tables
from tfmm.run import replacing


def draw(numbers: dict[str, Any], folder: Path) -> None:
    """Writes `index.html` and its pictures into the folder.

    Args:
        numbers: The content of `report.json`.
        folder: Where; `top1.png`, for `multi_label` `micro_f1.png`, and with two
            towers or more `groups.png` are written beside the page.
    """
    models = tables.in_order(numbers)
    best_head = numbers.get("best_head")
    for figure in tables.shown_figures(numbers):
        oracle = numbers["oracle"].get(figure)
        path = folder / f"{figure}.png"
        pictures.draw_models(models, best_head, oracle, figure, path)
    if numbers["groups"]:
        pictures.draw_groups(tables.shown_pairs(numbers), folder / "groups.png")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfmm.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.jinja").render(
        numbers=numbers,
        tables=tables,
        heads=[name for name, model in models.items() if model["kind"] == "head"],
        headline=_headline(numbers),
    )
    with replacing(folder / "index.html") as file:
        file.write_text(html, encoding="utf-8")


def _headline(numbers: dict[str, Any]) -> str:
    """What the page says first: the best head, chosen on `validation`, measured here.

    Without a head that was not fitted on `validation` it is the best tower; without any
    ranking, that there is none.
    """
    models, by = numbers["models"], numbers["ranked_by"]
    if not numbers["ranking"]:
        return "No model was measured on validation, so none is called the best."
    title = tables.FIGURES[by]
    of_towers = (x for x in numbers["ranking"] if models[x]["kind"] == "tower")
    name = numbers.get("best_head") or next(of_towers)
    model = models[name]
    here = f"{name}. Here {title} {tables.percent(model[by])} %"
    if model["kind"] == "tower":
        return f"Best tower on validation: {here}."
    key = "" if by == "top1" else f"_{by}"
    interval = tables.span(model[f"gain{key}_interval"], tables.points)
    return (
        f"Best head on validation: {here}: "
        f"{tables.points(model[f'gain{key}'])} points over its best tower, "
        f"{model[f'best_tower{key}']} (95 % interval {interval})."
    )
