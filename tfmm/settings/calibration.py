"""`[calibration]`: how logits become probabilities and decisions."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tfmm.settings.base import NotNegative, Table, key

Precision = Annotated[float, Field(gt=0.0, lt=1.0)]


class CalibrationSettings(Table):
    """`[calibration]`: fitted on `validation`, for every tower and head."""

    method: Literal["temperature", "platt"] | None = key(
        None,
        "temperature: one divisor for all labels; platt: a scale and a shift for each "
        "label (multi_label), held to the temperature where a label has few products. "
        "Absent: temperature for single_label, platt for multi_label.",
    )
    threshold_for: Literal["f1", "precision"] = key(
        "f1",
        "f1: each label's best F1 (a single_label product always gets its first "
        "choice); precision: the lowest threshold that keeps target_precision (a "
        "single_label product gets its first choice or nothing).",
    )
    target_precision: Precision = key(0.9, "What threshold_for = precision keeps.")
    shrinkage: NotNegative = key(
        20.0,
        "Products of a label at which its own threshold and the one for all labels "
        "weigh the same; 0: only its own.",
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for_precision = self.threshold_for == "precision"
        self.refuse_unused(
            ("target_precision", "threshold_for = 'precision'", for_precision)
        )
        return self

    def method_for(self, task: str) -> str:
        """`temperature` or `platt`.

        Raises:
            ValueError: If `platt` is asked for and the task is `single_label`.
        """
        if task == "single_label" and self.method == "platt":
            raise ValueError(
                "[calibration] method = 'platt' gives each label a sigmoid of its own "
                "and belongs to multi_label; expected 'temperature'. "
                "Received: task = 'single_label'"
            )
        return self.method or ("platt" if task == "multi_label" else "temperature")
