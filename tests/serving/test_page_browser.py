"""The page in headless Chromium, over the development server.

Run: python -m pytest -m browser

Needs playwright, the extra [browser], and Debian's chromium.
"""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the extra [browser]")
expect = playwright.expect

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
    pytest.mark.development_server_only("serves models of its own"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SCRIPT = "<script>alert(1)</script>"
MARKUP = "<img src=x onerror=alert(1)>"
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}


def write_model(path, num_assigned=1):
    """A SavedModel that is sure of shoes, reads JPEG by its first bytes, and attends
    to the upper left of 2 x 4 cells.
    """
    import tensorflow as tf

    module = tf.Module()
    module.one = tf.Variable(1.0)
    specs = [tf.TensorSpec([None], tf.string, name=name) for name in ("title", "image")]

    def sure(title):
        return tf.strings.regex_full_match(title, ".*shoe.*")[:, None]

    def used(image):
        return tf.strings.regex_full_match(
            tf.strings.substr(tf.io.encode_base64(image), 0, 3), "_9j"
        )[:, None]

    @tf.function(input_signature=specs)
    def classify(title, image):
        batch = tf.size(title)
        over = [[position < num_assigned for position in range(3)]]
        refused = tf.where(tf.equal(image, "")[:, None], "missing", "not an image")
        labels = [["shoe", MARKUP, "a" * 80]]
        return {
            "labels": tf.tile(labels, [batch, 1]),
            "scores": tf.where(sure(title), [[0.9, 0.06, 0.0]], [[0.4, 0.3, 0.2]])
            * module.one,
            "assigned": sure(title) & tf.constant(over),
            "image_used": used(image),
            "image_status": tf.where(used(image), "used", refused),
        }

    @tf.function(input_signature=specs)
    def explain(title, image):
        parts = tf.where(
            sure(title)[:, None],
            [[[0.7, 0.01, 0.0], [-0.05, 0.02, 0.0]]],
            [[[0.1, 0.05, 0.0], [0.1, 0.05, 0.0]]],
        )
        cells = tf.constant([[[0.65, 0.05, 0.05, 0.05], [0.05] * 4]])
        looked = tf.cast(used(image), tf.float32)[:, None]
        return {"contributions": parts * module.one, "attention": cells * looked}

    signatures = {"serving_default": classify, "explain": explain}
    tf.saved_model.save(module, str(path), signatures=signatures)
    about = {
        "modalities": {
            "title": {"kind": "text", "columns": ["title"]},
            "image": {"kind": "image", "columns": ["image"]},
        },
        "task": "single_label" if num_assigned == 1 else "multi_label",
    }
    (path / "assets.extra").mkdir()
    (path / "assets.extra" / "tfmm.json").write_text(json.dumps(about))


def picture(width=400, height=200, turned=False, kind="JPEG"):
    """A photograph of a kind: grey, with a red square in the upper left."""
    from PIL import Image

    image = Image.new("RGB", (width, height), (128, 128, 128))
    image.paste((220, 20, 20), (0, 0, width // 4, height // 2))
    file = io.BytesIO()
    options = {}
    if turned:
        options["exif"] = image.getexif()
        options["exif"][0x0112] = 6  # to be turned a quarter clockwise
    image.save(file, kind, **options)
    return file.getvalue()


def upload(content, name="shoe.jpg", kind="image/jpeg"):
    return {"name": name, "mimeType": kind, "buffer": content}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("page_models")
    write_model(directory / "single" / "1")
    write_model(directory / "several" / "1", num_assigned=2)
    return directory


@pytest.fixture(scope="module")
def started_pages(tools):
    """Starts `python -m serving.page`; gives its URL."""
    processes = []

    def start(server, model, *words):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "serving.page", "--port=0"),
                *("--server", server, "--model_name", model, *map(str, words)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env=tools.environment(),
        )
        processes.append(process)
        return process.stdout.readline().removeprefix("ready: ").strip()

    yield start
    for process in processes:
        process.terminate()
        process.wait(timeout=20)
        process.stdout.close()


@pytest.fixture(scope="module")
def server(tools, models, tmp_path_factory):
    config = "".join(
        f'config {{ name: "{name}" base_path: "{models / name}" '
        'model_platform: "tensorflow" }\n'
        for name in ("single", "several")
    )
    file = models / "models.config"
    file.write_text(f"model_config_list {{\n{config}}}\n")
    process = tools.ServerProcess(
        *(f"--model_config_file={file}", "--port=0", "--rest_api_port=-1"),
        log=tmp_path_factory.mktemp("server") / "stderr.txt",
    )
    process.wait_ready()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def url(server, models, started_pages):
    bundle = models / "single" / "1"
    words = ("--bundle", bundle, "--max_picture_mib", 1)
    return started_pages(server.grpc, "single", *words)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """Opens a page; what it says on the console or does elsewhere fails the test."""
    contexts, bad = [], []

    def start(url, expected=(), **options):
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()

        def note(text):
            if not any(x in text for x in expected):
                bad.append(text)

        page.on("console", lambda message: note(message.text))
        page.on("pageerror", lambda error: note(str(error)))
        page.on("dialog", lambda dialog: note(f"dialog {dialog.message}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((url, "blob:" + url))
                else note(request.url)
            ),
        )
        page.goto(url)
        expect.set_options(timeout=20000)
        expect(page.locator("textarea").first).to_be_visible()
        return page

    yield start
    for context in contexts:
        context.close()
    assert not bad


def verdict(page):
    return page.locator("#verdict-words")


def names(page):
    return page.locator("#suggestions .name").all_text_contents()


def overflow_px(page):
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def test_a_product_is_filed_as_one_types(open_page, url):
    page = open_page(url)
    expect(verdict(page)).to_have_text("Nothing filled in yet")
    expect(page.locator("#suggested")).to_be_hidden()
    page.get_by_label("Title").press_sequentially("a hat")
    expect(verdict(page)).to_have_text("Please choose")
    page.get_by_label("Title").fill("a red shoe")
    expect(verdict(page)).to_have_text("Would be filed automatically under shoe")
    assert names(page) == ["shoe", MARKUP, "a" * 80]
    rows = page.locator("#suggestions li")
    assert rows.locator(".score").all_text_contents() == ["0.90", "0.06", "0.00"]
    assert rows.locator(".tag").all_text_contents() == ["automatic"]
    bars = [x.bounding_box()["width"] for x in rows.locator(".bar").all()]
    page.wait_for_timeout(400)  # it grows
    filled = rows.first.locator(".bar span").bounding_box()["width"]
    assert filled == pytest.approx(0.9 * bars[0], abs=1)
    parts = page.locator("#parts")
    expect(parts.locator("dd .score")).to_have_text(["0.25", "+0.70", "−0.05", "0.90"])
    expect(parts.locator("dt")).to_have_text(
        ["How common it is", "Title", "Picture not given", "Score"]
    )
    page.get_by_role("button", name="Start over").click()
    expect(verdict(page)).to_have_text("Nothing filled in yet")
    expect(page.get_by_label("Title")).to_be_focused()


def test_the_attention_map_lies_on_the_whole_picture(open_page, url):
    page = open_page(url, expected=["willReadFrequently"])  # of this test
    chooser = page.locator("input[type=file]").first
    chooser.set_input_files(upload(picture()))
    expect(page.get_by_text("The model looked at the picture.")).to_be_visible()
    canvas = page.locator("canvas")
    expect(canvas).to_be_visible()
    assert canvas.bounding_box() == page.locator(".frame img").bounding_box()
    # 0.65 of 8 cells.
    expect(page.locator(".map .note")).to_contain_text("at most 5.2 times")

    def at(x, y):
        return canvas.evaluate(
            "(c, [x, y]) => [...c.getContext('2d').getImageData("
            "x * c.width, y * c.height, 1, 1).data]",
            [x, y],
        )

    # Yellow in the middle of the first cell, a dark veil in that of the last.
    assert at(0.125, 0.25)[:3] == pytest.approx([255, 225, 50], abs=12)
    assert max(at(0.875, 0.75)[:3]) < 100
    page.get_by_label("Show where the model looked").uncheck()
    expect(canvas).to_be_hidden()
    chooser.set_input_files(upload(b"no picture", "junk.heic", "image/heic"))
    expect(page.get_by_text("could not be read: it is not a JPEG")).to_be_visible()
    expect(page.get_by_text("No preview of this kind of file")).to_be_visible()
    expect(page.locator(".map")).to_be_hidden()
    page.get_by_role("button", name="Remove").click()
    expect(verdict(page)).to_have_text("Nothing filled in yet")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted_anywhere(open_page, url, event):
    page = open_page(url)
    page.evaluate(
        """([event, bytes]) => {
            const data = new DataTransfer();
            const type = "image/jpeg";
            data.items.add(new File([new Uint8Array(bytes)], "shoe.jpg", { type }));
            const options = { bubbles: true, cancelable: true };
            document.querySelector("h1").dispatchEvent(event === "drop"
                ? new DragEvent("drop", { ...options, dataTransfer: data })
                : new ClipboardEvent("paste", { ...options, clipboardData: data }));
        }""",
        [event, list(picture())],
    )
    expect(page.get_by_text("The model looked at the picture.")).to_be_visible()
    expect(page.locator(".about")).to_contain_text("shoe.jpg")


def test_a_picture_is_sent_once_and_as_it_is(open_page, url):
    page = open_page(url)
    sent, asked = [], []

    def note(request):
        if request.url.endswith("/api/picture"):
            sent.append(request.url)
        elif request.url.endswith("/api/suggest"):
            asked.append(request.post_data_json["values"])

    page.on("request", note)
    page.locator("input[type=file]").first.set_input_files(upload(picture()))
    expect(page.locator("canvas")).to_be_visible()
    page.get_by_label("Title").fill("shoe")
    expect(verdict(page)).to_contain_text("automatically")
    assert len(sent) == 1
    key = hashlib.sha256(picture()).hexdigest()
    assert asked[0] == {"image": key}
    assert asked[-1] == {"image": key, "title": "shoe"}


def test_a_photograph_that_lies_is_turned(open_page, url):
    page = open_page(url)
    page.locator("input[type=file]").first.set_input_files(upload(picture(turned=True)))
    expect(page.get_by_text("Turned upright for the model")).to_be_visible()
    expect(page.locator("canvas")).to_be_visible()
    image = page.locator(".frame img")
    sizes = image.evaluate("x => [x.naturalWidth, x.naturalHeight]")
    assert sizes == [200, 400]
    box = image.bounding_box()
    assert box["height"] == pytest.approx(2 * box["width"], rel=0.02)


def test_a_file_over_the_limit_is_made_smaller_or_refused(open_page, url):
    page = open_page(url)
    chooser = page.locator("input[type=file]").first
    large = picture() + bytes(2**20)  # what comes after a JPEG is not read
    chooser.set_input_files(upload(large))
    expect(page.get_by_text("Made smaller, for the file is over")).to_be_visible()
    expect(page.get_by_text("The model looked at the picture.")).to_be_visible()
    chooser.set_input_files(upload(bytes(3 * 2**19), "film.jpg"))
    expect(page.get_by_text("The file has 1.5 MiB; at most 1 MiB")).to_be_visible()
    expect(verdict(page)).to_have_text("Nothing filled in yet")


def test_markup_stays_text(open_page, url):
    page = open_page(url)
    page.get_by_label("Title").fill(f"shoe {SCRIPT}")
    page.locator("input[type=file]").first.set_input_files(
        upload(picture(), f"{MARKUP}.jpg")
    )
    expect(page.locator("canvas")).to_be_visible()
    assert MARKUP in names(page)
    page.get_by_role("radio", name=MARKUP).check()
    expect(page.locator("#why-title")).to_have_text(f"What spoke for {MARKUP}")
    assert page.locator("#result-text").input_value() == MARKUP
    assert page.locator("img").count() == 1
    assert page.locator("script").count() == 1


def test_a_choice_is_made_with_the_keyboard_and_stays(open_page, url):
    page = open_page(url)
    page.get_by_label("Title").fill("shoe")
    expect(page.get_by_role("radio", name="shoe")).to_be_checked()
    page.get_by_role("radio", name="shoe").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name=MARKUP)).to_be_checked()
    expect(page.locator("#result-note")).to_have_text("Your choice.")
    page.get_by_label("Title").fill("shoe and hat")
    expect(page.locator("#suggested")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_role("radio", name=MARKUP)).to_be_checked()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#result-note")).to_have_text(re.compile("Copied|Selected"))


def test_several_labels_are_boxes(open_page, server, started_pages):
    told = ("--inputs", "title", "image=image")
    page = open_page(started_pages(server.grpc, "several", *told))
    page.get_by_label("Title").fill("shoe")
    expect(verdict(page)).to_have_text(
        f"Would be filed automatically under shoe and {MARKUP}"
    )
    expect(page.locator("#result-text")).to_have_value(f"shoe | {MARKUP}")
    page.get_by_role("checkbox", name="shoe").uncheck()
    expect(page.locator("#result-text")).to_have_value(MARKUP)


def test_a_late_answer_does_not_overwrite_a_newer_one(open_page, url):
    page = open_page(url)
    held = []

    def hold(route):
        if "slow" in route.request.post_data:
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/suggest", hold)
    page.get_by_label("Title").fill("slow shoe")
    page.wait_for_timeout(600)
    assert len(held) == 1
    page.get_by_label("Title").fill("hat")
    expect(verdict(page)).to_have_text("Please choose")
    held[0].continue_()
    page.wait_for_timeout(600)
    expect(verdict(page)).to_have_text("Please choose")


def test_the_page_says_that_the_server_is_gone_and_goes_on(
    open_page, tools, models, started_pages, tmp_path
):
    base = f"--model_base_path={models / 'single'}"
    flags = ("--model_name=single", base, "--rest_api_port=-1")
    first = tools.ServerProcess(*flags, "--port=0", log=tmp_path / "first.txt")
    first.wait_ready()
    address = first.grpc
    told = ("--inputs", "title", "image=image", "--timeout=2")
    expected = ("503", "504")  # Chromium's own line for each
    page = open_page(started_pages(address, "single", *told), expected)
    page.get_by_label("Title").fill("hat")
    expect(verdict(page)).to_have_text("Please choose")
    first.stop()
    page.get_by_label("Title").fill("shoe")
    expect(verdict(page)).to_have_text(
        "The model server cannot be reached.", timeout=20000
    )
    expect(page.locator("#state")).to_have_text("Not ready")
    port = address.partition(":")[2]
    second = tools.ServerProcess(*flags, f"--port={port}", log=tmp_path / "second.txt")
    try:
        second.wait_ready()
        expect(verdict(page)).to_contain_text("automatically", timeout=30000)
        expect(page.locator("#state")).to_contain_text("is ready")
    finally:
        second.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_telephone_needs_no_scrolling_sideways(open_page, url, scheme):
    page = open_page(url, color_scheme=scheme, **PHONE)
    assert overflow_px(page) == 0
    expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
    page.get_by_label("Title").fill("shoe" * 100)
    page.locator("input[type=file]").first.set_input_files(
        upload(picture(), "x" * 200 + ".jpg")
    )
    expect(page.locator("canvas")).to_be_visible()
    expect(page.locator("#why")).to_be_visible()
    assert overflow_px(page) == 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 100) == (scheme == "dark")


def test_an_exported_model_answers_a_real_picture(
    open_page, tools, bundle, catalog_file, started_pages, tmp_path
):
    process = tools.ServerProcess(
        *(f"--model_base_path={bundle.parent}", "--model_name=tiny"),
        *("--port=0", "--rest_api_port=-1"),
        log=tmp_path / "stderr.txt",
    )
    try:
        process.wait_ready()
        page = open_page(
            started_pages(process.grpc, "tiny", "--bundle", bundle), **PHONE
        )
        page.get_by_label("Title").fill("oak wood no 1")
        files = page.locator("input[type=file]").first
        files.set_input_files(catalog_file.parent / "images" / "1.jpg")
        expect(page.get_by_text("The model looked at the picture.")).to_be_visible()
        expect(page.locator("#why")).to_be_visible()
        numbers = page.locator("#parts dd .score").all_text_contents()
        start, title, image, total = (float(x.replace("−", "-")) for x in numbers)
        assert start + title + image == pytest.approx(total, abs=0.021)
        assert page.get_by_role("checkbox").count() >= 2
        expect(page.locator("canvas")).to_be_hidden()
        files.set_input_files(catalog_file.parent / "images" / "3.jpg")
        expect(page.get_by_text("it is not a JPEG")).to_be_visible()
    finally:
        process.stop()
