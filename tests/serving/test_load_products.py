"""The products that a load test sends, and what it makes of the answers."""

import json

import pytest

from serving import load_test
from serving.flags import FlagError
from serving.load.direct import DirectError, _check_same
from serving.load.loops import Sample
from serving.load.products import CatalogError, batches, read_products, spoil
from serving.load.report import as_text, compare, summarise

ROWS = [
    {"name": "red shoe", "photo": "images/1.jpg"},
    {"name": "hat, of straw", "photo": ""},
    {"name": "été", "photo": "images/1.jpg"},
]
COLUMNS = {"title": "name", "image": "photo"}


@pytest.fixture
def catalog(tmp_path):
    """Writes the rows in a format and gives the file's path."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(b"\xff\xd8 photo")

    def write(suffix):
        file = tmp_path / f"catalog{suffix}"
        if suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
        elif suffix == ".jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        else:
            mark = "\t" if suffix == ".tsv" else ","
            lines = [f'"{row["name"]}"{mark}{row["photo"]}\n' for row in ROWS]
            file.write_text(f"name{mark}photo\n" + "".join(lines), "utf-8")
        return file

    return write


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_products(catalog, suffix):
    products = read_products(catalog(suffix), COLUMNS, images=["image"])
    assert products == [
        {"title": b"red shoe", "image": b"\xff\xd8 photo"},
        {"title": b"hat, of straw", "image": b""},
        {"title": "été".encode(), "image": b"\xff\xd8 photo"},
    ]


def test_no_more_products_are_read_than_asked_for(catalog):
    assert len(read_products(catalog(".csv"), COLUMNS, images=["image"], limit=2)) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name\n", "holds no products"),
        ("title\nshoe\n", "has no column 'name'. Its columns: title"),
        ("name,photo\nshoe\n", "has not the header's cells"),
        ("name,photo\nshoe,,x\n", "has not the header's cells"),
        ('name,photo\n"shoe\n', "cannot be read: unexpected end of data"),
        ("name,photo\nshoe,2.jpg\n", "product 1: image"),
    ],
)
def test_a_bad_catalog_is_one_line(tmp_path, text, problem):
    file = tmp_path / "catalog.csv"
    file.write_text(text)
    with pytest.raises(CatalogError) as caught:
        read_products(file, COLUMNS, images=["image"])
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gone.csv", "catalog.xlsx"])
def test_a_file_that_is_not_there_or_of_another_kind_is_one_line(tmp_path, name):
    with pytest.raises(CatalogError, match=r"No such file|expected \.csv"):
        read_products(tmp_path / name, COLUMNS)


def test_shares_are_of_the_products_that_have_the_input():
    products = [{"image": b"12345678"}] * 8 + [{"image": b""}] * 8
    spoilt = spoil(products, without={"image": 0.25}, corrupt={"image": 0.5}, seed=3)
    images = [product["image"] for product in spoilt]
    assert images.count(b"") == 8 + 2
    assert images.count(b"1234") == 4
    assert images.count(b"12345678") == 2
    assert spoilt == spoil(
        products, without={"image": 0.25}, corrupt={"image": 0.5}, seed=3
    )
    assert products[0]["image"] == b"12345678"


def test_every_product_is_sent_and_every_batch_is_full():
    products = [{"title": bytes([number])} for number in range(5)]
    sent = batches(products, 3)
    assert [len(batch["title"]) for batch in sent] == [3, 3]
    assert {value for batch in sent for value in batch["title"]} == {
        product["title"] for product in products
    }
    assert batches(products[:2], 5) == [
        {"title": [b"\0", b"\1", b"\0", b"\1", b"\0"]},
    ]


def test_a_time_out_counts_in_the_percentiles_and_a_refusal_does_not():
    samples = [Sample(float(n), n + 0.0, n + 0.1, "OK") for n in range(8)]
    samples.append(Sample(8.0, 8.25, 10.0, "DEADLINE_EXCEEDED"))
    samples.append(Sample(9.0, 9.0, 9.001, "UNAVAILABLE"))
    found = summarise(samples, batch_size=4, duration_s=10.0)
    assert (found["requests"], found["answered"]) == (10, 8)
    assert found["errors"] == {"DEADLINE_EXCEEDED": 1, "UNAVAILABLE": 1}
    assert found["requests_per_s"] == pytest.approx(0.8)
    assert found["products_per_s"] == pytest.approx(3.2)
    assert found["latency_ms"]["p50"] == pytest.approx(100)
    assert found["latency_ms"]["max"] == pytest.approx(2000)
    # Nine values: the 99th percentile lies 0.92 of the way from 100 to 2,000.
    assert found["latency_ms"]["p99"] == pytest.approx(100 + 0.92 * 1900)
    assert found["start_delay_p99_ms"] > 200


def test_latency_counts_from_the_moment_a_request_was_due():
    assert Sample(1.0, 3.0, 3.5, "OK").latency_s == 2.5


def test_answers_after_the_end_do_not_raise_the_throughput():
    samples = [Sample(0.0, 0.0, 4.0, "OK"), Sample(1.0, 1.0, 4.0, "OK")]
    found = summarise(samples, batch_size=1, duration_s=2.0)
    assert found["requests_per_s"] == 0.5


def test_no_answer_at_all_is_no_latency_and_not_zero():
    found = summarise([], batch_size=1, duration_s=1.0)
    assert found["latency_ms"] is None
    result = {
        **{"server": "h:1", "protocol": "gRPC", "model_name": "m", "users": 1},
        **{"version": None, "label": "canary", "loop": "closed", "duration_s": 1.0},
        **{"products": 3, "catalog": "c.csv", "runs": [found]},
    }
    text = as_text(result)
    assert "m (canary), closed loop, 1 users" in text
    assert "nan" in text


def test_overhead_is_the_ratio_and_the_difference_of_the_medians():
    found = compare([0.010, 0.030, 0.9], [0.010, 0.020, 0.5], batch_size=32)
    assert (found["batch_size"], found["pairs"]) == (32, 3)
    assert found["ratio"] == pytest.approx(1.5)
    assert found["overhead_ms"] == pytest.approx(10)


def test_another_models_answers_are_not_compared():
    import numpy as np

    scores = {"scores": np.array([[0.75, 0.25]], np.float32)}
    _check_same(scores, scores)
    _check_same({"": scores["scores"]}, scores)  # REST, single output
    with pytest.raises(DirectError, match="another model or version"):
        _check_same(scores, {"scores": scores["scores"] + 0.1})
    with pytest.raises(DirectError, match="outputs differ"):
        _check_same(scores, {"probabilities": scores["scores"]})


CALL = ["--server", "127.0.0.1:1", "--catalog", "c.csv", "--columns", "title"]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "one of the arguments --users --rate is required"),
        (["--users", "1", "--rate", "2"], "not allowed with argument"),
        (["--users", "0"], "--users: expected 1 or more. Received: '0'"),
        (["--rate", "0"], "--rate: expected more than 0. Received: '0'"),
        (["--users", "1", "--batch", "x"], "--batch: expected 1 or more."),
        (["--users", "1", "--durations", "1"], "did you mean --duration?"),
        (["--users", "1", "--to", "gone/x.json"], "--to: no directory gone"),
    ],
)
def test_a_bad_flag_is_one_line(capsys, flags, problem):
    assert load_test.main([*CALL, *flags]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.startswith("serving.load_test: ")
    assert error.count("\n") == 1


def test_shares_name_an_input_of_the_columns():
    shares = load_test._shares("--without", ["image=0.2"], ["title", "image"])
    assert shares == {"image": 0.2}
    with pytest.raises(FlagError, match="did you mean 'image'"):
        load_test._shares("--without", ["imgae=0.2"], ["title", "image"])
    for word in ("image=2", "image", "image=x", "image=nan"):
        with pytest.raises(FlagError, match="expected INPUT=0 to 1"):
            load_test._shares("--without", [word], ["image"])


def test_columns_are_named_like_their_input_unless_told():
    columns = load_test._columns(["title=title_masked", "image"])
    assert columns == {"title": "title_masked", "image": "image"}
    with pytest.raises(FlagError, match="each INPUT once"):
        load_test._columns(["title", "title=name"])
