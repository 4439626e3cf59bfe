"""`[heads.NAME]`: gradient-boosted trees (paper D)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tfmm.settings.base import Count, CountOrZero, NotNegative, Positive, key
from tfmm.settings.heads.base import FittedHead


class BoostedTrees(FittedHead):
    """`model = "boosted_trees"`: LightGBM on the towers' probabilities (paper D)."""

    model: Literal["boosted_trees"] = key(help="The trees.")
    form: Literal["per_label", "shared"] = key(
        "shared",
        "per_label grows trees for each label from all probabilities, as paper D "
        "(single_label); shared asks one small booster about each candidate label.",
    )
    num_candidates: CountOrZero = key(
        10, "Labels of each tower that shared asks about; 0: all labels."
    )
    max_rounds: Count = key(300, "Boosting stops here at the latest.")
    patience_rounds: Count = key(
        20, "Rounds without a better validation log loss before it stops."
    )
    learning_rate: Positive = key(0.1, "Shrinkage of each tree.")
    num_leaves: Annotated[int, Field(ge=2, le=63)] = key(
        7, "Leaves of a tree, at most; 63 is what the compiled form holds."
    )
    max_depth: Count = key(3, "Depth of a tree, at most.")
    min_products_per_leaf: Count = key(
        10, "Products that a leaf needs (shared: products with a candidate label)."
    )
    l2: NotNegative = key(1.0, "L2 penalty on the leaves.")
    feature_rate: Annotated[float, Field(gt=0, le=1)] = key(
        0.8, "Share of the features that a tree may use."
    )
    num_augmented: CountOrZero = key(
        1, "Copies of the products with towers hidden at random, to learn absence."
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        self.refuse_unused(
            ("num_candidates", "form = 'shared'", self.form == "shared"),
        )
        return self
