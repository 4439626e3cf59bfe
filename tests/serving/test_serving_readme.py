"""What serving/README.md prints works as printed, but for the ports."""

import contextlib
import inspect
import io
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from serving import classify
from serving import server as server_module
from serving.page import options as page_options
from tfmm_client import Client, Retries
from tfmm_client.base import BaseClient

README = Path(server_module.__file__).with_name("README.md")
CLIENT_README = README.parent / "client" / "README.md"


def fenced(path: Path, language: str) -> list[str]:
    """The blocks of a page that are in some language."""
    text = path.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.M)


BLOCKS = fenced(README, "sh")


def blocks(start: str) -> list[str]:
    found = [block for block in BLOCKS if start in block]
    assert found, f"{README} has no {start!r}"
    return found


@pytest.fixture(autouse=True)
def shoe(tmp_path, monkeypatch):
    """The directory that the commands run in, with the photo that they name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shoe.jpg").write_bytes(b"\xff\xd8\xff\xe0 no real image")


def test_every_block_is_tested():
    starts = ("python -m serving.server", "docker run", "python -m serving.classify")
    starts += ("python -m serving.page", "python - <<'EOF'", "curl ", "printf ")
    for block in BLOCKS:
        assert block.startswith(starts), block


def test_the_server_takes_the_flags_as_printed(tmp_path):
    (command,) = blocks("python -m serving.server")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "serving.server"]
    options = server_module.build_parser().parse(words[3:])
    assert options.model_name == "products"
    assert options.model_base_path == Path("models/products")
    assert (options.port, options.rest_api_port) == (8500, 8501)


def test_the_real_server_is_one_line_with_the_same_ports():
    (command,) = blocks("docker run")
    assert command.count("\n") == 1
    words = shlex.split(command)
    assert words[-1] == "tensorflow/serving:2.20.0"
    ports = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
    assert ports == ["8500:8500", "8501:8501"]
    assert "MODEL_NAME=products" in words


@pytest.mark.parametrize("command", blocks("python -m serving.classify"))
def test_the_client_answers_as_printed(server, capsys, command):
    words = shlex.split(with_ports(command, server))
    assert words[:3] == ["python", "-m", "serving.classify"]
    assert classify.main(words[3:]) == 0
    assert "shoe" in capsys.readouterr().out


def test_the_page_takes_the_flags_as_printed():
    (command,) = blocks("python -m serving.page")
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "serving.page"]
    options = page_options.build_parser().parse(words[3:])
    assert options.model_name == "products"
    assert options.bundle == Path("models/products/1")
    text = README.read_text("utf-8")
    assert f"http://{options.host}:{options.port}/" in text
    assert f"{options.max_picture_mib} MiB" in text
    for action in page_options.build_parser()._actions:
        if action.dest not in ("help", "server", "model_name", "version"):
            assert action.option_strings[0] in text


PRINTED = {
    "tfmm_client": "[('shoe', 0.75), ('hat', 0.25)] ('shoe',)\n" * 2,
    "tensorflow_serving": "[[b'shoe' b'hat']]\n",
}


@pytest.mark.parametrize("package", PRINTED)
def test_the_python_snippets_answer_as_printed(server, package):
    assert len(blocks("python - <<'EOF'")) == len(PRINTED)
    (block,) = (b for b in blocks("python - <<'EOF'") if f"from {package}" in b)
    code = block.split("\n", 1)[1].removesuffix("EOF\n")
    assert run(code, server, README) == PRINTED[package]


def run(code: str, server, place: Path) -> str:
    """What a piece of Python prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(with_ports(code, server), str(place), "exec"), {})
    return printed.getvalue()


@pytest.mark.parametrize("command", blocks("curl "))
def test_the_curl_calls_answer_as_printed(server, tools, command):
    # Sent with urllib, so that the test needs no curl.
    before, _, curl = with_ports(command, server).rpartition("curl ")
    words = shlex.split(curl)
    body = None
    if words[0] == "-d":
        body = words[1].encode()
        if body == b"@-":
            produce = before.rstrip().removesuffix("|")
            body = subprocess.run(
                ["sh", "-c", produce], capture_output=True, check=True
            ).stdout
        words = words[2:]
    (url,) = words
    # What curl sends with -d; neither server looks at the type.
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    status, reply = tools.http(url, body, headers if body else None)
    assert status == 200, reply
    if url.endswith("/products"):
        assert reply["model_version_status"][0]["state"] == "AVAILABLE"
    elif url.endswith("/metadata"):
        assert "serving_default" in reply["metadata"]["signature_def"]["signature_def"]
    elif b"instances" in body:
        assert [row["labels"][0] for row in reply["predictions"]] == ["shoe", "shoe"]
    else:
        assert reply["outputs"]["labels"][0] == ["shoe", "hat"]
    if before:
        assert reply["outputs"]["image_status"] == [["used"]]


def test_every_block_of_the_client_page_is_tested():
    text = CLIENT_README.read_text("utf-8")
    languages = sorted(re.findall("^```(.+)$", text, re.M))
    assert languages == ["json", "python", "python", "sh"]


@pytest.mark.parametrize(
    ("place", "printed"),
    [
        (0, "shoe 0.75 ('shoe',) ('missing',)\nshoe 0.75 ('shoe',) ('used',)\n"),
        (1, "[[0.75, 0.25]]\n"),
    ],
)
def test_the_client_snippets_answer_as_printed(server, place, printed):
    code = fenced(CLIENT_README, "python")[place]
    assert run(code, server, CLIENT_README) == printed


def test_the_client_is_installed_from_where_the_pages_say():
    (command,) = fenced(CLIENT_README, "sh")
    assert command == "pip install ./serving/client\n"
    assert "`pip install ./serving/client`" in README.read_text("utf-8")
    assert (README.parents[1] / "serving" / "client" / "pyproject.toml").is_file()


def test_the_log_has_the_lines_that_the_client_page_shows(server, tmp_path):
    (block,) = fenced(CLIENT_README, "json")
    shown = json.loads(block)
    log = tmp_path / "requests.jsonl"
    with Client(f"grpc://{server.grpc}", "products", log=log) as client:
        client.classify([{"title": "red shoe", "image": b"x" * 48213}])
    written = json.loads(log.read_text("utf-8"))
    assert list(written) == list(shown)
    for key in ("model", "signature", "products"):
        assert written[key] == shown[key]
    for key in ("time", "version", "duration_s"):
        assert type(written[key]) is type(shown[key])
    assert len(written["time"]) == len(shown["time"])


def test_the_client_page_has_every_option_and_call():
    text = CLIENT_README.read_text("utf-8")
    for name, parameter in inspect.signature(BaseClient.__init__).parameters.items():
        if name not in ("self", "url"):
            assert f"`{name}`" in text, name
        if isinstance(parameter.default, int | float) and parameter.default > 1024:
            assert f"{parameter.default // 2**20} MiB" in text
    for name in vars(Client):
        if not name.startswith("_") and name != "close":
            assert f"`{name}(" in text, name
    assert repr(Retries()).replace(".0", "") in text


def with_ports(text: str, server) -> str:
    return text.replace("127.0.0.1:8500", server.grpc).replace(
        "127.0.0.1:8501", server.rest
    )
