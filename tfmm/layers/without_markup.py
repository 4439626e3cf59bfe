"""WithoutMarkup: raw texts of a shop as the texts that they stand for."""

import keras
import tensorflow as tf
import tensorflow_text as tf_text

from tfmm.text import without_markup


@keras.saving.register_keras_serializable(package="tfmm")
class WithoutMarkup(keras.layers.Layer):
    """Takes HTML out of texts and leaves their words, case and signs as they are.

    For networks with a tokenizer of their own, which `tfmm.text.clean` would rob of
    case and punctuation. In this order: bytes that are no UTF-8 become U+FFFD; tags
    become a space; the entities in `tfmm.text.ENTITIES` become their letters, others
    a space; Unicode is composed (NFC); white space of any kind and length becomes one
    space, and none at both ends.

    Args:
        **kwargs: `name` and the rest of `keras.layers.Layer`.

    Call arguments:
        inputs: string tensor of any shape.

    Returns:
        string tensor of the same shape, UTF-8.

    Example:
    >>> texts = tf.constant(["L&#39;&eacute;t&eacute;<br>en  Bleu &amp; Or"])
    >>> WithoutMarkup()(texts).numpy()[0].decode()
    "L'été en Bleu & Or"
    """

    def call(self, inputs):
        texts = tf_text.normalize_utf8(without_markup(inputs), "NFC")
        texts = tf.strings.regex_replace(texts, r"[\s\x0b\x{85}\p{Z}]+", " ")
        return tf.strings.strip(texts)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="string")
