"""`[towers.NAME]` of towers that read an image."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tfmm.settings.base import (
    BelowOne,
    Count,
    NotNegative,
    Positive,
    Rate,
    Table,
    Width,
    key,
)
from tfmm.settings.training import Tower, TrainableLayers

Side = Annotated[int, Field(ge=32, le=1024)]


class Augmentation(Table):
    """`[towers.NAME.augmentation]`: random changes of training images.

    Validation, reports and what is served never see them.
    """

    flip: bool = key(False, "Mirror half of the images left-right.")
    min_box_area: Annotated[float, Field(gt=0.0, le=1.0)] = key(
        1.0,
        "Least share of the image that a random box keeps (B: 0.1); the box becomes "
        "the image. 1: no box.",
    )
    box_aspect: tuple[Positive, Positive] = key(
        (0.75, 1.33), "Least and greatest width / height of that box."
    )
    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = key(
        0.0, "Greatest turn to either side; past the edge the image is mirrored."
    )
    brightness: Rate = key(
        0.0, "Greatest change of brightness, as a share of white (B: 0.13)."
    )
    saturation: tuple[NotNegative, NotNegative] = key(
        (1.0, 1.0), "Least and greatest factor of the saturation (B: 0.5, 1.5)."
    )

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for name in ("box_aspect", "saturation"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"{name!r} must be [least, greatest]. Received: [{low:g}, {high:g}]"
                )
        low, high = self.box_aspect
        if low > 1.0 / self.min_box_area or high < self.min_box_area:
            raise ValueError(
                f"'box_aspect': no such box keeps min_box_area = {self.min_box_area:g} "
                f"of a square. Received: [{low:g}, {high:g}]"
            )
        return self


class ImageTower(Tower):
    """What every image tower has."""

    image_size: Side = key(224, "Side in pixels that images are resized to.")
    load_size: Side | None = key(
        None,
        "Side in pixels that training images are read at before boxes are cut out of "
        "them, so that small boxes are less blurred: from image_size, which it is if "
        "absent, to twice that.",
    )
    augmentation: Augmentation = key(
        Augmentation(), "Random changes of training images."
    )
    batch_normalization_momentum: BelowOne | None = key(
        None,
        "Inertia of the running statistics; the network's own if absent. 0.9 suits "
        "small catalogs.",
    )

    @model_validator(mode="after")
    def _load_size_fits(self) -> Self:
        size, load_size = self.image_size, self.load_size
        if load_size is None or load_size == size:
            return self
        if not size < load_size <= 2 * size:
            raise ValueError(
                f"'load_size' must be from image_size = {size} to twice that. "
                f"Received: {load_size}"
            )
        if self.augmentation.min_box_area == 1.0:
            raise ValueError(
                "'load_size' is for boxes; set augmentation.min_box_area below 1. "
                f"Received: {load_size}"
            )
        return self


class Backbone(ImageTower):
    """What image towers with a published network have."""

    has_backbone: ClassVar[bool] = True

    weights: str = key("none", '"none", "imagenet", or the path of a weights file.')
    trainable_layers: TrainableLayers = key(
        "all", "How many of the backbone's last layers train; the output always does."
    )

    @property
    def loaded_layer(self) -> str:
        return "" if self.weights == "none" else "backbone"


class ResNet50(Backbone):
    """`model = "resnet50"`: the image tower of paper C."""

    model: Literal["resnet50"] = key(help="The network.")


class InceptionV3(Backbone):
    """`model = "inception_v3"`: the image tower of paper B."""

    model: Literal["inception_v3"] = key(help="The network.")
    image_size: Annotated[int, Field(ge=75, le=1024)] = key(
        299, "Side in pixels that images are resized to; at least 75."
    )


class Vgg16(Backbone):
    """`model = "vgg16"`: the image tower of paper A."""

    model: Literal["vgg16"] = key(help="The network.")
    fully_connected_units: Annotated[list[Width], Field(min_length=1)] = key(
        [4096, 4096], "Widths of the fully connected layers."
    )
    dropout: BelowOne = key(
        0.5, "Share dropped after each fully connected layer while training."
    )


class SeResNeXt50(Backbone):
    """`model = "se_resnext50"`: the image tower of paper D."""

    model: Literal["se_resnext50"] = key(help="The network.")
    weights: str = key(
        "none", '"none", or the path of a .weights.h5 or PyTorch\'s .safetensors.'
    )

    @model_validator(mode="after")
    def _nobody_publishes_weights(self) -> Self:
        if self.weights == "imagenet":
            raise ValueError(
                "se_resnext50 has no weights = 'imagenet' for Keras; give the path of "
                "a .weights.h5 or of PyTorch's .safetensors"
            )
        return self


class KerasHubImage(Backbone):
    """`model = "keras_hub_image"`: any image backbone of keras-hub."""

    model: Literal["keras_hub_image"] = key(help="The network.")
    preset: str = key(help="A keras-hub preset's name or a local preset folder.")
    weights: Literal["none", "preset"] = key(
        "preset", "Whether the preset's weights are loaded, or only its architecture."
    )


class CompactCnn(ImageTower):
    """`model = "compact_cnn"`: a small residual network for small catalogs."""

    model: Literal["compact_cnn"] = key(help="The network.")
    image_size: Side = key(64, "Side in pixels that images are resized to.")
    widths: Annotated[list[Width], Field(min_length=1)] = key(
        [32, 64, 128, 256], "Channels of each step; each but the first halves the side."
    )
    blocks: Count = key(1, "Residual blocks in each step.")
    dropout: BelowOne = key(0.3, "Share of the features dropped while training.")
