"""The page's own server: its form, its questions to the model, its refusals."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("starlette", reason="needs starlette, the extra [page]")
from starlette.testclient import TestClient

from serving.page import __main__ as command
from serving.page import app as application
from serving.page.app import STATIC, make_app
from serving.page.form import FormError, make_form, read_bundle, read_inputs
from serving.page.model import STATUS_WORDS, PageModel
from serving.page.pictures import PictureStore
from tfmm_client import Answer, ServerError, Signature, Suggestion, TensorInfo

PICTURE = b"\xff\xd8\xff\xe0 no real image"
BINARY = {"content-type": "application/octet-stream"}
TOLD = ("title", "description", "image=image")


def signatures(*names, pictures=1, explains=True, classifies=True):
    """What a server tells of an export with these inputs."""
    text = TensorInfo("string", (-1,))
    inputs = dict.fromkeys(names, text)
    outputs = dict.fromkeys(["labels", "scores", "assigned"], TensorInfo("x", (-1, 5)))
    if pictures:
        outputs["image_used"] = TensorInfo("bool", (-1, pictures))
    found = {"serving_default": Signature(inputs, outputs if classifies else {})}
    if explains:
        parts = TensorInfo("float", (-1, len(names), 5))
        found["explain"] = Signature(inputs, {"contributions": parts})
    return found


def kinds(form):
    return [(field.name, field.kind) for field in form.fields]


@pytest.fixture
def page(server):
    """The page over the tests' server, told the order of the inputs."""
    app = make_app(
        f"grpc://{server.grpc}",
        "products",
        told=read_inputs(TOLD),
        max_picture_bytes=1024,
    )
    with TestClient(app) as client:
        yield client


def ask(page, path, values):
    reply = page.post(f"/api/{path}", json={"values": values})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_a_form_has_a_field_for_each_input(page):
    about = page.get("/api/model").json()
    assert about["model"] == "products"
    assert about["explains"]
    assert about["limits"] == {"picture_bytes": 1024}
    assert [(x["name"], x["kind"]) for x in about["fields"]] == [
        ("title", "text"),
        ("description", "text"),
        ("image", "image"),
    ]


def test_suggestions_and_contributions_are_the_models(page):
    key = page.post("/api/picture", content=PICTURE, headers=BINARY).json()["key"]
    values = {"title": "shoe", "image": key}
    said = ask(page, "suggest", values)
    assert said["suggestions"] == [
        {"label": "shoe", "score": 0.75, "assigned": True},
        {"label": "hat", "score": 0.25, "assigned": False},
    ]
    assert said["pictures"]["image"]["used"]
    assert said["pictures"]["image"]["words"] == STATUS_WORDS["used"]
    said = ask(page, "explain", values)
    # As tests/serving_models.py has it.
    assert said["contributions"] == [
        {"name": "title", "parts": [0.5, 0.125]},
        {"name": "description", "parts": [0.0, 0.25]},
        {"name": "image", "parts": [0.25, 0.0]},
    ]
    assert said["maps"] == [{"name": "", "cells": [[0.5, 0.5]]}]


def test_contributions_of_an_unknown_order_are_not_told(server):
    with TestClient(make_app(f"grpc://{server.grpc}", "products")) as page:
        said = ask(page, "explain", {"title": "shoe"})
    assert said["contributions"] is None
    assert said["maps"]


def test_a_forgotten_picture_is_asked_for_again(page):
    first = page.post("/api/picture", content=b"0" * 900, headers=BINARY).json()["key"]
    assert ask(page, "suggest", {"image": first})["pictures"]["image"]["used"]
    for number in range(1, 20):  # more than sixteen of the largest
        content = f"{number:02}".encode() * 450
        page.post("/api/picture", content=content, headers=BINARY)
    reply = page.post("/api/suggest", json={"values": {"image": first}})
    assert reply.status_code == 410
    assert reply.json()["error"]["code"] == "PICTURE_GONE"


def test_a_picture_in_use_is_not_the_one_to_go():
    store = PictureStore(max_bytes=6)
    first, second = store.add(b"abc"), store.add(b"def")
    assert store.get(first) == b"abc"
    store.add(b"ghi")
    assert (store.get(first), store.get(second)) == (b"abc", None)
    assert store.add(b"abc") == first


@pytest.mark.parametrize(
    ("path", "options", "status", "words"),
    [
        ("picture", {"content": b"0" * 1025, "headers": BINARY}, 413, "1 KiB"),
        ("picture", {"content": b"", "headers": BINARY}, 400, "an empty file"),
        ("picture", {"content": PICTURE}, 415, "no product"),
        ("suggest", {"content": b"{}"}, 415, "no product"),
        ("suggest", {"json": {}}, 400, "no product"),
        ("suggest", {"json": {"values": []}}, 400, "no product"),
        ("suggest", {"json": {"values": {"title": 1}}}, 400, "no product"),
        ("suggest", {"json": {"values": {"image": "x"}}}, 410, "sent again"),
        ("suggest", {"json": {"values": {"titel": "x"}}}, 409, "has changed"),
        ("suggest", {"json": {"values": {"title": "x" * 300000}}}, 413, "256 KiB"),
        ("explain", {"json": {"values": {"title": None}}}, 400, "no product"),
    ],
)
def test_what_is_no_product_is_refused_in_words(page, path, options, status, words):
    reply = page.post(f"/api/{path}", **options)
    assert reply.status_code == status
    assert words in reply.json()["error"]["words"]


def test_nothing_but_the_page_may_ask_or_be_loaded(page):
    reply = page.get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in reply.headers
    foreign = {"sec-fetch-site": "cross-site", "origin": "https://elsewhere.example"}
    assert page.get("/", headers=foreign).status_code == 200
    reply = page.get("/api/model", headers=foreign)
    assert reply.status_code == 403
    assert "content-security-policy" in reply.headers
    own = {"sec-fetch-site": "same-origin"}
    assert page.get("/api/model", headers=own).status_code == 200


def test_every_file_of_the_page_is_served_and_names_no_other_site(page):
    files = sorted(path.name for path in STATIC.iterdir())
    assert "page.html" in files
    for name in files:
        assert page.get(f"/static/{name}").status_code == 200
        text = (STATIC / name).read_text(encoding="utf-8")
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert "innerHTML" not in text
        for wanted in re.findall(r'from "\./(.+?)"|"static/([\w.]+)', text):
            assert "".join(wanted) in files


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("nope", "NOT_FOUND", "The server has no model “nope”."),
        ("half", "MISFIT", "does not fit this page"),
    ],
)
def test_a_model_that_is_none_is_told_in_words(server, caplog, model, code, words):
    with TestClient(make_app(f"grpc://{server.grpc}", model)) as page:
        for _ in range(2):
            reply = page.get("/api/model")
    assert reply.status_code == 503
    error = reply.json()["error"]
    assert error["code"] == code
    assert words in error["words"]
    assert "detail" not in error  # addresses and the like are for the log
    assert len(caplog.messages) == 1


def test_a_server_that_is_not_there_is_told_until_it_is(server):
    with socket.socket() as bound:  # bound and not listening: refused
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with TestClient(make_app(f"grpc://127.0.0.1:{port}", "products")) as page:
            reply = page.get("/api/model")
            assert reply.status_code == 503
            assert reply.json()["error"]["code"] == "UNAVAILABLE"
            bound.close()
            with forwarded(port, server.grpc):
                reply = page.get("/api/model")
                assert reply.status_code == 200, reply.text
                assert ask(page, "suggest", {"title": "shoe"})["suggestions"]


class forwarded:
    """Passes connections to a port on to a server."""

    def __init__(self, port, address):
        self.port, self.address = port, address

    def __enter__(self):
        code = (
            "import asyncio, sys\n"
            "async def pipe(reader, writer):\n"
            "    while data := await reader.read(65536):\n"
            "        writer.write(data)\n"
            "async def serve(reader, writer):\n"
            "    host, port = sys.argv[2].split(':')\n"
            "    there = await asyncio.open_connection(host, int(port))\n"
            "    await asyncio.gather(pipe(reader, there[1]), pipe(there[0], writer))\n"
            "async def main():\n"
            "    server = await asyncio.start_server(\n"
            "        serve, '127.0.0.1', int(sys.argv[1]))\n"
            "    print('ready', flush=True)\n"
            "    await server.serve_forever()\n"
            "asyncio.run(main())\n"
        )
        words = [sys.executable, "-c", code, str(self.port), self.address]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_a_slow_model_is_told_in_words():
    class Slow:
        async def signatures(self):
            return signatures("title", pictures=0)

        async def classify(self, products):
            raise ServerError("DEADLINE_EXCEEDED", "no answer in 2 s")

    model = PageModel(Slow(), None, "hats", 2.0)
    with pytest.raises(Exception, match="did not answer within 2 seconds") as error:
        asyncio.run(model.suggest({"title": "x"}, PictureStore(1)))
    assert (error.value.status, error.value.code) == (504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("skipped", "The words were enough"),
        ("not an image", "could not be read: it is not a JPEG"),
        ("corrupt", "could not be read: the file is damaged"),
        ("too large", "could not be read: it is too large"),
        ("upside down", "could not be read: upside down."),
    ],
)
def test_what_became_of_a_picture_is_said_in_words(status, words):
    class Picky:
        async def signatures(self):
            return signatures("image")

        async def classify(self, products):
            said = Suggestion("shoe", 0.3, False)
            return [Answer((said,), (False,), (status,))]

    pictures = PictureStore(10)
    values = {"image": pictures.add(b"x")}
    model = PageModel(Picky(), None, "hats", 2.0)
    said = asyncio.run(model.suggest(values, pictures))["pictures"]["image"]
    assert words in said["words"]
    assert said["bad"] == (status != "skipped")
    assert said["bad"] == ("The suggestions do without it." in said["words"])


def test_columns_are_joined_as_those_of_a_catalog():
    asked = []

    class Noting:
        async def signatures(self):
            return signatures("facts", "text", pictures=0)

        async def classify(self, products):
            asked.extend(products)
            return [Answer((), (), ())]

    told = read_inputs(["facts=table:brand,price", "text=text:title,description"])
    model = PageModel(Noting(), told, "hats", 2.0)
    for cells in (["I\tKEA", " 12.50 "], ["", "red  "], ["", ""]):
        values = {"facts": cells, "text": cells}
        asyncio.run(model.suggest(values, PictureStore(1)))
    assert asked == [
        {"facts": "I KEA\t12.50", "text": "I\tKEA 12.50"},
        {"facts": "\tred", "text": "red"},
        {"facts": "", "text": ""},
    ]


def test_inputs_named_after_a_picture_take_one():
    form = make_form(signatures("photo", "name", "title"), None, "hats")
    assert kinds(form) == [("title", "text"), ("name", "text"), ("photo", "image")]
    assert not form.has_order
    assert make_form(signatures("title", pictures=0), None, "hats").has_order


@pytest.mark.parametrize(
    ("found", "told", "problem"),
    [
        (signatures("title", "shot"), None, "not clear from their names, shot, title"),
        (signatures("photo", "image", pictures=2), None, "say it by --bundle or"),
        (signatures("title", classifies=False), None, "has no output 'labels'"),
        (
            signatures("title", "image"),
            ["titel", "image=image"],
            "no input 'titel'; did you mean 'title'?",
        ),
        (signatures("title", "image"), ["image=image"], "the input 'title' of the mo"),
        (signatures("title", "image"), ["title", "image"], "1 pictures. Received: no"),
    ],
)
def test_a_form_that_does_not_fit_the_model_is_refused(found, told, problem):
    with pytest.raises(FormError, match=re.escape(problem)):
        make_form(found, told and read_inputs(told), "hats")


@pytest.mark.parametrize(
    "word", ["", "=text", "a=b", "a=table", "a=table:", "a=image:x", "a=table:b,", "t"]
)
def test_inputs_by_hand_are_checked(word):
    with pytest.raises(FormError, match="Received: " + re.escape(repr(word))):
        read_inputs(["t", word])


def test_a_bundle_tells_kinds_order_and_task(tmp_path):
    about = {
        "modalities": {
            "title": {"kind": "text", "columns": ["title_masked"]},
            "text": {"kind": "text", "columns": ["name", "description"]},
            "facts": {"kind": "table", "columns": ["brand", "price"]},
            "image": {"kind": "image", "columns": ["image"]},
        },
        "task": "single_label",
    }
    file = tmp_path / "assets.extra" / "tfmm.json"
    file.parent.mkdir()
    file.write_text(json.dumps(about))
    told = read_bundle(tmp_path)
    form = make_form(signatures("facts", "image", "text", "title"), told, "hats")
    assert kinds(form) == [
        ("title", "text"),
        ("text", "text"),
        ("facts", "table"),
        ("image", "image"),
    ]
    assert form.fields[0].columns == form.fields[3].columns == ()
    assert form.fields[1].columns == ("name", "description")
    assert form.fields[2].columns == ("brand", "price")
    assert form.task == "single_label"
    assert form.has_order
    file.write_text("{}")
    with pytest.raises(FormError, match="not what python -m export writes"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "--server"),
        (["--server", "here"], "expected grpc://HOST:PORT"),
        (["--server", "127.0.0.1:1", "--prot=1"], "did you mean --port?"),
        (["--server", "127.0.0.1:1", "--port=x"], "expected 0 to 65535"),
        (["--server", "127.0.0.1:1", "--max_picture_mib=0"], "expected 1 to 95"),
        (["--server", "127.0.0.1:1", "--timeout=0"], "expected more than 0"),
        (["--server", "127.0.0.1:1", "--inputs", "a=b"], "--inputs: expected each"),
        (["--server", "127.0.0.1:1", "--bundle", "no"], "No such file or directory; "),
    ],
)
def test_bad_input_is_one_line_and_exit_2(capsys, options, problem):
    assert command.main(options) == 2
    error = capsys.readouterr().err
    assert error.startswith("serving.page: ")
    assert problem in error
    assert error.count("\n") == 1


def test_inputs_that_are_not_the_models_stop_the_start(server, capsys):
    options = ["--server", server.grpc, "--model_name", "products", "--inputs", "title"]
    assert command.main(options) == 2
    error = capsys.readouterr().err
    assert "--inputs: the input 'description' of the model 'products' is miss" in error


def test_a_port_in_use_is_one_line_and_exit_2(server, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = ["--server", server.grpc, "--model_name", "products"]
        options += ["--inputs", *TOLD, f"--port={port}"]
        assert command.main(options) == 2
    assert f"--port={port}: Address already in use" in capsys.readouterr().err


def test_the_command_comes_up_without_a_server_and_stops_on_sigterm(tools):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        words = [sys.executable, "-m", "serving.page", "--port=0", "--server"]
        words += [f"127.0.0.1:{bound.getsockname()[1]}"]
        process = subprocess.Popen(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=tools.environment(),
        )
        url = process.stdout.readline().removeprefix("ready: ").strip()
        status, reply = tools.http(url + "api/model")
        assert (status, reply["error"]["code"]) == (503, "UNAVAILABLE")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    first, _ = errors.splitlines()  # at the start, and when the page was asked
    assert first.startswith("serving.page: UNAVAILABLE: ")
    assert first.endswith("; the page says so until that changes")


def test_the_page_imports_no_tensorflow(tools):
    code = (
        "import sys\n"
        "import serving.page.app, serving.page.__main__\n"
        "assert not {'tensorflow', 'numpy'} & set(sys.modules)\n"
    )
    tools.run_code(code)


def test_a_question_that_nobody_waits_for_is_dropped():
    class Gone:
        async def receive(self):
            return {"type": "http.disconnect"}

    async def main():
        ended = SimpleNamespace(how=None)

        async def answer():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.how = "cancelled"
                raise

        with pytest.raises(application.ClientDisconnect):
            await application._unless_gone(Gone(), answer())
        return ended.how

    assert asyncio.run(main()) == "cancelled"
