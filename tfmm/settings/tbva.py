"""`[towers.NAME]`: text-based visual attention (paper B)."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from tfmm.settings.base import BelowOne, Name, NotNegative, Width, key
from tfmm.settings.training import Tower, TrainableLayers


class Tbva(Tower):
    """`model = "tbva"`: an image network that a text tells where to look (paper B)."""

    has_backbone: ClassVar[bool] = True

    model: Literal["tbva"] = key(help="The network.")
    image_tower: Name = key(
        help="Trained tower (inception_v3, resnet50) it starts from."
    )
    text_tower: Name = key(help="Trained text tower whose features are the query.")
    insert_at: str = key(
        "mixed4",
        "Whose map is attended to: pool2, mixed2, mixed4, mixed7, mixed9 (Inception "
        "v3; paper B's a to e), or conv2, conv3, conv4 (ResNet-50's stages).",
    )
    attention: Literal["width_height", "channel"] = key(
        "width_height", "What is weighted: the cells of the map, or its channels."
    )
    form: Literal["paper", "scaled", "residual", "average"] = key(
        "average",
        "paper: alpha a; scaled: alpha L a; residual: a + alpha L a; average: half of "
        "that (L weights that add up to 1). Where all weights are equal scaled and "
        "average leave the map as it is, residual doubles it, paper divides it by L.",
    )
    initializer_stddev: NotNegative = key(
        0.0,
        "Spread of the first weights of the query (normal, cut off at two deviations). "
        "0: it starts at zero, and the tower as its image tower.",
    )
    train_text: bool = key(False, "Train the text network too.")
    late_text: bool = key(
        False, "The text joins the features once more before the output."
    )
    late_text_units: Width = key(200, "Width of the text's projection there.")
    modality_dropout: BelowOne = key(
        0.1, "Chance that the text is hidden from a training product."
    )
    trainable_layers: TrainableLayers = key(
        "all",
        "How many of the image network's last layers train; the query and the output "
        "always do.",
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        self.refuse_unused(
            ("late_text_units", "late_text = true", self.late_text),
        )
        return self

    @property
    def loaded_layer(self) -> str:
        return "backbone"
