"""`search.html`: how the search went and what it learned."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfmm import page
from tfmm.page import Cell, Fold, Pictures, Section, Table, Tile, Words
from tfmm.search import drawing, stopping
from tfmm.search import space as spaces
from tfmm.search.importance import FEWEST_TRIALS, Importance, importance
from tfmm.search.journal import Journal, Record
from tfmm.search.loop import REFIT, Search, shown
from tfmm.search.parameters import Parameter, parameters
from tfmm.search.trial import CURVES

# Trials that stand in the table before it has to be opened.
SHOWN_TRIALS = 20


def write(what: Search, journal: Journal, path: Path) -> None:
    """Draws the page of a search.

    Args:
        what: What is searched.
        journal: Its trials.
        path: The file.
    """
    trials = [x for number, x in sorted(journal.records.items()) if number >= 0]
    refit = journal.records.get(REFIT)
    _, space = spaces.of(what.settings, what.target)
    drawn = parameters(what.settings, what.target, space, trials)
    weights = importance(drawn, trials)
    sections = [
        _history(what, trials),
        _parameters(what, drawn, trials, weights),
        _trials(what, drawn, trials),
        _failures(trials),
    ]
    page.write(
        path,
        "tfmm.search",
        "page.html.jinja",
        target=what.target,
        sentence=_sentence(what, trials),
        tiles=_tiles(what, trials, refit, weights),
        sections=[x for x in sections if x is not None],
        best=_best(what, trials),
    )


def _leader(trials: Sequence[Record]) -> Record:
    leader = stopping.best(trials)
    assert leader is not None  # a search without one has no page
    return leader


def _sentence(what: Search, trials: Sequence[Record]) -> str:
    options, _ = spaces.of(what.settings, what.target)
    leader, first = _leader(trials), trials[0]
    share = ""
    if options.data_rate < 1:
        share = f", learned from {options.data_rate:.0%} of the others"
    found = (
        f"The best of {len(trials)} trials is number {leader.number}: "
        f"{what.measure} {shown(_value(leader), what.measure)} on the products of "
        f"validation{share}."
    )
    if first.value is None:
        return f"{found} The experiment as written failed."
    if leader is first:
        return f"{found} That is the experiment as written; nothing better was found."
    gained = abs(_value(leader) - first.value)
    return (
        f"{found} The experiment as written reaches "
        f"{shown(first.value, what.measure)}, {gained:.4f} less good. Both are "
        "measured on the products by which the best was chosen, which flatters it."
    )


def _tiles(
    what: Search,
    trials: Sequence[Record],
    refit: Record | None,
    weights: Importance | None,
) -> list[Tile]:
    leader = _leader(trials)
    counts = {
        status: sum(x.status == status for x in trials)
        for status in ("done", "stopped", "failed")
    }
    ways = {"tpe": "suggested by TPE", "random": "drawn at random"}
    tiles = [
        Tile(
            shown(_value(leader), what.measure),
            f"best {what.measure}",
            f"trial {leader.number}",
            "good",
            "#best",
        )
    ]
    if trials[0].value is not None:
        value = shown(trials[0].value, what.measure)
        tiles.append(Tile(value, "as written", "trial 0"))
    if refit is not None:
        failed = refit.value is None
        figure = "failed" if failed else shown(_value(refit), what.measure)
        note = refit.outcome["reason"] if failed else "the best settings once more"
        tiles.append(Tile(figure, "on all products", note, "look" if failed else ""))
    tiles.append(
        Tile(
            str(len(trials)),
            f"trials, {ways[what.algorithm]}",
            f"{counts['done']} done, {counts['stopped']} stopped early, "
            f"{counts['failed']} failed",
            "look" if counts["failed"] > len(trials) / 4 else "",
            "#trials",
        )
    )
    seconds = max(x.at for x in trials)
    tiles.append(Tile(_time(seconds), "of searching", f"seed {what.seed}"))
    if weights is not None and weights.shares:
        name = max(weights.shares, key=lambda x: weights.shares[x])
        tiles.append(
            Tile(
                f"{weights.shares[name]:.0%}",
                f"of the importance is {name}'s",
                "",
                "",
                "#parameters",
            )
        )
    return tiles


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _value(record: Record) -> float:
    assert record.value is not None
    return record.value


def _history(what: Search, trials: Sequence[Record]) -> Section:
    pictures = [drawing.history(trials, what.measure)]
    lead = (
        "The line is the best so far: if it still climbs at the end, more trials may "
        "pay; if it was flat for long, they will not."
    )
    if any(x.outcome["curve"] for x in trials):
        curve = what.measure if what.measure in CURVES else "loss"
        pictures.append(drawing.curves(trials, curve))
        lead += (
            " A trial counts with the epoch that its monitor chose, which need not be "
            "the best of its curve."
        )
    return Section("history", "How the search went", lead, [Pictures(pictures)])


def _parameters(
    what: Search,
    drawn: Sequence[Parameter],
    trials: Sequence[Record],
    weights: Importance | None,
) -> Section | None:
    told = [x for x in drawn if len({str(v) for v in x.values if v is not None}) > 1]
    if not told:
        return None
    blocks: list[page.Block] = []
    if weights is None:
        blocks.append(
            Words(
                f"With fewer than {FEWEST_TRIALS} trials that did not fail, nothing is "
                "said of how much each parameter matters."
            )
        )
    else:
        blocks.append(drawing.importance(weights))
        blocks.append(Words(_of_importance(weights)))
    blocks.append(drawing.parallel(told, trials, what.measure))
    blocks.append(Pictures([drawing.parameter(x, trials, what.measure) for x in told]))
    return Section(
        "parameters",
        "What the parameters do",
        "Narrow the range of what matters to where the good trials lie, and leave the "
        "rest alone. Green is the best trial, red crosses are trials that failed.",
        blocks,
    )


def _of_importance(weights: Importance) -> str:
    return (
        "Importance: how much worse a random forest of "
        f"{weights.trees} trees foretells the {weights.trials} trials that it knows "
        "when the values of a parameter are shuffled, as a share of all. It explains "
        f"{max(weights.explained, 0.0):.0%} of what differs between trials that it was "
        "not shown; where that is little, so is what this tells."
    )


def _trials(
    what: Search, drawn: Sequence[Parameter], trials: Sequence[Record]
) -> Section:
    order = sorted(
        trials,
        key=lambda x: (x.status != "done", np.inf if x.value is None else -x.value),
    )
    best = _leader(trials).number
    table = _table(what, drawn, order[:SHOWN_TRIALS], best)
    blocks: list[page.Block] = [table]
    if len(order) > SHOWN_TRIALS:
        rest = _table(what, drawn, order[SHOWN_TRIALS:], best)
        blocks.append(Fold(f"The other {len(rest.rows)} trials", [rest]))
    return Section(
        "trials",
        "The trials",
        "From the best on. Those that are within a product or two of the best are as "
        "good as it: choose the simplest.",
        blocks,
    )


def _table(
    what: Search, drawn: Sequence[Parameter], trials: Sequence[Record], best: int
) -> Table:
    columns = ["Trial", what.measure, "Status", "Seconds", "Epochs"]
    columns += [x.name for x in drawn]
    rows = []
    for record in trials:
        outcome = record.outcome
        value = None if record.value is None else shown(record.value, what.measure)
        epochs = outcome["epochs"] or len(outcome["curve"]) or None
        about = "as written" if record.number == 0 else outcome["where"]
        rows.append(
            [
                Cell(str(record.number), about),
                Cell(value or "", order=record.value),
                Cell(record.status, words=True),
                Cell(f"{outcome['seconds']:.1f}"),
                Cell("" if epochs is None else str(epochs)),
                *(_cell(x, record) for x in drawn),
            ]
        )
    marked = next((i for i, x in enumerate(trials) if x.number == best), None)
    return Table("Trials", columns, rows, marked)


def _cell(parameter: Parameter, record: Record) -> Cell:
    value = parameter.of(record.number)
    if value is None:
        return Cell()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(told(value), order=value if number else None)


def told(value: Any) -> str:
    """A value of a parameter, short.

    Example:
    >>> told(0.00123456), told([100, 50]), told("adam")
    ('0.001235', '[100, 50]', 'adam')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _failures(trials: Sequence[Record]) -> Section | None:
    failed = [x for x in trials if x.status == "failed"]
    if not failed:
        return None
    reasons: dict[str, list[int]] = {}
    for record in failed:
        reasons.setdefault(record.outcome["reason"], []).append(record.number)
    rows = [
        [
            Cell(str(len(numbers))),
            Cell(reason, words=True),
            Cell(", ".join(map(str, numbers[:10])), words=True),
        ]
        for reason, numbers in sorted(reasons.items(), key=lambda x: -len(x[1]))
    ]
    return Section(
        "failures",
        "What failed",
        "A failed trial costs its time and tells TPE to stay away. The folder of each, "
        "trials/NUMBER, has what it printed.",
        [Table("Failures", ["Trials", "Reason", "Which"], rows)],
    )


def _best(what: Search, trials: Sequence[Record]) -> Mapping[str, str]:
    """The best settings, as they stand in `best.toml`."""
    leader = _leader(trials)
    model = spaces.with_values(what.settings, what.target, leader.values, "best")
    return {
        name: json.dumps(spaces.value_at(model, what.target, name))
        for name in spaces.keys_of(spaces.of(what.settings, what.target)[1])
    }
