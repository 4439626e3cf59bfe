"""Command lines that say what is wrong in one line."""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn


class FlagError(ValueError):
    """A command line that cannot be followed; one line of text."""


class FlagParser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises instead of printing its usage.

    Flags are never abbreviated: an abbreviation would change its meaning on the
    day that a flag is added.

    Args:
        prog: str. The command, for the help.
        description: str. For the help.

    Example:
    >>> parser = FlagParser("serve", "Serves.")
    >>> _ = parser.add_argument("--port")
    >>> parser.parse(["--prot=1"])
    Traceback (most recent call last):
    serving.flags.FlagError: unknown flag --prot; did you mean --port?
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses a whole command line.

        Args:
            arguments: Sequence of str.

        Returns:
            The values by flag.

        Raises:
            FlagError: For an unknown flag, naming the nearest, a bad value or a
                missing flag.
        """
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            name = unknown[0].split("=")[0]
            near = difflib.get_close_matches(name, self._option_string_actions, n=1)
            hint = f"did you mean {near[0]}?" if near else "--help lists the flags."
            raise FlagError(f"unknown flag {name}; {hint}")
        return options

    def error(self, message: str) -> NoReturn:
        """Raises `FlagError`; argparse calls this for what it cannot parse."""
        raise FlagError(message)
