import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import COLORS, WORDS

from tfmm.heads.early_fusion import early_fusion_lesson
from tfmm.heads.inputs import Examples, Problem, TowerShape
from tfmm.heads.joint import joint, rate_factors
from tfmm.losses import loss_for
from tfmm.optimizers import optimizer
from tfmm.results import OWN_LAYERS
from tfmm.settings import CompactCnn, Joint, TextCnn
from tfmm.towers import TOWERS
from tfmm.train import set_trainable

KEYS = {"words": "title", "looks": "image"}
TASK = "single_label"
PRODUCTS = 8
LABELS = np.arange(PRODUCTS, dtype=np.int32) % 3


def products():
    """Raw inputs of `joint`: a third lack the title, others the image."""
    generator = np.random.default_rng(0)
    titles, images = [], []
    for label in LABELS:
        kind = list(WORDS)[label]
        titles.append(f"{WORDS[kind]} {kind}")
        images.append(generator.integers(-20, 20, (32, 32, 3)) + COLORS[kind])
    here = np.array([[1, 1], [1, 1], [0, 1], [1, 0], [1, 1], [0, 1], [1, 0], [1, 1]])
    words, looks = here.astype(bool).T
    return {
        "words": np.where(words, titles, "").astype(object),
        "words_present": words,
        "looks": np.float32(np.clip(images, 0, 255)) * looks[:, None, None, None],
        "looks_present": looks,
    }


def towers():
    small = {"kernel_sizes": [1, 2], "filters": 4, "embedding_dim": 4, "max_words": 5}
    text = TextCnn(model="text_cnn", modality="title", **small)
    image = CompactCnn(
        model="compact_cnn", modality="image", image_size=32, widths=[8, 16]
    )
    keras.utils.set_random_seed(0)
    return {
        "words": TOWERS["text_cnn"](text, 3, list(WORDS.values())),
        "looks": TOWERS["compact_cnn"](image, 3),
    }


def settings_of(**own):
    small = {"projection_units": 5, "hidden_units": [6], "dropout": 0.0}
    small["learning_rate"] = 0.01
    if own.get("combine") != "cross":
        own.pop("cross_units", None)
    if own.get("projection") == "none":
        del small["projection_units"]
    return Joint(model="joint", towers=list(KEYS), **{**small, **own})


def built(settings, made=None):
    made = made or towers()
    empty = Examples({}, LABELS, np.arange(PRODUCTS))
    shapes = {
        name: TowerShape(x.output["features"].shape[1], 3) for name, x in made.items()
    }
    modalities = {name: (key,) for name, key in KEYS.items()}
    problem = Problem(TASK, shapes, modalities, [0.1, -0.2, 0.3], 0, empty, empty)
    return joint(settings, problem, made, KEYS), problem


def taught(settings, epochs, made=None):
    model, problem = built(settings, made)
    loss = loss_for(TASK, settings, list(WORDS), LABELS)
    lesson = early_fusion_lesson(settings, problem, model, loss)
    rule = optimizer(settings, rate_factors(settings, model))
    lesson.model.compile(
        rule, loss=dict(lesson.losses), jit_compile=False, run_eagerly=epochs == 1
    )
    data = tf.data.Dataset.from_tensor_slices((products(), dict(lesson.targets)))
    data = data.batch(PRODUCTS)
    losses = lesson.model.fit(data, epochs=epochs, shuffle=False, verbose=0).history
    return model, losses["loss"]


def test_one_step_moves_both_towers_and_the_head():
    settings = settings_of(matching_weight=0.1)
    before = {x.path: np.asarray(x) for x in built(settings)[0].trainable_weights}
    model, _ = taught(settings, epochs=1)
    moved = {
        layer.name
        for layer in model.layers
        for x in layer.trainable_weights
        if not np.array_equal(before[x.path], x)
    }
    own = {"hidden_1", "output"}
    for name in KEYS:
        own |= {f"{name}_{x}" for x in ("tower", "projection", "vector")}
    assert moved == own


def test_only_what_leads_to_the_features_is_in_the_network():
    model, _ = built(settings_of())
    for name in KEYS:
        names = [layer.name for layer in model.get_layer(f"{name}_tower").layers]
        assert "features" in names
        assert "logits" not in names
    assert {x.name for x in model.inputs} == {
        *("words", "looks", "words_present", "looks_present")
    }
    assert model.output["features"].shape == (None, 6)
    assert model.output["logits"].shape == (None, 3)


def test_what_a_towers_own_training_froze_is_trained_at_its_rate():
    made = towers()
    backbone = keras.Sequential(
        [keras.layers.Conv2D(4, 3, name="scene")], name="backbone"
    )
    image = keras.Input((32, 32, 3), name="image")
    features = keras.layers.GlobalAveragePooling2D(name="features")(backbone(image))
    outputs = {"features": features, "logits": keras.layers.Dense(3)(features)}
    made["looks"] = keras.Model({"image": image}, outputs)
    set_trainable(made["looks"], 0)
    assert not backbone.trainable_weights
    settings = settings_of(rate_factors={"looks": 0.5})
    model, _ = built(settings, made)
    assert set(rate_factors(settings, model)) == {id(x) for x in backbone.weights}
    set_trainable(model, "all")  # as training does
    assert len(backbone.trainable_weights) == 2


def test_it_starts_from_the_weights_of_the_towers_it_is_given():
    made = towers()
    model, _ = built(settings_of(), made)
    title = tf.constant(["bright light lamp"])
    features = model.get_layer("words_tower")({"title": title})
    expected = made["words"]({"title": title})["features"]
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("combine", ["concatenate", "average", "highway", "cross"])
def test_what_an_absent_tower_reads_does_not_matter(combine):
    model, _ = taught(settings_of(combine=combine, cross_units=2), epochs=1)
    inputs = tf.nest.map_structure(tf.constant, products())
    said = model(inputs, training=False)
    words, looks = inputs["words_present"], inputs["looks_present"]
    inputs["words"] = tf.where(words, inputs["words"], "soft wool rug")
    noise = tf.random.uniform(inputs["looks"].shape, 0, 255)
    inputs["looks"] = tf.where(looks[:, None, None, None], inputs["looks"], noise)
    other = model(inputs, training=False)
    for key, value in said.items():
        np.testing.assert_array_equal(other[key], value)


def test_without_any_tower_it_says_the_prior():
    model, _ = built(settings_of())
    inputs = tf.nest.map_structure(tf.constant, products())
    for name in KEYS:
        inputs[f"{name}_present"] = tf.zeros(PRODUCTS, tf.bool)
    for row in model(inputs, training=False)["logits"].numpy():
        np.testing.assert_allclose(row, [0.1, -0.2, 0.3])


def test_it_is_the_same_saved_and_for_any_batch(tmp_path):
    model, _ = taught(settings_of(), epochs=1)
    inputs = tf.nest.map_structure(tf.constant, products())
    said = model(inputs, training=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects=OWN_LAYERS, compile=False
    )
    specs = {k: tf.TensorSpec([None, *v.shape[1:]], v.dtype) for k, v in inputs.items()}
    root = tf.Module()
    root.model = loaded
    root.call = tf.function(
        lambda x: loaded(x, training=False), input_signature=[specs]
    )
    tf.saved_model.save(root, str(tmp_path / "saved"))
    exported = tf.saved_model.load(str(tmp_path / "saved"))
    for key, value in said.items():
        np.testing.assert_allclose(exported.call(inputs)[key], value, atol=1e-5)
        first = exported.call({k: v[:1] for k, v in inputs.items()})[key]
        np.testing.assert_allclose(first[0], value[0], atol=1e-5)


def test_eight_products_are_learned_by_heart():
    _, losses = taught(settings_of(projection_units=16, hidden_units=[16]), epochs=40)
    assert losses[-1] < 0.1 < losses[0]


def test_a_part_learns_at_its_own_rate():
    starts = {x.path: np.asarray(x) for x in built(settings_of())[0].trainable_weights}

    def step(**own):
        settings = settings_of(optimizer="sgd", **own)
        model, _ = taught(settings, epochs=1)
        return {
            layer.name: np.concatenate(
                [
                    (np.asarray(x) - starts[x.path]).ravel()
                    for x in layer.trainable_weights
                ]
            )
            for layer in model.layers
            if layer.trainable_weights
        }

    plain, slow = step(), step(rate_factors={"looks": 0.125})
    for name, change in plain.items():
        factor = 0.125 if name == "looks_tower" else 1.0
        np.testing.assert_allclose(slow[name], factor * change, atol=2e-7)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"fit_on": "fusion"}, "fit_on must be 'train'"),
        ({"rate_factors": {"sound": 1.0}}, "names towers of its own"),
        ({"towers": ["words", "words_present"]}, "'words_present'"),
        ({"towers": ["features", "looks"]}, "'features'"),
        ({"towers": ["words", "hidden_1"]}, "'hidden_1'"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(own, message):
    with pytest.raises(ValueError, match=message):
        settings_of(**own) if "towers" not in own else Joint(model="joint", **own)
