import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from tfmm.layers.text_attention import TextAttention, query_size

KINDS = ("width_height", "channel")
FORMS = ("paper", "scaled", "residual", "average")
BOTH = pytest.mark.parametrize("attention", KINDS)
EVERY_FORM = pytest.mark.parametrize("form", FORMS)

GENERATOR = np.random.default_rng(0)
MAP = GENERATOR.normal(size=(2, 2, 3, 5)).astype(np.float32)
QUERY = {
    "width_height": GENERATOR.normal(size=(2, 5)).astype(np.float32),
    "channel": GENERATOR.normal(size=(2, 6)).astype(np.float32),
}


def by_hand(attention, form, feature_map, query):
    """Paper B, one key at a time."""
    batch, height, width, channels = feature_map.shape
    attended = np.zeros_like(feature_map)
    weights, shown = [], np.zeros((batch, height, width))
    for n in range(batch):
        if attention == "channel":
            keys = [feature_map[n, :, :, c].ravel() for c in range(channels)]
        else:
            keys = [feature_map[n, i, j] for i in range(height) for j in range(width)]
        scores = [np.dot(query[n], key) / np.sqrt(len(key)) for key in keys]
        alpha = softmax(scores)
        length = len(keys)
        for i, key in enumerate(keys):
            factor = {
                "paper": alpha[i],
                "scaled": length * alpha[i],
                "residual": 1 + length * alpha[i],
                "average": (1 + length * alpha[i]) / 2,
            }[form]
            if attention == "channel":
                attended[n, :, :, i] = (factor * key).reshape(height, width)
                shown[n] += np.abs(alpha[i] * key).reshape(height, width)
            else:
                attended[n, i // width, i % width] = factor * key
                shown[n, i // width, i % width] = alpha[i]
        weights.append(alpha)
        shown[n] /= shown[n].sum()
    return attended, np.stack(weights), shown


@BOTH
@EVERY_FORM
def test_attention_is_what_paper_b_says(attention, form):
    said = TextAttention(attention, form)(MAP, QUERY[attention])
    expected = by_hand(attention, form, MAP, QUERY[attention])
    for ours, theirs in zip(said, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@BOTH
@EVERY_FORM
def test_a_query_of_zeros_weighs_everything_alike(attention, form):
    attended, weights, _ = TextAttention(attention, form)(MAP, 0 * QUERY[attention])
    count = {"width_height": 6, "channel": 5}[attention]
    assert weights.shape == (2, count)
    np.testing.assert_array_equal(weights, np.full((2, count), np.float32(1 / count)))
    factor = {"paper": 1 / count, "scaled": 1, "residual": 2, "average": 1}[form]
    np.testing.assert_allclose(attended, factor * MAP, rtol=1e-6)


def test_the_papers_form_starves_the_layers_behind():
    """At `mixed4` of a 299 px Inception v3: 17 x 17 cells, 768 channels."""
    feature_map = np.abs(GENERATOR.normal(size=(1, 17, 17, 768))).astype(np.float32)
    before = np.abs(feature_map).mean()
    for attention, fewer in (("width_height", 289), ("channel", 768)):
        size = query_size(attention, feature_map.shape)
        query = np.zeros((1, size), np.float32)
        means = {
            form: np.abs(TextAttention(attention, form)(feature_map, query)[0]).mean()
            for form in FORMS
        }
        assert means["paper"] == pytest.approx(before / fewer, rel=1e-4)
        assert means["scaled"] == pytest.approx(before, rel=1e-4)
        assert means["residual"] == pytest.approx(2 * before, rel=1e-4)
        assert means["average"] == pytest.approx(before, rel=1e-4)


@BOTH
def test_what_is_shown_sums_to_one_also_over_an_empty_map(attention):
    for feature_map in (MAP, 0 * MAP, 1e4 * MAP):
        *_, shown = TextAttention(attention)(feature_map, QUERY[attention])
        assert np.min(shown) >= 0
        np.testing.assert_allclose(np.sum(shown, axis=(1, 2)), 1.0, rtol=1e-5)


@BOTH
@EVERY_FORM
def test_layer_is_the_same_eager_symbolic_traced_exported_and_from_its_config(
    attention, form, tmp_path
):
    layer = TextAttention(attention, form)
    arguments = [MAP, QUERY[attention]]
    expected = layer(*arguments)
    shapes = [tuple(x.shape[1:]) for x in expected]
    inputs = [keras.Input(x.shape[1:]) for x in arguments]
    symbolic = TextAttention(attention, form)(*inputs)
    assert [x.shape for x in symbolic] == [(None, *shape) for shape in shapes]
    named = {"feature_map_shape": MAP.shape, "query_shape": arguments[1].shape}
    given = layer.compute_output_shape(**named)
    assert [tuple(x) for x in given] == [(2, *shape) for shape in shapes]
    again = TextAttention.from_config(layer.get_config())
    specs = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in arguments]
    root = tf.Module()
    root.call = tf.function(layer, input_signature=specs)
    tf.saved_model.save(root, str(tmp_path))
    served = tf.saved_model.load(str(tmp_path))
    model = keras.Model(inputs, symbolic)
    for other in (again, root.call, served.call, lambda *x: model([*x])):
        said = other(*arguments)
        for ours, theirs in zip(said, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    assert not layer.weights


def test_cells_are_weighed_in_maps_of_any_size():
    inputs = [keras.Input((None, None, 5)), keras.Input((5,))]
    symbolic = TextAttention("width_height")(*inputs)
    assert [x.shape for x in symbolic] == [
        (None, None, None, 5),
        (None, None),
        (None, None, None),
    ]
    model = keras.Model(inputs, symbolic)
    for side in (2, 3):
        feature_map = MAP[:, :, :side]
        said = model([feature_map, QUERY["width_height"]])
        expected = by_hand(
            "width_height", "average", feature_map, QUERY["width_height"]
        )
        for ours, theirs in zip(said, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@BOTH
@EVERY_FORM
def test_weights_stay_in_float32_in_half_precision(attention, form):
    half = TextAttention(attention, form, dtype="float16")(MAP, QUERY[attention])
    assert [x.dtype for x in half] == [tf.float16, tf.float32, tf.float32]
    full = TextAttention(attention, form)(MAP, QUERY[attention])
    for ours, theirs in zip(half, full, strict=True):
        np.testing.assert_allclose(np.float32(ours), theirs, rtol=3e-3, atol=3e-3)
    # Sums of products that float16 cannot hold.
    _, weights, _ = TextAttention(attention, dtype="float16")(
        np.full((1, 6, 6, 36), 60.0), np.full((1, 36), 60.0)
    )
    np.testing.assert_allclose(weights, 1 / 36, rtol=1e-5)


@BOTH
def test_a_query_of_zeros_still_learns(attention):
    query = tf.Variable(0 * QUERY[attention])
    with tf.GradientTape() as tape:
        attended, *_ = TextAttention(attention)(MAP, query)
        loss = tf.reduce_sum(attended**2)
    assert np.all(np.abs(tape.gradient(loss, query)) > 1e-4)


def test_layer_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="`attention` must be one of"):
        TextAttention("height")
    with pytest.raises(ValueError, match="`form` must be one of"):
        TextAttention("channel", "double")
    with pytest.raises(ValueError, match="rank 4"):
        TextAttention()(MAP[0], QUERY["width_height"])
    with pytest.raises(ValueError, match=r"`query` must have the shape \(batch, 5\)"):
        TextAttention()(MAP, QUERY["channel"])
    with pytest.raises(ValueError, match="fixed height and width for 'channel'"):
        TextAttention("channel")(keras.Input((None, 3, 5)), keras.Input((6,)))
