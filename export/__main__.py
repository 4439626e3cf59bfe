"""python -m export: writes MODELS/NAME/N from a run."""

from pathlib import Path
from typing import Annotated

import typer

from tfmm.errors import ExportError, command_line


def export(
    run: Annotated[Path, typer.Argument(help="A run that tfmm.fit made.")],
    to: Annotated[Path, typer.Option(help="Folder of the model's versions.")],
    head: Annotated[
        str | None, typer.Option(help="Head or tower; [export]'s by default.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=1, max=2**63 - 1, help="The next one by default."),
    ] = None,
) -> None:
    """Writes one SavedModel that takes raw strings and image bytes."""
    from tfmm.run import Run

    place = Run(run)
    place.require()
    names = [x.name for x in to.iterdir()] if to.is_dir() else []
    taken = [int(name) for name in names if name.isdecimal()]
    if version in taken:
        raise ExportError(f"{to / str(version)}: is there already; versions are kept")
    target = to / str(version or max(taken, default=0) + 1)

    from export import bundle

    bundle.write(place, head, target)
    print(target)


if __name__ == "__main__":
    command_line(export, "python -m export")
