"""python -m tfmm.search: a model's settings, searched on validation."""

import math
import pickle
import sys
from pathlib import Path
from typing import Annotated

import typer

from tfmm import experiment
from tfmm.errors import ExperimentError, RunError, command_line, did_you_mean
from tfmm.options import CatalogFile, Changes, Hparams, ImagesFolder
from tfmm.run import Run, replacing
from tfmm.settings.search import ALGORITHMS


def search(
    hparams: Hparams,
    catalog: CatalogFile,
    run: Annotated[Path, typer.Option(help="A run, or where to make one.")],
    target: Annotated[str, typer.Option(help="The tower or head to search.")],
    trials: Annotated[int, typer.Option(min=1, help="How many, the first as written.")],
    algorithm: Annotated[str, typer.Option(help="tpe or random.")] = "tpe",
    parallel: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Trials at the same time; 1 if absent."),
    ] = None,
    spark: Annotated[
        str | None, typer.Option(help="Do the trials on this Spark master.")
    ] = None,
    time_budget: Annotated[
        float, typer.Option(min=0.0, help="Seconds after which no trial is begun.")
    ] = math.inf,
    images: ImagesFolder = None,
    set_: Changes = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of the suggestions; the file's if absent."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a search that exists.")
    ] = False,
) -> None:
    """Searches the settings of one model and leaves the best as an experiment file."""
    settings = experiment.load(hparams, set_ or [])
    if algorithm not in ALGORITHMS:
        raise ExperimentError(
            f"--algorithm {algorithm}{did_you_mean(algorithm, ALGORITHMS)}"
        )
    if spark is not None and parallel is None:
        raise ExperimentError("--spark needs --parallel: how many trials at once")
    if not catalog.is_file():
        raise RunError(f"{catalog}: no such catalog file")
    from tfmm.search import bounds
    from tfmm.search import space as spaces

    settings = spaces.with_ready_space(settings, target, str(hparams))
    measure = spaces.measure_of(settings, target)
    tried = bounds.probes(settings, target, str(hparams))
    cuts_validation = bounds.cuts_validation(settings, target, tried, str(hparams))
    place = Run(run)
    folder = place.search(target)
    if (folder / "search.jsonl").exists() and not resume:
        raise RunError(
            f"{folder}: a search is there already; add --resume to go on with it"
        )
    if spark is not None:
        from tfmm import spark_context

        spark_context.check(spark)

    with place.lock():
        from tfmm import stages
        from tfmm.search import outcome
        from tfmm.search.loop import Search
        from tfmm.search.trial import without_test

        hearing = bounds.hearing(settings, target, tried)
        for one in hearing:
            stages.check_heard(place, one, target)
        products = stages.start(place, settings, catalog, images, sys.argv)
        spaces.check_labels(measure, len(products.label_names), str(hparams))
        for one in hearing:
            stages.fit_heard(place, one, products, target)
        with (
            replacing(folder / "catalog.pickle") as partial,
            partial.open("wb") as file,
        ):
            pickle.dump(without_test(products), file)
        what = Search(
            settings=settings,
            target=target,
            algorithm=algorithm,
            seed=settings.seed if seed is None else seed,
            measure=measure,
            heard=sorted({x for one in hearing for x in one.starts_from(target)}),
            cuts_validation=cuts_validation,
            run=place.path.absolute(),
            catalog=(folder / "catalog.pickle").absolute(),
            source=(str(catalog.absolute()), str(images.absolute()) if images else ""),
            folder=folder.absolute(),
        )
        print(outcome.search(what, trials, parallel or 1, spark, time_budget, resume))


if __name__ == "__main__":
    command_line(search, "python -m tfmm.search")
