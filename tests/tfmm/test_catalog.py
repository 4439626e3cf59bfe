import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import EXPERIMENT

from tfmm import catalog, experiment
from tfmm.catalog import BadImage
from tfmm.errors import CatalogError
from tfmm.settings import SPLITS, Splits
from tfmm.splits import fold_of, split_of, thinned

HEADER = "id,title,image,labels\n"
ROWS = "a,lamp,a.jpg,x|y\nb,table,,x\nc,,c.jpg,y|x|y\n"


def settings(tmp_path, *overrides):
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return experiment.load(path, overrides)


def load(tmp_path, content, *overrides, name="c.csv", **options):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return catalog.load(path, settings(tmp_path, *overrides), **options)


def refusal(tmp_path, content, *overrides, name="c.csv", **options):
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, content, *overrides, name=name, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{tmp_path / name}:").strip()


def labels_of(found):
    return [[found.label_names[i] for i in row] for row in found.label_indices]


# ------------------------------------------------------------- what is in it


def test_a_catalog_holds_what_the_file_says(tmp_path):
    found = load(tmp_path, HEADER + ROWS)
    assert found.ids.tolist() == ["a", "b", "c"]
    assert found.texts["title"].tolist() == ["lamp", "table", ""]
    folder = str(tmp_path)
    assert found.images["image"].tolist() == [f"{folder}/a.jpg", "", f"{folder}/c.jpg"]
    assert found.label_names == ("x", "y")
    assert [list(row) for row in found.label_indices] == [[0, 1], [0], [0, 1]]
    assert found.sha256 == hashlib.sha256((HEADER + ROWS).encode()).hexdigest()
    assert len(found) == 3
    assert found.left_out == {}


def test_targets_are_zeros_and_ones_or_indices(tmp_path):
    found = load(tmp_path, HEADER + ROWS)
    targets = found.targets(np.array([1, 2]))
    assert targets.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert targets.dtype == np.float32
    rows = "a,,,y\nb,,,x\nc,,,y\n"
    found = load(tmp_path, HEADER + rows, "catalog.task=single_label")
    targets = found.targets(np.array([2, 1]))
    assert targets.tolist() == [1, 0]
    assert targets.dtype == np.int32


def test_present_is_what_is_not_missing(tmp_path):
    found = load(tmp_path, HEADER + ROWS)
    rows = np.array([0, 1, 2])
    assert found.present("title", rows).tolist() == [True, True, False]
    assert found.present("image", rows).tolist() == [True, False, True]


def test_the_columns_of_a_text_are_stripped_and_joined_by_a_space(tmp_path):
    content = "id,title,brand,image,labels\na, big  lamp ,\tIKEA,,x\nb, ,IKEA,,y\n"
    found = load(tmp_path, content, "modalities.title.columns=['title', 'brand']")
    assert found.texts["title"].tolist() == ["big  lamp IKEA", "IKEA"]


def test_the_cells_of_a_table_stay_apart(tmp_path):
    content = (
        'id,brand,price,title,image,labels\na, Big\t\tShop ,"12,5",,,x\n'
        'b,,\u00a0,,,y\nc,,7,,,y\nd,"two\nlines",,,,x\n'
    )
    found = load(
        tmp_path,
        content,
        "modalities.facts={kind = 'table', columns = ['brand', 'price']}",
    )
    rows = ["Big Shop\t12,5", "", "\t7", "two lines\t"]
    assert found.texts["facts"].tolist() == rows
    assert found.num_cells == {"facts": 2}
    present = found.present("facts", np.arange(4))
    assert present.tolist() == [True, False, True, True]


def test_images_are_found_in_the_folder_that_is_named(tmp_path):
    other = tmp_path / "pictures"
    found = load(tmp_path, HEADER + ROWS, images=other)
    assert found.images["image"][0] == str(other / "a.jpg")
    absolute = load(tmp_path, HEADER + ROWS.replace("a.jpg", "/x/a.jpg"), images=other)
    assert absolute.images["image"][0] == "/x/a.jpg"


def test_an_image_path_with_a_nul_byte_is_refused(tmp_path):
    found = refusal(tmp_path, HEADER + "a,,,x\nb,,b\0.jpg,y\n")
    assert found == "3: 'image' holds a NUL byte. Received: 'b\\x00.jpg'"


def test_unusable_images_become_missing_and_change_the_fingerprint(tmp_path):
    found = load(tmp_path, HEADER + ROWS)
    bad = BadImage(0, "a", "image", found.images["image"][0], "no image")
    after = found.without_images([bad], "digest")
    assert after.present("image", np.arange(3)).tolist() == [False, False, True]
    assert after.bad_images == (bad,)
    assert found.images["image"][0] != ""
    assert after.fingerprint() != found.fingerprint()


def test_the_fingerprint_follows_file_labels_and_splits(tmp_path):
    first = load(tmp_path, HEADER + ROWS)
    assert load(tmp_path, HEADER + ROWS).fingerprint() == first.fingerprint()
    others = [
        load(tmp_path, HEADER + ROWS + "d,,,x\n"),
        load(tmp_path, HEADER + ROWS, label_names=["y", "x"]),
        load(
            tmp_path,
            HEADER + ROWS,
            "catalog.splits={train=0, fusion=0, validation=0, test=1}",
        ),
    ]
    assert len({x.fingerprint() for x in [first, *others]}) == 4


# ------------------------------------------------------------------------ ids


def test_an_empty_or_repeated_id_is_named_with_its_rows(tmp_path):
    assert refusal(tmp_path, HEADER + ROWS + " ,x,,x\n") == "5: 'id' is empty"
    assert refusal(tmp_path, HEADER + ROWS + "\n b ,x,,x\n") == (
        "6: 'id' is a duplicate. Received: 'b', which is also in row 3"
    )


def test_numbers_as_ids_are_taken_as_written(tmp_path):
    lines = [
        {"id": i, "title": "t", "image": None, "labels": x}
        for i, x in [(7, "x"), (8, "y")]
    ]
    content = "\n".join(map(json.dumps, lines))
    assert load(tmp_path, content, name="c.jsonl").ids.tolist() == ["7", "8"]
    columns = {key: [line[key] for line in lines] for key in lines[0]}
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table(columns), path)
    found = catalog.load(path, settings(tmp_path))
    assert found.ids.tolist() == ["7", "8"]
    assert found.texts["title"].tolist() == ["t", "t"]
    assert found.images["image"].tolist() == ["", ""]


def test_an_id_that_is_null_or_nan_in_parquet_is_empty(tmp_path):
    path = tmp_path / "c.parquet"
    columns = {"title": ["t", "t"], "image": ["", ""], "labels": ["x", "y"]}
    for ids in (["a", None], [1.0, float("nan")]):
        pq.write_table(pa.table({"id": ids, **columns}), path)
        with pytest.raises(CatalogError, match=r"c\.parquet:2: 'id' is empty"):
            catalog.load(path, settings(tmp_path))


def test_a_missing_column_is_named_with_the_nearest(tmp_path):
    for column, wrong in (("title", "titel"), ("id", "ids"), ("labels", "label")):
        content = HEADER.replace(column, wrong) + ROWS
        expected = f"no column '{column}'; did you mean '{wrong}'?"
        assert refusal(tmp_path, content) == expected
    found = refusal(tmp_path, HEADER + ROWS, "catalog.group=brand")
    assert found.startswith("no column 'brand'; expected one of 'id', 'title'")


# --------------------------------------------------------------------- labels


def test_labels_are_stripped_and_counted_once(tmp_path):
    found = load(tmp_path, HEADER + "a,,, y | x |y||\nb,,,é & co\n")
    assert labels_of(found) == [["x", "y"], ["é & co"]]


def test_lists_of_labels_come_from_json_lines_parquet_and_json_cells(tmp_path):
    given = [["x|1", "y"], ["y"]]
    lines = [
        {"id": str(i), "title": "", "image": "", "labels": x}
        for i, x in enumerate(given)
    ]
    content = "\n".join(map(json.dumps, lines))
    assert labels_of(load(tmp_path, content, name="c.jsonl")) == given
    path = tmp_path / "c.parquet"
    columns = {key: [line[key] for line in lines] for key in lines[0]}
    pq.write_table(pa.table(columns), path)
    assert labels_of(catalog.load(path, settings(tmp_path))) == given
    content = HEADER + 'a,,,"[""x|1"", ""y""]"\nb,,,"[""y""]"\n'
    found = load(tmp_path, content, "catalog.label_separator=json")
    assert labels_of(found) == given


def test_a_json_text_is_one_label_even_if_it_contains_json(tmp_path):
    content = HEADER + 'a,,,"""a json b"""\nb,,,"[""y""]"\n'
    found = load(tmp_path, content, "catalog.label_separator=json")
    assert labels_of(found) == [["a json b"], ["y"]]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("x|y", "is no JSON list (Expecting value: line 1 column 1 (char 0)). Rec"),
        ("9" * 5_000, "is no JSON list (Exceeds the limit"),
        ("[" * 50_000, "is no JSON list (maximum recursion depth"),
        ("5", "must be text or a list of texts. Received: 5"),
        ("null", "must be text or a list of texts. Received: None"),
        ("[1]", "must be text or a list of texts. Received: [1]"),
        ('{""a"": 1}', "must be text or a list of texts. Received: {'a': 1}"),
        (r'[""\ud800""]', r"holds half a surrogate pair. Received: '\ud800'"),
        (r'[""a\nb""]', r"holds a line break. Received: 'a\nb'"),
    ],
)
def test_a_json_cell_that_is_no_list_of_texts_is_refused(tmp_path, cell, message):
    content = HEADER + f'a,,,"[""x"", ""y""]"\nb,,,"{cell}"\n'
    found = refusal(tmp_path, content, "catalog.label_separator=json")
    assert found.startswith(f"3: 'labels' {message}")
    assert len(found) < 300


@pytest.mark.parametrize("value", [5, True, {"a": 1}, ["x", 1], [["x"]]])
def test_labels_that_are_no_texts_are_refused(tmp_path, value):
    line = json.dumps({"id": "a", "title": "", "image": "", "labels": value})
    assert refusal(tmp_path, line, name="c.jsonl") == (
        f"1: 'labels' must be text or a list of texts. Received: {value!r}"
    )


@pytest.mark.parametrize("mark", ["\n", "\r", "\u2028", "\x85", "\x0b"])
def test_a_label_with_a_line_break_is_refused(tmp_path, mark):
    found = refusal(tmp_path, HEADER + f'a,,,"x{mark}y"\n')
    name = f"x{mark}y"
    assert found in (
        f"2: 'labels' holds a line break. Received: {name!r}",
        "2: 'labels' holds a line break. Received: 'x\\ny'",
    )


def test_single_label_reads_a_cell_as_one_label_and_refuses_two(tmp_path):
    found = load(tmp_path, HEADER + ROWS, "catalog.task=single_label")
    assert found.label_names == ("x", "x|y", "y|x|y")
    line = json.dumps({"id": "a", "title": "", "image": "", "labels": ["x", "y"]})
    one = refusal(tmp_path, line, "catalog.task=single_label", name="c.jsonl")
    assert one == (
        "1: 'labels' holds 2 labels and the task is single_label. Received: ['x', 'y']"
    )


def test_rare_labels_and_their_products_are_left_out(tmp_path):
    content = HEADER + "a,,,x\nb,,,x|z\nc,,,y\nd,,,y\ne,,,z\nf,,,q\n"
    options = ("catalog.min_products_per_label=2", "catalog.max_unlabelled_rate=0.2")
    found = load(tmp_path, content, *options)
    assert found.label_names == ("x", "y", "z")
    assert found.left_out == {"f": "no label that is kept"}
    assert found.split[5] == ""
    assert 5 not in np.concatenate([found.rows(split) for split in SPLITS])


def test_fewer_than_two_labels_are_refused(tmp_path):
    expected = (
        "fewer than two labels with at least 1 products in column 'labels'. "
        "Received: ['x']"
    )
    assert refusal(tmp_path, HEADER + "a,,,x\nb,,,x\n") == expected
    assert refusal(tmp_path, HEADER + "a,,,\n").endswith("Received: []")


def test_the_run_stops_past_the_share_of_unlabelled_products(tmp_path):
    content = HEADER + "a,,,x\nb,,,\nc,,,y\nd,,,x\n"
    found = load(tmp_path, content, "catalog.max_unlabelled_rate=0.25")
    assert found.left_out == {"b": "no label"}
    message = refusal(tmp_path, content, "catalog.max_unlabelled_rate=0.24")
    assert message == (
        "1 of 4 products have no usable label (the first: "
        f"{tmp_path / 'c.csv'}:3), more than max_unlabelled_rate = 0.24 allows"
    )


def test_a_finished_runs_labels_keep_their_order_and_all_is_test(tmp_path):
    content = "id,title,image,labels,split\na,,,x,train\nb,,,new|y,\nc,,,y,odd\n"
    found = load(tmp_path, content, label_names=["y", "q", "x"])
    assert found.label_names == ("y", "q", "x")
    assert labels_of(found) == [["x"], ["y"], ["y"]]
    assert found.unknown_labels == ("new",)
    assert found.split.tolist() == ["test"] * 3


# --------------------------------------------------------------------- splits


def test_the_hash_of_a_name_cuts_the_shares_in_order():
    for name in ("a", "MALM", "漢", "\ud800"):
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        place = int(digest[:16], 16) / 16**16
        cuts = [(0.6, "train"), (0.75, "fusion"), (0.85, "validation"), (1.0, "test")]
        expected = next(split for edge, split in cuts if place < edge)
        shares = Splits(train=0.6, fusion=0.15, validation=0.1, test=0.15)
        assert split_of(name, shares) == expected


def test_splits_have_about_their_shares_and_none_of_zero():
    shares = Splits(train=0.7, fusion=0.2, validation=0.0, test=0.1)
    names = [split_of(str(i), shares) for i in range(20_000)]
    assert "validation" not in names
    for name, share in (("train", 0.7), ("fusion", 0.2), ("test", 0.1)):
        assert abs(names.count(name) / 20_000 - share) < 0.015


def test_five_turns_of_the_wheel_test_everybody_once():
    shares = Splits(train=0.6, fusion=0.1, validation=0.1, test=0.2)
    names = [str(i) for i in range(2_000)]
    turns = [0.0, 0.2, 0.4, 0.6, 0.8]
    tested = [[split_of(x, shares, turn) for turn in turns] for x in names]
    assert all(x.count("test") == 1 and x.count("train") == 3 for x in tested)


def test_folds_are_about_equal_and_say_nothing_of_the_split():
    shares = Splits()
    train = [str(i) for i in range(6_000) if split_of(str(i), shares) == "train"]
    counts = np.bincount([fold_of(x, 4) for x in train], minlength=4)
    assert (np.abs(counts / len(train) - 0.25) < 0.02).all()


def test_a_share_of_the_products_is_of_every_label_and_part_of_a_larger_one():
    draw = np.random.default_rng(5)
    labels = [np.array([x]) for x in draw.choice(4, 3_000, p=[0.6, 0.3, 0.095, 0.005])]
    groups = np.array([f"g{x // 2}" for x in range(3_000)])
    masks = [thinned(labels, groups, rate) for rate in (0.1, 0.4, 1.0)]
    assert masks[2].all()
    assert (masks[0] <= masks[1]).all()
    assert abs(masks[0].mean() - 0.1) < 0.01
    assert abs(masks[1].mean() - 0.4) < 0.01
    for group in np.unique(groups):
        assert len(set(masks[0][groups == group])) == 1
    flat = np.concatenate(labels)
    shares = np.bincount(flat[masks[1]], minlength=4) / np.bincount(flat)
    assert (np.abs(shares[:3] - 0.4) < 0.1).all()
    assert np.bincount(flat[masks[0]], minlength=4).all()


def test_a_share_of_the_data_spares_what_is_measured(tmp_path):
    whole = load(tmp_path, many(range(400)))
    tenth = load(tmp_path, many(range(400)), "catalog.data_rate=0.1")
    for split in SPLITS:
        before, now = (len(x.rows(split)) for x in (whole, tenth))
        if split in ("validation", "test"):
            assert now == before
        else:
            assert 0.09 * before <= now <= 0.1 * before + 2
    assert len(tenth.thinned_out) == (tenth.split == "").sum()
    assert not tenth.left_out
    assert tenth.label_names == whole.label_names
    assert tenth.fingerprint() != whole.fingerprint()


def many(numbers):
    return HEADER + "".join(f"P{i},,,{'xy'[i % 2]}\n" for i in numbers)


def test_adding_rows_moves_nobody(tmp_path):
    few = load(tmp_path, many(range(0, 60, 3)))
    more = load(tmp_path, many(reversed(range(60))), "seed=9")
    splits = dict(zip(more.ids, more.split, strict=True))
    assert {splits[i] == s for i, s in zip(few.ids, few.split, strict=True)} == {True}
    assert set(more.split) == set(SPLITS)


def test_splits_share_no_product_and_hold_all(tmp_path):
    found = load(tmp_path, many(range(60)))
    rows = np.concatenate([found.rows(split) for split in SPLITS])
    assert sorted(rows) == list(range(60))


def test_a_group_is_never_split(tmp_path):
    content = HEADER.replace("\n", ",group\n") + "".join(
        f"P{i},,,{'xy'[i % 2]},{f'G{i % 10}' if i < 40 else ' '}\n" for i in range(60)
    )
    found = load(tmp_path, content)
    for group in range(10):
        assert len(set(found.split[group:40:10])) == 1
    alone = load(tmp_path, many(range(60)))
    assert found.split[40:].tolist() == alone.split[40:].tolist()
    assert found.split[:40].tolist() != alone.split[:40].tolist()
    assert found.split_groups == ()


def test_groups_are_as_named_or_the_id_whatever_the_labels_come_from(tmp_path):
    content = "id,title,image,labels,group\na,,,x, g \nb,,,y,\nc,,,y,g\n"
    assert load(tmp_path, content).groups.tolist() == ["g", "b", "g"]
    finished = load(tmp_path, content, label_names=["x", "y"])
    assert finished.groups.tolist() == ["g", "b", "g"]
    without = load(tmp_path, HEADER + ROWS)
    assert without.groups.tolist() == without.ids.tolist()


def test_a_split_column_wins_and_its_gaps_are_filled(tmp_path):
    content = HEADER.replace("\n", ",split\n") + "".join(
        f"P{i},,,{'xy'[i % 2]},{'fusion' if i < 9 else ''}\n" for i in range(20)
    )
    found = load(tmp_path, content)
    assert found.split[:9].tolist() == ["fusion"] * 9
    assert (
        found.split[9:].tolist() == load(tmp_path, many(range(20))).split[9:].tolist()
    )


def test_groups_that_a_split_column_tears_apart_are_told(tmp_path):
    content = "id,title,image,labels,group,split\n" + (
        "a,,,x,g,train\nb,,,y,g,test\nc,,,x,h,test\nd,,,x,h,test\n"
    )
    assert load(tmp_path, content).split_groups == ("g",)


def test_an_unknown_split_is_named_with_the_nearest(tmp_path):
    content = HEADER.replace("\n", ",split\n") + "a,,,x,train\nb,,,y,Test\n"
    assert refusal(tmp_path, content) == (
        "3: 'split' names an unknown split. Received: 'Test'; did you mean 'test'?"
    )


def test_a_refused_catalog_leaves_the_folder_as_it_was(tmp_path):
    refusal(tmp_path, HEADER + "a,,,x\na,,,y\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv", "e.toml"]
