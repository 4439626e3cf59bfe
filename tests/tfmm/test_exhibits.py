"""What a run keeps for its report beside outputs, on the run that the command made."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tfmm import audit, dataset, exhibits, report, results
from tfmm.errors import RunError
from tfmm.exhibits import maps
from tfmm.exhibits.grad_cam import grad_cam
from tfmm.run import Run, read_json, write_json


@pytest.fixture
def place(fitted, tmp_path):
    """A copy to change."""
    shutil.copytree(fitted, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture(scope="module")
def numbers(fitted):
    return read_json(Run(fitted).report("test") / "report.json")


def probabilities(run, settings, name, logits):
    scaled = results.read_calibration(run, settings, name).apply(logits)
    return np.array(tf.sigmoid(scaled))


def test_reasons_are_what_hiding_a_tower_changes(fitted, numbers):
    run = Run(fitted)
    settings = run.read_experiment()
    for head in ("product", "policy"):
        model = results.load_model(run, head)
        inputs, ids = results.head_inputs(run, settings, head, "test")

        def said(hidden, head=head, model=model, inputs=inputs):
            seen = {
                tower: {
                    k: np.zeros_like(v) if tower == hidden else v for k, v in x.items()
                }
                for tower, x in inputs.items()
            }
            return probabilities(run, settings, head, model(seen)["logits"].numpy())

        everything = said(None)
        first, each = everything.argmax(axis=1), np.arange(len(ids))
        here = np.any([x["present"] for x in inputs.values()], axis=0)
        about = numbers["models"][head]["reasons"]
        assert about["kind"] == "leave_one_tower_out"
        assert about["products"] == here.sum()
        for tower in inputs:
            without = said(tower)
            others = [x["present"] for name, x in inputs.items() if name != tower]
            shares = np.asarray(tf.sigmoid(results.prior_logits(run, settings)))
            without[~np.any(others, axis=0)] = shares
            falls = everything[each, first] - without[each, first]
            assert about["of"][tower] == pytest.approx(
                np.abs(falls[here]).mean(), abs=1e-4
            )
            assert np.abs(falls).max() > 0.01
            for row, product in numbers["shown"].items():
                told = product["reasons"][head]
                assert told["label"] == first[int(row)]
                assert told["of"][tower] == pytest.approx(falls[int(row)], abs=1e-4)


def test_maps_are_those_of_the_towers_own_first_label(fitted, numbers, catalog_file):
    run = Run(fitted)
    settings = run.read_experiment()
    catalog = audit.inspect(settings, catalog_file, None, run).catalog
    rows = np.array(sorted(map(int, numbers["shown"])))
    stored = results.read_outputs(run, settings, "image", "test")
    rows = rows[stored.present[rows]]
    reads = results.reads(settings, "image")
    (batch,) = dataset.batches(catalog, catalog.rows("test")[rows], reads, 64)
    labels = probabilities(run, settings, "image", stored.logits[rows]).argmax(axis=1)
    found = grad_cam(results.load_model(run, "image"))(batch, labels)
    for row, label, grid in zip(rows, labels, found, strict=True):
        told = numbers["shown"][str(row)]["maps"]["image"]
        assert told["kind"] == "grad_cam"
        assert told["label"] == label
        np.testing.assert_allclose(told["grid"], grid / grid.max(), atol=6e-4)
    assert all(
        "image" not in x["images"] or x["maps"] for x in numbers["shown"].values()
    )


def test_products_are_shown_as_the_catalog_has_them(numbers):
    for product in numbers["shown"].values():
        assert product["id"].startswith("P")
        assert set(product["said"]) <= {"title", "image", numbers["best_head"]}
        for said in product["said"].values():
            shares = [share for _, share in said]
            assert len(said) == 3
            assert shares == sorted(shares, reverse=True)


def test_a_report_is_redone_without_a_model(place, numbers):
    shutil.rmtree(place.path / "models" / "title" / "tensorboard", ignore_errors=True)
    for name in ("title", "image", "product", "policy"):
        place.model_file(name).unlink()
    report.write(place, place.read_experiment(), "test")
    assert read_json(place.report("test") / "report.json") == numbers


def test_a_run_without_exhibits_has_a_report_without_them(place, numbers):
    place.exhibits_file("test").unlink()
    report.write(place, place.read_experiment(), "test")
    found = read_json(place.report("test") / "report.json")
    assert found["galleries"] == numbers["galleries"]
    assert not any("maps" in x or "reasons" in x for x in found["shown"].values())
    assert not any("reasons" in x for x in found["models"].values())


def test_stale_exhibits_are_refused_and_made_again(place, numbers, catalog_file):
    file = place.exhibits_file("test")
    stored = read_json(file)
    stored["shown"] = {}
    write_json(file, {**stored, "fingerprint": "of older models"})
    settings = place.read_experiment()
    with pytest.raises(RunError, match="--resume --only report"):
        report.write(place, settings, "test")
    assert read_json(file)["fingerprint"] == "of older models"
    catalog = audit.inspect(settings, catalog_file, None, place).catalog
    report.write(place, settings, "test", catalog=catalog)
    assert read_json(place.report("test") / "report.json") == numbers


def test_other_answers_make_exhibits_stale(place):
    settings = place.read_experiment()
    info = read_json(place.model_info_file("policy"))
    numbers = read_json(place.report("test") / "report.json")
    exhibits.add(place, settings, "test", numbers)
    write_json(place.model_info_file("policy"), {**info, "weights": "others"})
    with pytest.raises(RunError, match="stale"):
        exhibits.add(place, settings, "test", numbers)


@pytest.mark.parametrize("content", ["{", "[]", '{"fingerprint": "a"}'])
def test_damaged_exhibits_are_refused_by_name(place, content):
    place.exhibits_file("test").write_text(content)
    numbers = read_json(place.report("test") / "report.json")
    with pytest.raises(RunError, match=r"exhibits\.json: [^\n]*$"):
        exhibits.add(place, place.read_experiment(), "test", numbers)


def test_fresh_exhibits_are_not_made_again(place, monkeypatch, catalog_file):
    settings = place.read_experiment()
    catalog = audit.inspect(settings, catalog_file, None, place).catalog
    monkeypatch.setattr(results, "load_model", None)
    report.write(place, settings, "test", catalog=catalog)


def test_the_border_is_the_outermost_ring():
    grids = np.zeros((3, 4, 5))
    grids[0, 1, 1] = 3.0
    grids[0, 0, 4] = 1.0
    grids[1] = 1.0
    np.testing.assert_allclose(maps.border_share(grids), [0.25, 14 / 20, 0.0])
    of_all = maps.of_grids(grids[:2] / grids[:2].sum(axis=(1, 2), keepdims=True))
    assert of_all["products"] == 2
    assert of_all["border"] == pytest.approx((0.25 + 0.7) / 2)
    assert of_all["expected"] == 0.7


def test_the_strongest_cells_come_first_and_empty_ones_not_at_all():
    grid = np.zeros((4, 4))
    grid[2, 3], grid[0, 1], grid[1, 1] = 0.5, 4.0, 1.0
    told = maps.of_grid(grid)
    assert told["strongest"] == [[0, 1], [1, 1], [2, 3]]
    assert told["grid"][0] == [0.0, 1.0, 0.0, 0.0]
    assert told["grid"][2][3] == 0.125
    assert len(maps.of_grid(np.ones((4, 4)))["strongest"]) == 10
    assert maps.of_grid(np.zeros((4, 4)))["strongest"] == []
