"""`[catalog]`, `[modalities.NAME]` and `[export]`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tfmm.settings.base import Count, Name, Rate, Table, key


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
    data_rate: Annotated[float, Field(gt=0.0, le=1.0)] = key(
        1.0,
        "Share of the products of train and of fusion that are learned from, by label, "
        "at least one group of each; the same of them whatever the seed, and a smaller "
        "share is a part of a larger (paper B: 0.1 for searches).",
    )
    max_unlabelled_rate: Rate = key(
        0.2, "Products without a label, as a share of all; the run stops past it."
    )
    max_bad_image_rate: Rate = key(
        0.1, "Images named but unreadable, as a share; the run stops past it."
    )
    max_placeholder_rate: Rate = key(
        1.0,
        "Images that are a placeholder (the same on many products of many labels) or "
        "of a single colour, as a share; the run stops past it. 1: never, here and for "
        "the keys below.",
    )
    max_image_twin_rate: Rate = key(
        1.0,
        "Test products with a picture that is also in train, fusion or validation, as "
        "a share of those with an image; the run stops past it.",
    )
    max_text_twin_rate: Rate = key(
        1.0,
        "The same of texts. Of each modality by itself.",
    )
    max_empty_rate: Rate = key(
        1.0,
        "Products with nothing that a model could look at, as a share of all; the run "
        "stops past it.",
    )
    hierarchy: Literal["none", "consistent"] = key(
        "none",
        "consistent: labels are paths (multi_label). Every label brings the ones above "
        "it, no label is more probable than its parent, none is assigned without it.",
    )
    path_separator: Annotated[str, Field(pattern=r"\S")] = key(
        " > ", "Mark between the steps of a path, for hierarchy."
    )
    rotation: Annotated[float, Field(ge=0.0, lt=1.0)] = key(
        0.0,
        "How far the shares are turned: with 0, 0.2, 0.4, 0.6 and 0.8 and a test share "
        "of 0.2, five runs test every product once. Not of a split column.",
    )
    folds: Annotated[int, Field(ge=0, le=100)] = key(
        0,
        "Parts that the training products are cut into, groups whole. Every tower is "
        "trained once more without each part, which gives heads outputs of products "
        'that it was not trained on (fit_on = "train_oof"); 0: none.',
    )
    cache_images: bool = key(
        False,
        "Keep decoded images in the run, so that only the first epoch decodes them: "
        "3 x side x side bytes a product (0.15 MB at 224) for each image modality and "
        "side. Changes no result; RUN/cache may be deleted at any time.",
    )

    @model_validator(mode="after")
    def _paths_are_several_labels(self) -> Self:
        if self.hierarchy != "none" and self.task == "single_label":
            raise ValueError(
                "hierarchy = 'consistent' gives a product its label and all above it; "
                "expected task = 'multi_label' with the paths as labels. "
                "Received: task = 'single_label'"
            )
        return self

    @model_validator(mode="after")
    def _paths_come_apart(self) -> Self:
        paths = self.hierarchy != "none"
        self.refuse_unused(("path_separator", "hierarchy = 'consistent'", paths))
        if paths and self.path_separator.strip() == self.label_separator.strip():
            raise ValueError(
                "'path_separator' must differ from 'label_separator', which cuts a "
                f"product's labels apart. Received: {self.path_separator!r} for both"
            )
        return self

    @model_validator(mode="after")
    def _two_folds(self) -> Self:
        if self.folds == 1:
            raise ValueError("'folds' must be 0 or at least 2. Received: 1")
        return self


class Modality(Table):
    """`[modalities.NAME]`: one named input of a product."""

    kind: Literal["text", "image", "table"] = key(help="What the columns hold.")
    columns: Annotated[list[str], Field(min_length=1)] = key(
        help="Columns: texts are joined by a space; an image has one, a path; a "
        "table's cells stay apart."
    )

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        if self.kind == "image" and len(self.columns) != 1:
            raise ValueError(
                f"an image modality reads one column. Received: {self.columns}"
            )
        return self


class Export(Table):
    """`[export]`: what `python -m export` writes if not told otherwise."""

    head: Name = key(help="The head, or the single tower, to serve.")
    top_k: Count = key(5, "Labels in an answer; at most all of them.")
    image_budget: Rate | None = key(
        None,
        "Greatest share of images that the served model looks at; it answers by words "
        "alone where they suffice. All images if neither this nor max_loss is there.",
    )
    max_loss: Rate | None = key(
        None,
        "Greatest loss of top1 or micro_f1 that skipping images may cost; instead of "
        "image_budget.",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.image_budget is not None and self.max_loss is not None:
            raise ValueError("image_budget and max_loss exclude each other")
        return self
