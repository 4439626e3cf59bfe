"""python -m tfmm.fit: from a catalog to a report."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from tfmm import experiment
from tfmm.errors import ExperimentError, RunError, command_line, did_you_mean
from tfmm.options import CatalogFile, Changes, Hparams, ImagesFolder
from tfmm.run import Run

STAGES = ("audit", "towers", "heads", "report")


def fit(
    hparams: Hparams,
    catalog: CatalogFile,
    run: Annotated[Path, typer.Option(help="Folder for everything that is made.")],
    images: ImagesFolder = None,
    set_: Changes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in a run that exists.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="audit, towers, heads or report; may be repeated."),
    ] = None,
) -> None:
    """Trains the towers and heads of an experiment on a catalog, and reports."""
    settings = experiment.load(hparams, set_ or [])
    for stage in only or ():
        if stage not in STAGES:
            raise ExperimentError(f"--only {stage}{did_you_mean(stage, STAGES)}")
    wanted = set(only or STAGES)
    place = Run(run)
    if place.exists and not resume:
        raise RunError(f"{run}: a run is there already; add --resume to go on in it")
    if not catalog.is_file():
        raise RunError(f"{catalog}: no such catalog file")

    with place.lock():
        from tfmm import report, stages

        products = stages.start(place, settings, catalog, images, sys.argv)
        if "towers" in wanted:
            for name in settings.towers_in_order():
                stages.fit_tower(place, settings, products, name)
        if "heads" in wanted:
            for name in settings.heads_in_order():
                stages.fit_head(place, settings, products, name)
        if "report" in wanted:
            page = report.write(place, settings, "test", catalog=products)
            print(page)


if __name__ == "__main__":
    command_line(fit, "python -m tfmm.fit")
