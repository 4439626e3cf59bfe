"""What heads share that are one linear map of what all towers say."""

from collections.abc import Sequence
from functools import partial

import keras
import numpy as np
from keras import ops

from tfmm.dataset import keep_some
from tfmm.head_data import hidden, one_output
from tfmm.heads.inputs import Examples, HeadInputs, Problem, head_inputs
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.unit_features import UnitFeatures

# Chance of a modality to be hidden from the second copy of a product.
HIDDEN_RATE = 0.3


def with_hidden(
    examples: Examples, units: Sequence[int], seed: int
) -> tuple[dict, np.ndarray]:
    """The products, and once more with towers hidden at random, to learn absence.

    Args:
        examples: The products.
        units: As in `tfmm.dataset.keep_some`.
        seed: Of the draws.

    Returns:
        Inputs of `2 n` products, the copies last, and their targets.
    """
    inputs = dict(examples.inputs)
    present = np.stack([x["present"] for x in inputs.values()], axis=1)
    copies = hidden(inputs, keep_some(present, HIDDEN_RATE, (seed, 3), units))
    both = {
        tower: {
            key: np.concatenate([values, copies[tower][key]])
            for key, values in said.items()
        }
        for tower, said in inputs.items()
    }
    return both, np.concatenate([examples.targets, examples.targets])


def joined(towers: HeadInputs, read) -> object:
    """What a linear head reads, `(batch, towers * C + towers)`.

    Args:
        towers: Symbolic inputs of a head.
        read: A tower's logits -> what is read of it; zeros where it is absent.
    """
    here = ops.cast(towers.present, "float32")
    visible = [
        read(logits) * here[:, position : position + 1]
        for position, logits in enumerate(towers.logits)
    ]
    return ops.concatenate([*visible, here], axis=-1)


def reader(problem: Problem, read):
    """A function from inputs of products to what a linear head reads of them, NumPy."""
    towers = head_inputs(problem.shapes)
    model = keras.Model(towers.nested, joined(towers, read))

    return partial(one_output, model)


def linear_head(
    problem: Problem, read, kernel: np.ndarray, bias: np.ndarray, to_own_logits
) -> keras.Model:
    """A head of one dense layer with given weights.

    Args:
        problem: The towers' shapes and the label shares.
        read: As in `joined`.
        kernel: `(towers * C + towers, C)`.
        bias: `(C,)`.
        to_own_logits: What the dense layer says -> the head's logits.

    Returns:
        Model as described in `tfmm.heads`; `features` are the towers' unit-length
        features, joined.
    """
    towers = head_inputs(problem.shapes)
    dense = keras.layers.Dense(kernel.shape[1], name="regression")
    said = to_own_logits(dense(joined(towers, read)))
    dense.set_weights([np.float32(kernel), np.float32(bias)])
    logits = PriorWhenAbsent(problem.prior_logits, name="logits")(said, towers.present)
    features = UnitFeatures(name="features")(towers.features, towers.present)
    return keras.Model(towers.nested, {"features": features, "logits": logits})
