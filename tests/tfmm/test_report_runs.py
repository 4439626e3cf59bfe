import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import EXPERIMENT

from tfmm import calibration, evaluate, experiment, outputs, results
from tfmm.calibration import Calibration
from tfmm.errors import ExperimentError, RunError
from tfmm.report import runs
from tfmm.report.numbers import compute as report_of
from tfmm.report.runs.differing import differing
from tfmm.run import Run, write_json

LABELS = ("lamp", "rug", "shelf", "table")
MODELS = ("title", "image", "product", "policy")
FAR = 4.0  # how much larger the logit of a label that a model gives is


def shop(seed, count=40, task="single_label", labels=LABELS):
    """Products: id -> group, labels."""
    generator = np.random.default_rng(seed)
    most = 1 if task == "single_label" else 2
    return {
        f"P{number:03}": (
            f"G{number // 3}",
            set(generator.choice(labels, generator.integers(1, most + 1), False)),
        )
        for number in range(count)
    }


def answers(products, share_right, seed, labels=LABELS, models=MODELS):
    """Model -> id -> the labels that it gives, as often right as `share_right`."""
    generator = np.random.default_rng(seed)
    return {
        model: {
            name: own
            if generator.random() < share_right
            else {generator.choice(labels)}
            for name, (_, own) in products.items()
        }
        for model in models
    }


def make(
    folder,
    products,
    said,
    *,
    task="single_label",
    labels=LABELS,
    validation_right=dict.fromkeys(MODELS, 1.0),
    elsewhere=None,
    train=6,
    split="test",
    table="t",
    catalog="f",
    overrides=(),
):
    """A run that holds answers of `products` in their order, and of `validation`."""
    folder.parent.mkdir(exist_ok=True)
    file = folder.with_suffix(".toml")
    file.write_text(EXPERIMENT, encoding="utf-8")
    settings = experiment.load(file, [f"catalog.task={task}", *overrides])
    run = Run(folder)
    about = {"path": "", "sha256": table, "fingerprint": catalog}
    run.write_start(settings, [], about)
    run.labels_file.parent.mkdir()
    run.labels_file.write_text("".join(f"{name}\n" for name in labels))
    parts = {
        "train": {f"T{number}": ("g", {labels[0]}) for number in range(train)},
        "validation": {
            f"V{number}": (str(number), {labels[0]}) for number in range(10)
        },
        split: products,
        **(elsewhere or {}),
    }
    for part, own in parts.items():
        targets = np.array([[x in has for x in labels] for _, has in own.values()])
        if task == "single_label":
            targets = targets.argmax(axis=1).astype(np.int32)
        outputs.write_targets(
            run.outputs,
            part,
            targets.astype(np.float32 if task == "multi_label" else np.int32),
            catalog,
        )
        groups = np.array([group for group, _ in own.values()])
        outputs.write_groups(run.outputs, part, groups)
    for model in said:
        write_json(run.model_info_file(model), {"weights": model, "fingerprint": model})
        mark = results.outputs_fingerprint(run, settings, model, catalog)
        right = round(10 * validation_right[model])
        given = {
            "validation": {
                name: {labels[0] if place < right else labels[1]}
                for place, name in enumerate(parts["validation"])
            },
            split: said[model],
        }
        for part, own in parts.items():
            chosen = given.get(part, {name: has for name, (_, has) in own.items()})
            logits = np.array([[x in chosen[name] for x in labels] for name in own])
            batch = {
                "features": np.ones((len(own), 2)),
                "logits": FAR * logits - FAR / 2 - 0.01 * np.arange(len(labels)),
            }
            place = run.outputs / model / part
            present = np.ones(len(own), bool)
            outputs.write(place, mark, np.array(list(own)), present, [batch])
        fitted = Calibration(
            results.calibration_fingerprint(run, settings, model),
            *((1.0,) * len(labels), (0.0,) * len(labels)),
            (0.5 * (task == "multi_label"),) * len(labels),
            1.0,
        )
        calibration.write(run.calibration_file(model), fitted)
    return run, settings


def compare(*made, split="test"):
    named = {run.path.name: (run, settings) for run, settings in made}
    return runs.compute(named, split)


def shuffled(products, seed):
    names = list(products)
    np.random.default_rng(seed).shuffle(names)
    return {name: products[name] for name in names}


def brute_force(products, first, second, task, seed=0, labels=LABELS):
    """top1 and micro-F1 of one model minus another: 2,000 draws of whole groups."""

    def figures(names):
        found = []
        for said in (first, second):
            # The most probable is the first label given, by the order of labels.
            top = [min(said[x], key=labels.index) in products[x][1] for x in names]
            hits = sum(len(said[x] & products[x][1]) for x in names)
            total = sum(len(said[x]) + len(products[x][1]) for x in names)
            found.append((np.mean(top), 2 * hits / total))
        return np.subtract(*found)

    names = sorted(products)
    groups = list(dict.fromkeys(products[x][0] for x in names))
    members = [[x for x in names if products[x][0] == group] for group in groups]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(2_000):
        chosen = generator.integers(len(groups), size=len(groups))
        drawn.append(figures([x for group in chosen for x in members[group]]))
    edges = np.percentile(drawn, (2.5, 97.5), axis=0).T
    return dict(
        zip(("top1", "micro_f1"), zip(figures(names), edges, strict=True), strict=True)
    )


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_paired_intervals_are_those_of_brute_force(tmp_path, task):
    products = shop(0, task=task)
    here, there = dict(list(products.items())[:34]), dict(list(products.items())[5:])
    said = [answers(products, right, seed) for right, seed in ((0.8, 1), (0.6, 2))]
    found = compare(
        make(tmp_path / "a", shuffled(here, 3), said[0], task=task),
        make(tmp_path / "b", shuffled(there, 4), said[1], task=task),
    )
    (pair,) = found["pairs"]
    common = {name: products[name] for name in here if name in there}
    assert pair["products"] == len(common) == 29
    assert pair["groups"] == len({group for group, _ in common.values()})
    assert set(pair["models"]) == set(MODELS)
    for model in ("title", "policy"):
        told = pair["models"][model]
        expected = brute_force(common, said[0][model], said[1][model], task)
        for figure in ("top1", "micro_f1") if task == "multi_label" else ("top1",):
            value, edges = expected[figure]
            assert told[figure] == pytest.approx(value)
            assert told[f"{figure}_interval"] == pytest.approx(list(edges))
            assert told[figure] == pytest.approx(np.subtract(*told[f"{figure}_of"]))
        assert ("micro_f1" in told) == (task == "multi_label")
    assert [run["products"] for run in found["runs"].values()] == [34, 35]


def test_products_are_matched_by_id_whatever_their_order(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1), answers(products, 0.7, 2)
    first = make(tmp_path / "a", products, said[0])
    second = make(tmp_path / "b", products, said[1])
    turned = make(tmp_path / "turned" / "b", shuffled(products, 5), said[1])
    assert compare(first, second)["pairs"] == compare(first, turned)["pairs"]


def test_a_run_against_its_copy_differs_in_nothing(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1)
    found = compare(
        make(tmp_path / "a", products, said),
        make(tmp_path / "b", shuffled(products, 5), said),
    )
    (pair,) = found["pairs"]
    assert (pair["same_table"], pair["same_catalog"]) == (True, True)
    assert {told["top1"] for told in pair["models"].values()} == {0.0}
    assert pair["best"]["top1_interval"] == [0.0, 0.0]
    assert pair["best"]["only"] == [0, 0]
    assert (found["settings"], found["versions"]) == ([], {})
    assert not {"learning_curve", "label_names"} & set(found)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_a_runs_own_figures_are_those_of_its_report(tmp_path, task):
    products = shop(0, task=task)
    right = {"title": 0.9, "image": 0.3, "product": 0.6, "policy": 0.8}
    said = answers(products, 0.7, 1)
    made = make(tmp_path / "a", products, said, task=task, validation_right=right)
    others = answers(products, 0.7, 2)
    own = compare(made, make(tmp_path / "b", products, others, task=task))["runs"]["a"]
    report = report_of(*made, "test")
    assert own["best"] == report["best_head"] == "policy"
    for key in ("products", "labels", "split_products", "ranking"):
        assert own[key] == report[key]
    for name, model in own["models"].items():
        assert model == {key: report["models"][name][key] for key in model}


def test_best_heads_are_those_of_each_runs_own_validation(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1), answers(products, 0.7, 2)
    worse = dict.fromkeys(MODELS, 0.5)
    found = compare(
        make(
            tmp_path / "a", products, said[0], validation_right=worse | {"policy": 0.9}
        ),
        make(
            tmp_path / "b", products, said[1], validation_right=worse | {"product": 0.8}
        ),
    )
    (pair,) = found["pairs"]
    assert pair["best"]["models"] == ["policy", "product"]
    expected, edges = brute_force(products, said[0]["policy"], said[1]["product"], "")[
        "top1"
    ]
    assert pair["best"]["top1"] == pytest.approx(expected)
    assert pair["best"]["top1_interval"] == pytest.approx(list(edges))


def test_without_heads_the_best_towers_are_compared(tmp_path):
    products = shop(0)
    alone = [answers(products, 0.7, seed, models=("title",)) for seed in (1, 2)]
    found = compare(
        make(tmp_path / "a", products, alone[0]),
        make(tmp_path / "b", products, alone[1]),
    )
    assert found["runs"]["a"]["best"] == "title"
    assert found["pairs"][0]["best"] == found["pairs"][0]["models"]["title"]


def test_what_was_learned_from_is_not_compared(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1)
    first = dict(list(products.items())[:20])
    known = {
        "train": dict(list(products.items())[:15]),
        "fusion": {"P015": products["P015"]},
    }
    second = {name: has for name, has in products.items() if name > "P015"}
    found = compare(
        make(tmp_path / "a", first, said),
        make(tmp_path / "b", second, said, elsewhere=known),
    )
    (pair,) = found["pairs"]
    assert pair["products"] == 4
    assert pair["elsewhere"]["a"] == {
        "train": 15,
        "fusion": 1,
        "validation": 0,
        "nowhere": 0,
    }
    assert pair["elsewhere"]["b"] == {"train": 0, "validation": 0, "nowhere": 20}


def test_of_another_file_what_a_run_learned_from_is_left_out(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1)
    known = {"train": dict(list(products.items())[:15])}
    found = compare(
        make(tmp_path / "a", products, said, split="new"),
        make(tmp_path / "b", products, said, split="new", elsewhere=known),
        split="new",
    )
    (pair,) = found["pairs"]
    assert (pair["products"], pair["left_out"]["learned_from"]) == (25, 15)


def test_runs_without_a_product_in_common_are_not_told_apart(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1)
    parts = dict(list(products.items())[:20]), dict(list(products.items())[20:])
    found = compare(
        make(tmp_path / "a", parts[0], said),
        make(tmp_path / "b", parts[1], said, train=9),
    )
    (pair,) = found["pairs"]
    assert pair["products"] == 0
    assert not {"best", "models", "groups"} & set(pair)
    assert "learning_curve" not in found
    assert found["runs"]["b"]["models"]["title"]["top1_interval"]


def test_products_whose_labels_changed_are_left_out(tmp_path):
    products = shop(0)
    moved = dict(products)
    for name in ("P003", "P017"):
        group, (label,) = products[name]
        moved[name] = group, {LABELS[LABELS.index(label) - 1]}
    said = answers(products, 0.7, 1)
    found = compare(
        make(tmp_path / "a", products, said),
        make(tmp_path / "b", shuffled(moved, 2), said, table="u", catalog="g"),
    )
    (pair,) = found["pairs"]
    assert (pair["same_table"], pair["same_catalog"]) == (False, False)
    assert (pair["products"], pair["left_out"]["relabelled"]) == (38, 2)


def test_labels_are_matched_by_name_and_others_do_not_count(tmp_path):
    products = shop(0)
    first = answers(products, 0.7, 1)
    few = ("table", "lamp", "rug")  # in another order, and without shelf
    left = {name: has for name, has in products.items() if has[1] != {"shelf"}}
    second = answers(left, 0.6, 2, labels=few)
    found = compare(
        make(tmp_path / "a", products, first),
        make(tmp_path / "b", left, second, labels=few),
    )
    (pair,) = found["pairs"]
    assert (pair["labels"], pair["products"]) == (3, len(left))
    assert found["label_names"] == {"shared": 3, "others": {"a": ["shelf"], "b": []}}
    # Who says shelf has lamp next, by the order of the first run's labels.
    among = {
        name: said if said != {"shelf"} else {"lamp"}
        for name, said in first["title"].items()
    }
    expected, edges = brute_force(left, among, second["title"], "")["top1"]
    assert pair["models"]["title"]["top1"] == pytest.approx(expected)
    assert pair["models"]["title"]["top1_interval"] == pytest.approx(list(edges))


def test_groups_of_either_run_are_drawn_together():
    from tfmm.report.runs.matching import _joined

    found = _joined([np.array([2, 0, 0, 1, 3]), np.array([0, 1, 2, 2, 3])])
    assert found.tolist() == [0, 1, 1, 1, 2]
    assert _joined([np.zeros(0, int), np.zeros(0, int)]).tolist() == []


def test_a_learning_curve_rises_with_the_training_products(tmp_path):
    products = shop(0)
    said = {
        train: answers(products, right, train)
        for train, right in ((60, 0.9), (6, 0.3), (20, 0.6))
    }
    made = [
        make(tmp_path / f"on_{train}", shuffled(products, train), own, train=train)
        for train, own in said.items()
    ]
    curve = compare(*made)["learning_curve"]
    assert (curve["products"], curve["groups"]) == (40, 14)
    title = curve["models"]["title"]
    assert title["train"] == [6, 20, 60]
    assert title["runs"] == ["on_6", "on_20", "on_60"]
    right = [
        np.mean([said[train]["title"][x] == products[x][1] for x in products])
        for train in (6, 20, 60)
    ]
    assert title["top1"] == pytest.approx(right)
    value, edges = brute_force(products, said[60]["title"], said[6]["title"], "")[
        "top1"
    ]
    assert title["gain_top1"] == pytest.approx(value)
    assert title["gain_top1_interval"] == pytest.approx(list(edges))
    for value, (low, high) in zip(title["top1"], title["top1_interval"], strict=True):
        assert low <= value <= high


def test_settings_that_differ_are_listed_key_by_key(tmp_path):
    file = tmp_path / "e.toml"
    file.write_text(EXPERIMENT, encoding="utf-8")
    plain = experiment.load(file)
    other = experiment.load(file, ["seed=3", "towers.title.filters=5"])
    file.write_text(EXPERIMENT.split("[heads.policy]")[0], encoding="utf-8")
    fewer = experiment.load(file, ["heads.product.model='max'"])
    assert differing({"a": plain, "b": plain}) == []
    assert differing({"a": plain, "b": other}) == [
        {"key": "seed", "values": {"a": 0, "b": 3}},
        {"key": "towers.title.filters", "values": {"a": 4, "b": 5}},
    ]
    # A head that one lacks is one line; so is a namesake of another builder.
    assert differing({"a": plain, "c": fewer}) == [
        {"key": "heads.product.model", "values": {"a": "product", "c": "max"}},
        {"key": "heads.policy", "values": {"a": "policy_network"}},
        {"key": "export.head", "values": {"a": "policy"}},
        {"key": "export.top_k", "values": {"a": 2}},
    ]


def refusal(kind, *paths, **options):
    with pytest.raises(kind) as caught:
        evaluate.evaluate(list(paths), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1)
    to = tmp_path / "page"
    run, _ = make(tmp_path / "a", products, said)
    several, _ = make(tmp_path / "m", products, said, task="multi_label")
    names = ("north", "south")
    strange = {x: (g, {"north"}) for x, (g, _) in products.items()}
    far = answers(strange, 0.7, 1, labels=names)
    foreign, _ = make(tmp_path / "f", strange, far, labels=names)
    found = refusal(ExperimentError, run.path, several.path, to=to)
    assert found.startswith(f"{several.path}: expected the task of {run.path}")
    assert "'single_label'. Received: 'multi_label'" in found
    found = refusal(RunError, run.path, foreign.path, to=to)
    assert "at least 2 labels in common, by name. Received: 0" in found
    assert "need --to" in refusal(ExperimentError, run.path, foreign.path)
    again = tmp_path / "a" / "."
    assert "each run once" in refusal(RunError, run.path, again, to=to)
    options = {"to": to, "name": "new", "catalog": tmp_path / "c.csv"}
    found = refusal(ExperimentError, run.path, several.path, **options)
    assert "--catalog, --images and --name measure one run" in found
    found = refusal(RunError, run.path, tmp_path / "nothing", to=to)
    assert "no such folder" in found
    found = refusal(RunError, run.path, foreign.path, to=to, split="tets")
    assert "did you mean 'test'?" in found
    assert not to.exists()


def test_damaged_outputs_stop_a_comparison(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1)
    first, second = (make(tmp_path / x, products, said)[0] for x in "ab")
    (second.outputs / "policy" / "test" / "logits.npy").write_bytes(b"damaged")
    found = refusal(RunError, first.path, second.path, to=tmp_path / "page")
    assert str(second.outputs / "policy" / "test") in found
    assert not (tmp_path / "page").exists()


def test_runs_of_the_same_name_are_called_by_their_paths(tmp_path):
    paths = [tmp_path / x / "run" for x in ("a", "b")]
    assert runs.names(paths) == [str(path) for path in paths]
    assert runs.names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def page(folder, *made, **options):
    """What a reader of the page reads, with one space between words."""
    to = folder / "page"
    evaluate.evaluate([run.path for run, _ in made], to=to, **options)
    numbers = json.loads((to / "comparison.json").read_text(encoding="utf-8"))
    return numbers, text((to / "index.html").read_text(encoding="utf-8"))


def text(html):
    body = html.split("</style>")[1].split("<script>")[0].replace("\u00a0", " ")
    return " ".join(re.sub("<[^>]*>", " ", body).split())


def test_the_page_says_which_run_is_better(tmp_path, capsys):
    products = shop(0)
    first = make(tmp_path / "a", products, answers(products, 0.2, 1))
    second = make(tmp_path / "b", products, answers(products, 0.9, 2))
    numbers, said = page(tmp_path, first, second)
    assert capsys.readouterr().out == f"{tmp_path / 'page' / 'index.html'}\n"
    best = numbers["pairs"][0]["best"]
    assert best["top1_interval"][1] < 0
    gain = f"{-100 * best['top1']:.1f} points of top-1 on the 40 products"
    assert f"product of b is better than product of a by {gain}" in said
    _, turned = page(tmp_path / "turned", second, first)
    assert f"product of b is better than product of a by {gain}" in turned
    copy = make(tmp_path / "c", products, answers(products, 0.2, 1))
    _, said = page(tmp_path / "copies", first, copy)
    assert "product of a and product of c are not told apart on the 40 products" in said
    assert "The experiments are the same, key by key." in said


def test_the_page_of_three_runs_counts_pairs(tmp_path):
    products = shop(0)
    made = [
        make(tmp_path / name, products, answers(products, right, 1), train=train)
        for name, right, train in (("a", 0.2, 3), ("b", 0.9, 30), ("c", 0.9, 40))
    ]
    _, said = page(tmp_path, *made)
    assert "3 runs make 3 pairs. In 2 of them one best model is better" in said
    assert "in 1 they are not told apart." in said
    assert "Top-1 over training products" in said
    assert "Model 3 (a) 30 (b) 40 (c) Gain in top-1" in said


def test_the_page_says_why_there_are_no_intervals(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1)
    first, second = dict(list(products.items())[:15]), dict(list(products.items())[15:])
    known = {"train": first}
    made = (
        make(tmp_path / "a", first, said),
        make(tmp_path / "b", second, said, elsewhere=known, catalog="g", table="u"),
    )
    _, found = page(tmp_path, *made)
    assert "No two runs can be compared on “test”" in found
    assert "no product can be compared, so there are no differences" in found
    assert "the catalogs are different files" in found
    assert "15 products of test of a do not count (15 are in train of b)" in found
    assert "25 products of test of b do not count (25 are not in a at all)" in found
    assert "not told apart" not in found


def test_the_page_names_labels_that_not_all_have(tmp_path):
    products = shop(0)
    left = {x: has for x, has in products.items() if has[1] != {"shelf"}}
    few = ("table", "lamp", "rug")
    _, found = page(
        tmp_path,
        make(tmp_path / "a", products, answers(products, 0.7, 1)),
        make(tmp_path / "b", left, answers(left, 0.6, 2, labels=few), labels=few),
    )
    assert "3 are in all of them; a has 1 others (shelf)" in found


def test_everything_on_the_page_is_escaped(tmp_path):
    products = shop(0)
    said = answers(products, 0.7, 1)
    labels = ("<i>lamp", "rug", "shelf", "table")
    first = make(tmp_path / "<b>a", products, said)
    renamed = {
        x: (g, {label.replace("lamp", "<i>lamp") for label in has})
        for x, (g, has) in products.items()
    }
    given = answers(renamed, 0.7, 1, labels=labels)
    second = make(tmp_path / "<b>b", renamed, given, labels=labels, train=9)
    third = make(tmp_path / "c", products, said, overrides=["catalog.id=<u>"])
    page(tmp_path, first, second, third)
    html = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    for tag in ("<b>a", "<b>b", "<i>", "<u>"):
        assert tag not in html
        assert tag.replace("<", "&lt;").replace(">", "&gt;") in html


def test_same_runs_give_the_same_bytes(tmp_path):
    products = shop(0)
    made = [
        make(tmp_path / x, products, answers(products, 0.7, n), train=n)
        for x, n in (("a", 2), ("b", 3))
    ]
    written = []
    for again in ("first", "second"):
        page(tmp_path / again, *made)
        folder = tmp_path / again / "page"
        written.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"comparison.json", "index.html"}


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1300])
def test_the_page_opens_without_an_error_and_never_scrolls_sideways(tmp_path, width):
    playwright = pytest.importorskip("playwright.sync_api", reason="extra [browser]")
    products = shop(0)
    made = [
        make(tmp_path / name, products, answers(products, right, 1), train=train)
        for name, right, train in (("a" * 80, 0.2, 3), ("b", 0.9, 30), ("c", 0.9, 40))
    ]
    page(tmp_path, *made)
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        opened = browser.new_page(viewport={"width": width, "height": 900})
        errors = []
        opened.on("console", lambda x: errors.append(x.text))
        opened.on("pageerror", lambda x: errors.append(str(x)))
        opened.goto((tmp_path / "page" / "index.html").as_uri())
        across = "document.documentElement.scrollWidth - window.innerWidth"
        assert opened.evaluate(across) <= 0
        table = opened.locator("#best table").first
        table.get_by_role("button", name="Difference in top-1").click()
        cells = table.locator("tbody td:nth-child(5)").evaluate_all(
            "cells => cells.map((x) => Number(x.dataset.order))"
        )
        assert cells == sorted(cells, reverse=True)
        assert len(set(cells)) > 1
        browser.close()
    assert not errors


def test_everything_is_in_the_docs(tmp_path):
    products = shop(0, task="multi_label")
    few = LABELS[:3]
    left = {
        x: (g, has & set(few)) for x, (g, has) in products.items() if has & set(few)
    }
    first = make(
        tmp_path / "a", products, answers(products, 0.7, 1), task="multi_label"
    )
    second = make(
        *(tmp_path / "b", left, answers(left, 0.6, 2, labels=few)),
        task="multi_label",
        labels=few,
        train=9,
        overrides=["towers.title.filters=5"],
    )
    found = compare(first, second)
    text = (Path(__file__).resolve().parents[2] / "docs" / "report.md").read_text(
        "utf-8"
    )
    text = text.split("## Comparing runs")[1].split("\n## ")[0]
    curve, (pair,) = found["learning_curve"], found["pairs"]
    keys = {*found, *found["settings"][0], *found["label_names"], *curve, *pair}
    keys |= {*curve["models"]["title"], *pair["best"], *pair["left_out"]}
    keys |= set(found["runs"]["a"]) - {"products", "labels"}
    assert not [key for key in sorted(keys) if f"`{key}`" not in text]
