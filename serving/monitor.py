"""Do live requests still look like the products that a model was made from?

Run: python -m serving.monitor models/products/3 --log requests.jsonl [--window 1d]

Compares logs that `tfmm_client` wrote with the reference statistics that the export
put into the bundle. Needs no TensorFlow. `docs/serving.md` says how to read it.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from serving.drift.reference import Reference, ReferenceError, read_reference
from serving.drift.report import document, print_report
from serving.drift.request_log import (
    LineError,
    LogError,
    Request,
    read_lines,
    read_products,
    read_request,
)
from serving.drift.tally import Tally
from serving.flags import FlagError, FlagParser

OK, BAD_INPUT, DRIFTED = 0, 2, 3
SHOWN_LINES = 10  # bad lines told on standard error
KEPT_LINES = 1_000  # bad lines told in the report
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1)}
WIDTH = 120  # where the output is no terminal


def build_parser() -> FlagParser:
    """The flags."""
    parser = FlagParser(
        "python -m serving.monitor",
        "Compares live requests with what the model was made from. Exit codes: 0; 2 "
        "for bad input; 3 with --fail_on_drift if a measure drifted.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="MODELS/NAME/N", help="the exported model")
    add(
        "--log",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        metavar="FILE",
        help="logs of tfmm_client, .gz too; may be repeated",
    )
    add(
        "--model_name", metavar="NAME", help="what it is served as; default: its folder"
    )
    add("--since", type=_time, metavar="TIME", help="2026-11-24 or 2026-11-24T21:05Z")
    add("--until", type=_time, metavar="TIME", help="up to before this time")
    add(
        "--window",
        type=_window,
        metavar="Nd|Nh",
        help="also compare each stretch of N days or hours, to see when it began",
    )
    add("--to", type=Path, metavar="FILE", help="write every number as JSON")
    add("--fail_on_drift", action="store_true", help="exit with 3 if a measure drifted")
    return parser


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a date or a time, ISO 8601. Received: {text!r}"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)


def _window(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9]\d{0,3})([dh])", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"expected days or hours, 1d or 6h. Received: {text!r}"
        )
    return int(match[1]) * UNITS[match[2]]


class Monitor:
    """Goes through logs, line by line, and counts what is in them.

    Args:
        reference: `Reference` of the bundle.
        model_name: str. What the model is served as.
        since, until: datetime or None. Requests before the one, or not before the
            other, are counted apart.
        window: timedelta or None. Length of the stretches to count by themselves.

    Attributes:
        live: `Tally` of all requests to the model.
        windows: dict from the start of a window to its `Tally`.
        logs: list of dicts: `path`, `lines`, `bad_lines`.
        bad_lines: list of dicts: `log`, `line`, `reason`; the first `KEPT_LINES`.
        others: Counter of (model, version) to products of requests to other models.
        outside: int. Requests outside of the times.
        of_unknown_version: int. Requests to the model of which the log does not know
            the version; they count as of this one.
    """

    def __init__(
        self,
        reference: Reference,
        model_name: str,
        since: datetime | None = None,
        until: datetime | None = None,
        window: timedelta | None = None,
    ) -> None:
        self.live = Tally(reference)
        self.windows: dict[datetime, Tally] = {}
        self.logs: list[dict[str, Any]] = []
        self.bad_lines: list[dict[str, Any]] = []
        self.others: Counter[tuple[str, int | None]] = Counter()
        self.outside = 0
        self.of_unknown_version = 0
        self._reference = reference
        self._model = (model_name, reference.version)
        self._since, self._until, self._window = since, until, window

    def read(self, path: Path) -> None:
        """Counts a log.

        Raises:
            LogError: If the file cannot be read.
        """
        counts: dict[str, Any] = {"path": str(path), "lines": 0, "bad_lines": 0}
        self.logs.append(counts)
        for number, line in read_lines(path):
            counts["lines"] += 1
            try:
                self._count(read_request(line))
            except LineError as error:
                counts["bad_lines"] += 1
                if len(self.bad_lines) < KEPT_LINES:
                    bad = {"log": str(path), "line": number, "reason": str(error)}
                    self.bad_lines.append(bad)

    def _count(self, request: Request) -> None:
        name, version = self._model
        if request.model != name or request.version not in (None, version):
            self.others[request.model, request.version] += len(request.products)
            return
        products = read_products(request, self._reference)
        early = self._since is not None and request.time < self._since
        if early or (self._until is not None and request.time >= self._until):
            self.outside += 1
            return
        self.of_unknown_version += request.version is None
        self.live.add(products)
        if self._window is not None:
            epoch = datetime.fromtimestamp(0, UTC)
            start = request.time - (request.time - epoch) % self._window
            part = self.windows.setdefault(start, Tally(self._reference))
            part.add(products)

    def report(self) -> dict[str, Any]:
        """Everything that was found, for JSON; docs/serving.md lists the keys."""
        model, version = self._model
        return {
            "bundle": str(self._reference.bundle),
            "model": model,
            "version": version,
            "reference_products": self._reference.products,
            "logs": self.logs,
            "since": _iso(self._since),
            "until": _iso(self._until),
            "requests": self.live.requests,
            "products": self.live.products,
            "requests_of_unknown_version": self.of_unknown_version,
            "requests_outside": self.outside,
            "other_models": [
                {"model": name, "version": number, "products": count}
                for (name, number), count in self.others.most_common()
            ],
            "bad_lines": self.bad_lines,
            **document(self.live, self.windows, self._reference),
        }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat().replace("+00:00", "Z")


def main(argv: Sequence[str] | None = None) -> int:
    """Compares, and prints what was found.

    Args:
        argv: Sequence of str. Options; those of the process if None.

    Returns:
        int. 0; 2 for bad input, then one line on standard error says why; 3 with
        `--fail_on_drift` if a measure drifted.
    """
    try:
        options = build_parser().parse(sys.argv[1:] if argv is None else argv)
        result = run(options)
    except (FlagError, LogError, ReferenceError) as error:
        print(f"serving.monitor: {error}", file=sys.stderr)
        return BAD_INPUT
    _print(result)
    return DRIFTED if options.fail_on_drift and result["drifted"] else OK


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Does what the flags ask for; the report.

    Args:
        options: What `build_parser` parsed.

    Raises:
        FlagError: If flags do not fit each other, or the report cannot be written.
        LogError: If a log cannot be read, or holds nothing of this model.
        ReferenceError: If the bundle has no usable reference.
    """
    times = (options.since, options.until)
    if None not in times and options.since >= options.until:
        raise FlagError("--since must be before --until")
    logs = [path.resolve() for path in options.log]
    for path, whole in zip(options.log, logs, strict=True):
        if logs.count(whole) > 1:
            raise FlagError(f"--log: {path} is there twice")
    reference = read_reference(options.bundle)
    name = options.model_name or reference.model
    monitor = Monitor(reference, name, *times, options.window)
    for path in options.log:
        monitor.read(path)
    result = monitor.report()
    _tell_bad_lines(result)
    if not result["products"]:
        raise LogError(_nothing(result))
    if options.to is not None:
        try:
            text = json.dumps(result, indent=1, ensure_ascii=False)
            options.to.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise FlagError(f"--to: {options.to}: {error.strerror}") from None
    return result


def _tell_bad_lines(result: dict[str, Any]) -> None:
    bad = sum(log["bad_lines"] for log in result["logs"])
    for line in result["bad_lines"][:SHOWN_LINES]:
        print(f"{line['log']}:{line['line']}: {line['reason']}", file=sys.stderr)
    if bad > SHOWN_LINES:
        print(f"and {bad - SHOWN_LINES} bad lines more", file=sys.stderr)


def _nothing(result: dict[str, Any]) -> str:
    bad = sum(log["bad_lines"] for log in result["logs"])
    others = ", ".join(
        f"{x['products']} of {_version(x)}" for x in result["other_models"][:5]
    )
    return (
        f"no request to {_version(result)} to compare; the logs hold {bad} bad lines, "
        f"{result['requests_outside']} requests outside of the times, products of "
        f"other models: {others or 'none'}"
    )


def _version(about: dict[str, Any]) -> str:
    number = "of unknown version" if about["version"] is None else about["version"]
    return f"{about['model']} {number}"


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, soft_wrap=True, width=WIDTH)
    bad = sum(log["bad_lines"] for log in result["logs"])
    sizes = result["reference_products"]
    console.print(
        f"{_version(result)}: {result['products']:,} products in "
        f"{result['requests']:,} requests, beside {sizes['catalog']:,} of the catalog, "
        f"{sizes['test']:,} of them in its test split"
    )
    for count, what in (
        (bad, "bad lines, not counted"),
        (result["requests_outside"], "requests outside of the times, not counted"),
        (result["requests_of_unknown_version"], "requests of a version not told"),
    ):
        if count:
            console.print(f"{count:,} {what}")
    for other in result["other_models"]:
        console.print(f"{other['products']:,} products of {_version(other)}, apart")
    print_report(console, result)


if __name__ == "__main__":
    sys.exit(main())
