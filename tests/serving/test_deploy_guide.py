"""What docs/serving.md prints is there, parses, and the canary goes as it says."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from serving import server as server_module
from serving.config import read_model_config_file

DEPLOY = Path(server_module.__file__).with_name("deploy")
ROOT = DEPLOY.parents[1]
GUIDE = (ROOT / "docs" / "serving.md").read_text("utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
STEPS = re.findall(
    r"^\| ([a-z ]+) \| ([\d, ]+) \| (\d) \| (\d) \|$", GUIDE, re.MULTILINE
)


def commands(start: str) -> list[str]:
    found = [command for command in COMMANDS if command.startswith(start)]
    assert found, start
    return found


def test_every_file_that_the_guide_names_is_there():
    names = re.findall(r"`((?:config|prometheus|grafana|kubernetes)/[\w./]*)`", GUIDE)
    assert len(names) >= 8
    for name in names:
        assert (DEPLOY / name).exists(), name
    for path in re.findall(r"serving/deploy/[\w./]+", GUIDE):
        if path != "serving/deploy/config/tls.config":  # written by tls_config.py
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("command", commands("python -m serving.server"))
def test_the_development_server_takes_the_flags_as_printed(command):
    words = shlex.split(command)
    options = server_module.build_parser().parse(words[3:])
    assert (options.port, options.rest_api_port) == (8500, 8501)


def test_docker_runs_the_server_with_the_flags_of_compose():
    (command,) = commands("docker run")
    words = shlex.split(command)
    image = words.index("tensorflow/serving:2.20.0")
    compose = (DEPLOY / "compose.yaml").read_text("utf-8")
    assert len(words[image + 1 :]) == 7
    for flag in words[image + 1 :]:
        assert f"- {flag}\n" in compose
    published = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
    assert all(port.startswith("127.0.0.1:") for port in published)


def write_step(directory: Path, step: tuple[str, ...]) -> Path:
    """models.config as a row of the guide's table has it edited."""
    _, versions, stable, canary = step
    text = (DEPLOY / "config" / "models.config").read_text("utf-8")
    lines = "".join(f"versions: {number}\n" for number in versions.split(", "))
    text = text.replace("/models/", f"{directory}/")
    text = text.replace("        versions: 1\n", lines)
    for label, number in (("stable", stable), ("canary", canary)):
        old = f'key: "{label}"\n      value: 1'
        assert text.count(old) == 1
        text = text.replace(old, f'key: "{label}"\n      value: {number}')
    file = directory / "models.config"
    file.write_text(text)
    return file


def test_the_steps_are_those_of_a_canary():
    names = [name for name, *_ in STEPS]
    assert names == ["start", "load", "try", "promote", "roll back", "retire"]
    loaded: set[str] = set()
    for _, versions, *labels in STEPS:
        served = set(versions.split(", "))
        assert set(labels) <= served
        # A label moves only to a version that the step before has loaded.
        assert set(labels) <= (loaded or served)
        loaded = served


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step[0])
def test_each_step_serves_its_versions_under_its_labels(
    local, tools, written, tmp_path, step
):
    # Two versions of one product model; the replies tell which one answered.
    for number in ("1", "2"):
        shutil.copytree(written.products, tmp_path / "products" / number)
    config = read_model_config_file(write_step(tmp_path, step))
    server = local(*config)
    _, versions, stable, canary = step
    numbers = [int(number) for number in versions.split(", ")]
    assert server.store.available() == {"products": numbers}
    status, _ = tools.http(f"{server.url}/products/versions/2")
    assert status == (200 if "2" in versions else 404)
    for label, number in (("stable", stable), ("canary", canary)):
        url = f"{server.url}/products/labels/{label}"
        status, reply = tools.http(f"{url}/metadata")
        assert status == 200
        assert reply["model_spec"]["version"] == number
        (call,) = [c for c in commands("curl -d") if f"/labels/{label}:" in c]
        body = shlex.split(call)[2]
        status, reply = tools.http(f"{url}:predict", body.encode())
        assert (status, reply["predictions"][0]["labels"]) == (200, ["shoe", "hat"])
