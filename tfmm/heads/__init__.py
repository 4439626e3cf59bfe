"""Heads: the towers' answers in, one answer out; one family of heads a file.

Every builder is called as `builder(settings, problem)` and returns a Keras model from

    {tower: {"features": float32 (batch, d), "logits": float32 (batch, C),
             "present": bool (batch,)}}

with calibrated logits, zeros where a tower is absent, to
`{"features": float32 (batch, e), "logits": float32 (batch, C)}`. A product without
any tower gets `prior_logits`.

A head that is fitted in closed form, or by a library, comes back fitted. The others are
trained by `tfmm.train` on `lesson(settings, problem, model, loss)` of `LESSONS`, with
the loss of their settings.
"""

from tfmm.heads.boosted_trees import boosted_trees
from tfmm.heads.early_fusion import early_fusion, early_fusion_lesson
from tfmm.heads.gate import gate, gate_lesson
from tfmm.heads.logistic_stack import logistic_stack
from tfmm.heads.policy_network import policy_lesson, policy_network
from tfmm.heads.ridge import ridge
from tfmm.heads.rules import rule
from tfmm.heads.weighted_mean import weighted_mean

HEADS = {
    "max": rule,
    "mean": rule,
    "product": rule,
    "mean_logits": rule,
    "weighted_mean": weighted_mean,
    "ridge": ridge,
    "logistic_stack": logistic_stack,
    "policy_network": policy_network,
    "gate": gate,
    "early_fusion": early_fusion,
    "boosted_trees": boosted_trees,
}

LESSONS = {
    "early_fusion": early_fusion_lesson,
    "gate": gate_lesson,
    "policy_network": policy_lesson,
}
