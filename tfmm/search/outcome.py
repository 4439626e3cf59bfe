"""A whole search: its journal, its pool, the refit, and what is left at the end."""

import importlib.metadata
import textwrap
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import tomli_w

from tfmm import __version__, results
from tfmm.errors import RunError
from tfmm.progress import progress, say
from tfmm.run import Run, replacing
from tfmm.search import loop, page, stopping
from tfmm.search import space as spaces
from tfmm.search.journal import Journal, Record
from tfmm.search.loop import REFIT, Search, shown
from tfmm.search.pool import Pool, processes


def search(
    what: Search,
    trials: int,
    parallel: int,
    spark: str | None,
    time_budget: float,
    resume: bool,
) -> Path:
    """Searches, fits the best once more if it was found on a part of the products.

    Returns:
        `search.html`, beside which `best.toml` lies.

    Raises:
        RunError: If there is another search, or no trial was any good.
    """
    with _pool(what, parallel, spark) as pool:
        # After the pool: where there is none, no search has begun.
        journal = Journal(what.folder / "search.jsonl", _about(what, parallel), resume)
        reason = spaces.first_point(what.settings, what.target)[1]
        if reason:
            say(f"{what.target}: TPE is not told of the first trial: {reason}")
        with progress(f"search {what.target}", trials) as show:
            loop.run(what, journal, pool, trials, time_budget, show)
        done = [x for number, x in sorted(journal.records.items()) if number >= 0]
        best = stopping.best(done)
        if best is None:
            first = done[0].outcome["reason"] if done else "none, for want of time"
            raise RunError(
                f"{what.folder}: none of {len(done)} trials went through; the first: "
                f"{first}; to begin again remove that folder"
            )
        options, _ = spaces.of(what.settings, what.target)
        refit = journal.records.get(REFIT)
        known = refit is not None and refit.value is not None
        if options.data_rate < 1.0 and not (known and refit.values == best.values):
            _refit(what, journal, pool, best)
    file = what.folder / "best.toml"
    with replacing(file) as partial:
        partial.write_text(_best(what, journal, best), encoding="utf-8")
    page.write(what, journal, what.folder / "search.html")
    say(
        f"{what.target}: best {what.measure} {shown(best.value or 0.0, what.measure)} "
        f"on validation, trial {best.number} of {len(done)}: {file}"
    )
    return what.folder / "search.html"


def _about(what: Search, parallel: int) -> dict[str, object]:
    """What must be the same for a search to go on."""
    run = Run(what.run)
    whole = what.settings.model_dump(mode="json")
    whole.pop("export")
    searches = whole.pop("search")
    return {
        "target": what.target,
        "algorithm": what.algorithm,
        "seed": what.seed,
        "parallel": parallel,
        "measure": what.measure,
        "table": searches[what.target],
        "experiment": whole,
        "catalog": run.read_info()["catalog"]["fingerprint"],
        "heard": [results.weights_hash(run, x) for x in what.heard],
    }


def _pool(
    what: Search, parallel: int, spark: str | None
) -> AbstractContextManager[Pool]:
    fresh = what.is_whole or what.settings.sees_products(what.target)
    if spark is None:
        return processes(parallel, fresh)
    from tfmm.search.cluster import cluster

    return cluster(spark, parallel, fresh)


def _refit(what: Search, journal: Journal, pool: Pool, best: Record) -> None:
    options, _ = spaces.of(what.settings, what.target)
    say(f"{what.target}: trial {best.number} once more, on all products")
    pool.submit(what.task(REFIT, best.values, 1.0, [], 10 * options.trial_seconds))
    _, outcome = pool.wait()
    at = max(x.at for x in journal.records.values()) + outcome.seconds
    record = Record(REFIT, best.point, best.values, outcome.as_dict(), round(at, 2))
    journal.add(record)
    if record.value is not None:
        say(f"refit: {what.measure} {shown(record.value, what.measure)}")
    else:
        say(f"refit: {record.status}: {outcome.reason}")


def _best(what: Search, journal: Journal, best: Record) -> str:
    """The experiment with the best settings, and how they were found."""
    done = [x for number, x in journal.records.items() if number >= 0]
    counts = {
        status: sum(x.status == status for x in done)
        for status in ("done", "stopped", "failed")
    }
    options, _ = spaces.of(what.settings, what.target)
    first = journal.records.get(0)
    share = (
        f" on {options.data_rate:.0%} of the products" if options.data_rate < 1 else ""
    )
    lines = [
        f"{what.target}: trial {best.number} of {len(done)}{share}: {what.measure} "
        f"{shown(best.value or 0.0, what.measure)} on validation.",
    ]
    if first is not None and first.value is not None:
        lines.append(f"As written: {shown(first.value, what.measure)}.")
    if REFIT in journal.records and journal.records[REFIT].value is not None:
        value = shown(journal.records[REFIT].value or 0.0, what.measure)
        lines.append(f"Fitted once more on all products: {value}.")
    lines.append(
        f"Searched by {what.algorithm} with seed {what.seed} "
        f"({counts['done']} trials done, {counts['stopped']} stopped early, "
        f"{counts['failed']} failed; {max(x.at for x in done):.0f} s), "
        f"{datetime.now(UTC):%Y-%m-%d}, tfmm {__version__}, hyperopt "
        f"{importlib.metadata.version('hyperopt')}."
    )
    lines.append(
        "Run: python -m tfmm.fit best.toml --catalog CATALOG --run RUN --resume"
    )
    head = "\n".join(
        textwrap.fill(line, 88, initial_indent="# ", subsequent_indent="# ")
        for line in lines
    )
    tried = spaces.with_values(what.settings, what.target, best.values, "best")
    return f"{head}\n\n{tomli_w.dumps(spaces.written(tried))}"
