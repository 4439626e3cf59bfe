"""What stops a bundle at its gate."""


class Failure(Exception):
    """A check that a bundle does not pass; its text is one line."""


def first_line(error: Exception) -> str:
    """What an error says, without the rest."""
    return (str(error).splitlines() or [type(error).__name__])[0]
