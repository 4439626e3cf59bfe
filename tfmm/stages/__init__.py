"""The stages that fit and search both call: one tower, one head."""

from tfmm.stages.answers import write_outputs_of
from tfmm.stages.checks import check
from tfmm.stages.heads import fit_head
from tfmm.stages.towers import fit_tower

__all__ = ["check", "fit_head", "fit_tower", "write_outputs_of"]
