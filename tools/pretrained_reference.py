"""Makes the tiny checkpoints of the tests, and what `transformers` says of them.

Runs in an environment of its own, as the project itself needs none of this:

    pip install torch==2.13.0 transformers==4.57.3 sacremoses==0.2.0 \
        sentencepiece==0.2.3 protobuf
    python tools/pretrained_reference.py tests/data/pretrained

Reads `titles.txt` in that folder, learns small vocabularies from it, and writes one
folder for each type of model: the files that a Hugging Face folder of this type
holds, with random weights, and `expected.npz`:

    ids, lengths   the token ids of every title one after the other, and how many
    inner, last    hidden states `(rows, T, width)` of the first `rows` titles after
                   the first and after the last layer, from PyTorch; padded with zeros

transformers 5 has no slow CamemBERT and XLM-RoBERTa tokenizers any more.
"""

import json
import shutil
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SENTENCE_PIECES = "sentencepiece.bpe.model"
NUM_TOKENS = 320
NUM_MERGES = 200
WIDTH = 8
ROWS = 6
SPREAD = 0.3  # wide enough that a wrong activation or epsilon shows
BERT_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 130,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
ROBERTA_SIZES = {**BERT_SIZES, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
FLAUBERT_SIZES = {
    "emb_dim": WIDTH,
    "n_layers": 2,
    "n_heads": 2,
    "max_position_embeddings": 130,
    "layer_norm_eps": 1e-6,
    "gelu_activation": True,
}


def main(folder: Path) -> None:
    titles = (folder / "titles.txt").read_text(encoding="utf-8").splitlines()
    sentence_pieces(folder, titles)
    for make in (bert, distilbert, roberta, xlm_roberta, camembert, flaubert):
        name = make.__name__.replace("_", "-")
        torch.manual_seed(0)
        at = folder / name
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir()
        model, tokenizer = make(at, titles)
        write(at, model, tokenizer, titles)
    at = folder / "flaubert-pre-norm"
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(folder / "flaubert" / name, at / name)
    write(at, *flaubert_model(at, pre_norm=True, gelu_activation=False), titles)


def write(at: Path, model, tokenizer, titles: list[str]) -> None:
    """Random weights, and what the model says."""
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter is norm_scale(model, parameter) else 0.0
            parameter.normal_(centre, SPREAD)
    model.eval()
    model.save_pretrained(at, safe_serialization=True)
    (at / "generation_config.json").unlink(missing_ok=True)
    (at / "model.safetensors").chmod(0o644)
    ids = [tokenizer(title)["input_ids"] for title in titles]
    states = {"inner": [], "last": []}
    with torch.no_grad():
        for row in ids[:ROWS]:
            answer = model.base_model(torch.tensor([row]), output_hidden_states=True)
            states["inner"].append(answer.hidden_states[1][0].numpy())
            states["last"].append(answer.hidden_states[-1][0].numpy())
    np.savez_compressed(
        at / "expected.npz",
        ids=np.array([x for row in ids for x in row], np.int16),
        lengths=np.array([len(row) for row in ids], np.int16),
        **{name: padded(rows) for name, rows in states.items()},
    )


def norm_scale(model, parameter):
    """The parameter itself if it is the scale of a layer normalisation."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm) and module.weight is parameter:
            return parameter
    return None


def padded(rows: list[np.ndarray]) -> np.ndarray:
    whole = np.zeros((len(rows), max(map(len, rows)), WIDTH), np.float32)
    for position, row in enumerate(rows):
        whole[position, : len(row)] = row
    return whole


def word_pieces(at: Path, titles: list[str], lowercase: bool) -> None:
    """`vocab.txt` of a WordPiece tokenizer."""
    learned = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learned.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    learned.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Left out on purpose: characters that come once, so that [UNK] is met too.
    trainer = trainers.WordPieceTrainer(
        vocab_size=NUM_TOKENS, special_tokens=special, limit_alphabet=70
    )
    learned.train_from_iterator(titles, trainer)
    words = sorted(learned.get_vocab().items(), key=lambda item: item[1])
    text = "".join(f"{word}\n" for word, _ in words)
    (at / "vocab.txt").write_text(text, encoding="utf-8")
    write_json(at / "tokenizer_config.json", {"do_lower_case": lowercase})


def bert(at: Path, titles: list[str]):
    word_pieces(at, titles, lowercase=True)
    tokenizer = transformers.BertTokenizer.from_pretrained(at)
    config = transformers.BertConfig(vocab_size=len(tokenizer), **BERT_SIZES)
    return transformers.BertModel(config), tokenizer


def distilbert(at: Path, titles: list[str]):
    word_pieces(at, titles, lowercase=False)
    tokenizer = transformers.DistilBertTokenizer.from_pretrained(at)
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=WIDTH,
        n_layers=2,
        n_heads=2,
        hidden_dim=24,
        max_position_embeddings=130,
    )
    return transformers.DistilBertModel(config), tokenizer


def roberta(at: Path, titles: list[str]):
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS + 100,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learned.train_from_iterator(titles, trainer)
    merges = json.loads(learned.to_str())["model"]["merges"]
    write_json(at / "vocab.json", learned.get_vocab())
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (at / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = transformers.RobertaTokenizer.from_pretrained(at)
    config = transformers.RobertaConfig(vocab_size=len(tokenizer), **ROBERTA_SIZES)
    return transformers.RobertaForMaskedLM(config), tokenizer


def sentence_pieces(at: Path, titles: list[str]) -> None:
    """`sentencepiece.bpe.model`, a unigram model as both published ones are.

    Kept once, as it is large: the tests put it into both folders.
    """
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(titles),
        model_prefix=str(at / "sentencepiece"),
        vocab_size=NUM_TOKENS,
        character_coverage=0.99,
        minloglevel=2,
    )
    (at / "sentencepiece.model").rename(at / SENTENCE_PIECES)
    (at / "sentencepiece.vocab").unlink()


def xlm_roberta(at: Path, titles: list[str]):
    tokenizer = transformers.XLMRobertaTokenizer(str(at.parent / SENTENCE_PIECES))
    config = transformers.XLMRobertaConfig(vocab_size=len(tokenizer), **ROBERTA_SIZES)
    return transformers.XLMRobertaModel(config), tokenizer


def camembert(at: Path, titles: list[str]):
    tokenizer = transformers.CamembertTokenizer(str(at.parent / SENTENCE_PIECES))
    # The published checkpoint has one row more than its tokenizer counts.
    size = NUM_TOKENS + 5
    config = transformers.CamembertConfig(vocab_size=size, **ROBERTA_SIZES)
    return transformers.CamembertForMaskedLM(config), tokenizer


def flaubert(at: Path, titles: list[str]):
    special = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
    write_json(at / "vocab.json", {word: i for i, word in enumerate(special)})
    (at / "merges.txt").write_text("", encoding="utf-8")
    settings = {"do_lowercase": True}
    write_json(at / "tokenizer_config.json", settings)
    empty = transformers.FlaubertTokenizer.from_pretrained(at)
    words = Counter()
    for title in titles[: len(titles) // 2]:  # so that <unk> is met too
        text = empty.moses_pipeline(empty.preprocess_text(title), lang="fr")
        words.update(empty.moses_tokenize(text, lang="fr"))
    merges, symbols = learn_merges(words)
    vocabulary = {word: i for i, word in enumerate([*special, *symbols])}
    write_json(at / "vocab.json", vocabulary)
    # As the published file: the count of each pair stands beside it.
    lines = [f"{left} {right} {count}" for (left, right), count in merges]
    (at / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return flaubert_model(at, pre_norm=False)


def flaubert_model(at: Path, **settings):
    tokenizer = transformers.FlaubertTokenizer.from_pretrained(at)
    config = transformers.FlaubertConfig(
        n_words=len(tokenizer.encoder), **{**FLAUBERT_SIZES, **settings}
    )
    return transformers.FlaubertWithLMHeadModel(config), tokenizer


def learn_merges(words: Counter) -> tuple[list, list[str]]:
    """Byte pairs of `words`, the most frequent first, and all their symbols."""
    split = {word: (*word[:-1], f"{word[-1]}</w>") for word in words}
    symbols = sorted({symbol for parts in split.values() for symbol in parts})
    merges = []
    while len(merges) < NUM_MERGES:
        pairs = Counter()
        for word, parts in split.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        best, count = max(pairs.items(), key=lambda item: (item[1], item[0]))
        merges.append((best, count))
        symbols.append("".join(best))
        split = {word: joined(parts, best) for word, parts in split.items()}
    return merges, symbols


def joined(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    whole: list[str] = []
    position = 0
    while position < len(parts):
        if parts[position : position + 2] == pair:
            whole.append("".join(pair))
            position += 2
        else:
            whole.append(parts[position])
            position += 1
    return tuple(whole)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
