"""Writes docs/experiment.md from the settings: python tools/experiment_docs.py"""

import json
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from tfmm import settings
from tfmm.experiment import Experiment

FILE = Path(__file__).resolve().parent.parent / "docs" / "experiment.md"

HEAD = """# Every key of an experiment file

Made from `tfmm/settings/` by `python tools/experiment_docs.py`; a test keeps the
two equal. A key without a default must be given. Any key can be set on the command
line: `--set towers.title.filters=64`. Values are TOML; what is no TOML value is taken
as text. Counts go up to 2147483647, widths of layers to 16384, other numbers to 1e18.

`[towers.NAME]` and `[heads.NAME]` choose their table by the key `model`. Names are
small letters, digits and `_`.
"""

TABLES = (
    ("the top of the file", Experiment),
    ("[catalog]", settings.Catalog),
    ("[catalog.splits]", settings.Splits),
    ("[modalities.NAME]", settings.Modality),
    ("[towers.NAME], text", settings.TextCnn),
    ("[towers.NAME], text", settings.FastText),
    ("[towers.NAME], text", settings.Transformer),
    ("[towers.NAME], image", settings.CompactCnn),
    ("[towers.NAME], image", settings.ResNet50),
    ("[towers.NAME], image", settings.InceptionV3),
    ("[towers.NAME], image", settings.Vgg16),
    ("[towers.NAME], image", settings.SeResNeXt50),
    ("[towers.NAME], image", settings.KerasHubImage),
    ("[towers.NAME], image and text", settings.Tbva),
    ("[towers.NAME], table", settings.TableTower),
    ("[towers.NAME.augmentation]", settings.Augmentation),
    ("[[towers.NAME.stages]]", settings.Stage),
    ("[heads.NAME]", settings.Rule),
    ("[heads.NAME]", settings.WeightedMean),
    ("[heads.NAME]", settings.Ridge),
    ("[heads.NAME]", settings.LogisticStack),
    ("[heads.NAME]", settings.PolicyNetwork),
    ("[heads.NAME]", settings.Gate),
    ("[heads.NAME]", settings.BoostedTrees),
    ("[heads.NAME]", settings.EarlyFusion),
    ("[heads.NAME]", settings.Joint),
    ("[calibration]", settings.CalibrationSettings),
    ("[export]", settings.Export),
    ("[search.NAME], beside the space", settings.SearchOptions),
)


def text() -> str:
    """The page."""
    parts = [HEAD]
    for place, table in TABLES:
        first = (table.__doc__ or "").split("\n\n")[0]
        about = " ".join(first.split()).rstrip(".")
        parts.append(f"\n## {place}\n\n{about}.\n\n| key | default | meaning |\n")
        parts.append("|---|---|---|\n")
        parts += [_row(name, field) for name, field in table.model_fields.items()]
    return "".join(parts)


def _row(name: str, field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    shown = "" if value is PydanticUndefined else _toml(value)
    default = f"`{shown}`".replace("|", "\\|") if shown else ""
    if value is None:
        default = "absent"
    return f"| `{name}` | {default} | {field.description} |\n"


def _toml(value: Any) -> str:
    if isinstance(value, settings.Augmentation):
        return "{ }"
    if isinstance(value, settings.Table):
        given = {k: x for k, x in value.model_dump().items() if x is not None}
        shares = ", ".join(f"{key} = {json.dumps(x)}" for key, x in given.items())
        return f"{{ {shares} }}"
    return json.dumps(value)


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
