"""The page of a report in headless Chromium, from its file.

Run: python -m pytest -m browser

Needs playwright, the extra [browser], and Debian's chromium.
"""

import shutil

import numpy as np
import pytest
from PIL import Image
from report_pages import (
    EVIL,
    cases,
    exhibits,
    misfiled,
    models,
    numbers_of,
    page_of,
    sureness,
)

playwright = pytest.importorskip("playwright.sync_api", reason="the extra [browser]")
expect = playwright.expect

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
LOG = {
    "epoch": [0, 1, 2],
    "stage": [0, 1, 1],
    "train_loss": [None, 2.0, 1.0],
    "loss": [3.0, 2.0, 1.5],
    "top1": [0.1, 0.5, 0.6],
}
MANY = 40  # labels, so that a table is cut


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page with everything on it, evil words and long ones among them."""
    folder = tmp_path_factory.mktemp("report")
    noise = np.random.default_rng(0).integers(0, 256, (200, 150, 3), np.uint8)
    Image.fromarray(noise).save(folder / "photo.png")
    made = models(**cases(), held_out=sureness(), about={"learning": LOG})
    names = (EVIL, "w" * 120, "bed > " * 20 + "cot")
    numbers = exhibits(
        numbers_of(made, names=names), str(folder / "photo.png"), f"{EVIL} {'w' * 200}"
    )
    numbers["misfiled"] = misfiled(text=EVIL)
    gain = numbers["models"]["policy"]["image_gain"]
    gain["order"] = [x % 3 for x in range(MANY)]
    page_of(numbers, folder)
    return folder / "index.html"


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, file):
    """Opens the page; what it says on the console or asks for fails the test."""
    contexts, bad = [], []

    def start(**options):
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: bad.append(message.text))
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.on("dialog", lambda dialog: bad.append(f"dialog {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith(("data:", file.as_uri()))
                else bad.append(request.url)
            ),
        )
        page.goto(file.as_uri())
        return page

    yield start
    for context in contexts:
        context.close()
    assert not bad


def table(page, title):
    return page.get_by_role("table", name=title, exact=True)


def column(page, title, place):
    cells = table(page, title).locator(f"tbody td:nth-child({place})")
    return [x.split("\n")[0] for x in cells.all_inner_texts()]


def overflow_px(page):
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def test_tables_sort_by_mouse(open_page):
    page = open_page()
    head = table(page, "Models").locator("th").nth(1)
    before = column(page, "Models", 2)
    assert before == ["60.0", "50.0", "80.0", "70.0"]
    head.get_by_role("button").click()
    assert column(page, "Models", 2) == ["80.0", "70.0", "60.0", "50.0"]
    expect(head).to_have_attribute("aria-sort", "descending")
    head.get_by_role("button").click()
    assert column(page, "Models", 2) == ["50.0", "60.0", "70.0", "80.0"]
    expect(head).to_have_attribute("aria-sort", "ascending")
    first = table(page, "Models").locator("th").first
    first.get_by_role("button").click()
    assert column(page, "Models", 1) == ["image", "policy", "product", "title"]
    assert head.get_attribute("aria-sort") is None


def test_tables_sort_by_keyboard_and_empty_cells_stay_last(open_page):
    page = open_page()
    button = table(page, "Models").get_by_role("button", name="Gain in top-1")
    button.focus()
    outline = button.evaluate("x => getComputedStyle(x).outlineStyle")
    for key in ("Enter", "Space"):
        page.keyboard.press(key)
        gains = column(page, "Models", 4)
        assert gains[-2:] == ["", ""]
    numbers = [float(x.replace("\u2212", "-")) for x in gains[:2]]
    assert numbers == sorted(numbers)
    assert outline == "solid"


def test_long_tables_are_cut_and_rows_can_be_found(open_page):
    page = open_page()
    title = "What images add to each label"
    rows = table(page, title).locator("tbody tr:visible")
    expect(rows).to_have_count(30)
    button = page.get_by_role("button", name=f"Show all {MANY} rows")
    button.click()
    expect(rows).to_have_count(MANY)
    page.get_by_role("button", name="Show fewer rows").click()
    expect(rows).to_have_count(30)
    page.get_by_role("searchbox", name=f"Find a row of {title}").fill("BED")
    expect(rows).to_have_count(13)
    assert set(column(page, title, 1)) > {EVIL}


def test_galleries_and_other_folds_open(open_page):
    page = open_page()
    section = page.locator("#galleries")
    picture = section.locator("img").first
    expect(picture).to_be_hidden()
    summary = section.locator("summary").first
    summary.click()
    expect(picture).to_be_visible()
    assert picture.evaluate("x => x.naturalWidth") == 72
    shade = section.locator(".shade").first
    under = section.locator(".map img").first
    assert shade.bounding_box() == under.bounding_box()
    expect(section.get_by_text(EVIL).first).to_be_visible()
    summary.focus()
    page.keyboard.press("Enter")
    expect(picture).to_be_hidden()


def test_the_keyboard_skips_to_the_content_and_the_contents_lead_to_sections(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.locator(".contents").get_by_role("link", name="Calibration").click()
    expect(page.get_by_role("heading", name="Calibration")).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("phone", [True, False])
def test_nothing_scrolls_sideways_but_tables_in_their_box(open_page, scheme, phone):
    size = PHONE if phone else {"viewport": {"width": 1300, "height": 900}}
    page = open_page(color_scheme=scheme, **size)
    page.evaluate("document.querySelectorAll('details').forEach(x => x.open = true)")
    assert overflow_px(page) == 0
    inks = "x => getComputedStyle(x).fill.match(/[0-9]+/g).map(Number)"
    ink = page.locator(".picture text").first.evaluate(inks)
    assert (sum(ink) > 384) == (scheme == "dark")
    if phone:
        box = table(page, "Models").locator("xpath=..")
        assert box.evaluate("x => x.scrollWidth > x.clientWidth")
        expect(box).to_have_attribute("tabindex", "0")


def test_without_script_everything_is_there(open_page):
    page = open_page(java_script_enabled=False)
    expect(table(page, "What images add to each label").locator("tr")).to_have_count(
        MANY + 1
    )
    expect(page.get_by_role("button")).to_have_count(0)
