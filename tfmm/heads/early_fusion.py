"""early_fusion: a network on the towers' features."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import layers, ops

from tfmm.heads.inputs import Examples, Lesson, Problem, head_inputs
from tfmm.heads.matching import MatchingLoss
from tfmm.heads.rules import product_logits
from tfmm.layers.absent_vector import AbsentVector
from tfmm.layers.convolution_projection import ConvolutionProjection
from tfmm.layers.cross_products import CrossProducts
from tfmm.layers.highway import Highway
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.settings import EarlyFusion
from tfmm.settings.heads.early_fusion import FeatureFusion

# Features that hardly ever move are taken to move by this share of their tower's mean
# variance, or a dead unit that fires once would drown all others.
LEAST_VARIANCE = 0.01


def early_fusion(settings: EarlyFusion, problem: Problem) -> keras.Model:
    """Builds a network from the features of frozen towers to logits.

    Features of different towers have very different scales. Each tower's are brought
    to mean 0 and deviation 1 over the products of `problem.fit` that it sees, by
    constants in the model. Then `fuse` does the rest.

    `start_from = "product"` adds the network's output to the product rule's logits, and
    the output layer starts at zero, so that training starts from that rule.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The task, the towers' shapes, the label shares, and the products that
            means and deviations are taken over.

    Returns:
        Model as described in `tfmm.heads`; `features` are the last hidden layer, or
        without one the combined vectors.

    Reference:
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534), section 5, multi-step.
    - Åberg 2018, "early fusion".
    - Verma et al. 2020, "Joint representation".
    """
    towers = head_inputs(problem.shapes)
    vectors = {
        name: _standardized(name, problem.fit)(features)
        for name, features in zip(problem.shapes, towers.features, strict=True)
    }
    rule_logits = None
    if settings.start_from == "product":
        here = ops.expand_dims(ops.cast(towers.present, "float32"), -1)
        rule_logits = product_logits(problem.task, towers.logits, here)
    outputs = fuse(settings, problem.prior_logits, vectors, towers.present, rule_logits)
    return keras.Model(towers.nested, outputs)


def fuse(
    settings: FeatureFusion,
    prior_logits: Sequence[float],
    vectors: Mapping[str, object],
    present,
    rule_logits=None,
) -> dict:
    """The network of early fusion and of joint training, from features to logits.

    Each tower's features are projected to `projection_units` (or stay as they are).
    Where the tower is absent, a learned vector takes their place, and takes part in
    the combination like any other; so nothing of an absent tower gets through. Who is
    present is joined to the combination. Hidden layers and the logits follow.

    `cross` brings each vector to `cross_units` numbers, by a dense layer without
    activation, before all pairwise products are taken and joined to the vectors.

    Args:
        settings: `[heads.NAME]` of the experiment.
        prior_logits: `C` logits for products that no tower sees.
        vectors: Tower -> float tensor `(batch, d)`, of comparable scales.
        present: bool tensor `(batch, towers)`.
        rule_logits: Float tensor `(batch, C)` that the network's output is added to,
            from zero on; nothing if absent.

    Returns:
        `{"features": float32 (batch, e), "logits": float32 (batch, C)}`.
    """
    projected = {}
    for position, (name, vector) in enumerate(vectors.items()):
        if settings.projection != "none":
            kinds = {"dense": layers.Dense, "convolution": ConvolutionProjection}
            vector = kinds[settings.projection](
                settings.projection_units,
                settings.projection_activation,
                name=f"{name}_projection",
                **_start(settings),
            )(vector)
        absent = AbsentVector(name=f"{name}_vector")
        projected[name] = absent(vector, present[:, position])
    here = layers.Identity(name="present")(ops.cast(present, "float32"))
    combined = _combined(settings, projected)
    hidden = layers.Dropout(settings.dropout)(combined)
    hidden = ops.concatenate([hidden, here], axis=-1)
    last = combined
    for position, units in enumerate(settings.hidden_units, start=1):
        last = layers.Dense(
            units,
            settings.hidden_activation,
            name=f"hidden_{position}",
            **_start(settings),
        )(hidden)
        hidden = layers.Dropout(settings.dropout)(last)
    options = _start(settings)
    if rule_logits is not None:
        options["kernel_initializer"] = "zeros"
    logits = layers.Dense(len(prior_logits), name="output", **options)(hidden)
    if rule_logits is not None:
        logits = logits + rule_logits
    return {
        "features": layers.Identity(name="features")(last),
        "logits": PriorWhenAbsent(prior_logits, name="logits")(logits, present),
    }


def early_fusion_lesson(
    settings: FeatureFusion,
    problem: Problem,
    model: keras.Model,
    loss: keras.losses.Loss,
) -> Lesson:
    """What the network is trained on: the labels, and that matching vectors be alike.

    The loss is `loss + matching_weight * MatchingLoss`, the second on the projected
    vectors.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: Its towers, and the labels of the products it is fitted on.
        model: What `early_fusion` or `joint` built.
        loss: Of targets and logits.
    """
    targets = problem.fit.targets
    outputs, losses = {"logits": model.output["logits"]}, {"logits": loss}
    if settings.matching_weight:
        here = model.get_layer("present").output
        outputs["matching"] = ops.stack(
            [
                ops.concatenate(
                    [
                        model.get_layer(f"{name}_vector").output,
                        here[:, position : position + 1],
                    ],
                    axis=-1,
                )
                for position, name in enumerate(problem.shapes)
            ],
            axis=1,
        )
        losses["matching"] = MatchingLoss(
            problem.task, settings.num_negatives, settings.matching_weight
        )
    return Lesson(
        model=keras.Model(model.input, outputs),
        losses=losses,
        targets=dict.fromkeys(outputs, targets),
    )


def _start(settings: FeatureFusion) -> dict:
    """How a layer's kernel starts and is held down.

    An initializer draws the same numbers each time, so that every layer needs its own.
    """
    options = {"kernel_regularizer": None}
    if settings.l2:
        options["kernel_regularizer"] = keras.regularizers.L2(settings.l2)
    if settings.initializer_stddev:
        options["kernel_initializer"] = keras.initializers.TruncatedNormal(
            stddev=settings.initializer_stddev
        )
    return options


def _combined(settings: FeatureFusion, vectors: Mapping[str, object]):
    each = list(vectors.values())
    match settings.combine:
        case "concatenate":
            return layers.Concatenate(name="combined")(each)
        case "add":
            return layers.Add(name="combined")(each)
        case "average":
            return layers.Average(name="combined")(each)
        case "max":
            return layers.Maximum(name="combined")(each)
        case "highway":
            penalty = _start(settings)["kernel_regularizer"]
            return Highway(kernel_regularizer=penalty, name="combined")(each)
        case "cross":
            narrow = [
                layers.Dense(
                    settings.cross_units, name=f"{name}_cross", **_start(settings)
                )(x)
                for name, x in vectors.items()
            ]
            products = CrossProducts(name="cross")(narrow)
            return layers.Concatenate(name="combined")([*each, products])


def _standardized(name: str, fit: Examples) -> keras.layers.Normalization:
    """The layer that brings a tower's features to mean 0 and deviation 1."""
    seen = fit.inputs[name]
    features = seen["features"][seen["present"]]
    layer = layers.Normalization(name=f"{name}_standardized")
    layer.build((None, seen["features"].shape[1]))
    if len(features):
        mean, variance = features.mean(0, np.float64), features.var(0, np.float64)
        least = LEAST_VARIANCE * variance.mean() or 1.0
        layer.adapt_mean.assign(mean)
        layer.adapt_variance.assign(np.maximum(variance, least))
        layer.finalize_state()
    return layer
