"""Heads: the towers' answers in, one answer out; one family of heads a file.

Every builder is called as `builder(settings, shapes, prior_logits, task)` and returns
a Keras model from

    {tower: {"features": float32 (batch, d), "logits": float32 (batch, C),
             "present": bool (batch,)}}

with calibrated logits, zeros where a tower is absent, to
`{"features": float32 (batch, e), "logits": float32 (batch, C)}`. A product without
any tower gets `prior_logits`.
"""

from tfmm.heads.policy_network import policy_network
from tfmm.heads.rules import rule

HEADS = {
    "max": rule,
    "mean": rule,
    "product": rule,
    "policy_network": policy_network,
}
