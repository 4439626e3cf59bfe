"""Update rules, made from an experiment's settings; by rows where gradients are.

An embedding's gradient comes as `tf.IndexedSlices`: some rows, and what to change them
by. Keras turns it into a table as large as the embedding. The rules here do not.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

from tfmm.settings import Optimization


@keras.saving.register_keras_serializable(package="tfmm")
class SparseSGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD`, which touches only the rows that were used.

    `row = row - learning_rate * gradient`, for the rows that the gradient names. A
    step's cost does not grow with the table. The result is that of the dense rule,
    as rows without a gradient would stay where they are.

    With momentum, rows move on after they were used; then, and for gradients that are
    no `tf.IndexedSlices`, this is Keras's own rule.

    Args:
        **kwargs: Those of `keras.optimizers.SGD`.

    Example:
    >>> table = keras.Variable([[1.0], [1.0], [1.0]])
    >>> rule = SparseSGD(learning_rate=0.5)
    >>> rule.build([table])
    >>> rule.apply([tf.IndexedSlices(tf.constant([[1.0], [1.0]]), [2, 2], [3, 1])])
    >>> table.numpy().tolist()
    [[1.0], [1.0], [0.0]]
    """

    def update_step(self, gradient, variable, learning_rate):
        if self.momentum or not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        rate = tf.cast(learning_rate, variable.dtype)
        change = tf.cast(gradient.values, variable.dtype) * rate
        self.assign_sub(variable, tf.IndexedSlices(change, gradient.indices))


@keras.saving.register_keras_serializable(package="tfmm")
class SparseAdagrad(keras.optimizers.Adagrad):
    """`keras.optimizers.Adagrad`, which touches only the rows that were used.

    `sum = sum + gradient ** 2`,
    `row = row - learning_rate * gradient / sqrt(sum + epsilon)`, for the rows that the
    gradient names; a row that it names twice gets both at once. The result is that of
    the dense rule. The sums take as much memory as the table.

    For gradients that are no `tf.IndexedSlices`, this is Keras's own rule.

    Args:
        **kwargs: Those of `keras.optimizers.Adagrad`.

    Reference:
    - [Duchi et al., 2011](
        https://jmlr.org/papers/volume12/duchi11a/duchi11a.pdf)
    """

    def build(self, variables):
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)
        # Keras's way to fill them holds each twice while it does.
        self._accumulators = self.add_optimizer_variables(
            variables,
            "accumulator",
            initializer=lambda shape, dtype: tf.fill(
                shape, tf.constant(self.initial_accumulator_value, dtype)
            ),
        )

    def update_step(self, gradient, variable, learning_rate):
        if not isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        rate = tf.cast(learning_rate, variable.dtype)
        rows, position = tf.unique(gradient.indices)
        values = tf.math.unsorted_segment_sum(
            tf.cast(gradient.values, variable.dtype), position, tf.size(rows)
        )
        sums = self._accumulators[self._get_variable_index(variable)].value
        sums.scatter_add(tf.IndexedSlices(tf.square(values), rows))
        change = rate * values / tf.sqrt(tf.gather(sums, rows) + self.epsilon)
        self.assign_sub(variable, tf.IndexedSlices(change, rows))


class _RateFactors:
    """Mixed into an update rule: some variables move at a part of its rate."""

    def __init__(self, factors: Mapping[int, float], **options):
        super().__init__(**options)
        self._factors = dict(factors)

    def build(self, variables):
        if not self.built:
            self._factor_of = [self._factors.get(id(x), 1.0) for x in variables]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        factor = self._factor_of[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def _apply_weight_decay(self, variables):
        whole = self.weight_decay
        if whole is None:
            return
        try:
            for variable in variables:
                factor = self._factor_of[self._get_variable_index(variable)]
                self.weight_decay = whole * factor
                super()._apply_weight_decay([variable])
        finally:
            self.weight_decay = whole


def optimizer(
    settings: Optimization, factors: Mapping[int, float] | None = None
) -> keras.optimizers.Optimizer:
    """The update rule of a stage.

    Args:
        settings: Rule, rate and what belongs to them.
        factors: `id` of a variable -> what its rate, and its weight decay, are of the
            others'. Gradients are cut to `clip_norm` before.
    """
    options = {"learning_rate": settings.learning_rate}
    if settings.clip_norm:
        options["global_clipnorm"] = settings.clip_norm
    if settings.epsilon is not None:
        options["epsilon"] = settings.epsilon
    match settings.optimizer:
        case "adagrad":
            rule = SparseAdagrad
        case "adam":
            rule = keras.optimizers.Adam
        case "adamw":
            rule = keras.optimizers.AdamW
            options["weight_decay"] = settings.weight_decay
        case "rmsprop":
            rule = keras.optimizers.RMSprop
            options["momentum"] = settings.momentum
        case "sgd":
            rule = SparseSGD
            options["momentum"] = settings.momentum
    if factors:
        rule = type(f"{rule.__name__}ByParts", (_RateFactors, rule), {})
        options["factors"] = factors
    return rule(**options)
