"""joint: towers and fusion as one network."""

from collections.abc import Mapping

import keras
from keras import layers, ops

from tfmm.heads.early_fusion import fuse
from tfmm.heads.inputs import Problem
from tfmm.settings import Joint


def joint(
    settings: Joint,
    problem: Problem,
    towers: Mapping[str, keras.Model],
    keys: Mapping[str, str],
) -> keras.Model:
    """Puts the network of early fusion on living towers.

    Towers are layers of the model, called `TOWER_tower`, and end at their features:
    their own logits are left out, and with them what is between the two. The model
    shares the weights of the `towers` it is given, trained ones or new ones.

    Features change as towers are trained. So they are not brought to a fixed mean, but
    each product's to mean 0 and deviation 1 over its own numbers. Where a tower is
    absent, its features are replaced as in `fuse`: what it makes of an empty text or
    image does not get through. While training, layers that look at the whole batch, as
    batch normalisation, see the empty ones too.

    Args:
        settings: `[heads.NAME]` of the experiment.
        problem: The label shares; nothing else of it is read.
        towers: Tower -> its model, `{key: raw input}` -> `features`, in order.
        keys: Tower -> the key of its raw input: its modality.

    Returns:
        Model: `{"TOWER": raw input (batch, ...), "TOWER_present": bool (batch,)}`, for
        each tower -> `{"features": float32 (batch, e), "logits": float32 (batch, C)}`.

    Reference:
    - [Zahavy et al., 2016](https://arxiv.org/abs/1611.09534), section 5, end to end.
    """
    inputs, vectors = {}, {}
    for name, tower in towers.items():
        raw = tower.input[keys[name]]
        inputs[name] = keras.Input(raw.shape[1:], dtype=raw.dtype, name=name)
        to_features = keras.Model(
            tower.input, tower.output["features"], name=f"{name}_tower"
        )
        features = to_features({keys[name]: inputs[name]})
        vectors[name] = layers.LayerNormalization(
            center=False, scale=False, name=f"{name}_standardized"
        )(features)
    present = {
        name: keras.Input((), dtype="bool", name=f"{name}_present") for name in towers
    }
    inputs |= {f"{name}_present": flag for name, flag in present.items()}
    together = ops.stack(list(present.values()), axis=1)
    outputs = fuse(settings, problem.prior_logits, vectors, together)
    return keras.Model(inputs, outputs)


def rate_factors(settings: Joint, model: keras.Model) -> dict[int, float]:
    """What `tfmm.optimizers.optimizer` takes: `id` of a weight -> factor of its rate.

    Args:
        settings: `[heads.NAME]` of the experiment.
        model: What `joint` built, or its lesson's model.
    """
    return {
        id(weight): factor
        for name, factor in settings.rate_factors.items()
        # Also of layers that the tower's own training froze: here all of them train.
        for weight in model.get_layer(f"{name}_tower").weights
    }


def parts(
    settings: Joint, model: keras.Model
) -> tuple[dict[str, keras.Model], keras.Model]:
    """Cuts what `joint` built where the towers end, so that one may run without others.

    Args:
        settings: `[heads.NAME]` of the experiment.
        model: What `joint` built.

    Returns:
        Tower -> its network, `{key: raw input}` -> `{"features": (batch, d)}`; and the
        rest, a list of each tower's features `(batch, d)` and of whether it is present,
        bool `(batch,)`, in the order of the towers -> `{"features", "logits"}`.
        Together they are the model; weights are shared.
    """
    towers, cut = {}, []
    for name in settings.towers:
        tower = model.get_layer(f"{name}_tower")
        towers[name] = keras.Model(tower.input, {"features": tower.output})
        cut.append(model.get_layer(f"{name}_standardized").input)
    flags = [model.input[f"{name}_present"] for name in towers]
    return towers, keras.Model([*cut, *flags], model.output)
