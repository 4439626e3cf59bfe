"""SHA-256 of every file of a bundle."""

import hashlib
from pathlib import Path

from export import EXTRA, SUMS_FILE


def write(bundle: Path) -> None:
    """Writes `assets.extra/sha256.txt`, in the form that `sha256sum --check` reads.

    Args:
        bundle: A version directory, whole but for this file.
    """
    lines = [f"{_sum(bundle / name)}  {name}\n" for name in files(bundle)]
    (bundle / EXTRA / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def files(bundle: Path) -> list[str]:
    """Every file of a bundle but the one with the sums, relative to it."""
    return sorted(
        path.relative_to(bundle).as_posix()
        for path in bundle.rglob("*")
        if path.is_file() and path != bundle / EXTRA / SUMS_FILE
    )


def differing(bundle: Path) -> list[str]:
    """Files that are not what was exported, are missing, or were not there.

    Raises:
        OSError: If there are no sums to compare with.
        ValueError: If they are not readable.
    """
    text = (bundle / EXTRA / SUMS_FILE).read_text(encoding="utf-8")
    written = {}
    for line in text.splitlines():
        digest, name = line.split("  ", 1)
        written[name] = digest
    here = {name: _sum(bundle / name) for name in files(bundle)}
    names = sorted(written.keys() | here.keys())
    return [name for name in names if written.get(name) != here.get(name)]


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
