"""Galleries, explanations and what they do without files or numbers."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from report_pages import (
    cases,
    exhibits,
    misfiled,
    models,
    numbers_of,
    page_of,
    tables,
    text,
)

from tfmm.page import Picture, drawing
from tfmm.report.page.galleries import DARKEST, shade


@pytest.fixture
def plain(monkeypatch):
    """For tests of words and tables alone: no picture is drawn."""

    def picture(key, about, paint, title="", **size):
        return Picture("", about, title)

    monkeypatch.setattr(drawing, "picture", picture)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 256, (200, 150, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


def test_a_gallery_shows_pictures_texts_and_answers_with_ticks(tmp_path, photo, plain):
    numbers = exhibits(numbers_of(models()), photo, products=2)
    html = page_of(numbers, tmp_path / "page")
    # Beside each picture a map over the same.
    assert html.count('alt="image of P') == 4
    assert html.count('class="shade"') == 4
    assert html.count("data:image/jpeg;base64,") == 8
    gallery = text(html.split('<section id="galleries"')[1].split("</details>")[0])
    assert "Missed: lamp 0 (2 of 345) Products that no model finds." in gallery
    assert "a red shoe Filed under lamp image" not in gallery
    assert "Filed under lamp title rug 62.5 , ✓ lamp 25.0 image rug 62.5" in gallery
    assert "Why policy says rug" not in gallery
    assert "Why product says rug: title \u221250.0 image \u221250.0" in gallery
    assert "image goes by for rug" in gallery


def test_maps_lie_over_the_picture_and_frame_the_strongest_cells(
    tmp_path, photo, plain
):
    numbers = exhibits(numbers_of(models()), photo, galleries=1, products=1, cells=3)
    html = page_of(numbers, tmp_path / "page")
    assert '<svg viewBox="0 0 3 3" preserveAspectRatio="none"' in html
    assert re.findall(r'<rect x="(\d)" y="(\d)"', html) == [("1", "3")]


def test_a_map_darkens_what_counts_little():
    encoded = shade(np.array([[1.0, 0.0], [0.5, 0.25], [0.0, 0.0]]))
    content = base64.b64decode(encoded.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (2, 3)
        dark = [image.getpixel(x)[1] for x in ((0, 0), (1, 0), (0, 1))]
    assert dark == [0, DARKEST, round(DARKEST / 2)]


def test_a_file_that_is_gone_gives_no_picture(tmp_path, plain):
    numbers = exhibits(numbers_of(models()), str(tmp_path / "gone.png"))
    html = page_of(numbers, tmp_path)
    assert "<img" not in html
    assert "a red shoe" in html


def test_without_galleries_there_is_no_such_section(tmp_path, plain):
    html = page_of(numbers_of(models()), tmp_path)
    assert 'id="galleries"' not in html
    assert "--resume --only report does it for those of test" in text(html)


def test_reasons_are_shares_of_what_towers_do(tmp_path, plain):
    numbers = exhibits(numbers_of(models(**cases())))
    found = tables(page_of(numbers, tmp_path))["Which tower heads listen to"]
    assert found == [
        ["Head", "title", "image", "together", "Products"],
        [
            "policy leaving a tower out",
            "75.0 30.0 points",
            "25.0 10.0 points",
            "",
            "50",
        ],
        ["product SHAP values", "37.5 0.30", "12.5 0.10", "50.0 0.40", "50"],
        [
            "product leaving a tower out",
            "80.0 20.0 points",
            "20.0 5.0 points",
            "",
            "50",
        ],
    ]


def test_attention_on_the_border_is_held_against_an_even_spread(tmp_path, plain):
    html = page_of(exhibits(numbers_of(models())), tmp_path)
    expected = ["image", "41.0", "75.0", "9"]
    assert tables(html)["Attention on the border"][1] == expected


def test_features_are_drawn_of_each_tower(tmp_path):
    numbers = exhibits(numbers_of(models()))
    html = page_of(numbers, tmp_path)
    assert html.count("in two dimensions, by which towers are right") == 2
    assert html.count("only this one (5)") == 2


def test_the_first_misfiled_listings_are_on_the_page(tmp_path, plain):
    numbers = numbers_of(models())
    assert "misfiled" not in page_of(numbers, tmp_path)
    html = page_of(numbers | {"misfiled": misfiled()}, tmp_path)
    found = tables(html)["The first 1 listings that look misfiled"]
    assert found[1] == ["P1 test", "lamp", "rug", "7.2", "a red shoe"]
    assert '<a href="misfiled.csv">' in html


def test_two_hundred_labels_with_all_galleries_are_under_ten_megabytes(tmp_path, photo):
    made = numbers_of(models(**cases()))
    numbers = wide(exhibits(made, photo, galleries=12, cells=14), 200)
    html = page_of(numbers | {"misfiled": misfiled()}, tmp_path / "page")
    assert html.count('class="shade"') == 144
    assert len(html.encode()) < 10_000_000


def test_a_thousand_labels_make_a_page_of_a_few_megabytes(tmp_path, plain):
    numbers = wide(numbers_of(models(**cases())), 1000)
    html = page_of(numbers, tmp_path)
    assert len(tables(html)["Every label"]) == 1001
    assert len(html.encode()) < 3_000_000


def wide(numbers, num_labels):
    """The same numbers with the arrays of so many labels."""
    counts = np.random.default_rng(0).integers(1, 90, num_labels).tolist()

    def repeat(arrays):
        return {
            key: [values[x % len(values)] for x in range(num_labels)]
            for key, values in arrays.items()
        }

    for model in numbers["models"].values():
        model["per_label"] = repeat(model["per_label"])
        if "image_gain" in model:
            whole = model["image_gain"].pop("all")
            order = {"all": whole, "order": list(range(num_labels))}
            model["image_gain"] = repeat(model["image_gain"]) | order
    return numbers | {
        "labels": num_labels,
        "label_names": [f"a label, number {x:04}" for x in range(num_labels)],
        "products_per_label": {"here": counts, "train": counts},
        "towers_found": repeat(numbers["towers_found"]),
        "groups_per_label": {
            pair: repeat(groups) for pair, groups in numbers["groups_per_label"].items()
        },
    }
