import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmm.errors import ExperimentError
from tfmm.settings import Transformer
from tfmm.towers.transformer import transformer

# keras-hub leaves the file of a SentencePiece model to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
)

DATA = Path(__file__).resolve().parent.parent / "data" / "pretrained"
TEXTS = [
    f"{a} {b}" for a in ("rouge", "bleu") for b in ("lampe", "tapis", "lit", "sac")
]
LABELS = np.arange(8) % 4
TITLES = ["Lampe bleue", "L'étagère d'angle, 12,5 cm – « Oslo »", "", "été\xff"]
BATCH = {"title": tf.constant([*TITLES, b"\xff\xfe broken <b>bytes</b>"])}


def tower(preset, **settings):
    defaults = {"model": "transformer", "modality": "title", "max_tokens": 40}
    return transformer(
        Transformer(**{**defaults, "preset": str(preset), **settings}), 4
    )


def answers(model, batch=BATCH):
    return {key: np.asarray(x) for key, x in model(batch, training=False).items()}


def assert_same(found, expected, atol=1e-5):
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=atol)


@pytest.fixture
def camembert(tmp_path):
    path = tmp_path / "camembert"
    shutil.copytree(DATA / "camembert", path)
    shutil.copy(DATA / "sentencepiece.bpe.model", path)
    return path


@pytest.fixture
def deberta(tmp_path, camembert):
    """A preset folder as keras-hub saves it."""
    import io

    import keras_hub
    import sentencepiece

    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter((DATA / "titles.txt").read_text("utf-8").splitlines()),
        model_writer=pieces,
        vocab_size=200,
        character_coverage=0.98,
        normalization_rule_name="identity",
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        minloglevel=2,
    )
    path = tmp_path / "deberta"
    keras_hub.models.DebertaV3Backbone(
        vocabulary_size=201,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=64,
        bucket_size=16,
    ).save_to_preset(str(path))
    keras_hub.tokenizers.DebertaV3Tokenizer(pieces.getvalue()).save_to_preset(str(path))
    return path


@pytest.fixture
def preset(request):
    """A folder of the type that a test names."""
    if request.param in ("camembert", "deberta"):
        return request.getfixturevalue(request.param)
    return DATA / request.param


@pytest.mark.parametrize(
    "preset",
    [
        *("bert", "camembert", "deberta", "flaubert"),
        pytest.param("roberta", marks=pytest.mark.slow),
    ],
    indirect=True,
)
def test_tower_outlives_its_folder_and_is_the_same_exported(preset, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(preset, copy)
    model = tower(copy, pooling="mean", hidden_units=3)
    expected = answers(model)
    assert expected["features"].shape == (5, 3)
    assert all(np.isfinite(value).all() for value in expected.values())
    shutil.rmtree(copy)
    model.save(tmp_path / "tower.keras")
    loaded = keras.saving.load_model(tmp_path / "tower.keras", compile=False)
    assert_same(answers(loaded), expected, 1e-6)

    # As the export writes it: the variables once each, and what tokenizers hold.
    root = tf.Module()
    root.variables_held = [weight.value for weight in loaded.weights]
    root.resources_held = [
        held
        for held in tf.train.TrackableView(loaded).descendants()
        if isinstance(held, tf.saved_model.experimental.TrackableResource)
    ]
    signature = tf.function(
        lambda title: loaded({"title": title}, training=False),
        input_signature=[tf.TensorSpec([None], tf.string, "title")],
    )
    served = tmp_path / "served"
    tf.saved_model.save(root, str(served), signatures=signature)
    del root
    assert_same(in_a_session(served, BATCH["title"].numpy()), expected)
    assert not forbidden_ops(served)


def in_a_session(path, titles):
    """What a SavedModel answers in a session, as TensorFlow Serving runs it."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(path))
        signature = meta.signature_def["serving_default"]
        feed = {signature.inputs["title"].name: titles}
        outputs = {key: x.name for key, x in signature.outputs.items()}
        first = session.run(outputs, feed)
        # Tokenizers may keep state from one request to the next.
        one = session.run(outputs, {signature.inputs["title"].name: titles[:1]})
        np.testing.assert_allclose(one["logits"], first["logits"][:1], atol=1e-5)
        return first


def forbidden_ops(path):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    graph = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    graph = graph.meta_graphs[0].graph_def
    nodes = [*graph.node, *(x for f in graph.library.function for x in f.node_def)]
    compiled = [f for f in graph.library.function if f.attr["_XlaMustCompile"].b]
    return compiled + [
        node for node in nodes if "PyFunc" in node.op or "Xla" in node.op
    ]


@pytest.mark.parametrize("preset", ["bert", "camembert", "deberta"], indirect=True)
def test_padding_does_not_change_answers(preset):
    model = tower(preset, pooling="mean")
    together = answers(model)
    for row, text in enumerate(BATCH["title"].numpy()):
        alone = answers(model, {"title": tf.constant([text])})
        np.testing.assert_allclose(
            alone["logits"][0], together["logits"][row], atol=1e-5
        )


def test_flattened_states_are_zero_where_a_text_is_padded(camembert):
    short = tower(camembert, pooling="flatten", max_tokens=12)
    long = tower(camembert, pooling="flatten", max_tokens=20)
    features = answers(short)["features"], answers(long)["features"]
    assert [x.shape for x in features] == [(5, 12 * 8), (5, 20 * 8)]
    # The empty text has two tokens, "<s>" and "</s>".
    np.testing.assert_allclose(features[1][2, : 2 * 8], features[0][2, : 2 * 8], 1e-4)
    assert not features[1][2, 2 * 8 :].any()
    assert features[1][2, : 2 * 8].all()


def test_mean_is_over_the_tokens_of_the_text(camembert):
    states = np.load(DATA / "camembert" / "expected.npz")
    titles = (DATA / "titles.txt").read_text("utf-8").splitlines()[:6]
    batch = {"title": tf.constant(titles)}
    for pooling, key, layer in (
        ("mean", "last", ""),
        ("first", "last", ""),
        ("mean", "inner", "transformer_layer_0"),
    ):
        model = tower(camembert, pooling=pooling, features_from=layer, max_tokens=128)
        expected = [
            row[:length].mean(axis=0) if pooling == "mean" else row[0]
            for row, length in zip(states[key], states["lengths"][:6], strict=True)
        ]
        features = answers(model, batch)["features"]
        np.testing.assert_allclose(features, expected, atol=1e-5)


def test_html_is_taken_out_before_the_tokenizer_sees_it(camembert):
    model = tower(camembert)
    marked = {"title": tf.constant(["L&#39;<b>&eacute;t&eacute;</b> &amp;\nPrintemps"])}
    plain = {"title": tf.constant(["L' été & Printemps"])}
    assert_same(answers(model, marked), answers(model, plain), 1e-6)


def trained(camembert, epochs, run_eagerly=False):
    keras.utils.set_random_seed(3)
    model = tower(camembert, pooling="mean", hidden_units=16, dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.AdamW(0.01),
        loss={"logits": loss},
        run_eagerly=run_eagerly,
        jit_compile=False,
    )
    targets = {"logits": LABELS}
    inputs = {"title": tf.constant(TEXTS)}
    model.fit(inputs, targets, batch_size=8, epochs=epochs, verbose=0)
    return model


def test_transformer_overfits_eight_products(camembert):
    model = trained(camembert, epochs=100)
    found = answers(model, {"title": tf.constant(TEXTS)})["logits"].argmax(axis=1)
    np.testing.assert_array_equal(found, LABELS)


def test_the_same_seed_gives_the_same_weights(camembert):
    weights = [trained(camembert, 2, run_eagerly=True).get_weights() for _ in "ab"]
    for value, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(value, other)


def test_every_weight_is_trained(camembert):
    model = tower(camembert, dropout=0.0)
    backbone = model.get_layer("backbone")
    assert [layer.name for layer in backbone.layers[-2:]] == [
        "transformer_layer_0",
        "transformer_layer_1",
    ]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(BATCH, training=True)["logits"] ** 2)
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    assert len(gradients) == len(backbone.weights) + 2
    assert all(gradient is not None for gradient in gradients)


def test_transformer_has_the_parameters_of_its_config(camembert):
    layer = 4 * (8 * 8 + 8) + (8 * 24 + 24) + (24 * 8 + 8) + 2 * 16
    network = (325 + 128) * 8 + 16 + 2 * layer
    assert tower(camembert).count_params() == network + (8 * 4 + 4)


def test_mixed_precision_ends_in_float32(camembert):
    full = answers(tower(camembert, pooling="mean"))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tower(camembert, pooling="mean")
    finally:
        keras.config.set_dtype_policy(before)
    half = answers(model)
    assert {value.dtype for value in half.values()} == {np.dtype("float32")}
    np.testing.assert_allclose(half["features"], full["features"], atol=0.1)


def test_transformer_refuses_what_does_not_fit(camembert):
    with pytest.raises(ExperimentError, match=r"reads 128 tokens.*max_tokens = 129"):
        tower(camembert, max_tokens=129)
    with pytest.raises(ExperimentError, match="did you mean 'transformer_layer_1'"):
        tower(camembert, features_from="transformer_layer_7")
    with pytest.raises(ExperimentError, match="one state a token"):
        tower(camembert, features_from="token_ids")


def test_inner_features_of_deberta_are_refused_and_of_others_saved(
    camembert, deberta, tmp_path
):
    with pytest.raises(ExperimentError, match="RelativeEmbedding does not allow it"):
        tower(deberta, features_from="disentangled_attention_encoder_layer_0")
    model = tower(camembert, features_from="transformer_layer_0")
    model.save(tmp_path / "tower.keras")
    loaded = keras.saving.load_model(tmp_path / "tower.keras", compile=False)
    assert_same(answers(loaded), answers(model), 1e-6)


def test_a_cut_preset_of_keras_hub_is_named(deberta):
    (deberta / "model.weights.h5").write_bytes(b"cut off")
    with pytest.raises(ExperimentError, match="no whole keras-hub preset"):
        tower(deberta)
    assert answers(tower(deberta, load_weights=False))["features"].shape == (5, 8)
