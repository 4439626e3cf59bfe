import json
import subprocess
import sys

import pytest
from tiny import EXPERIMENT

from tfmm import experiment
from tfmm.errors import ExperimentError, RunError
from tfmm.run import Run, fingerprint, read_json, replacing, write_json

CATALOG = {"path": "c.csv", "sha256": "00", "fingerprint": "01"}


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return experiment.load(path)


@pytest.fixture
def run(tmp_path, settings):
    run = Run(tmp_path / "run")
    run.write_start(settings, ["tfmm.fit", "e.toml"], CATALOG)
    return run


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(call, *args):
    with pytest.raises(RunError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- fingerprint


def test_a_fingerprint_is_the_start_of_the_hash_of_the_json():
    # printf '[{"a": 1}, "é"]' | sha256sum
    assert fingerprint({"a": 1}, "é") == "27c9656b6805a683"


def test_a_fingerprint_ignores_the_order_of_keys_only():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint("1") != fingerprint(1)
    assert fingerprint("a", "b") != fingerprint(["a", "b"])


def test_half_a_surrogate_pair_has_a_fingerprint():
    assert len(fingerprint("\ud800")) == 16


# --------------------------------------------------------------------- writing


def test_a_write_that_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        write_json(path, {"a": "\ud800"})
    assert read_json(path) == {"a": 1}
    assert contents(tmp_path) == ["a.json"]


def test_a_folder_that_fails_midway_leaves_the_old_folder_and_nothing_else(tmp_path):
    folder = tmp_path / "outputs"
    with replacing(folder) as partial:
        partial.mkdir()
        (partial / "old").touch()

    def fail():
        with replacing(folder) as partial:
            partial.mkdir()
            (partial / "new").touch()
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail()
    assert contents(folder) == ["old"]
    assert contents(tmp_path) == ["outputs"]


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path):
    folder = tmp_path / "a" / "outputs"
    for name in ("old", "new"):
        with replacing(folder) as partial:
            partial.mkdir()
            (partial / name).touch()
    assert contents(folder) == ["new"]
    assert contents(tmp_path / "a") == ["outputs"]


def test_json_is_written_as_readable_utf_8(tmp_path):
    write_json(tmp_path / "a.json", {"größe": "µ"})
    assert "größe" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a": 1', b'{"a": "\xe9"}', b"9" * 5_000, b"[" * 100_000],
    ids=["empty", "cut off", "latin-1", "endless number", "deep"],
)
def test_a_damaged_json_of_a_run_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert refusal(read_json, path).startswith(f"{path}: damaged: ")


def test_a_json_that_is_not_there_says_that_the_run_is_not_that_far(tmp_path):
    path = tmp_path / "a.json"
    assert refusal(read_json, path) == (
        f"{path}: no such file; the run is not that far yet"
    )


def test_a_folder_in_the_place_of_a_json_is_named(tmp_path):
    expected = f"{tmp_path}: cannot be read: Is a directory"
    assert refusal(read_json, tmp_path) == expected


# --------------------------------------------------------------------- the run


def test_a_run_gives_back_the_experiment_it_was_made_with(run, settings):
    assert run.exists
    assert run.read_experiment() == settings


def test_a_run_knows_its_command_catalog_and_versions(run):
    info = run.read_info()
    assert info["commands"][0]["command"] == ["tfmm.fit", "e.toml"]
    assert info["catalog"] == CATALOG
    assert info["versions"]["tensorflow"].startswith("2.20.")
    assert json.loads(run.info_file.read_text(encoding="utf-8")) == info


def test_what_is_no_run_is_refused(tmp_path):
    made = "expected what tfmm.fit --run made"
    assert refusal(Run(tmp_path / "x").require) == (
        f"{tmp_path / 'x'}: no such folder; {made}"
    )
    for read in ("require", "read_experiment", "read_info", "read_labels"):
        found = refusal(getattr(Run(tmp_path), read))
        assert found == f"{tmp_path}: not a run; {made}"


def test_labels_keep_their_order_and_odd_letters(run):
    run.labels_file.parent.mkdir()
    run.labels_file.write_text("b\n Größe\na|b\n", encoding="utf-8")
    assert run.read_labels() == ("b", " Größe", "a|b")


def test_missing_or_damaged_labels_are_named(run):
    assert refusal(run.read_labels).startswith(f"{run.labels_file}: cannot be read: ")
    run.labels_file.parent.mkdir()
    run.labels_file.write_bytes(b"caf\xe9\n")
    assert refusal(run.read_labels).startswith(f"{run.labels_file}: cannot be read: ")


def test_a_run_without_its_experiment_is_named(run):
    run.experiment_file.unlink()
    with pytest.raises(ExperimentError, match="no such experiment file"):
        run.read_experiment()


# -------------------------------------------------------------------- the lock

HOLD = """
import sys
from pathlib import Path
from tfmm.run import Run
with Run(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_works_in_is_refused_until_it_is_killed(run):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunError) as caught, run.lock():
            pass
        other.kill()
    expected = f"{run.path}: another process is working in this run"
    assert str(caught.value) == expected
    with run.lock():
        pass


def test_a_lock_is_free_again_after_an_error(run):
    with pytest.raises(KeyError), run.lock():
        raise KeyError
    with run.lock():
        pass


def test_what_a_killed_process_left_is_cleared_and_nothing_else(run):
    left = run.outputs / "title" / ".test.123.partial"
    left.mkdir(parents=True)
    (left / ".store.json.123.partial").touch()
    (run.outputs / ".policy.7.old").mkdir()
    (run.path / ".run.json.9.partial").touch()
    (run.path / ".keep").touch()
    with run.lock():
        assert contents(run.outputs) == ["title"]
        assert contents(run.outputs / "title") == []
    assert contents(run.path) == [
        ".keep",
        "experiment.toml",
        "lock",
        "outputs",
        "run.json",
    ]


def test_a_run_cannot_lie_in_the_place_of_a_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunError) as caught, Run(file).lock():
        pass
    assert str(caught.value) == f"{file}: expected a folder to write the run into"
    with pytest.raises(RunError) as caught, Run(file / "run").lock():
        pass
    assert str(caught.value) == f"{file / 'run'}: cannot be written: Not a directory"
    assert contents(tmp_path) == ["file"]


def test_a_folder_of_somebody_is_left_alone(tmp_path):
    for name in (".bashrc.old", "lock", "sub/.thesis.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with (
        pytest.raises(
            RunError, match=r"expected a new folder or a run.*'\.bashrc\.old'"
        ),
        Run(tmp_path).lock(),
    ):
        pass
    for name in (".bashrc.old", "lock", "sub/.thesis.partial"):
        assert (tmp_path / name).read_text() == "mine"


def test_a_run_that_stops_before_it_made_anything_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), Run(tmp_path / "run").lock():
        raise KeyError
    assert not (tmp_path / "run").exists()


def test_what_a_killed_run_left_is_no_stranger(tmp_path):
    (tmp_path / ".run.json.77.partial").write_text("half")
    (tmp_path / "catalog").mkdir()
    with Run(tmp_path).lock():
        assert sorted(x.name for x in tmp_path.iterdir()) == ["catalog", "lock"]
