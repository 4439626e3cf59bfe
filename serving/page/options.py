"""The flags of the page."""

import argparse
from pathlib import Path

from serving.flags import FlagParser

MIB = 2**20


def build_parser() -> FlagParser:
    """The flags, where there is one with the names of `serving.classify`."""
    parser = FlagParser(
        "python -m serving.page", "A page on which sellers file their products."
    )
    add = parser.add_argument
    add("--server", required=True, metavar="HOST:PORT", help="its gRPC port")
    add("--model_name", default="default", help="default: %(default)s")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--version", type=int, metavar="N", help="default: the highest")
    chosen.add_argument("--label", help="a version label, for example canary")
    told = parser.add_mutually_exclusive_group()
    told.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="the exported version directory: which input is a text, an image or a "
        "table, and in which order; nothing else of it is read",
    )
    told.add_argument(
        "--inputs",
        nargs="+",
        metavar="INPUT[=KIND]",
        help="the same by hand, all inputs in the order of the model card: title, "
        "image=image, facts=table:brand,price, text=text:title,description. With "
        "neither, inputs named after a picture take one, and what each input "
        "contributed is not shown",
    )
    add(
        "--timeout",
        type=_positive,
        default=10.0,
        metavar="S",
        help="limit of a question to the model (default: 10 seconds)",
    )
    add(
        "--max_picture_mib",
        type=_mebibytes,
        default=16,
        metavar="N",
        help="largest picture, in MiB (default: %(default)s)",
    )
    add(
        "--port",
        type=_port,
        default=8600,
        help="0 takes a free one (default: %(default)s)",
    )
    add("--host", default="127.0.0.1", help="interface (default: %(default)s)")
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected more than 0. Received: {text!r}")
    return value


def _mebibytes(text: str) -> int:
    # The model's own limit of a file is 100,000,000 bytes.
    if not text.isdecimal() or not 1 <= int(text) <= 95:
        raise argparse.ArgumentTypeError(f"expected 1 to 95. Received: {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535. Received: {text!r}")
    return int(text)
