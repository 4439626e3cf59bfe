"""Arrays joined to a batch, by TensorFlow Serving's rules and in its words."""

from collections.abc import Mapping, Sequence

import numpy as np

from serving.status import StatusError


def num_rows(inputs: Mapping[str, np.ndarray]) -> int:
    """The size of the first dimension, which all inputs must share.

    Args:
        inputs: dict from tensor name to array.

    Returns:
        int.

    Raises:
        StatusError: INVALID_ARGUMENT.

    Example:
    >>> num_rows({"a": np.zeros((3, 2)), "b": np.zeros(3)})
    3
    """
    if not inputs:
        raise _invalid("Batching Run() must have at least one input tensor")
    if any(array.ndim == 0 for array in inputs.values()):
        raise _invalid("Batching Run() input tensors must have at least one dimension")
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) > 1:
        raise _invalid(
            "Batching Run() input tensors must have equal 0th-dimension size"
        )
    return sizes.pop()


def padded_size(rows: int, allowed_sizes: Sequence[int]) -> int:
    """The rows that a batch of `rows` rows runs with.

    Args:
        rows: int.
        allowed_sizes: Sequence of int, ascending; empty allows every size.

    Returns:
        int. The smallest allowed size that is large enough; 0 stays 0, for there
        is no row to copy.

    Example:
    >>> padded_size(3, (2, 4, 8))
    4
    """
    return next((size for size in allowed_sizes if size >= rows > 0), rows)


def merged_inputs(
    inputs: Sequence[Mapping[str, np.ndarray]], num_extra_rows: int, *, pad: bool
) -> dict[str, np.ndarray]:
    """Joins the inputs of several requests along their first dimension.

    Args:
        inputs: Sequence of dicts from tensor name to array, one a request; all of
            the same names.
        num_extra_rows: int. Copies to add of a row of the last request that has any.
        pad: bool. Fill up arrays that differ past their first dimension.

    Returns:
        Dict from tensor name to array.

    Raises:
        StatusError: FAILED_PRECONDITION for shapes that differ, INTERNAL for
            dtypes that do.
    """
    return {
        name: _merged(name, [arrays[name] for arrays in inputs], num_extra_rows, pad)
        for name in inputs[0]
    }


def check_output(array: np.ndarray, rows: int) -> None:
    """Refuses an output that cannot be cut apart.

    Args:
        array: np.ndarray. An output of the batch.
        rows: int. Rows of the batch.

    Raises:
        StatusError: FAILED_PRECONDITION.
    """
    if array.ndim == 0:
        raise _precondition("Batched output tensor has 0 dimensions")
    if len(array) != rows:
        raise _precondition(
            "Batched output tensor's 0th dimension does not equal the sum of the "
            "0th dimension sizes of the input tensors"
        )


def _merged(
    name: str, arrays: list[np.ndarray], num_extra_rows: int, pad: bool
) -> np.ndarray:
    if len({array.dtype for array in arrays}) > 1:
        raise StatusError(
            "INTERNAL",
            "Tensor concat operation failed: the requests of a batch gave tensors of "
            f"different data types as {name}",
        )
    if pad and len({array.ndim for array in arrays}) == 1:
        longest = np.max([array.shape for array in arrays], axis=0)[1:]
        arrays = [_padded(array, longest) for array in arrays]
    if len({array.shape[1:] for array in arrays}) > 1:
        raise _precondition(
            f"Tensors with name '{name}' from different tasks have different shapes "
            "and padding is turned off. Set pad_variable_length_inputs to true, or "
            "ensure that all tensors with the same name have equal dimensions "
            "starting with the first dim."
        )
    if num_extra_rows:
        row = [array for array in arrays if len(array)][-1][:1]
        arrays = [*arrays, np.repeat(row, num_extra_rows, axis=0)]
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def _padded(array: np.ndarray, longest: np.ndarray) -> np.ndarray:
    """Fills up all but the first dimension with the array's first element."""
    missing = [int(n) - m for n, m in zip(longest, array.shape[1:], strict=True)]
    if array.size == 0 or not any(missing):
        return array
    padded = np.empty((len(array), *longest), array.dtype)
    padded[...] = array.reshape(-1)[0]
    padded[tuple(slice(size) for size in array.shape)] = array
    return padded


def _invalid(message: str) -> StatusError:
    return StatusError("INVALID_ARGUMENT", message)


def _precondition(message: str) -> StatusError:
    return StatusError("FAILED_PRECONDITION", message)
