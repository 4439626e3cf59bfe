"""Paper B's auxiliary loss: one product's vectors be alike, others' not."""

from itertools import combinations

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="tfmm")
class MatchingLoss(keras.losses.Loss):
    """Tells each product's vectors of two towers apart from those of other products.

    For product `i` with the vectors `a_i` of one tower and `b_i` of another, and
    products `j` of other labels:

    `loss_i = -sum_j log(exp(-d(a_i, b_i)) / (exp(-d(a_i, b_i)) + exp(-d(a_i, b_j))))`

    with `d = -cosine`, as a distance must shrink where vectors match; computed as
    `sum_j softplus(cosine(a_i, b_j) - cosine(a_i, b_i))`. The papers' text leaves
    cosine or dot product open; the cosine keeps the loss from growing with the
    vectors' length.

    Of every pair of towers, `a` is the later one. With the towers `[text, image]`
    this is B's loss, of an image and its text. Pairs are added up.

    Products `j` come from the same batch: the next ones after `i`, from the top again
    after the last, that have no label in common with `i`, up to `num_negatives`. A
    shuffled batch makes that a random choice. A pair counts for a product only where
    both towers are present, and `j` needs tower `b`. A product without any such `j`
    costs nothing.

    Args:
        task: `single_label` or `multi_label`.
        num_negatives: int. At most so many `j`; at least 1.
        weight: float. What the loss is multiplied by.
        **kwargs: `name`, `reduction`, `dtype`.

    Call arguments:
        y_true: int `(batch,)` or `(batch, 1)`, or float `(batch, C)`: the labels.
        y_pred: Float tensor `(batch, towers, d + 1)`: vectors, and last 1.0 where
            the tower is present, 0.0 where it is absent.

    Raises:
        ValueError: If `num_negatives` is below 1.

    Example:
    >>> both = ops.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    >>> vectors = ops.stack([both, both], axis=1)
    >>> loss = MatchingLoss("single_label", num_negatives=5)
    >>> round(float(loss(ops.array([0, 1]), vectors)), 4)  # log(1 + exp(0 - 1))
    0.3133

    Reference:
    - Åberg 2018, "AUX" of early fusion.
    """

    def __init__(self, task, num_negatives, weight=1.0, **kwargs):
        super().__init__(**kwargs)
        if num_negatives < 1:
            raise ValueError(
                f"`num_negatives` must be at least 1. Received: {num_negatives}"
            )
        self.task = task
        self.num_negatives = num_negatives
        self.weight = weight

    def call(self, y_true, y_pred):
        vectors = ops.normalize(y_pred[:, :, :-1], axis=-1)
        present = y_pred[:, :, -1] > 0.5
        if self.task == "single_label":
            labels = ops.reshape(y_true, (-1,))
            other = labels[:, None] != labels[None, :]
        else:
            other = ops.matmul(y_true, ops.transpose(y_true)) < 0.5
        # Column k of row i is the k-th product after i.
        batch = ops.shape(vectors)[0]
        places = ops.arange(batch)
        following = (places[:, None] + places[None, :]) % batch
        other = ops.take_along_axis(other, following, axis=1)
        total = ops.zeros_like(vectors[:, 0, 0])
        for first, second in combinations(range(vectors.shape[1]), 2):
            a, b = vectors[:, second], vectors[:, first]
            both = present[:, first] & present[:, second]
            usable = other & ops.take(present[:, first], following)
            rank = ops.cumsum(ops.cast(usable, "int32"), axis=1)
            usable = usable & (rank <= self.num_negatives) & both[:, None]
            alike = ops.matmul(a, ops.transpose(b))
            alike = ops.take_along_axis(alike, following, axis=1)
            # Column 0 is the product itself.
            cost = ops.softplus(alike - alike[:, :1])
            total = total + ops.sum(cost * ops.cast(usable, cost.dtype), axis=1)
        return self.weight * total

    def get_config(self):
        return {
            **super().get_config(),
            "task": self.task,
            "num_negatives": self.num_negatives,
            "weight": self.weight,
        }
