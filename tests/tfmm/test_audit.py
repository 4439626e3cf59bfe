"""Everything that an audit looks for, planted in a small catalog, and what it says."""

import csv
import io
import json
import os
import re

import imagehash
import numpy as np
import pytest
from PIL import Image
from report_pages import scrolls_sideways
from tiny import EXPERIMENT

from tfmm import audit, experiment
from tfmm.audit import labels, pictures, shared, texts, twins
from tfmm.audit.findings import percent
from tfmm.errors import CatalogError
from tfmm.run import Run

KINDS = ("lamp", "table", "rug")
EVIL = "<script>alert(1)</script> café lamp & co"


def photo(seed, size=(60, 80)):
    """A picture unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(img, kind="PNG", **options):
    file = io.BytesIO()
    img.save(file, kind, **options)
    return file.getvalue()


def turned(img):
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = 6
    return encoded(img, "JPEG", exif=exif)


SPLITS = ("train", "train", "fusion", "validation", "test")
# id -> what is odd about it; everything else is plain.
IMAGES = {
    # The same picture twice, once compressed: in train, and in test with another label.
    "P0": encoded(photo(500), "JPEG", quality=95),
    "P9": encoded(photo(500), "JPEG", quality=70),
    # The same on products of three kinds.
    **{f"P{x}": encoded(photo(600)) for x in (10, 11, 12, 13, 16, 17)},
    "P20": encoded(Image.new("RGB", (50, 50), (3, 200, 7))),
    "P21": encoded(photo(700, (20, 60))),
    "P22": turned(photo(701)),
    "P23": b"no picture",
    "P24": b"",
}
TITLES = {
    "P0": EVIL,
    "P1": "oak table for six people",
    "P4": "Oak TABLE, for six people!",
    "P5": "Красная большая лампа",
    "P6": "",
    "P24": "",
}


def labels_of(number):
    kind = "table" if number == 9 else KINDS[number % 3]
    extra = {"lamp": "|light", "rug": "|Rugs"}.get(kind, "")
    return f"{kind}{extra}|only here" if number == 1 else f"{kind}{extra}"


@pytest.fixture(scope="module")
def catalog_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    with (folder / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "note", "image", "labels", "group", "split"])
        for number in range(40):
            name = f"P{number}"
            content = IMAGES.get(name, encoded(photo(number)))
            if content:
                (folder / f"{name}.img").write_bytes(content)
            title = TITLES.get(name, f"thing number {number} of many")
            split = "train" if name == "P4" else SPLITS[number % 5]
            split = "test" if name in ("P1", "P9") else split
            image = f"{name}.img" if content else ""
            group = "twice" if name in ("P30", "P34") else ""
            cells = [name, title, "as always" if title else "", image]
            writer.writerow([*cells, labels_of(number), group, split])
    return folder / "catalog.csv"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    file = tmp_path_factory.mktemp("hparams") / "planted.toml"
    note = '[modalities.note]\nkind = "text"\ncolumns = ["note"]\n[modalities.image]'
    file.write_text(EXPERIMENT.replace("[modalities.image]", note), encoding="utf-8")
    return experiment.load(file)


@pytest.fixture(scope="module")
def run(tmp_path_factory, settings, catalog_file):
    place = Run(tmp_path_factory.mktemp("runs") / "planted")
    audit.examine(place, settings, audit.inspect(settings, catalog_file, None, place))
    return place


@pytest.fixture(scope="module")
def report(run):
    return json.loads(run.audit_file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows(run):
    """Ids in findings.csv by finding and modality."""
    found = {}
    with (run.audit / "findings.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["finding"], row["modality"]), []).append(row["id"])
    return found


@pytest.mark.parametrize(
    ("finding", "modality", "ids"),
    [
        ("image_twins", "image", ["P9"]),
        ("image_with_other_labels", "image", ["P0", "P9"]),
        ("image_shared", "image", ["P0", "P9"]),
        ("placeholder_images", "image", ["P10", "P11", "P12", "P13", "P16", "P17"]),
        ("single_color_images", "image", ["P20"]),
        ("tiny_images", "image", ["P21"]),
        ("rotated_images", "image", ["P22"]),
        ("unreadable_images", "image", ["P23"]),
        ("missing_images", "image", ["P24"]),
        ("enlarged_images", "image", ["P21"]),
        ("text_twins", "title", ["P1"]),
        ("missing_texts", "title", ["P6", "P24"]),
        ("other_scripts", "title", ["P5"]),
        ("named_labels", "title", ["P0", "P1", "P4"]),
        ("placeholder_texts", "title", []),
        ("empty_products", "", ["P24"]),
        ("labels_lacking_in_splits", "", ["only here"]),
        ("rare_labels", "", ["Rugs", "lamp", "light", "rug", "table"]),
        ("labels_together", "", ["Rugs", "lamp"]),
        ("labels_implied", "", ["only here"]),
        ("labels_spelled_alike", "", ["Rugs"]),
        ("groups_in_several_splits", "", ["twice"]),
    ],
)
def test_what_was_planted_is_found_and_nothing_else(rows, finding, modality, ids):
    assert set(rows.get((finding, modality), [])) == set(ids)


def test_a_text_that_all_products_have_is_to_be_put_right(report, rows):
    (found,) = (x for x in report["findings"] if x["name"] == "constant_texts")
    assert (found["modality"], found["level"], found["count"]) == ("note", "fix", 38)
    assert len(rows["placeholder_texts", "note"]) == 38
    assert report["modalities"]["note"]["distinct"] == 1


def test_findings_are_counted_explained_and_the_worst_come_first(report):
    ranks = [audit.findings.LEVELS.index(x["level"]) for x in report["findings"]]
    assert ranks == sorted(ranks)
    for finding in report["findings"]:
        assert 0 < finding["count"] <= finding["of"]
        assert finding["advice"]
        assert 0 < len(finding["examples"]) <= audit.findings.NUM_EXAMPLES
    assert report["rates"]["image"]["placeholder_rate"] == pytest.approx(7 / 38)
    assert report["rates"]["image"]["image_twin_rate"] > 0
    assert "single_color_images" in {x["name"] for x in report["findings"]}
    assert "other_languages" in {x["name"] for x in report["not_found"]}


def test_a_group_column_that_keeps_twins_together_is_written(run):
    with (run.audit / "groups.csv").open(encoding="utf-8", newline="") as file:
        group = {row["id"]: row["group"] for row in csv.DictReader(file)}
    assert group["P0"] == group["P9"] == "P0"
    assert group["P1"] == group["P4"] == "P1"
    assert group["P30"] == group["P34"] == "twice"
    assert group["P10"] == "P10"  # a placeholder joins nobody
    assert len(set(group.values())) == 40 - 3


def test_the_page_stands_alone_and_escapes_everything(run):
    html = (run.audit / "index.html").read_text(encoding="utf-8")
    assert EVIL not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<script") == 1
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert html.count("data:image/jpeg") >= 10
    assert "prefers-color-scheme: dark" in html


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1300])
def test_the_page_never_scrolls_sideways(run, tmp_path, width):
    html = (run.audit / "index.html").read_text(encoding="utf-8")
    html = html.replace("<details>", "<details open>")
    assert scrolls_sideways(html, tmp_path, width) == 0


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("max_image_twin_rate=0.1", "image: .* test products share their picture"),
        ("max_text_twin_rate=0.05", "title: .* test products share their text"),
        ("max_placeholder_rate=0.1", "image: 18.4% of the images are placeholders"),
        ("max_empty_rate=0.01", "2.5% of the products hold nothing"),
    ],
)
def test_a_limit_stops_the_run_with_one_line(run, catalog_file, settings, limit, said):
    key, value = limit.split("=")
    own = settings.catalog.model_copy(update={key: float(value)})
    strict = settings.model_copy(update={"catalog": own})
    seen = audit.inspect(strict, catalog_file, None, run)
    with pytest.raises(CatalogError, match=said) as error:
        audit.examine(run, strict, seen)
    line = str(error.value)
    assert line.startswith(f"{catalog_file}: ")
    assert f"more than {key} = {float(value):g} allows" in line
    assert "\n" not in line
    assert str(run.audit / "index.html") in line


def test_the_same_images_are_decoded_once_and_others_again(
    tmp_path, catalog_file, settings, monkeypatch
):
    run = Run(tmp_path / "run")
    first = audit.inspect(settings, catalog_file, None, run)
    audit.examine(run, settings, first)
    written = run.audit_file.stat().st_mtime_ns
    looked = []
    look = pictures.look
    monkeypatch.setattr(pictures, "look", lambda *x: looked.append(x) or look(*x))
    again = audit.inspect(settings, catalog_file, None, run)
    audit.examine(run, settings, again)
    assert not looked
    assert run.audit_file.stat().st_mtime_ns == written
    assert again.catalog.fingerprint() == first.catalog.fingerprint()
    assert again.catalog.bad_images == first.catalog.bad_images
    picture = catalog_file.parent / "P39.img"
    before = picture.read_bytes()
    picture.write_bytes(encoded(photo(999)))
    other = audit.inspect(settings, catalog_file, None, run)
    picture.write_bytes(before)
    assert len(looked) == 1
    assert other.before is None
    assert other.catalog.fingerprint() != first.catalog.fingerprint()
    run.audit_file.write_text("{")
    assert audit.inspect(settings, catalog_file, None, run).before is None


def test_a_look_names_each_reason(tmp_path):
    (tmp_path / "good.png").write_bytes(encoded(photo(0)))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG and no more")
    (tmp_path / "empty.png").write_bytes(b"")
    names = ["good.png", "", "bad.png", "empty.png", "none.png"]
    paths = [str(tmp_path / name) if name else "" for name in names]
    checked = pictures.look(paths).checked
    assert checked.bad == {
        2: "corrupt",
        3: "empty file",
        4: "cannot be read: No such file or directory",
    }
    assert pictures.digest_of(paths, lambda done: None) == checked.digest
    (tmp_path / "good.png").write_bytes(encoded(photo(0)) + b"\0")
    assert pictures.look(paths).checked.digest != checked.digest


def test_what_is_no_regular_file_is_never_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("/dev/zero")
    paths = [str(tmp_path / x) for x in ("pipe.jpg", "link.jpg")] + [str(tmp_path)]
    assert pictures.look(paths).checked.bad == dict.fromkeys(range(3), "not a file")


def test_a_damaged_exif_tag_hides_nothing_else(tmp_path):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff no tags at all"
    (tmp_path / "a.jpg").write_bytes(encoded(photo(0), "JPEG", exif=exif))
    seen = pictures.look([str(tmp_path / "a.jpg")])
    assert not seen.checked.bad
    assert seen.facts["used"].tolist() == [True]
    assert seen.facts["orientation"].tolist() == [pictures.UPRIGHT]


def test_the_hash_is_that_of_imagehash():
    # Grey, and of the size that both work at, so that no resizing differs.
    grey = [photo(x, (pictures.SIDE,) * 2).convert("L") for x in range(8)]
    pixels = np.stack([np.asarray(x.convert("RGB"), np.float32) for x in grey])
    expected = [int(str(imagehash.phash(x)), 16) for x in grey]
    assert pictures.perceptual_hash(pixels).tolist() == expected


def seen(*files):
    pixels = [
        np.asarray(
            Image.open(io.BytesIO(x)).convert("RGB").resize((32, 32)), np.float32
        )
        for x in files
    ]
    pixels = np.stack(pixels)
    return pictures.perceptual_hash(pixels), pictures.make_small(pixels)


def test_compression_hides_no_twin_and_another_colour_is_none():
    original = photo(1, (160, 160))
    recolored = Image.fromarray(np.asarray(original)[..., ::-1])
    codes, small = seen(
        encoded(original),
        encoded(original, "JPEG", quality=60),
        encoded(recolored),
        encoded(photo(2)),
        encoded(original),
    )
    usable = np.array([True, True, True, True, False])
    found = twins.of_pictures(codes, small, usable)
    assert found.families.tolist() == [found.families[0]] * 2 + [-1, -1, -1]
    assert found.count(np.ones(5, bool)).tolist() == [1, 1, 0, 0, 0]


def test_no_pictures_have_no_twins():
    codes, small = seen(encoded(photo(1)), encoded(photo(2)))
    for usable in (np.zeros(2, bool), np.ones(2, bool)):
        found = twins.of_pictures(codes, small, usable)
        assert not found.count(np.ones(2, bool)).any()
        assert found.families.tolist() == [-1, -1]


def test_twins_are_counted_among_those_asked_for():
    # 0 and 1 are equal, 2 is near them, 3 is alone, 4 takes no part.
    found = twins.Twins(np.array([0, 0, 1, 2, -1]), np.array([[0, 1]]))
    everyone = np.ones(5, bool)
    assert found.count(everyone).tolist() == [2, 2, 2, 0, 0]
    assert found.count(np.arange(5) == 2).tolist() == [1, 1, 0, 0, 0]
    assert found.count_same(np.array([7, 8, 7, 7, 7])).tolist() == [1, 0, 1, 0, 0]
    some = found.some(np.array([0, 3]), everyone, 5)
    assert [sorted(x) for x in some] == [[1, 2], []]
    other = found.some(np.array([0]), everyone, 5, np.array([7, 8, 7, 7, 7]))
    assert other == [[1]]
    assert found.without(np.arange(5) == 2).count(everyone).tolist() == [1, 1, 0, 0, 0]
    assert twins.of_texts(["a", "", "b", "a", ""]).count(everyone).tolist() == [
        *(1, 0, 0, 1, 0)
    ]


def test_a_crowd_of_like_hashes_is_not_compared_all_with_all(monkeypatch):
    monkeypatch.setattr(twins, "MAX_STEPS", 5)
    codes = np.uint64(1) << np.arange(64, dtype=np.uint64)
    assert len(twins._candidates(codes)) <= 4 * 5 * len(codes)
    assert len(twins._candidates(np.zeros(300, np.uint64))) < 300 * 5
    monkeypatch.setattr(twins, "MAX_STEPS", 100)
    # Any two differ in two bits.
    assert len(twins._candidates(codes)) == 64 * 63 // 2


@pytest.mark.parametrize(
    ("words", "script"),
    [
        ("Red lamp", "Latin"),
        ("Lampe à poser", "Latin"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "Latin"),
        ("Красная лампа red", "Cyrillic"),
        ("赤いランプを買う赤赤赤赤", "Cjk"),
        ("مصباح", "Arabic"),
        ("12 %", ""),
    ],
)
def test_a_text_is_of_the_script_of_most_of_its_letters(words, script):
    assert texts.script_of(words) == script


def test_a_language_counts_where_it_is_sure_and_not_alone():
    german = "Der weiche Schal hält an kalten Tagen warm und ist schön"
    english = "The soft scarf keeps you warm on the coldest of all days"
    given = np.array([english] * 8 + [german] * 2 + ["Puma 12", ""], object)
    assert texts.languages_of(given) == {x: "en" if x < 8 else "de" for x in range(10)}
    assert texts.languages_of(np.array([english, german], object)) == {}


@pytest.mark.parametrize(
    ("title", "named"),
    [
        ("blue t-shirt for men", {"kind:Tshirts"}),
        ("Sport shoe", {"kind:Sports Shoes"}),
        ("Shoes", set()),
        ("a kind of thing", set()),
        ("watches and dresses", {"kind:Watch", "kind:Dresses"}),
    ],
)
def test_a_label_is_named_by_its_words_in_any_number(title, named):
    names = ("kind:Dresses", "kind:Sports Shoes", "kind:Tshirts", "kind:Watch")
    by_word = labels._labels_by_word(names, "")
    words = texts.cleaned(np.array([title], object))[0].split()
    assert {names[x] for x in labels._named(words, by_word)} == named


def test_a_picture_of_one_kind_is_no_placeholder(settings, catalog_file):
    catalog = audit.audit(settings, catalog_file, None)
    number = np.arange(40)
    lamps = twins.Twins(np.where((number % 3 == 0) & (number < 24), 0, -1), no_pairs())
    assert not shared.placeholders(catalog, lamps).any()
    mixed = twins.Twins(np.where(number < 6, 0, -1), no_pairs())
    assert shared.placeholders(catalog, mixed).tolist() == (number < 6).tolist()
    few = twins.Twins(np.where(number < 4, 0, -1), no_pairs())
    assert not shared.placeholders(catalog, few).any()


def no_pairs():
    return np.zeros((0, 2), int)


def test_shares_are_not_rounded_to_nothing_or_all():
    assert percent(1, 10_000) == "under 0.1 %"
    assert percent(9_999, 10_000) != "100 %"
