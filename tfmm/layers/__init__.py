"""Layers of our own, one public layer a file.

`LAYERS` is what Keras must know to read our models back.
"""

import keras

from tfmm.layers.absent_vector import AbsentVector
from tfmm.layers.category_ids import CategoryIds
from tfmm.layers.cell_numbers import CellNumbers
from tfmm.layers.convolution_projection import ConvolutionProjection
from tfmm.layers.cross_products import CrossProducts
from tfmm.layers.embedding_bag import EmbeddingBag
from tfmm.layers.grouped_convolution_2d import GroupedConvolution2D
from tfmm.layers.has_text import HasText
from tfmm.layers.highway import Highway
from tfmm.layers.max_over_time import MaxOverTime
from tfmm.layers.ngram_ids import NgramIds
from tfmm.layers.pool_tokens import PoolTokens
from tfmm.layers.prior_when_absent import PriorWhenAbsent
from tfmm.layers.probability_powers import ProbabilityPowers
from tfmm.layers.squeeze_excitation import SqueezeExcitation
from tfmm.layers.text_attention import TextAttention
from tfmm.layers.tower_weights import TowerWeights
from tfmm.layers.tree_ensemble import TreeEnsemble
from tfmm.layers.unit_features import UnitFeatures
from tfmm.layers.without_markup import WithoutMarkup
from tfmm.text import WordIds

LAYERS = {
    keras.saving.get_registered_name(layer): layer
    for layer in (
        AbsentVector,
        CategoryIds,
        CellNumbers,
        ConvolutionProjection,
        CrossProducts,
        EmbeddingBag,
        GroupedConvolution2D,
        HasText,
        Highway,
        MaxOverTime,
        NgramIds,
        PoolTokens,
        PriorWhenAbsent,
        ProbabilityPowers,
        SqueezeExcitation,
        TextAttention,
        TowerWeights,
        TreeEnsemble,
        UnitFeatures,
        WithoutMarkup,
        WordIds,
    )
}
