"""What a head loses when one modality is hidden from it."""

from typing import Any

import numpy as np

from tfmm import bootstrap
from tfmm.report.answers import Answer, Truth


def left_out(
    truth: Truth,
    seen: Answer,
    hidden: Answer,
    first: np.ndarray,
    has: np.ndarray,
    draws: bootstrap.Draws,
) -> dict[str, Any]:
    """What is lost without a modality, on average over the products that have it.

    Args:
        truth: What products have.
        seen: The head's answers with everything.
        hidden: Its answers without the modality.
        first: float `(n,)`, the probability that the latter give to the label that is
            first with everything.
        has: bool `(n,)`: products with the modality.
        draws: For the interval.

    Returns:
        `products`; `true`, `first`, `top1`, `top1_interval` and `changed` as in
        docs/report.md, absent where no product has the modality.
    """
    found: dict[str, Any] = {"products": int(has.sum())}
    if not has.any():
        return found
    fallen = seen.right.astype(float) - hidden.right
    sums = draws.sums(np.stack([fallen * has, has], axis=1))
    of_truth = has[truth.rows]
    probability = (seen.probability - hidden.probability)[of_truth]
    with np.errstate(invalid="ignore"):  # draws without such a product
        shares = sums[:, 0] / sums[:, 1]
    return {
        **found,
        "true": float(probability.mean(dtype=np.float64)),
        "first": float((seen.certainty - first)[has].mean(dtype=np.float64)),
        "top1": float(shares[0]),
        "top1_interval": bootstrap.edges(shares[~np.isnan(shares)]),
        "changed": float((seen.first != hidden.first)[has].mean()),
    }
