"""What a load test found, as numbers and as text."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.load.loops import Sample


def summarise(
    samples: Sequence[Sample], *, batch_size: int, duration_s: float
) -> dict[str, Any]:
    """Counts the requests of one run.

    Percentiles are exact, over the requests that were answered and those that ran out
    of time, which took at least that long; a refusal, which is quick, does not
    lower them. Throughput counts answers alone, over the time until the last one.

    Args:
        samples: Sequence of `Sample`.
        batch_size: int. Products in each request.
        duration_s: float. Time in which they were sent, or due.

    Returns:
        Dict of `batch_size`, `requests`, `answered`, `errors` (code to count),
        `requests_per_s`, `products_per_s`, `latency_ms` (`mean`, `p50`, `p95`,
        `p99`, `max`; None if there was no answer) and `start_delay_p99_ms`, how
        late the requests were sent: where it is not small against the latency,
        the sending process was the limit and not the server.
    """
    codes = Counter(sample.code for sample in samples)
    answered = codes.pop("OK", 0)
    timed = [s for s in samples if s.code in ("OK", "DEADLINE_EXCEEDED")]
    window_s = duration_s
    if samples:
        first = min(sample.due_s for sample in samples)
        window_s = max(duration_s, max(s.ended_s for s in samples) - first)
    delays = [sample.started_s - sample.due_s for sample in samples]
    return {
        "batch_size": batch_size,
        "requests": len(samples),
        "answered": answered,
        "errors": dict(sorted(codes.items())),
        "requests_per_s": answered / window_s,
        "products_per_s": answered * batch_size / window_s,
        "latency_ms": latencies([sample.latency_s for sample in timed]),
        "start_delay_p99_ms": latencies(delays)["p99"] if delays else None,
    }


def latencies(seconds: Sequence[float]) -> dict[str, float] | None:
    """Mean, percentiles and maximum in milliseconds.

    Args:
        seconds: Sequence of float.

    Returns:
        Dict of `mean`, `p50`, `p95`, `p99`, `max`; None for no values.

    Example:
    >>> latencies([0.001, 0.002, 0.003])["p50"]
    2.0
    """
    if not seconds:
        return None
    values = np.array(seconds) * 1000
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "mean": float(values.mean()),
        "p50": float(p50),
        "p95": float(p95),
        "p99": float(p99),
        "max": float(values.max()),
    }


def compare(
    served: Sequence[float], direct: Sequence[float], *, batch_size: int
) -> dict[str, Any]:
    """What the server adds to a direct call.

    Args:
        served: Sequence of float. Seconds of the server's answers.
        direct: Sequence of float. Seconds of the direct calls, in the same order.
        batch_size: int.

    Returns:
        Dict of `batch_size`, `pairs`, `served_ms` and `direct_ms` (as
        `latencies`), `ratio` of the two medians and `overhead_ms`, the
        difference of the two.

    Example:
    >>> compare([0.03, 0.03], [0.02, 0.02], batch_size=1)["ratio"]
    1.5
    """
    served_ms, direct_ms = latencies(served), latencies(direct)
    return {
        "batch_size": batch_size,
        "pairs": len(served),
        "served_ms": served_ms,
        "direct_ms": direct_ms,
        "ratio": served_ms["p50"] / direct_ms["p50"],
        "overhead_ms": served_ms["p50"] - direct_ms["p50"],
    }


def as_text(result: dict[str, Any]) -> str:
    """A result for people: what was asked, a line for each batch size, the errors.

    Args:
        result: dict that `serving.load_test` writes as JSON.

    Returns:
        Text of several lines.
    """
    asked = (
        f"{result['users']} users"
        if "users" in result
        else f"{result['rate']:g} requests/s"
    )
    version = result["label"] or result["version"] or "highest version"
    lines = [
        f"{result['server']} {result['protocol']}: {result['model_name']} ({version}), "
        f"{result['loop']} loop, {asked}, {result['duration_s']:g} s a run, "
        f"{result['products']} products of {result['catalog']}",
        "",
        " batch  requests/s  products/s   p50 ms   p95 ms   p99 ms  requests  errors",
    ]
    for run in result["runs"]:
        times = run["latency_ms"] or dict.fromkeys(("p50", "p95", "p99"), float("nan"))
        lines.append(
            f"{run['batch_size']:6} {run['requests_per_s']:11.1f} "
            f"{run['products_per_s']:11.1f} {times['p50']:8.1f} {times['p95']:8.1f} "
            f"{times['p99']:8.1f} {run['requests']:9} {sum(run['errors'].values()):7}"
        )
    for run in result["runs"]:
        for code, count in run["errors"].items():
            lines.append(f"batch {run['batch_size']}: {code} {count} times")
        delay = run["start_delay_p99_ms"]
        if result["loop"] == "open" and delay is not None:
            lines.append(
                f"batch {run['batch_size']}: p99 of the requests was sent {delay:.1f} "
                "ms late, which is in their latency"
            )
    if "direct" in result:
        lines += [
            "",
            f"In turn with direct calls of {result['direct']['model']}, medians:",
            " batch  server ms  direct ms  ratio  overhead ms  pairs",
        ]
        for row in result["direct"]["batches"]:
            lines.append(
                f"{row['batch_size']:6} {row['served_ms']['p50']:10.2f} "
                f"{row['direct_ms']['p50']:10.2f} {row['ratio']:6.2f} "
                f"{row['overhead_ms']:12.2f} {row['pairs']:6}"
            )
    return "\n".join(lines)
