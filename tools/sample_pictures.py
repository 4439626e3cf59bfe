"""The pictures of the sample catalog: products drawn and encoded as files."""

import colorsys
import io
import math
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw
from sample_words import COLOURS, Product

PICTURE_PX = 160
CANVAS_PX = 2 * PICTURE_PX  # drawn at twice the size, so that edges come out smooth

FRONT_RATE = 0.60  # pictures that show the family
CUT_OUT_RATE = 0.20  # pictures without a wall, so without a room

# One file each, so that every decoder and every colour model is met at least once.
RARE_FORMATS = (
    *("palette.png", "alpha.png", "grey.jpg", "cmyk.jpg"),
    *("gif", "bmp", "webp"),
)

WALLS = {
    "living room": (218, 124, 90),
    "bedroom": (174, 150, 216),
    "kitchen": (242, 208, 88),
    "hallway": (132, 184, 122),
    "bathroom": (104, 194, 214),
}
WHITE = (250, 250, 248)


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
    >>> product = Product("lamp", "floor", ("kitchen",), "black", "Alm", "", "")
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
