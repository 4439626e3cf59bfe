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
    image_budget: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Look at no greater share of the images than this."
        ),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Skip images where that loses no more than this."
        ),
    ] = None,
    all_images: Annotated[
        bool, typer.Option("--all-images", help="Look at every image.")
    ] = False,
) -> None:
    """Writes one SavedModel that takes raw strings and image bytes.

    Which images it looks at is chosen on validation; without an option by [export].
    """
    from tfmm.run import Run

    place = Run(run)
    place.require()
    asked = [image_budget is not None, max_loss is not None, all_images]
    if sum(asked) > 1:
        raise ExportError(
            "--image-budget, --max-loss and --all-images exclude one another"
        )
    names = [x.name for x in to.iterdir()] if to.is_dir() else []
    taken = [int(name) for name in names if name.isdecimal()]
    if version in taken:
        raise ExportError(f"{to / str(version)}: is there already; versions are kept")
    target = to / str(version or max(taken, default=0) + 1)

    from export import bundle

    settings = place.read_experiment().export
    if settings is not None and head in (None, settings.head) and not any(asked):
        image_budget, max_loss = settings.image_budget, settings.max_loss
    choice = bundle.write(
        place, head, target, image_budget=image_budget, max_loss=max_loss
    )
    if choice is not None:
        print("\n".join(choice.lines()))
    print(target)


if __name__ == "__main__":
    command_line(export, "python -m export")
