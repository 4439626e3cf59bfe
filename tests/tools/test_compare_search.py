import json
import shutil
import sys
from pathlib import Path

import pytest
from commands import command
from tiny import EXPERIMENT

from tfmm.errors import RunError

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools"))
from compare_search import of_journal, summary

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def journal(path, outcomes):
    lines = [{"target": "policy"}]
    for number, (status, value) in outcomes:
        outcome = {"status": status, "value": value}
        lines.append({"number": number, "outcome": outcome, "at": 10.0 * number})
    path.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    return path


def test_what_a_search_found_is_read_from_its_journal(tmp_path):
    outcomes = [
        *[(0, ("failed", None)), (2, ("stopped", 0.9)), (1, ("done", 0.5))],
        *[(3, ("done", 0.7)), (-1, ("done", 0.99))],
    ]
    found = of_journal(journal(tmp_path / "search.jsonl", outcomes), 4)
    assert (found["written"], found["best"], found["number"]) == (None, 0.7, 3)
    assert found["mean_best"] == pytest.approx((0.5 + 0.5 + 0.7) / 3)
    assert (found["done"], found["stopped"], found["failed"]) == (2, 1, 1)
    assert found["seconds"] == 30.0
    for trials in (3, 5):
        with pytest.raises(RunError, match=f"2 of 4 .* expected {trials} trials"):
            of_journal(tmp_path / "search.jsonl", trials)
    with pytest.raises(RunError, match="0 of 1 trials went through"):
        of_journal(journal(tmp_path / "none.jsonl", outcomes[:1]), 1)


def test_algorithms_are_compared_seed_by_seed():
    def row(best):
        return {"best": best, "mean_best": best, "test": best, "seconds": 1.0}

    told = summary({"tpe": [row(0.8), row(0.6)], "random": [row(0.5), row(0.7)]})
    assert told["tpe"]["best"] == pytest.approx(0.7)
    assert told["random"]["test"] == pytest.approx(0.6)
    assert told["more_best"] == pytest.approx([0.3, -0.1])


@pytest.mark.slow
def test_searches_are_run_fitted_and_told(fitted, catalog_file, tmp_path):
    file, base = tmp_path / "e.toml", tmp_path / "run"
    file.write_text(EXPERIMENT, encoding="utf-8")
    shutil.copytree(fitted, base)
    before = (base / "run.json").read_bytes()
    call = [TOOLS / "compare_search.py", file, "--catalog", catalog_file, "--run", base]
    call += ["--to", tmp_path / "to", "--target", "policy", "--trials", 2, "--seeds", 1]
    done = command(*call)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "to" / "compared.json").read_text())["policy"]
    assert told["measure"] == "micro_f1"
    assert told["means"]["tpe"]["test"] == told["searches"]["tpe"][0]["test"]
    report = tmp_path / "to" / "tpe_0"
    assert command("-m", "tfmm.evaluate", report).returncode == 0
    numbers = json.loads((report / "report" / "test" / "report.json").read_text())
    assert numbers["models"]["policy"]["micro_f1"] == pytest.approx(
        told["searches"]["tpe"][0]["test"]
    )
    assert (base / "run.json").read_bytes() == before
    again = command(*call)
    assert again.stdout == done.stdout
    for changed, message in (
        (("--trials", 3, "--parallel", 1), "the search of 'policy' failed"),
        (("--to", base / "to"), "expected a folder apart from the run"),
    ):
        bad = command(*call, *changed)
        assert bad.returncode == 2
        assert message in bad.stderr.splitlines()[-1]
