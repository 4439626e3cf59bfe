"""Why models answer as they do: towers, places in pictures, features."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfmm.page import Block, Cell, Picture, Pictures, Section, Table, Words, drawing
from tfmm.report.tables import (
    count,
    heads_in_order,
    in_order,
    percent,
    place_of_best,
    towers_in_order,
)

GROUPS = {
    "all_right": ("all towers right", drawing.GREEN),
    "only_this": ("only this one", drawing.BLUE),
    "this_and_some": ("this and others", drawing.TEAL),
    "others_only": ("only others", drawing.YELLOW),
    "none": ("none", drawing.RED),
}
WAYS = {"shap": "SHAP values", "leave_one_tower_out": "leaving a tower out"}


def section(numbers: Mapping[str, Any]) -> Section | None:
    """What is known of why; how to have it computed where nothing is."""
    blocks = [*_reasons(numbers), *_attention(numbers)]
    if not blocks and any(
        len(m["towers"]) > 1 for m in heads_in_order(numbers).values()
    ):
        blocks = [
            Words(
                "What each tower does for a head's answers, and where towers look, "
                "needs the models. It has not been computed for these products: "
                "python -m tfmm.fit with --resume --only report does it for those of "
                "test, then this page has it."
            )
        ]
    blocks += _features(numbers)
    if not blocks:
        return None
    return Section(
        "explanations",
        "Why models answer as they do",
        "Which tower the heads listen to, where in a picture towers look, and which "
        "products lie alike: a head that hardly listens to a tower could do without "
        "it.",
        blocks,
    )


def _reasons(numbers: Mapping[str, Any]) -> list[Block]:
    heads = {x: m for x, m in heads_in_order(numbers).items() if "reasons" in m}
    if not heads:
        return []
    return [
        Words("Which tower heads listen to", heading=True),
        reason_table(numbers),
        Words(
            "Mean of what each tower does for a head's first label, without its sign, "
            "as a share (%) of all of it. Leaving a tower out: how much the "
            "probability falls, in points, if the tower is hidden. SHAP values (of "
            "boosted trees; D, table 2): its part of the raw score; together: what "
            "trees are told of all towers at once; label share: how frequent the label "
            "is."
        ),
    ]


def reason_table(numbers: Mapping[str, Any]) -> Table:
    """What each tower does for each head."""
    heads = {x: m for x, m in heads_in_order(numbers).items() if "reasons" in m}
    told = [
        (name, way, parts)
        for name, model in heads.items()
        for way, parts in _ways(model["reasons"]).items()
    ]
    columns = list(dict.fromkeys(x for _, _, parts in told for x in parts))
    rows = []
    for name, way, parts in told:
        total = sum(parts.values()) or 1.0
        row = [Cell(name, WAYS[way])]
        for column in columns:
            if column not in parts:
                row.append(Cell())
                continue
            value, share = parts[column], parts[column] / total
            note = f"{value:.2f}" if way == "shap" else f"{percent(value)} points"
            row.append(Cell(percent(share), note, bar=share))
        row.append(Cell(count(heads[name]["reasons"]["products"])))
        rows.append(row)
    return Table(
        "Which tower heads listen to",
        ["Head", *columns, "Products"],
        rows,
        place_of_best([name for name, _, _ in told], numbers),
    )


def _ways(reasons: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """How reasons were found -> tower, or what else heads are told -> its part."""
    found = {reasons["kind"]: _parts(reasons)}
    if "leave_one_tower_out" in reasons:
        found["leave_one_tower_out"] = dict(reasons["leave_one_tower_out"])
    return found


def _parts(reasons: Mapping[str, Any]) -> dict[str, float]:
    parts = dict(reasons["of"])
    for key, title in (("together", "together"), ("label_share", "label share")):
        if key in reasons:
            parts[title] = reasons[key]
    return parts


def _attention(numbers: Mapping[str, Any]) -> list[Block]:
    towers = {x: m for x, m in in_order(numbers).items() if "attention" in m}
    if not towers:
        return []
    rows = [
        [
            Cell(name),
            Cell(percent(found["border"])),
            Cell(percent(found["expected"])),
            Cell(count(found["products"])),
        ]
        for name, model in towers.items()
        for found in [model["attention"]]
    ]
    columns = ["Tower", "On the border (%)", "If spread evenly (%)", "Products"]
    pictures = [
        _attention_picture(name, model["attention"], place)
        for place, (name, model) in enumerate(towers.items())
    ]
    return [
        Words("Where towers look", heading=True),
        Table("Attention on the border", columns, rows),
        Words(
            "The share of the attention on the outermost cells of pictures (B). Much "
            "more than if it were spread evenly says that the tower looks past the "
            "product."
        ),
        Pictures(pictures),
    ]


def _attention_picture(name: str, found: Mapping[str, Any], place: int) -> Picture:
    grid = np.asarray(found["mean"], float)

    def paint(axes: Any) -> None:
        axes.imshow(grid, cmap="viridis", vmin=0, vmax=max(float(grid.max()), 1e-9))
        axes.set_axis_off()

    return drawing.picture(
        f"attention-{place}",
        f"Mean attention of {name} over the cells of a picture",
        paint,
        title=f"{name}: mean over {count(found['products'])} pictures, yellow most",
        width=230,
        height=230,
    )


def _features(numbers: Mapping[str, Any]) -> list[Block]:
    maps = numbers.get("tsne", {})
    order = [x for x in towers_in_order(numbers) if x in maps]
    if not order:
        return []
    pictures = [_feature_picture(x, maps[x], i) for i, x in enumerate(order)]
    return [
        Words("Which products lie alike", heading=True),
        Words(
            "The features of each tower in two dimensions (t-SNE; A, figure 3): "
            "products near each other look alike to it. Red among green: the label is "
            "in doubt; red on its own: a kind that no tower knows."
        ),
        Pictures(pictures),
    ]


def _feature_picture(name: str, found: Mapping[str, Any], place: int) -> Picture:
    x, y = np.asarray(found["x"], float), np.asarray(found["y"], float)
    groups = np.asarray(found["group"])

    def paint(axes: Any) -> None:
        for key, (title, color) in GROUPS.items():
            chosen = groups == key
            if chosen.any():
                axes.scatter(
                    *(x[chosen], y[chosen]),
                    s=9,
                    color=color,
                    linewidth=0,
                    alpha=0.8,
                    label=f"{title} ({chosen.sum()})",
                    rasterized=True,
                )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, markerscale=2)

    return drawing.picture(
        f"features-{place}",
        f"The features of {name} in two dimensions, by which towers are right",
        paint,
        title=name,
        width=380,
        height=360,
    )
