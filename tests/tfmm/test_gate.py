import keras
import numpy as np
import pytest
import tensorflow as tf
from fused import NAMES, answer, examples, problem
from pydantic import ValidationError
from scipy.special import expit, logit, softmax

from tfmm import metrics
from tfmm.heads import HEADS, LESSONS
from tfmm.heads.gate import ABSENT_SCORE, GateCrossEntropy, policy_accuracy
from tfmm.heads.inputs import Examples
from tfmm.losses import WeightedSigmoidCrossEntropy, WeightedSoftmaxCrossEntropy
from tfmm.settings import Gate

TASKS = ["single_label", "multi_label"]


def settings(towers, **keys):
    return Gate(model="gate", towers=list(towers), **keys)


def gate(task, made_up, **keys):
    keras.utils.set_random_seed(0)
    return HEADS["gate"](settings(made_up.inputs, **keys), problem(task, made_up))


def set_scores(model, scores):
    """Makes the gate give these scores to the towers but the first, always."""
    kernel, bias = model.get_layer("output").weights
    kernel.assign(np.zeros(kernel.shape))
    bias.assign(np.float32(scores))


def stacked(made_up, key="logits"):
    return np.stack([x[key] for x in made_up.inputs.values()], axis=1)


def telling(task, names, products=240, absent=0.0) -> Examples:
    """Towers that are right exactly when they are sure; the first by a coin."""
    generator = np.random.default_rng(4)
    targets = generator.integers(3, size=products).astype(np.int32)
    sure = generator.integers(len(names), size=products)  # who, if not the first
    inputs = {}
    for position, name in enumerate(names):
        coin = generator.random(products) < 0.5
        right = sure == position if position else coin
        first = np.where(right, targets, (targets + 1) % 3)
        height = np.where(right, 6.0, 1.0) if position else np.full(products, 3.0)
        here = generator.random(products) >= absent
        inputs[name] = {
            "features": np.float32(generator.normal(size=(products, 2)))
            * here[:, None],
            "logits": np.float32(np.eye(3)[first] * height[:, None] * here[:, None]),
            "present": here,
        }
    if task == "multi_label":
        targets = np.float32(np.eye(3)[targets])
    return Examples(inputs, targets, np.arange(products, dtype=np.int32))


def taught(task, made_up, steps=60, **keys):
    """A gate trained on its lesson."""
    built = gate(task, made_up, **keys)
    chosen = settings(made_up.inputs, **keys)
    unused = WeightedSoftmaxCrossEntropy()
    lesson = LESSONS["gate"](chosen, problem(task, made_up), built, unused)
    lesson.model.compile(keras.optimizers.Adam(0.1), loss=dict(lesson.losses))
    data = tf.data.Dataset.from_tensors((dict(made_up.inputs), dict(lesson.targets)))
    lesson.model.fit(data.repeat(steps), shuffle=False, verbose=0)
    return built


def right(task, made_up, model):
    logits = answer(model, made_up.inputs)["logits"]
    return metrics.is_right(task, made_up.targets, logits)


def oracle(task, made_up):
    each = [
        metrics.is_right(task, made_up.targets, x["logits"]) & x["present"]
        for x in made_up.inputs.values()
    ]
    return np.any(each, axis=0)


@pytest.mark.parametrize(
    ("task", "names", "keys"),
    [
        ("single_label", NAMES[:2], {"inputs": "top_1", "hidden_units": []}),
        ("multi_label", NAMES, {"inputs": "top_3", "hidden_units": [10], "l2": 1e-5}),
    ],
)
def test_a_gate_comes_close_to_the_oracle_where_sureness_tells(
    task, names, keys, tmp_path
):
    made_up = telling(task, names)
    first = metrics.is_right(task, made_up.targets, made_up.inputs["title"]["logits"])
    assert first.mean() < 0.6
    built = taught(task, made_up, **keys)
    best = oracle(task, made_up)
    assert right(task, made_up, built).mean() > best.mean() - 0.01
    built.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    for key, value in answer(built, made_up.inputs).items():
        np.testing.assert_array_equal(answer(loaded, made_up.inputs)[key], value)
    chosen = settings(names, **keys)
    accuracy = policy_accuracy(chosen, task, made_up.inputs, made_up.targets, loaded)
    # Where both are right the gate switches and its label says no.
    assert 0.7 < accuracy < 0.9


def test_a_greater_positive_weight_switches_more_often():
    made_up = telling("single_label", NAMES[:2])
    switched = []
    for weight in (0.2, 5.0):
        keys = {"positive_weight": weight, "inputs": "top_1", "hidden_units": []}
        built = taught("single_label", made_up, 40, **keys)
        said = answer(built, made_up.inputs)["logits"]
        switched.append((said == stacked(made_up)[:, 1]).all(axis=1).sum())
    assert switched[0] < 10
    assert switched[1] > 100


@pytest.mark.parametrize("task", TASKS)
def test_a_hard_gate_answers_with_one_towers_logits_as_they_are(task):
    made_up = examples(task)
    built = gate(task, made_up, hidden_units=[])
    said = answer(built, made_up.inputs)["logits"]
    scores = keras.Model(built.input, built.get_layer("gate").output)
    best = np.argmax(scores(dict(made_up.inputs)), axis=1)
    assert len(set(best)) > 1
    rows = np.arange(len(best))
    np.testing.assert_array_equal(said, stacked(made_up)[rows, best])
    assert stacked(made_up, "present")[rows, best].all()


@pytest.mark.parametrize("task", TASKS)
def test_a_soft_gate_answers_with_the_weighted_mean(task):
    made_up = examples(task, products=20)
    built = gate(task, made_up, choice="soft")
    set_scores(built, [1.0, -0.5])
    here = stacked(made_up, "present")
    weights = softmax(np.where(here, [0.0, 1.0, -0.5], -np.inf), axis=1)
    logits = stacked(made_up).astype(np.float64)
    p = softmax(logits, axis=-1) if task == "single_label" else expit(logits)
    mean = (p * weights[:, :, None]).sum(axis=1)
    expected = np.log(mean) if task == "single_label" else logit(mean)
    said = answer(built, made_up.inputs)["logits"]
    np.testing.assert_allclose(said, expected, atol=1e-4)


@pytest.mark.parametrize("score", [-1e-3, 0.0, 1e-3])
def test_two_towers_are_paper_a(score):
    made_up = examples("single_label", names=NAMES[:2], absent=0.0)
    built = gate("single_label", made_up)
    set_scores(built, [score])
    chosen = stacked(made_up)[:, int(expit(score) >= 0.5)]
    np.testing.assert_array_equal(answer(built, made_up.inputs)["logits"], chosen)


@pytest.mark.parametrize("choice", ["hard", "soft"])
def test_an_absent_tower_has_no_say(choice):
    made_up = examples("multi_label", products=30, absent=0.5)
    built = gate("multi_label", made_up, choice=choice)
    set_scores(built, [8.0, 9.0])
    others = {
        name: {**x, "logits": np.where(x["present"][:, None], x["logits"], 7.0)}
        for name, x in made_up.inputs.items()
    }
    said = answer(built, made_up.inputs)["logits"]
    np.testing.assert_allclose(answer(built, others)["logits"], said, atol=1e-6)


@pytest.mark.parametrize("choice", ["hard", "soft"])
def test_a_gate_answers_every_subset_and_gives_the_prior_without_any(choice):
    made_up = examples("multi_label", products=8, absent=0.0)
    built = gate("multi_label", made_up, choice=choice)
    for row, x in enumerate(stacked(made_up, "present")):
        for position, name in enumerate(NAMES):
            x[position] = row >> position & 1
            for key in ("features", "logits", "present"):
                made_up.inputs[name][key][row] *= x[position]
    said = answer(built, made_up.inputs)
    prior = problem("multi_label", made_up).prior_logits
    np.testing.assert_allclose(said["logits"][0], prior, atol=1e-6)
    for row, position in ((1, 0), (2, 1), (4, 2)):
        alone = stacked(made_up)[row, position]
        np.testing.assert_allclose(said["logits"][row], alone, atol=1e-4)
    assert np.isfinite(said["logits"]).all()
    np.testing.assert_array_equal(said["features"][0], np.zeros(15))


READS = {
    "top_1": lambda p: p[:, :1],
    "top_3": lambda p: p[:, :3],
    "all": lambda p: p,
}


@pytest.mark.parametrize("inputs", READS)
def test_a_gate_reads_the_greatest_softmax_probabilities_in_either_task(inputs):
    made_up = examples("multi_label", products=10, labels=5)
    built = gate("multi_label", made_up, inputs=inputs, hidden_units=[])
    kernel, bias = (np.asarray(w) for w in built.get_layer("output").weights)
    here = stacked(made_up, "present")
    p = -np.sort(-softmax(stacked(made_up), axis=-1), axis=-1) * here[:, :, None]
    read = np.concatenate([*(READS[inputs](p[:, i]) for i in range(3)), here], axis=1)
    scores = keras.Model(built.input, built.get_layer("gate").output)
    said = scores(dict(made_up.inputs))
    expected = np.where(here[:, 1:], read @ kernel + bias, ABSENT_SCORE)
    np.testing.assert_allclose(said[:, 1:], expected, rtol=1e-5, atol=1e-5)


def test_a_gate_takes_three_probabilities_of_two_labels():
    made_up = examples("single_label", products=10, labels=2)
    built = gate("single_label", made_up, hidden_units=[])
    assert built.get_layer("output").kernel.shape == (3 * 2 + 3, 2)


def test_a_gate_reads_the_features_of_the_towers_it_is_told_to():
    made_up = examples("single_label", products=10)
    keys = {"inputs": "features", "hidden_units": [], "dropout": 0.1}
    built = gate("single_label", made_up, features_of=["image"], **keys)
    kernel, bias = (np.asarray(w) for w in built.get_layer("output").weights)
    here = stacked(made_up, "present")
    read = np.concatenate([made_up.inputs["image"]["features"], here], axis=1)
    scores = keras.Model(built.input, built.get_layer("gate").output)
    expected = np.where(here[:, 1:], read @ kernel + bias, ABSENT_SCORE)
    said = scores(dict(made_up.inputs))[:, 1:]
    np.testing.assert_allclose(said, expected, rtol=1e-5, atol=1e-5)
    every = gate("single_label", made_up, **keys)
    assert every.get_layer("output").kernel.shape == (3 * 5 + 3, 2)


def test_features_are_the_towers_and_layers_are_paper_as():
    made_up = examples("single_label", names=NAMES[:2], features=5)
    built = gate("single_label", made_up)
    assert built.output["features"].shape == (None, 10)
    assert built.count_params() == (2 * 3 + 2) * 10 + 10 + 10 + 1


X = ABSENT_SCORE
# Which towers are right, the scores, and what the second and the third must learn:
# a label, or nothing.
CASES = [
    ([0, 1, 0], [0.0, 0.5, -1.0], [1, 0]),
    ([1, 1, 1], [0.0, 0.5, -1.0], [0, 0]),
    ([0, 0, 0], [0.0, 0.5, -1.0], [0, 0]),
    ([0, 0, 1], [0.0, X, 2.0], [None, 1]),
    ([0, 1, 1], [X, 0.5, 2.0], [1, 1]),
    ([1, 1, 0], [X, 0.5, 2.0], [1, 0]),  # hidden after it was found right
    ([0, 1, 0], [X, 0.5, X], [None, None]),
    ([1, 0, 0], [0.0, X, X], [None, None]),
    ([0, 0, 0], [X, X, X], [None, None]),
]


@pytest.mark.parametrize(("right", "scores", "labels"), CASES)
def test_the_loss_teaches_only_what_there_is_to_choose(right, scores, labels):
    expected = 0.0
    for score, label in zip(scores[1:], labels, strict=True):
        if label is not None:
            expected += (
                5 * np.log1p(np.exp(-score)) if label else np.logaddexp(0, score)
            )
    right, scores = tf.constant([right], tf.float32), tf.Variable([scores])
    with tf.GradientTape() as tape:
        loss = GateCrossEntropy(positive_weight=5.0)(right, scores)
    assert float(loss) == pytest.approx(expected / 2, abs=1e-5)
    moved = np.asarray(tape.gradient(loss, scores))[0, 1:] != 0
    np.testing.assert_array_equal(moved, [label is not None for label in labels])


def test_the_loss_of_two_towers_is_the_weighted_cross_entropy_of_paper_as_label():
    right = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]])
    scores = np.float32([[0, 0.3], [0, -1.2], [0, 2.0], [0, -40.0]])
    label = np.float32([[0], [1], [0], [0]])
    for smoothing in (0.0, 0.2):
        expected = WeightedSigmoidCrossEntropy(7.0, smoothing)(label, scores[:, 1:])
        loss = GateCrossEntropy(7.0, smoothing)(right, scores)
        assert float(loss) == pytest.approx(float(expected))


@pytest.mark.parametrize("task", TASKS)
def test_policy_accuracy_is_the_share_of_right_decisions(task):
    # First choices 0, 1, 2 for all; title, description, image are right as below.
    right = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]], bool)
    here = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 1, 1]], bool)
    targets = np.array([0, 1, 2, 0, 1], np.int32)
    inputs = {
        name: {
            "features": np.ones((5, 2), np.float32),
            "logits": np.float32(
                np.eye(3)[np.where(right[:, i], targets, (targets + 1) % 3)]
                * here[:, [i]]
            ),
            "present": here[:, i],
        }
        for i, name in enumerate(NAMES)
    }
    if task == "multi_label":
        targets = np.float32(np.eye(3)[targets])
    made_up = Examples(inputs, targets, np.arange(5, dtype=np.int32))
    built = gate(task, made_up)
    set_scores(built, [0.0, -1.0])  # yes, no
    # Labels (1, 0), (0, 0), (0, -), (-, -), (1, 1): 1 + 1, 0 + 1, 0, 1 + 0 right.
    backwards = dict(reversed(inputs.items()))
    accuracy = policy_accuracy(settings(NAMES), task, backwards, targets, built)
    assert accuracy == pytest.approx(4 / 7)
    for rows in (slice(3, 4), slice(0)):  # one tower alone; no product
        some = {n: {k: v[rows] for k, v in x.items()} for n, x in inputs.items()}
        asked = settings(NAMES), task, some, targets[rows], built
        assert policy_accuracy(*asked) is None


@pytest.mark.parametrize("choice", ["hard", "soft"])
def test_a_gate_is_the_same_exported_and_alone(choice, tmp_path):
    made_up = examples("single_label", products=8)
    built = gate("single_label", made_up, choice=choice, dropout=0.5)
    expected = answer(built, made_up.inputs)
    specs = tf.nest.map_structure(
        lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), dict(made_up.inputs)
    )
    root = tf.Module()
    root.model = built
    root.call = tf.function(lambda x: built(x, training=False), input_signature=[specs])
    tf.saved_model.save(root, str(tmp_path))
    exported = tf.saved_model.load(str(tmp_path))
    for row in range(8):
        one = {
            n: {k: v[row : row + 1] for k, v in x.items()}
            for n, x in made_up.inputs.items()
        }
        for key, value in exported.call(one).items():
            np.testing.assert_allclose(value[0], expected[key][row], atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"positive_weight": {"Shoes": 2.0}}, "positive_weight"),
        ({"class_weights": "balanced"}, "class_weights"),
        ({"features_of": ["title"]}, "needs inputs = 'features'"),
        ({"features_of": ["titel"], "inputs": "features"}, "Received: 'titel'"),
    ],
)
def test_settings_that_are_no_gates_are_refused(keys, message):
    with pytest.raises(ValidationError, match=message):
        settings(NAMES, **keys)
