"""What only the catalog or the machine can tell, found out before any work."""

import numpy as np

from tfmm import devices
from tfmm.catalog import Catalog
from tfmm.errors import CatalogError, ExperimentError
from tfmm.experiment import Experiment
from tfmm.losses import loss_for
from tfmm.settings import Training
from tfmm.splits import folds_of


def check(settings: Experiment, catalog: Catalog) -> None:
    """Stops, before any work, at what only the catalog or the machine can tell.

    Raises:
        ExperimentError: If a weight of a loss names an unknown label, or a tower asks
            for more devices than there are.
        CatalogError: If a fold has no product that a tower could be asked about.
    """
    here = devices.available()
    for name in (*settings.towers, *settings.heads):
        own = settings.model_settings(name)
        if isinstance(own, Training):
            targets = catalog.targets(catalog.rows("train"))
            try:
                loss_for(settings.catalog.task, own, catalog.label_names, targets)
            except ExperimentError as error:
                table = "towers" if name in settings.towers else "heads"
                raise ExperimentError(f"[{table}.{name}] {error}") from None
        if getattr(own, "devices", 1) > len(here):
            raise ExperimentError(
                f"[towers.{name}] devices = {own.devices} is more than this machine "
                f"has. Received: {', '.join(here)}"
            )
    for name in filter(settings.has_out_of_fold, settings.towers):
        _check_folds(settings, catalog, name)


def _check_folds(settings: Experiment, catalog: Catalog, name: str) -> None:
    folds = settings.catalog.folds
    rows = catalog.rows("train")
    rows = rows[catalog.present(settings.towers[name].modality, rows)]
    counts = np.bincount(folds_of(catalog.groups[rows], folds), minlength=folds)
    if not counts.all():
        raise CatalogError(
            f"{catalog.path}: of {folds} folds of the training groups, "
            f"{int((counts == 0).sum())} have no product for {name}; expected fewer "
            "folds or more groups"
        )
