import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from tensorflow.python.eager import context

from tfmm import prepared
from tfmm.character_noise import character_noise
from tfmm.layers.embedding_bag import EmbeddingBag
from tfmm.layers.ngram_ids import END_ID, NgramIds
from tfmm.optimizers import optimizer
from tfmm.settings import FastText
from tfmm.text import FIRST_WORD_ID
from tfmm.towers.fasttext import fasttext

TEXTS = [f"{a} {b}" for a in ("red", "blue") for b in ("lamp", "rug", "sofa", "bed")]
LABELS = np.arange(8, dtype=np.int32) % 4
LOSSES = {
    "single_label": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "multi_label": keras.losses.BinaryCrossentropy(from_logits=True),
}
# Of the reference implementation (fasttext 0.9.3, 1,000 buckets, 3 to 6 characters):
# `model.get_subwords(word)` without the word itself, less the number of words.
BUCKETS_OF_REFERENCE = {
    "love": {
        **{"<lo": 222, "<lov": 888, "<love": 135, "<love>": 947, "lov": 126},
        **{"love": 497, "love>": 549, "ove": 695, "ove>": 539, "ve>": 654},
    },
    "café": {
        **{"<ca": 747, "<caf": 831, "<café": 639, "<café>": 187, "caf": 661},
        **{"café": 601, "café>": 685, "afé": 362, "afé>": 12, "fé>": 697},
    },
    "你好": {"<你好": 985, "<你好>": 781, "你好>": 495},
}


def settings(**keys):
    defaults = {"buckets": 50, "embedding_dim": 8, "learning_rate": 4.0}
    return FastText(**{"model": "fasttext", "modality": "title", **defaults, **keys})


def tower(num_classes=4, **keys):
    keras.utils.set_random_seed(0)
    return fasttext(settings(**keys), num_classes, TEXTS)


def train(model, made, data_of_epoch, num_epochs, task="single_label"):
    network = model.get_layer("network")
    network.compile(optimizer(made), loss={"logits": LOSSES[task]}, jit_compile=False)
    for number in range(1, num_epochs + 1):
        network.fit(data_of_epoch(number), verbose=0, shuffle=False)


def epochs_of(model, targets=LABELS, noise=0.0):
    texts = np.array(TEXTS, object)
    return prepared.epochs(model.get_layer("prepare"), texts, targets, 4, 0, noise)


@pytest.mark.parametrize("word", BUCKETS_OF_REFERENCE)
def test_character_ngrams_are_in_the_buckets_of_the_reference(word):
    layer = NgramIds([word], buckets=1000)
    ids = layer(tf.constant([word])).numpy()[0]
    assert ids[:2].tolist() == [FIRST_WORD_ID, END_ID]
    buckets = ids[2:] - FIRST_WORD_ID - 1
    assert sorted(buckets) == sorted(BUCKETS_OF_REFERENCE[word].values())


def test_marks_alone_are_no_ngrams():
    layer = NgramIds([], 1000, min_character_ngram=1, max_character_ngram=2)
    buckets = layer(tf.constant(["lo"])).numpy()[0, 1:] - FIRST_WORD_ID
    # <l l lo o o>, of the reference with 1 to 2 characters.
    assert sorted(buckets) == sorted([893, 315, 780, 934, 544])


def test_word_ngrams_count_the_end_as_a_word():
    layer = NgramIds(["a", "b", "c"], 10**6, word_ngrams=3, max_character_ngram=0)
    ids = [set(row) for row in layer(tf.constant(["a b c", "b c", "c"])).numpy()]
    own = [{2, 3, 4}, {3, 4}, {4}]
    ngrams = [row - words - {0, END_ID} for row, words in zip(ids, own, strict=True)]
    # a-b, b-c, c-end, a-b-c, b-c-end; b-c, c-end, b-c-end; c-end.
    assert [len(row) for row in ngrams] == [5, 3, 1]
    assert ngrams[2] < ngrams[1] < ngrams[0]


def test_words_out_of_the_vocabulary_have_only_ngrams():
    layer = NgramIds(["red"], buckets=0, max_character_ngram=0)
    ids = layer(tf.constant(["Red <b>blue</b>, RED", "", "blue"])).numpy()
    assert ids.tolist() == [[2, 2, END_ID], [END_ID, 0, 0], [END_ID, 0, 0]]


def test_ids_are_the_same_traced_and_from_their_config():
    layer = NgramIds(["red"], 100, word_ngrams=2)
    texts = tf.constant(["red lamp", "", "café"])
    signature = [tf.TensorSpec([None], tf.string)]
    expected = layer(texts)
    traced = tf.function(layer, input_signature=signature)
    np.testing.assert_array_equal(traced(texts), expected)
    assert traced(tf.constant([], tf.string)).shape[0] == 0
    again = NgramIds.from_config(layer.get_config())
    np.testing.assert_array_equal(again(texts), expected)


def test_layers_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="once"):
        NgramIds(["red", "red"], 10)
    with pytest.raises(ValueError, match="buckets"):
        NgramIds(["red"], 0)
    with pytest.raises(ValueError, match="num_rows"):
        EmbeddingBag(0, 3)
    with pytest.raises(ValueError, match="rank 2"):
        EmbeddingBag(3, 3).build((None,))


def test_bag_is_the_mean_of_its_rows_and_zeros_without_any():
    bag = EmbeddingBag(4, 2)
    bag.build((None, None))
    bag.set_weights([np.array([[9, 9], [1, 2], [3, 4], [5, 9]], np.float32)])
    ids = tf.constant([[1, 3, 3], [2, 0, 0], [0, 0, 0]])
    expected = [[11 / 3, 20 / 3], [3, 4], [0, 0]]
    np.testing.assert_allclose(bag(ids), expected, rtol=1e-6)
    traced = tf.function(bag, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    np.testing.assert_array_equal(traced(ids), bag(ids))
    np.testing.assert_array_equal(bag(ids[2:]), [[0, 0]])


def test_bag_starts_as_the_reference_does():
    bag = EmbeddingBag(70_000, 4)
    bag.build((None, None))
    rows = bag.get_weights()[0]
    assert np.abs(rows).max() <= 1 / 4
    np.testing.assert_allclose(rows.std(axis=0), 0.5 / 12**0.5, rtol=0.02)
    assert len(np.unique(rows[:, 0])) > 69_000


def test_no_graph_optimisation_reads_the_whole_table():
    # TensorFlow optimises graphs of nested functions in particular.
    bag = EmbeddingBag(4, 2)
    bag.build((None, None))
    inner = tf.function(bag)
    outer = tf.function(lambda ids: inner(ids))
    context.enable_run_metadata()
    context.enable_graph_collection()
    outer(tf.constant([[1, 3, 3], [2, 0, 0]]))
    metadata = context.export_run_metadata()
    context.disable_run_metadata()
    ops = {
        node.op
        for graphs in metadata.function_graphs
        for node in graphs.post_optimization_graph.node
    }
    assert "ResourceGather" in ops
    assert "ReadVariableOp" not in ops


def test_padding_does_not_change_logits():
    model = tower(word_ngrams=2)
    randomize(model)
    alone = model({"title": tf.constant(["rug"])})
    beside = model({"title": tf.constant(["rug", "red sofa with a long name"])})
    for name in ("features", "logits"):
        np.testing.assert_allclose(beside[name][:1], alone[name], rtol=1e-6)
    empty = model({"title": tf.constant(["", "!?"])})["logits"]
    assert np.isfinite(empty).all()
    np.testing.assert_array_equal(empty[0], empty[1])


def randomize(model):
    draw = np.random.default_rng(0)
    model.set_weights(
        [draw.normal(size=w.shape).astype(np.float32) for w in model.get_weights()]
    )


def test_tower_is_its_two_layers():
    model = tower()
    randomize(model)
    texts = tf.constant([*TEXTS, ""])
    parts = model.get_layer("network")(model.get_layer("prepare")(texts))
    whole = model({"title": texts})
    assert set(whole) == {"features", "logits"}
    for name, part in parts.items():
        np.testing.assert_allclose(whole[name], part, rtol=1e-6)
    assert whole["features"].shape == (9, 8)


def test_tower_has_a_row_for_each_word_and_bucket():
    rows = 2 + len({word for text in TEXTS for word in text.split()}) + 50
    assert tower().count_params() == rows * 8 + 8 * 4 + 4
    bare = tower(max_character_ngram=0)
    assert bare.count_params() == (rows - 50) * 8 + 8 * 4 + 4
    np.testing.assert_array_equal(tower()({"title": tf.constant(["a"])})["logits"], 0)


@pytest.mark.parametrize(("rule", "rate"), [("sgd", 4.0), ("adagrad", 0.5)])
def test_tower_overfits_eight_products(rule, rate):
    made = settings(optimizer=rule, learning_rate=rate)
    model = tower(optimizer=rule, learning_rate=rate)
    train(model, made, epochs_of(model), 25)
    logits = model({"title": tf.constant(TEXTS)})["logits"]
    np.testing.assert_array_equal(np.argmax(logits, axis=1), LABELS)


def test_tower_learns_several_labels():
    targets = np.eye(4, dtype=np.float32)[LABELS]
    targets[:4, 3] = 1.0  # what is red
    model = tower()
    made = settings(learning_rate=16.0)
    train(model, made, epochs_of(model, targets), 40, "multi_label")
    logits = model({"title": tf.constant(TEXTS)})["logits"]
    np.testing.assert_array_equal(logits > 0, targets > 0.5)


def test_only_rows_that_were_used_move():
    model = tower(buckets=5000)
    table = model.get_layer("network").get_layer("embedding").embeddings
    before = table.numpy()
    train(model, settings(), epochs_of(model), 2)
    used = np.unique(model.get_layer("prepare")(tf.constant(TEXTS)))
    moved = np.flatnonzero((table.numpy() != before).any(axis=1))
    np.testing.assert_array_equal(moved, used[used != 0])


def test_same_seed_same_weights():
    models = [tower(), tower()]
    for model in models:
        train(model, settings(), epochs_of(model, noise=0.2), 3)
    for first, second in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(first, second)


def test_tower_is_the_same_saved_and_loaded(tmp_path):
    model = tower(word_ngrams=2)
    randomize(model)
    texts = tf.constant([*TEXTS, "", "café"])
    expected = model({"title": texts})
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")({"title": texts})
    root = tf.Module()
    root.model = model
    root.call = tf.function(
        lambda title: model({"title": title}),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    tf.saved_model.save(root, str(tmp_path / "saved"))
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    served = loaded.call(texts)
    for name in ("features", "logits"):
        np.testing.assert_allclose(again[name], expected[name], rtol=1e-6)
        np.testing.assert_allclose(served[name], expected[name], rtol=1e-5)


def test_epochs_hold_each_product_once_in_an_order_of_their_own():
    model = tower()
    given = epochs_of(model)
    assert int(given(1).cardinality()) == 2
    labels = [
        np.concatenate([target["logits"] for _, target in given(number)])
        for number in (1, 1, 2)
    ]
    np.testing.assert_array_equal(labels[0], labels[1])
    assert labels[0].tolist() != labels[2].tolist()
    order = np.random.default_rng((0, 1)).permutation(8)
    np.testing.assert_array_equal(labels[0], LABELS[order])
    ids, _ = next(iter(given(1)))
    expected = model.get_layer("prepare")(tf.constant(TEXTS)[:, None][:, 0])
    expected = tf.gather(expected, order[:4]).numpy()
    longest = int((expected != 0).sum(axis=1).max())
    np.testing.assert_array_equal(ids, expected[:, :longest])
    assert given(1).element_spec[0] == tf.TensorSpec([None, None], tf.int32)


def test_noise_is_a_second_copy():
    batches = list(epochs_of(tower(), noise=0.2)(1))
    labels = np.concatenate([target["logits"] for _, target in batches])
    assert sorted(labels) == sorted([*LABELS, *LABELS])
    assert len(batches) == 4


def test_noise_replaces_the_share_it_is_asked_for():
    texts = ["".join(map(chr, range(200, 5200))), "", "ab"]
    noisy = character_noise(texts, 0.2, seed=1)
    changed = [
        sum(a != b for a, b in zip(old, new, strict=True))
        for old, new in zip(texts, noisy, strict=True)
    ]
    assert 990 <= changed[0] <= 1000  # some become what they were
    assert changed[1:] == [0, 0]
    assert set("".join(noisy)) <= set("".join(texts))
    assert character_noise(texts, 0.2, seed=1).tolist() == noisy.tolist()
    assert character_noise(texts, 0.2, seed=2).tolist() != noisy.tolist()
    assert character_noise(["", ""], 0.2, seed=1).tolist() == ["", ""]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"optimizer": "adam"}, "'optimizer' must be adagrad or sgd"),
        ({"momentum": 0.9}, "'momentum' must be 0"),
        ({"clip_norm": 1.0}, "'clip_norm' must be 0"),
        ({"devices": 2}, "'devices' must be 1"),
        ({"precision": "mixed_bfloat16"}, "'precision' must be float32"),
        ({"stages": [{"optimizer": "adam"}]}, "'optimizer' must be adagrad or sgd"),
        ({"min_character_ngram": 7}, "must not exceed max_character_ngram = 6"),
    ],
)
def test_settings_refuse_what_would_touch_the_whole_table(keys, message):
    with pytest.raises(ValidationError, match=message):
        settings(**keys)
