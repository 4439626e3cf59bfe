import keras
import numpy as np
import pytest
import tensorflow as tf
from fused import NAMES, answer, examples, problem
from pydantic import ValidationError
from scipy.special import expit, log_expit, log_softmax, logit, softmax

from tfmm.heads import HEADS, LESSONS
from tfmm.heads.inputs import Examples
from tfmm.heads.policy_network import boosted_weights
from tfmm.layers.probability_powers import ProbabilityPowers
from tfmm.losses import WeightedSigmoidCrossEntropy, WeightedSoftmaxCrossEntropy
from tfmm.settings import PolicyNetwork

TASKS = ["single_label", "multi_label"]
ONE_LAYER = {"hidden_units": [], "activations": [], "start_from": "zero"}


def settings(towers=NAMES, **keys):
    return PolicyNetwork(model="policy_network", towers=list(towers), **keys)


def policy(task, made_up, **keys):
    keras.utils.set_random_seed(0)
    return HEADS["policy_network"](
        settings(made_up.inputs, **keys), problem(task, made_up)
    )


def logits_of(made_up):
    return [np.float64(x["logits"]) for x in made_up.inputs.values()]


def lesson(task, made_up, model, **keys):
    losses = {
        "single_label": WeightedSoftmaxCrossEntropy,
        "multi_label": WeightedSigmoidCrossEntropy,
    }
    chosen = settings(made_up.inputs, **keys)
    return LESSONS["policy_network"](
        chosen, problem(task, made_up), model, losses[task]()
    )


@pytest.mark.parametrize("task", TASKS)
def test_a_policy_that_starts_from_the_product_is_the_product(task):
    made_up = examples(task, products=6, absent=0.0)
    p = np.stack(logits_of(made_up))
    p = softmax(p, axis=-1) if task == "single_label" else expit(p)
    if task == "single_label":
        fused = p.prod(axis=0) / p.prod(axis=0).sum(axis=-1, keepdims=True)
        expected = np.log(fused)
    else:
        yes, no = p.prod(axis=0), (1 - p).prod(axis=0)
        expected = logit(yes / (yes + no))
    said = answer(policy(task, made_up, start_from="product"), made_up.inputs)
    np.testing.assert_allclose(said["logits"], expected, atol=5e-5)


READS = {
    ("single_label", "probabilities"): lambda x, tau: softmax(x, axis=-1) ** tau,
    ("single_label", "log_probabilities"): lambda x, tau: tau * log_softmax(x, axis=-1),
    ("multi_label", "probabilities"): lambda x, tau: np.exp(tau * log_expit(x)),
    ("multi_label", "log_probabilities"): lambda x, tau: tau * x,
}


@pytest.mark.parametrize(("task", "inputs"), READS)
@pytest.mark.parametrize("temperatures", [{}, {"title": 0.5, "image": 3.0}])
def test_a_policy_reads_probabilities_or_their_logarithms_to_a_power(
    task, inputs, temperatures
):
    made_up = examples(task, products=6)
    keys = {**ONE_LAYER, "inputs": inputs, "temperatures": temperatures}
    built = policy(task, made_up, **keys)
    kernel, bias = (np.asarray(w) for w in built.get_layer("output").weights)
    here = np.stack([x["present"] for x in made_up.inputs.values()], axis=1)
    read = [
        READS[task, inputs](x, temperatures.get(name, 1.0)) * here[:, [position]]
        for position, (name, x) in enumerate(
            zip(NAMES, logits_of(made_up), strict=True)
        )
    ]
    expected = np.concatenate([*read, here], axis=1) @ kernel + bias
    said = answer(built, made_up.inputs)["logits"]
    np.testing.assert_allclose(said, expected, atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_the_product_that_a_policy_starts_from_is_of_the_powers(task):
    made_up = examples(task, products=6, absent=0.0)
    tau = {"title": 0.5, "description": 1.0, "image": 2.0}
    total = sum(tau[n] * x for n, x in zip(NAMES, logits_of(made_up), strict=True))
    if task == "single_label":
        total = log_softmax(total, axis=-1)
    else:
        total = logit(np.clip(expit(total), 1e-7, 1 - 1e-7))
    said = answer(policy(task, made_up, temperatures=tau), made_up.inputs)
    np.testing.assert_allclose(said["logits"], total, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("inputs", ["probabilities", "log_probabilities"])
def test_powers_of_one_change_nothing(task, inputs):
    made_up = examples(task, products=6)
    plain = policy(task, made_up, inputs=inputs)
    powers = policy(task, made_up, inputs=inputs, learn_temperatures=True)
    assert powers.count_params() == plain.count_params() + 3
    said, expected = answer(powers, made_up.inputs), answer(plain, made_up.inputs)
    for key, value in expected.items():
        np.testing.assert_array_equal(said[key], value)


def test_a_policy_has_the_layers_of_paper_c():
    made_up = examples("multi_label", labels=3)
    keys = {"hidden_units": [200, 150], "activations": ["sigmoid", "tanh"]}
    built = policy("multi_label", made_up, **keys)
    inputs = 3 * 3 + 3
    expected = inputs * 200 + 200 + 200 * 150 + 150 + 150 * 3 + 3
    assert built.count_params() == expected
    assert built.output["features"].shape == (None, 150)


def taught(task, made_up, steps, **keys):
    """A policy trained on its lesson, and its powers."""
    built = policy(task, made_up, **keys)
    given = lesson(task, made_up, built, **keys)
    given.model.compile(keras.optimizers.Adam(0.05), loss=dict(given.losses))
    given.model.fit(
        dict(made_up.inputs),
        dict(given.targets),
        sample_weight=given.weights,
        batch_size=len(made_up.targets),
        epochs=steps,
        verbose=0,
    )
    powers = built.get_layer("temperatures").weights[0].numpy().ravel()
    return built, powers


def test_learned_powers_trust_the_tower_that_knows_more(tmp_path):
    made_up = examples("multi_label", products=200)
    noise = np.random.default_rng(7).normal(size=(200, 4))
    made_up.inputs["image"]["logits"][:] = 3 * noise  # sure of what it does not know
    keys = {"learn_temperatures": True, "hidden_units": [4], "l2": 1e-4}
    built, powers = taught("multi_label", made_up, 40, **keys)
    assert powers[0] > 0.9
    assert powers[2] < 0.4
    built.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    kept = loaded.get_layer("temperatures").weights[0].numpy().ravel()
    np.testing.assert_array_equal(kept, powers)
    root = tf.Module()
    root.model = loaded
    specs = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), dict(made_up.inputs)
    )
    root.call = tf.function(
        lambda x: loaded(x, training=False), input_signature=[specs]
    )
    tf.saved_model.save(root, str(tmp_path / "saved"))
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    served = exported.call(dict(made_up.inputs))
    one = {n: {k: v[:1] for k, v in x.items()} for n, x in made_up.inputs.items()}
    for key, value in answer(built, made_up.inputs).items():
        np.testing.assert_allclose(served[key], value, atol=1e-5)
        np.testing.assert_allclose(answer(loaded, one)[key], value[:1], atol=1e-5)


def test_learned_powers_stay_in_range():
    made_up = examples("single_label", products=40, absent=0.0)
    made_up.inputs["image"]["logits"][:] *= -1.0
    keys = {"learn_temperatures": True, "temperatures": {"image": 0.3}}
    _, powers = taught("single_label", made_up, 12, **keys)
    assert powers[2] == np.float32(0.1)
    assert powers[0] > 1.0


def test_given_powers_are_not_trained():
    made_up = examples("single_label", products=6)
    built = policy("single_label", made_up, temperatures={"title": 0.05, "image": 9.0})
    layer = built.get_layer("temperatures")
    assert layer.trainable_weights == []
    np.testing.assert_array_equal(layer.weights[0], np.float32([[0.05], [1], [9]]))


# Three products of three labels. The image is right of the first two, the third has
# none; what it says of the first is repeated by the title, and denied by the other.
P = {
    "title": [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6]],
    "description": [[0.2, 0.4, 0.4], [0.5, 0.3, 0.2], [0.3, 0.6, 0.1]],
    "image": [[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.9, 0.05, 0.05]],
}
SINGLE = np.array([0, 1, 2], np.int32)
MULTI = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)


def by_hand(task, present=((True,) * 3,) * 3):
    inputs = {
        name: {
            "features": np.ones((3, 2), np.float32),
            "logits": np.float32(
                (np.log(P[name]) if task == "single_label" else logit(P[name]))
                * np.array(here)[:, None]
            ),
            "present": np.array(here),
        }
        for name, here in zip(P, present, strict=True)
    }
    targets = SINGLE if task == "single_label" else MULTI
    return problem(task, Examples(inputs, targets, np.arange(3, dtype=np.int32)))


@pytest.mark.parametrize("task", TASKS)
def test_constant_boost_counts_products_of_which_the_tower_is_right(task):
    boosted = settings(boosted_tower="image", boost_constant=0.655)
    weights = boosted_weights(boosted, by_hand(task))
    np.testing.assert_allclose(weights, [0.655, 0.655, 1.0])
    title = settings(boosted_tower="title", boost_constant=3.0)
    np.testing.assert_allclose(boosted_weights(title, by_hand(task)), [3.0, 1.0, 3.0])


def test_proportional_boost_grows_with_what_the_other_towers_miss():
    boosted = settings(boosted_tower="image", boost="proportional", boost_constant=2.0)
    weights = boosted_weights(boosted, by_hand("single_label"))
    # Means 0.45 and 0.3.
    np.testing.assert_allclose(weights, [1 + 0.55 * 2, 1 + 0.7 * 2, 1.0], atol=1e-6)
    weights = boosted_weights(boosted, by_hand("multi_label"))
    # The first has two labels: (0.7 + 0.2 + 0.2 + 0.4) / 4.
    np.testing.assert_allclose(weights, [1 + 0.625 * 2, 1 + 0.7 * 2, 1.0], atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_boost_asks_only_towers_that_are_there(task):
    boosted = settings(boosted_tower="image", boost="proportional", boost_constant=2.0)
    title, description, image = (False, True, True), (False, False, True), (True,) * 3
    weights = boosted_weights(boosted, by_hand(task, (title, description, image)))
    np.testing.assert_allclose(weights, [3.0, 1 + 0.7 * 2, 1.0], atol=1e-6)
    weights = boosted_weights(boosted, by_hand(task, (image, image, (False,) * 3)))
    np.testing.assert_array_equal(weights, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("task", TASKS)
def test_a_lesson_trains_the_logits_with_the_boost(task):
    made_up = by_hand(task).fit
    built = policy(task, made_up)
    plain = lesson(task, made_up, built)
    assert plain.weights is None
    assert set(plain.losses) == set(plain.targets) == {"logits"}
    assert set(plain.model.output) == {"logits"}
    assert plain.targets["logits"] is made_up.targets
    boosted = lesson(task, made_up, built, boosted_tower="image", boost_constant=5.0)
    np.testing.assert_array_equal(boosted.weights, np.float32([5, 5, 1]))
    same = {id(weight) for weight in built.weights}
    assert {id(weight) for weight in boosted.model.weights} == same


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"boost": "proportional"}, "'boost' needs a 'boosted_tower'"),
        ({"boost_constant": 3.0}, "'boost_constant' needs a 'boosted_tower'"),
        ({"boosted_tower": "imag"}, "name towers of its own. Received: 'imag'"),
        (
            {"temperatures": {"title": 5.0}, "learn_temperatures": True},
            r"within \[0.1, 4\]. Received: title = 5",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        settings(**keys)


def test_probability_powers_are_the_same_traced_in_half_precision_and_from_a_config():
    logarithms = np.log(np.float32([[[0.5, 0.5], [0.1, 0.9]]]))
    layer = ProbabilityPowers([1.0, 2.0], 0.2, 3.0, trainable=False)
    expected = np.exp(np.asarray(layer(logarithms)))
    np.testing.assert_allclose(expected, [[[0.5, 0.5], [0.01, 0.81]]], rtol=1e-5)
    assert [w.shape for w in layer.weights] == [(2, 1)]
    assert layer.trainable_weights == []
    symbolic = layer(keras.Input((2, 2)))
    assert symbolic.shape == (None, 2, 2)
    spec = tf.TensorSpec([None, 2, 2])
    traced = tf.function(layer, input_signature=[spec])
    assert traced.get_concrete_function().output_shapes.as_list() == [None, 2, 2]
    np.testing.assert_allclose(np.exp(traced(logarithms)), expected)
    again = ProbabilityPowers.from_config(layer.get_config())
    np.testing.assert_allclose(np.exp(again(logarithms)), expected)
    assert (again.lowest, again.highest, again.trainable) == (0.2, 3.0, False)
    half = ProbabilityPowers([1.0, 2.0], dtype="float16")(logarithms)
    assert half.dtype == tf.float16
    np.testing.assert_allclose(np.exp(np.float32(half)), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 0.0],), "`powers` must be above 0"),
        (([1.0], 2.0, 1.0), "range above 0"),
    ],
)
def test_probability_powers_refuse_what_is_no_power(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProbabilityPowers(*arguments)


def test_probability_powers_refuse_another_number_of_towers():
    with pytest.raises(ValueError, match=r"\(batch, 2, C\)"):
        ProbabilityPowers([1.0, 2.0])(np.ones((1, 3, 2), np.float32))
