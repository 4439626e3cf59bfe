"""Word vectors of one's own: skip-gram on the training split of a catalog.

    python tools/word_vectors.py hparams/fashion.toml --catalog catalog.csv \\
        --modality title --to title.vec

reads the catalog and its splits as `tfmm.fit` does, cuts the texts of one modality
into the words that its `text_cnn` sees, trains vectors on the split `train` alone
and writes them in word2vec's text format. In the experiment,
`embedding = "title.vec"` and `embedding_dim = 100` then start the tower from them.

The same catalog and experiment give the same file on a machine. Needs gensim:
`pip install -e '.[vectors]'`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tfmm import experiment
from tfmm.catalog import Catalog
from tfmm.catalog import load as load_catalog
from tfmm.errors import ExperimentError, TfmmError, command_line, did_you_mean
from tfmm.experiment import Experiment
from tfmm.options import CatalogFile, Changes, Hparams
from tfmm.progress import say
from tfmm.run import replacing

SUFFIXES = (".vec", ".txt")
CHUNK = 4096


def read_words(
    catalog: Catalog, settings: Experiment, modality: str, split: str
) -> list[list[str]]:
    """The words of the texts of a split, as the modality's `text_cnn` counts them.

    Args:
        catalog: Where the texts are.
        settings: Names the towers; without a `text_cnn` only punctuation goes.
        modality: Of kind text.
        split: One of the catalog's.

    Returns:
        For each text that has a word its words, in order.

    Raises:
        ExperimentError: If two towers count the words differently.
    """
    import tensorflow as tf

    from tfmm.text import Removal, split_words
    from tfmm.towers.text_cnn import removal

    removals = {
        removal(tower): name
        for name, tower in settings.towers.items()
        if tower.model == "text_cnn" and tower.modality == modality
    }
    if len(removals) > 1:
        raise ExperimentError(
            f"expected towers of {modality} with one 'remove'. "
            f"Received: different ones in {', '.join(removals.values())}"
        )
    removes = next(iter(removals), Removal())
    texts = catalog.texts[modality][catalog.rows(split)]
    found = []
    for start in range(0, len(texts), CHUNK):
        part = tf.constant(list(texts[start : start + CHUNK]), tf.string)
        found += split_words(part, removes).to_list()
    return [[word.decode("utf-8") for word in words] for words in found if words]


def train(
    texts: Sequence[Sequence[str]],
    dim: int,
    window: int,
    epochs: int,
    min_count: int,
    seed: int,
):
    """Trains skip-gram with negative sampling.

    One thread and a seed: several threads would race for the weights.

    Args:
        texts: The words of each.
        dim: Numbers in a vector.
        window: Words to either side that a word predicts.
        epochs: Times that the texts are read.
        min_count: Words seen less often get no vector.
        seed: Where random draws start.

    Returns:
        gensim's `KeyedVectors`.

    Raises:
        TfmmError: If gensim is not installed, or no word is left.

    Reference:
    - [Mikolov et al., 2013](https://arxiv.org/abs/1310.4546)
    """
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise TfmmError(
            "word vectors need gensim: pip install -e '.[vectors]'"
        ) from None
    words, counts = np.unique(
        [word for text in texts for word in text], return_counts=True
    )
    if not (counts >= min_count).any():
        raise TfmmError(
            f"expected a word that is seen at least {min_count} times in 'train'. "
            f"Received: {len(words)} words, none so often"
        )
    model = Word2Vec(
        texts,
        sg=1,
        vector_size=dim,
        window=window,
        epochs=epochs,
        min_count=min_count,
        seed=seed,
        workers=1,
    )
    return model.wv


def word_vectors(
    hparams: Hparams,
    catalog: CatalogFile,
    modality: Annotated[str, typer.Option(help="The text to read.")],
    to: Annotated[Path, typer.Option(help="File for the vectors (.vec or .txt).")],
    dim: Annotated[int, typer.Option(min=1, help="Numbers in a vector.")] = 100,
    window: Annotated[
        int, typer.Option(min=1, help="Words to either side that a word predicts.")
    ] = 5,
    epochs: Annotated[
        int, typer.Option(min=1, help="Times that the texts are read.")
    ] = 5,
    min_count: Annotated[
        int, typer.Option(min=1, help="Words seen less often get no vector.")
    ] = 1,
    set_: Changes = None,
) -> None:
    """Trains word vectors on the training split of a catalog and writes them."""
    settings = experiment.load(hparams, set_ or [])
    kinds = {name: each.kind for name, each in settings.modalities.items()}
    if kinds.get(modality) != "text":
        names = [name for name, kind in kinds.items() if kind == "text"]
        raise ExperimentError(
            f"--modality: {modality!r} is no text of {hparams}"
            f"{did_you_mean(modality, names)}"
        )
    if to.suffix not in SUFFIXES:
        raise TfmmError(f"--to: expected a name in .vec or .txt. Received: {to}")
    if not catalog.is_file():
        raise TfmmError(f"{catalog}: no such catalog file")
    products = load_catalog(catalog, settings)
    texts = read_words(products, settings, modality, "train")
    say(f"{modality}: training on {sum(map(len, texts)):,} words")
    vectors = train(texts, dim, window, epochs, min_count, settings.seed)
    with replacing(to) as partial:
        vectors.save_word2vec_format(str(partial))
    print(f"{to}: {len(vectors):,} words, {dim} numbers each")
    for split in ("train", "validation"):
        words = {
            word
            for text in read_words(products, settings, modality, split)
            for word in text
        }
        if words:
            share = len(words & set(vectors.key_to_index)) / len(words)
            print(f"cover {share:.1%} of the {len(words):,} words of {split!r}")


if __name__ == "__main__":
    command_line(word_vectors, "python tools/word_vectors.py")
