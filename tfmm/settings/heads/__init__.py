"""`[heads.NAME]`: models that fuse towers; one family a file."""

from tfmm.settings.heads.base import FittedHead, Head
from tfmm.settings.heads.boosted_trees import BoostedTrees
from tfmm.settings.heads.early_fusion import EarlyFusion, Joint
from tfmm.settings.heads.gate import Gate
from tfmm.settings.heads.policy_network import PolicyNetwork
from tfmm.settings.heads.regression import LogisticStack, Ridge
from tfmm.settings.heads.rules import Rule, WeightedMean

__all__ = [
    "BoostedTrees",
    "EarlyFusion",
    "FittedHead",
    "Gate",
    "Head",
    "Joint",
    "LogisticStack",
    "PolicyNetwork",
    "Ridge",
    "Rule",
    "WeightedMean",
]
