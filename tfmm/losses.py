"""The losses that towers and heads are trained with."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import ops

from tfmm.errors import ExperimentError, did_you_mean
from tfmm.settings import Training


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

    Label smoothing `e` trains towards `(1 - e) z + e / 2` instead of `z`: towards
    logits of `+-log(2 / e - 1)` instead of infinite ones (with `q = 1`).

    Args:
        positive_weight: float above 0, or `C` of them, one for each label.
        label_smoothing: float in [0, 1).
        **kwargs: `name`, `reduction`, `dtype`.

    Call arguments:
        y_true: Float tensor `(batch, C)` in [0, 1].
        y_pred: Float tensor `(batch, C)`: logits.

    Raises:
        ValueError: If a weight is not above 0, or `label_smoothing` out of range.
    """

    def __init__(self, positive_weight=1.0, label_smoothing=0.0, **kwargs):
        super().__init__(**kwargs)
        if not np.all(np.asarray(positive_weight) > 0):
            raise ValueError(
                f"`positive_weight` must be above 0. Received: {positive_weight}"
            )
        self.positive_weight = positive_weight
        self.label_smoothing = _smoothing(label_smoothing)

    def call(self, y_true, y_pred):
        logits = ops.convert_to_tensor(y_pred)
        targets = ops.cast(y_true, logits.dtype)
        targets = targets * (1.0 - self.label_smoothing) + self.label_smoothing / 2.0
        weight = ops.convert_to_tensor(self.positive_weight, logits.dtype)
        return ops.mean(
            weighted_sigmoid_cross_entropy(targets, logits, weight), axis=-1
        )

    def get_config(self):
        return {
            **super().get_config(),
            "positive_weight": self.positive_weight,
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable(package="tfmm")
class WeightedSoftmaxCrossEntropy(keras.losses.Loss):
    """Softmax cross-entropy on logits, with a weight for each label's products.

    With logits `x`, the product's label `y`, smoothing `e` and weights `w`:

    `loss = w_y ((1 - e) (-log p_y) + e mean_c(-log p_c))`, `p = softmax(x)`,

    the mean over products taken without dividing by the weights. With `e = 0` and
    all weights 1 it is `keras.losses.SparseCategoricalCrossentropy`.

    Args:
        class_weights: `C` floats above 0, one for each label; `None` for all 1.
        label_smoothing: float in [0, 1).
        **kwargs: `name`, `reduction`, `dtype`.

    Call arguments:
        y_true: int tensor `(batch,)` or `(batch, 1)`.
        y_pred: Float tensor `(batch, C)`: logits.

    Raises:
        ValueError: If a weight is not above 0, or `label_smoothing` out of range.

    Example:
    >>> loss = WeightedSoftmaxCrossEntropy(class_weights=[1.0, 3.0])
    >>> round(float(loss(np.array([1]), np.zeros((1, 2)))), 4)  # 3 log 2
    2.0794
    """

    def __init__(self, class_weights=None, label_smoothing=0.0, **kwargs):
        super().__init__(**kwargs)
        if class_weights is not None:
            class_weights = [float(x) for x in class_weights]
            if not all(x > 0 for x in class_weights):
                raise ValueError(
                    f"`class_weights` must be above 0. Received: {class_weights}"
                )
        self.class_weights = class_weights
        self.label_smoothing = _smoothing(label_smoothing)

    def call(self, y_true, y_pred):
        logits = ops.convert_to_tensor(y_pred)
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        log_p = ops.log_softmax(logits, axis=-1)
        chosen = ops.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        loss = -ops.sum(chosen * log_p, axis=-1)
        if self.label_smoothing:
            spread = -ops.mean(log_p, axis=-1)
            loss = (1.0 - self.label_smoothing) * loss + self.label_smoothing * spread
        if self.class_weights is not None:
            loss = loss * ops.take(
                ops.convert_to_tensor(self.class_weights, logits.dtype), labels
            )
        return loss

    def get_config(self):
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "label_smoothing": self.label_smoothing,
        }


def loss_for(
    task: str,
    settings: Training,
    label_names: Sequence[str],
    targets: np.ndarray,
) -> keras.losses.Loss:
    """The loss of a training, on logits.

    Args:
        task: `single_label` (softmax) or `multi_label` (weighted sigmoid).
        settings: Of the tower or head: `positive_weight`, `class_weights`,
            `label_smoothing`.
        label_names: The `C` labels, in order.
        targets: What it is trained on: int32 `(n,)` or float32 `(n, C)`. `balanced`
            weights are `n / (C count)` for the labels that occur, as scikit-learn's.

    Raises:
        ExperimentError: If a weight names a label that there is not.
    """
    if task == "multi_label":
        weight = settings.positive_weight
        if isinstance(weight, dict):
            weight = _by_label("positive_weight", weight, label_names)
        return WeightedSigmoidCrossEntropy(weight, settings.label_smoothing)
    weights = None
    if isinstance(settings.class_weights, dict):
        weights = _by_label("class_weights", settings.class_weights, label_names)
    elif settings.class_weights == "balanced":
        counts = np.bincount(targets, minlength=len(label_names))
        # A label without a product never asks for its weight.
        weights = len(targets) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return WeightedSoftmaxCrossEntropy(weights, settings.label_smoothing)


def _by_label(
    key: str, weights: Mapping[str, float], label_names: Sequence[str]
) -> list[float]:
    for name in weights:
        if name not in label_names:
            raise ExperimentError(
                f"{key}: {name!r} is no label of the catalog"
                f"{did_you_mean(name, label_names)}"
            )
    return [weights.get(name, 1.0) for name in label_names]


def _smoothing(value: float) -> float:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"`label_smoothing` must be in [0, 1). Received: {value}")
    return value
