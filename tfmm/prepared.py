"""Training on ids that were looked up once, not in every epoch."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfmm.character_noise import character_noise as add_noise

TEXTS_AT_ONCE = 1024
BATCHES_AHEAD = 8


def epochs(
    prepare: Callable[[tf.Tensor], tf.Tensor],
    texts: np.ndarray,
    targets: np.ndarray,
    batch_size: int,
    seed: int,
    character_noise: float,
) -> Callable[[int], tf.data.Dataset]:
    """Prepares texts now, and gives them shuffled for as many epochs as wanted.

    The ids are kept flat, 4 bytes each, without padding.

    Args:
        prepare: The tower's layer `prepare`: string `(batch,)` -> int32
            `(batch, longest)`, 0 where padded.
        texts: `(n,)` raw texts.
        targets: float32 `(n, C)` or int32 `(n,)`.
        batch_size: Products a batch; the last one may be smaller.
        seed: The run's seed. With the epoch it decides the order.
        character_noise: Share of the characters replaced in a second copy of each
            text, drawn once from the seed; 0 for no copy.

    Returns:
        Function from an epoch's number to its batches: pairs of the ids, int32
        `(batch, longest)`, 0 where padded, which the tower's `network` takes, and
        `{"logits": targets}`.

    Example:
    >>> lengths = lambda texts: tf.strings.length(texts)[:, None]
    >>> epoch = epochs(lengths, np.array(["a", "bb"]), np.array([1, 2]), 2, 0, 0.0)
    >>> [sorted(ids.numpy().tolist()) for ids, targets in epoch(1)]
    [[[1], [2]]]
    """
    if character_noise:
        noisy = add_noise(texts.tolist(), character_noise, seed)
        texts = np.concatenate([texts.astype(object), noisy])
        targets = np.concatenate([targets, targets])
    signature = [tf.TensorSpec([None], tf.string)]
    prepare = tf.function(prepare, input_signature=signature)
    values, lengths = [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = texts[start : start + TEXTS_AT_ONCE].tolist()
        ids = prepare(tf.constant(part, tf.string)).numpy()
        values.append(ids[ids != 0])
        lengths.append((ids != 0).sum(axis=1))
    rows = tf.RaggedTensor.from_row_splits(
        np.concatenate(values), np.cumsum(np.concatenate(lengths)), validate=False
    )
    targets = tf.constant(targets)

    def epoch(number: int) -> tf.data.Dataset:
        order = tf.constant(
            np.random.default_rng((seed, number)).permutation(len(texts))
        )

        def batch(start: tf.Tensor):
            chosen = order[start : start + batch_size]
            ids = tf.gather(rows, chosen).to_tensor()
            return ids, {"logits": tf.gather(targets, chosen)}

        starts = tf.data.Dataset.range(0, len(texts), batch_size)
        return starts.map(batch).prefetch(BATCHES_AHEAD)

    return epoch
