import re
from dataclasses import replace

import numpy as np
import pytest

from tfmm import metrics
from tfmm.report.numbers import Catalogued, Said, measure
from tfmm.report.page import draw

PRODUCTS, LABELS = 12, 3
TARGETS = np.arange(PRODUCTS) % LABELS
TOWERS = ("title", "image")


def said(kind, seed, top1, task="single_label", towers=TOWERS, **more):
    generator = np.random.default_rng(seed)
    probabilities = metrics.probabilities(
        task, generator.normal(size=(PRODUCTS, LABELS))
    )
    return Said(
        kind,
        f"{kind}_builder",
        towers,
        probabilities,
        metrics.assigned(task, probabilities, np.full(LABELS, 0.5)),
        np.ones(PRODUCTS, bool),
        validation={"top1": top1, "micro_f1": top1, "loss": 1.0},
        **more,
    )


def models(task="single_label", **more):
    return {
        "title": said("tower", 0, 0.6, task, ("title",)),
        "image": said("tower", 1, 0.5, task, ("image",)),
        "product": said("head", 2, 0.7, task, fit_on=("fusion",)),
        "policy": said("head", 3, 0.8, task, **more),
    }


def page(folder, models, task="single_label", split="test"):
    targets = TARGETS
    if task == "multi_label":
        targets = metrics.one_hot(TARGETS, LABELS).astype(np.float32)
    folder.mkdir(exist_ok=True)
    about = Catalogued(split, task, ("lamp", "rug", "table"), " > ")
    numbers = measure(about, targets, np.arange(PRODUCTS), 0, models)
    draw(numbers, folder)
    return numbers, (folder / "index.html").read_text(encoding="utf-8")


def text(html):
    """What a reader reads, with one space between words."""
    plain = re.sub("<[^>]*>", " ", html.replace("\u00a0", " "))
    return " ".join(plain.split())


def rows(html, title):
    """The first cells of the table under a heading."""
    part = html.split(f"<h2>{title}</h2>")[1].split("</table>")[0]
    return re.findall(r"<tr[^>]*><td[^>]*>([^<]*)", part)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_page_names_the_best_head_on_validation_first(tmp_path, task):
    numbers, html = page(tmp_path, models(task), task)
    figure, end = ("micro_f1", "_micro_f1") if task == "multi_label" else ("top1", "")
    best = numbers["models"]["policy"]
    title = "micro-F1" if task == "multi_label" else "top-1"
    assert (
        f"Best head on validation: policy. Here {title} {100 * best[figure]:.1f} %: "
        f"{100 * best[f'gain{end}']:+.1f} points over its best tower, "
        f"{best[f'best_tower{end}']} (95 % interval "
    ) in text(html)
    assert rows(html, "Models") == ["title", "image", "policy", "product"]
    assert html.count('class="marked"') >= 3
    assert "head_builder; best head on validation" in html
    assert (tmp_path / "top1.png").exists()
    assert (tmp_path / "micro_f1.png").exists() is (task == "multi_label")


def test_the_page_tells_what_heads_were_fitted_on(tmp_path):
    _, html = page(tmp_path, models(fit_on=("train",)))
    assert "its towers were trained on those products" in html
    _, html = page(tmp_path, models(fit_on=("fusion", "train_oof")))
    assert "fusion, train_oof" in html
    assert "answers of towers that were not trained on the product" in html
    assert "its towers were trained on those products" not in html
    own = {"fit_on": ("validation",), "ranked_on_own_products": True}
    numbers, html = page(tmp_path, models(**own))
    assert numbers["ranking"][0] == "policy"
    assert "fitted on products of it" in html
    assert "Best head on validation: product. Here top-1 " in text(html)
    alone = models(**own)
    del alone["product"]
    _, html = page(tmp_path, alone)
    assert "Best tower on validation: title. Here top-1 " in text(html)


def test_the_page_shows_heads_with_modalities_missing(tmp_path):
    half = np.tile([[0.6, 0.3, 0.1]], (PRODUCTS, 1))
    given = metrics.assigned("single_label", half, np.zeros(LABELS))
    cases = {"without_image": (half, given), "only_image": (half, given)}
    numbers, html = page(tmp_path, models(cases=cases))
    assert rows(html, "When modalities are missing") == ["policy"]
    whole = numbers["models"]["policy"]["top1"]
    expected = "Head all without image only image policy "
    assert f"{expected}{100 * whole:.1f} 33.3 33.3 " in text(html)
    _, html = page(tmp_path, models())
    assert "When modalities are missing" not in html


def test_the_page_compares_the_best_heads_and_tells_who_is_right(tmp_path):
    numbers, html = page(tmp_path, models())
    assert rows(html, "The best heads against each other") == ["policy"]
    assert "against product" in html
    assert rows(html, "Who is right") == ["products", "policy", "product"]
    changed = [numbers["models"]["policy"][x] for x in ("rescued", "broken_by_fusion")]
    cells = [f"{x['products']} {100 * x['share']:.1f} %" for x in changed]
    assert " ".join(cells) in text(html)


def test_many_towers_show_six_pairs_of_fifteen(tmp_path):
    towers = {f"tower_{i}": said("tower", i, 0.1 * i, towers=()) for i in range(6)}
    numbers, html = page(tmp_path, towers)
    assert len(numbers["groups"]) == 15
    shown = re.findall("<summary>([^<]*)</summary>", html)
    assert len(shown) == 6
    assert not [pair for pair in shown if "tower_0" in pair or "tower_1" in pair]
    assert "all 15 pairs" in html


def test_without_heads_the_best_tower_is_named(tmp_path):
    alone = {"title": said("tower", 0, 0.6, towers=("title",))}
    numbers, html = page(tmp_path, alone)
    figure = f"{100 * numbers['models']['title']['top1']:.1f} %"
    assert f"Best tower on validation: title. Here top-1 {figure}." in text(html)
    assert "against each other" not in html
    assert "Who is right" not in html
    assert not (tmp_path / "groups.png").exists()


def test_without_figures_of_validation_nothing_is_called_the_best(tmp_path):
    plain = {name: replace(x, validation=None) for name, x in models().items()}
    numbers, html = page(tmp_path, plain)
    assert "best_head" not in numbers
    assert "none is called the best" in html
    assert 'class="marked"' not in html


def test_everything_on_the_page_is_escaped(tmp_path):
    cases = {"without_<i>": (np.eye(3)[TARGETS], np.eye(3)[TARGETS] > 0)}
    evil = {
        "<b>title": said("tower", 0, 0.6, towers=("<b>title",)),
        "<b>image": said("tower", 1, 0.5, towers=("<b>image",)),
        "<b>head": said(
            "head", 2, 0.7, towers=("<b>title",), cases=cases, fit_on=("<u>",)
        ),
        "<b>other": said("head", 3, 0.6, towers=("<b>image",)),
    }
    _, html = page(tmp_path, evil, split="<script>&")
    for tag in ("<b>", "<i>", "<u>", "<script>"):
        assert tag not in html
    assert "&lt;script&gt;&amp;" in html
    assert "&lt;b&gt;head" in html


def test_same_numbers_give_the_same_bytes(tmp_path):
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        page(folder, models("multi_label"), "multi_label")
        written.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {"index.html", "top1.png", "micro_f1.png", "groups.png"}
