"""The page of a comparison, drawn from its numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmm import page
from tfmm.page import Tile
from tfmm.report.runs import apart, learning, made
from tfmm.report.runs.apart import shown_figures
from tfmm.report.tables import FIGURES, count, percent, points, span

# In the order of what a person decides by them.
PARTS = (
    apart.best,
    learning.section,
    apart.same_names,
    apart.models,
    made.settings,
    made.runs,
)


def draw(numbers: Mapping[str, Any], folder: Path) -> None:
    """Writes `index.html`, which needs no other file.

    Args:
        numbers: The content of `comparison.json`.
        folder: Where.
    """
    page.write(
        folder / "index.html",
        "tfmm.report.runs",
        "page.html.jinja",
        numbers=numbers,
        sentence=_sentence(numbers),
        tiles=_tiles(numbers),
        sections=[x for x in (part(numbers) for part in PARTS) if x is not None],
    )


def _sentence(numbers: Mapping[str, Any]) -> str:
    """What is said first: which of two runs is better, or how many pairs are apart."""
    by = numbers["ranked_by"]
    told = [pair for pair in numbers["pairs"] if "best" in pair]
    if not told:
        return (
            f"No two runs can be compared on “{numbers['split']}”: nothing says "
            "whether one is better. What they have in common, and what not, is below."
        )
    if len(numbers["pairs"]) > 1:
        clear = [x for x in told if apart.better(x, x["best"], by)]
        return (
            f"{len(numbers['runs'])} runs make {len(numbers['pairs'])} pairs. In "
            f"{len(clear)} of them one best model is better than the other in "
            f"{FIGURES[by]}; in {len(told) - len(clear)} they are not told apart"
            + (
                f", and {len(numbers['pairs']) - len(told)} cannot be compared."
                if len(told) < len(numbers["pairs"])
                else "."
            )
        )
    (pair,) = told
    best = pair["best"]
    winner = apart.better(pair, best, by)
    first, second = (
        f"{model} of {run}"
        for run, model in zip(pair["runs"], best["models"], strict=True)
    )
    on = f"on the {count(pair['products'])} products that both tested"
    value, edges = best[by], best[f"{by}_interval"]
    if winner is None:
        return (
            f"{first} and {second} are not told apart {on}: the difference is "
            f"{points(value)} points of {FIGURES[by]} (95 % interval "
            f"{span(edges, points)})."
        )
    if winner != pair["runs"][0]:
        first, second, value, edges = second, first, -value, [-x for x in edges[::-1]]
    return (
        f"{first} is better than {second} by {percent(value)} points of {FIGURES[by]} "
        f"{on} (95 % interval {span(edges, percent)})."
    )


def _tiles(numbers: Mapping[str, Any]) -> list[Tile]:
    by = numbers["ranked_by"]
    tiles = []
    for name, run in numbers["runs"].items():
        best = run["models"][run["best"]]
        figures = [f"{FIGURES[by]} {span(best[f'{by}_interval'], percent)} %"]
        figures += [
            f"{FIGURES[key]} {percent(best[key])} %"
            for key in shown_figures(numbers)
            if key != by
        ]
        tiles.append(
            Tile(
                f"{percent(best[by])} %",
                f"{run['best']} of {name}",
                f"{'; '.join(figures)}; {count(run['products'])} products",
                to="#models",
            )
        )
    return tiles
