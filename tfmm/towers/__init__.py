"""Towers: one modality in, `features` and `logits` out; one tower a file.

Every builder is called as `builder(settings, num_classes, training_texts)` and
returns a Keras model with one input, named after its modality, and the outputs
`{"features": float32 (batch, d), "logits": float32 (batch, C)}`.
"""

from tfmm.towers.resnet50 import resnet50
from tfmm.towers.text_cnn import text_cnn

TOWERS = {"text_cnn": text_cnn, "resnet50": resnet50}
