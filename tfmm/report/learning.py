"""How training went, from the log that it leaves."""

import csv
import math
from pathlib import Path

from tfmm.errors import RunError


def learning(log: Path) -> dict[str, list[float | None]] | None:
    """The columns of a model's log.

    Args:
        log: `RUN/models/MODEL/log.csv`.

    Returns:
        Column -> a number for each epoch, None where it has no finite one; None
        without a log.

    Raises:
        RunError: If it is no such table.
    """
    if not log.exists():
        return None
    try:
        with log.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        columns = list(rows[0]) if rows else []
        return {
            column: [_number(column, row[column]) for row in rows] for column in columns
        }
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{log}: damaged: {error}; fit the model again") from None


def _number(column: str, cell: str) -> float | None:
    if cell == "":
        return None
    if column in ("epoch", "stage"):
        return int(cell)
    value = float(f"{float(cell):.6g}")
    return value if math.isfinite(value) else None
