"""What the page says first: what a person wants to know in ten seconds."""

from collections.abc import Mapping
from typing import Any

from tfmm.page import Tile
from tfmm.report.tables import (
    FIGURES,
    SURE,
    best_model,
    count,
    percent,
    points,
    span,
)

WANTED = 0.95  # the precision at which the first figure of automation is


def sentence(numbers: Mapping[str, Any]) -> str:
    """The best head, chosen on `validation`, measured here.

    Without a head that was not fitted on `validation` it is the best tower; without any
    ranking, that there is none.
    """
    models, by = numbers["models"], numbers["ranked_by"]
    if not numbers["ranking"]:
        return "No model was measured on validation, so none is called the best."
    title = FIGURES[by]
    name = best_model(numbers)
    model = models[name]
    here = f"{name}. Here {title} {percent(model[by])} %"
    if model["kind"] == "tower":
        return f"Best tower on validation: {here}."
    key = _end(by)
    interval = span(model[f"gain{key}_interval"], points)
    return (
        f"Best head on validation: {here}: "
        f"{points(model[f'gain{key}'])} points over its best tower, "
        f"{model[f'best_tower{key}']} (95 % interval {interval})."
    )


def about(numbers: Mapping[str, Any]) -> str:
    """What was measured, and how figures are to be read."""
    task = numbers["task"].replace("_", " ")
    train = numbers.get("split_products", {}).get("train")
    learned = f", learned from {count(train)}" if train else ""
    oracle = percent(numbers["oracle"]["top1"])
    return (
        f"{count(numbers['products'])} products{learned}, {numbers['labels']} labels, "
        f"{task}. An oracle that always believed a tower that is right would reach "
        f"{oracle} % top-1. Figures are in %, gains and differences in points; "
        "intervals hold 95 %. The best is chosen on validation, never on what is "
        "reported here."
    )


def tiles(numbers: Mapping[str, Any]) -> list[Tile]:
    """The figures at the top, as far as the report has them."""
    if not numbers["ranking"]:
        return _misfiled(numbers)
    name, by = best_model(numbers), numbers["ranked_by"]
    model = numbers["models"][name]
    kind = "head" if model["kind"] == "head" else "tower"
    interval = span(model[f"{by}_interval"], percent)
    best = Tile(
        f"{percent(model[by])} %",
        f"{FIGURES[by]} of {name}, the best {kind}",
        interval,
        to="#models",
    )
    found = [best, *_gain(model, by), *_images(numbers, model), *_filed(numbers, model)]
    return [*found, *_misfiled(numbers)]


def _gain(model: Mapping[str, Any], by: str) -> list[Tile]:
    if model["kind"] == "tower":
        return []
    key = _end(by)
    low, high = model[f"gain{key}_interval"]
    tower = model[f"best_tower{key}"]
    told = "" if low > 0 or high < 0 else f": not told apart from {tower} alone"
    return [
        Tile(
            points(model[f"gain{key}"]),
            f"points over {tower}, its best tower",
            f"{span((low, high), points)}{told}",
            "good" if low > 0 else "look",
            "#models",
        )
    ]


def _images(numbers: Mapping[str, Any], model: Mapping[str, Any]) -> list[Tile]:
    if "image_gain" not in model:
        return []
    whole = model["image_gain"]["all"]
    single = numbers["task"] == "single_label"
    what = "points of top-1" if single else "points of recall"
    kinds = numbers.get("modalities", {})
    images = [x for x, kind in kinds.items() if kind == "image"]
    left_out = model.get("leave_one_out", {})
    note = (
        f"{count(whole['gained'])} right only with it, "
        f"{count(whole['lost'])} only without"
    )
    if single and len(images) == 1 and images[0] in left_out:
        note = f"{span(left_out[images[0]]['top1_interval'], points)}; {note}"
    sure = whole["p"] is not None and whole["p"] < SURE
    return [
        Tile(
            points(whole["recall"]),
            f"{what} from the image",
            note if sure else f"{note}: no more than chance",
            "good" if sure and whole["recall"] > 0 else "look",
            "#images",
        )
    ]


def _filed(numbers: Mapping[str, Any], model: Mapping[str, Any]) -> list[Tile]:
    tables = [
        x for x in model["coverage"].get("wanted", []) if x["precision"] == WANTED
    ]
    if not tables:
        return []
    found = tables[0]
    about = f"may be filed automatically at {WANTED:.0%} precision".replace("%", " %")
    if found["threshold"] is None or not found["filed"]:
        note = "no certainty on validation reaches it"
        if found["threshold"] is not None:
            note = f"no product here is {found['threshold']:.2f} sure"
        return [Tile("0 %", about, note, "look", "#automation")]
    reached = f"{percent(found['reached'])} %"
    interval = span(found["reached_interval"], percent)
    return [
        Tile(
            f"{percent(found['filed'])} %",
            about,
            f"those {found['threshold']:.2f} sure or more; right here: {reached} "
            f"({interval})",
            "good" if found["reached_interval"][1] >= WANTED else "look",
            "#automation",
        )
    ]


def _misfiled(numbers: Mapping[str, Any]) -> list[Tile]:
    found = numbers.get("misfiled")
    if not found:
        return []
    note = (
        f"of {count(found['products'])} judged; "
        f"{count(found['listed'])} are on the list"
    )
    return [
        Tile(
            count(found["confident"]),
            "listings look misfiled",
            note,
            "look" if found["confident"] else "good",
            "misfiled.html",
        )
    ]


def _end(by: str) -> str:
    return "" if by == "top1" else f"_{by}"
