"""Every key of an experiment file: its type, bounds, default and help.

`experiment.py` reads a TOML into these tables. Adding a key here is all that is
needed for the file, `--set`, the error messages and `docs/experiment.md`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SPLITS = ("train", "fusion", "validation", "test")

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
Activation = Literal["linear", "sigmoid", "relu", "tanh"]


class Table(BaseModel):
    """A TOML table: frozen, refusing keys it does not know, and inf and nan."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def key(default: Any = ..., help: str = "") -> Any:
    """One key with its default and its help text."""
    return Field(default, description=help)


class Splits(Table):
    """`[catalog.splits]`: shares of the products; they add up to 1."""

    train: Rate = key(0.7, "Share that towers are trained on.")
    fusion: Rate = key(0.1, "Share that heads are fitted on.")
    validation: Rate = key(0.1, "Share for stopping, calibration and thresholds.")
    test: Rate = key(0.1, "Share that only reports look at.")

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        total = self.train + self.fusion + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"splits must add up to 1. Received: {total:g}")
        return self


class Catalog(Table):
    """`[catalog]`: how to read the table of products."""

    task: Literal["single_label", "multi_label"] = key(
        help="One label a product (softmax) or several (sigmoid)."
    )
    id: str = key("id", "Column with the product's id.")
    labels: str = key("labels", "Column with the product's labels.")
    group: str = key(
        "group", "Column; products of one group share a split. Used if there."
    )
    split: str = key("split", "Column naming each product's split. Used if there.")
    label_separator: Annotated[str, Field(min_length=1)] = key(
        "|", 'Mark between labels (multi_label), or "json" for a JSON list.'
    )
    min_products_per_label: Count = key(1, "Labels with fewer products are left out.")
    splits: Splits = key(Splits(), "Shares, where no split column says otherwise.")
    max_unlabelled_rate: Rate = key(
        0.2, "Products without a label, as a share of all; the run stops past it."
    )
    max_bad_image_rate: Rate = key(
        0.1, "Images named but unreadable, as a share; the run stops past it."
    )


class Modality(Table):
    """`[modalities.NAME]`: one named input of a product."""

    kind: Literal["text", "image"] = key(help="What the columns hold.")
    columns: Annotated[list[str], Field(min_length=1)] = key(
        help="Columns: texts are joined by a space; an image has one, a path."
    )

    @model_validator(mode="after")
    def _one_image_column(self) -> Self:
        if self.kind == "image" and len(self.columns) != 1:
            raise ValueError(
                f"an image modality reads one column. Received: {self.columns}"
            )
        return self


class Training(Table):
    """How a network is trained; shared by towers and trained heads."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = key("adam", "Update rule.")
    learning_rate: Positive = key(1e-3, "Rate of the first epoch.")
    momentum: BelowOne = key(0.0, "Momentum; rmsprop and sgd only.")
    weight_decay: Annotated[float, Field(ge=0.0)] = key(
        0.0, "Decoupled weight decay; adamw only."
    )
    batch_size: Count = key(32, "Products an update.")
    max_epochs: Count = key(50, "Training stops here at the latest.")
    patience_epochs: Count = key(
        3, "Epochs in a row without a better validation figure before halving."
    )
    max_halvings: Annotated[int, Field(ge=0)] = key(
        3, "Times the rate is halved before training stops."
    )
    monitor: Literal["top1", "micro_f1", "macro_f1", "loss"] = key(
        "top1", "Validation figure that decides what is better."
    )
    positive_weight: Positive = key(
        1.0, "Weight of the positive term of the sigmoid loss (multi_label)."
    )

    @model_validator(mode="after")
    def _optimizer_takes_it(self) -> Self:
        if self.momentum and self.optimizer not in ("rmsprop", "sgd"):
            raise ValueError(
                f"'momentum' goes with rmsprop or sgd. Received: {self.optimizer}"
            )
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(
                f"'weight_decay' goes with adamw. Received: {self.optimizer}"
            )
        return self


class TextCnn(Training):
    """`model = "text_cnn"`: convolutions over words (papers A and C)."""

    model: Literal["text_cnn"] = key(help="The network.")
    modality: Name = key(help="The text modality it reads.")
    max_words: Count = key(40, "Words read; the rest is cut off.")
    vocabulary_size: Count = key(100_000, "Most words kept, the frequent first.")
    min_word_count: Count = key(1, "Words seen less often in training are unknown.")
    embedding_dim: Count = key(100, "Size of a word's vector.")
    kernel_sizes: Annotated[list[Count], Field(min_length=1)] = key(
        [3, 4, 5], "Words that each kind of filter spans."
    )
    filters: Count = key(128, "Filters of each kind.")
    hidden_units: Annotated[int, Field(ge=0)] = key(
        0, "Width of a hidden layer after pooling; 0 for none."
    )
    hidden_activation: Activation = key("relu", "Activation of the hidden layer.")
    dropout: BelowOne = key(0.5, "Share of the features dropped while training.")

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


class ResNet50(Training):
    """`model = "resnet50"`: the image tower of paper C."""

    model: Literal["resnet50"] = key(help="The network.")
    modality: Name = key(help="The image modality it reads.")
    image_size: Annotated[int, Field(ge=32, le=1024)] = key(
        224, "Side in pixels that images are resized to."
    )
    weights: str = key("none", '"none", "imagenet", or the path of a weights file.')
    trainable_layers: Annotated[int, Field(ge=0)] | Literal["all"] = key(
        "all", "How many of the network's last layers train; the output always does."
    )
    batch_normalization_momentum: BelowOne = key(
        0.99, "Inertia of the running statistics; 0.9 suits small catalogs."
    )
    dropout: BelowOne = key(0.0, "Share of the features dropped while training.")
    random_flip: bool = key(False, "Mirror half of the training images left-right.")

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> Self:
        if self.weights == "none" and self.trainable_layers != "all":
            raise ValueError(
                '\'trainable_layers\' must be "all" with weights = "none", or '
                f"random layers stay frozen. Received: {self.trainable_layers}"
            )
        return self


class Rule(Table):
    """`model = "max" | "mean" | "product"`: rules on probabilities (paper B)."""

    model: Literal["max", "mean", "product"] = key(help="The rule.")
    towers: Annotated[list[Name], Field(min_length=2)] = key(help="Towers it fuses.")


class PolicyNetwork(Training):
    """`model = "policy_network"`: a learned late fusion (papers B and C)."""

    model: Literal["policy_network"] = key(help="The network.")
    towers: Annotated[list[Name], Field(min_length=2)] = key(help="Towers it fuses.")
    max_epochs: Count = key(200, "Training stops here at the latest.")
    monitor: Literal["top1", "micro_f1", "macro_f1", "loss"] = key(
        "loss", "Validation figure that decides what is better."
    )
    inputs: Literal["probabilities", "log_probabilities"] = key(
        "log_probabilities", "What it reads of each tower."
    )
    hidden_units: list[Count] = key([100], "Widths of the hidden layers.")
    activations: list[Activation] = key(["tanh"], "Activation of each hidden layer.")
    dropout: BelowOne = key(0.0, "Share of each hidden layer dropped in training.")
    l2: Annotated[float, Field(ge=0.0)] = key(0.0, "L2 penalty on the weights.")
    initializer_stddev: Positive = key(
        0.01, "Spread of the first weights (truncated normal; paper B)."
    )
    start_from: Literal["zero", "product"] = key(
        "product", "What it adds to: nothing, or the product rule's logits."
    )
    modality_dropout: BelowOne = key(
        0.1, "Chance that a tower is hidden from a training product."
    )
    fit_on: Literal["fusion", "train", "validation"] = key(
        "fusion", "Split whose outputs it is fitted on."
    )

    @model_validator(mode="after")
    def _one_activation_each(self) -> Self:
        if len(self.hidden_units) != len(self.activations):
            raise ValueError(
                f"'activations' needs one entry for each of the "
                f"{len(self.hidden_units)} hidden_units. Received: {self.activations}"
            )
        return self


class Export(Table):
    """`[export]`: what `python -m export` writes if not told otherwise."""

    head: Name = key(help="The head, or the single tower, to serve.")
    top_k: Count = key(5, "Labels in an answer; at most all of them.")


TowerSettings = Annotated[TextCnn | ResNet50, Field(discriminator="model")]
HeadSettings = Annotated[Rule | PolicyNetwork, Field(discriminator="model")]
TOWER_KINDS = {"text_cnn": "text", "resnet50": "image"}
