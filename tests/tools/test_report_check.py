import json
import shutil

import pytest
from commands import command


@pytest.fixture
def run(fitted, tmp_path):
    for part in ("outputs", "report", "experiment.toml"):
        copy = shutil.copytree if (fitted / part).is_dir() else shutil.copy
        copy(fitted / part, tmp_path / part)
    return tmp_path


def test_a_report_is_what_scikit_learn_makes_of_the_outputs(run):
    done = command("tools/report_check.py", run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(", 0 different\n")
    assert "policy: gained by images" in done.stdout


def test_a_number_that_is_not_is_found(run):
    file = run / "report" / "test" / "report.json"
    report = json.loads(file.read_text())
    report["models"]["title"]["macro_f1"] += 0.001
    report["models"]["policy"]["per_label"]["found"][0] += 1
    file.write_text(json.dumps(report))
    done = command("tools/report_check.py", run)
    assert done.returncode == 1
    assert done.stdout.endswith(", 2 different\n")


def test_a_run_without_a_report_is_refused(tmp_path):
    done = command("tools/report_check.py", tmp_path)
    assert done.returncode == 2
    assert "report.json: no such file; run tfmm.evaluate" in done.stderr
