"""What the server counts and times, in Prometheus' text format.

Names, labels, units and buckets are those of TensorFlow Serving, whose own page
holds many more.
"""

import bisect
import threading
from collections.abc import Callable, Sequence

# Latencies in microseconds: 10 us times powers of 1.8, up to about 20 minutes.
_LATENCY_LIMITS = tuple(10 * 1.8**power for power in range(33))
# Rows: powers of two.
_SIZE_LIMITS = tuple(float(2**power) for power in range(14))

Labels = tuple[str, ...]


class Counter:
    """A number for each combination of labels, which only grows.

    Args:
        name: str. The metric's name.
        labels: Sequence of str. The names of its labels.
    """

    def __init__(self, name: str, labels: Sequence[str]) -> None:
        self.name = name
        self._labels = tuple(labels)
        self._lock = threading.Lock()
        self._counts: dict[Labels, int] = {}

    def increment(self, *values: str) -> None:
        """Adds one under these label values, one for each label."""
        with self._lock:
            self._counts[values] = self._counts.get(values, 0) + 1

    def lines(self) -> list[str]:
        """The metric in Prometheus' text format."""
        with self._lock:
            counts = sorted(self._counts.items())
        return [f"# TYPE {self.name} counter"] + [
            f"{self.name}{{{_pairs(self._labels, values)}}} {count}"
            for values, count in counts
        ]


class Histogram:
    """How often values fell into each bucket, for each combination of labels.

    Args:
        name: str. The metric's name.
        labels: Sequence of str. The names of its labels.
        limits: Sequence of float. Upper limits of the buckets, ascending; a last
            bucket has none.
    """

    def __init__(
        self, name: str, labels: Sequence[str], limits: Sequence[float]
    ) -> None:
        self.name = name
        self._labels = tuple(labels)
        self._limits = tuple(limits)
        self._lock = threading.Lock()
        self._cells: dict[Labels, tuple[list[int], float]] = {}

    def observe(self, value: float, *values: str) -> None:
        """Counts `value` under these label values, one for each label."""
        index = bisect.bisect_left(self._limits, value)
        with self._lock:
            new = ([0] * (len(self._limits) + 1), 0.0)
            counts, total = self._cells.get(values, new)
            counts[index] += 1
            self._cells[values] = (counts, total + value)

    def lines(self) -> list[str]:
        """The metric in Prometheus' text format."""
        with self._lock:
            cells = sorted((k, list(c), total) for k, (c, total) in self._cells.items())
        lines = [f"# TYPE {self.name} histogram"]
        for values, counts, total in cells:
            pairs = _pairs(self._labels, values)
            start = f"{self.name}_bucket{{{pairs}{',' if pairs else ''}le="
            cumulative = 0
            limits = [f"{limit:g}" for limit in self._limits] + ["+Inf"]
            for limit, count in zip(limits, counts, strict=True):
                cumulative += count
                lines.append(f'{start}"{limit}"}} {cumulative}')
            lines.append(f"{self.name}_sum{{{pairs}}} {total:g}")
            lines.append(f"{self.name}_count{{{pairs}}} {cumulative}")
        return lines


class Metrics:
    """The metrics of one server.

    Attributes:
        request_count: `Counter` by model and status, every request.
        request_latency: `Histogram` by model, API and entry point (GRPC, REST):
            microseconds of the requests answered OK.
        runtime_latency: `Histogram` by model, API and runtime: microseconds in
            TensorFlow, the wait for a batch included.
        model_warmup_latency: `Histogram` by version directory and status:
            microseconds of all warm-up requests of a load.
        queuing_latency: `Histogram` by thread pool: microseconds that a request
            waited for its batch.
        processed_batch_size: `Histogram`: rows of the batches run.
    """

    def __init__(self) -> None:
        prefix = ":tensorflow:serving:"
        self.request_count = Counter(prefix + "request_count", ["model_name", "status"])
        self.request_latency = Histogram(
            prefix + "request_latency",
            ["model_name", "API", "entrypoint"],
            _LATENCY_LIMITS,
        )
        self.runtime_latency = Histogram(
            prefix + "runtime_latency",
            ["model_name", "API", "runtime"],
            _LATENCY_LIMITS,
        )
        self.model_warmup_latency = Histogram(
            prefix + "model_warmup_latency", ["model_path", "status"], _LATENCY_LIMITS
        )
        self.queuing_latency = Histogram(
            prefix + "batching_session:queuing_latency",
            ["thread_pool_name"],
            _LATENCY_LIMITS,
        )
        self.processed_batch_size = Histogram(
            prefix + "batching_session:processed_batch_size", [], _SIZE_LIMITS
        )

    def page(self) -> bytes:
        """Every metric in Prometheus' text format, by name."""
        metrics = sorted(vars(self).values(), key=lambda metric: metric.name)
        lines = [line for metric in metrics for line in metric.lines()]
        return ("\n".join(lines) + "\n").encode()


def microseconds_since(start_s: float, clock: Callable[[], float]) -> float:
    """Microseconds between `start_s` and now, both by `clock` in seconds."""
    return (clock() - start_s) * 1e6


def _pairs(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = zip(names, values, strict=True)
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)


def _escaped(value: str) -> str:
    # A model's name comes from the client: a line break in it must not end a line.
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
