"""Pictures as SVG that stands inside a page and takes its colours.

Text stays text. Lines and words are drawn in `INK`, which becomes the page's own colour
of text, light or dark; the ground is transparent. The same numbers give the same bytes.
"""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.figure
from matplotlib.backends.backend_svg import FigureCanvasSVG

from tfmm.page.blocks import Picture

# Replaced by what the page has, so that nothing else may be drawn in them.
INK, PAPER = "#010203", "#fdfcfb"
COLORS = {INK: "currentColor", PAPER: "var(--card)"}
# Readable on white and on black.
GREY, BLUE, GREEN = "#8792a5", "#3f86c4", "#2f9a68"
YELLOW, RED, VIOLET, TEAL = "#d19a2e", "#cf5b4c", "#9a6fd0", "#2a9aa8"
LINES = (GREEN, BLUE, VIOLET, YELLOW, TEAL, RED)
WIDTH, HEIGHT = 440, 290  # in units of the text, which is 11 high
LEAST, MOST = 0.75, 1.35  # of its width, by the room there is
DOTS = 144  # an inch, of what is not drawn as lines
LONGEST = 30  # letters of a name
SVG = "http://www.w3.org/2000/svg"
LINK = "http://www.w3.org/1999/xlink"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11,
    "font.family": "sans-serif",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    **dict.fromkeys(
        (
            *("text.color", "axes.labelcolor", "axes.edgecolor"),
            *("xtick.color", "ytick.color", "patch.edgecolor"),
        ),
        INK,
    ),
}


def picture(
    key: str,
    about: str,
    paint: Callable[..., None],
    *,
    title: str = "",
    width: float = WIDTH,
    height: float = HEIGHT,
    columns: int = 1,
) -> Picture:
    """Draws a picture.

    Args:
        key: A word that no other picture of the page has; its ids are made from it.
        about: What it shows, in words.
        paint: Called with the axes, as many as `columns`.
        title: What stands above it.
        width: Of the whole.
        height: Of the whole.
        columns: How many axes stand side by side.
    """
    with (
        matplotlib.rc_context(STYLE | {"svg.hashsalt": key}),
        warnings.catch_warnings(),
    ):
        # The browser has the letters that the font used for measuring has not.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        size = width / 72, height / 72
        figure = matplotlib.figure.Figure(size, DOTS, layout="constrained")
        paint(*figure.subplots(1, columns, squeeze=False)[0])
        file = io.BytesIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # `savefig` would draw everything twice.
        FigureCanvasSVG(figure).print_svg(file, metadata=nothing)
    return Picture(_inside_a_page(file.getvalue(), width), about, title, width)


def short(name: str) -> str:
    """A name that does not push its picture aside."""
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def percents(axis: Any) -> None:
    """Writes the numbers of an axis, shares, as percents."""
    axis.set_major_formatter(lambda x, _: f"{100 * x:.4g} %")


def _inside_a_page(svg: bytes, width: float) -> str:
    root = ElementTree.fromstring(svg)
    # The page has one style, and no other ids than are asked for.
    asked = set(re.findall(r"#([\w-]+)", svg.decode()))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)
    for element in root.iter():
        if element.get("id") not in asked:
            element.attrib.pop("id", None)
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
        element.tail = ""
        if not (element.text or "").strip():
            element.text = ""
        for key, value in element.items():
            if key == "style":
                for drawn, meant in COLORS.items():
                    value = value.replace(drawn, meant)
                # In the letters of the page.
                value = re.sub(r"font-family: [^;]*; ", "", value).replace("; ", ";")
            elif key not in ("id", f"{{{LINK}}}href"):
                value = re.sub(r"-?\d+\.\d+", lambda x: f"{float(x[0]):.4g}", value)
                value = re.sub(r" +", " ", value.replace("\n", ""))
            element.set(key, value)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    sizes = f"min-width:{LEAST * width:.0f}px;max-width:{MOST * width:.0f}px"
    root.set("style", sizes)
    root.set("aria-hidden", "true")
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", LINK)
    return ElementTree.tostring(root, encoding="unicode")
