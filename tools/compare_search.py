"""TPE against random search: as many trials each, from several seeds.

    python tools/compare_search.py HPARAMS.toml --catalog catalog.csv --run runs/a \
        --to compared --target policy --target boosted [--trials 50] [--seeds 5]

Each search is `python -m tfmm.search` in a copy of the run, `TO/ALGORITHM_SEED`; one
that is there is gone on with. After it the best settings are fitted as a user would do
it, and asked about `test`. Prints a line for each search and, for each target, means
over the seeds with what TPE has more, seed by seed; the same goes to
`TO/compared.json`. Times mean something only where nothing else runs.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tfmm import experiment, outputs
from tfmm import fit as fitting
from tfmm.errors import RunError, command_line
from tfmm.options import CatalogFile, Changes, Hparams, ImagesFolder
from tfmm.report.said import read
from tfmm.run import Run, replacing
from tfmm.search import space as spaces
from tfmm.search.trial import SMALL_IS_GOOD, measures_of
from tfmm.stages.apart import Apart

ALGORITHMS = ("tpe", "random")
# Of a run, what a copy of it is better without.
OWN = ("search", "cache", "lock")


def on_test(run: Run, target: str, measure: str) -> float:
    """What a fitted model reaches on `test`; the larger the better."""
    settings = run.read_experiment()
    said = read(run, settings, target, "test")
    targets, _ = outputs.read_targets(run.outputs, "test")
    told = Apart({}, targets, said.probabilities, said.assigned)
    value = measures_of(settings.catalog.task, told)[measure]
    return -value if measure in SMALL_IS_GOOD else value


def of_journal(path: Path, trials: int) -> dict[str, Any]:
    """The best value of a search, its curve, and what became of the trials."""
    records = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    own = sorted((x for x in records if x["number"] >= 0), key=lambda x: x["number"])
    if len(own) < trials:
        raise RunError(f"{path}: {len(own)} trials of {trials}")
    done = [
        x["outcome"]["value"] if x["outcome"]["status"] == "done" else -np.inf
        for x in own
    ]
    states = [x["outcome"]["status"] for x in own]
    return {
        "written": done[0],
        "best": max(done),
        "number": int(np.argmax(done)),
        # How good it is all the way, and not at the end alone.
        "mean_best": float(np.mean(np.maximum.accumulate(done))),
        "seconds": max(x["at"] for x in own),
        **{x: states.count(x) for x in ("done", "stopped", "failed")},
    }


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Means over the seeds, and what TPE has more in each."""
    keys = ("best", "mean_best", "test", "seconds")
    column = {
        (name, key): np.array([x[key] for x in rows])
        for name, rows in found.items()
        for key in keys
    }
    told: dict[str, Any] = {
        name: {key: float(column[name, key].mean()) for key in keys} for name in found
    }
    for key in ("best", "mean_best", "test"):
        more = column["tpe", key] - column["random", key]
        told[f"more_{key}"] = more.tolist()
    return told


def _searched(
    call: list[str], run: Run, base: Path, target: str, trials: int
) -> dict[str, Any]:
    if not run.path.exists():
        part = run.path.with_name(f"{run.path.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for own in base.iterdir():
            if own.is_dir() and own.name not in OWN:
                shutil.copytree(own, part / own.name)
            elif own.name not in OWN:
                shutil.copy(own, part)
        part.rename(run.path)
    subprocess.run([*call, "--resume"], check=True, stdout=subprocess.DEVNULL)
    return of_journal(run.search(target) / "search.jsonl", trials)


def compare_search(
    hparams: Hparams,
    catalog: CatalogFile,
    run: Annotated[Path, typer.Option(help="A fitted run; it stays as it is.")],
    to: Annotated[Path, typer.Option(help="Folder for the copies of the run.")],
    target: Annotated[list[str], typer.Option(help="A model; may be repeated.")],
    trials: Annotated[int, typer.Option(min=1, help="Of each search.")] = 50,
    seeds: Annotated[int, typer.Option(min=1, help="How many: 0, 1, ...")] = 5,
    parallel: Annotated[int, typer.Option(min=1, help="Trials at a time.")] = 2,
    images: ImagesFolder = None,
    set_: Changes = None,
) -> None:
    """Searches models by TPE and by chance, fits the best ones, and compares."""
    settings = experiment.load(hparams, set_ or [])
    measures = {
        name: spaces.measure_of(
            spaces.with_ready_space(settings, name, str(hparams)), name
        )
        for name in target
    }
    if not Run(run).exists:
        raise RunError(f"{run}: not a run; expected what tfmm.fit --run made")
    place = ["--catalog", str(catalog)]
    place += ["--images", str(images)] if images else []
    changes = [word for change in set_ or [] for word in ("--set", change)]
    compared = {}
    for name in target:
        found: dict[str, list[dict[str, Any]]] = {x: [] for x in ALGORITHMS}
        for seed in range(seeds):
            for algorithm in ALGORITHMS:
                copy = Run(to / f"{algorithm}_{seed}")
                call = [sys.executable, "-m", "tfmm.search", str(hparams), *place]
                call += ["--run", str(copy.path), "--target", name, *changes]
                call += ["--trials", str(trials), "--parallel", str(parallel)]
                call += ["--algorithm", algorithm, "--seed", str(seed)]
                told = _searched(call, copy, run, name, trials)
                fitting.fit(
                    *(copy.search(name) / "best.toml", catalog, copy.path, images),
                    resume=True,
                    only=["towers", "heads"],
                )
                told["test"] = on_test(copy, name, measures[name])
                found[algorithm].append(told)
                print(f"{name} {algorithm} {seed}: {json.dumps(told)}", flush=True)
        compared[name] = {"measure": measures[name], **summary(found), **found}
        print(f"{name}: {json.dumps(summary(found))}", flush=True)
    with replacing(to / "compared.json") as partial:
        partial.write_text(json.dumps(compared, indent=1) + "\n", encoding="utf-8")
    print(to / "compared.json")


if __name__ == "__main__":
    command_line(compare_search, "python tools/compare_search.py")
