"""`[towers.NAME]`: text-based visual attention (paper B)."""

from typing import Literal

from tfmm.settings.base import Name, NotNegative, key
from tfmm.settings.training import Tower


class Tbva(Tower):
    """`model = "tbva"`: an image network that a text tells where to look (paper B)."""

    model: Literal["tbva"] = key(help="The network.")
    image_tower: Name = key(
        help="Trained tower (inception_v3, resnet50) it starts from."
    )
    text_tower: Name = key(help="Trained text tower whose features are the query.")
    insert_at: str = key(
        "mixed4",
        "Where the image network is attended to: pool2, mixed2, mixed4, mixed7, mixed9 "
        "(Inception v3; paper B's a to e), or conv2, conv3, conv4 (ResNet-50's stages).",
    )
    attention: Literal["width_height", "channel"] = key(
        "width_height", "What is weighted: the cells of the map, or its channels."
    )
    form: Literal["paper", "scaled", "residual"] = key(
        "residual",
        "paper: alpha a; scaled: alpha L a, which uniform weights leave as it is; "
        "residual: a + alpha L a (L weights that add up to 1).",
    )
    train_text: bool = key(False, "Train the text network too.")
    late_text: bool = key(
        False, "The text joins the features once more before the output."
    )
    late_text_units: int = key(200, "Width of the text's projection there.")
    modality_dropout: NotNegative = key(
        0.1, "Chance that the text is hidden from a training product."
    )
