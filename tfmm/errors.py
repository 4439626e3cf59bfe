"""The error tree, and how a command tells an error.

    TfmmError
    ├── CatalogError      a table, its columns, rows, labels or images
    ├── ExperimentError   an experiment file or a `--set`
    ├── RunError          a run directory: locked, stale, truncated, not one at all
    ├── ExportError       a run that cannot be exported, a bundle that fails its check
    └── SparkError        a Spark that cannot be reached, or that fails at its work

A command prints a `TfmmError` as one line and exits with 2. Anything else that
reaches the top is a bug and shows its traceback. Layers and losses raise
`ValueError`, as Keras does.
"""

import difflib
import sys
from collections.abc import Callable, Iterable
from typing import Any


class TfmmError(Exception):
    """Something the user can put right; its text is one line."""


class CatalogError(TfmmError):
    """A catalog that cannot be used as it is."""


class ExperimentError(TfmmError):
    """An experiment that cannot be run as it is."""


class RunError(TfmmError):
    """A run directory that cannot be used as it is."""


class ExportError(TfmmError):
    """A run that cannot be exported, or an export that fails its check."""


class SparkError(TfmmError):
    """A Spark that cannot be used as it is."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the nearest option, or the options.

    Example:
    >>> did_you_mean("learing_rate", ["learning_rate", "dropout"])
    "; did you mean 'learning_rate'?"
    >>> did_you_mean("zebra", ["train", "test"])
    "; expected one of 'train', 'test'"
    """
    options = list(options)
    near = difflib.get_close_matches(word, options, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; expected one of {', '.join(map(repr, options))}" if options else ""


def command_line(command: Callable[..., Any], name: str) -> None:
    """Runs `command` as a command line made from its signature, and exits.

    Exit status 0, or 2 after one line on standard error for a wrong flag or a
    `TfmmError`. Typer itself would frame a wrong flag over several lines.

    Args:
        command: A function annotated for Typer.
        name: How the command is called, as in `python -m tfmm.fit`.
    """
    import typer

    app = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.command()(command)
    # Typer carries a click of its own, whose private name this is not.
    wrong_usage: Any = typer.BadParameter.__base__
    try:
        status = app(standalone_mode=False, prog_name=name)
    except wrong_usage as error:
        message = " ".join(error.format_message().split())
        print(f"{name}: {message} (see {name} --help)", file=sys.stderr)
        sys.exit(2)
    except TfmmError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    if status == 130:  # which Typer makes of an interrupt
        print(f"{name}: interrupted", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)
