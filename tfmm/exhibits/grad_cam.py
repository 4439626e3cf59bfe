"""Grad-CAM: which parts of an image speak for a label, by a network's last map."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

# A map of fewer cells on a side says little of where.
LEAST_SIDE = 4
COLORS = 3

Chain = list[keras.Model]


class GradCam:
    """Maps of an image tower.

    Of the cells `a` of a feature map and a label's logit `y`, each channel `c` counts
    by the mean over the `Z` cells of the gradient:

    `weight_c = sum_ij(dy / da_ijc) / Z`, `map_ij = relu(sum_c weight_c a_ijc)`.

    Where a mean over the cells and one dense layer follow the map, `weight_c` is that
    layer's weight over `Z`, and the map is what each cell adds to the logit. Layers run
    as when the tower is asked: no dropout, normalisation by what was learnt.

    Args:
        before: Models, one after the other, from the tower's input to the map,
            `(batch, H, W, channels)`.
        after: From there to logits `(batch, C)`.

    Reference:
    - [Selvaraju et al., 2017](https://arxiv.org/abs/1610.02391), equations 1 and 2.
    """

    def __init__(self, before: Sequence[keras.Model], after: Sequence[keras.Model]):
        self.before, self.after = list(before), list(after)
        self._maps_of = tf.function(self._maps, reduce_retracing=True)

    def __call__(
        self, batch: Mapping[str, tf.Tensor], labels: np.ndarray
    ) -> np.ndarray:
        """float32 `(batch, H, W)`, at least 0, not scaled.

        Args:
            batch: The tower's input.
            labels: int `(batch,)`, whose logits are explained.
        """
        return self._maps_of(dict(batch), tf.constant(labels, tf.int32)).numpy()

    def _maps(self, batch, labels):
        found = batch
        for model in self.before:
            found = model(found, training=False)
        with tf.GradientTape() as tape:
            tape.watch(found)
            said = found
            for model in self.after:
                said = model(said, training=False)
            # A product's logits are of its own image alone: so are the gradients.
            total = tf.reduce_sum(tf.gather(said, labels, axis=1, batch_dims=1))
        cells = tf.cast(found, tf.float32)
        gradients = tf.cast(tape.gradient(total, found), tf.float32)
        weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * cells, axis=-1))


def grad_cam(tower: keras.Model) -> GradCam | None:
    """Cuts a tower at its last feature map of 4 x 4 cells or more.

    All of the logits must come from that map: a branch of several is none. Networks
    inside the tower are looked into.

    Args:
        tower: dict of one image -> dict with `logits`.

    Returns:
        None if there is no such map, as in vision transformers.
    """
    cut = _cut(keras.Model(tower.input, tower.output["logits"]))
    return None if cut is None else GradCam(*cut)


def _cut(model: keras.Model) -> tuple[Chain, Chain] | None:
    """Models before and after the last map of one whose first output is meant."""
    for operation in reversed(model.operations):
        node = operation._inbound_nodes[0]
        [tensor, *_] = node.outputs
        if tensor is model.inputs[0]:
            continue
        after = _between(tensor, model.outputs[0])
        if after is None:
            continue
        if _is_map(tensor):
            return [keras.Model(model.input, tensor)], after
        if isinstance(operation, keras.Model):
            inner = _cut(operation)
            if inner is not None:
                into = keras.Model(model.input, node.input_tensors[0])
                return [into, *inner[0]], [*inner[1], *after]
    return None


def _between(start, end) -> Chain | None:
    """What leads from one tensor to another; None if other paths lead there too."""
    if start is end:
        return []
    try:
        return [keras.Model(start, end)]
    except ValueError:
        return None


def _is_map(tensor) -> bool:
    """Whether it is a feature map, and neither small nor the image itself."""
    if len(tensor.shape) != 4:
        return False
    _, height, width, channels = tensor.shape
    return channels > COLORS and min(height or 0, width or 0) >= LEAST_SIDE
