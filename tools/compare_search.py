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
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tfmm import experiment, outputs, results
from tfmm import fit as fitting
from tfmm.errors import RunError, command_line
from tfmm.options import CatalogFile, Changes, Hparams, ImagesFolder
from tfmm.report.said import read
from tfmm.run import Run, replacing
from tfmm.search import space as spaces
from tfmm.search.trial import SMALL_IS_GOOD, measures_of
from tfmm.settings.search import ALGORITHMS
from tfmm.stages.apart import Apart

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
    """The best value of a search, how it got there, and what became of the trials.

    Raises:
        RunError: If it has another number of trials, or none that went through.
    """
    records = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    own = sorted((x for x in records if x["number"] >= 0), key=lambda x: x["number"])
    states = [x["outcome"]["status"] for x in own]
    if len(own) != trials or "done" not in states:
        raise RunError(
            f"{path}: {states.count('done')} of {len(own)} trials went through; "
            f"expected {trials} trials, of which some do"
        )
    done = [
        x["outcome"]["value"] if status == "done" else -np.inf
        for x, status in zip(own, states, strict=True)
    ]
    so_far = np.maximum.accumulate(done)
    return {
        "written": done[0] if states[0] == "done" else None,
        "best": max(done),
        "number": int(np.argmax(done)),
        # How good it is all the way, and not at the end alone; from the first one done.
        "mean_best": float(np.mean(so_far[np.isfinite(so_far)])),
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


def _copied(base: Run, to: Path, heard: Sequence[str]) -> Run:
    """The copy of the run at `to`, made unless it is there."""
    copy = Run(to)
    if not copy.exists:
        part = to.with_name(f"{to.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for own in base.path.iterdir():
            if own.is_dir() and own.name not in OWN:
                shutil.copytree(own, part / own.name)
            elif own.name not in OWN:
                shutil.copy(own, part)
        part.rename(to)
    for name in heard:
        if results.weights_hash(copy, name) != results.weights_hash(base, name):
            raise RunError(f"{to}: a copy of another run than {base.path}")
    return copy


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
    base = Run(run)
    base.require()
    places = run.resolve(), to.resolve()
    if places[0].is_relative_to(places[1]) or places[1].is_relative_to(places[0]):
        raise RunError(f"--to {to}: expected a folder apart from the run {run}")
    place = ["--catalog", str(catalog)]
    place += ["--images", str(images)] if images else []
    changes = [word for change in set_ or [] for word in ("--set", change)]
    compared = {}
    for name in target:
        found: dict[str, list[dict[str, Any]]] = {x: [] for x in ALGORITHMS}
        for seed in range(seeds):
            for algorithm in ALGORITHMS:
                heard = settings.starts_from(name)
                copy = _copied(base, to / f"{algorithm}_{seed}", heard)
                call = [sys.executable, "-m", "tfmm.search", str(hparams), *place]
                call += ["--run", str(copy.path), "--target", name, *changes]
                call += ["--trials", str(trials), "--parallel", str(parallel)]
                call += ["--algorithm", algorithm, "--seed", str(seed), "--resume"]
                if subprocess.run(call, stdout=subprocess.DEVNULL).returncode:
                    raise RunError(f"{copy.path}: the search of {name!r} failed")
                told = of_journal(copy.search(name) / "search.jsonl", trials)
                fitting.fit(
                    *(copy.search(name) / "best.toml", catalog, copy.path, images),
                    resume=True,
                    only=["towers", "heads"],
                )
                told["test"] = on_test(copy, name, measures[name])
                found[algorithm].append(told)
                print(f"{name} {algorithm} {seed}: {json.dumps(told)}", flush=True)
        means = summary(found)
        compared[name] = {
            "measure": measures[name],
            "means": means,
            "searches": found,
        }
        print(f"{name}: {json.dumps(means)}", flush=True)
    text = json.dumps(compared, indent=1, allow_nan=False) + "\n"
    with replacing(to / "compared.json") as partial:
        partial.write_text(text, encoding="utf-8")
    print(to / "compared.json")


if __name__ == "__main__":
    command_line(compare_search, "python tools/compare_search.py")
