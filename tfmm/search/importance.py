"""How much each parameter matters, as far as the trials tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from tfmm.search.journal import Record
from tfmm.search.parameters import Parameter

# With fewer a forest would tell of chance alone.
FEWEST_TRIALS = 15
TREES = 200
SHUFFLES = 20


@dataclass(frozen=True)
class Importance:
    """What a forest makes of the trials.

    Attributes:
        shares: Parameter -> its share of the importance, adding up to 1.
        explained: Share of the variance that the forest foretells of trials left out
            of a tree (R2); at most 1, below 0 if the mean foretells more.
        trials: It was fitted on.
        trees: It has.
    """

    shares: Mapping[str, float]
    explained: float
    trials: int
    trees: int = TREES


def importance(
    parameters: Sequence[Parameter], trials: Sequence[Record]
) -> Importance | None:
    """Permutation importance of the parameters in a random forest.

    Trials that failed do not count; one that was stopped early counts with the best
    that it had reached. A value is a number, or the place of an option
    among the options; one that was not drawn is told by a number below all.

    Returns:
        `None` for fewer than `FEWEST_TRIALS`, or without any difference between them.

    Reference:
    - [Breiman, 2001](https://doi.org/10.1023/A:1010933404324), section 10.
    """
    done = [x for x in trials if x.value is not None]
    values = np.array([x.value for x in done])
    if len(done) < FEWEST_TRIALS or not parameters or np.ptp(values) == 0:
        return None
    # Ranks: one trial that went wrong must not be all that is explained.
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)
    features = np.stack(
        [_column(x, [record.number for record in done]) for x in parameters], axis=1
    )
    forest = RandomForestRegressor(TREES, oob_score=True, random_state=0, n_jobs=1)
    forest.fit(features, ranks)
    found = permutation_importance(
        forest, features, ranks, n_repeats=SHUFFLES, random_state=0, n_jobs=1
    )
    weights = np.maximum(found.importances_mean, 0.0)
    total = weights.sum()
    if not total:
        return None
    names = [x.name for x in parameters]
    shares = dict(zip(names, (weights / total).tolist(), strict=True))
    return Importance(shares, float(forest.oob_score_), len(done))


def _column(parameter: Parameter, numbers: Sequence[int]) -> np.ndarray:
    values = [parameter.of(number) for number in numbers]
    if parameter.is_number:
        known = [float(x) for x in values if x is not None]
        if parameter.is_log and min(known, default=1.0) > 0:
            values = [None if x is None else np.log(x) for x in values]
            known = [float(np.log(x)) for x in known]
        lowest = min(known, default=0.0) - 1.0
        return np.array([lowest if x is None else float(x) for x in values])
    places = {text: place for place, text in enumerate(sorted(set(map(str, values))))}
    return np.array([float(places[str(x)]) for x in values])
