"""Claims about the whole house."""

import ast
import json
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from commands import process

from tfmm import experiment, settings

ROOT = Path(__file__).resolve().parent.parent

# The order that docs/notes/0001 gives: no room imports a later one.
ORDER = (
    ("__init__", "errors", "progress", "devices", "blocks"),
    ("settings",),
    ("experiment",),
    ("run", "tables", "hiding"),
    ("splits", "hierarchy"),
    ("catalog",),
    ("text", "image", "augmentation", "character_noise"),
    ("vectors", "image_cache", "cells", "trees", "thumbnail", "page"),
    ("dataset", "prepared"),
    ("head_data",),
    ("layers", "metrics", "bootstrap"),
    ("losses", "optimizers", "schedule", "pretrained"),
    ("towers", "heads"),
    ("train",),
    ("outputs",),
    ("products",),
    ("calibration", "audit"),
    ("results",),
    ("fusion", "networks", "selective"),
    ("stages",),
    ("exhibits",),
    ("report", "classifier"),
    ("labelling", "spark_context"),
    ("predict_spark",),
    ("evaluate", "predict", "search"),
    ("fit",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
COMMANDS = (
    *("tfmm.fit", "tfmm.search", "tfmm.evaluate", "tfmm.predict"),
    *("export", "export.verify"),
    *("serving.server", "serving.classify", "serving.monitor", "serving.page"),
)


def imports(path):
    """Full names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(*rooms):
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", sources("tfmm"), ids=lambda p: str(p.name))
def test_imports_run_one_way(path):
    own = path.relative_to(ROOT / "tfmm").parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "tfmm":
            continue
        room = parts[1] if parts[1] in LEVEL else "__init__"
        assert room == own or LEVEL[room] < LEVEL[own], f"{own} imports {name}"


def test_rooms_keep_apart():
    for path in sources("tfmm"):
        assert not [x for x in imports(path) if re.match("(export|serving)(\\.|$)", x)]
    for path in sources("serving"):
        assert not [x for x in imports(path) if re.match("(export|tfmm)(\\.|$)", x)]
    verify = ROOT / "export" / "verify.py"
    assert not [x for x in imports(verify) if x.startswith("tfmm")]


@pytest.mark.parametrize("command_name", COMMANDS)
def test_help_loads_nothing_heavy(command_name):
    done = process("-X", "importtime", "-m", command_name, "--help")
    assert done.returncode == 0, done.stderr
    modules = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert not modules & {"tensorflow", "keras", "pandas", "sklearn", "matplotlib"}


@pytest.mark.parametrize("path", sorted((ROOT / "hparams").glob("*.toml")), ids=str)
def test_every_experiment_file_loads_and_says_how_to_run_it(path):
    assert experiment.load(path).towers
    head = path.read_text(encoding="utf-8").split("\n\n")[0]
    assert "# Run:" in head
    assert f"hparams/{path.name}" in head


def test_every_key_has_help_and_is_in_the_docs():
    tool = runpy.run_path(str(ROOT / "tools" / "experiment_docs.py"))
    assert tool["FILE"].read_text(encoding="utf-8") == tool["text"]()
    listed = {table for _, table in tool["TABLES"]}
    for table in vars(settings).values():
        if isinstance(table, type) and issubclass(table, settings.Table):
            assert table in listed or table.__subclasses__(), table
    assert all(x.description for table in listed for x in table.model_fields.values())


def test_every_measure_is_in_the_docs(fitted):
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    report = json.loads((fitted / "report" / "test" / "report.json").read_text())
    keys = set(report) | {k for model in report["models"].values() for k in model}
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]


def test_every_key_of_an_audit_is_in_the_docs(fitted):
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    report = json.loads((fitted / "audit" / "audit.json").read_text())
    keys = set(report) | {k for about in report["modalities"].values() for k in about}
    found = (*report["findings"], *report["not_found"])
    keys |= {x["name"] for x in found} | set().union(*report["findings"])
    keys |= {f"max_{k}" for rates in report["rates"].values() for k in rates}
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in COMMANDS if f"python -m {name}" not in text]


def test_no_module_is_a_warehouse():
    for path in sources("tfmm", "export", "serving", "tools"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 420, path


def test_python_is_one_that_the_project_supports():
    assert (3, 11) <= sys.version_info[:2] <= (3, 13)


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "tfmm").rglob("__init__.py")
    }
    assert found <= set(project["tool"]["setuptools"]["packages"])
