"""What became of the requests."""

import threading
from collections import Counter
from typing import Any

# Of everything that went wrong, how many cases are told in full.
MAX_EXAMPLES = 20

RIGHT, WRONG, LOST = "right", "wrong", "lost"
EXPECTED, UNEXPECTED = "expected", "unexpected"
GIVEN_UP = "given up"
# Of these there must be none.
FAULTS = (WRONG, LOST, UNEXPECTED)


class Tally:
    """Counts outcomes by the kind of request and the way in which it went.

    Clients share one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[str, Counter[str]]] = {}
        self._examples: list[str] = []

    def add(self, kind: str, way: str, outcome: str, problem: str = "") -> None:
        """Counts a request.

        Args:
            kind: "good", "hostile", "bad" or "given up".
            way: How it went.
            outcome: What became of it.
            problem: One line, if it is one of `FAULTS`.
        """
        with self._lock:
            by_way = self._counts.setdefault(kind, {})
            by_way.setdefault(way, Counter())[outcome] += 1
            if problem and len(self._examples) < MAX_EXAMPLES:
                self._examples.append(f"{kind}, {way}: {outcome}: {problem}")

    def total(self, kind: str, *outcomes: str) -> int:
        """How many requests of a kind; those of some outcomes only, if given."""
        with self._lock:
            return sum(
                count
                for counts in self._counts.get(kind, {}).values()
                for outcome, count in counts.items()
                if not outcomes or outcome in outcomes
            )

    def line(self) -> str:
        """What there is so far, for people."""
        parts = []
        for kind in ("good", "hostile", "bad", GIVEN_UP):
            faults = {x: self.total(kind, x) for x in FAULTS}
            told = [f"{count} {name}" for name, count in faults.items() if count]
            parts.append(
                f"{self.total(kind)} {kind}" + f" ({', '.join(told)})" * bool(told)
            )
        return ", ".join(parts)

    def result(self) -> dict[str, Any]:
        """Everything: by kind and way, the sums, and examples of what went wrong."""
        with self._lock:
            by_way = {
                kind: {
                    way: dict(sorted(counts.items())) for way, counts in ways.items()
                }
                for kind, ways in self._counts.items()
            }
            examples = list(self._examples)
        sums = {
            kind: dict(sum((Counter(x) for x in ways.values()), Counter()))
            for kind, ways in by_way.items()
        }
        return {"requests": sums, "by_way": by_way, "examples": examples}

    def problems(self) -> list[str]:
        """A line for each fault that was found, and for kinds that were never sent."""
        found = []
        for kind in ("good", "hostile", "bad", GIVEN_UP):
            for fault in FAULTS:
                count = self.total(kind, fault)
                if count:
                    found.append(f"{kind} requests {fault}: {count}")
        if not self.total("good", RIGHT):
            found.append("no good request was answered")
        return found
