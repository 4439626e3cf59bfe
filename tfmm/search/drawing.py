"""The pictures of a search."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, NullFormatter

from tfmm.page import Picture
from tfmm.page.drawing import BLUE, GREEN, GREY, INK, RED, percents, picture, short
from tfmm.search import stopping
from tfmm.search.importance import Importance
from tfmm.search.journal import Record
from tfmm.search.parameters import Parameter
from tfmm.search.trial import SMALL_IS_GOOD

WIDE = 900


def _shown(values: Any, measure: str) -> np.ndarray:
    """As a person reads the measure: a loss is not negative."""
    return np.asarray(values, float) * (-1 if measure in SMALL_IS_GOOD else 1)


def _valued(trials: Sequence[Record], status: str) -> list[Record]:
    return [x for x in trials if x.status == status and x.value is not None]


def _values(trials: Sequence[Record], measure: str) -> np.ndarray:
    return _shown([x.value for x in trials if x.value is not None], measure)


def _window(axes: Any, values: np.ndarray, measure: str) -> None:
    """Shows where most values are; a few that are far off would flatten the rest."""
    low, high = np.quantile(values, [0.1, 0.9])
    room = max(1.5 * (high - low), 1e-4)
    best = values.min() if measure in SMALL_IS_GOOD else values.max()
    edges = sorted((low - room, high + room))
    bottom = max(values.min(), min(edges[0], best))
    top = min(values.max(), max(edges[1], best))
    margin = max(0.06 * (top - bottom), 1e-4)
    axes.set_ylim(bottom - margin, top + margin)


def history(trials: Sequence[Record], measure: str) -> Picture:
    """Each trial's value, and the best so far."""

    def paint(axes: Any) -> None:
        for status, color, label in (
            ("done", BLUE, "done"),
            ("stopped", GREY, "stopped early"),
        ):
            some = _valued(trials, status)
            values = _shown([x.value for x in some], measure)
            axes.plot(
                [x.number for x in some],
                *(values, "o"),
                color=color,
                markersize=4,
                label=label if some else None,
            )
        done = _valued(trials, "done")
        best = np.maximum.accumulate([x.value for x in done])
        numbers = [x.number for x in done]
        axes.step(
            [*numbers, max(x.number for x in trials)],
            _shown([*best, best[-1]], measure),
            where="post",
            color=GREEN,
            label="best so far",
        )
        _window(axes, _values(trials, measure), measure)
        failed = [x.number for x in trials if x.status == "failed"]
        if failed:
            bottom = axes.get_ylim()[0]
            axes.plot(
                failed,
                [bottom] * len(failed),
                "x",
                color=RED,
                label="failed",
                clip_on=False,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("trial")
        axes.set_ylabel(measure)
        axes.legend(loc="best")

    done = _valued(trials, "done")
    return picture(
        "history",
        f"{measure} of {len(done)} trials that were done, and the best so far",
        paint,
        title="Trials and the best so far",
    )


def curves(trials: Sequence[Record], measure: str) -> Picture:
    """The validation curve of each trial, as the median rule sees it."""
    leader = stopping.best(trials)

    def paint(axes: Any) -> None:
        for record in trials:
            curve = np.array(record.outcome["curve"])
            if not len(curve):
                continue
            is_best = leader is not None and record.number == leader.number
            color = GREEN if is_best else GREY if record.status == "stopped" else BLUE
            axes.plot(
                range(1, len(curve) + 1),
                np.abs(np.maximum.accumulate(curve)),
                color=color,
                alpha=1.0 if is_best else 0.35,
                linewidth=2.2 if is_best else 1.0,
                zorder=3 if is_best else 1,
            )
        reached = [
            x
            for record in trials
            for x in np.abs(np.maximum.accumulate(record.outcome["curve"] or [np.nan]))
        ]
        _window(axes, np.array(reached)[~np.isnan(reached)], measure)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"best {measure} so far")

    return picture(
        "curves",
        "The best validation figure so far by epoch, a line a trial; the best trial is "
        "green, those that were stopped early are grey",
        paint,
        title="Trainings: the best is green, stopped ones are grey",
    )


def importance(weights: Importance) -> Picture:
    """A bar for each parameter."""
    order = sorted(weights.shares.items(), key=lambda x: x[1])

    def paint(axes: Any) -> None:
        names = [short(name) for name, _ in order]
        shares = [share for _, share in order]
        axes.barh(names, shares, color=BLUE, height=0.65)
        for place, share in enumerate(shares):
            axes.text(share, place, f" {share:.0%}", va="center", fontsize=10)
        axes.set_xlim(0, 1.15 * max(shares))
        axes.grid(axis="y", visible=False)
        percents(axes.xaxis)

    told = ", ".join(f"{name} {share:.0%}" for name, share in reversed(order))
    return picture(
        "importance",
        f"Importance: {told}",
        paint,
        title="How much each parameter matters",
        height=28 * len(order) + 60,
    )


def _places(
    parameter: Parameter, trials: Sequence[Record]
) -> tuple[np.ndarray, list[str]]:
    """Where a parameter's values stand on an axis, and the names of its options."""
    values = [parameter.of(x.number) for x in trials]
    if parameter.is_number:
        return np.array([np.nan if x is None else float(x) for x in values]), []
    options = sorted({str(x) for x in values if x is not None})
    places = [np.nan if x is None else options.index(str(x)) for x in values]
    return np.array(places, float), [short(x) for x in options]


def parameter(drawn: Parameter, trials: Sequence[Record], measure: str) -> Picture:
    """The measure against one parameter."""
    leader = stopping.best(trials)
    places, options = _places(drawn, trials)

    def paint(axes: Any) -> None:
        known = ~np.isnan(places)
        shift = np.zeros(len(trials))
        if options:  # so that trials of one option do not hide each other
            shift = np.random.default_rng(0).uniform(-0.18, 0.18, len(trials))
        for status, color in (("stopped", GREY), ("done", BLUE)):
            some = [
                i
                for i, x in enumerate(trials)
                if x.status == status and x.value is not None and known[i]
            ]
            values = _shown([trials[i].value for i in some], measure)
            axes.plot(
                *((places + shift)[some], values, "o"),
                color=color,
                markersize=4,
                alpha=0.8,
            )
        _window(axes, _values(trials, measure), measure)
        bottom = axes.get_ylim()[0]
        failed = [i for i, x in enumerate(trials) if x.status == "failed" and known[i]]
        axes.plot(
            *(places[failed], [bottom] * len(failed), "x"), color=RED, clip_on=False
        )
        best = [i for i, x in enumerate(trials) if x is leader and known[i]]
        values = _shown([trials[i].value for i in best], measure)
        axes.plot((places + shift)[best], values, "o", color=GREEN, markersize=8)
        if options:
            axes.set_xticks(range(len(options)), options)
            if sum(map(len, options)) > 40:
                axes.tick_params(axis="x", rotation=25)
            axes.set_xlim(-0.6, len(options) - 0.4)
        elif drawn.is_log and np.nanmin(places) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        elif (places[known] == np.round(places[known])).all():
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(measure)

    return picture(
        f"parameter-{drawn.name}",
        f"{measure} of each trial against its {drawn.name}",
        paint,
        title=drawn.name,
        height=230,
    )


def parallel(
    drawn: Sequence[Parameter], trials: Sequence[Record], measure: str
) -> Picture:
    """All parameters side by side, a line a trial, coloured by its value."""
    done = _valued(trials, "done")
    values = np.array([x.value for x in done])
    ranks = np.argsort(np.argsort(values)) / max(len(values) - 1, 1)
    leader = stopping.best(trials)
    shown = [x for x in drawn if any(x.of(y.number) is not None for y in done)]

    def paint(axes: Any) -> None:
        columns = []
        for place, one in enumerate(shown):
            at, options = _places(one, done)
            is_log = not options and one.is_log and np.nanmin(at) > 0
            scaled = np.log(at) if is_log else at
            low, high = np.nanmin(scaled), np.nanmax(scaled)
            columns.append((scaled - low) / (high - low or 1.0))
            axes.axvline(place, color=INK, linewidth=0.7, alpha=0.5)
            ends = (
                [options[0], options[-1]] if options else [np.nanmin(at), np.nanmax(at)]
            )
            for y, end, align in ((-0.03, ends[0], "top"), (1.03, ends[1], "bottom")):
                text = end if isinstance(end, str) else f"{end:.3g}"
                axes.text(place, y, short(text), ha="center", va=align, fontsize=8)
        for i in np.argsort(ranks):
            is_best = done[i] is leader
            axes.plot(
                range(len(shown)),
                [column[i] for column in columns],
                color=GREEN if is_best else BLUE if ranks[i] > 0.75 else GREY,
                alpha=1.0 if is_best else 0.25 + 0.5 * ranks[i],
                linewidth=2.4 if is_best else 1.0,
                marker="o",
                markersize=3,
            )
        names = [short(x.name) for x in shown]
        axes.set_xticks(range(len(shown)), names)
        axes.tick_params(axis="x", length=0, pad=16)
        if len(shown) > 5:
            axes.tick_params(axis="x", rotation=20)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_ylim(-0.12, 1.12)

    return picture(
        "parallel",
        "The parameters side by side, a line a trial that was done: the best green, "
        f"the better quarter by {measure} blue, the others grey; a gap where an option "
        "without that parameter was drawn",
        paint,
        title="All parameters: best green, better quarter blue, others grey",
        width=WIDE,
        height=340,
    )
