import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from report_pages import (
    EVIL,
    attributes,
    cases,
    exhibits,
    misfiled,
    models,
    numbers_of,
    page_of,
    said,
    sureness,
    tables,
    text,
)

from tfmm.page import Picture, drawing


@pytest.fixture
def plain(monkeypatch):
    """For tests of words and tables alone: no picture is drawn, which takes longest."""

    def picture(key, about, paint, title="", **size):
        return Picture("", about, title)

    monkeypatch.setattr(drawing, "picture", picture)


def page(folder, models, task="single_label", split="test"):
    numbers = numbers_of(models, task, split)
    return numbers, page_of(numbers, folder)


def names(html, title):
    """The first cells of a table, without what stands small below them."""
    return [row[0].split()[0] for row in tables(html)[title][1:]]


def sections(html):
    return re.findall('<section id="([a-z]+)"', html)


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_page_names_the_best_head_on_validation_first(tmp_path, task):
    numbers, html = page(tmp_path, models(task), task)
    figure, end = ("micro_f1", "_micro_f1") if task == "multi_label" else ("top1", "")
    best = numbers["models"]["policy"]
    title = "micro-F1" if task == "multi_label" else "top-1"
    gain = f"{100 * best[f'gain{end}']:+.1f}".replace("-", "\u2212")
    assert (
        f"Best head on validation: policy. Here {title} {100 * best[figure]:.1f} %: "
        f"{gain} points over its best tower, "
        f"{best[f'best_tower{end}']} (95 % interval "
    ) in text(html)
    assert names(html, "Models") == ["title", "image", "policy", "product"]
    assert html.count('class="marked"') >= 3
    assert "head_builder; best head on validation" in html
    assert [x.name for x in tmp_path.iterdir()] == ["index.html"]


def test_five_figures_at_the_top_say_what_to_decide_by(tmp_path, plain):
    numbers = numbers_of(models(**cases(), held_out=sureness()))
    numbers["misfiled"] = misfiled()
    numbers["modalities"] = {"title": "text", "image": "image"}
    html = page_of(numbers, tmp_path)
    top = html.split('<ul class="counts">')[1].split("</ul>")[0]
    tiles = [text(x) for x in top.split("</li>")[:-1]]
    best = numbers["models"]["policy"]
    whole = best["image_gain"]["all"]
    filed = next(x for x in best["coverage"]["wanted"] if x["precision"] == 0.95)
    assert tiles[0].startswith(f"{100 * best['top1']:.1f} % top-1 of policy")
    assert f"points over {best['best_tower']}, its best tower" in tiles[1]
    assert f"{whole['gained']} right only with it, {whole['lost']} only" in tiles[2]
    low, high = best["leave_one_out"]["image"]["top1_interval"]
    edges = f"{100 * low:+.1f} to {100 * high:+.1f}".replace("-", "\u2212")
    assert edges.replace("+0.0", "0.0") in tiles[2]
    assert filed["threshold"] == pytest.approx(0.05)
    expected = f"{100 * filed['filed']:.1f} % may be filed automatically at 95 % prec"
    assert tiles[3].startswith(expected)
    assert "those 0.05 sure or more" in tiles[3]
    assert tiles[4].startswith("4 listings look misfiled of 2,000 judged; 9 are")
    assert '<a href="misfiled.html">' in top


def test_what_cannot_be_told_apart_is_not_called_a_gain(tmp_path, plain):
    numbers = numbers_of(models(held_out=sureness(right=0.1)))
    numbers["models"]["policy"] |= {"gain": 0.01, "gain_interval": [-0.02, 0.04]}
    html = page_of(numbers, tmp_path)
    best = numbers["models"]["policy"]["best_tower"]
    assert f"2.0 to +4.0: not told apart from {best} alone" in text(html)
    assert "0 % may be filed automatically at 95 % precision no certainty" in text(html)
    assert "misfiled.html" not in html


def test_the_page_tells_what_heads_were_fitted_on(tmp_path, plain):
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


def test_the_page_shows_heads_with_modalities_missing(tmp_path, plain):
    numbers, html = page(tmp_path, models(**cases()))
    whole = numbers["models"]["policy"]["top1"]
    assert tables(html)["When modalities are missing"] == [
        ["Head", "all", "without image", "without title"],
        ["policy", f"{100 * whole:.1f}", "33.3", "33.3"],
    ]
    _, html = page(tmp_path, models())
    assert "images" not in sections(html)


def test_the_page_compares_the_best_heads_and_tells_who_is_right(tmp_path, plain):
    numbers, html = page(tmp_path, models())
    assert names(html, "The best heads against each other") == ["policy"]
    assert "against product" in html
    found = tables(html)["Who is right"]
    assert [row[0] for row in found[1:]] == ["products", "policy", "product"]
    changed = [numbers["models"]["policy"][x] for x in ("rescued", "broken_by_fusion")]
    cells = [f"{x['products']} {100 * x['share']:.1f} %" for x in changed]
    assert found[2][-2:] == cells


def test_many_towers_show_six_pairs_of_fifteen(tmp_path, plain):
    towers = {f"tower_{i}": said("tower", i, 0.1 * i, towers=()) for i in range(6)}
    numbers, html = page(tmp_path, towers)
    assert len(numbers["groups"]) == 15
    shown = [x for x in re.findall("<summary>([^<]*)</summary>", html) if " / " in x]
    assert len([x for x in shown if "Label by label" not in x]) == 6
    assert not [pair for pair in shown if "tower_0" in pair or "tower_1" in pair]
    assert "all 15 pairs" in html


def test_without_heads_the_best_tower_is_named(tmp_path, plain):
    alone = {"title": said("tower", 0, 0.6, towers=("title",))}
    numbers, html = page(tmp_path, alone)
    figure = f"{100 * numbers['models']['title']['top1']:.1f} %"
    assert f"Best tower on validation: title. Here top-1 {figure}." in text(html)
    assert "against each other" not in html
    expected = ["models", "automation", "labels", "confusion", "measures"]
    assert sections(html) == [*expected, "calibration"]


def test_without_figures_of_validation_nothing_is_called_the_best(tmp_path, plain):
    unranked = {name: replace(x, validation=None) for name, x in models().items()}
    numbers, html = page(tmp_path, unranked)
    assert "best_head" not in numbers
    assert "none is called the best" in html
    assert 'class="marked"' not in html


def test_every_label_has_a_row_and_the_most_missed_is_first(tmp_path, plain):
    numbers, html = page(tmp_path, models(**cases()))
    own = numbers["models"]["policy"]["per_label"]
    tower = numbers["models"]["title"]["per_label"]
    gain = numbers["models"]["policy"]["image_gain"]
    found = tables(html)["Every label"]
    columns = ["Label", "Products", "In training", "Missed by policy", "Precision"]
    columns += ["Recall", "F1", "title: recall", "F1", "No tower", "Image"]
    assert found[0] == [*columns, "p, adjusted"]
    missed = [int(row[3]) for row in found[1:]]
    assert missed == sorted(missed, reverse=True)

    def share(value):
        return "" if value is None else f"{100 * value:.1f}"

    for row in found[1:]:
        label = numbers["label_names"].index(row[0])
        assert row[1:4] == ["4", str(30 - 10 * label), str(4 - own["found"][label])]
        figures = [share(own[x][label]) for x in ("precision", "recall", "f1")]
        figures += [share(tower[x][label]) for x in ("recall", "f1")]
        assert row[4:9] == figures
        assert row[9] == str(numbers["towers_found"]["none"][label])
        value = f"{100 * gain['recall'][label]:+.1f}".replace("-", "\u2212")
        assert row[10] == value.replace("+0.0", "0.0")


def test_the_worst_labels_stand_side_by_side_with_what_is_missed(tmp_path, plain):
    numbers, html = page(tmp_path, models())
    found = tables(html)["The worst labels by how many are missed"]
    assert found[0] == ["Rank", "title", "image", "No tower right", "policy", "product"]
    for column, name in ((1, "title"), (4, "policy")):
        model = numbers["models"][name]
        for rank, label in enumerate(model["worst"]["by_count"]):
            missed = 4 - model["per_label"]["found"][label]
            label_name = numbers["label_names"][label]
            assert found[rank + 1][column] == f"{label_name} {missed} / 4"
    first = numbers["worst_labels"]["by_count"][0]
    missed = numbers["towers_found"]["none"][first]
    assert found[1][3] == f"{numbers['label_names'][first]} {missed} / 4"


def test_automation_has_a_row_for_each_wanted_precision(tmp_path, plain):
    numbers, html = page(tmp_path, models(held_out=sureness(right=0.4)))
    found = tables(html)["What may be filed at each wanted precision"]
    wanted = numbers["models"]["policy"]["coverage"]["wanted"]
    assert [row[0] for row in found[1:]] == ["90 %", "95 %", "98 %", "99 %"]
    for row, expected in zip(found[1:], wanted, strict=True):
        least = expected["threshold"]
        assert row[1].split()[0] == ("none" if least is None else f"{least:.3f}")
        assert row[2] == f"{100 * expected['filed']:.1f}"
        assert row[-1] == f"{100 * expected['person']:.1f}"


def test_labels_that_are_paths_tell_how_near_errors_are(tmp_path, plain):
    paths = ("home > lamp", "home > rug", "bed")
    numbers = numbers_of(models(), names=paths)
    html = page_of(numbers, tmp_path)
    found = tables(html)["How near the wrong answers are"]
    missed = numbers["models"]["policy"]["within_parent"]["missed"]
    row = next(row for row in found if row[0] == "policy")
    assert row[1] == str(missed["products"])
    assert row[2].endswith(f" {missed['inside']}")


def test_learning_curves_are_drawn_of_trained_models(tmp_path):
    log = {
        "epoch": [0, 1, 2],
        "stage": [0, 1, 2],
        "train_loss": [None, 2.0, 1.0],
        "loss": [3.0, 2.0, None],
        "top1": [0.1, 0.5, 0.6],
        "micro_f1": [0.1, 0.5, 0.6],
        "macro_f1": [0.1, 0.4, 0.5],
    }
    about = {"learning": log, "best_epoch": 2, "epochs": 2, "parameters": 1234567}
    _, html = page(tmp_path, models(about=about))
    assert html.count("Loss and measures of ") == 1
    assert "Loss and measures of policy over 3 epochs" in html
    assert "1,234,567" in html
    _, html = page(tmp_path, models())
    assert "learning" not in sections(html)


def test_every_section_is_in_the_contents_and_says_what_it_tells(tmp_path, plain):
    numbers = exhibits(numbers_of(models(**cases())))
    html = page_of(numbers | {"misfiled": misfiled()}, tmp_path)
    contents = html.split('<nav class="contents"')[1].split("</nav>")[0]
    assert re.findall('href="#([a-z]+)"', contents) == sections(html)
    assert len(sections(html)) == 11
    assert all(
        re.search(rf'<section id="{x}"[^>]*>\s*<h2[^>]*>[^<]+</h2>\s*<p[^>]*>\w', html)
        for x in sections(html)
    )


def test_everything_on_the_page_is_escaped(tmp_path):
    evil = {
        f"{EVIL}title": said("tower", 0, 0.6, towers=(f"{EVIL}title",)),
        "<b>image": said("tower", 1, 0.5, towers=("<b>image",)),
        "<b>head": said(
            "head", 2, 0.7, towers=(f"{EVIL}title",), fit_on=("<u>",), **cases()
        ),
        '"><i>other': said("head", 3, 0.6, towers=("<b>image",)),
    }
    labels = (EVIL, "</svg><b>$x$", '" onload="alert(1)')
    numbers = exhibits(numbers_of(evil, split="<i>&", names=labels), text=EVIL)
    numbers["misfiled"] = misfiled(text=EVIL)
    html = page_of(numbers, tmp_path)
    for tag in ("<b>$", "<b>image", "<b>head", "<i>", "<u>", "</svg><b"):
        assert tag not in html
    # The page's own script alone.
    assert html.count("<script") == html.count("</script>") == 1
    assert "&lt;i&gt;&amp;" in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 20
    assert "onload" in text(html)
    assert "onload" not in attributes(html)


def test_the_page_asks_for_no_other_file_and_runs_no_other_script(tmp_path):
    numbers = exhibits(numbers_of(models(**cases())))
    html = page_of(numbers | {"misfiled": misfiled()}, tmp_path)
    links = set(re.findall(r'(?:src|href)="(?!data:|#)([^"]*)"', html))
    assert links == {"misfiled.html", "misfiled.csv"}
    assert "default-src 'none'; img-src data:" in html
    assert "unsafe-eval" not in html
    assert not re.findall(r"url\((?!#)", html)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_same_numbers_give_the_same_bytes(tmp_path):
    numbers = exhibits(numbers_of(models("multi_label"), "multi_label"))
    assert page_of(numbers, tmp_path / "a") == page_of(numbers, tmp_path / "b")


def test_a_picture_takes_the_colours_of_the_page_and_keeps_its_words():
    def paint(axes):
        axes.plot([0, 1], [0, 1], color=drawing.GREEN, label="a<b> & $x$ 日本")
        axes.text(0.5, 0.5, EVIL)
        axes.legend()

    found = drawing.picture("one", "about", paint)
    root = ElementTree.fromstring(found.svg)
    words = [x.text for x in root.iter() if x.tag.endswith("text")]
    assert "a<b> & $x$ 日本" in words
    assert EVIL in words
    assert "currentColor" in found.svg
    assert drawing.INK not in found.svg
    assert drawing.GREEN in found.svg
    assert not [x for x in root.iter() if x.tag.endswith(("style", "metadata"))]
    other = drawing.picture("two", "about", paint)
    ids = [set(re.findall(' id="([^"]+)"', x.svg)) for x in (found, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
