"""Every head, from the command to a verified bundle that answers as the store."""

import json

import pytest
from commands import command
from tiny import EXPERIMENT

from tfmm.heads import HEADS
from tfmm.run import Run

pytestmark = pytest.mark.slow  # an export and a verification for each

SMALL = {
    "weighted_mean": "",
    "ridge": "alphas = [1.0]",
    "logistic_stack": "strengths = [0.01]",
    "gate": "max_epochs = 2\nhidden_units = [3]",
    "boosted_trees": "max_rounds = 5\nmin_products_per_leaf = 2",
    "early_fusion": "max_epochs = 2\nprojection_units = 4\nhidden_units = [3]",
    "policy_network": "max_epochs = 2",
}


@pytest.fixture(scope="module", params=["multi_label", "single_label"])
def run(request, catalog_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    text = EXPERIMENT.replace("multi_label", request.param)
    catalog = catalog_file
    if request.param == "single_label":
        # One label a product, beside the same pictures.
        catalog = catalog_file.with_name("single.csv")
        catalog.write_text(catalog_file.read_text().replace("|new", ""))
    for model in HEADS:
        text += f'\n[heads.head_{model}]\nmodel = "{model}"\n'
        text += f'towers = ["title", "image"]\n{SMALL.get(model, "")}\n'
    if request.param == "single_label":
        text += '\n[heads.by_label]\nmodel = "boosted_trees"\nform = "per_label"\n'
        text += f'towers = ["title", "image"]\n{SMALL["boosted_trees"]}\n'
    file = folder / "experiment.toml"
    file.write_text(text)
    done = command(
        *("-m", "tfmm.fit", file, "--catalog", catalog, "--run", folder / "run")
    )
    assert done.returncode == 0, done.stderr
    return Run(folder / "run")


def test_every_head_is_exported_and_verified(run, tmp_path):
    heads = [name for name in run.read_experiment().heads if name != "policy"]
    assert len(heads) >= len(HEADS)
    for name in heads:
        models = tmp_path / name
        done = command("-m", "export", run.path, "--to", models, "--head", name)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        done = command("-m", "export.verify", models / "1")
        assert done.returncode == 0, f"{name}: {done.stderr}"
        (golden,) = models.rglob("*golden*")
        assert json.loads(golden.read_text())["products"]
