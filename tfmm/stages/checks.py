"""What only the catalog or the machine can tell, found out before any work."""

from tfmm import devices
from tfmm.catalog import Catalog
from tfmm.errors import ExperimentError
from tfmm.experiment import Experiment
from tfmm.losses import loss_for
from tfmm.settings import Training


def check(settings: Experiment, catalog: Catalog) -> None:
    """Stops, before any work, at what only the catalog or the machine can tell.

    Raises:
        ExperimentError: If a weight of a loss names an unknown label, or a tower asks
            for more devices than there are.
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
