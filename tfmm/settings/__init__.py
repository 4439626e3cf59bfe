"""Every key of an experiment file: its type, bounds, default and help.

`experiment.py` reads a TOML into these tables. Adding a key here is all that is
needed for the file, `--set`, the error messages and `docs/experiment.md`.
"""

from typing import Annotated, get_args

from pydantic import Field

from tfmm.settings.base import SPLITS, Name, Table, key
from tfmm.settings.calibration import CalibrationSettings
from tfmm.settings.catalog import Catalog, Export, Modality, Splits
from tfmm.settings.heads import (
    BoostedTrees,
    EarlyFusion,
    FittedHead,
    Gate,
    Head,
    Joint,
    LogisticStack,
    PolicyNetwork,
    Ridge,
    Rule,
    WeightedMean,
)
from tfmm.settings.image_towers import (
    Augmentation,
    Backbone,
    CompactCnn,
    ImageTower,
    InceptionV3,
    KerasHubImage,
    ResNet50,
    SeResNeXt50,
    Vgg16,
)
from tfmm.settings.search import SearchOptions
from tfmm.settings.table_tower import TableTower
from tfmm.settings.tbva import Tbva
from tfmm.settings.text_towers import FastText, TextCnn, Transformer
from tfmm.settings.training import Optimization, Stage, Tower, Training

__all__ = [
    "SPLITS",
    "TOWER_KINDS",
    "Augmentation",
    "Backbone",
    "BoostedTrees",
    "CalibrationSettings",
    "Catalog",
    "CompactCnn",
    "EarlyFusion",
    "Export",
    "FastText",
    "FittedHead",
    "Gate",
    "Head",
    "HeadSettings",
    "ImageTower",
    "InceptionV3",
    "Joint",
    "KerasHubImage",
    "LogisticStack",
    "Modality",
    "Name",
    "Optimization",
    "PolicyNetwork",
    "ResNet50",
    "Ridge",
    "Rule",
    "SeResNeXt50",
    "SearchOptions",
    "Splits",
    "Stage",
    "Table",
    "TableTower",
    "Tbva",
    "TextCnn",
    "Tower",
    "TowerSettings",
    "Training",
    "Transformer",
    "Vgg16",
    "WeightedMean",
    "key",
]

TextTowerSettings = TextCnn | FastText | Transformer
ImageTowerSettings = (
    ResNet50 | InceptionV3 | Vgg16 | SeResNeXt50 | CompactCnn | KerasHubImage | Tbva
)
TowerSettings = Annotated[
    TextTowerSettings | ImageTowerSettings | TableTower, Field(discriminator="model")
]
HeadSettings = Annotated[
    Rule
    | WeightedMean
    | Ridge
    | LogisticStack
    | PolicyNetwork
    | Gate
    | BoostedTrees
    | EarlyFusion
    | Joint,
    Field(discriminator="model"),
]


def _model(settings: type[Table]) -> str:
    return get_args(settings.model_fields["model"].annotation)[0]


TOWER_KINDS = {
    **{_model(x): "text" for x in get_args(TextTowerSettings)},
    **{_model(x): "image" for x in get_args(ImageTowerSettings)},
    _model(TableTower): "table",
}
