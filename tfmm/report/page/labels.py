"""Where models fail: label by label, and which label they take for which."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfmm.page import Block, Cell, Fold, Picture, Section, Table, Words, drawing
from tfmm.report.page.images import gaining_head
from tfmm.report.tables import (
    best_model,
    chance_cell,
    count,
    first_models,
    heads_in_order,
    in_order,
    place_of_best,
    points_cell,
    share_cell,
    towers_in_order,
)

FIRST_HEADS = 2  # beside the towers in the tables of the worst labels; the rest fold
ALL_WRONG = "No tower"


def section(numbers: Mapping[str, Any]) -> Section:
    """Every label: what is found of it, and the worst ones."""
    return Section(
        "labels",
        "Labels",
        "Where the models fail: labels with many missed products and few to learn from "
        "need more products; labels that are often taken for one another may need "
        "clearer rules or to be made one.",
        [
            label_table(numbers),
            Words(
                "The most missed first. Precision: of the products given the label, "
                "the share that have it; recall: of those that have it, the share "
                "given it. No tower: products whose label no tower gives. Image: "
                "points of recall that images add, and how likely so much is by "
                "chance, adjusted for as many labels."
            ),
            *_worst(numbers),
            _sizes(numbers),
        ],
    )


def label_table(numbers: Mapping[str, Any]) -> Table:
    """A row for each label: the best head, the best tower, what no tower found."""
    models, names = numbers["models"], numbers["label_names"]
    counts = numbers["products_per_label"]
    here, train = counts["here"], counts.get("train")
    best = best_model(numbers)
    tower = next(iter(towers_in_order(numbers)))
    own, other = models[best]["per_label"], models[tower]["per_label"]
    gaining = gaining_head(numbers)
    gain = models[gaining]["image_gain"] if gaining else None
    columns = ["Label", "Products", *(["In training"] if train else [])]
    columns += [f"Missed by {best}", "Precision", "Recall", "F1"]
    if best != tower:
        columns += [f"{tower}: recall", "F1"]
    columns.append(ALL_WRONG)
    columns += ["Image", "p, adjusted"] if gain else []
    rows = []
    order = sorted(range(len(names)), key=lambda x: (own["found"][x] - here[x], x))
    for label in order:
        missed = here[label] - own["found"][label]
        row = [Cell(names[label]), Cell(count(here[label]))]
        row += [Cell(count(train[label]))] if train else []
        row.append(Cell(count(missed)))
        row += [share_cell(own[x][label]) for x in ("precision", "recall", "f1")]
        if best != tower:
            row += [share_cell(other[x][label]) for x in ("recall", "f1")]
        row.append(Cell(count(numbers["towers_found"]["none"][label])))
        if gain:
            row.append(points_cell(gain["recall"][label]))
            row.append(chance_cell(gain["p_adjusted"][label]))
        rows.append(row)
    return Table("Every label", columns, rows)


def _worst(numbers: Mapping[str, Any]) -> list[Block]:
    names = first_models(numbers, len(numbers["models"]), 0)
    towers = list(towers_in_order(numbers))
    blocks: list[Block] = []
    for key, title, about in (
        (
            "by_share",
            "The worst labels by the share that is missed",
            "Missed / products (C prints 15 so). Ranked by the lower edge of the "
            "share's 95 % interval, so that a label of one product is not the first.",
        ),
        (
            "by_count",
            "The worst labels by how many are missed",
            "Missed / products (B, table 4.2).",
        ),
    ):
        first = [*towers, *names[:FIRST_HEADS]]
        blocks += [
            Words(title, heading=True),
            worst_table(numbers, title, first, key),
            Words(about),
        ]
        rest = names[FIRST_HEADS:]
        if rest:
            table = worst_table(numbers, f"{title}: {len(rest)} more heads", rest, key)
            blocks.append(Fold(f"{len(rest)} more heads", [table]))
    return blocks


def worst_table(
    numbers: Mapping[str, Any], title: str, names: Sequence[str], key: str
) -> Table:
    """The worst labels of models side by side; after the towers, of all of them."""
    here = numbers["products_per_label"]["here"]
    columns: dict[str, list[Cell]] = {}
    towers = [x for x in names if numbers["models"][x]["kind"] == "tower"]

    def add(title: str, labels: Sequence[int], missed: Sequence[int]) -> None:
        columns[title] = [
            Cell(
                numbers["label_names"][label],
                f"{count(missed[label])} / {count(here[label])}",
                words=True,
                order=missed[label] / here[label]
                if key == "by_share"
                else missed[label],
            )
            for label in labels
        ]

    for name in names:
        model = numbers["models"][name]
        found = model["per_label"]["found"]
        missed = [x - y for x, y in zip(here, found, strict=True)]
        add(name, model["worst"][key], missed)
        if len(towers) > 1 and name == towers[-1]:
            none = numbers["towers_found"]["none"]
            add(f"{ALL_WRONG} right", numbers["worst_labels"][key], none)
    most = max((len(cells) for cells in columns.values()), default=0)
    rows = [
        [
            Cell(str(rank + 1)),
            *(x[rank] if rank < len(x) else Cell() for x in columns.values()),
        ]
        for rank in range(most)
    ]
    return Table(title, ["Rank", *columns], rows)


def _sizes(numbers: Mapping[str, Any]) -> Picture:
    counts = numbers["products_per_label"]

    def paint(axes: Any) -> None:
        for key, title, color in (
            ("train", "training", drawing.GREY),
            ("here", f"{numbers['split']}, measured here", drawing.BLUE),
        ):
            if key in counts:
                sizes = sorted(counts[key], reverse=True)
                ranks = range(1, len(sizes) + 1)
                # A label without any product would stand at minus infinity.
                axes.fill_between(
                    *(ranks, [max(x, 0.5) for x in sizes], 0.5),
                    color=color,
                    alpha=0.55,
                    linewidth=0,
                    step="mid",
                    label=drawing.short(title),
                )
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.yaxis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 1 else "")
        axes.set_xlim(0.5, len(counts["here"]) + 0.5)
        axes.set_xlabel("labels, the largest first")
        axes.set_ylabel("products")
        axes.legend()

    return drawing.picture(
        "label-sizes",
        "Products of each label, the largest label first, on a logarithmic scale",
        paint,
        title="Products per label (C, figure 2)",
        height=220,
    )


def confusion(numbers: Mapping[str, Any]) -> Section | None:
    """The most confused pairs; where labels are paths, how near wrong answers are."""
    shown = [x for x in first_models(numbers, 1, 1) if numbers["models"][x]["confused"]]
    blocks: list[Block] = [
        Fold(f"By {name}", [confused_table(numbers, name)], place == 0)
        for place, name in enumerate(shown)
    ]
    if blocks and numbers["task"] == "multi_label":
        blocks.append(
            Words(
                "Products for which the true label was missed and the other was given "
                "wrongly; a product counts once for each such pair."
            )
        )
    if any("within_parent" in m for m in numbers["models"].values()):
        blocks += [
            Words("How near the wrong answers are", heading=True),
            parent_table(numbers),
            Words(
                "Of missed labels, and of those that a head puts right or breaks "
                "against its best tower: the share with an answer below the same "
                "parent (inside), or below the same topmost step (top) (D)."
            ),
        ]
    if not blocks:
        return None
    return Section(
        "confusion",
        "Which labels are taken for which",
        "The pairs that are confused most: look at a few products of each, and see "
        "whether the labels mean different things to those who file.",
        blocks,
    )


def confused_table(numbers: Mapping[str, Any], name: str) -> Table:
    """Pairs of labels, the most frequent first."""
    names = numbers["label_names"]
    here = numbers["products_per_label"]["here"]
    rows = [
        [
            Cell(names[true]),
            Cell(names[given], words=True),
            Cell(count(products), order=products),
            share_cell(products / here[true]),
        ]
        for true, given, products in numbers["models"][name]["confused"]
    ]
    columns = ["True label", "Given", "Products", "Of the true label"]
    return Table(f"Labels confused by {name}", columns, rows)


def parent_table(numbers: Mapping[str, Any]) -> Table:
    """Errors and corrections inside the right parent, model by model."""
    kinds = {"missed": "Missed", "corrected": "Corrected", "broken": "Broken"}
    if not heads_in_order(numbers):
        kinds = {"missed": "Missed"}
    models = {x: m for x, m in in_order(numbers).items() if "within_parent" in m}
    rows = []
    for name, model in models.items():
        row = [Cell(name)]
        for key in kinds:
            found = model["within_parent"].get(key)
            if found is None:
                row += [Cell()] * 3
                continue
            products = found["products"]
            row.append(Cell(count(products)))
            row += [
                share_cell(found[x] / products, f"{count(found[x])}")
                if products
                else Cell()
                for x in ("inside", "top")
            ]
        rows.append(row)
    columns = ["Model"]
    for title in kinds.values():
        columns += [title, "inside", "top"]
    title = "How near the wrong answers are"
    return Table(title, columns, rows, place_of_best(models, numbers))
