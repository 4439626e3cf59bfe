"""The pictures of a report, drawn from its numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.figure

from tfmm.report.tables import FIGURES
from tfmm.run import replacing

TOWER_COLOR, HEAD_COLOR, BEST_COLOR = "#8a94a6", "#1f6f8b", "#2e7d5b"
GROUP_COLORS = ("#2e7d5b", "#d9a441", "#4f7cac", "#b0473a")


def draw_models(
    models: Mapping[str, Mapping[str, Any]],
    best_head: str | None,
    oracle: float | None,
    measure: str,
    path: Path,
) -> None:
    """A bar with its interval for each model.

    Args:
        models: Name -> part of the report, in the order to draw.
        best_head: The head in another colour, if any.
        oracle: Where the dotted line stands, if anywhere.
        measure: `top1` or `micro_f1`.
        path: A PNG.
    """
    figure, axes = _figure(height=0.34 * len(models) + 1.3)
    for row, (name, model) in enumerate(models.items()):
        low, high = model[f"{measure}_interval"]
        value = model[measure]
        color = TOWER_COLOR if model["kind"] == "tower" else HEAD_COLOR
        if name == best_head:
            color = BEST_COLOR
        axes.barh(row, value, color=color, height=0.7)
        axes.plot([low, high], [row, row], color="black", linewidth=1)
        label = axes.text(
            high + 0.01, row, f"{100 * value:.1f}", va="center", fontsize=9
        )
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    if oracle is not None:
        axes.axvline(oracle, color="black", linestyle=":", linewidth=1)
        axes.text(oracle, -0.75, "oracle", ha="center", fontsize=8)
    axes.set_yticks(range(len(models)), list(models))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1)
    axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f}")
    axes.set_xlabel(f"{FIGURES[measure]} in %, with 95 % interval")
    _save(figure, path)


def draw_groups(groups: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """The four right/wrong groups of each pair of towers, as one bar."""
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
