"""The outputs store: what every model says of every split, on disk.

outputs/MODEL/SPLIT/ids.npy         (n,)    strings
outputs/MODEL/SPLIT/features.npy    (n, d)  float32, zeros where absent
outputs/MODEL/SPLIT/logits.npy      (n, C)  float32, zeros where absent
outputs/MODEL/SPLIT/present.npy     (n,)    bool
outputs/MODEL/SPLIT/store.json      the fingerprint, the shapes, a sum of each file
outputs/MODEL/SPLIT.cases/          the same with modalities hidden: CASE.npz
outputs/targets/SPLIT.npy           (n, C) float32 or (n,) int32; past 1,000
                                    labels of multi_label SPLIT.npz (SciPy CSR)
outputs/targets/SPLIT.json          the catalog's fingerprint, and a sum
outputs/targets/SPLIT.groups.npy    (n,)    int32, the same for one group
"""

import functools
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import scipy.sparse

from tfmm.errors import RunError
from tfmm.run import read_json, replacing, write_json

DENSE_LABELS = 1_000
ARRAYS = ("ids", "features", "logits", "present")


@dataclass(frozen=True)
class Outputs:
    """What one model says of `n` products; memory-mapped, not to be written to.

    Attributes:
        ids: `(n,)` strings.
        features: float32 `(n, d)`.
        logits: float32 `(n, C)`, not calibrated.
        present: bool `(n,)`: whether the model had anything to look at. Rows that are
            not present are zeros.
    """

    ids: np.ndarray
    features: np.ndarray
    logits: np.ndarray
    present: np.ndarray

    def take(self, rows: np.ndarray) -> "Outputs":
        """What it says of some products, `rows` `(m,)`; read into memory."""
        return Outputs(**{key: getattr(self, key)[rows] for key in ARRAYS})


def write(
    directory: Path,
    fingerprint: str,
    ids: np.ndarray,
    present: np.ndarray,
    batches: Iterable[dict[str, np.ndarray]],
) -> None:
    """Writes a model's outputs of a split, batch by batch; all of them or none.

    Args:
        directory: `outputs/MODEL/SPLIT`.
        fingerprint: Of model, experiment and catalog.
        ids: `(n,)` strings.
        present: bool `(n,)`.
        batches: `features` `(b, d)` and `logits` `(b, C)` of the products that are
            present, in order.

    Raises:
        ValueError: If the batches hold another number of rows than are present.
    """
    rows = np.flatnonzero(present)
    with replacing(directory) as partial:
        partial.mkdir()
        np.save(partial / "ids.npy", np.asarray(ids, dtype=str))
        np.save(partial / "present.npy", np.asarray(present, bool))
        arrays: dict[str, np.memmap] = {}
        done = 0
        for batch in batches:
            count = len(batch["logits"])
            for key in ("features", "logits"):
                if key not in arrays:
                    arrays[key] = np.lib.format.open_memmap(
                        partial / f"{key}.npy",
                        mode="w+",
                        dtype=np.float32,
                        shape=(len(ids), batch[key].shape[1]),
                    )
                arrays[key][rows[done : done + count]] = batch[key]
            done += count
        if done != len(rows) or not arrays:
            raise ValueError(f"Expected {len(rows)} rows. Received: {done}")
        shapes = {}
        for key, array in arrays.items():
            array.flush()
            shapes[key] = list(array.shape)
        sums = {key: _sum(partial / f"{key}.npy") for key in ARRAYS}
        about = {"fingerprint": fingerprint, "shapes": shapes, "sums": sums}
        write_json(partial / "store.json", about)


def read(directory: Path, fingerprint: str) -> Outputs:
    """Opens a model's outputs of a split.

    Args:
        directory: `outputs/MODEL/SPLIT`.
        fingerprint: What they must have been made from.

    Raises:
        RunError: If they are not there, truncated, or made from another model,
            experiment or catalog; the message names the file.
    """
    if not directory.is_dir():
        raise RunError(f"{directory}: no outputs; the run is not that far yet")
    file = directory / "store.json"
    store = read_json(file)
    try:
        found = store["fingerprint"]
        shapes = {key: tuple(store["shapes"][key]) for key in ("features", "logits")}
        sums = {key: store["sums"][key] for key in ARRAYS}
    except (KeyError, TypeError):
        raise RunError(f"{file}: not what an outputs store holds") from None
    if found != fingerprint:
        raise RunError(
            f"{directory}: stale: made from another model, experiment or catalog "
            f"({found}, not {fingerprint}); run tfmm.fit --resume"
        )
    arrays = {key: _open(directory / f"{key}.npy") for key in ARRAYS}
    for key, array in arrays.items():
        expected = shapes.get(key, shapes["logits"][:1])
        if array.shape != expected:
            raise RunError(
                f"{directory / key}.npy: truncated or replaced: shape {array.shape}, "
                f"not {expected}"
            )
        _check_sum(directory / f"{key}.npy", sums[key])
    return Outputs(**arrays)


def write_cases(
    directory: Path, fingerprint: str, cases: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes what a model says of a split with modalities hidden; all or nothing.

    Args:
        directory: `outputs/MODEL/SPLIT.cases`.
        fingerprint: Of model, experiment and catalog.
        cases: Case -> `logits` `(n, C)`, `present` `(n,)`, and `features` `(n, d)` if
            heads need them.
    """
    with replacing(directory) as partial:
        partial.mkdir()
        for case, arrays in cases.items():
            np.savez(partial / f"{case}.npz", allow_pickle=False, **arrays)
        about = {"fingerprint": fingerprint, "cases": list(cases)}
        write_json(partial / "store.json", about)


def known_cases(directory: Path, fingerprint: str) -> list[str]:
    """The cases that `write_cases` wrote; `RunError` if they are stale."""
    file = directory / "store.json"
    store = read_json(file)
    try:
        found, cases = store["fingerprint"], list(store["cases"])
    except (KeyError, TypeError):
        raise RunError(f"{file}: not what an outputs store holds") from None
    if found != fingerprint:
        raise RunError(f"{directory}: stale; run tfmm.fit --resume")
    return cases


def read_case(
    directory: Path, case: str, keys: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """One of `known_cases`, all of it or some keys; `RunError` if truncated."""
    path = directory / f"{case}.npz"
    try:
        with path.open("rb") as opened, np.load(opened) as arrays:
            return {key: arrays[key] for key in keys or arrays.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise RunError(f"{path}: truncated or damaged: {error}") from None


def read_cases(directory: Path, fingerprint: str) -> dict[str, dict[str, np.ndarray]]:
    """What `write_cases` wrote; `RunError` if truncated or stale."""
    return {
        case: read_case(directory, case) for case in known_cases(directory, fingerprint)
    }


def _sum(path: Path) -> int:
    """CRC-32 of a file."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            found = zlib.crc32(block, found)
    return found


@functools.lru_cache(maxsize=1_024)
def _known_sum(path: Path, changed: int, size: int) -> int:
    """The same, read once for as long as the file is not touched."""
    return _sum(path)


def _check_sum(path: Path, expected: int) -> None:
    about = path.stat()
    if _known_sum(path, about.st_mtime_ns, about.st_size) != expected:
        raise RunError(f"{path}: damaged: not what was written; run tfmm.fit --resume")


def _open(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; run tfmm.fit --resume") from None
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path}: truncated or damaged: {error}") from None


def write_targets(
    outputs: Path, split: str, targets: np.ndarray, catalog_fingerprint: str
) -> None:
    """Writes the targets of a split: `(n, C)` float32 or `(n,)` int32."""
    path = _targets_file(outputs, split, targets.shape)
    with replacing(path) as partial, partial.open("wb") as file:
        if path.suffix == ".npz":
            scipy.sparse.save_npz(file, scipy.sparse.csr_matrix(targets))
        else:
            np.save(file, targets)
    info = {
        "catalog": catalog_fingerprint,
        "shape": list(targets.shape),
        "sum": _sum(path),
    }
    write_json(outputs / "targets" / f"{split}.json", info)


def targets_info(outputs: Path, split: str) -> tuple[tuple[int, ...], str, int]:
    """Shape, fingerprint of the catalog and sum of a split's targets, unread."""
    file = outputs / "targets" / f"{split}.json"
    info = read_json(file)
    try:
        return tuple(info["shape"]), info["catalog"], info["sum"]
    except (KeyError, TypeError):
        raise RunError(f"{file}: not what an outputs store holds") from None


def read_targets(outputs: Path, split: str) -> tuple[np.ndarray, str]:
    """The targets of a split, and the fingerprint of their catalog.

    Raises:
        RunError: If they are not there, or truncated.
    """
    shape, catalog_fingerprint, expected = targets_info(outputs, split)
    path = _targets_file(outputs, split, shape)
    if path.suffix == ".npz":
        try:
            with path.open("rb") as opened:  # SciPy leaves a damaged one open
                targets = scipy.sparse.load_npz(opened).toarray()
        except FileNotFoundError:
            raise RunError(f"{path}: no such file; run tfmm.fit --resume") from None
        except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
            raise RunError(f"{path}: truncated or damaged: {error}") from None
    else:
        targets = np.asarray(_open(path))
    if targets.shape != shape:
        raise RunError(
            f"{path}: truncated or replaced: shape {targets.shape}, not {shape}"
        )
    _check_sum(path, expected)
    return targets, catalog_fingerprint


def label_counts(outputs: Path, split: str, num_labels: int) -> tuple[int, ...]:
    """Of each label, how many products of a split have it; read once.

    Raises:
        RunError: As of `read_targets`.
    """
    shape, _, expected = targets_info(outputs, split)
    try:
        about = _targets_file(outputs, split, shape).stat()
        touched = about.st_mtime_ns, about.st_size
    except OSError:
        touched = 0, 0  # reading says what is wrong
    return _label_counts(outputs, split, num_labels, expected, touched)


@functools.lru_cache(maxsize=16)
def _label_counts(
    outputs: Path, split: str, num_labels: int, expected: int, touched: tuple[int, int]
) -> tuple[int, ...]:
    """`label_counts`, for as long as the file is not touched."""
    targets, _ = read_targets(outputs, split)
    if targets.ndim == 1:
        counts = np.bincount(targets, minlength=num_labels)
    else:
        counts = np.count_nonzero(targets > 0, axis=0)
    return tuple(counts.tolist())


def write_groups(outputs: Path, split: str, groups: np.ndarray) -> None:
    """Writes which products of a split belong together; `groups` are `(n,)` names."""
    path = outputs / "targets" / f"{split}.groups.npy"
    numbers = np.unique(groups.astype(str), return_inverse=True)[1]
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, numbers.astype(np.int32))


def read_groups(outputs: Path, split: str) -> np.ndarray:
    """int32 `(n,)`: the number of each product's group, from 0 without gaps.

    Raises:
        RunError: If they are not there, or not of the products of the split.
    """
    path = outputs / "targets" / f"{split}.groups.npy"
    groups = np.asarray(_open(path))
    products = targets_info(outputs, split)[0][0]
    numbers = np.unique(groups)
    if groups.shape != (products,) or not np.array_equal(
        numbers, np.arange(len(numbers))
    ):
        raise RunError(f"{path}: damaged: expected a number for each of {products}")
    return groups


def _targets_file(outputs: Path, split: str, shape: tuple[int, ...]) -> Path:
    """By the shape alone: a file of another catalog's kind may still lie there."""
    sparse = len(shape) == 2 and shape[1] > DENSE_LABELS
    return outputs / "targets" / f"{split}.{'npz' if sparse else 'npy'}"
