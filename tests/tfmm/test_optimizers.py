import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm.optimizers import SparseAdagrad, SparseSGD, optimizer
from tfmm.settings import Optimization

ROWS = [3, 1, 3]  # row 3 twice
VALUES = [[0.5, -1.0], [2.0, 0.25], [1.5, 4.0]]
PAIRS = [
    (SparseSGD, keras.optimizers.SGD, {}),
    (SparseSGD, keras.optimizers.SGD, {"momentum": 0.9}),
    (SparseAdagrad, keras.optimizers.Adagrad, {}),
    (SparseAdagrad, keras.optimizers.Adagrad, {"initial_accumulator_value": 0.0}),
]


def table():
    return keras.Variable(np.arange(10.0, dtype=np.float32).reshape(5, 2))


def sparse():
    return tf.IndexedSlices(tf.constant(VALUES), tf.constant(ROWS), tf.constant([5, 2]))


def after_steps(rule, gradient, steps=3):
    weights = table()
    rule.build([weights])
    step = tf.function(lambda: rule.apply([gradient]))
    for _ in range(steps):
        step()
    return weights.numpy()


@pytest.mark.parametrize(("ours", "keras_own", "options"), PAIRS)
def test_dense_gradients_change_what_they_change_in_keras(ours, keras_own, options):
    gradient = tf.constant(np.random.default_rng(0).normal(size=(5, 2)), tf.float32)
    np.testing.assert_array_equal(
        after_steps(ours(0.1, **options), gradient),
        after_steps(keras_own(0.1, **options), gradient),
    )


@pytest.mark.parametrize(("ours", "keras_own", "options"), PAIRS)
def test_sparse_gradients_change_what_dense_ones_change(ours, keras_own, options):
    dense = tf.convert_to_tensor(sparse())
    changed = after_steps(ours(0.1, **options), sparse())
    used = sorted(set(ROWS))
    expected = after_steps(keras_own(0.1, **options), dense)
    np.testing.assert_allclose(changed[used], expected[used], rtol=1e-6)
    others = [0, 2, 4]
    np.testing.assert_array_equal(changed[others], table().numpy()[others])


def test_adagrad_adds_up_a_row_that_comes_twice_before_squaring():
    weights = after_steps(SparseAdagrad(1.0, 0.0, 0.0), sparse(), steps=1)
    # gradient / sqrt(gradient ** 2): the sign, whatever the size.
    np.testing.assert_allclose(weights[3], [6.0 - 1.0, 7.0 - 1.0], rtol=1e-6)


@pytest.mark.parametrize("rule", [SparseSGD, SparseAdagrad])
def test_no_operation_of_a_step_makes_the_whole_table(rule):
    weights = table()
    made = rule(0.1)
    made.build([weights])
    step = tf.function(lambda: made.apply([sparse()])).get_concrete_function()
    whole = [
        operation.name
        for operation in step.graph.get_operations()
        for output in operation.outputs
        if output.shape.rank and output.shape[0] == 5
    ]
    assert not whole


def test_a_restored_optimizer_goes_on_as_if_it_had_not_stopped():
    weights, rule = table(), SparseAdagrad(0.1)
    rule.build([weights])
    rule.apply([sparse()])
    other, other_rule = table(), SparseAdagrad(0.5)
    other_rule.build([other])
    other.assign(weights)
    for variable, kept in zip(other_rule.variables, rule.variables, strict=True):
        variable.assign(kept)
    rule.apply([sparse()])
    other_rule.apply([sparse()])
    np.testing.assert_array_equal(other.numpy(), weights.numpy())


@pytest.mark.parametrize("rule", [SparseSGD, SparseAdagrad])
def test_rules_are_made_again_from_their_config(rule):
    made = keras.optimizers.deserialize(keras.optimizers.serialize(rule(0.25)))
    assert type(made) is rule
    assert float(made.learning_rate) == 0.25


@pytest.mark.parametrize(
    ("settings", "kind", "has"),
    [
        ({"optimizer": "sgd", "momentum": 0.5}, SparseSGD, {"momentum": 0.5}),
        ({"optimizer": "adagrad", "epsilon": 1e-3}, SparseAdagrad, {"epsilon": 1e-3}),
        ({"optimizer": "adam"}, keras.optimizers.Adam, {}),
        (
            {"optimizer": "adamw", "weight_decay": 0.1},
            keras.optimizers.AdamW,
            {"weight_decay": 0.1},
        ),
        (
            {"optimizer": "rmsprop", "momentum": 0.9, "clip_norm": 2.0},
            keras.optimizers.RMSprop,
            {"momentum": 0.9, "global_clipnorm": 2.0},
        ),
    ],
)
def test_settings_become_the_rule_they_name(settings, kind, has):
    made = optimizer(Optimization(learning_rate=0.5, **settings))
    assert type(made) is kind
    assert float(made.learning_rate) == 0.5
    assert {name: getattr(made, name) for name in has} == has


PARTS = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "adam"},
    {"optimizer": "adamw", "weight_decay": 0.5},
    {"optimizer": "rmsprop", "momentum": 0.9},
    {"optimizer": "adagrad"},
]


def two_steps(factors, gradients, **settings):
    """How far two variables go; `factors` of each. The rate is halved in between."""
    variables = [keras.Variable(np.full((2, 3), 10.0, np.float32)) for _ in range(2)]
    by_id = {id(v): f for v, f in zip(variables, factors, strict=True) if f != 1.0}
    rule = optimizer(Optimization(learning_rate=0.5, **settings), by_id)
    rule.build(variables)
    step = tf.function(lambda: rule.apply(gradients, variables))
    moved = []
    for rate in (0.5, 0.25):
        before = [np.asarray(x) for x in variables]
        rule.learning_rate.assign(rate)
        step()
        moved += [x - y for x, y in zip(variables, before, strict=True)]
        for variable in variables:
            variable.assign(np.full((2, 3), 10.0))
    return rule, [np.asarray(x) for x in moved]


GRADIENTS = [
    tf.constant([[0.5, -1.0, 2.0], [3.0, 0.1, -0.2]]),
    tf.constant([[1.5, 1.0, -2.0], [1.0, 0.7, -0.3]]),
]


@pytest.mark.parametrize("settings", PARTS, ids=str)
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_factor_of_a_tenth_moves_a_variable_a_tenth_as_far(settings, clip):
    own = {**settings, "clip_norm": clip}
    plain_rule, plain = two_steps((1.0, 1.0), GRADIENTS, **own)
    rule, moved = two_steps((0.1, 1.0), GRADIENTS, **own)
    for position, (whole, part) in enumerate(zip(plain, moved, strict=True)):
        factor = 1.0 if position % 2 else 0.1
        np.testing.assert_allclose(part, factor * whole, rtol=1e-3, atol=2e-6)
    assert [x.shape for x in rule.variables] == [x.shape for x in plain_rule.variables]


@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_rows_of_a_table_move_at_the_rate_of_its_part(name):
    moved = []
    for factor in (1.0, 0.1):
        weights = table()
        settings = Optimization(optimizer=name, learning_rate=0.5)
        rule = optimizer(settings, {id(weights): factor})
        rule.build([weights])
        tf.function(lambda rule=rule: rule.apply([sparse()]))()
        moved.append(weights.numpy() - table().numpy())
    np.testing.assert_allclose(moved[1], 0.1 * moved[0], atol=1e-6)


def test_a_model_trained_by_parts_can_be_saved(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    factors = {id(model.weights[0]): 0.1}
    model.compile(optimizer(Optimization(optimizer="adamw"), factors), "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded.weights[0], model.weights[0])
