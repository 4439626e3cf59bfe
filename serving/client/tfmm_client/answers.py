"""What a product's answer is, as objects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Suggestion:
    """One label for a product.

    Attributes:
        label: str.
        score: float. Its calibrated probability, in [0, 1].
        assigned: bool. Whether the score is over the label's threshold.
    """

    label: str
    score: float
    assigned: bool


@dataclass(frozen=True)
class Answer:
    """What the model says of one product.

    Attributes:
        suggestions: tuple of `Suggestion`, best first.
        image_used: tuple of bool, one per image modality: the image was looked at.
        image_status: tuple of str, one per image modality: "used", "skipped",
            "missing", or why it was refused.
    """

    suggestions: tuple[Suggestion, ...]
    image_used: tuple[bool, ...]
    image_status: tuple[str, ...]

    @property
    def assigned(self) -> tuple[str, ...]:
        """The labels that the model assigns, best first; none if it is unsure.

        Example:
        >>> sure, unsure = Suggestion("shoe", 0.9, True), Suggestion("hat", 0.1, False)
        >>> Answer((sure, unsure), (), ()).assigned
        ('shoe',)
        """
        return tuple(s.label for s in self.suggestions if s.assigned)


@dataclass(frozen=True)
class Explanation:
    """What speaks for the first k labels of one product.

    Attributes:
        contributions: tuple `(modalities, k)` of float, the modalities in the
            order of the model card.
        attention: tuple `(h, w)` of float over the image, or None if no tower of
            the model attends.
    """

    contributions: tuple[tuple[float, ...], ...]
    attention: tuple[tuple[float, ...], ...] | None


# The outputs that each kind of answer is made of; without them it cannot be asked.
CLASSIFY_OUTPUTS = ("labels", "scores", "assigned")


def read_answers(outputs: Mapping[str, Any]) -> list[Answer]:
    """The outputs of `serving_default` as one `Answer` per product."""
    labels = outputs["labels"]
    nothing: list[list[Any]] = [[] for _ in labels]
    return [
        Answer(tuple(map(Suggestion, *row)), tuple(used), tuple(status))
        for row, used, status in zip(
            zip(labels, outputs["scores"], outputs["assigned"], strict=True),
            outputs.get("image_used", nothing),
            outputs.get("image_status", nothing),
            strict=True,
        )
    ]


def read_explanations(outputs: Mapping[str, Any]) -> list[Explanation]:
    """The outputs of `explain` as one `Explanation` per product."""
    contributions = outputs["contributions"]
    attention = outputs.get("attention") or [None] * len(contributions)
    return [
        Explanation(_tuples(rows), None if cells is None else _tuples(cells))
        for rows, cells in zip(contributions, attention, strict=True)
    ]


def _tuples(rows: list[list[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, rows))
