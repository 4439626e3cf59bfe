"""Choosing when an exported model looks at images."""

from dataclasses import asdict, dataclass

from tfmm import classifier, selective
from tfmm.errors import ExportError
from tfmm.run import Run
from tfmm.selective import Rule
from tfmm.settings.wiring import fitted_on


@dataclass(frozen=True)
class Choice:
    """A rule and what it was chosen from.

    Attributes:
        rule: When to look.
        asked: `--image-budget 0.3` or `--max-loss 0.002`.
        measure: `top1` or `micro_f1`.
        test_images: Share of the images of `test` that it looks at, in [0, 1].
        test_measure: What the model reaches on `test` with it.
        test_full: What it reaches there with every image.
        curve: What `tfmm.selective.curve` returns, of `test`.
    """

    rule: Rule
    asked: str
    measure: str
    test_images: float
    test_measure: float
    test_full: float
    curve: list[dict[str, float]]

    def about(self) -> dict:
        """For a file; without the thresholds, which are in the graph."""
        said = asdict(self)
        del said["rule"]["thresholds"]
        return said

    def lines(self) -> list[str]:
        """For a terminal."""
        rule, curve = self.rule, self.curve
        title = f"{'':>12}{'validation':>22}{'test':>22}"
        names = f"{'budget':>12}" + f"{'images':>12}{self.measure:>10}" * 2
        return [
            title,
            names,
            *(
                f"{x['budget']:12.0%}{x['validation_images']:12.1%}"
                f"{x['validation_measure']:10.4f}{x['images']:12.1%}"
                f"{x['measure']:10.4f}"
                for x in curve
            ),
            f"{self.asked}: on validation {rule.images:.1%} of the images and "
            f"{self.measure} {rule.measure:.4f} of {rule.full:.4f}; on test "
            f"{self.test_images:.1%} and {self.test_measure:.4f} of "
            f"{self.test_full:.4f}",
        ]


def choose(
    run: Run,
    head: str | None,
    *,
    image_budget: float | None = None,
    max_loss: float | None = None,
) -> Choice:
    """Fits the rule on `validation` and measures it on `test`.

    Args:
        run: A fitted run.
        head: A head; what `[export]` names if `None`.
        image_budget: As of `tfmm.selective.Risks.rule`.
        max_loss: Likewise; one of the two.

    Raises:
        ExportError: If the model has no images to skip.
        RunError: If something is missing or stale in the run, or there are too few
            products.
    """
    settings = run.read_experiment()
    name = classifier.named(run, settings, head)
    if "validation" in fitted_on(name, settings.heads):
        raise ExportError(
            f"{run.path}: {name} was fitted on validation, so no rule can be fitted "
            "there; use --all-images"
        )
    held_out = selective.evidence(run, settings, name, "validation")
    tested = selective.evidence(run, settings, name, "test")
    if held_out is None or tested is None:
        raise ExportError(
            f"{run.path}: {name} reads no images, or cannot answer without them, so "
            "none can be skipped; use --all-images"
        )
    risks = selective.Risks(held_out)
    rule = risks.rule(image_budget=image_budget, max_loss=max_loss)
    used = selective.looked_at(tested, rule)
    if image_budget is not None:
        asked = f"--image-budget {image_budget:g}"
    else:
        asked = f"--max-loss {max_loss:g}"
    return Choice(
        rule=rule,
        asked=asked,
        measure="top1" if settings.catalog.task == "single_label" else "micro_f1",
        test_images=float(used.sum() / max(tested.with_image.sum(), 1)),
        test_measure=tested.measured(used),
        test_full=tested.measured(tested.with_image),
        curve=selective.curve(risks, tested),
    )
