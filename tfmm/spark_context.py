"""A Spark that exists: the only importer of pyspark beside what executors run."""

import importlib.util
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tfmm import errors
from tfmm.errors import SparkError, TfmmError

CONNECT_S = 5.0


def check(master: str) -> None:
    """Finds out, before any work, whether a Spark can be asked.

    Raises:
        SparkError: If pyspark or Java is missing, or nothing answers at `master`.
    """
    for name in ("pyspark", "pandas", "py4j"):
        if importlib.util.find_spec(name) is None:
            raise SparkError(f"--spark needs {name}: pip install -e '.[spark]'")
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    if shutil.which(java) is None:
        place = f"JAVA_HOME: no {java}" if home else "no java on the PATH"
        raise SparkError(f"--spark needs Java, 17 for Spark 4 ({place})")
    if master == "yarn" and not {"HADOOP_CONF_DIR", "YARN_CONF_DIR"} & set(os.environ):
        raise SparkError("--spark yarn: set HADOOP_CONF_DIR or YARN_CONF_DIR")
    if not master.startswith("spark://"):
        return  # Spark itself knows which other masters there are
    reasons = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise SparkError(f"--spark: expected spark://HOST:PORT. Received: {master}")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
        except (OSError, OverflowError) as error:
            reasons.append(getattr(error, "strerror", None) or str(error))
        else:
            return
    raise SparkError(f"{master}: no Spark master answers: {'; '.join(reasons)}")


@contextmanager
def context(master: str, application: str) -> Iterator[Any]:
    """A SparkContext; what Spark itself writes goes to a file, kept if Spark fails.

    Spark's configuration (`SPARK_CONF_DIR`, `PYSPARK_SUBMIT_ARGS`) holds. Where it is
    silent an executor has one core, and so one Python and one model; and a task has
    all cores of its executor, for the same reason.
    """
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway

    # Else executors run the first python3 that they find.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    handle, name = tempfile.mkstemp(prefix="tfmm-spark-", suffix=".log")
    log = Path(name)
    gateway = found = None
    kept = False
    try:
        with os.fdopen(handle, "w") as file:
            gateway = launch_gateway(popen_kwargs={"stdout": file, "stderr": file})
        conf = SparkConf(_jvm=gateway.jvm).setMaster(master).setAppName(application)
        conf.set("spark.python.worker.reuse", "true")
        conf.set("spark.ui.showConsoleProgress", "false")
        if master.startswith("local"):
            conf.setIfMissing("spark.ui.enabled", "false")
            conf.setIfMissing("spark.driver.host", "127.0.0.1")
            conf.setIfMissing("spark.driver.bindAddress", "127.0.0.1")
        else:
            conf.setIfMissing("spark.executor.cores", "1")
            conf.setIfMissing("spark.task.cpus", conf.get("spark.executor.cores"))
        found = SparkContext(conf=conf, gateway=gateway)
        yield found
    except (Py4JError, PySparkException) as error:
        failure = _told(error, master)
        if failure is None:
            raise
        kept = isinstance(failure, SparkError)
        raise type(failure)(f"{failure}; log: {log}" if kept else failure) from None
    finally:
        if found is not None:
            with suppress(Py4JError):  # of a Spark that is gone
                found.stop()
        if gateway is not None:
            gateway.shutdown()
            gateway.proc.stdin.close()
            gateway.proc.wait()
        if not kept:
            log.unlink()


def _told(error: Exception, master: str) -> TfmmError | None:
    """What a user can put right; `None` for a bug of ours in an executor."""
    text = str(error)
    if found := re.findall(r"^\s*tfmm\.errors\.(\w+): (.+)$", text, re.MULTILINE):
        kind, message = found[-1]
        return getattr(errors, kind)(message)
    if found := re.findall(r"ModuleNotFoundError: No module named '([\w.]+)'", text):
        return SparkError(
            f"{master}: the executors' Python has no module {found[-1]!r}: install "
            "tfmm there too, with its extra [spark], and name that Python in "
            "PYSPARK_PYTHON"
        )
    if found := re.findall(r"\[PYTHON_VERSION_MISMATCH\] (.+)", text):
        return SparkError(f"{master}: {found[-1]}")
    if "stopped SparkContext" in text:  # which is all that Spark says of it
        return SparkError(
            f"{master}: what answers is no master of this Spark's version, or it ended "
            "the application"
        )
    if type(error).__name__ == "PythonException":
        return None
    # py4j begins with the call that failed, and then says why.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    why = [line.removeprefix(": ") for line in lines if line.startswith(": ")]
    return SparkError(f"{master}: {(why or lines or [type(error).__name__])[0]}")
