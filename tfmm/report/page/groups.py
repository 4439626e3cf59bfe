"""Who is right: products by which of the towers are."""

from collections.abc import Mapping
from typing import Any

from tfmm.page import Block, Cell, Fold, Picture, Section, Table, Words, drawing
from tfmm.report.tables import (
    count,
    heads_in_order,
    percent,
    place_of_best,
    share_cell,
    towers_in_order,
)

# So many towers meet in pairs on the page, which makes six; all are in report.json.
PAIRED_TOWERS = 4
COLORS = (drawing.GREEN, drawing.BLUE, drawing.YELLOW, drawing.RED)


def section(numbers: Mapping[str, Any]) -> Section | None:
    """The groups of papers A and B, and what heads make of each."""
    if not numbers["groups"]:
        return None
    pairs = shown_pairs(numbers)
    words = (
        "Products by how many of the towers are right, and of each group the share "
        "that a head gets right."
    )
    if heads_in_order(numbers):
        words += (
            " Rescued: products that the head has right and its best tower wrong; "
            "broken: the other way round."
        )
    tables = tower_pair_tables(numbers)
    blocks: list[Block] = [
        towers_right_table(numbers),
        Words(words),
        _picture(pairs),
        *(Fold(table.title, [table], len(tables) == 1) for table in tables),
        *_by_label(numbers),
    ]
    if len(pairs) < len(numbers["groups"]):
        blocks.append(
            Words(
                f"The {PAIRED_TOWERS} best towers on validation in pairs; report.json "
                f"has all {len(numbers['groups'])} pairs."
            )
        )
    return Section(
        "groups",
        "Who is right",
        "Which products only the image or only the words get right, and whether heads "
        "keep them: where no tower is right no fusion helps, and better towers or "
        "better data are needed.",
        blocks,
    )


def towers_right_table(numbers: Mapping[str, Any]) -> Table:
    """What heads make of the products that so many towers get right."""
    titles = {"none": "No tower", "one": "One", "several": "Several", "all": "All"}
    if len(towers_in_order(numbers)) < 3:
        del titles["several"]
    table = _group_table(numbers, "Who is right", numbers["towers_right"], titles)
    first, *rest = table.rows
    rows = [[*first, Cell(), Cell()]]
    for row, model in zip(rest, heads_in_order(numbers).values(), strict=True):
        changed = [model[key] for key in ("rescued", "broken_by_fusion")]
        cells = [
            Cell(count(x["products"]), f"{percent(x['share'])} %") for x in changed
        ]
        rows.append([*row, *cells])
    columns = [*table.columns, "Rescued", "Broken"]
    return Table(table.title, columns, rows, table.marked)


def shown_pairs(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Of `groups`, the pairs of the best towers on `validation`."""
    first = list(towers_in_order(numbers))[:PAIRED_TOWERS]
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
        Cell(count(groups[key]["products"]), f"{percent(groups[key]['share'])} %")
        for key in titles
    ]
    rows = [[Cell("products"), *counts]]
    heads = heads_in_order(numbers)
    for head in heads:
        shares = [groups[key]["right"].get(head) for key in titles]
        rows.append([Cell(head), *(share_cell(x) for x in shares)])
    place = place_of_best(heads, numbers)
    marked = None if place is None else place + 1
    return Table(title, ["Of these right", *titles.values()], rows, marked)


def _by_label(numbers: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    here = numbers["products_per_label"]["here"]
    for pair, groups in numbers["groups_per_label"].items():
        first, second = pair.split("|")
        order = sorted(range(len(here)), key=lambda x: -here[x])
        rows = [
            [
                Cell(numbers["label_names"][label]),
                Cell(count(here[label])),
                *(
                    Cell(count(values[label]), bar=values[label] / here[label])
                    for values in groups.values()
                ),
            ]
            for label in order
            if here[label]
        ]
        titles = ("Both", f"Only {first}", f"Only {second}", "Neither")
        table = Table(
            f"Label by label: {first} / {second}", ["Label", "Products", *titles], rows
        )
        blocks.append(Fold(table.title, [table]))
    return blocks


def _picture(groups: Mapping[str, Mapping[str, Any]]) -> Picture:
    names = {pair: [drawing.short(x) for x in pair.split("|")] for pair in groups}

    def paint(axes: Any) -> None:
        for row, members in enumerate(groups.values()):
            left = 0.0
            for color, group in zip(COLORS, members.values(), strict=True):
                axes.barh(row, group["share"], left=left, color=color, height=0.62)
                if group["share"] > 0.05:
                    axes.text(
                        *(left + group["share"] / 2, row, percent(group["share"])),
                        ha="center",
                        va="center",
                        color="white",
                        fontweight="bold",
                    )
                left += group["share"]
        titles = ("both right", "only the first", "only the second", "none")
        for color, title in zip(COLORS, titles, strict=True):
            axes.barh(0, 0, color=color, label=title)
        axes.set_yticks(range(len(groups)), [" / ".join(x) for x in names.values()])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        drawing.percents(axes.xaxis)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)

    return drawing.picture(
        "groups",
        "Shares of the products by which tower of a pair is right",
        paint,
        title="Share of the products, by which tower of a pair is right",
        height=34 * len(groups) + 75,
    )
