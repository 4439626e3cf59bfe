import csv
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import command

from tfmm import errors, predict_spark, spark_context
from tfmm.errors import SparkError
from tfmm.labelling import Batch, Labelled
from tfmm.predict import predict

has_spark = all(map(importlib.util.find_spec, ("pyspark", "pandas")))
needs_pyspark = pytest.mark.skipif(not has_spark, reason="needs the extra [spark]")
needs_spark = pytest.mark.skipif(
    not has_spark or shutil.which("java") is None,
    reason="needs the extra [spark] and Java",
)
TASK = predict_spark.PART_BATCHES * predict_spark.BATCH


def many(catalog_file, to, products):
    """A catalog of many products, all with one of the few images."""
    header, *rows = csv.reader(catalog_file.read_text(encoding="utf-8").splitlines())
    with to.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number in range(products):
            writer.writerow([f"N{number}", *rows[number % len(rows)][1:]])
    return to


def words(model, catalog, images, to, master, *more):
    return (
        *("-m", "tfmm.predict", model, "--catalog", catalog, "--images", images),
        *("--to", to, "--spark", master, *more),
    )


@needs_spark
def test_a_spark_answers_the_same_as_one_process(
    bundle, catalog_file, tmp_path, capsys
):
    products = 2 * TASK + 100
    catalog = many(catalog_file, tmp_path / "many.csv", products)
    folder = tmp_path / "to"
    predict(bundle, catalog, tmp_path / "here.csv", catalog_file.parent, None, None)
    summary = capsys.readouterr().err.splitlines()
    to = folder / "spark.csv"
    done = command(*words(bundle, catalog, catalog_file.parent, to, "local[2]"))
    assert done.returncode == 0, done.stderr
    assert to.read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert [x.name for x in folder.iterdir()] == ["spark.csv"]
    assert "with a problem" in summary[0]
    said = done.stderr.splitlines()
    assert said[-len(summary) :] == [x.replace("here", "to/spark") for x in summary]
    loads = [x for x in said if x.startswith("predict: local[2]: 3 tasks, ")]
    assert loads[0].removeprefix("predict: local[2]: 3 tasks, ")[0] in "12"


@needs_spark
@pytest.mark.slow
def test_a_run_is_answered_by_its_tower_and_to_parquet(fitted, catalog_file, tmp_path):
    import pyarrow.parquet as pq

    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    predict(fitted, catalog_file, here, None, "title", None)
    images = catalog_file.parent
    line = words(fitted, catalog_file, images, there, "local[1]", "--head", "title")
    done = command(*line)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(here).equals(pq.read_table(there))


@needs_spark
@pytest.mark.slow
def test_what_an_executor_meets_is_one_line_and_leaves_nothing(
    bundle, catalog_file, tmp_path
):
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    (broken / "saved_model.pb").write_bytes(b"no model")
    to = tmp_path / "to" / "out.csv"
    for model, python, found in (
        (broken, sys.executable, f"{broken}: does not load"),
        (bundle, "/no/python", 'Cannot run program "/no/python"'),
    ):
        done = subprocess.run(
            [
                sys.executable,
                *map(str, words(model, catalog_file, tmp_path, to, "local[1]")),
            ],
            env=os.environ | {"PYSPARK_PYTHON": python, "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        last = done.stderr.splitlines()[-1]
        assert found in last
        assert all(x.startswith(("python -m tfmm", "predict: ")) for x in [last])
        assert not list(to.parent.iterdir())
        logs = list(tmp_path.glob("tfmm-spark-*.log"))
        assert [str(x) for x in logs] == re.findall(r"; log: (.+)", last)


@contextmanager
def cluster(folder):
    """A standalone master and two workers of one core, all on 127.0.0.1."""
    import pyspark

    starter = Path(pyspark.__path__[0]) / "bin" / "spark-class"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    master = f"spark://127.0.0.1:{port}"
    deploy = "org.apache.spark.deploy"
    host = ("--host", "127.0.0.1", "--webui-port", "0")
    one_core = ("--cores", "1", "--memory", "1g")
    started = []

    def start(name, *line):
        with (folder / f"{name}.log").open("w") as log:
            started.append(
                subprocess.Popen([starter, *line], stdout=log, stderr=log, env=env)
            )

    env = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1"}
    try:
        start("master", f"{deploy}.master.Master", *host, "--port", str(port))
        for name in ("first", "second"):
            work = ("--work-dir", folder / name)
            start(name, f"{deploy}.worker.Worker", *host, *one_core, *work, master)
        until(
            lambda: (folder / "master.log").read_text().count("Registering worker") > 1
        )
        yield master, started[1:]
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def until(is_so, timeout_s=1800):
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.2)


@needs_spark
@pytest.mark.slow
def test_a_killed_worker_costs_no_product_and_doubles_none(
    bundle, catalog_file, tmp_path
):
    catalog = many(catalog_file, tmp_path / "many.csv", 20 * TASK + 1)
    predict(bundle, catalog, tmp_path / "here.csv", catalog_file.parent, None, None)
    to = tmp_path / "spark.csv"

    def labelled(worker):
        logs = (tmp_path / worker).glob("app-*/*/stderr")
        return sum(log.read_text().count("is labelled") for log in logs)

    with cluster(tmp_path) as (master, workers):
        line = words(bundle, catalog, catalog_file.parent, to, master)
        running = subprocess.Popen(
            [sys.executable, *map(str, line)],
            env=os.environ | {"SPARK_LOCAL_IP": "127.0.0.1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: labelled("first") and labelled("second"))
        workers[0].kill()
        assert running.poll() is None
        _, said = running.communicate()
        assert running.returncode == 0, said
        # What the first had answered went with its disk.
        assert labelled("second") == 21
    assert to.read_bytes() == (tmp_path / "here.csv").read_bytes()


def test_parts_hold_the_batches_as_they_were(tmp_path):
    sizes = [64, 3, *[64] * 16]
    batches = [
        Batch(
            [f"{batch}/{x}" for x in range(size)],
            {"id": ["é\0"] * size, "a b": [""] * size},
            {"id": ["/x y.jpg"] * size},
        )
        for batch, size in enumerate(sizes)
    ]
    folder = tmp_path / "parts"
    written = predict_spark._write_parts(batches, folder)
    assert written == [sum(sizes[:16]), 128]
    read = [
        x
        for part in (0, 1)
        for x in predict_spark._read_part(folder / f"{part}.parquet")
    ]
    assert [batch for _, batch in read] == batches
    assert [first for first, _ in read] == [sum(sizes[:x]) for x in range(len(sizes))]
    ids = list(predict_spark._ids(folder, 2))
    assert ids == [x for batch in batches for x in batch.ids]


def row(number, product):
    return SimpleNamespace(
        number=number,
        id=product,
        labels=["x"],
        scores=[0.5],
        assigned=[True],
        problem="",
    )


def test_answers_pass_where_they_are_those_of_the_catalog():
    rows = [row(0, "a"), row(1, "a")]
    passed = list(predict_spark._in_order(rows, ["a", "a"], "local"))
    assert passed == [Labelled("a", ["x"], [0.5], [True], "")] * 2


@pytest.mark.parametrize(
    "numbers", [[0, 2], [0, 1, 1, 2], [1, 0, 2], [0, 1], [0, 1, 2, 3], []]
)
def test_a_missing_doubled_or_moved_answer_is_refused(numbers):
    rows = [row(x, "abcd"[x]) for x in numbers]
    with pytest.raises(SparkError, match="expected one answer for every product"):
        list(predict_spark._in_order(rows, ["a", "b", "c"], "local"))


def test_an_answer_for_another_product_is_refused():
    with pytest.raises(SparkError, match=r"Received: \(0, 'b'\) where .* \(0, 'a'\)"):
        list(predict_spark._in_order([row(0, "b")], ["a"], "local"))


@needs_pyspark
def test_an_executor_that_sees_no_model_says_so(tmp_path):
    missing = tmp_path / "models" / "1"
    work = predict_spark._label_parts([], missing, None, tmp_path, [missing], None)
    with pytest.raises(SparkError, match=f"{socket.gethostname()} sees no {missing}: "):
        next(work)


@pytest.mark.parametrize("name", ["pyspark", "pandas"])
def test_a_missing_pyspark_names_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SparkError, match=rf"{name}: pip install -e '\.\[spark\]'"):
        spark_context.check("local[2]")


@needs_pyspark
def test_a_missing_java_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SparkError, match=f"needs Java.*no {tmp_path}/bin/java"):
        spark_context.check("local[2]")
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SparkError, match=r"needs Java.*no java on the PATH"):
        spark_context.check("local[2]")


@needs_spark
def test_a_master_that_cannot_be_asked_is_told_before_any_work(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as here:
        port = here.getsockname()[1]
        spark_context.check(f"spark://127.0.0.1:1,127.0.0.1:{port}")
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    monkeypatch.delenv("YARN_CONF_DIR", raising=False)
    for master, found in {
        f"spark://127.0.0.1:{port}": "no Spark master answers: Connection refused",
        "spark://127.0.0.1": "expected spark://HOST:PORT. Received: spark://127.0.0.1",
        "yarn": "set HADOOP_CONF_DIR or YARN_CONF_DIR",
    }.items():
        with pytest.raises(SparkError, match=found):
            spark_context.check(master)


class PythonException(Exception):
    """Named as pyspark's own."""


def test_what_went_wrong_on_a_spark_is_one_line():
    python = "An exception was thrown from the Python worker:\nTraceback (most ...):\n"
    for text, kind, found in (
        ("tfmm.errors.RunError: /m/1: no run\n", errors.RunError, "/m/1: no run"),
        (
            "ModuleNotFoundError: No module named 'tfmm'\n",
            SparkError,
            "local: the executors' Python has no module 'tfmm': install tfmm there too",
        ),
        (
            "pyspark.errors.X: [PYTHON_VERSION_MISMATCH] Python in worker has 3.12\n",
            SparkError,
            "local: Python in worker has 3.12",
        ),
    ):
        told = spark_context._told(PythonException(python + text), "local")
        assert type(told) is kind
        assert str(told).startswith(found)
    java = (
        "An error occurred while calling o5.count.\n: org.X: aborted: y\n\tat org.Z\n"
    )
    assert str(spark_context._told(Exception(java), "local")) == (
        "local: org.X: aborted: y"
    )


def test_a_bug_in_an_executor_keeps_its_traceback():
    bug = PythonException("An exception was thrown\nTraceback\nKeyError: 'x'\n")
    assert spark_context._told(bug, "local") is None
