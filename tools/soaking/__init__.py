"""The parts of `python tools/soak.py`."""

from tfmm.errors import TfmmError

# The bundle whose answers are known, by its place: 0, or 1 for that of `--second`.
FIRST, SECOND = 0, 1


class SoakError(TfmmError):
    """A soak that cannot be begun; one line of text."""
