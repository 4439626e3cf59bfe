"""What each tower does for the first label of a head."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfmm import outputs, results
from tfmm.exhibits.shap import explain
from tfmm.experiment import Experiment
from tfmm.head_data import array_batches
from tfmm.progress import say
from tfmm.run import Run
from tfmm.settings import BoostedTrees
from tfmm.stages import answers

SAMPLE = 1_000  # products that the figures over all are means of
# A product walks down every tree for its SHAP values. Fewer are drawn where a head has
# so many trees that this would take over some ten seconds.
TREES_WALKED = 5_000_000
PRODUCTS_AT_ONCE = 256
DIGITS = 4
LEAVE_ONE_OUT = "leave_one_tower_out"

# A model, what is told of it, and product -> what is told of the two.
Told = tuple[str, dict[str, Any], dict[int, dict[str, Any]]]


@dataclass(frozen=True)
class Reasons:
    """What speaks for the first label of `m` products.

    Attributes:
        kind: `shap` or `leave_one_tower_out`.
        asked: int `(m,)`, the products, rising.
        labels: int `(m,)`, their first labels.
        of: Tower, of `shap` model that the head hears -> float `(m,)`.
        falls: Of `shap`, what `of` would be of the other kind, if it is known.
        beside: More of the same, of no one model.
        alone: What is told product by product only.
    """

    kind: str
    asked: np.ndarray
    labels: np.ndarray
    of: Mapping[str, np.ndarray]
    falls: Mapping[str, np.ndarray] = field(default_factory=dict)
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)
    alone: Mapping[str, np.ndarray] = field(default_factory=dict)

    def told(
        self, rows: np.ndarray, drawn: np.ndarray
    ) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
        """Over the products `drawn`, and of each of `rows`."""
        inside = np.isin(self.asked, drawn)

        def mean(values: np.ndarray) -> float:
            return round(float(np.abs(values[inside]).mean()), DIGITS)

        of_all: dict[str, Any] = {"kind": self.kind, "products": int(inside.sum())}
        if inside.any():
            of_all["of"] = {name: mean(values) for name, values in self.of.items()}
            of_all |= {key: mean(values) for key, values in self.beside.items()}
            if self.falls:
                falls = {name: mean(values) for name, values in self.falls.items()}
                of_all[LEAVE_ONE_OUT] = falls
        of_each = {}
        for place in np.flatnonzero(np.isin(self.asked, rows)):

            def here(parts: Mapping[str, np.ndarray], place=place) -> dict[str, float]:
                return {k: round(float(x[place]), DIGITS) for k, x in parts.items()}

            of_each[int(self.asked[place])] = {
                "label": int(self.labels[place]),
                "of": here(self.of),
                **here(self.beside),
                **here(self.alone),
                **({LEAVE_ONE_OUT: here(self.falls)} if self.falls else {}),
            }
        return of_all, of_each


def reasons_of(
    run: Run, settings: Experiment, split: str, names: list[str], rows: np.ndarray
) -> Iterator[Told]:
    """`reasons` of every head of two towers or more; docs/report.md lists them.

    Args:
        run: A run.
        settings: Its experiment.
        split: As in the outputs store.
        names: Models whose outputs are there.
        rows: int `(m,)`, the products to tell of one by one.

    Raises:
        RunError: If a model or outputs are missing, damaged or stale.
    """
    (size, *_), _, _ = outputs.targets_info(run.outputs, split)
    generator = np.random.default_rng(settings.seed)
    drawn = generator.choice(size, min(SAMPLE, size), replace=False)
    for name in names:
        if name in settings.towers or len(settings.towers_of(name)) < 2:
            continue
        told = None
        if isinstance(settings.heads[name], BoostedTrees):
            told = _shap(run, settings, split, name, rows, drawn)
        if told is None and _can_hide(settings, name):
            told = _leave_one_out(run, settings, split, name, rows, drawn)
        if told is not None:
            yield told


def _seen(
    run: Run, settings: Experiment, split: str, name: str, asked: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the products `asked` those that a head sees, rising, and its probabilities."""
    stored = results.read_outputs(run, settings, name, split)
    asked = asked[np.asarray(stored.present)[asked]]
    some = stored.take(asked)
    said = results.probabilities(run, settings, name, some.logits, some.present)
    return asked, said


def _shap(
    run: Run,
    settings: Experiment,
    split: str,
    name: str,
    rows: np.ndarray,
    drawn: np.ndarray,
) -> Told | None:
    """What LightGBM says of the trees' raw scores; None if its trees were not kept."""
    model, file = results.load_model(run, name), run.model_file(name)
    trees = model.get_layer("trees")
    if not trees.source:
        say(
            f"{name}: no SHAP values, since LightGBM's own trees were not kept when it "
            f"was fitted; delete {file.parent} and run tfmm.fit --resume"
        )
        return None
    drawn = drawn[: max(1, TREES_WALKED // trees.num_trees)]
    asked, said = _seen(run, settings, split, name, np.union1d(rows, drawn))
    if not len(asked):
        return None
    labels = said.argmax(axis=1)
    heard = {
        source: results.calibrated(
            *(run, settings, source),
            results.read_outputs(run, settings, source, split).take(asked),
        )
        for source in settings.inputs_of(name)
    }
    head = settings.heads[name]
    assert isinstance(head, BoostedTrees)
    found = explain(model, head.form, heard, labels, str(file))
    falls = {}
    if _can_hide(settings, name):
        falls = _falls(run, settings, split, name, asked, said)
    reasons = Reasons(
        kind="shap",
        asked=asked[found.asked],
        labels=labels[found.asked],
        of=dict(zip(heard, found.of.T, strict=True)),
        falls={tower: values[found.asked] for tower, values in falls.items()},
        beside=found.beside,
        alone={"bias": found.bias, "score": found.score},
    )
    of_all, of_each = reasons.told(rows, drawn)
    of_all["largest_gap"] = found.largest_gap
    return name, {"reasons": of_all}, of_each


def _can_hide(settings: Experiment, name: str) -> bool:
    """Whether every tower under a head can be hidden by itself.

    Joint networks leave outputs without modalities, not without towers.
    """
    return all(
        len({settings.towers[x].modality for x in settings.towers_of(source)})
        == len(settings.towers_of(source))
        for source in settings.sources_of(name)
    )


def _leave_one_out(
    run: Run,
    settings: Experiment,
    split: str,
    name: str,
    rows: np.ndarray,
    drawn: np.ndarray,
) -> Told | None:
    """What leaving out each tower says of a head."""
    asked, said = _seen(run, settings, split, name, np.union1d(rows, drawn))
    if not len(asked):
        return None
    falls = _falls(run, settings, split, name, asked, said)
    reasons = Reasons(LEAVE_ONE_OUT, asked, said.argmax(axis=1), falls)
    of_all, of_each = reasons.told(rows, drawn)
    return name, {"reasons": of_all}, of_each


def _falls(
    run: Run,
    settings: Experiment,
    split: str,
    name: str,
    asked: np.ndarray,
    said: np.ndarray,
) -> dict[str, np.ndarray]:
    """Tower -> float `(m,)`: how much less probable a head's first label is without.

    Args:
        run: A run.
        settings: Its experiment.
        split: As in the outputs store.
        name: The head.
        asked: int `(m,)`, products.
        said: float `(m, C)`, its probabilities with everything there.
    """
    labels, each = said.argmax(axis=1), np.arange(len(asked))
    without = _without(run, settings, split, name, asked)
    return {
        tower: said[each, labels].astype(float) - without(tower)[each, labels]
        for tower in settings.towers_of(name)
    }


def _without(
    run: Run, settings: Experiment, split: str, name: str, asked: np.ndarray
) -> Callable[[str], np.ndarray]:
    """A function from a tower to what a head says without it, float32 `(m, C)`."""
    predict = None
    if not settings.sees_products(name):
        predict = answers.fusion_predictor(run, settings, name)

    def without(tower: str) -> np.ndarray:
        modality = frozenset([settings.towers[tower].modality])
        if predict is None:
            said, _ = results.read_case(run, settings, name, split, modality)
            return said[asked]
        heard = {
            source: answers.heard(
                *(run, settings, source, split),
                modality if tower in settings.towers_of(source) else frozenset(),
                asked,
            )
            for source in settings.sources_of(name)
        }
        parts = [predict(batch) for batch in array_batches(heard, PRODUCTS_AT_ONCE)]
        logits = np.concatenate([part["logits"] for part in parts])
        present = np.any([x["present"] for x in heard.values()], axis=0)
        return results.probabilities(run, settings, name, logits, present)

    return without
