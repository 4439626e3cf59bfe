"""What to try next: hyperopt's TPE, or chance. The only importer of hyperopt.

Nothing is kept between two suggestions: each is drawn from the seed, its number and
the trials that it may know of. So a search that was killed goes on with the very
suggestions that it would have had.

Reference:
- [Bergstra et al., 2011](https://papers.nips.cc/paper/4443), section 4; paper B, 5.2.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hyperopt import JOB_STATE_DONE, Trials, hp, rand, tpe
from hyperopt.base import Domain

from tfmm.search import space as spaces
from tfmm.search.space import Point
from tfmm.settings.search import (
    Branches,
    Choice,
    Constant,
    Entries,
    Items,
    Node,
    Range,
    Space,
)

# Draws of one suggestion until settings come up that were not tried yet.
DRAWS = 20

# It tells of every suggestion at the level of information.
logging.getLogger("hyperopt").setLevel(logging.WARNING)


class Suggestions:
    """Suggests points of a space.

    Args:
        space: What may be drawn.
        algorithm: One of `ALGORITHMS`.
        seed: Of the search.
        startup_trials: Trials known before TPE takes over from chance.
    """

    def __init__(self, space: Space, algorithm: str, seed: int, startup_trials: int):
        self._space = space
        self._is_random = algorithm == "random"
        self._seed = seed
        self._startup_trials = startup_trials
        self._domain = Domain(lambda drawn: 0.0, _expression(space))

    def next(
        self, number: int, known: Sequence[tuple[int, Point, float | None]]
    ) -> Point:
        """The point to try as trial `number`.

        Settings that a known trial had are drawn again, as long as others come up.

        Args:
            number: From 0.
            known: Of earlier trials number, point, and what is to be made small;
                `None` of a trial that failed, which TPE takes as infinitely bad.
        """
        tried = [spaces.values_of(self._space, point) for _, point, _ in known]
        point: Point = {}
        for draw in range(DRAWS):
            entropy = np.random.SeedSequence((self._seed, number, draw))
            point = self._draw(number, known, int(entropy.generate_state(1)[0] >> 1))
            if spaces.values_of(self._space, point) not in tried:
                break
        return point

    def _draw(
        self, number: int, known: Sequence[tuple[int, Point, float | None]], seed: int
    ) -> Point:
        trials = self._trials(known)
        if self._is_random:
            found = rand.suggest([number], self._domain, trials, seed)
        else:
            found = tpe.suggest(
                *([number], self._domain, trials, seed),
                n_startup_jobs=self._startup_trials,
                verbose=False,
            )
        drawn = found[0]["misc"]["vals"]
        return {
            label: float(value[0]) for label, value in sorted(drawn.items()) if value
        }

    def _trials(self, known: Sequence[tuple[int, Point, float | None]]) -> Trials:
        trials = Trials()
        labels = self._domain.params
        docs = []
        for number, point, loss in known:
            failed = loss is None or not math.isfinite(loss)
            result: dict[str, Any] = {"status": "fail" if failed else "ok"}
            if not failed:
                result["loss"] = loss
            misc = {
                "tid": number,
                "cmd": self._domain.cmd,
                "workdir": self._domain.workdir,
                "idxs": {x: [number] if x in point else [] for x in labels},
                "vals": {x: [point[x]] if x in point else [] for x in labels},
            }
            docs += trials.new_trial_docs([number], [None], [result], [misc])
            docs[-1]["state"] = JOB_STATE_DONE
        trials.insert_trial_docs(docs)
        trials.refresh()
        return trials


def _expression(space: Space) -> Mapping[str, Any]:
    """The space as hyperopt knows one."""
    expressions: dict[str, Any] = {}
    for name, node in space.items():
        if isinstance(node, Branches):
            options = [
                {key: _of_node(x, f"{name}.{i}.{key}") for key, x in option.items()}
                for i, option in enumerate(node.options)
            ]
            expressions[name] = hp.choice(name, options)
        else:
            expressions[name] = _of_node(node, name)
    return expressions


def _of_node(node: Node, label: str) -> Any:
    if isinstance(node, Range):
        low, high = spaces.drawn_between(node)
        if node.is_log:
            return hp.loguniform(label, math.log(low), math.log(high))
        return hp.uniform(label, low, high)
    if isinstance(node, Choice):
        options = [_of_node(x, f"{label}.{i}") for i, x in enumerate(node.options)]
        return hp.choice(label, options)
    if isinstance(node, Items):
        return [_of_node(x, f"{label}.{i}") for i, x in enumerate(node.items)]
    if isinstance(node, Entries):
        return {key: _of_node(x, f"{label}.{key}") for key, x in node.entries.items()}
    assert isinstance(node, Constant)
    return None
