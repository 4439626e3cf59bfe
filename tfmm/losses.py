"""The losses that towers and heads are trained with."""

import keras
from keras import ops


def weighted_sigmoid_cross_entropy(targets, logits, positive_weight=1.0):
    """Sigmoid cross-entropy whose positive term counts `positive_weight` times.

    With logits `x`, targets `z` in [0, 1] and weight `q`:

    `loss = -q z log s(x) - (1 - z) log(1 - s(x))`, computed as
    `(1 - z) x + (1 + (q - 1) z) softplus(-x)`, `softplus(x) = log(1 + exp(x))`,

    which neither overflows nor loses its gradient for large `|x|`, and has the right
    one at `x = 0`, where `max(-x, 0) + log(1 + exp(-|x|))` has not. `q > 1` buys
    recall with precision; `q = 1` is plain binary cross-entropy.

    Args:
        targets: Float tensor `(batch, C)`.
        logits: Float tensor `(batch, C)`.
        positive_weight: float above 0, or a tensor that broadcasts to `(C,)`.

    Returns:
        Float tensor `(batch, C)`, the loss of each label.

    Example:
    >>> round(float(weighted_sigmoid_cross_entropy([[1.0]], [[0.0]], 30.0)[0, 0]), 4)
    20.7944

    Reference:
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534), section 4.
    """
    logits = ops.convert_to_tensor(logits)
    targets = ops.cast(targets, logits.dtype)
    weight = 1.0 + (positive_weight - 1.0) * targets
    return (1.0 - targets) * logits + weight * ops.softplus(-logits)


@keras.saving.register_keras_serializable(package="tfmm")
class WeightedSigmoidCrossEntropy(keras.losses.Loss):
    """`weighted_sigmoid_cross_entropy`, averaged over labels and products.

    Args:
        positive_weight: float above 0.
        **kwargs: `name`, `reduction`, `dtype`.

    Raises:
        ValueError: If `positive_weight` is not above 0.
    """

    def __init__(self, positive_weight=1.0, **kwargs):
        super().__init__(**kwargs)
        if not positive_weight > 0:
            raise ValueError(
                f"`positive_weight` must be above 0. Received: {positive_weight}"
            )
        self.positive_weight = positive_weight

    def call(self, y_true, y_pred):
        loss = weighted_sigmoid_cross_entropy(y_true, y_pred, self.positive_weight)
        return ops.mean(loss, axis=-1)

    def get_config(self):
        return {**super().get_config(), "positive_weight": self.positive_weight}


def loss_for(task: str, positive_weight: float = 1.0) -> keras.losses.Loss:
    """The loss of a task, on logits.

    Args:
        task: `single_label` (softmax, targets int `(batch,)`) or `multi_label`
            (weighted sigmoid, targets float `(batch, C)`).
        positive_weight: For `multi_label` only.
    """
    if task == "single_label":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return WeightedSigmoidCrossEntropy(positive_weight)
