"""cached = live = exported, and a gate that lets nothing else through."""

import base64
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
from commands import command, process

from export import SIGNATURES, graph, sums, verify
from export import bundle as bundles
from export.failure import Failure
from export.served import Served
from tfmm import classifier, results
from tfmm.run import Run

assert tensorflow_text.__version__  # links the ops that the bundle needs

DATA = Path(__file__).resolve().parent.parent / "data"
SENTENCE_PIECES = DATA / "pretrained" / "sentencepiece.bpe.model"


@pytest.fixture(scope="module")
def served(bundle):
    return tf.saved_model.load(str(bundle))


@pytest.fixture(scope="module")
def golden(bundle):
    path = bundle / "assets.extra" / "golden_requests.json"
    return json.loads(path.read_text())["products"]


def inputs(products):
    return {
        name: tf.constant([base64.b64decode(x["inputs"][name]) for x in products])
        for name in products[0]["inputs"]
    }


def test_a_bundle_holds_what_the_design_says(bundle, fitted):
    for name in (
        "saved_model.pb",
        "variables/variables.index",
        "assets/labels.txt",
        "assets.extra/tf_serving_warmup_requests",
        "assets.extra/golden_requests.json",
        "assets.extra/reference.json",
        "assets.extra/vocabularies/title.txt",
        "assets.extra/sha256.txt",
        "batching_params.pbtxt",
        "model_card.md",
    ):
        assert (bundle / name).is_file(), name
    labels = (bundle / "assets" / "labels.txt").read_text().splitlines()
    assert tuple(labels) == Run(fitted).read_labels()
    assert not list(bundle.parent.glob(".*"))


def test_every_weight_is_stored_once(bundle, fitted):
    size = (bundle / "variables" / "variables.data-00000-of-00001").stat().st_size
    models = ("title", "image", "policy")
    infos = [json.loads(Run(fitted).model_info_file(x).read_text()) for x in models]
    parameters = sum(info["parameters"] for info in infos)
    assert parameters > 5_000
    assert 4 * parameters <= size < 4 * parameters * 1.3


def test_signatures_are_those_of_the_design(served):
    default = served.signatures["serving_default"]
    specs = default.structured_input_signature[1]
    assert {k: (v.dtype, v.shape.as_list()) for k, v in specs.items()} == {
        "title": (tf.string, [None]),
        "image": (tf.string, [None]),
    }
    said = {k: (v.dtype, len(v.shape)) for k, v in default.structured_outputs.items()}
    assert said == {
        "labels": (tf.string, 2),
        "scores": (tf.float32, 2),
        "assigned": (tf.bool, 2),
        "image_used": (tf.bool, 2),
        "image_status": (tf.string, 2),
    }
    probabilities = served.signatures["probabilities"].structured_outputs
    assert {k: v.dtype for k, v in probabilities.items()} == {
        "probabilities": tf.float32
    }


@pytest.mark.parametrize("head", ["policy", "product", "title", "image"])
def test_cached_is_live(fitted, head, golden):
    place = Run(fitted)
    live = classifier.load(place, head)
    batch = {k: v for k, v in inputs(golden).items() if k in live.modalities}
    said = live.answer(batch)["probabilities"].numpy()
    settings = place.read_experiment()
    stored, _ = results.read_probabilities(place, settings, head, "test")
    ids = results.read_outputs(place, settings, head, "test").ids.tolist()
    expected = stored[[ids.index(x["id"]) for x in golden]]
    np.testing.assert_allclose(said, expected, atol=1e-5)


def test_cached_is_exported(served, golden):
    said = served.signatures["probabilities"](**inputs(golden))["probabilities"]
    expected = np.array([x["probabilities"] for x in golden])
    np.testing.assert_allclose(said, expected, atol=1e-5)


def test_every_row_of_a_batch_is_its_answer_alone(served, golden):
    call = served.signatures["probabilities"]
    batch = inputs(golden)
    batch["image"] = tf.tensor_scatter_nd_update(
        batch["image"], [[1], [2]], [b"", b"\xff\xd8\xff broken"]
    )
    whole = call(**batch)["probabilities"].numpy()
    for row in range(len(golden)):
        alone = call(**{k: v[row : row + 1] for k, v in batch.items()})
        np.testing.assert_allclose(alone["probabilities"][0], whole[row], atol=1e-6)
    status = served.signatures["serving_default"](**batch)["image_status"].numpy()
    assert status[1, 0] == b"missing"
    assert status[2, 0] == b"corrupt"


def test_verify_passes_in_a_process_without_tfmm(bundle):
    done = process("-X", "importtime", "-m", "export.verify", bundle)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "greatest difference" in done.stdout
    assert done.stdout.endswith(f"{bundle}: verified\n")
    modules = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "tensorflow" in modules
    assert not [x for x in modules if x == "tfmm" or x.startswith("tfmm.")]


def broken(bundle, tmp_path):
    copy = tmp_path / "7"
    shutil.copytree(bundle, copy)
    return copy, copy / "assets.extra" / "golden_requests.json"


def fails(path):
    """What the gate says, whatever the sums of the files were."""
    sums.write(path)
    with pytest.raises(Failure) as caught:
        verify.verify(path)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_verify_notices_files_that_were_not_exported(bundle, tmp_path):
    copy, _ = broken(bundle, tmp_path)
    assert verify.check_files(copy) == verify.check_files(bundle)
    for change in ("model_card.md", "variables/more"):
        (copy / change).write_text("something else")
        with pytest.raises(Failure, match=f"{change} is not what was exported"):
            verify.verify(copy)
        shutil.rmtree(copy)
        shutil.copytree(bundle, copy)
    (copy / "model_card.md").unlink()
    with pytest.raises(Failure, match=r"model_card\.md is not"):
        verify.verify(copy)
    (copy / "assets.extra" / "sha256.txt").unlink()
    with pytest.raises(Failure, match="no usable sums"):
        verify.verify(copy)


def test_verify_notices_an_image_that_is_skipped_against_the_rule(bundle, tmp_path):
    copy, file = broken(bundle, tmp_path)
    content = json.loads(file.read_text())
    content["products"][0]["skipped"] = True
    file.write_text(json.dumps(content))
    assert "or does not skip, the image of" in fails(copy)


def test_verify_notices_other_answers(bundle, tmp_path):
    copy, file = broken(bundle, tmp_path)
    content = json.loads(file.read_text())
    content["products"][0]["probabilities"][0] += 1e-4
    file.write_text(json.dumps(content))
    assert "answers differ from the stored ones by 0.0001" in fails(copy)


def test_verify_notices_shuffled_labels(bundle, tmp_path):
    copy, _ = broken(bundle, tmp_path)
    labels = copy / "assets" / "labels.txt"
    names = labels.read_text().splitlines()
    labels.write_text("".join(f"{x}\n" for x in reversed(names)))
    assert "another label's score" in fails(copy)


def test_verify_needs_its_files(bundle, tmp_path):
    copy, file = broken(bundle, tmp_path)
    whole = json.loads(file.read_text())
    whole["products"][0]["probabilities"][0] = float("nan")
    for content in ({}, [], {**whole, "products": []}, whole):
        file.write_text(json.dumps(content))
        fails(copy)
    file.unlink()
    assert "no usable golden requests" in fails(copy)
    done = command("-m", "export.verify", tmp_path / "none")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def save(tmp_path, function, **held):
    """The graph of a SavedModel whose two signatures are `function` of strings."""
    root = tf.Module()
    for name, value in held.items():
        setattr(root, name, value)
    title = tf.TensorSpec([None], tf.string, "title")
    call = tf.function(function, input_signature=[title])
    signatures = dict.fromkeys(SIGNATURES, call)
    tf.saved_model.save(root, str(tmp_path), signatures)
    return graph.read_graph(tmp_path)


def test_verify_notices_python_in_the_graph(tmp_path):
    def serve(title):
        return {"x": tf.py_function(lambda x: x, [title], tf.string)}

    with pytest.raises(Failure, match=r"runs Python.*EagerPyFunc"):
        graph.check_ops(save(tmp_path, serve))


def test_verify_notices_what_must_be_compiled(tmp_path):
    inner = tf.function(lambda x: x + 1.0, jit_compile=True)

    def serve(title):
        return {"x": inner(tf.cast(tf.strings.length(title), tf.float32))}

    with pytest.raises(Failure, match="must be compiled by XLA"):
        graph.check_ops(save(tmp_path, serve))


def test_verify_notices_variables_that_loading_does_not_restore(tmp_path):
    layer = keras.layers.Dense(1)
    layer.build((None, 1))

    def serve(title):
        lengths = tf.cast(tf.strings.length(title), tf.float32)
        return {"x": layer(lengths[:, None])}

    with pytest.raises(Failure, match="never restored"):
        graph.check_variables(save(tmp_path / "a", serve, layer=layer))
    held = [weight.value for weight in layer.weights]
    assert graph.check_variables(save(tmp_path / "b", serve, held=held)) == 2


def test_verify_notices_a_model_without_variables(tmp_path):
    with pytest.raises(Failure, match="no trained model"):
        graph.check_variables(save(tmp_path, lambda title: {"x": title}))


def test_verify_notices_outputs_that_rest_cannot_carry(tmp_path):
    def serve(title):
        return {"x": tf.cast(tf.strings.length(title), tf.bfloat16)}

    with pytest.raises(Failure, match="'x' is of type DT_BFLOAT16"):
        graph.check_outputs(save(tmp_path, serve))


def test_verify_notices_a_damaged_bundle(bundle, tmp_path):
    for number, name in enumerate(
        ("saved_model.pb", "variables/variables.index", "assets/labels.txt")
    ):
        copy = tmp_path / str(number)
        shutil.copytree(bundle, copy)
        (copy / name).write_bytes((copy / name).read_bytes()[:-7])
        fails(copy)
        (copy / name).unlink()
        fails(copy)


def byte_pairs():
    from keras_hub.tokenizers import BytePairTokenizer

    words = ("<pad>", "r", "e", "re", "d", "Ġ", "l", "a", "m", "p")
    words = {word: number for number, word in enumerate(words)}
    return BytePairTokenizer(vocabulary=words, merges=["r e"], sequence_length=4)


def sentence_pieces():
    from keras_hub.tokenizers import SentencePieceTokenizer

    return SentencePieceTokenizer(proto=str(SENTENCE_PIECES), sequence_length=4)


@pytest.mark.parametrize("make", [byte_pairs, sentence_pieces])
# keras-hub leaves the file open that it reads its pieces from.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_tokenizer_inside_a_backbone_holds_is_exported(make, tmp_path):
    tokenizer = make()
    inner = keras.Input((), dtype="string")
    size = tokenizer.vocabulary_size()
    vectors = keras.layers.Embedding(size, 2)(tokenizer(inner))
    backbone = keras.Model(inner, vectors, name="backbone")
    title = keras.Input((), dtype="string", name="title")
    network = keras.Model({"title": title}, keras.layers.Flatten()(backbone(title)))
    network.save(tmp_path / "model.keras")
    network = keras.saving.load_model(tmp_path / "model.keras")

    def answer(inputs):
        return dict.fromkeys(("scores", "probabilities"), network(inputs))

    def other(inputs):
        return {"scores": tf.strings.length(inputs["title"])}

    model = SimpleNamespace(
        models=[network, network],
        label_names=("a", "b"),
        signature=lambda: {"title": tf.TensorSpec([None], tf.string, "title")},
        answer=answer,
        explain=other,
        embed=other,
    )
    held = bundles.resources(model.models)
    assert len(held) == len(bundles.resources([network])) > 0
    bundles.save(model, tmp_path / "1")
    titles = ["red", "red lamp", ""]
    expected = network({"title": tf.constant(titles)}).numpy()
    assert len(np.unique(expected, axis=0)) == 3
    said = Served(tmp_path / "1")("probabilities", {"title": titles})
    np.testing.assert_allclose(said["probabilities"], expected, atol=1e-6)
    assert graph.check_variables(graph.read_graph(tmp_path / "1")) == 1


def test_versions_count_up_and_are_kept(fitted, tmp_path):
    models = tmp_path / "models"
    for expected in ("1", "5", "6"):
        version = ["--version", "5"] if expected == "5" else []
        done = command(
            *("-m", "export", fitted, "--to", models, "--head", "title", *version)
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(models / expected)
    again = command("-m", "export", fitted, "--to", models, "--version", "5")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert sorted(x.name for x in models.iterdir()) == ["1", "5", "6"]


def test_a_head_that_is_not_there_is_refused(fitted, tmp_path):
    done = command("-m", "export", fitted, "--to", tmp_path / "m", "--head", "polcy")
    assert done.returncode == 2
    assert "did you mean 'policy'" in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_tower_whose_network_was_trained_alone_is_exported(
    tmp_path, catalog_file, experiment_file
):
    tower = '{ model = "fasttext", modality = "title", buckets = 50, max_epochs = 2 }'
    words = [
        *("-m", "tfmm.fit", experiment_file, "--catalog", catalog_file),
        *("--run", tmp_path / "run", "--set", f"towers.title={tower}"),
        *("--set", "towers.image.max_epochs=1", "--only", "audit", "--only", "towers"),
    ]
    done = command(*words)
    assert done.returncode == 0, done.stderr
    models = tmp_path / "models"
    done = command("-m", "export", tmp_path / "run", "--to", models, "--head", "title")
    assert done.returncode == 0, done.stderr
    done = command("-m", "export.verify", models / "1")
    assert done.returncode == 0, done.stderr
