"""The stages that fit and search both call: the start, one tower, one head."""

from tfmm.stages.answers import write_outputs_of
from tfmm.stages.checks import check
from tfmm.stages.heads import fit_head
from tfmm.stages.start import start
from tfmm.stages.towers import fit_tower

__all__ = ["check", "fit_head", "fit_heard", "fit_tower", "start", "write_outputs_of"]


def fit_heard(run, settings, catalog, name: str) -> None:
    """Fits all that a model is made from, unless it is there.

    Args:
        run, settings, catalog: As `fit_head` takes them.
        name: A tower or a head; itself it is not fitted.
    """
    heard: set[str] = set()
    new = settings.starts_from(name)
    while new:
        heard |= set(new)
        new = [x for y in new for x in settings.starts_from(y) if x not in heard]
    for tower in filter(heard.__contains__, settings.towers_in_order()):
        fit_tower(run, settings, catalog, tower)
    for head in filter(heard.__contains__, settings.heads_in_order()):
        fit_head(run, settings, catalog, head)
