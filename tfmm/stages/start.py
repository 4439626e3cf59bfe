"""The start of all work in a run: the catalog is audited and written down."""

from pathlib import Path

from tfmm import audit
from tfmm.catalog import Catalog
from tfmm.errors import RunError
from tfmm.experiment import Experiment
from tfmm.run import Run
from tfmm.stages.checks import check


def start(
    run: Run,
    settings: Experiment,
    catalog: Path,
    images: Path | None,
    command: list[str],
) -> Catalog:
    """Audits a catalog and makes a run of it, or goes on in the run that it made.

    Args:
        run: Locked by the caller.
        settings: The experiment.
        catalog: The file.
        images: Folder of its images; its own by default.
        command: The command line, for `run.json`.

    Returns:
        The catalog, with unusable images turned into missing ones.

    Raises:
        CatalogError: If a limit of the audit is passed, or a split is empty.
        RunError: If the run was made from another catalog.
    """
    seen = audit.inspect(settings, catalog, images, run)
    products = seen.catalog
    check(settings, products)
    about = {
        "path": str(catalog),
        "sha256": products.sha256,
        "fingerprint": products.fingerprint(),
    }
    if run.exists:
        before = run.read_info()["catalog"]["fingerprint"]
        if before != about["fingerprint"]:
            raise RunError(
                f"{run.path}: made from another catalog, other images or other splits "
                f"than {catalog} now gives; choose a new --run"
            )
    audit.examine(run, settings, seen)
    audit.write(run, products)
    run.write_start(settings, command, about)
    return products
