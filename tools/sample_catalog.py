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
import colorsys
import csv
import io
import math
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from PIL import Image, ImageDraw

COLUMNS = ("id", "title", "description", "image", "labels", "group")
LABEL_SEPARATOR = "|"
MIN_PRODUCTS = 60  # below this, the single faults would be a large share

PICTURE_PX = 160
CANVAS_PX = 2 * PICTURE_PX  # drawn at twice the size, so that edges come out smooth

HINT_RATE = 0.50  # products whose words tell the form
NOUN_IN_TITLE_RATE = 0.90
FOREIGN_NOUN_RATE = 0.15
ROOM_NAMED_RATE = 0.50  # rooms that the description names
SECOND_ROOM_RATE = 0.40
VARIANT_RATE = 0.05  # designs that come in two or three colours
FRONT_RATE = 0.60  # pictures that show the family
CUT_OUT_RATE = 0.20  # pictures without a wall, so without a room
PNG_RATE = 0.06

BROKEN_OFF_BYTES = 700  # an upload that ended just behind the headers of a JPEG

MISSING_DESCRIPTION_RATE = 0.09
MISSING_IMAGE_RATE = 0.04
EMOJI_RATE = 0.03
ENTITY_RATE = 0.04

# One file each, so that every decoder and every colour model is met at least once.
RARE_FORMATS = (
    *("palette.png", "alpha.png", "grey.jpg", "cmyk.jpg"),
    *("gif", "bmp", "webp"),
)

FAMILIES = {"lamp": 0.38, "clock": 0.34, "fan": 0.28}
FORMS = {"table": 0.28, "wall": 0.26, "floor": 0.24, "ceiling": 0.22}
ROOMS = {
    "living room": 0.28,
    "bedroom": 0.22,
    "kitchen": 0.20,
    "hallway": 0.16,
    "bathroom": 0.14,
}

WALLS = {
    "living room": (218, 124, 90),
    "bedroom": (174, 150, 216),
    "kitchen": (242, 208, 88),
    "hallway": (132, 184, 122),
    "bathroom": (104, 194, 214),
}
WHITE = (250, 250, 248)
COLOURS = {
    "black": (28, 28, 32),
    "walnut": (94, 58, 36),
    "midnight blue": (26, 42, 92),
    "oxblood": (112, 26, 38),
    "fir green": (22, 68, 46),
    "graphite": (68, 72, 80),
}

NAME_STARTS = (
    *("Alm", "Björk", "Blå", "Dun", "Fjäll", "Frost", "Gran", "Hav", "Hägg", "Klöv"),
    *("Ljus", "Lönn", "Mån", "Myr", "Norr", "Rönn", "Sjö", "Skog", "Snö", "Sol"),
    *("Sten", "Säv", "Tall", "Ull", "Vass", "Vinter", "Åker", "Äng", "Ör", "Öster"),
)
NAME_ENDS = (
    *("bäck", "dal", "fors", "gläntan", "hult", "lid", "mo", "myran", "näs", "rud"),
    *("skär", "stigen", "tjärn", "viken", "ön", "åsen"),
)

FOREIGN_NOUNS = {
    "lamp": ("lampe", "Leuchte", "lampa", "luminaire"),
    "clock": ("horloge", "Uhr", "klocka", "pendule"),
    "fan": ("ventilateur", "Lüfter", "fläkt", "brasseur d’air"),
}

OPENINGS = {
    "lamp": (
        "A lamp with a warm, glare-free light.",
        "Soft light for long evenings; the bulb (E27) is sold separately.",
        "Dimmable LED, 800 lumens, with a switch on the cord.",
        "The shade throws its light evenly, without a hard edge.",
        "Lights a whole corner without dazzling anyone.",
    ),
    "clock": (
        "A clock with a silent movement.",
        "Large hands that can be read across the room; runs on one AA battery.",
        "Quartz movement, accurate to a minute a year.",
        "No ticking: the second hand glides.",
        "Tells the time plainly, with no numerals to clutter the dial.",
    ),
    "fan": (
        "A fan with four quiet blades.",
        "Three speeds and a timer keep the air moving on warm nights.",
        "Cools gently, at 32 decibels on the lowest speed.",
        "The blades swing from side to side and fold away for winter.",
        "A brushless motor: a cool breeze for little electricity.",
    ),
}

MATERIALS = (
    "Powder-coated steel.",
    "Solid ash, oiled by hand.",
    "Brushed brass with a clear lacquer.",
    "Recycled aluminium.",
    "Wipe clean with a damp cloth.",
    "Bent plywood with a birch veneer.",
    "Comes flat-packed with an Allen key.",
    "The finish darkens with the years.",
)

FORM_HINTS = {
    "floor": (
        "Stands on the floor, {tall} cm tall.",
        "The heavy foot keeps it upright beside a sofa.",
        "A free-standing piece for an empty corner of the floor.",
    ),
    "table": (
        "Fits on a bedside table or a desk.",
        "Small enough for a sideboard: {short} cm tall.",
        "Takes no more of the table than a saucer.",
    ),
    "wall": (
        "Hangs on the wall; screws and plugs included.",
        "The bracket is fixed to the wall with two screws.",
        "Lies flat against the wall, {flat} cm deep.",
    ),
    "ceiling": (
        "Hangs from the ceiling; the cord can be shortened.",
        "Ceiling hook and canopy included.",
        "Floats overhead, out of everyone’s way.",
    ),
}

ROOM_HINTS = {
    "living room": (
        "At home in the living room.",
        "Made for the salon: sofa, bookcase and all.",
    ),
    "bedroom": (
        "Calm enough for the bedroom.",
        "A quiet companion where you sleep.",
    ),
    "kitchen": (
        "Shrugs off steam and grease in the kitchen.",
        "Made for cooking and for long breakfasts.",
    ),
    "hallway": (
        "Greets your guests in the hallway.",
        "For the entrance, next to coats and shoes.",
    ),
    "bathroom": (
        "Splash-proof (IP44), for the bathroom.",
        "Stands the damp next to shower and bath.",
    ),
}

CLOSINGS = (
    "Designed in Malmö.",
    "Fabriqué à la main, pièce par pièce.",
    "Für drinnen; Maße können leicht abweichen.",
    "Tillverkad i Småland.",
    "Spare parts are kept for ten years.",
    "Part of a series: look for its siblings.",
    "Très léger, déjà monté.",
    "Geprüfte Qualität.",
    "Gift box on request.",
    "",
    "",
)

EMOJI = ("✨", "🌿", "🎁", "🏡", "♻️")
ENTITIES = (
    "Café &amp; cr&eacute;me.",
    "It&#39;s a classic.",
    "B&amp;W &ndash; d&eacute;cor",
)


@dataclass(frozen=True)
class Product:
    """One product before it is written: what it is, and what is told of it.

    Attributes:
        family: A key of `FAMILIES`.
        form: A key of `FORMS`.
        rooms: One or two keys of `ROOMS`; the first paints the upper half of the
            wall, the second the lower.
        colour: A key of `COLOURS`.
        title: What the shop calls it.
        description: What the shop says of it; may be empty.
        group: Shared by the colour variants of one design, else empty.
        labelled: False for the product that nobody has filed yet.
    """

    family: str
    form: str
    rooms: tuple[str, ...]
    colour: str
    title: str
    description: str
    group: str
    labelled: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order kind, rooms; none if not labelled."""
        if not self.labelled:
            return ()
        kind = f"kind:{self.form} {self.family}"
        return (kind, *(f"room:{room}" for room in self.rooms))


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
        for variant in _invent_design(rng, f"G{len(products) + 1:04d}"):
            if variant.title not in titles and len(products) < num_products:
                titles.add(variant.title)
                products.append(variant)
    rng.shuffle(products)
    return _soil(products, rng)


def _pick(rng: random.Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def _invent_design(rng: random.Random, group: str) -> list[Product]:
    """One design in one colour or, rarely, in two or three."""
    family, form = _pick(rng, FAMILIES), _pick(rng, FORMS)
    rooms = [_pick(rng, ROOMS)]
    if rng.random() < SECOND_ROOM_RATE:
        rooms.append(rng.choice([room for room in ROOMS if room != rooms[0]]))

    hint = ""
    noun = family
    if rng.random() < HINT_RATE:
        hint = rng.choice(FORM_HINTS[form]).format(
            tall=rng.randint(135, 180),
            short=rng.randint(22, 45),
            flat=rng.randint(4, 9),
        )
        if rng.random() < 0.5:
            noun = f"{form} {family}"
    elif rng.random() < FOREIGN_NOUN_RATE:
        noun = rng.choice(FOREIGN_NOUNS[family])

    sentences = [rng.choice(OPENINGS[family]), hint]
    sentences += rng.sample(MATERIALS, k=rng.randint(1, 2))
    sentences += [
        rng.choice(ROOM_HINTS[room]) for room in rooms if rng.random() < ROOM_NAMED_RATE
    ]
    rng.shuffle(sentences)
    sentences.append(rng.choice(CLOSINGS))

    name = rng.choice(NAME_STARTS) + rng.choice(NAME_ENDS)
    if rng.random() < NOUN_IN_TITLE_RATE or noun != family:
        name += f" {noun}"
    size = rng.choice(("", f", Ø {rng.randrange(18, 61)} cm"))

    num_colours = rng.randint(2, 3) if rng.random() < VARIANT_RATE else 1
    return [
        Product(
            family=family,
            form=form,
            rooms=tuple(rooms),
            colour=colour,
            title=f"{name}, {colour}{size}",
            description=" ".join(filter(None, sentences)),
            group=group if num_colours > 1 else "",
        )
        for colour in rng.sample(list(COLOURS), k=num_colours)
    ]


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


def draw(product: Product, seed: int | str, *, on_nothing: bool = False) -> Image.Image:
    """Draws a product as the shop would photograph it.

    A head (round, square or six-sided) stands on a long pole on the floor or
    on a short foot on a sideboard, hangs on a cord from the ceiling, or flat
    on the wall: that is the form. From the front the head is a light, a dial
    or four blades; from behind it is plain.

    Args:
        product: What to draw.
        seed: Of everything that varies between photographs of one product.
        on_nothing: Whether to leave out the room, for a transparent ground.

    Returns:
        A picture of `PICTURE_PX x PICTURE_PX`, RGB, or RGBA with `on_nothing`.

    Example:
    >>> product = invent_products(60, seed=0)[0]
    >>> draw(product, seed=0).size
    (160, 160)
    """
    rng = random.Random(f"picture {seed}")
    thing = _draw_thing(product, rng)
    if on_nothing:
        picture = thing
    else:
        picture = _draw_room(product, rng).convert("RGBA")
        picture.alpha_composite(thing)
        picture = picture.convert("RGB")
    return picture.resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)


def _vary(colour: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    """The same paint in another light."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(c / 255 for c in colour))
    red, green, blue = colorsys.hls_to_rgb(
        (hue + rng.uniform(-0.015, 0.015)) % 1.0,
        min(1.0, max(0.0, lightness * rng.uniform(0.92, 1.06))),
        saturation * rng.uniform(0.85, 1.0),
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def _box(*shares: float) -> list[int]:
    """Shares of the canvas as pixels."""
    return [round(share * CANVAS_PX) for share in shares]


def _draw_room(product: Product, rng: random.Random) -> Image.Image:
    upper = lower = floor = WHITE
    if rng.random() >= CUT_OUT_RATE:
        upper = lower = _vary(WALLS[product.rooms[0]], rng)
        if len(product.rooms) > 1:
            lower = _vary(WALLS[product.rooms[1]], rng)
        floor = _vary((196, 168, 130), rng)
    picture = Image.new("RGB", (CANVAS_PX, CANVAS_PX), upper)
    brush = ImageDraw.Draw(picture)
    brush.rectangle(_box(0, 0.5, 1, 1), fill=lower)
    if product.form == "floor":
        brush.rectangle(_box(0, 0.84, 1, 1), fill=floor)
    return picture


def _draw_thing(product: Product, rng: random.Random) -> Image.Image:
    layer = Image.new("RGBA", (CANVAS_PX, CANVAS_PX), (*WHITE, 0))
    brush = ImageDraw.Draw(layer)
    colour = _vary(COLOURS[product.colour], rng)
    x = 0.5 + rng.uniform(-0.06, 0.06)

    if product.form == "floor":
        y, radius = rng.uniform(0.26, 0.29), rng.uniform(0.20, 0.23)
        brush.rectangle(_box(x - 0.022, y, x + 0.022, 0.90), fill=colour)
        brush.ellipse(_box(x - 0.18, 0.86, x + 0.18, 0.94), fill=colour)
    elif product.form == "table":
        y, radius = rng.uniform(0.31, 0.34), rng.uniform(0.22, 0.25)
        wood = _vary((120, 92, 70), rng)
        brush.rectangle(_box(x - 0.03, y, x + 0.03, 0.64), fill=colour)
        brush.rectangle(_box(x - 0.12, 0.60, x + 0.12, 0.65), fill=colour)
        brush.rectangle(_box(0.04, 0.65, 0.96, 1), fill=wood)
        brush.rectangle(_box(0, 0.65, 1, 0.70), fill=_vary((82, 60, 44), rng))
    elif product.form == "ceiling":
        y, radius = rng.uniform(0.60, 0.66), rng.uniform(0.24, 0.27)
        brush.rectangle(_box(x - 0.015, 0, x + 0.015, y), fill=colour)
        brush.rectangle(_box(x - 0.10, 0, x + 0.10, 0.07), fill=colour)
    else:
        y, radius = rng.uniform(0.46, 0.52), rng.uniform(0.32, 0.36)

    outline = rng.choice(_OUTLINES)
    brush.polygon(_around(outline, x, y, radius), fill=colour)
    if rng.random() < FRONT_RATE:
        _draw_front(brush, product.family, outline, x, y, radius, rng)
    return layer


def _around(
    outline: Sequence[tuple[float, float]], x: float, y: float, radius: float
) -> list[tuple[int, int]]:
    """An outline around the point `(x, y)`, in pixels."""
    return [
        (round((x + radius * dx) * CANVAS_PX), round((y + radius * dy) * CANVAS_PX))
        for dx, dy in outline
    ]


def _ring(num_corners: int, turn: float = 0.0) -> list[tuple[float, float]]:
    """A regular polygon of radius 1, turned by `turn` of a side."""
    angles = [2 * math.pi * (k + turn) / num_corners for k in range(num_corners)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


_OUTLINES = (
    _ring(60),
    [(1.16 * dx, 1.16 * dy) for dx, dy in _ring(4, 0.5)],
    _ring(6),
)


def _draw_front(
    brush: ImageDraw.ImageDraw,
    family: str,
    outline: Sequence[tuple[float, float]],
    x: float,
    y: float,
    radius: float,
    rng: random.Random,
) -> None:
    """Draws what makes a lamp a lamp inside the rim of its head."""
    inner = 0.84 * radius
    face = _around(outline, x, y, inner)
    if family == "lamp":
        brush.polygon(face, fill=(255, 214, 90))
        brush.polygon(_around(outline, x, y, 0.62 * radius), fill=(255, 240, 180))
        brush.polygon(_around(outline, x, y, 0.32 * radius), fill=(255, 255, 250))
    elif family == "clock":
        brush.polygon(face, fill=(246, 244, 236))
        hour = rng.uniform(0, 2 * math.pi)
        hands = ((hour, 0.44), (hour + rng.uniform(1.0, 5.2), 0.70))
        for angle, length in hands:
            tip = x + length * radius * math.cos(angle) * 0.8
            end = y + length * radius * math.sin(angle)
            brush.line(
                _box(x, y, tip, end), fill=(20, 20, 24), width=_box(0.18 * radius)[0]
            )
    else:
        brush.polygon(face, fill=(150, 154, 160))
        turn = rng.uniform(0, math.pi / 2)
        for blade in range(4):
            angle = turn + blade * math.pi / 2
            corners = [
                (0.0, 0.0),
                (0.6 * math.cos(angle - 0.4), 0.74 * math.sin(angle - 0.4)),
                (0.6 * math.cos(angle + 0.4), 0.74 * math.sin(angle + 0.4)),
            ]
            brush.polygon(_around(corners, x, y, radius), fill=(244, 244, 244))
        brush.ellipse(
            _box(*(c + d for d in (-0.16 * radius, 0.16 * radius) for c in (x, y))),
            fill=(30, 30, 34),
        )


def encode(picture: Image.Image, kind: str) -> bytes:
    """Encodes a picture as one of the files that shops hand over.

    Args:
        picture: RGB or RGBA.
        kind: `jpg`, `png` or one of `RARE_FORMATS`.

    Returns:
        The file's bytes.

    Example:
    >>> encode(Image.new("RGB", (8, 8)), "bmp")[:2]
    b'BM'
    """
    formats = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP"}
    if kind in ("palette.png", "gif"):
        picture = picture.quantize(64)
    elif kind == "grey.jpg":
        picture = picture.convert("L")
    elif kind == "cmyk.jpg":
        picture = picture.convert("CMYK")
    buffer = io.BytesIO()
    picture.save(buffer, format=formats[kind.rpartition(".")[2]], quality=88)
    return buffer.getvalue()


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
