"""Towers: one modality in, `features` and `logits` out; one tower a file.

Every builder is called as `builder(settings, num_classes, training_texts)` and
returns a Keras model with one input, named after its modality, and the outputs
`{"features": float32 (batch, d), "logits": float32 (batch, C)}`.

A published network inside a tower is one layer, called `backbone`, whose layers can
be frozen. A tower may have a layer `prepare`, from strings to what its layer `network`
takes: then the training texts are prepared once and `network` alone is trained.
"""

from tfmm.towers.compact_cnn import compact_cnn
from tfmm.towers.fasttext import fasttext
from tfmm.towers.inception_v3 import inception_v3
from tfmm.towers.keras_hub_image import keras_hub_image
from tfmm.towers.resnet50 import resnet50
from tfmm.towers.se_resnext50 import se_resnext50
from tfmm.towers.table import table
from tfmm.towers.text_cnn import text_cnn
from tfmm.towers.transformer import transformer
from tfmm.towers.vgg16 import vgg16

TOWERS = {
    "compact_cnn": compact_cnn,
    "fasttext": fasttext,
    "inception_v3": inception_v3,
    "keras_hub_image": keras_hub_image,
    "resnet50": resnet50,
    "se_resnext50": se_resnext50,
    "table": table,
    "text_cnn": text_cnn,
    "transformer": transformer,
    "vgg16": vgg16,
}
