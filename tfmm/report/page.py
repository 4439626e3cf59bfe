"""The page and the pictures of a report, drawn from its numbers."""

from pathlib import Path
from typing import Any

import jinja2
import matplotlib.figure

from tfmm.run import replacing

TOWER_COLOR, HEAD_COLOR = "#8a94a6", "#1f6f8b"
GROUP_COLORS = ("#2e7d5b", "#d9a441", "#4f7cac", "#b0473a")

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
}


def draw(numbers: dict[str, Any], folder: Path) -> None:
    """Writes `index.html`, `top1.png` and `groups.png` into the folder."""
    _draw_models(numbers, folder / "top1.png")
    if numbers["groups"]:
        _draw_groups(numbers, folder / "groups.png")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfmm.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    models = numbers["models"]
    shown = {
        key: title
        for key, title in MEASURES.items()
        if any(key in model for model in models.values())
    }
    best = {
        key: (min if key == "ece" else max)(m[key] for m in models.values() if key in m)
        for key in shown
    }
    html = environment.get_template("page.html.jinja").render(
        numbers=numbers, shown=shown, best=best, headline=_headline(numbers)
    )
    with replacing(folder / "index.html") as file:
        file.write_text(html, encoding="utf-8")


def _headline(numbers: dict[str, Any]) -> str:
    """What the page says first, in one sentence."""
    models = numbers["models"]
    heads = {name: m for name, m in models.items() if m["kind"] == "head"}
    towers = {name: m for name, m in models.items() if m["kind"] == "tower"}
    tower = max(towers, key=lambda name: towers[name]["top1"])
    alone = f"Best tower: {tower}, top-1 {towers[tower]['top1']:.1%}."
    if not heads:
        return alone
    head = max(heads, key=lambda name: heads[name]["top1"])
    low, high = heads[head]["gain_interval"]
    return (
        f"Best head: {head}, top-1 {heads[head]['top1']:.1%}: "
        f"{100 * heads[head]['gain']:+.1f} points over its best tower "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}). {alone}"
    )


def _draw_models(numbers: dict[str, Any], path: Path) -> None:
    figure, axes = _figure(height=0.45 * len(numbers["models"]) + 1.3)
    for row, model in enumerate(numbers["models"].values()):
        low, high = model["top1_interval"]
        value = model["top1"]
        color = TOWER_COLOR if model["kind"] == "tower" else HEAD_COLOR
        axes.barh(row, value, color=color, height=0.7)
        axes.plot([low, high], [row, row], color="black", linewidth=1)
        label = axes.text(high + 0.01, row, f"{value:.3f}", va="center", fontsize=9)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.axvline(numbers["oracle"]["top1"], color="black", linestyle=":", linewidth=1)
    axes.text(numbers["oracle"]["top1"], -0.75, "oracle", ha="center", fontsize=8)
    axes.set_yticks(range(len(numbers["models"])), list(numbers["models"]))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xlabel("top-1, with 95 % interval")
    _save(figure, path)


def _draw_groups(numbers: dict[str, Any], path: Path) -> None:
    groups = numbers["groups"]
    figure, axes = _figure(height=0.6 * len(groups) + 1.2)
    for row, members in enumerate(groups.values()):
        left = 0.0
        for color, (name, group) in zip(GROUP_COLORS, members.items(), strict=True):
            axes.barh(row, group["share"], left=left, color=color, height=0.7)
            if group["share"] > 0.06:
                label = f"{name.replace('_', ' ')}\n{group['share']:.1%}"
                middle = left + group["share"] / 2
                axes.text(
                    middle, row, label, ha="center", va="center", fontsize=8, color="w"
                )
            left += group["share"]
    axes.set_yticks(range(len(groups)), [pair.replace("|", " / ") for pair in groups])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the products, by which tower is right")
    _save(figure, path)


def _figure(height: float):
    figure = matplotlib.figure.Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure, path: Path) -> None:
    # PNG holds the version of the program that wrote it; same numbers, same bytes.
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
