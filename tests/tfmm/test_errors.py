import subprocess
import sys

import pytest

from tfmm import errors
from tfmm.errors import (
    CatalogError,
    ExperimentError,
    ExportError,
    RunError,
    SparkError,
    TfmmError,
    command_line,
    did_you_mean,
)


def ends_with(command, monkeypatch, *words):
    """The exit status of `command` called with `words`."""
    monkeypatch.setattr(sys, "argv", ["tool", *words])
    with pytest.raises(SystemExit) as stopped:
        command_line(command, "tool")
    return stopped.value.code


def copies(number: int = 1) -> None:
    """Copies things."""
    if number == 7:
        raise CatalogError("catalog.csv:7: no luck")
    if number == 8:
        raise KeyError("a bug")
    if number == 9:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "kind", [CatalogError, ExperimentError, RunError, ExportError, SparkError]
)
def test_one_except_clause_catches_every_error_of_the_house(kind):
    assert issubclass(kind, TfmmError)
    assert kind.__name__ in errors.__doc__


def test_the_nearest_name_is_offered_and_else_all_of_them():
    assert did_you_mean("titel", ["title", "image"]) == "; did you mean 'title'?"
    assert did_you_mean("zzz", iter(["a", "b"])) == "; expected one of 'a', 'b'"
    assert did_you_mean("zzz", []) == ""


def test_an_error_of_the_user_is_one_line_and_status_2(monkeypatch, capsys):
    assert ends_with(copies, monkeypatch, "--number", "7") == 2
    assert capsys.readouterr() == ("", "tool: catalog.csv:7: no luck\n")


@pytest.mark.parametrize("words", [["--nubmer", "1"], ["--number", "x"], ["extra"]])
def test_a_wrong_flag_is_one_line_and_status_2(monkeypatch, capsys, words):
    assert ends_with(copies, monkeypatch, *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tool: ")
    assert err.endswith("(see tool --help)\n")
    assert err.count("\n") == 1


def test_success_is_status_0(monkeypatch, capsys):
    assert ends_with(copies, monkeypatch) == 0
    assert capsys.readouterr() == ("", "")


def test_an_interrupt_is_status_130_without_a_traceback(monkeypatch, capsys):
    assert ends_with(copies, monkeypatch, "--number", "9") == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tool", "--number", "8"])
    with pytest.raises(KeyError, match="a bug"):
        command_line(copies, "tool")


def test_importing_the_errors_and_experiments_loads_no_tensorflow():
    code = (
        "import sys, tfmm.errors, tfmm.experiment, tfmm.run\n"
        "assert not {'tensorflow', 'keras', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
