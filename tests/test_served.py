"""cached = live = exported = served, and a server that outlives bad requests."""

import concurrent.futures
import csv
import json
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from commands import command

from tfmm import results
from tfmm.run import Run
from tfmm_client import Client, ServerError

MODEL = "tiny"


@pytest.fixture(scope="module")
def server(bundle):
    """Addresses of the gRPC and the REST port of a development server."""
    words = [
        *("-m", "serving.server", f"--model_name={MODEL}", "--port=0"),
        *(f"--model_base_path={bundle.parent}", "--rest_api_port=-1"),
    ]
    process = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        lines = iter(process.stdout.readline, "")
        ready = next(line for line in lines if line.startswith("ready:"))
        grpc, rest = (word.rstrip(",") for word in ready.split() if ":" in word[1:-1])
        yield grpc, rest
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()
    assert process.returncode == 0


@pytest.fixture(scope="module")
def products(catalog_file):
    """Raw inputs as a shop has them: texts, and the bytes of image files."""
    with catalog_file.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folder = catalog_file.parent
    return {
        row["id"]: {
            "title": row["title"],
            "image": (folder / row["image"]).read_bytes() if row["image"] else b"",
        }
        for row in rows
    }


def ask(server, products, signature="serving_default", protocol="grpc", model=MODEL):
    """Outputs of a batch as arrays."""
    inputs = {key: [x[key] for x in products] for key in ("title", "image")}
    url = f"grpc://{server[0]}" if protocol == "grpc" else f"http://{server[1]}"
    with Client(url, model, timeout_s=60) as client:
        outputs = client.predict(signature, inputs)
    return {name: np.array(values) for name, values in outputs.items()}


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_served_is_cached(server, products, fitted, protocol):
    place = Run(fitted)
    settings = place.read_experiment()
    said, _ = results.read_probabilities(place, settings, "policy", "test")
    ids = results.read_outputs(place, settings, "policy", "test").ids
    chosen = [products[str(x)] for x in ids]
    answer = ask(server, chosen, "probabilities", protocol)
    np.testing.assert_allclose(answer["probabilities"], said, atol=1e-5)
    top = ask(server, chosen, protocol=protocol)
    labels = place.read_labels()
    for row, names in enumerate(top["labels"]):
        expected = [said[row, labels.index(name)] for name in names]
        np.testing.assert_allclose(top["scores"][row], expected, atol=1e-5)


def test_the_gate_passes_behind_the_server(server, bundle):
    done = command("-m", "export.verify", bundle, "--server", server[0])
    assert done.returncode == 0, done.stderr
    assert "wrong requests: 44 kinds refused" in done.stdout
    assert "bad images: 17 kinds told" in done.stdout


def test_the_gate_says_where_no_server_is(bundle):
    done = command("-m", "export.verify", bundle, "--server", "127.0.0.1:9")
    assert done.returncode == 2
    assert "127.0.0.1:9: UNAVAILABLE" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_bad_image_is_told_and_its_neighbours_are_answered(server, products):
    good = products["P0"]
    broken = {**good, "image": b"\xff\xd8\xff and no more"}
    answer = ask(server, [good, broken, {"title": "", "image": b""}])
    status = answer["image_status"][:, 0].tolist()
    assert status == ["used", "corrupt", "missing"]
    assert answer["image_used"][:, 0].tolist() == [True, False, False]
    assert not answer["assigned"][2].any()
    alone = ask(server, [good])
    np.testing.assert_allclose(answer["scores"][0], alone["scores"][0], atol=1e-6)


def post(address, body):
    url = f"http://{address}/v1/models/{MODEL}:predict"
    request = urllib.request.Request(url, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


WRONG = {
    "rank 3": {"inputs": {"title": ["a"], "image": [[["x"]]]}},
    "a number for a title": {"inputs": {"title": [5], "image": [""]}},
    "unequal batches": {"inputs": {"title": ["a", "b"], "image": [""]}},
    "no image": {"inputs": {"title": ["a"]}},
    "an unknown signature": {"signature_name": "x", "instances": [{"title": "a"}]},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_refused_and_the_server_lives(server, products, name):
    status, body = post(server[1], WRONG[name])
    assert status == 400
    assert list(body) == ["error"]
    good, _ = post(server[1], {"instances": [{"title": "oak", "image": ""}]})
    assert good == 200


def test_a_rank_3_tensor_over_grpc_is_an_invalid_argument(server):
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.inputs["title"].CopyFrom(tf.make_tensor_proto(["a"]))
    request.inputs["image"].CopyFrom(tf.make_tensor_proto([[[b"x"]]]))
    with grpc.insecure_channel(server[0]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(request, timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_model_is_not_found(server):
    with pytest.raises(ServerError, match="NOT_FOUND"):
        ask(server, [{"title": "a", "image": b""}], model="none")


def test_sixteen_clients_at_once_get_their_own_answers(server, products):
    chosen = list(products.values())[8:24]
    together = ask(server, chosen)
    with concurrent.futures.ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda product: ask(server, [product]), chosen))
    for row, answer in enumerate(answers):
        np.testing.assert_allclose(
            answer["scores"][0], together["scores"][row], atol=1e-6
        )
