"""The client, sync and async, over both protocols, against the development server."""

import asyncio
import json
import shutil
import threading

import numpy as np
import pytest

from tfmm_client import (
    Answer,
    AsyncClient,
    Client,
    Explanation,
    InputError,
    ServerError,
    Suggestion,
    TensorInfo,
    VersionStatus,
)

IMAGE = b"\xff\xd8\xff\xe0 no real image"


@pytest.fixture(params=["grpc", "http"])
def scheme(request):
    return request.param


@pytest.fixture
def url(server, scheme):
    return f"{scheme}://{server.grpc if scheme == 'grpc' else server.rest}"


def call(kind, url, model, method, *arguments, **options):
    """One call of a client of its own, sync or async."""
    if kind == "sync":
        with Client(url, model, **options) as client:
            return getattr(client, method)(*arguments)

    async def ask():
        async with AsyncClient(url, model, **options) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(ask())


@pytest.fixture(params=["sync", "async"])
def ask(request, url):
    """Calls a method of a client of either kind: model, method, arguments."""

    def bound(model, method, *arguments, **options):
        return call(request.param, url, model, method, *arguments, **options)

    return bound


def test_products_come_back_as_answers(ask):
    products = [{"title": "red shoe", "image": IMAGE}, {"description": "é"}]
    suggestions = (Suggestion("shoe", 0.75, True), Suggestion("hat", 0.25, False))
    answers = ask("products", "classify", products)
    assert answers == [
        Answer(suggestions, (True,), ("used",)),
        Answer(suggestions, (False,), ("missing",)),
    ]
    assert answers[0].assigned == ("shoe",)


def test_the_other_signatures_have_a_call_each(ask):
    products = [{"title": "a"}, {"title": "b"}]
    assert ask("products", "probabilities", products) == [[0.75, 0.25]] * 2
    shares = ((0.5, 0.125), (0.0, 0.25), (0.25, 0.0))
    explanation = Explanation(shares, ((0.5, 0.5),))
    assert ask("products", "explain", products) == [explanation] * 2
    np.testing.assert_allclose(ask("products", "embed", products), [[0.6, 0.8]] * 2)


def test_a_model_of_another_kind_is_refused_before_it_is_asked(ask):
    with pytest.raises(InputError, match="no input 'title'"):
        ask("half", "predict", "serving_default", {"title": ["a"]})
    with pytest.raises(InputError, match=r"has no output 'labels'\. Its outputs: y\."):
        ask("half", "classify", [{"x": 1.0}])
    with pytest.raises(
        InputError, match=r"no signature 'embed'\. Its signatures: add, "
    ):
        ask("half", "embed", [{"x": 1.0}])


def test_a_batch_of_any_size_comes_back_in_order(ask):
    numbers = [float(i) for i in range(50)]
    for size in (1, 7, 50, 100):
        outputs = ask(
            "half", "predict", "serving_default", {"x": numbers}, max_batch_size=size
        )
        assert outputs == {"y": [x / 2 for x in numbers]}


def test_a_batch_is_cut_by_bytes_and_comes_back_in_order(ask):
    texts = [b"\xff" * n for n in (90, 10, 50, 60, 5)]
    outputs = ask("half", "predict", "echo", {"text": texts}, max_request_bytes=200)
    assert outputs["raw_bytes"] == texts
    assert outputs["length"] == [90, 10, 50, 60, 5]


HARD_TEXTS = ["", "é 鞋 👟", 'quo"ted\\ \n\t\x00\x7f', "\u2028", "x" * 100_000]
HARD_BYTES = [b"", bytes(range(256)), b"\xff", b"text", b"\x00", b"++//=="]


def test_text_and_bytes_arrive_as_they_were(ask):
    outputs = ask("half", "predict", "echo", {"text": HARD_TEXTS})
    assert outputs["text"] == HARD_TEXTS
    outputs = ask("half", "predict", "echo", {"text": HARD_BYTES})
    assert outputs["raw_bytes"] == HARD_BYTES
    assert outputs["text"] == [b.decode("utf-8", "replace") for b in HARD_BYTES]


def test_every_dtype_is_the_same_over_both_protocols(server):
    cases = [
        ("kinds", {"number": [-1, 3, 2**40]}),
        ("echo", {"text": ["é", b"hi"]}),
        ("mean", {"image": np.ones((2, 4, 4, 3), "float32") / 3}),
        ("add", {"a": [0.1, float("inf")], "b": [1e30, 1]}),
        ("total", {"x": [0.1, 0.2]}),
    ]
    for signature, inputs in cases:
        over = [
            call("sync", url, "half", "predict", signature, inputs)
            for url in (f"grpc://{server.grpc}", f"http://{server.rest}")
        ]
        assert repr(over[0]) == repr({name: over[1][name] for name in over[0]})


def test_what_is_no_number_goes_there_and_back(ask):
    numbers = [float("nan"), float("inf"), float("-inf")]
    outputs = ask("half", "predict", "serving_default", {"x": numbers})
    assert repr(outputs["y"]) == repr(numbers)


def test_an_output_for_the_whole_batch_is_given_but_not_cut(ask):
    assert ask("half", "predict", "total", {"x": [1, 2]}) == {"total": 3.0}
    with pytest.raises(InputError, match="'total' is not one row per product"):
        ask("half", "predict", "total", {"x": [1, 2]}, max_batch_size=1)


@pytest.mark.parametrize("options", [{"version": 1}, {"version_label": "stable"}])
def test_a_version_is_asked_for_by_number_or_label(ask, options):
    outputs = ask("half", "predict", "serving_default", {"x": [3]}, **options)
    assert outputs == {"y": [1.5]}
    with pytest.raises(ServerError) as caught:
        ask("half", "predict", "serving_default", {"x": [3]}, version=9)
    assert caught.value.code == "NOT_FOUND"


def test_metadata_and_status_are_told(ask):
    signature = ask("products", "signature", "serving_default")
    assert signature.inputs == dict.fromkeys(
        ("title", "description", "image"), TensorInfo("string", (-1,))
    )
    assert signature.outputs["scores"] == TensorInfo("float", (-1, 2))
    assert "explain" in ask("products", "signatures")
    assert ask("products", "status") == [VersionStatus(1, "AVAILABLE", "")]
    with pytest.raises(InputError, match="no signature 'serve'"):
        ask("products", "signature", "serve")


def test_a_refusal_has_the_same_code_over_both_protocols(ask):
    for method in ("status", "signatures"):
        with pytest.raises(ServerError, match="none") as caught:
            ask("none", method)
        assert caught.value.code == "NOT_FOUND"


def test_a_slow_answer_ends_at_the_deadline_whatever_the_parts(ask):
    for size in (1, 2):
        with pytest.raises(ServerError) as caught:
            ask(
                "half", "predict", "slow", {"x": [1.0, 1.0]},
                timeout_s=0.5, max_batch_size=size,
            )  # fmt: skip
        assert caught.value.code == "DEADLINE_EXCEEDED"


def test_threads_share_a_client(url):
    answers = {}
    with Client(url, "half", max_batch_size=2) as client:

        def ask(number):
            numbers = [number + i for i in range(5)]
            answers[number] = client.predict("serving_default", {"x": numbers})["y"]

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {n: [(n + i) / 2 for i in range(5)] for n in range(16)}


def test_tasks_share_a_client(url):
    async def ask_all():
        async with AsyncClient(url, "half", max_batch_size=2) as client:
            return await asyncio.gather(
                *(
                    client.predict("serving_default", {"x": [n, n + 1, n + 2]})
                    for n in range(16)
                )
            )

    expected = [{"y": [n / 2, (n + 1) / 2, (n + 2) / 2]} for n in range(16)]
    assert asyncio.run(ask_all()) == expected


def test_every_part_of_a_batch_is_a_line_of_the_log(ask, scheme, tmp_path):
    log = tmp_path / "requests.jsonl"
    products = [{"title": f"shoe {n}"} for n in range(5)]
    ask("products", "classify", products, max_batch_size=2, log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(len(line["products"]) for line in lines) == [1, 2, 2]
    # REST does not tell which version answered.
    version = 1 if scheme == "grpc" else None
    assert {line["version"] for line in lines} == {version}
    ask("products", "probabilities", products, log=log)
    ask("products", "classify", products, version=1, log=log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["version"] for line in lines[3:]] == [1]


def test_a_new_version_with_other_inputs_is_followed(local, tools, written, tmp_path):
    from serving.config import ModelConfig

    base = tmp_path / "model"
    shutil.copytree(written.half, base / "1")
    server = local(ModelConfig("model", base))
    rest = server.url.removesuffix("/v1/models")
    with (
        Client(f"grpc://{server.grpc}", "model") as grpc_client,
        Client(rest, "model") as rest_client,
    ):
        for client in (grpc_client, rest_client):
            assert client.predict("serving_default", {"x": [1]}) == {"y": [0.5]}
        shutil.copytree(written.products, tmp_path / "2")
        (tmp_path / "2").rename(base / "2")
        tools.wait_until(lambda: server.store.available() == {"model": [2]})
        for client in (grpc_client, rest_client):
            assert client.classify([{"title": "a"}])[0].assigned == ("shoe",)
