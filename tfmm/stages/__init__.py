"""The stages that fit and search both call: the start, one tower, one head."""

from tfmm import results
from tfmm.errors import RunError
from tfmm.stages import keeping
from tfmm.stages.answers import write_outputs_of
from tfmm.stages.checks import check
from tfmm.stages.heads import fit_head
from tfmm.stages.start import start
from tfmm.stages.towers import fit_tower

__all__ = [
    "check",
    "check_heard",
    "fit_head",
    "fit_heard",
    "fit_tower",
    "start",
    "write_outputs_of",
]


def fit_heard(run, settings, catalog, name: str) -> None:
    """Fits all that a model is made from, unless it is there.

    Args:
        run, settings, catalog: As `fit_head` takes them.
        name: A tower or a head; itself it is not fitted.
    """
    for heard in _heard(settings, name):
        fit = fit_tower if heard in settings.towers else fit_head
        fit(run, settings, catalog, heard)


def check_heard(run, settings, name: str) -> None:
    """Stops where `fit_heard` would fit anew what a run holds and lose that.

    Args:
        run, settings, name: As in `fit_heard`; the run need not be there.

    Raises:
        RunError: If a model that `name` is made from was made from other settings.
    """
    for heard in _heard(settings, name) if run.exists else ():
        made_from = keeping.made_from(run, heard)
        if made_from not in ("", results.model_fingerprint(run, settings, heard)):
            raise RunError(
                f"{run.path}: {heard} was made from other settings than it now has; "
                "python -m tfmm.fit with --resume fits it anew, or choose a new --run"
            )


def _heard(settings, name: str) -> list[str]:
    """All that a model is made from, each after what itself is made from."""
    heard: set[str] = set()
    new = settings.starts_from(name)
    while new:
        heard |= set(new)
        new = [x for y in new for x in settings.starts_from(y) if x not in heard]
    ordered = [*settings.towers_in_order(), *settings.heads_in_order()]
    return [x for x in ordered if x in heard]
