"""The client: asks a server, ours or TensorFlow Serving, which labels a product has.

Run: python -m serving.classify --server 127.0.0.1:8500 --title "red shoe" \
         --image shoe.jpg

gRPC by default, `--rest` for REST. The server's metadata says which inputs the
model has; those not given are sent as the empty string, which means "missing".
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.flags import FlagError, FlagParser
from tfmm_client import Client, InputError, ServerError, Signature


def build_parser() -> FlagParser:
    """The options of the command."""
    parser = FlagParser(
        "python -m serving.classify", "Asks a model server for a product's labels."
    )
    add = parser.add_argument
    add("--server", required=True, metavar="HOST:PORT", help="the server's address")
    add("--rest", action="store_true", help="REST instead of gRPC")
    add("--title", help="the product's title")
    add("--description", help="the product's description")
    add("--image", type=Path, metavar="FILE", help="the product's image, encoded")
    add(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other input; NAME=@FILE sends the file's bytes; may be repeated",
    )
    add("--model_name", default="default", help="default: %(default)s")
    add("--version", type=int, metavar="N", help="default: the highest there is")
    add("--signature", default="serving_default", help="default: %(default)s")
    add("--timeout", type=float, default=30.0, metavar="S", help="default: 30 seconds")
    add("--json", action="store_true", help="print JSON")
    return parser


def read_inputs(options: argparse.Namespace) -> dict[str, list[Any]]:
    """Turns the options into a batch of one.

    Args:
        options: What `build_parser` parsed.

    Returns:
        Dict from input name to a list of one str, or bytes if from a file.

    Raises:
        InputError: If a file cannot be read, or an input is given twice or
            without `=`.
    """
    given: list[tuple[str, Any]] = []
    if options.title is not None:
        given.append(("title", options.title))
    if options.description is not None:
        given.append(("description", options.description))
    if options.image is not None:
        given.append(("image", _read_file("--image", options.image)))
    for text in options.input:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--input: expected NAME=VALUE. Received: {text!r}")
        if value.startswith("@"):
            given.append((name, _read_file(f"--input {name}", Path(value[1:]))))
        else:
            given.append((name, value))
    inputs: dict[str, list[Any]] = {}
    for name, value in given:
        if name in inputs:
            raise InputError(f"the input {name!r} is given twice")
        inputs[name] = [value]
    return inputs


def _read_file(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{option}: {path}: {error.strerror}") from error


def read_numbers(
    inputs: Mapping[str, list[Any]], signature: Signature
) -> dict[str, list[Any]]:
    """Reads the inputs of a model that are not strings from their text.

    Args:
        inputs: What `read_inputs` gave.
        signature: `Signature` that is asked.

    Returns:
        The same dict with JSON values for numbers and booleans.

    Raises:
        InputError: If such an input is not JSON.
    """
    read = {}
    for name, (value,) in inputs.items():
        info = signature.inputs.get(name)
        if info is not None and info.dtype != "string":
            try:
                value = json.loads(value)
            except ValueError as error:
                raise InputError(
                    f"the input {name!r} takes {info.dtype}: {error}"
                ) from error
        read[name] = [value]
    return read


def format_answer(outputs: Mapping[str, Any]) -> str:
    """Writes the answer for a product, for people.

    Args:
        outputs: dict from output name to the product's value, lists in lists. With
            `labels` and `scores` a list of labels, those of `assigned` marked with
            `*`; other outputs one a line.

    Returns:
        Text of one or more lines.

    Example:
    >>> print(format_answer({
    ...     "labels": ["hat", "shoe"], "scores": [0.9, 0.1], "assigned": [True, False]
    ... }))
    * 0.9000  hat
      0.1000  shoe
    """
    rest = dict(outputs)
    lines = []
    if "labels" in rest and "scores" in rest:
        labels, scores = rest.pop("labels"), rest.pop("scores")
        assigned = rest.pop("assigned", [False] * len(labels))
        for label, score, is_assigned in zip(labels, scores, assigned, strict=True):
            lines.append(f"{'*' if is_assigned else ' '} {score:.4f}  {label}")
        # `image_status` says the same in words.
        if "image_status" in rest:
            rest.pop("image_used", None)
    for name, value in sorted(rest.items()):
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        lines.append(f"{name}: {value}")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Bytes as text; what is not UTF-8 in them is replaced."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Classifies one product.

    Args:
        argv: Sequence of str. Options; those of the process if None.

    Returns:
        int. 0, or 1 if the server refused or could not be reached, or 2 for bad
        input; then one line on standard error says why.
    """
    try:
        options = build_parser().parse(sys.argv[1:] if argv is None else argv)
        inputs = read_inputs(options)
        with Client(
            f"{'http' if options.rest else 'grpc'}://{options.server}",
            options.model_name,
            version=options.version,
            timeout_s=options.timeout,
        ) as client:
            signature = client.signature(options.signature)
            inputs = read_numbers(inputs, signature)
            answer = client.predict(options.signature, inputs)
    except (FlagError, InputError) as error:
        print(f"serving.classify: {error}", file=sys.stderr)
        return 2
    except ServerError as error:
        print(f"serving.classify: {error}", file=sys.stderr)
        return 1
    # The first and only product; an output may be one value for the whole batch.
    outputs = {
        name: _plain(value[0] if isinstance(value, list) else value)
        for name, value in answer.items()
    }
    if options.json:
        document = {"model_name": options.model_name, "outputs": outputs}
        print(json.dumps(document, ensure_ascii=False))
    else:
        print(format_answer(outputs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
