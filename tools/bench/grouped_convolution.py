"""How fast SE-ResNeXt's grouped convolution is, against other ways to write it.

    python tools/bench/grouped_convolution.py --size 64 --batch 16

runs the seven kinds of 3 x 3 convolution in 32 groups that SE-ResNeXt-50 has for
images of that side, forward alone, and forward and backward, in seven ways:

- `layer`: `tfmm.layers.grouped_convolution_2d`, TensorFlow's own operation;
- `keras`: `keras.layers.Conv2D(groups=32)`, which XLA compiles, so that a stock
  server does not run it;
- `split`: a convolution for each group, and the results side by side;
- `block_diagonal`: one dense convolution whose kernel is zero between groups;
- `blocks_of_four`: the same for four groups at a time, which wastes less;
- `patches`: all windows side by side, and a matrix product for each group;
- `depthwise`: a depthwise convolution with a multiplier, and sums over groups.

All must agree with `layer` to 1e-3 of its largest value. Prints milliseconds of the
layer, and the others as multiples of it: the ways take turns within each repeat, and
the least of all repeats counts.
"""

import os
import time
from typing import Annotated

import numpy as np
import typer

from tfmm.errors import command_line

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

GROUPS = 32
# Channels, how many times the image was halved before, and strides.
KINDS = (
    (128, 2, 1),
    (256, 2, 2),
    (256, 3, 1),
    (512, 3, 2),
    (512, 4, 1),
    (1024, 4, 2),
    (1024, 5, 1),
)


def grouped_convolution(
    size: Annotated[int, typer.Option(help="Side of the image in pixels.")] = 64,
    batch: Annotated[int, typer.Option(help="Images in a batch.")] = 16,
    repeats: Annotated[int, typer.Option(help="Runs, of which the best counts.")] = 5,
) -> None:
    """Times ways to write a grouped convolution."""
    import tensorflow as tf

    print(f"{batch} images of {size} px, {repeats} repeats; ms, then multiples of it")
    header = f"{'':26}" + "".join(f"{name:>16}" for name in ways())
    for backward in (False, True):
        print("forward and backward" if backward else "forward")
        print(header)
        total = np.zeros(len(ways()))
        for channels, halvings, strides in KINDS:
            side = -(-size // 2**halvings)
            draw = np.random.default_rng(0)
            images = draw.normal(size=(batch, side, side, channels))
            kernel = draw.normal(size=(3, 3, channels // GROUPS, channels)) / 9
            arguments = [tf.constant(x, tf.float32) for x in (images, kernel)]
            calls = [_call(way, strides, backward) for way in ways().values()]
            _check(calls, arguments)
            spent = _least_seconds(calls, arguments, repeats) * 1e3
            total += spent
            print(_row(f"{channels} x {side} x {side}, stride {strides}", spent))
        print(_row("sum", total))


def ways() -> dict:
    """Name -> function of images, kernel and strides."""
    import keras
    import tensorflow as tf

    from tfmm.layers.grouped_convolution_2d import GroupedConvolution2D

    def layer(images, kernel, strides):
        options = {"groups": GROUPS, "strides": strides, "padding": "same"}
        made = GroupedConvolution2D(kernel.shape[-1], 3, **options)
        return made.convolution_op(images, kernel)

    def by_keras(images, kernel, strides):
        return keras.ops.conv(images, kernel, strides, "same")

    def split(images, kernel, strides):
        parts = tf.split(images, GROUPS, -1), tf.split(kernel, GROUPS, -1)
        pairs = zip(*parts, strict=True)
        return tf.concat([tf.nn.conv2d(x, k, strides, "SAME") for x, k in pairs], -1)

    def dense_blocks(images, kernel, strides, blocks):
        inside = GROUPS // blocks
        height, width, depth, filters = kernel.shape
        shape = (height, width, 1, depth, blocks, inside, filters // GROUPS)
        eye = tf.reshape(tf.eye(inside), (1, 1, inside, 1, 1, inside, 1))
        dense = tf.reshape(kernel, shape) * eye
        shape = (height, width, inside * depth, filters)
        kernels = tf.split(tf.reshape(dense, shape), blocks, -1)
        parts = zip(tf.split(images, blocks, -1), kernels, strict=True)
        return tf.concat([tf.nn.conv2d(x, k, strides, "SAME") for x, k in parts], -1)

    def patches(images, kernel, strides):
        height, width, depth, filters = kernel.shape
        step = (1, strides, strides, 1)
        window = (1, height, width, 1)
        cells = tf.image.extract_patches(images, window, step, (1,) * 4, "SAME")
        side = cells.shape[1]
        cells = tf.reshape(cells, (-1, height * width, GROUPS, depth))
        cells = tf.transpose(cells, (2, 0, 1, 3))
        cells = tf.reshape(cells, (GROUPS, -1, height * width * depth))
        kernels = tf.reshape(kernel, (-1, GROUPS, filters // GROUPS))
        output = tf.matmul(cells, tf.transpose(kernels, (1, 0, 2)))
        return tf.reshape(tf.transpose(output, (1, 0, 2)), (-1, side, side, filters))

    def depthwise(images, kernel, strides):
        height, width, depth, filters = kernel.shape
        each = filters // GROUPS
        kernel = tf.reshape(kernel, (height, width, depth, GROUPS, each))
        kernel = tf.transpose(kernel, (0, 1, 3, 2, 4))
        kernel = tf.reshape(kernel, (height, width, GROUPS * depth, each))
        step = (1, strides, strides, 1)
        output = tf.nn.depthwise_conv2d(images, kernel, step, "SAME")
        side = output.shape[1]
        output = tf.reshape(output, (-1, side, side, GROUPS, depth, each))
        return tf.reshape(tf.reduce_sum(output, -2), (-1, side, side, filters))

    return {
        "layer": layer,
        "keras": by_keras,
        "split": split,
        "block_diagonal": lambda x, k, s: dense_blocks(x, k, s, blocks=1),
        "blocks_of_four": lambda x, k, s: dense_blocks(x, k, s, blocks=GROUPS // 4),
        "patches": patches,
        "depthwise": depthwise,
    }


def _call(way, strides: int, backward: bool):
    import tensorflow as tf

    def forward(images, kernel):
        return (way(images, kernel, strides),)

    def both(images, kernel):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            output = way(images, kernel, strides)
            loss = tf.reduce_sum(tf.square(output))
        return output, *tape.gradient(loss, [images, kernel])

    return tf.function(both if backward else forward)


def _check(calls, arguments) -> None:
    expected = calls[0](*arguments)
    for name, call in zip(ways(), calls, strict=True):
        for a, b in zip(call(*arguments), expected, strict=True):
            worst = np.abs(a - b).max() / np.abs(b).max()
            assert worst < 1e-3, f"{name} is off by {worst:.1e}"


def _least_seconds(calls, arguments, repeats: int) -> np.ndarray:
    least = np.full(len(calls), np.inf)
    for _ in range(repeats):
        for position, call in enumerate(calls):
            started = time.perf_counter()
            for output in call(*arguments):
                output.numpy()
            spent = time.perf_counter() - started
            least[position] = min(least[position], spent)
    return least


def _row(title: str, spent: np.ndarray) -> str:
    multiples = "".join(f"{x:>16.1f}" for x in spent[1:] / spent[0])
    return f"{title:26}{spent[0]:>16.2f}{multiples}"


if __name__ == "__main__":
    command_line(grouped_convolution, "python tools/bench/grouped_convolution.py")
