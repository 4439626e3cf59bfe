"""`[towers.NAME]` of towers that read a text."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tfmm.settings.base import (
    Activation,
    BelowOne,
    Count,
    CountOrZero,
    Positive,
    Rate,
    Width,
    WidthOrZero,
    key,
)
from tfmm.settings.training import (
    OptimizerName,
    ScheduleName,
    Tower,
    TrainableLayers,
)


class TextCnn(Tower):
    """`model = "text_cnn"`: convolutions over words (papers A and C)."""

    model: Literal["text_cnn"] = key(help="The network.")
    max_words: Count = key(40, "Words read; the rest is cut off.")
    vocabulary_size: Count = key(100_000, "Most words kept, the frequent first.")
    min_word_count: Count = key(1, "Words seen less often in training are unknown.")
    remove: list[Literal["stop_words", "digits", "punctuation", "long_words"]] = key(
        ["punctuation"],
        "What is taken out of a text before words are counted (paper C: all four); "
        "what stays of punctuation is a word a mark.",
    )
    stop_words: str = key(
        "english", "Language of the stop words, or the path of a file with one a line."
    )
    max_word_characters: Count = key(
        30, "Words of more characters than these are long_words."
    )
    embedding: str = key(
        "random",
        '"random", or the path of a file of word vectors: text (GloVe, word2vec, '
        "fastText's .vec), or binary if it ends in .bin (word2vec).",
    )
    embedding_dim: Width = key(100, "Size of a word's vector; the file's, with a file.")
    embedding_trainable: bool = key(True, "Whether training moves the word vectors.")
    kernel_sizes: Annotated[list[Count], Field(min_length=1)] = key(
        [3, 4, 5], "Words that each kind of filter spans."
    )
    filters: Width = key(128, "Filters of each kind.")
    hidden_units: WidthOrZero = key(
        0, "Width of a hidden layer after pooling; 0 for none."
    )
    hidden_activation: Activation = key("relu", "Activation of the hidden layer.")
    dropout: BelowOne = key(0.5, "Share of the features dropped while training.")

    @property
    def loaded_layer(self) -> str:
        return "" if self.embedding == "random" else "embedding"

    @model_validator(mode="after")
    def _kernels_fit(self) -> Self:
        if max(self.kernel_sizes) > self.max_words:
            raise ValueError(
                f"'kernel_sizes' must not exceed max_words = {self.max_words}. "
                f"Received: {self.kernel_sizes}"
            )
        if len(set(self.kernel_sizes)) != len(self.kernel_sizes):
            raise ValueError(
                f"'kernel_sizes' must differ. Received: {self.kernel_sizes}"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_said_in_vain(self) -> Self:
        if self.stop_words != "english" and "stop_words" not in self.remove:
            raise ValueError(
                f"stop_words = {self.stop_words!r} needs \"stop_words\" in 'remove'. "
                f"Received: {self.remove}"
            )
        if self.embedding == "random" and not self.embedding_trainable:
            raise ValueError(
                "'embedding_trainable' must be true with embedding = \"random\", or "
                "words keep vectors that mean nothing"
            )
        return self


class FastText(Tower):
    """`model = "fasttext"`: a bag of words and of hashed n-grams (paper B)."""

    model: Literal["fasttext"] = key(help="The network.")
    optimizer: OptimizerName = key("sgd", "Update rule: sgd or adagrad.")
    learning_rate: Positive = key(
        32.0,
        "Rate, once warmed up. The reference updates after each text: its rate times "
        "batch_size is about ours.",
    )
    schedule: ScheduleName = key(
        "linear", "linear, as the reference; cosine, or plateau with early stopping."
    )
    max_epochs: Count = key(25, "Training stops here at the latest.")
    batch_size: Count = key(64, "Products an update.")
    embedding_dim: Width = key(100, "Size of a vector.")
    buckets: Annotated[int, Field(ge=1, le=1_000_000_000)] = key(
        2_000_000, "Buckets that n-grams are hashed to."
    )
    min_word_count: Count = key(
        1, "Words seen less often in training have no vector of their own."
    )
    word_ngrams: Count = key(1, "Longest n-gram of words; 1 for single words.")
    min_character_ngram: Count = key(3, "Shortest n-gram of characters.")
    max_character_ngram: CountOrZero = key(
        6, "Longest n-gram of characters; 0 for none."
    )
    character_noise: Rate = key(
        0.0,
        "Share of the characters replaced in a second copy of each training text "
        "(paper B: 0.2); 0: no copy.",
    )

    @model_validator(mode="after")
    def _ngrams_fit(self) -> Self:
        longest = self.max_character_ngram
        if longest and self.min_character_ngram > longest:
            raise ValueError(
                f"'min_character_ngram' must not exceed max_character_ngram = "
                f"{longest}. Received: {self.min_character_ngram}"
            )
        return self

    @model_validator(mode="after")
    def _updates_by_rows(self) -> Self:
        for name, only in (("precision", "float32"), ("devices", 1)):
            if getattr(self, name) != only:
                raise ValueError(
                    f"{name!r} must be {only} with fasttext, whose table is updated "
                    f"by rows. Received: {getattr(self, name)}"
                )
        for _, optimization in self.stage_plan():
            if optimization.optimizer not in ("adagrad", "sgd"):
                raise ValueError(
                    "'optimizer' must be adagrad or sgd with fasttext: others change "
                    "the whole table at every step. "
                    f"Received: {optimization.optimizer}"
                )
            for name in ("momentum", "clip_norm"):
                if value := getattr(optimization, name):
                    raise ValueError(
                        f"{name!r} must be 0 with fasttext: it takes the whole table "
                        f"at every step. Received: {value:g}"
                    )
        return self


class Transformer(Tower):
    """`model = "transformer"`: a pretrained encoder of texts (paper D)."""

    has_backbone: ClassVar[bool] = True

    model: Literal["transformer"] = key(help="The network.")
    preset: Annotated[str, Field(min_length=1)] = key(
        help="A keras-hub preset's name, or a local preset's or Hugging Face folder."
    )
    load_weights: bool = key(
        True, "Whether the preset's weights are loaded, or only its architecture."
    )
    max_tokens: Annotated[int, Field(ge=3)] = key(
        256, "Tokens read, the special ones included."
    )
    pooling: Literal["first", "mean", "flatten"] = key(
        "first", "How the tokens' states become one vector."
    )
    hidden_units: WidthOrZero = key(
        0, "Width of a hidden layer after pooling; 0 for none."
    )
    hidden_activation: Activation = key("tanh", "Activation of the hidden layer.")
    trainable_layers: TrainableLayers = key(
        "all", "How many of the backbone's last layers train; the output always does."
    )
    optimizer: OptimizerName = key("adamw", "Update rule.")
    learning_rate: Positive = key(2e-5, "Rate, once warmed up.")
    dropout: BelowOne = key(0.1, "Share of the features dropped while training.")

    @property
    def loaded_layer(self) -> str:
        return "backbone" if self.load_weights else ""
