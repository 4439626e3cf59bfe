"""The products that are sent, and what a bundle must answer to each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export import ABOUT_FILE, EXTRA, MAX_BATCH_SIZE, SIGNATURES
from serving.load.direct import DirectError, DirectModel
from soaking import SoakError

Product = dict[str, bytes]
# Signature -> output -> one entry for each product.
Answers = dict[str, dict[str, np.ndarray]]

# Probabilities nearer than this may change places from machine to machine.
NEAR = 1e-5
# A shop's old texts: Latin-1, and bytes that are no text at all.
NOT_UTF_8 = b"caf\xe9 \xff\xfe\x80 "


@dataclass(frozen=True)
class Pool:
    """What is sent, and what comes back.

    Attributes:
        products: Products of the catalog, whole and with modalities missing. The
            last one has none at all.
        images: The image inputs, in the order of `image_status`.
        answers: For each bundle what it answers to each product.
    """

    products: list[Product]
    images: list[str]
    answers: list[Answers]

    @property
    def nothing(self) -> int:
        """The place of the product without any modality."""
        return len(self.products) - 1

    def pictures(self) -> list[tuple[str, bytes]]:
        """The image inputs and files that products have."""
        return [
            (name, product[name])
            for product in self.products
            for name in self.images
            if product[name]
        ]


def read_about(bundle: Path) -> dict:
    """What a bundle says of its inputs."""
    name = f"{EXTRA}/{ABOUT_FILE}"
    about = None
    try:
        about = json.loads((bundle / name).read_text(encoding="utf-8"))
        problem = f"{name} does not say what its inputs are"
    except OSError as error:
        problem = f"{name}: {error.strerror}"
    except ValueError as error:
        problem = f"{name}: {error}"
    if not isinstance(about, dict) or not {"id", "modalities"} <= set(about):
        raise SoakError(f"{bundle}: not what `export` writes: {problem}")
    return about


def read_products(
    about: dict, catalog: Path, images: Path, count: int
) -> tuple[list[Product], list[str]]:
    """The first products of a catalog, and the image inputs."""
    from tfmm import labelling, tables
    from tfmm.settings import Modality

    wanted = {name: Modality(**x) for name, x in about["modalities"].items()}
    table = next(tables.read_chunks(catalog, count))
    batch = labelling.products(table, labelling.Reads(about["id"], wanted), images)
    columns, files = labelling.read_inputs(batch)
    products = [
        {
            name: value.encode() if isinstance(value, str) else value
            for name, value in zip(columns, row, strict=True)
        }
        for row in zip(*columns.values(), strict=True)
    ]
    if not products:
        raise SoakError(f"{catalog}: holds no products")
    return products, list(files)


def variants(products: Sequence[Product], images: Sequence[str]) -> list[Product]:
    """The products, whole and in the states in which a shop has them.

    Every eighth product also comes without each of its inputs in turn, and with
    each of them alone; every sixteenth with a text that is not UTF-8; the last
    product of the list has nothing.

    Args:
        products: Sequence of products with the same inputs.
        images: Inputs that hold images.

    Returns:
        List of products, none of them twice.
    """
    names = list(products[0])
    found = list(products)
    for product in products[::8]:
        for name in names:
            found.append({**product, name: b""})
            found.append(dict.fromkeys(names, b"") | {name: product[name]})
    for product in products[::16]:
        for name in names:
            if name not in images:
                found.append({**product, name: NOT_UTF_8 + product[name]})
    unlike = {tuple(product.values()): product for product in found}
    unlike.pop(tuple(b"" for _ in names), None)
    return [*unlike.values(), dict.fromkeys(names, b"")]


def hangs_on_little(probabilities: np.ndarray, top_k: int) -> np.ndarray:
    """Whether two of the first probabilities are too near for a certain order.

    Args:
        probabilities: Floats `(products, labels)`.
        top_k: How many labels are answered.

    Returns:
        Bools `(products,)`.

    Example:
    >>> hangs_on_little(np.array([[0.5, 0.3, 0.2], [0.5, 0.25, 0.25]]), 2).tolist()
    [False, True]
    """
    ordered = -np.sort(-probabilities, axis=1)[:, : top_k + 1]
    return (-np.diff(ordered, axis=1) < NEAR).any(axis=1)


def answers_of(bundle: Path, products: Sequence[Product]) -> Answers:
    """What a bundle answers to each product when its SavedModel is called."""
    try:
        model = DirectModel(bundle)
        calls = {signature: model.signature(signature) for signature in SIGNATURES}
    except DirectError as error:
        raise SoakError(str(error).removeprefix("--direct: ")) from None
    answers = {}
    for signature, call in calls.items():
        parts = []
        for start in range(0, len(products), MAX_BATCH_SIZE):
            batch = products[start : start + MAX_BATCH_SIZE]
            parts.append(call({name: [x[name] for x in batch] for name in batch[0]}))
        answers[signature] = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0]
        }
    return answers


def make_pool(
    bundles: Sequence[Path], catalog: Path, images: Path, count: int
) -> tuple[Pool, int]:
    """Reads products, and asks every bundle what it says of them.

    Returns:
        The pool, and how many products were left out because the order of their
        labels is not certain.
    """
    abouts = [read_about(bundle) for bundle in bundles]
    inputs = [list(about["modalities"]) for about in abouts]
    if inputs[-1] != inputs[0]:
        raise SoakError(
            f"{bundles[-1]}: has other inputs than {bundles[0]}. "
            f"Received: {inputs[-1]}, not {inputs[0]}"
        )
    products, image_names = read_products(abouts[0], catalog, images, count)
    products = variants(products, image_names)
    answers = [answers_of(bundle, products) for bundle in bundles]
    unsure = np.zeros(len(products), bool)
    for said in answers:
        top_k = said["serving_default"]["labels"].shape[1]
        unsure |= hangs_on_little(said["probabilities"]["probabilities"], top_k)
    unsure[-1] = False  # sent beside others, and its labels are not compared
    kept = np.flatnonzero(~unsure)
    answers = [
        {
            signature: {name: value[kept] for name, value in outputs.items()}
            for signature, outputs in said.items()
        }
        for said in answers
    ]
    pool = Pool([products[place] for place in kept], image_names, answers)
    if len(pool.products) < 2:
        raise SoakError(f"{catalog}: no product whose labels have a certain order")
    return pool, int(unsure.sum())
