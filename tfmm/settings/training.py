"""How networks are trained: keys that towers and trained heads share, and stages."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tfmm.settings.base import (
    BelowOne,
    Count,
    CountOrZero,
    Name,
    NotNegative,
    Positive,
    Table,
    key,
)

OptimizerName = Literal["adagrad", "adam", "adamw", "rmsprop", "sgd"]
ScheduleName = Literal["plateau", "cosine", "linear"]
TrainableLayers = CountOrZero | Literal["all"]


class Optimization(Table):
    """By which rule, at which rate, and until when."""

    optimizer: OptimizerName = key("adam", "Update rule.")
    learning_rate: Positive = key(1e-3, "Rate, once warmed up.")
    momentum: BelowOne = key(0.0, "Momentum; rmsprop and sgd only.")
    epsilon: Positive | None = key(
        None, "Added to what the optimiser divides by; its own if absent. Not sgd."
    )
    weight_decay: NotNegative = key(0.0, "Decoupled weight decay; adamw only.")
    clip_norm: NotNegative = key(
        0.0, "Longest gradient of all weights together; longer ones are cut. 0: none."
    )
    warmup_epochs: NotNegative = key(
        0.0, "Epochs, or a part of one, in which the rate grows from 0."
    )
    schedule: ScheduleName = key(
        "plateau",
        "plateau halves the rate when validation stalls; cosine and linear take it to "
        "0 over max_epochs and never stop early.",
    )
    max_epochs: Count = key(50, "Training stops here at the latest.")
    patience_epochs: CountOrZero = key(
        3, "Epochs in a row without a better figure before halving; 0: never. plateau."
    )
    max_halvings: CountOrZero = key(
        3, "Times the rate is halved before training stops. plateau."
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
        if self.epsilon is not None and self.optimizer == "sgd":
            raise ValueError("'epsilon' does not go with sgd")
        if self.warmup_epochs > self.max_epochs:
            raise ValueError(
                f"'warmup_epochs' must not exceed max_epochs = {self.max_epochs}. "
                f"Received: {self.warmup_epochs:g}"
            )
        return self


class Stage(Table):
    """`[[towers.NAME.stages]]`: a part of a training; what it leaves out is the
    tower's own."""

    trainable_layers: TrainableLayers | None = key(
        None,
        "How many of the backbone's last layers train; what is on top always does.",
    )
    optimizer: OptimizerName | None = key(None, "Update rule.")
    learning_rate: Positive | None = key(None, "Rate, once warmed up.")
    momentum: BelowOne | None = key(None, "Momentum.")
    epsilon: Positive | None = key(None, "Added to what the optimiser divides by.")
    weight_decay: NotNegative | None = key(None, "Decoupled weight decay.")
    clip_norm: NotNegative | None = key(None, "Longest gradient.")
    warmup_epochs: NotNegative | None = key(None, "Epochs in which the rate grows.")
    schedule: ScheduleName | None = key(None, "plateau, cosine or linear.")
    max_epochs: Count | None = key(None, "Epochs of this stage at the most.")
    patience_epochs: CountOrZero | None = key(None, "Stale epochs before halving.")
    max_halvings: CountOrZero | None = key(None, "Halvings before the stage ends.")


class Training(Optimization):
    """How a network is trained; shared by towers and trained heads."""

    batch_size: Count = key(32, "Products an update.")
    monitor: Literal["top1", "micro_f1", "macro_f1", "loss"] = key(
        "top1",
        "Validation figure that decides what is better; loss is the one without "
        "weights and smoothing.",
    )
    positive_weight: Positive | dict[str, Positive] = key(
        1.0,
        "Weight of the positive term of the sigmoid loss (multi_label): one number, or "
        "a table by label; labels not named have 1.",
    )
    class_weights: Literal["none", "balanced"] | dict[str, Positive] = key(
        "none",
        "Weight of a product by its label (single_label): balanced gives rare labels "
        "as much say as frequent ones; or a table; labels not named have 1.",
    )
    label_smoothing: BelowOne = key(
        0.0, "Share of the target that is spread over all answers."
    )


class Tower(Training):
    """What every tower has."""

    has_backbone: ClassVar[bool] = False

    modality: Name = key(help="The modality it reads.")
    dropout: BelowOne = key(0.0, "Share of the features dropped while training.")
    features_from: str = key(
        "", "Layer that features are taken from; what goes into the output if empty."
    )
    initializer_stddev: NotNegative = key(
        0.0,
        "Spread of the first weights that come from no file (normal, cut off at two "
        "deviations; paper B: 0.01). 0: each layer's own.",
    )
    precision: Literal["float32", "mixed_bfloat16"] = key(
        "float32", "What training computes in; what is kept computes in float32."
    )
    devices: Count = key(1, "GPUs (or logical devices) that share each batch.")
    stages: list[Stage] = Field(
        default_factory=list,
        description="Stages of the training, in order; one by default.",
    )

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        for number, stage in enumerate(self.stages, start=1):
            if stage.trainable_layers is not None and not self.has_backbone:
                raise ValueError(
                    f"stage {number}: 'trainable_layers' needs a network with a "
                    "backbone; this one has none"
                )
        if self.devices > self.batch_size:
            raise ValueError(
                f"'devices' must not exceed batch_size = {self.batch_size}. "
                f"Received: {self.devices}"
            )
        for number, (layers, _) in enumerate(self.stage_plan(), start=1):
            if layers != "all" and not self.loaded_layer:
                where = f"stage {number}: " if self.stages else ""
                raise ValueError(
                    f"{where}'trainable_layers' must be \"all\" where no weights are "
                    f"loaded, or random layers stay frozen. Received: {layers}"
                )
        return self

    @property
    def loaded_layer(self) -> str:
        """The layer whose weights come from a file; "" if there is none."""
        return ""

    def stage_plan(self) -> list[tuple[TrainableLayers, Optimization]]:
        """The stages with everything filled in: which layers train, and how.

        Raises:
            ValueError: If a stage's keys and the tower's contradict each other.
        """
        names = Optimization.model_fields
        own = {name: getattr(self, name) for name in names}
        layers: Any = getattr(self, "trainable_layers", "all")
        if not self.stages:
            return [(layers, Optimization(**own))]
        plan = []
        for number, stage in enumerate(self.stages, start=1):
            said = {k: v for k in names if (v := getattr(stage, k)) is not None}
            try:
                optimization = Optimization(**{**own, **said})
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"stage {number}: {reason}") from None
            train = layers if stage.trainable_layers is None else stage.trainable_layers
            plan.append((train, optimization))
        return plan
