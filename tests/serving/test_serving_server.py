"""The server as a process: what it prints, when it stops, and with which code."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving import server as server_module

pytestmark = pytest.mark.development_server_only("looks at the process itself")


def run(tools, *flags, module="serving.server"):
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        env=tools.environment(),
        check=False,
    )


def test_the_first_line_says_what_it_is_for(server):
    assert server.first_line.startswith("Development server for laptops and tests")


def test_the_ready_line_names_ports_and_versions(server):
    assert server.ready_line == (
        f"ready: gRPC {server.grpc}, REST {server.rest}, "
        "models: half (version 1), products (version 1), swap (version 1)"
    )


@pytest.mark.parametrize("module", ["serving.server", "serving.classify"])
def test_help_needs_no_tensorflow(tools, module):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        "try:\n"
        f"    runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit as error:\n"
        "    assert not error.code, error.code\n"
        "heavy = {'tensorflow', 'grpc', 'google.protobuf'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert "usage:" in tools.run_code(code)


def test_the_room_imports_no_other_room():
    folder = Path(server_module.__file__).parent
    for file in folder.glob("*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] not in ("tfmm", "export"), (file, line)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--prot=8500"], "unknown flag --prot; did you mean --port?"),
        (["--use_alts_credentials"], "unknown flag --use_alts_credentials; "),
        (["--port=abc"], "argument --port: expected 0 to 65535. Received: 'abc'"),
        (["--port", "65536"], "argument --port: expected 0 to 65535."),
        (["--rest_api_port=-2"], "argument --rest_api_port: expected 0 to 65535."),
        (["--grpc_max_threads=0"], "expected 1 or more. Received: '0'"),
        (["--enable_model_warmup=maybe"], "expected true or false. Received: 'maybe'"),
        (["--file_system_poll_wait_seconds=x"], "invalid float value: 'x'"),
        (["--tensorflow_session_parallelism=x"], "expected 0 or more. Received: 'x'"),
        (
            ["--model_config_file_poll_wait_seconds=-1"],
            "expected seconds, 0 or more. Received: '-1'",
        ),
        (
            ["--port=0", "--model_base_path=.", "--batching_parameters_file=b.pbtxt"],
            "--batching_parameters_file is set without --enable_batching",
        ),
        (
            [
                "--port=0",
                "--model_base_path=.",
                "--enable_per_model_batching_parameters",
            ],
            "--enable_per_model_batching_parameters is set without --enable_batching",
        ),
        (
            ["--port=0", "--model_base_path=.", "--monitoring_config_file=NOPE"],
            "NOPE: cannot be read: No such file",
        ),
        (
            [
                "--port=0",
                "--model_base_path=.",
                "--enable_batching",
                "--batching_parameters_file=NOPE",
            ],
            "NOPE: cannot be read: No such file",
        ),
        (
            ["--port=0", "--model_base_path=."]
            + [
                f"--tensorflow_{kind}_parallelism=1"
                for kind in ("session", "intra_op", "inter_op")
            ],
            "not all three",
        ),
        (["--port=0"], "one of --model_base_path and --model_config_file is needed"),
        (["--port=0", "--model_base_path=NOPE"], "is not a directory. Received: NOPE"),
        (
            ["--port=0", "--model_config_file=NOPE"],
            "NOPE: cannot be read: No such file",
        ),
    ],
)
def test_a_bad_flag_is_one_line_and_exit_2(capsys, monkeypatch, flags, problem):
    # The handlers belong to a process of its own; here they would stay.
    monkeypatch.setattr(server_module.signal, "signal", lambda *_: None)
    assert server_module.main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("serving.server: ")
    assert problem in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("flag", ["port", "rest_api_port"])
def test_a_port_in_use_is_one_line_and_exit_2(tools, tmp_path, flag):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = [f"--{flag}={port}", f"--model_base_path={tmp_path}"]
        if flag != "port":
            flags.append("--port=0")
        done = run(tools, *flags)
    assert done.returncode == 2
    assert done.stderr == (
        f"serving.server: --{flag}={port}: cannot listen on 127.0.0.1:{port}: "
        "Address already in use\n"
    )


def test_it_waits_for_a_first_version_and_stops_on_ctrl_c(written, tools, tmp_path):
    base = tmp_path / "models"
    base.mkdir()
    process = tools.ServerProcess(
        f"--model_base_path={base}",
        "--port=0",
        "--rest_api_port=-1",
        "--file_system_poll_wait_seconds=0.05",
        log=tmp_path / "stderr.txt",
    )
    try:
        tools.wait_until(
            lambda: f"no version found in {base}" in process.log.read_text(), 60
        )
        shutil.copytree(written.half, tmp_path / "copy")
        (tmp_path / "copy").rename(base / "3")
        process.wait_ready()
        assert process.ready_line.endswith("models: default (version 3)")
        status, reply = tools.http(f"{process.url}/default:predict", {"inputs": [4]})
        assert (status, reply) == (200, {"outputs": [2.0]})
    finally:
        code = process.stop(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in process.log.read_text()


def test_a_first_load_that_fails_is_one_line_and_exit_1(tools, tmp_path):
    (tmp_path / "1").mkdir()
    done = run(tools, f"--model_base_path={tmp_path}", "--port=0")
    assert done.returncode == 1
    assert "ready" not in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"serving.server: default version 1 ({tmp_path / '1'}): ")
    assert "NOT_FOUND: SavedModel file does not exist" in last
    assert "Traceback" not in done.stderr


def test_sigterm_ends_it_with_exit_0_while_a_request_runs(written, tools, tmp_path):
    process = tools.ServerProcess(
        f"--model_base_path={written.half.parent}",
        "--port=0",
        "--rest_api_port=-1",
        log=tmp_path / "stderr.txt",
    )
    try:
        process.wait_ready()
        body = {"signature_name": "slow", "inputs": [1]}
        answers = []
        connection = http.client.HTTPConnection(process.rest, timeout=30)
        connection.request("POST", "/v1/models/default:predict", json.dumps(body))
        tools.http(f"{process.url}/default")

        def client():
            reply = connection.getresponse()
            answers.append((reply.status, json.loads(reply.read())))
            connection.close()

        request = threading.Thread(target=client)
        request.start()
    finally:
        code = process.stop()
    request.join(timeout=30)
    assert code == 0
    # 499 is the status of a cancelled request.
    assert [status for status, _ in answers] == [499]
