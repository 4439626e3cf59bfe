"""A batch of any size: checked, cut into requests, and put together again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfmm_client.errors import InputError, ServerError, nearest
from tfmm_client.model import Metadata, Signature
from tfmm_client.tensor import Tensor, as_list, read_tensor


@dataclass(frozen=True)
class Batch:
    """Products as one request holds them.

    Attributes:
        signature_name: str.
        signature: `Signature`.
        inputs: dict from input name to `Tensor` `(num_products, ...)`, all that
            the signature has.
        num_products: int, at least 1.
    """

    signature_name: str
    signature: Signature
    inputs: Mapping[str, Tensor]
    num_products: int


def find_signature(metadata: Metadata, name: str, model_name: str) -> Signature:
    """A signature by its name.

    Raises:
        InputError: If the model has none of that name.
    """
    if name not in metadata.signatures:
        known = sorted(n for n in metadata.signatures if not n.startswith("__"))
        raise InputError(
            f"the model {model_name!r} has no signature {name!r}"
            f"{nearest(name, known)} Its signatures: {', '.join(known)}."
        )
    return metadata.signatures[name]


def read_batch(
    inputs: Mapping[str, Any],
    signature: Signature,
    signature_name: str,
    model_name: str,
) -> Batch:
    """Checks columns, and fills in the modalities that are missing.

    A server with batching on answers an empty request never, and lets the odd
    shapes of one client fail the requests of others: they stop here.

    Args:
        inputs: dict from input name to a sequence with one value per product. A
            string input left out is sent as "", which means missing.
        signature: `Signature`.
        signature_name: str.
        model_name: str. For messages.

    Returns:
        `Batch`.

    Raises:
        InputError: If names, sizes, types or shapes do not fit, or there is no
            product.
    """
    known = sorted(signature.inputs)
    for name in inputs:
        if name not in signature.inputs:
            raise _unknown_input(name, known, model_name)
    tensors = {}
    for name, values in inputs.items():
        info = signature.inputs[name]
        if info.shape == ():
            raise InputError(
                f"the input {name!r} holds one value for a whole batch, "
                "which this client does not send."
            )
        values = as_list(values)
        if values == []:
            raise InputError(
                f"no product in the input {name!r}; the inputs are {', '.join(known)}."
            )
        tensors[name] = read_tensor(name, values, info.dtype, info.shape)
    if not tensors:
        raise InputError(f"no product to classify; the inputs are {', '.join(known)}.")
    sizes = {name: tensor.shape[0] for name, tensor in tensors.items()}
    num_products = next(iter(sizes.values()))
    if set(sizes.values()) != {num_products}:
        raise InputError(
            "every input must hold the same number of products. Received: "
            + ", ".join(f"{name} {size}" for name, size in sizes.items())
        )
    for name in known:
        if name not in tensors:
            info = signature.inputs[name]
            if info.dtype != "string" or info.shape not in ((-1,), None):
                raise InputError(
                    f"the input {name!r} of dtype {info.dtype} is missing."
                )
            tensors[name] = Tensor("string", (num_products,), [""] * num_products)
    return Batch(signature_name, signature, tensors, num_products)


def read_products(
    products: Sequence[Mapping[str, Any]], signature: Signature, model_name: str
) -> dict[str, list[Any]]:
    """Turns products into columns.

    Args:
        products: Sequence of dicts from input name to text or bytes; an input
            left out is missing in that product.
        signature: `Signature`.
        model_name: str. For messages.

    Returns:
        Dict from input name to a list with one value per product.

    Raises:
        InputError: If there is none, one is no dict, or it has an unknown input.
    """
    known = sorted(signature.inputs)
    if isinstance(products, Mapping | str | bytes):
        raise InputError(
            "expected a list of products, each a dict from input name to value. "
            f"Received: {type(products).__name__}"
        )
    if not products:
        raise InputError(f"no product to classify; the inputs are {', '.join(known)}.")
    for row, product in enumerate(products):
        if not isinstance(product, Mapping):
            raise InputError(
                f"product {row} must be a dict from input name to value. "
                f"Received: {type(product).__name__}"
            )
        for name in product:
            if name not in signature.inputs:
                raise _unknown_input(name, known, model_name)
    return {name: [product.get(name, "") for product in products] for name in known}


def _unknown_input(name: str, known: Sequence[str], model_name: str) -> InputError:
    return InputError(
        f"the model {model_name!r} has no input {name!r}"
        f"{nearest(name, known)} Its inputs: {', '.join(known)}."
    )


def split(
    batch: Batch,
    max_products: int,
    max_bytes: int,
    value_bytes: Callable[[Any], int],
) -> list[Batch]:
    """Cuts a batch into requests that the server takes.

    Args:
        batch: `Batch`.
        max_products: int. Products in a request, at most.
        max_bytes: int. Bytes of a request, at most.
        value_bytes: Function that tells what a value takes in the protocol.

    Returns:
        List of `Batch`, in order; together they are `batch`.

    Raises:
        InputError: If one product alone is too large, or the signature's shapes
            do not let a batch be cut.
    """
    cuts = list(_cuts(batch, max_products, max_bytes, value_bytes))
    if len(cuts) == 1:
        return [batch]
    infos = {**batch.signature.inputs, **batch.signature.outputs}
    for name, info in infos.items():
        if info.shape is not None and info.shape[:1] != (-1,):
            raise InputError(
                f"{batch.num_products} products need {len(cuts)} requests, but the "
                f"signature {batch.signature_name!r} cannot be cut: {name!r} is not "
                "one row per product."
            )
    return [
        Batch(
            batch.signature_name,
            batch.signature,
            {name: tensor.rows(start, stop) for name, tensor in batch.inputs.items()},
            stop - start,
        )
        for start, stop in cuts
    ]


def _cuts(
    batch: Batch,
    max_products: int,
    max_bytes: int,
    value_bytes: Callable[[Any], int],
) -> Iterator[tuple[int, int]]:
    start, total = 0, 0
    for row in range(batch.num_products):
        size = sum(
            value_bytes(value)
            for tensor in batch.inputs.values()
            for value in tensor.rows(row, row + 1).values
        )
        if size > max_bytes:
            raise InputError(
                f"product {row} takes {size} bytes; max_request_bytes is {max_bytes}."
            )
        if row - start == max_products or total + size > max_bytes:
            yield start, row
            start, total = row, 0
        total += size
    yield start, batch.num_products


def join(
    parts: Sequence[Batch], answers: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Puts the outputs of the parts of a batch together, in order.

    Args:
        parts: Sequence of `Batch`, as `split` gave them.
        answers: Sequence of the same length: dict from output name to lists in
            lists.

    Returns:
        Dict from output name to lists in lists of the whole batch.

    Raises:
        ServerError: INTERNAL if an output is not one row per product, or not
            every part has it.
    """
    if len(parts) == 1:
        return dict(answers[0])
    joined: dict[str, Any] = {name: [] for name in answers[0]}
    for part, outputs in zip(parts, answers, strict=True):
        if set(outputs) != set(joined):
            raise ServerError(
                "INTERNAL",
                "two requests of a batch came back with different outputs: "
                f"{', '.join(sorted(joined))} and {', '.join(sorted(outputs))}",
            )
        for name, values in outputs.items():
            if not isinstance(values, list) or len(values) != part.num_products:
                raise ServerError(
                    "INTERNAL", f"the output {name!r} is not one row per product"
                )
            joined[name].extend(values)
    return joined
