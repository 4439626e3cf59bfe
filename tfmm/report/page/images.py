"""What the image adds, and what happens when something is missing."""

from collections.abc import Mapping
from typing import Any

from tfmm.page import Block, Cell, Picture, Section, Table, Words, drawing
from tfmm.report.tables import (
    SURE,
    TITLES,
    best_model,
    chance_cell,
    count,
    heads_in_order,
    percent,
    place_of_best,
    points,
    points_cell,
    share_cell,
    span,
)

# Of a curve, what a page has room for.
SHOWN_BUDGETS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
KEPT = 0.99  # share of the figure with every image that is to be kept
MOST, LEAST = 18, 10  # labels in the picture that gain most, and that gain least


def section(numbers: Mapping[str, Any]) -> Section | None:
    """What each modality adds; the image, label by label."""
    blocks = [*_left_out(numbers), *_by_label(numbers), *_missing(numbers)]
    if not blocks:
        return None
    return Section(
        "images",
        "What the image adds",
        "What is lost without the image, or without the words, over all and label by "
        "label: where images add nothing they need not be looked at.",
        blocks,
    )


def gaining_head(numbers: Mapping[str, Any]) -> str | None:
    """The best head if it can answer without images, else the first that can."""
    heads = [x for x, m in heads_in_order(numbers).items() if "image_gain" in m]
    best = best_model(numbers)
    return best if best in heads else next(iter(heads), None)


def _left_out(numbers: Mapping[str, Any]) -> list[Block]:
    heads = {x: m for x, m in heads_in_order(numbers).items() if m.get("leave_one_out")}
    if not heads:
        return []
    modalities = list(
        dict.fromkeys(x for m in heads.values() for x in m["leave_one_out"])
    )
    columns = ["Head"]
    for modality in modalities:
        columns += [
            f"{modality}: top-1",
            f"{modality}: own labels",
            f"{modality}: first changes",
        ]
    rows = []
    for name, model in heads.items():
        row = [Cell(name)]
        for modality in modalities:
            found = model["leave_one_out"].get(modality)
            if not found:
                row += [Cell()] * 3
                continue
            note = span(found["top1_interval"], points)
            row.append(points_cell(found["top1"], note))
            row.append(points_cell(found["true"]))
            row.append(share_cell(found["changed"]))
        rows.append(row)
    return [
        Words("What each modality adds", heading=True),
        Table("What each modality adds", columns, rows, place_of_best(heads, numbers)),
        Words(
            "Hidden from the head, of the products that have it: the points of top-1 "
            "that are lost, with their 95 % interval; how much less probable the "
            "product's own labels become; how often another label comes first."
        ),
    ]


def _by_label(numbers: Mapping[str, Any]) -> list[Block]:
    name = gaining_head(numbers)
    if name is None:
        return []
    gain = numbers["models"][name]["image_gain"]
    whole = gain["all"]
    return [
        Words("The image's gain, label by label", heading=True),
        Words(
            f"Of {name} with images against itself without: {count(whole['gained'])} "
            f"right labels of products are found only with the image, "
            f"{count(whole['lost'])} only without. A p below {SURE}, adjusted for as "
            "many labels, is bold: that gain or loss is no noise."
        ),
        gain_picture(numbers, name),
        gain_table(numbers, name),
    ]


def gain_table(numbers: Mapping[str, Any], name: str) -> Table:
    """A row for each label that occurs, the largest gain first."""
    gain = numbers["models"][name]["image_gain"]
    here = numbers["products_per_label"]["here"]
    rows = [
        [
            Cell(numbers["label_names"][label]),
            Cell(count(here[label])),
            points_cell(gain["recall"][label]),
            Cell(count(gain["gained"][label])),
            Cell(count(gain["lost"][label])),
            points_cell(gain["f1"][label]),
            chance_cell(gain["p_adjusted"][label]),
        ]
        for label in gain["order"]
    ]
    columns = [
        *("Label", "Products", "Gain in recall", "Found only with", "Only without"),
        *("Gain in F1", "p, adjusted"),
    ]
    return Table("What images add to each label", columns, rows)


def gain_picture(numbers: Mapping[str, Any], name: str) -> Picture:
    """The labels that gain most and least."""
    gain = numbers["models"][name]["image_gain"]
    here = numbers["products_per_label"]["here"]
    order = gain["order"]
    cut = len(order) > MOST + LEAST
    shown = [*order[:MOST], *order[-LEAST:]] if cut else order

    def paint(axes: Any) -> None:
        for row, label in enumerate(shown):
            value, p = gain["recall"][label] or 0.0, gain["p_adjusted"][label]
            sure = p is not None and p < SURE
            color = drawing.GREEN if value > 0 else drawing.RED
            axes.barh(row, value, color=color, alpha=1.0 if sure else 0.4, height=0.7)
        axes.axvline(0, color=drawing.INK, linewidth=0.8)
        if cut:
            axes.axhline(MOST - 0.5, color=drawing.INK, linewidth=0.8, linestyle=":")
        names = [
            f"{drawing.short(numbers['label_names'][x])} ({count(here[x])})"
            for x in shown
        ]
        axes.set_yticks(range(len(shown)), names)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(lambda x, _: points(x).removesuffix(".0"))
        axes.set_xlabel("points of recall; pale: may be noise")

    about = (
        f"{MOST} labels that gain most and {LEAST} that gain least" if cut else "labels"
    )
    return drawing.picture(
        "image-gain",
        f"What images add to the recall of {about}",
        paint,
        title="Gain in recall by looking at the image"
        + (f": {about}" if cut else "")
        + " (products)",
        width=450,
        height=17 * len(shown) + 55,
    )


def _missing(numbers: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    by = TITLES[numbers["ranked_by"]]
    missing = missing_table(numbers)
    if missing.rows:
        blocks += [
            Words("When modalities are missing", heading=True),
            missing,
            Words(
                f"{by} with everything that the products have, and with modalities "
                "hidden from the towers. A product of which nothing is left gets the "
                "label shares of the training products."
            ),
        ]
    images = image_table(numbers)
    if images.rows:
        blocks += [
            Words("How many images a head needs", heading=True),
            images,
            Words(
                f"{by} when at most so many of the images are looked at, and the words "
                "decide alone elsewhere. Which ones is chosen by a rule that was "
                "fitted on validation; python -m export with --image-budget or "
                "--max-loss builds it into the served model."
            ),
        ]
    return blocks


def missing_table(numbers: Mapping[str, Any]) -> Table:
    """Heads when modalities are missing, by the figure that ranks them."""
    by = numbers["ranked_by"]
    heads = {x: m for x, m in heads_in_order(numbers).items() if "missing" in m}
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
            row.append(share_cell(figure, best=figure == best[case]))
        rows.append(row)
    columns = ["Head", *(case.replace("_", " ", 1) for case in cases)]
    title = "When modalities are missing"
    return Table(title, columns, rows, place_of_best(heads, numbers))


def image_table(numbers: Mapping[str, Any]) -> Table:
    """What heads reach by the share of images that they look at."""
    heads = {x: m for x, m in heads_in_order(numbers).items() if "image_curve" in m}
    rows = []
    for name, model in heads.items():
        curve = model["image_curve"]
        wanted = KEPT * curve[-1]["measure"]
        # Past the last budget that keeps less.
        below = [place for place, x in enumerate(curve) if x["measure"] < wanted]
        least = curve[below[-1] + 1 if below else 0]
        by_budget = {x["budget"]: x for x in curve}
        rows.append(
            [
                Cell(name),
                *(
                    Cell(
                        percent(by_budget[budget]["measure"]),
                        f"{percent(by_budget[budget]['images'])}\u00a0%\u00a0seen",
                    )
                    for budget in SHOWN_BUDGETS
                ),
                Cell(f"{percent(least['images'])} %"),
            ]
        )
    columns = ["Head", *(f"{100 * budget:.0f} %" for budget in SHOWN_BUDGETS)]
    columns.append(f"Images for {100 * KEPT:.0f} % of the last")
    title = "How many images a head needs"
    return Table(title, columns, rows, place_of_best(heads, numbers))
