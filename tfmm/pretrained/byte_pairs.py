"""Byte-pair encoding of words, as a graph function."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

END = "</w>"
# A longer word is cut here, which keeps what one word can cost within bounds.
MAX_CHARACTERS = 256


class BytePairs(tf.Module):
    """Splits words into the pieces of a vocabulary, and gives the pieces' ids.

    A word starts as its characters, the last with `</w>` behind it. Of all neighbours
    the pair that comes first in `merges` is joined, the leftmost of equals first, until
    no pair is in `merges`. Each word of a batch is split once, however often it comes.

    Args:
        vocabulary: Piece -> id.
        merges: Pairs of pieces, the first learned first.
        unknown: Id of a piece that is not in the vocabulary.

    Example:
    >>> pairs = BytePairs({"lo": 5, "l": 6, "w</w>": 7}, [("l", "o")], unknown=1)
    >>> pairs(tf.constant(["low", "lx"])).to_list()
    [[5, 7], [6, 1]]

    Reference:
    - [Sennrich et al., 2015](https://arxiv.org/abs/1508.07909)
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        unknown: int,
    ):
        super().__init__()
        # Symbol 0 is any piece that neither the vocabulary nor the merges know.
        joined = [left + right for left, right in merges]
        parts = [part for pair in merges for part in pair]
        known = dict.fromkeys([*vocabulary, *parts, *joined])
        number = {piece: i for i, piece in enumerate(known, start=1)}
        self.num_symbols = len(number) + 1
        self.ids = np.array([unknown, *(vocabulary.get(x, unknown) for x in number)])
        self.joined = np.array([*(number[piece] for piece in joined), 0])
        self.no_pair = len(merges)
        ranks: dict[int, int] = {}
        for rank, (left, right) in enumerate(merges):
            pair = number[left] * self.num_symbols + number[right]
            ranks.setdefault(pair, rank)
        with tf.init_scope():
            self.symbols = _table(list(number), list(number.values()), 0, tf.string)
            self.ranks = _table(list(ranks), list(ranks.values()), self.no_pair)

    def __call__(self, words: tf.Tensor) -> tf.RaggedTensor:
        """The pieces' ids.

        Args:
            words: string tensor `(words,)`, UTF-8.

        Returns:
            Ragged int32 tensor `(words, pieces)`.
        """
        distinct, where = tf.unique(words)
        characters = tf.strings.unicode_split(distinct, "UTF-8")[:, :MAX_CHARACTERS]
        last = characters[:, -1:]
        ends = last.with_values(tf.strings.join([last.values, END]))
        characters = tf.concat([characters[:, :-1], ends], axis=1)
        symbols = characters.with_values(self.symbols.lookup(characters.values))
        lengths = tf.cast(symbols.row_lengths(), tf.int32)
        joined, lengths = self._join(symbols.to_tensor(), lengths)
        pieces = tf.RaggedTensor.from_tensor(joined, lengths=lengths)
        ids = tf.gather(tf.constant(self.ids, tf.int32), pieces.values)
        return tf.gather(pieces.with_values(ids), where)

    def _join(self, symbols: tf.Tensor, lengths: tf.Tensor):
        """Joins pairs `(words, T)` until there is none left to join."""
        table = tf.constant(self.joined, tf.int64)

        def step(symbols, lengths, busy):
            # Only words that still changed in the step before.
            some = tf.gather(symbols, busy)
            inside = tf.range(1, tf.shape(some)[1]) < tf.gather(lengths, busy)[:, None]
            pairs = some[:, :-1] * self.num_symbols + some[:, 1:]
            ranks = tf.where(inside, self.ranks.lookup(pairs), self.no_pair)
            best = tf.reduce_min(ranks, axis=1)
            changes = best < self.no_pair
            busy = tf.boolean_mask(busy, changes)
            some = tf.boolean_mask(some, changes)
            best = tf.boolean_mask(best, changes)
            at = tf.argmin(
                tf.boolean_mask(ranks, changes), axis=1, output_type=tf.int32
            )
            # The pair's symbol goes to the left place, what follows moves up.
            place = tf.range(tf.shape(some)[1])[None, :]
            source = place + tf.cast(place > at[:, None], tf.int32)
            source = tf.minimum(source, tf.shape(some)[1] - 1)
            moved = tf.gather(some, source, batch_dims=1)
            new = tf.gather(table, best)[:, None]
            moved = tf.where(place == at[:, None], new, moved)
            symbols = tf.tensor_scatter_nd_update(symbols, busy[:, None], moved)
            fewer = tf.fill(tf.shape(busy), -1)
            lengths = tf.tensor_scatter_nd_add(lengths, busy[:, None], fewer)
            return symbols, lengths, busy

        busy = tf.range(tf.shape(symbols)[0])
        symbols, lengths, _ = tf.while_loop(
            lambda symbols, lengths, busy: tf.size(busy) > 0,
            step,
            [symbols, lengths, busy],
            shape_invariants=[
                tf.TensorShape([None, None]),
                tf.TensorShape([None]),
                tf.TensorShape([None]),
            ],
        )
        return symbols, lengths


def _table(keys: list, values: list, default: int, kind=tf.int64):
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(keys, kind), tf.constant(values, tf.int64)
        ),
        default,
    )
