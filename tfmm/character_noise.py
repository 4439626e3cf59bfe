"""Texts with some of their characters replaced: paper B's augmentation."""

from collections.abc import Sequence

import numpy as np

TEXTS_AT_ONCE = 4096


def character_noise(texts: Sequence[str], share: float, seed: int) -> np.ndarray:
    """Replaces a share of the characters of each text by random ones.

    Which ones of a text, `round(share * characters)` of them, spaces included, is
    drawn evenly. What they become is drawn evenly from all characters that occur
    in `texts`, so a few stay as they are (ours: the thesis does not say).

    Args:
        texts: `n` raw texts.
        share: In [0, 1].
        seed: The same seed gives the same noise.

    Returns:
        `(n,)` strings, each as long as it was.

    Example:
    >>> noisy = character_noise(["aaaaaaaaaa", "bb"], share=0.5, seed=0)
    >>> [len(text) for text in noisy]
    [10, 2]

    Reference:
    - Åberg 2018, the text tower.
    """
    draw = np.random.default_rng(seed)
    alphabet = np.array(sorted({ord(c) for text in texts for c in text}), np.uint32)
    noisy = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = list(texts[start : start + TEXTS_AT_ONCE])
        lengths = np.array([len(text) for text in part])
        characters = np.array([ord(c) for text in part for c in text], np.uint32)
        if len(characters):
            # The characters of each text in random order; the first ones go.
            text_of = np.repeat(np.arange(len(part)), lengths)
            order = np.lexsort((draw.random(len(characters)), text_of))
            starts = np.cumsum(lengths) - lengths
            rank = np.arange(len(characters)) - starts[text_of]
            gone = order[rank < np.rint(share * lengths)[text_of]]
            characters[gone] = draw.choice(alphabet, len(gone))
        written = "".join(map(chr, characters))
        ends = np.cumsum(lengths)
        noisy += [written[e - n : e] for n, e in zip(lengths, ends, strict=True)]
    return np.array(noisy, object)
