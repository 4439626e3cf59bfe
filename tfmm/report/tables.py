"""How reports write figures and order models; the tables are made of this."""

from collections.abc import Iterable, Mapping
from typing import Any

from tfmm.page import Cell

# What models can be ranked by, as it stands inside a sentence.
FIGURES = {"top1": "top-1", "micro_f1": "micro-F1"}
TITLES = {"top1": "Top-1", "micro_f1": "Micro-F1"}
SURE = 0.05  # below this a difference is called no noise


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


def heads_in_order(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The heads, the best on `validation` first."""
    return {x: m for x, m in in_order(numbers).items() if m["kind"] == "head"}


def towers_in_order(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The towers, the best on `validation` first."""
    return {x: m for x, m in in_order(numbers).items() if m["kind"] == "tower"}


def best_model(numbers: Mapping[str, Any]) -> str:
    """The best head, without one the best tower; what pages show first."""
    return numbers.get("best_head") or next(iter(towers_in_order(numbers)))


def first_models(numbers: Mapping[str, Any], heads: int, towers: int) -> list[str]:
    """So many of the best heads, the best head first, and of the best towers."""
    names = list(heads_in_order(numbers))
    best = numbers.get("best_head")
    names.sort(key=lambda x: x != best)
    return [*names[:heads], *list(towers_in_order(numbers))[:towers]]


def shown_figures(numbers: Mapping[str, Any]) -> list[str]:
    """`top1`, and what ranks the models if that is another figure."""
    return [key for key in FIGURES if key in ("top1", numbers["ranked_by"])]


def place_of_best(names: Iterable[str], numbers: Mapping[str, Any]) -> int | None:
    """Which of the names is the best head."""
    return {name: place for place, name in enumerate(names)}.get(
        numbers.get("best_head", "")
    )


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of shares in points, with its sign."""
    text = f"{100 * value:+.1f}".replace("-", "\u2212")
    return "0.0" if text[1:] == "0.0" else text


def span(edges: Iterable[float], style) -> str:
    return "\u00a0to\u00a0".join(map(style, edges))


def count(value: float) -> str:
    return f"{value:,.0f}"


def share_cell(value: float | None, note: str = "", best: bool = False) -> Cell:
    """A share in percent with a bar; empty if there is none."""
    return Cell() if value is None else Cell(percent(value), note, best, bar=value)


def points_cell(value: float | None, note: str = "") -> Cell:
    """A difference in points; empty if there is none."""
    return Cell() if value is None else Cell(points(value), note, order=value)


def chance_cell(p: float | None) -> Cell:
    """A chance; small ones as less than what they are."""
    if p is None:
        return Cell()
    return Cell("< 0.001" if p < 0.001 else f"{p:.3f}", best=p < SURE, order=p)
