"""python -m tfmm.evaluate: stored outputs, or another labelled file -> a report.

Of several runs: one page that compares them.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from tfmm.errors import ExperimentError, RunError, command_line, did_you_mean
from tfmm.run import Run
from tfmm.settings import SPLITS


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(help="A run that tfmm.fit made, or several to compare."),
    ],
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
        Path | None,
        typer.Option(
            help="Folder for the page; RUN/report by default. Needed for several runs."
        ),
    ] = None,
) -> None:
    """Measures the models of a run, or compares several runs, and draws the page."""
    if len(runs) > 1:
        if to is None:
            raise ExperimentError("several runs need --to, a folder for their page")
        if any(x is not None for x in (catalog, images, name)):
            raise ExperimentError(
                "--catalog, --images and --name measure one run. Received: "
                f"{len(runs)} runs; measure each by itself, then compare them by "
                "--split NAME"
            )
        print(compare(runs, split or "test", to))
        return
    run = runs[0]
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
        check_split(place, split)

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


def compare(paths: list[Path], split: str, to: Path) -> Path:
    """Puts several runs on one page; returns its path."""
    places = {path.resolve(): path for path in paths}
    for path in paths:
        if places[path.resolve()] is not path:
            raise RunError(f"{path}: expected each run once. Received: it twice")
    read = {path: (Run(path), Run(path).read_experiment()) for path in paths}
    for place, _ in read.values():
        check_split(place, split)

    from tfmm.report import runs

    named = zip(runs.names(paths), read.values(), strict=True)
    return runs.write(dict(named), split, to)


def check_split(run: Run, split: str) -> None:
    """Raises `RunError` unless the run has outputs of something called `split`."""
    known = [x.stem for x in (run.outputs / "targets").glob("*.json")]
    if split not in known:
        raise RunError(f"{run.path}: no split {split!r}{did_you_mean(split, known)}")


if __name__ == "__main__":
    command_line(evaluate, "python -m tfmm.evaluate")
