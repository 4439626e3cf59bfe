import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from fused import NAMES, answer, examples, problem
from scipy.special import softmax

from tfmm.head_data import hide_towers
from tfmm.heads import HEADS, LESSONS
from tfmm.heads.matching import MatchingLoss
from tfmm.losses import loss_for
from tfmm.settings import EarlyFusion, Rule

COMBINATIONS = ("concatenate", "add", "average", "max", "highway", "cross")
TINY = {"projection_units": 3, "cross_units": 2, "hidden_units": [4], "dropout": 0.0}
FROM_ZERO = {"start_from": "zero", **TINY}


def settings_of(towers=NAMES, **own):
    # What a combination does not have would be refused.
    if own.get("combine") != "cross":
        own.pop("cross_units", None)
    if own.get("projection") == "none":
        own.pop("projection_units", None)
    return EarlyFusion(model="early_fusion", towers=list(towers), **own)


def head(made, **own):
    keras.utils.set_random_seed(0)
    return HEADS["early_fusion"](settings_of(made.shapes, **own), made)


def taught(model, made, epochs, rate=0.01, hidden=0.0, **own):
    """`fit` of plain Keras on the lesson."""
    settings = settings_of(made.shapes, **own)
    names = [str(x) for x in range(len(made.prior_logits))]
    targets = made.fit.targets
    loss = loss_for(made.task, settings, names, targets)
    lesson = LESSONS["early_fusion"](settings, made, model, loss)
    lesson.model.compile(
        keras.optimizers.Adam(rate),
        loss=dict(lesson.losses),
        jit_compile=False,
        run_eagerly=epochs == 1,
    )
    order = np.random.default_rng(0).permutation(len(targets))
    inputs = hide_towers(dict(made.fit.inputs), hidden, (0, 0), made.units)
    inputs = tf.nest.map_structure(lambda x: x[order], inputs)
    expected = {k: v[order] for k, v in lesson.targets.items()}
    if epochs:
        lesson.model.fit(inputs, expected, batch_size=60, epochs=epochs, verbose=0)
    return lesson


def weights(model, name):
    return [np.asarray(x) for x in model.get_layer(name).weights]


def by_hand(model, made, combine, inputs):
    """Features and logits in NumPy, from the model's weights."""
    vectors, present = [], []
    for name in made.shapes:
        fit, own = made.fit.inputs[name], inputs[name]
        seen = fit["features"][fit["present"]].astype(np.float64)
        scaled = (own["features"] - seen.mean(0)) / seen.std(0)
        kernel, bias = weights(model, f"{name}_projection")
        vector = np.maximum(scaled @ kernel + bias, 0)
        (absent,) = weights(model, f"{name}_vector")
        here = own["present"][:, None]
        vectors.append(np.where(here, vector, absent))
        present.append(here)
    stacked = np.stack(vectors, axis=1)
    joined = np.concatenate(vectors, axis=1)
    if combine == "concatenate":
        combined = joined
    elif combine == "highway":
        kernel, bias = weights(model, "combined")
        gate = softmax((joined @ kernel + bias).reshape(stacked.shape), axis=1)
        combined = (gate * stacked).sum(1)
    elif combine == "cross":
        narrow = []
        for name, vector in zip(made.shapes, vectors, strict=True):
            kernel, bias = weights(model, f"{name}_cross")
            narrow.append(vector @ kernel + bias)
        outer = [
            (narrow[i][:, :, None] * narrow[j][:, None, :]).reshape(len(joined), -1)
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        combined = np.concatenate([joined, *outer], axis=1)
    else:
        reduce = {"add": np.sum, "average": np.mean, "max": np.max}[combine]
        combined = reduce(stacked, axis=1)
    kernel, bias = weights(model, "hidden_1")
    hidden = np.tanh(np.concatenate([combined, *present], axis=1) @ kernel + bias)
    kernel, bias = weights(model, "output")
    return hidden, hidden @ kernel + bias


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_every_combination_is_its_formula(combine):
    made = problem("single_label")
    model = head(made, combine=combine, **FROM_ZERO)
    generator = np.random.default_rng(3)
    for weight in model.trainable_weights:
        weight.assign(weight + generator.normal(scale=0.3, size=weight.shape))
    inputs = made.held_out.inputs
    said = answer(model, inputs)
    features, logits = by_hand(model, made, combine, inputs)
    np.testing.assert_allclose(said["features"], features, atol=1e-5)
    np.testing.assert_allclose(said["logits"], logits, atol=1e-5)


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("projection", ["dense", "convolution", "none"])
def test_every_subset_has_an_answer_and_none_has_the_prior(combine, projection):
    if projection == "none" and combine not in ("concatenate", "cross"):
        return
    made = problem("multi_label")
    model = head(made, combine=combine, projection=projection, **TINY)
    whole = made.held_out.inputs
    for code in range(8):
        inputs = {}
        for position, (name, values) in enumerate(whole.items()):
            here = bool(code >> position & 1)
            inputs[name] = {k: v * here for k, v in values.items()}
        said = answer(model, inputs)
        assert np.isfinite(said["logits"]).all()
        assert np.isfinite(said["features"]).all()
    np.testing.assert_allclose(said["logits"], answer(model, whole)["logits"])
    nothing = {
        name: {k: v * False for k, v in values.items()}
        for name, values in whole.items()
    }
    for row in answer(model, nothing)["logits"]:
        np.testing.assert_allclose(row, made.prior_logits, rtol=1e-6)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_nothing_of_an_absent_tower_gets_through(combine):
    made = problem("single_label")
    model = head(made, combine=combine, **TINY)
    inputs = {k: dict(v) for k, v in made.held_out.inputs.items()}
    inputs["title"]["present"] = np.zeros(60, bool)
    said = answer(model, inputs)
    inputs["title"]["features"] = np.full((60, 5), 1e6, np.float32)
    for key, value in answer(model, inputs).items():
        np.testing.assert_array_equal(value, said[key])


@pytest.mark.parametrize("combine", ["highway", "cross"])
def test_it_is_the_same_traced_alone_and_after_saving(combine, tmp_path):
    made = problem("single_label")
    model = head(made, combine=combine, l2=1e-3, **{**TINY, "dropout": 0.5})
    inputs = dict(made.held_out.inputs)
    said = answer(model, inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(answer(loaded, inputs)["logits"], said["logits"])
    specs = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), inputs
    )
    root = tf.Module()
    root.model = model
    root.call = tf.function(lambda x: model(x, training=False), input_signature=[specs])
    tf.saved_model.save(root, str(tmp_path / "saved"))
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    alone = tf.nest.map_structure(lambda x: tf.constant(x[7:8]), inputs)
    for key, value in exported.call(alone).items():
        np.testing.assert_allclose(value[0], said[key][7], atol=1e-6)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_a_lesson_moves_every_weight_and_the_vectors_of_absent_towers(combine):
    made = problem("single_label")
    # With ReLU the greatest is never the absent tower's zero.
    own = {"combine": combine, "projection_activation": "tanh", **FROM_ZERO}
    own["matching_weight"] = 0.1
    model = head(made, **own)
    before = [np.asarray(x) for x in model.trainable_weights]
    taught(model, made, epochs=1, **own)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        assert not np.array_equal(old, weight), weight.path
    for name in NAMES:
        assert np.abs(weights(model, f"{name}_vector")[0]).min() > 0


def test_twenty_products_are_learned_by_heart():
    made = problem("single_label", examples("single_label", products=20, seed=4))
    model = head(made, dropout=0.0)
    taught(model, made, epochs=40)
    chosen = answer(model, made.fit.inputs)["logits"].argmax(1)
    np.testing.assert_array_equal(chosen, made.fit.targets)


def test_it_beats_the_better_tower():
    fit = examples("single_label", products=600, absent=0.0, seed=5)
    test = examples("single_label", products=600, absent=0.0, seed=6)
    made = problem("single_label", fit, test)
    own = {"projection_units": 16, "hidden_units": [16], "start_from": "zero"}
    model = head(made, **own)
    taught(model, made, epochs=6, hidden=0.1)

    def right(logits):
        return np.mean(logits.argmax(1) == test.targets)

    alone = []
    for name in NAMES:
        hide = {n: n == name for n in NAMES}
        inputs = {
            n: {k: v * hide[n] for k, v in x.items()} for n, x in test.inputs.items()
        }
        alone.append(right(answer(model, inputs)["logits"]))
    assert right(answer(model, test.inputs)["logits"]) > max(alone) + 0.05


def test_scales_of_the_features_do_not_matter():
    made = problem("single_label")
    large = {
        name: {**x, "features": x["features"] * 1000.0 + 50.0 * x["present"][:, None]}
        for name, x in made.fit.inputs.items()
    }
    other = problem("single_label", dataclasses.replace(made.fit, inputs=large))
    said = answer(head(made, **TINY), made.fit.inputs)["logits"]
    np.testing.assert_allclose(
        answer(head(other, **TINY), large)["logits"], said, atol=1e-3
    )


def test_a_feature_that_never_moved_does_not_drown_the_others():
    fit = examples("single_label", seed=1)
    for x in fit.inputs.values():
        x["features"][:, 2] = 0.0
    model = head(problem("single_label", fit), **TINY)
    layer = model.get_layer("title_standardized")
    scaled = layer(np.ones((1, 5), np.float32)).numpy()
    assert np.abs(scaled).max() < 10.0


def test_a_tower_that_no_product_has_keeps_its_features_as_they_are():
    fit = examples("single_label", seed=1)
    for key, values in fit.inputs["image"].items():
        fit.inputs["image"][key] = np.zeros_like(values)
    layer = head(problem("single_label", fit), **TINY).get_layer("image_standardized")
    np.testing.assert_allclose(layer(np.ones((1, 5))), np.ones((1, 5)))


def test_paper_b_has_its_layers():
    made = problem("single_label")
    own = {"combine": "average", "projection_units": 400, "hidden_units": [400]}
    model = head(made, initializer_stddev=0.01, l2=1e-5, **own)
    projections = 3 * (5 * 400 + 400 + 400)
    hidden = (400 + 3) * 400 + 400
    trained = sum(int(np.prod(x.shape)) for x in model.trainable_weights)
    assert trained == projections + hidden + 400 * 4 + 4
    drawn = [weights(model, f"{name}_projection")[0] for name in NAMES]
    assert np.abs(drawn).max() <= 0.02
    assert not np.array_equal(drawn[0], drawn[1])
    assert len(model.losses) == 3 + 2
    assert model.output["features"].shape == (None, 400)


def test_without_a_hidden_layer_features_are_the_combination():
    made = problem("single_label")
    model = head(made, projection_units=3, hidden_units=[])
    assert model.output["features"].shape == (None, 9)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_what_starts_from_the_product_is_the_product(task):
    made = problem(task)
    rule = HEADS["product"](Rule(model="product", towers=list(NAMES)), made)
    expected = answer(rule, made.held_out.inputs)["logits"]
    model = head(made, start_from="product", initializer_stddev=0.01, **TINY)
    said = answer(model, made.held_out.inputs)["logits"]
    np.testing.assert_allclose(said, expected, atol=1e-5)


def matching(vectors, present, labels, task="single_label", **own):
    """Cost of each product; `vectors` `(towers, products, d)`."""
    flags = np.float32(present)[..., None]
    predicted = np.concatenate([np.float32(vectors), flags], axis=-1)
    loss = MatchingLoss(task, reduction=None, **{"num_negatives": 9, **own})
    return np.asarray(loss(np.array(labels), predicted.swapaxes(0, 1)))


ANGLES = np.deg2rad([[0.0, 60.0, 90.0, 180.0], [30.0, 60.0, 120.0, 90.0]])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1) * [[[5.0]], [[0.1]]]
HERE = np.ones((2, 4), bool)


def cost(i, others):
    """B's formula for product i's second vector, literally; `others` the j."""
    like = np.cos(ANGLES[1, i] - ANGLES[0])
    own = np.exp(like[i])
    return sum(-np.log(own / (own + np.exp(like[j]))) for j in others)


def test_the_matching_loss_worked_by_hand():
    found = matching(VECTORS, HERE, [0, 1, 0, 2])
    expected = [cost(0, [1, 3]), cost(1, [0, 2, 3]), cost(2, [1, 3])]
    expected.append(cost(3, [0, 1, 2]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_negatives_are_the_next_ones_of_other_labels():
    found = matching(VECTORS, HERE, [0, 1, 0, 2], num_negatives=1)
    expected = [cost(0, [1]), cost(1, [2]), cost(2, [3]), cost(3, [0])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_products_with_a_label_in_common_are_no_negatives():
    labels = np.float32([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]])
    found = matching(VECTORS, HERE, labels, task="multi_label")
    expected = [cost(0, [3]), cost(1, [2, 3]), cost(2, [1, 3])]
    expected.append(cost(3, [0, 1, 2]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_absent_towers_neither_match_nor_stand_against():
    # Product 1 lacks what is matched with, product 2 what is matched.
    here = np.array([[1, 0, 1, 1], [1, 1, 0, 1]], bool)
    found = matching(VECTORS, here, [0, 1, 2, 3])
    expected = [cost(0, [2, 3]), 0.0, 0.0, cost(3, [0, 2])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pairs_of_towers_add_up():
    three = np.concatenate([VECTORS, VECTORS[:1]])
    here = np.ones((3, 4), bool)
    labels = [0, 1, 0, 2]
    pairs = [
        matching(three[[i, j]], here[:2], labels) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    np.testing.assert_allclose(matching(three, here, labels), sum(pairs), rtol=1e-5)


def test_nothing_to_tell_apart_costs_nothing_and_zero_vectors_are_no_trouble():
    assert not matching(VECTORS, HERE, [1, 1, 1, 1]).any()
    with tf.GradientTape() as tape:
        vectors = tf.Variable(tf.zeros((4, 2, 2)))
        predicted = tf.concat([vectors, tf.ones((4, 2, 1))], axis=-1)
        loss = MatchingLoss("single_label", 2)(np.array([0, 1, 2, 3]), predicted)
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, vectors)).all()


def test_a_graph_with_unknown_batch_gives_the_same_matching_loss():
    predicted = np.random.default_rng(0).normal(size=(5, 2, 4)).astype(np.float32)
    predicted[:, :, 3] = 1.0
    labels = np.array([[0], [1], [1], [2], [0]], np.int32)
    loss = MatchingLoss("single_label", 2, weight=0.5)
    traced = tf.function(
        loss,
        input_signature=[
            tf.TensorSpec([None, 1], tf.int32),
            tf.TensorSpec([None, 2, 4], tf.float32),
        ],
    )
    np.testing.assert_allclose(traced(labels, predicted), loss(labels, predicted))
    again = MatchingLoss.from_config(loss.get_config())
    np.testing.assert_allclose(again(labels, predicted), loss(labels, predicted))


def test_the_lesson_brings_matching_vectors_together():
    made = problem("single_label")
    model = head(made, projection_units=16)
    loss = MatchingLoss("single_label", 5)

    def apart(lesson):
        said = lesson.model(dict(made.held_out.inputs))
        assert set(said) == set(lesson.losses) == set(lesson.targets)
        assert said["matching"].shape == (60, 3, 17)
        return float(loss(made.held_out.targets, said["matching"]))

    own = {"matching_weight": 1.0, "projection_units": 16}
    before = apart(taught(model, made, epochs=0, **own))
    assert apart(taught(model, made, epochs=15, **own)) < 0.9 * before


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"projection": "none", "combine": "add"}, "features of one width"),
        ({"projection": "none", "matching_weight": 0.1}, "vectors of one width"),
        ({"combine": "cross", "cross_units": 80}, "19,200 of 3 towers"),
        ({"num_negatives": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(own, message):
    with pytest.raises(ValueError, match=message):
        settings_of(**own)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"cross_units": 4}, "'cross_units' needs combine = 'cross'"),
        ({"num_negatives": 3}, "'num_negatives' needs a 'matching_weight'"),
        (
            {"projection": "none", "projection_units": 7},
            "'projection_units' needs a projection",
        ),
        ({"combine": "add", "towers": ["text"]}, "'combine' needs two towers"),
        ({"matching_weight": 0.1, "towers": ["text"]}, "'matching_weight' needs two"),
    ],
)
def test_a_key_that_would_do_nothing_is_refused(own, message):
    with pytest.raises(ValueError, match=message):
        EarlyFusion(**{"model": "early_fusion", "towers": list(NAMES), **own})


def test_a_single_tower_gets_another_classifier():
    """Paper B's rows "early: image only" and "text only"."""
    made = problem("single_label")
    name = next(iter(made.shapes))
    one = dataclasses.replace(
        made,
        shapes={name: made.shapes[name]},
        fit=dataclasses.replace(made.fit, inputs={name: made.fit.inputs[name]}),
    )
    model = head(one, **FROM_ZERO)
    lesson = taught(model, one, 1, **FROM_ZERO)
    assert lesson.model.count_params() == model.count_params()
    inputs = {name: examples("single_label", 20, seed=5).inputs[name]}
    absent = ~inputs[name]["present"]
    logits = answer(model, inputs)["logits"]
    assert logits.shape == (20, len(made.prior_logits))
    np.testing.assert_allclose(
        logits[absent], np.tile(made.prior_logits, (absent.sum(), 1)), rtol=1e-6
    )
    assert np.std(logits[~absent], axis=0).min() > 0
