"""Draws the sample catalog: a small invented shop, with pictures and with dirt.

    python tools/sample_catalog.py --to sample
    python tools/sample_catalog.py --to sample --products 600 --seed 0

writes `sample/catalog.csv` and `sample/images/`. Nothing is downloaded and
nothing is copied: names, sentences and pictures are made here, and the same
seed makes the same bytes.

The shop is built so that fusion has something to do. A product's kind is a
pair, say `kind:floor lamp`, of a family (lamp) and a form (floor):

- the words nearly always tell the family, and the form for half of the
  products: otherwise text alone is left to guess among four kinds;
- the picture always shows the form, and the family only where the product is
  seen from the front: from behind, the three families look alike;
- the rooms (`room:kitchen`, one or two a product) are partly named in the
  description and partly seen in the colours of the wall, upper half and lower
  half, which a fifth of the pictures lack: those are cut out on white.

Then comes the dirt of a real export: descriptions and images that are missing;
accents, emoji and HTML entities; one title that two products share, one product
without a label, one image that no decoder takes, one image path without a file;
and besides JPEG and PNG one file each of the rarer formats.
"""

import argparse
import csv
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from sample_pictures import RARE_FORMATS, draw, encode
from sample_words import Product, invent_design

COLUMNS = ("id", "title", "description", "image", "labels", "group")
LABEL_SEPARATOR = "|"
MIN_PRODUCTS = 60  # below this, the single faults would be a large share

PNG_RATE = 0.06
MISSING_DESCRIPTION_RATE = 0.09
MISSING_IMAGE_RATE = 0.04
EMOJI_RATE = 0.03
ENTITY_RATE = 0.04

BROKEN_OFF_BYTES = 700  # an upload that ended just behind the headers of a JPEG

EMOJI = ("✨", "🌿", "🎁", "🏡", "♻️")
ENTITIES = (
    "Café &amp; cr&eacute;me.",
    "It&#39;s a classic.",
    "B&amp;W &ndash; d&eacute;cor",
)


def invent_products(num_products: int, seed: int) -> list[Product]:
    """Invents the products, in the order of the catalog.

    Args:
        num_products: At least `MIN_PRODUCTS`.
        seed: Of everything that is drawn by chance.

    Returns:
        As many products.

    Raises:
        ValueError: If `num_products` is too small for the dirt to stay small.

    Example:
    >>> products = invent_products(60, seed=0)
    >>> len({product.title for product in products})  # one title occurs twice
    59
    """
    if num_products < MIN_PRODUCTS:
        raise ValueError(
            f"expected at least {MIN_PRODUCTS} products. Received: {num_products}"
        )
    rng = random.Random(f"products {seed}")
    products: list[Product] = []
    titles: set[str] = set()
    while len(products) < num_products:
        for variant in invent_design(rng, f"G{len(products) + 1:04d}"):
            if variant.title not in titles and len(products) < num_products:
                titles.add(variant.title)
                products.append(variant)
    rng.shuffle(products)
    return _soil(products, rng)


def _soil(products: list[Product], rng: random.Random) -> list[Product]:
    """Puts in the dirt that words can carry."""
    products = list(products)
    order = rng.sample(range(len(products)), k=len(products))

    def some(rate: float) -> list[int]:
        return [order.pop() for _ in range(max(1, round(rate * len(products))))]

    for index in some(EMOJI_RATE):
        title = f"{products[index].title} {rng.choice(EMOJI)}"
        products[index] = replace(products[index], title=title)
    for index in some(ENTITY_RATE):
        text = f"{products[index].description} {rng.choice(ENTITIES)}"
        products[index] = replace(products[index], description=text)
    for index in some(MISSING_DESCRIPTION_RATE):
        products[index] = replace(products[index], description="")

    orphan, original, *others = order
    products[orphan] = replace(products[orphan], labelled=False)
    # A title typed twice, for two products of which only the family is the same.
    twin = next(
        index
        for index in others
        if products[index].family == products[original].family
        and products[index].form != products[original].form
    )
    products[twin] = replace(products[twin], title=products[original].title)
    return products


def write_catalog(folder: Path, products: Sequence[Product], seed: int) -> int:
    """Writes `catalog.csv` and `images/` into an existing, empty folder.

    Args:
        folder: Where to.
        products: In the order of the catalog.
        seed: Of the pictures, and of the faults among them.

    Returns:
        The number of image files written.

    Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_catalog(Path(folder), invent_products(60, seed=0), seed=0)
    57
    """
    rng = random.Random(f"files {seed}")
    order = rng.sample(range(len(products)), k=len(products))
    missing = {order.pop() for _ in range(round(MISSING_IMAGE_RATE * len(products)))}
    no_file, broken, *order = order
    rare = dict(zip(order, RARE_FORMATS, strict=False))

    (folder / "images").mkdir()
    num_written = 0
    with open(folder / "catalog.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for index, product in enumerate(products):
            product_id = f"P{index + 1:04d}"
            common = "png" if rng.random() < PNG_RATE else "jpg"
            kind = "jpg" if index == broken else rare.get(index, common)
            image = f"images/{product_id}.{kind.rpartition('.')[2]}"
            if index in missing:
                image = ""
            elif index != no_file:
                on_nothing = kind == "alpha.png"
                picture = draw(product, f"{seed} {product_id}", on_nothing=on_nothing)
                data = encode(picture, kind)
                if index == broken:
                    data = data[:BROKEN_OFF_BYTES]
                (folder / image).write_bytes(data)
                num_written += 1
            labels = LABEL_SEPARATOR.join(product.labels)
            texts = product.title, product.description
            writer.writerow((product_id, *texts, image, labels, product.group))
    return num_written


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints fit on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and writes the catalog.

    Everything is written into a sibling of the target and renamed at the end:
    the target is whole or it is not there.

    Args:
        arguments: The words of the command line; `sys.argv` by default.

    Raises:
        SystemExit: With code 2 and one line on standard error, if the target
            exists and is not empty, or cannot be written.
    """
    parser = _Parser(
        description="Draws the sample catalog.", prog="tools/sample_catalog.py"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR")
    parser.add_argument("--products", type=int, default=600, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    target = Path(os.path.abspath(options.to))

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        parser.error(f"--to: expected a new or empty folder. Received: {options.to}")
    try:
        products = invent_products(options.products, options.seed)
    except ValueError as error:
        parser.error(f"--products: {error}")

    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
        num_images = write_catalog(unfinished, products, options.seed)
        os.replace(unfinished, target)
    except OSError as error:
        parser.error(f"--to: cannot write {options.to}. Received: {error}")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    num_labels = len({label for product in products for label in product.labels})
    print(
        f"{options.to / 'catalog.csv'}: {len(products)} products, {num_labels} labels, "
        f"{num_images} image files, seed {options.seed}"
    )


if __name__ == "__main__":
    main()
