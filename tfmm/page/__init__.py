"""What every page of reports shares: layout, style, script, tables.

A page is a template that begins with `{% extends "base.html.jinja" %}` and fills the
blocks `title` and `main`. `{% from "parts.html.jinja" import show %}{{ show(block) }}`
lays out any block: a `Table` of `Cell`s, which can be sorted, a `Picture`, `Words`, a
`Fold` of more blocks. All style is in `style.css`, all script in `script.js`.
"""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from tfmm.page.blocks import (
    Block,
    Cell,
    Fold,
    Links,
    Picture,
    Pictures,
    Section,
    Table,
    Tile,
    Words,
)
from tfmm.run import replacing

__all__ = [
    "Block",
    "Cell",
    "Fold",
    "Links",
    "Picture",
    "Pictures",
    "Section",
    "Table",
    "Tile",
    "Words",
    "write",
]

SCRIPT = files("tfmm.page") / "script.js"


def write(path: Path, package: str, template: str, **shown: Any) -> None:
    """Draws a page, which needs no other file and asks for none.

    Everything is escaped. The page lets a browser run the shared script alone, by its
    hash, and load nothing.

    Args:
        path: Of the HTML file; replaced in one move.
        package: Where the template is, with those that it includes.
        template: Its name.
        **shown: What it shows.
    """
    script = SCRIPT.read_text(encoding="utf-8")
    digest = hashlib.sha256(script.encode()).digest()
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, ""), jinja2.PackageLoader("tfmm.page", "")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    environment.globals |= {
        "style": files("tfmm.page").joinpath("style.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": base64.b64encode(digest).decode(),
    }
    html = environment.get_template(template).render(shown)
    with replacing(path) as file:
        file.write_text(html, encoding="utf-8")


def breakable(name: str) -> Markup:
    """A name in which a line may end after each `_`.

    Example:
    >>> breakable("stack_of_<b>")
    Markup('stack_<wbr>of_<wbr>&lt;b&gt;')
    """
    return escape(name).replace("_", Markup("_<wbr>"))
