"""Options that commands have in common."""

from pathlib import Path
from typing import Annotated

import typer

Hparams = Annotated[Path, typer.Argument(help="Experiment file (TOML).")]
CatalogFile = Annotated[Path, typer.Option(help="Table of products.")]
ImagesFolder = Annotated[
    Path | None, typer.Option(help="Folder of the images; the table's by default.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value over the file's; may be repeated."),
]
