"""Work on the rows of large arrays in blocks, on all processors at once."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Numbers of a block: 1 MB as float64, so that what is made on the way stays in the
# cache and in memory that the process has already.
BLOCK_NUMBERS = 2**17


def over_rows(function: Callable[[slice], T], shape: tuple[int, ...]) -> list[T]:
    """Calls a function with slices that together are all rows of an array.

    NumPy lets other threads run while it computes, so the blocks share the processors.
    A function that writes may write into its own rows alone.

    Args:
        function: Of rows.
        shape: Of the array, `(n, ...)`.

    Returns:
        What the function returned, in the order of the rows.

    Example:
    >>> over_rows(lambda rows: rows.stop - rows.start, (3, 2))
    [3]
    """
    size = 1
    for length in shape[1:]:
        size *= length
    step = max(1, BLOCK_NUMBERS // max(size, 1))
    parts = [
        slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)
    ]
    if len(parts) < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(function, parts))
