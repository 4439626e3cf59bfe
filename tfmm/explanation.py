"""What each modality did for an answer."""

from collections.abc import Callable, Sequence
from itertools import permutations

import tensorflow as tf

# Past so many modalities only some of the orders are tried.
EXACT_MODALITIES = 4


def contributions(
    value: Callable[[frozenset[str]], tf.Tensor], modalities: Sequence[str], top_k: int
) -> tf.Tensor:
    """Shapley values of the modalities for the most probable labels.

    A modality's contribution to a label is how much being told it changes the label's
    probability, on average over the orders in which modalities can be told. So the
    contributions to a label add up to its probability with everything known less the
    one with nothing known. Past four modalities the average is over those orders that
    turn or reverse theirs, in which each is told as often early as late.

    Args:
        value: From the modalities that are known to probabilities `(batch, C)`.
        modalities: Names, at least one.
        top_k: Labels, the most probable ones with everything known.

    Returns:
        float32 `(batch, modalities, top_k)` in [-1, 1].

    Reference:
    - [Lundberg and Lee, 2017](https://arxiv.org/abs/1705.07874), section 2.4.
    """
    whole = frozenset(modalities)
    values = {whole: value(whole)}
    _, indices = tf.math.top_k(values[whole], top_k)
    orders = orders_of(modalities)
    for known in (
        frozenset(order[:size]) for order in orders for size in range(len(order))
    ):
        if known not in values:
            values[known] = value(known)
    picked = {
        known: tf.gather(said, indices, batch_dims=1) for known, said in values.items()
    }
    parts = []
    for name in modalities:
        steps = []
        for order in orders:
            place = order.index(name)
            before, after = frozenset(order[:place]), frozenset(order[: place + 1])
            steps.append(picked[after] - picked[before])
        parts.append(tf.add_n(steps) / len(steps))
    return tf.stack(parts, axis=1)


def orders_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """The orders in which modalities are told.

    Example:
    >>> orders_of(["title", "image"])
    [('title', 'image'), ('image', 'title')]
    """
    names = tuple(modalities)
    if len(names) <= EXACT_MODALITIES:
        return list(permutations(names))
    turned = [names[place:] + names[:place] for place in range(len(names))]
    return turned + [order[::-1] for order in turned]
