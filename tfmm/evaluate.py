"""python -m tfmm.evaluate: stored outputs, or another labelled file -> a report."""

import re
from pathlib import Path
from typing import Annotated

import typer

from tfmm.errors import ExperimentError, RunError, command_line, did_you_mean
from tfmm.run import Run
from tfmm.settings import SPLITS


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run that tfmm.fit made.")],
    split: Annotated[
        str | None,
        typer.Option(help="train, fusion, validation, test (default) or a --name."),
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Another labelled table to measure on.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of its images; its own by default.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call that table in the run.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="Folder for the page; RUN/report by default.")
    ] = None,
) -> None:
    """Measures the models of a run and draws the page."""
    place = Run(run)
    settings = place.read_experiment()
    if (catalog is None) != (name is None):
        raise ExperimentError("--catalog and --name go together")
    if catalog is not None and split is not None:
        raise ExperimentError("--split names products of the run; not with --catalog")
    split = split or "test"
    if name is not None and (
        name in (*SPLITS, "train_oof", "targets")
        or not re.fullmatch("[a-z0-9_]+", name)
    ):
        raise ExperimentError(
            f"--name: expected small letters, digits and _, and no split's name. "
            f"Received: {name!r}"
        )
    if catalog is None:
        known = [x.stem for x in (place.outputs / "targets").glob("*.json")]
        if split not in known:
            raise RunError(f"{run}: no split {split!r}{did_you_mean(split, known)}")

    from tfmm import report

    if catalog is None:
        print(report.write(place, settings, split, to))
        return

    from tfmm import audit, stages
    from tfmm.catalog import load as load_catalog
    from tfmm.products import write as write_products
    from tfmm.progress import say

    with place.lock():
        labels = place.read_labels()
        products = audit.check_inputs(load_catalog(catalog, settings, images, labels))
        say(
            f"{name}: {len(products.rows('test'))} products; left out for want of a "
            f"label of the run {len(products.left_out)}; images that cannot be used "
            f"{len(products.bad_images)}; labels that the run does not have "
            f"{len(products.unknown_labels)}"
            + "".join(f" ({label!r} ...)" for label in products.unknown_labels[:1])
        )
        write_products(place, products, name)
        audit.write_targets(place, products, "test", name)
        for model in (*settings.towers_in_order(), *settings.heads_in_order()):
            if place.model_info_file(model).exists():
                stages.write_outputs_of(place, settings, model, products, name)
        audit.write_left_out(to or place.report(name), products)
        print(report.write(place, settings, name, to, products))


if __name__ == "__main__":
    command_line(evaluate, "python -m tfmm.evaluate")
