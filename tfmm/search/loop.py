"""The search: trial after trial, each suggested from those before it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmm.errors import ExperimentError
from tfmm.experiment import Experiment
from tfmm.progress import say
from tfmm.search import space as spaces
from tfmm.search import stopping
from tfmm.search.journal import Journal, Record
from tfmm.search.pool import Pool
from tfmm.search.space import Point
from tfmm.search.suggest import Suggestions
from tfmm.search.trial import CURVES, SMALL_IS_GOOD, Outcome, Task

REFIT = -1


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        settings: The experiment as written.
        target: The model.
        algorithm: `tpe` or `random`.
        seed: Of the suggestions.
        measure: What is made large.
        heard: The models that trials hear, whichever their settings name.
        cuts_validation: Whether some trials are fitted on a part of `validation`, and
            so all are measured on the rest.
        run: The run.
        catalog: The pickled products.
        source: The catalog's file and its images' folder or `""`, for trials that
            start from there.
        folder: Where the search leaves its files.
    """

    settings: Experiment
    target: str
    algorithm: str
    seed: int
    measure: str
    heard: list[str]
    cuts_validation: bool
    run: Path
    catalog: Path
    source: tuple[str, str]
    folder: Path

    @property
    def is_whole(self) -> bool:
        """Whether trials make anew all that the model hears."""
        return spaces.is_whole(self.settings, self.target)

    def task(
        self,
        number: int,
        values: Mapping[str, Any],
        data_rate: float,
        floors: list[float | None],
        seconds: float,
    ) -> Task:
        """What trial `number` is to do; `ExperimentError` if its values clash."""
        source = f"trial {number}"
        tried = spaces.with_values(self.settings, self.target, values, source)
        # All trials of a search, so that they can be compared: the one as written too.
        is_whole = self.is_whole or _differs_elsewhere(
            self.settings, tried, self.target
        )
        if is_whole and data_rate < 1.0:
            rate = {"catalog.data_rate": data_rate * tried.catalog.data_rate}
            tried = spaces.with_values(tried, self.target, rate, source)
        name = "refit" if number == REFIT else f"{number:04d}"
        return Task(
            number=number,
            data=spaces.written(tried),
            target=self.target,
            measure=self.measure,
            cuts_validation=self.cuts_validation,
            data_rate=data_rate,
            floors=floors,
            curve=self.measure if self.measure in CURVES else "loss",
            seconds=seconds,
            folder=str(self.folder / "trials" / name),
            run=str(self.run),
            catalog=str(self.catalog),
            source=self.source,
            is_whole=is_whole,
        )


def _differs_elsewhere(written: Experiment, tried: Experiment, target: str) -> bool:
    """Whether what the model hears has to be made anew."""

    def rest(settings: Experiment) -> dict[str, Any]:
        data = settings.model_dump(mode="json")
        for table in ("towers", "heads"):
            data[table].pop(target, None)
        for table in ("search", "export"):
            data.pop(table)
        # How the target's own logits are calibrated is the trial's affair, unless it
        # hears calibrated ones.
        if target in settings.towers:
            data.pop("calibration")
        return data

    return rest(written) != rest(tried)


def run(
    search: Search,
    journal: Journal,
    pool: Pool,
    trials: int,
    time_budget: float,
    show: Callable[..., None],
) -> None:
    """Searches until there are `trials` trials, or one of the limits ends it.

    With one trial at a time each is suggested from all before it. With several, trial
    `n` is suggested from those up to `n - lag`, whichever others have ended by then:
    so what is suggested depends on the seed alone and not on who was faster.

    Args:
        search: What is searched.
        journal: What is known so far; trials are added as they end.
        pool: Where trials are done.
        trials: How many there shall be, the first one as written.
        time_budget: Seconds after which no trial is begun; counted over all resumes.
        show: Called with the number of trials that have ended, and with the best.
    """
    options, space = spaces.of(search.settings, search.target)
    suggestions = Suggestions(
        space, search.algorithm, search.seed, options.startup_trials
    )
    lag, what = lag_of(pool.slots), search.measure
    numbered = [x for x in journal.records.values() if x.number >= 0]
    before = max((x.at for x in numbered), default=0.0)
    started = time.monotonic()
    given: dict[int, tuple[Point | None, dict[str, Any]]] = {}
    number = 0

    def elapsed() -> float:
        return round(before + time.monotonic() - started, 2)

    def known(number: int) -> list[Record]:
        return journal.trials(range(max(0, number - lag + 1)))

    def add(number: int, outcome: dict[str, Any]) -> None:
        point, values = given.pop(number)
        point = None if point is None else dict(point)
        journal.add(Record(number, point, values, outcome, elapsed()))
        _tell(search, journal, number)
        leader = stopping.best(list(journal.records.values()))
        best = "" if leader is None else f", best {shown(leader.value or 0.0, what)}"
        show(sum(x >= 0 for x in journal.records), best)

    show(len(numbered))
    while True:
        while len(given) < pool.slots and number < trials:
            if number in journal.records:
                number += 1
                continue
            needed = range(max(0, number - lag + 1))
            if not all(x in journal.records for x in needed):
                break
            earlier = known(number)
            in_vain = stopping.is_in_vain(list(journal.records.values()))
            if in_vain and given:
                break  # one of them may go through
            ended = ""
            if in_vain:
                ended = "all failed"
            elif elapsed() >= time_budget and number > 0:  # as written it is tried
                ended = f"the time budget of {time_budget:g} s is over"
            elif stopping.is_stale(earlier, options.stale_trials):
                ended = f"nothing better in {options.stale_trials} trials"
            if ended:
                say(f"{search.target}: ends after {number} trials: {ended}")
                trials = number
                break
            point, values = _next(search, suggestions, number, earlier)
            given[number] = (point, values)
            # Where some are fitted on a part of `validation`, curves are of others.
            is_on = options.median_stop and not search.cuts_validation
            floors = stopping.floors(earlier, is_on)
            try:
                task = search.task(
                    *(number, values, options.data_rate, floors),
                    options.trial_seconds,
                )
            except ExperimentError as error:
                add(number, _refused(str(error)))
            else:
                pool.submit(task)
            number += 1
        if not given:
            return
        ended, outcome = pool.wait()
        add(ended, outcome.as_dict())


def _next(
    search: Search, suggestions: Suggestions, number: int, known: list[Record]
) -> tuple[Point | None, dict[str, Any]]:
    if number == 0:
        return spaces.first_point(search.settings, search.target)[0], {}
    _, space = spaces.of(search.settings, search.target)
    seen = [
        (x.number, x.point, None if x.value is None else -x.value)
        for x in known
        if x.point is not None
    ]
    point = suggestions.next(number, seen)
    return point, spaces.values_of(space, point)


def _refused(reason: str) -> dict[str, Any]:
    return Outcome("failed", reason=reason).as_dict()


def _tell(search: Search, journal: Journal, number: int) -> None:
    """One line on a trial and on the best so far."""
    record = journal.records[number]
    leader = stopping.best(list(journal.records.values()))
    found = f"trial {number}: {record.status}"
    if record.value is not None:
        found += f", {search.measure} {shown(record.value, search.measure)}"
    if record.outcome["reason"]:
        found += f" ({record.outcome['reason']})"
    if leader is not None and leader.value is not None:
        found += f"; best {shown(leader.value, search.measure)} of {leader.number}"
    say(found)


def shown(value: float, measure: str) -> str:
    """A value as a person reads the measure: a loss is not negative."""
    return f"{-value if measure in SMALL_IS_GOOD else value:.4f}"


def lag_of(slots: int) -> int:
    """How many trials back the youngest is that a suggestion may know of."""
    return max(1, 2 * slots - 1)
