"""The soak: what it calls wrong, lost or growing, and that it finds it."""

import doctest
import random
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import command

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))

import soak
from soaking import memory, products, questions
from soaking.load import Options, Where, load
from soaking.memory import MIB, Sample
from soaking.questions import Hostile, Question, difference
from soaking.tally import GIVEN_UP, LOST, RIGHT, UNEXPECTED, WRONG, Tally

TOOL = Path(soak.__file__)


@pytest.mark.parametrize("module", [products, questions, memory])
def test_the_examples_of_the_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


# Memory


def samples(rss_mib, settled=lambda second: True, threads=lambda second: 20):
    """One a second for 100 s."""
    return [
        Sample(float(s), int(rss_mib(s) * MIB), threads(s), 30, settled(s))
        for s in range(100)
    ]


def problems(taken):
    return memory.judge(taken, 100.0, 0.05)["problems"]


def test_memory_that_stays_is_flat():
    found = memory.judge(samples(lambda s: 1000 + s % 3), 100.0, 0.05)
    assert found["problems"] == []
    assert found["rss_mib"] == {"early": 1001.0, "late": 1001.0}
    assert found["rss_mib_per_hour"] == pytest.approx(0.0, abs=1e-9)


def test_memory_that_grows_by_more_than_it_may_is_told():
    # The medians of seconds 20 to 39 and 80 to 99 are 60 s apart.
    assert problems(samples(lambda s: 1000 + 0.8 * s)) == []
    (problem,) = problems(samples(lambda s: 1000 + s))
    assert problem == (
        "memory grew from 1030 to 1090 MiB, 5.8%, over the 5.0% that it may"
    )
    found = memory.judge(samples(lambda s: 1000 + s), 100.0, 0.05)
    assert found["rss_mib_per_hour"] == pytest.approx(3600.0)


def test_neither_the_start_nor_a_change_of_version_counts_as_growth():
    assert problems(samples(lambda s: min(500 + 30 * s, 1000))) == []
    swapping = samples(
        lambda s: 1500 if s % 10 < 4 and s > 50 else 1000,
        settled=lambda s: s % 10 >= 4,
    )
    assert problems(swapping) == []


def test_what_a_warm_up_takes_is_left_out_and_told_by_minute():
    taken = [
        Sample(float(s), int(min(1000 + s, 1200) * MIB), 20, 30, True)
        for s in range(700)
    ]
    assert memory.judge(taken, 700.0, 0.05)["problems"] == []
    grown = memory.judge(taken, 300.0, 0.05, 100.0)
    assert grown["problems"] == []  # 1200 already in its second fifth
    assert memory.judge(taken[:250], 250.0, 0.05)["problems"]
    assert grown["rss_mib_by_minute"][:5] == [1029.5, 1089.5, 1149.5, 1200.0, 1200.0]


def test_growth_that_shows_only_between_changes_is_told():
    taken = samples(
        lambda s: 1500 if s % 10 < 4 else 1000 + 10 * (s // 10),
        settled=lambda s: s % 10 >= 4,
    )
    assert problems(taken)[0].startswith("memory grew from 1025 to 1085 MiB")


def test_threads_that_are_never_given_back_are_told():
    assert problems(samples(lambda s: 1000, threads=lambda s: 20 + s // 10)) == []
    taken = samples(lambda s: 1000, threads=lambda s: 20 + s // 5)
    assert problems(taken) == ["threads grew from 26 to 38"]


def test_memory_that_was_not_seen_is_no_flat_memory():
    assert problems([]) == [
        "memory cannot be judged: 0 samples in the second fifth, 0 in the last"
    ]
    never = samples(lambda s: 1000, settled=lambda s: s < 60)
    assert problems(never)[0].startswith("memory cannot be judged: 20 samples")


# Products and answers

PRODUCTS = [{"title": b"oak", "image": b"JPEG"}, {"title": b"rug", "image": b""}]
ANSWERS = {
    "serving_default": {
        "labels": np.array([[b"table", b"lamp"], [b"rug", b"lamp"], [b"lamp", b"rug"]]),
        "scores": np.float32([[0.7, 0.2], [0.6, 0.3], [0.4, 0.4]]),
        "assigned": np.array([[True, False], [True, False], [False, False]]),
        "image_used": np.array([[True], [False], [False]]),
        "image_status": np.array([[b"used"], [b"missing"], [b"missing"]]),
    },
    "embed": {"embedding": np.float32([[0.6, 0.8], [1.0, 0.0], [0.0, 0.0]])},
}


def said(question, **changed):
    """The right outputs as a client library gives them, but for some."""
    outputs = {
        name: values[list(question.places)].tolist()
        for name, values in ANSWERS[question.signature].items()
    }
    for name in ("labels", "image_status"):
        if name in outputs:
            outputs[name] = [[x.decode() for x in row] for row in outputs[name]]
    return outputs | changed


TWO = Question("serving_default", (0, 1))
BAD_IMAGE = Question(
    "serving_default", (0, 2), Hostile(1, "image", 0, "noise", b"noise")
)


def test_the_right_answer_is_right():
    assert difference(TWO, said(TWO), ANSWERS) is None
    bytes_and_arrays = {k: x[:2] for k, x in ANSWERS["serving_default"].items()}
    assert difference(TWO, bytes_and_arrays, ANSWERS) is None
    embed = Question("embed", (1, 0))
    assert difference(embed, {"": [[1.0, 0.0], [0.6, 0.8]]}, ANSWERS) is None


WRONG_ANSWERS = {
    "another score": {"scores": [[0.7, 0.2], [0.600003, 0.3]]},
    "no number": {"scores": [[0.7, 0.2], [float("nan"), 0.3]]},
    "a score as text": {"scores": [["0.7", "0.2"], ["0.6", "0.3"]]},
    "labels changed places": {"labels": [["table", "lamp"], ["lamp", "rug"]]},
    "another row's answer": {"labels": [["rug", "lamp"], ["table", "lamp"]]},
    "assigned": {"assigned": [[True, True], [True, False]]},
    "another status": {"image_status": [["used"], ["corrupt"]]},
    "a row too few": {"scores": [[0.7, 0.2]]},
    "an output more": {"more": [1, 2]},
}


@pytest.mark.parametrize("name", WRONG_ANSWERS)
def test_a_wrong_answer_is_wrong(name):
    assert difference(TWO, said(TWO, **WRONG_ANSWERS[name]), ANSWERS)


def test_an_answer_without_an_output_is_wrong():
    outputs = said(TWO)
    del outputs["image_status"]
    assert difference(TWO, outputs, ANSWERS).startswith("outputs ['assigned'")


def test_a_hostile_image_must_be_told_and_must_not_be_used():
    told = {"image_status": [["used"], ["not an image"]]}
    assert difference(BAD_IMAGE, said(BAD_IMAGE, **told), ANSWERS) is None
    in_any_order = told | {"labels": [["table", "lamp"], ["rug", "lamp"]]}
    assert difference(BAD_IMAGE, said(BAD_IMAGE, **in_any_order), ANSWERS) is None
    for status in ("used", "missing", "skipped"):
        silent = {"image_status": [["used"], [status]]}
        problem = difference(BAD_IMAGE, said(BAD_IMAGE, **silent), ANSWERS)
        assert problem == f"says that noise is {status}"
    for answered in (
        {"scores": [[0.7, 0.2], [0.5, 0.4]]},
        {"assigned": [[True, False], [True, False]]},
        {"image_used": [[True], [True]]},
    ):
        problem = difference(BAD_IMAGE, said(BAD_IMAGE, **told, **answered), ANSWERS)
        assert "of a row with noise" in problem
    harmed = told | {"scores": [[0.6, 0.2], [0.4, 0.4]]}
    assert "row 0" in difference(BAD_IMAGE, said(BAD_IMAGE, **harmed), ANSWERS)


def test_products_come_whole_with_each_input_missing_and_with_none():
    found = products.variants(PRODUCTS, ["image"])
    assert found[:2] == PRODUCTS
    assert {"title": b"oak", "image": b""} in found
    assert {"title": b"", "image": b"JPEG"} in found
    assert {"title": products.NOT_UTF_8 + b"oak", "image": b"JPEG"} in found
    assert found[-1] == {"title": b"", "image": b""}
    assert len({tuple(x.values()) for x in found}) == len(found)


def test_a_hostile_row_is_sent_beside_the_others():
    pool = products.Pool([*PRODUCTS, {"title": b"", "image": b""}], ["image"], [])
    generator = random.Random(0)
    drawn = [
        questions.draw(generator, pool, [("image", "noise", b"noise")])
        for _ in range(50)
    ]
    for question in drawn:
        columns = question.inputs(pool)
        assert columns["image"].count(b"noise") == 1
        assert columns["title"][question.hostile.row] == b""
    assert {len(x.places) for x in drawn} == set(questions.BATCHES)
    assert {x.signature for x in drawn} == set(questions.SIGNATURES)
    plain = [questions.draw(generator, pool) for _ in range(50)]
    assert all(2 not in x.places and x.hostile is None for x in plain)
    assert pool.products[-1]["image"] == b""


def test_every_fault_is_a_problem_and_silence_too():
    tally = Tally()
    assert tally.problems() == ["no good request was answered"]
    tally.add("good", "gRPC", RIGHT)
    assert tally.problems() == []
    tally.add("good", "gRPC", LOST, "UNAVAILABLE")
    tally.add("hostile", "REST rows", WRONG, "scores of row 1")
    tally.add("bad", "no JSON", UNEXPECTED, "OK, not HTTP 400")
    tally.add(GIVEN_UP, "deadline", UNEXPECTED, "UNKNOWN")
    assert len(tally.problems()) == 4
    assert tally.result()["by_way"]["good"] == {"gRPC": {LOST: 1, RIGHT: 1}}
    assert tally.result()["examples"][0] == "good, gRPC: lost: UNAVAILABLE"
    assert tally.line() == (
        "2 good (1 lost), 1 hostile (1 wrong), 1 bad (1 unexpected), "
        "1 given up (1 unexpected)"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--server", "127.0.0.1:1"], "--server and --rest go together"),
        (["--pid", 1], "--base-path and --pid are of a running server: --server"),
        (["--minutes", 1], "--minutes 1 holds fewer than 5 times --swap-every 60 s"),
        (["--swap-every", 0, "--second", "x"], "--second needs new versions"),
        (["--swap-every", 0], "not what `export` writes"),
    ],
)
def test_what_cannot_be_soaked_is_one_line(words, text, tmp_path):
    done = command(TOOL, tmp_path, "--catalog", tmp_path / "catalog.csv", *words)
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_of_the_guide_is_taken_as_printed(tmp_path):
    guide = (TOOL.parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    (line,) = re.findall("^python tools/soak.py (.*)$", guide, re.MULTILINE)
    done = command(TOOL, *shlex.split(line), cwd=tmp_path)
    assert done.returncode == 2
    assert "models/products/1: not what `export` writes" in done.stderr


# Against a server in this process, sound and spoilt


@pytest.fixture(scope="module")
def pool(bundle, catalog_file):
    made, _ = products.make_pool([bundle], catalog_file, catalog_file.parent, 12)
    return made


@pytest.fixture(scope="module")
def served(bundle):
    from serving import grpc_service, rest
    from serving.config import ModelConfig
    from serving.models import ModelStore

    store = ModelStore([ModelConfig("tiny", bundle.parent)])
    store.poll()
    grpc_server, port = grpc_service.start(store, "127.0.0.1", 0, 16)
    rest_server, rest_port = rest.start(store, "127.0.0.1", 0, rest.RestOptions())
    yield Where(f"127.0.0.1:{port}", f"127.0.0.1:{rest_port}", "tiny")
    grpc_server.stop(1).wait()
    rest_server.shutdown()
    rest_server.server_close()
    store.stop()


def spoil(monkeypatch, change):
    """Has every third run of a model changed by `change(outputs)`."""
    from serving.version import Version

    run, count = Version.run, iter(range(10**9))

    def spoilt(self, *arguments):
        outputs = run(self, *arguments)
        return change(outputs) if next(count) % 3 == 2 else outputs

    monkeypatch.setattr(Version, "run", spoilt)


def soaked(where, pool, enough):
    """What is found until `enough(tally)`, or until it is hopeless."""
    options = Options(600.0, clients=2, think_s=0.005, timeout_s=300, may_grow=0.01)
    return load(where, pool, [], options, print, enough)


def test_a_sound_server_is_found_fit(served, pool):
    kinds = ("good", "hostile", "bad", GIVEN_UP)
    found = soaked(
        served, pool, lambda tally: min(tally.total(kind) for kind in kinds) >= 10
    )
    assert (found["examples"], found["problems"]) == ([], [])
    assert found["requests"]["good"][RIGHT] >= 10
    assert found["requests"]["bad"]["expected"] >= 10
    assert found["memory"] is None


def test_a_wrong_score_is_found(served, pool, monkeypatch):
    def off(outputs):
        wrong = {k: x + 2e-6 for k, x in outputs.items() if x.dtype.kind == "f"}
        return outputs | {k: np.float32(x) for k, x in wrong.items()}

    spoil(monkeypatch, off)
    found = soaked(served, pool, lambda tally: tally.total("good", WRONG) > 0)
    assert any(x.startswith("good requests wrong") for x in found["problems"])


def test_a_lost_request_is_found(served, pool, monkeypatch):
    from serving.status import StatusError

    def gone(outputs):
        raise StatusError("UNAVAILABLE", "The version has been unloaded.")

    spoil(monkeypatch, gone)
    found = soaked(served, pool, lambda tally: tally.total("good", LOST) > 0)
    assert any(x.startswith("good requests lost") for x in found["problems"])
    assert "The version has been unloaded" in " ".join(found["examples"])


def test_another_refusal_than_the_right_one_is_found(served, pool, monkeypatch):
    from serving.status import StatusError

    monkeypatch.setattr(StatusError, "http_status", 500)
    found = soaked(served, pool, lambda tally: tally.total("bad", UNEXPECTED) > 0)
    assert any(x.startswith("bad requests unexpected") for x in found["problems"])
    assert "HTTP 500, not HTTP 40" in " ".join(found["examples"])


def test_a_leak_is_found(served, pool, monkeypatch):
    kept = []

    def leak(outputs):
        kept.append(b"x" * (8 * MIB))
        return outputs

    spoil(monkeypatch, leak)
    monkeypatch.setattr(memory, "INTERVAL_S", 0.02)
    where = replace(served, pid=psutil.Process().pid)
    found = soaked(where, pool, lambda tally: len(kept) >= 40)
    assert any(x.startswith("memory grew") for x in found["problems"])


@pytest.mark.slow
def test_the_whole_way_with_changes_of_version(bundle, catalog_file, tmp_path):
    file = tmp_path / "soak.json"
    done = command(
        *(TOOL, bundle, "--catalog", catalog_file, "--minutes", 1),
        *("--swap-every", 10, "--second", bundle, "--think", 0.05, "--to", file),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "soaked, and found fit" in done.stdout
