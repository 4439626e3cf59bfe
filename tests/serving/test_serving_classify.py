"""The command, over both protocols, against the development server."""

import json
import socket

import pytest

from serving import classify

PROTOCOLS = ["grpc", "rest"]


@pytest.fixture
def ask(server, capsys):
    """Runs the command inside this process: exit code, output, error output."""

    def run(protocol, *options):
        address = server.rest if protocol == "rest" else server.grpc
        flags = ["--server", address, *(["--rest"] if protocol == "rest" else [])]
        code = classify.main([*flags, *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "shoe.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 no real image")
    return path


PRODUCTS = ["--model_name", "products"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_prints_labels_with_scores_and_marks(ask, protocol, image):
    code, out, _ = ask(
        protocol,
        *PRODUCTS,
        "--title",
        "shoe",
        "--description",
        "d",
        "--image",
        str(image),
    )
    assert code == 0
    assert out == "* 0.7500  shoe\n  0.2500  hat\nimage_status: used\n"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_modality_not_given_is_sent_empty(ask, protocol):
    code, out, _ = ask(protocol, *PRODUCTS, "--title", "shoe", "--json")
    assert code == 0
    assert json.loads(out) == {
        "model_name": "products",
        "outputs": {
            "labels": ["shoe", "hat"],
            "scores": [0.75, 0.25],
            "assigned": [True, False],
            "image_used": [False],
            "image_status": ["missing"],
        },
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_signature_prints_its_outputs(ask, protocol):
    options = [*PRODUCTS, "--title", "x", "--signature", "probabilities"]
    assert ask(protocol, *options) == (0, "probabilities: [0.75, 0.25]\n", "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_input_is_given_by_name(ask, protocol, image):
    options = ["--model_name", "half", "--version", "1"]
    assert ask(protocol, *options, "--input", "x=3") == (0, "y: 1.5\n", "")
    options += ["--signature", "echo", "--input", f"text=@{image}", "--json"]
    code, out, _ = ask(protocol, *options)
    assert code == 0
    assert json.loads(out)["outputs"]["length"] == len(image.read_bytes())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            [*PRODUCTS, "--input", "titel=x"],
            "the model 'products' has no input 'titel'; did you mean 'title'? "
            "Its inputs: description, image, title.",
        ),
        (
            ["--model_name", "half", "--title", "x"],
            "has no input 'title'. Its inputs: x",
        ),
        ([*PRODUCTS], "no product to classify; the inputs are description, image, t"),
        (
            [*PRODUCTS, "--title", "x", "--signature", "probabilites"],
            "no signature 'probabilites'; did you mean 'probabilities'? "
            "Its signatures: embed, explain, probabilities, serving_default.",
        ),
        (
            [*PRODUCTS, "--image", "no.jpg"],
            "--image: no.jpg: No such file or directory",
        ),
        ([*PRODUCTS, "--input", "title"], "expected NAME=VALUE. Received: 'title'"),
        ([*PRODUCTS, "--input", "a=1", "--input", "a=2"], "'a' is given twice"),
        ([*PRODUCTS, "--titel", "x"], "unknown flag --titel; did you mean --title?"),
        (["--model_name", "half", "--input", "x=red"], "the input 'x' takes float: "),
        (
            ["--model_name", "half", "--signature", "add", "--input", "a=1"],
            "the input 'b' of dtype float is missing",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_2(ask, protocol, options, problem):
    code, out, error = ask(protocol, *options)
    assert (code, out) == (2, "")
    assert error.startswith("serving.classify: ")
    assert problem in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("protocol", "options", "line"),
    [
        (
            "grpc",
            ["--model_name", "nope", "--title", "x"],
            "NOT_FOUND: Servable not found for request: Latest(nope)",
        ),
        (
            "rest",
            ["--model_name", "nope", "--title", "x"],
            "HTTP 404: Servable not found for request: Latest(nope)",
        ),
        (
            "grpc",
            [*PRODUCTS, "--title", "x", "--version", "9"],
            "NOT_FOUND: Servable not found for request: Specific(products, 9)",
        ),
        (
            "rest",
            [*PRODUCTS, "--title", "x", "--version", "9"],
            "HTTP 404: Servable not found for request: Specific(products, 9)",
        ),
    ],
)
def test_a_refusal_is_one_line_with_its_code_and_exit_1(ask, protocol, options, line):
    assert ask(protocol, *options) == (1, "", f"serving.classify: {line}\n")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_time_limit_is_kept(ask, protocol):
    slow = ["--model_name", "half", "--signature", "slow", "--input", "x=1"]
    code, _, error = ask(protocol, *slow, "--timeout", "0.5")
    assert code == 1
    assert error.startswith("serving.classify: DEADLINE_EXCEEDED: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_not_there_is_one_line_and_exit_1(protocol, capsys):
    with socket.socket() as bound:  # bound and not listening: refused
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        flags = ["--rest"] if protocol == "rest" else []
        code = classify.main(["--server", address, "--title", "x", *flags])
    error = capsys.readouterr().err
    assert code == 1
    assert error.startswith("serving.classify: UNAVAILABLE: ")
    assert error.count("\n") == 1


def test_the_grpc_port_asked_over_rest_is_named(server, capsys):
    code = classify.main(["--server", server.grpc, "--rest", "--title", "x"])
    assert code == 1
    assert "does not answer in HTTP; is it the gRPC port?" in capsys.readouterr().err


def test_rest_imports_no_tensorflow(server, tools):
    code = (
        "import sys\n"
        "from serving.classify import main\n"
        f"code = main(['--server', '{server.rest}', '--rest', '--title', 'x',\n"
        "             '--model_name', 'products'])\n"
        "assert code == 0\n"
        "heavy = {'tensorflow', 'grpc'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    tools.run_code(code)
