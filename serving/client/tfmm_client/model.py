"""Which model is asked, and what it says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Model:
    """Which model, and which of its versions.

    Attributes:
        name: str.
        version: int or None. A version by its number.
        version_label: str or None. A version by its label. With neither, the
            highest version that is up.
    """

    name: str
    version: int | None = None
    version_label: str | None = None


@dataclass(frozen=True)
class TensorInfo:
    """One input or output.

    Attributes:
        dtype: str. TensorFlow's name in lower case: "string", "float", "int64".
        shape: tuple of int or None. -1 is any size; None is any rank.
    """

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Signature:
    """The inputs and the outputs of a signature, by name."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Metadata:
    """The signatures of one version of a model, by name."""

    version: int
    signatures: Mapping[str, Signature]


@dataclass(frozen=True)
class Reply:
    """The answer to one request.

    Attributes:
        outputs: dict from output name to lists in lists, the batch outermost.
        version: int or None. The version that answered, None where the server
            does not tell (REST, unless a version was asked for).
    """

    outputs: dict[str, Any]
    version: int | None


@dataclass(frozen=True)
class VersionStatus:
    """How one version of a model is.

    Attributes:
        version: int.
        state: str. "START", "LOADING", "AVAILABLE", "UNLOADING" or "END".
        error: str. Why it could not be loaded; empty if nothing went wrong.
    """

    version: int
    state: str
    error: str


def dtype_from_enum(name: str) -> str:
    """The dtype that an enum value stands for.

    Example:
    >>> dtype_from_enum("DT_FLOAT")
    'float'
    """
    return name.removeprefix("DT_").lower()
