import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmm import tables
from tfmm.errors import CatalogError

ROWS = [("a", "x"), ("b", "y, z"), ("c", "")]


def written(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path):
    """The message after the file's name; whole and in chunks it is the same."""
    with pytest.raises(CatalogError) as caught:
        tables.read(path)
    with pytest.raises(CatalogError) as again:
        list(tables.read_chunks(path, 1))
    assert str(again.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}:").strip()


# ------------------------------------------------------------------ four kinds


def test_the_four_kinds_of_file_give_the_same_table(tmp_path):
    names = ["id", "text"]
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(names)}
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in ROWS]
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    files = [
        written(tmp_path, 'id,text\na,x\nb,"y, z"\nc,\n'),
        written(tmp_path, "id\ttext\na\tx\nb\ty, z\nc\t\n", "t.tsv"),
        written(tmp_path, "\n".join(lines), "t.jsonl"),
        written(tmp_path, "\n".join(lines) + "\n", "T.NDJSON"),
        tmp_path / "t.parquet",
    ]
    for file in files:
        table = tables.read(file)
        assert table.columns == columns, file
        assert len(table) == 3
        assert "text" in table
        assert "txt" not in table


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
def test_chunks_hold_the_rows_of_the_whole_and_their_numbers(tmp_path, name):
    path = tmp_path / name
    if name == "t.parquet":
        pq.write_table(pa.table({"id": ["a", "b", "c"]}), path)
    elif name == "t.csv":
        path.write_text("id\na\nb\nc\n")
    else:
        path.write_text('{"id": "a"}\n{"id": "b"}\n{"id": "c"}\n')
    whole = tables.read(path)
    chunks = list(tables.read_chunks(path, 2))
    assert [chunk.columns["id"] for chunk in chunks] == [["a", "b"], ["c"]]
    assert chunks[1].where(0) == whole.where(2)
    assert whole.row_number(0) == (2 if name == "t.csv" else 1)


def test_text_is_read_as_written(tmp_path):
    path = written(tmp_path, 'id,text\n001,NA\n1.50,null\n"say ""hi""", é 漢 🪑 \n')
    assert tables.read(path).columns == {
        "id": ["001", "1.50", 'say "hi"'],
        "text": ["NA", "null", " é 漢 🪑 "],
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_quoted_line_break_stays_in_its_cell(tmp_path, end):
    path = written(tmp_path, f'id,text{end}a,"x{end}y"{end}b,z{end}')
    table = tables.read(path)
    assert table.columns == {"id": ["a", "b"], "text": [f"x{end}y", "z"]}
    assert table.where(1) == f"{path}:3"


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    for content, name in (('"id",b\n1,2\n', "t.csv"), ('{"id": "1"}', "t.jsonl")):
        path = written(tmp_path, content.encode("utf-8-sig"), name)
        assert tables.read(path).columns["id"] == ["1"]


def test_blank_lines_are_skipped_and_counted(tmp_path):
    for content, name in (
        ("id,b\n1,2\n\n3,4\n\n", "t.csv"),
        ('\n{"id": 1}\n \n{"id": 3}\n\n', "t.jsonl"),
    ):
        table = tables.read(written(tmp_path, content, name))
        assert len(table) == 2
        assert [table.row_number(row) for row in range(2)] == [2, 4]


def test_columns_without_a_name_do_not_stop_a_table(tmp_path):
    path = written(tmp_path, "id,,\na,,\n")
    assert tables.read(path).column("id") == ["a"]


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\ufeff", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("id,text", "the file holds no products"),
        ("id,text\n\n", "the file holds no products"),
        ("id,text\na,x\nb\n", "3: expected 2 cells, as in the header. Received: 1"),
        # Every row too long: pandas would cut the last cells off in silence.
        ("id,text\na,x,y\n", "2: expected 2 cells, as in the header. Received: 3"),
        (
            "id,text\na,x\n\nb,y,\n",
            "4: expected 2 cells, as in the header. Received: 3",
        ),
        ("id,text,id\na,x,b\n", "the column 'id' is there twice"),
        ('id,text\na,"x\nb,y\n', "2: not a table: unexpected end of data"),
        ('id,text\na,"x"y\n', "2: not a table: ',' expected after '\"'"),
        (
            "id,text\na," + "x" * 140_000,
            "2: not a table: field larger than field limit (131072)",
        ),
    ],
)
def test_a_broken_csv_is_refused_with_its_row(tmp_path, content, message):
    assert refusal(written(tmp_path, content)) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file holds no products"),
        ("\n\n", "the file holds no products"),
        ('{"id": 1}\n{"id": 2\n', "2: no JSON: Expecting ',' delimiter"),
        ("[1]", "1: expected a JSON object"),
    ],
)
def test_a_broken_json_line_is_refused_with_its_number(tmp_path, content, message):
    assert refusal(written(tmp_path, content, "t.jsonl")) == message


@pytest.mark.parametrize("value", ["9" * 5_000, "[" * 100_000, r'"\ud83e"'])
def test_json_that_nothing_can_hold_is_refused(tmp_path, value):
    path = written(tmp_path, f'{{"id": 1}}\n{{"id": {value}}}\n', "t.jsonl")
    assert refusal(path).startswith("2: unusable JSON: ")


def test_an_escaped_pair_of_surrogates_is_a_letter(tmp_path):
    path = written(tmp_path, r'{"id": "\ud83e\ude91"}', "t.jsonl")
    assert tables.read(path).column("id") == ["🪑"]


def test_latin_1_is_refused_with_row_column_and_cell(tmp_path):
    advice = "is not UTF-8 (save the file as UTF-8). Received:"
    csv = 'id,text\na,"x\ny"\nb,café\n'.encode("latin-1")
    assert refusal(written(tmp_path, csv)) == f"3: 'text' {advice} b'caf\\xe9'"
    header = "id,café\na,b\n".encode("latin-1")
    found = refusal(written(tmp_path, header))
    assert found == f"1: the header {advice} b'caf\\xe9'"
    line = '{"id": "café"}'.encode("latin-1")
    found = refusal(written(tmp_path, line, "t.jsonl"))
    assert found == f'1: the line {advice} b\'{{"id": "caf\\xe9"}}\''


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_as_not_utf_8(tmp_path, encoding):
    path = written(tmp_path, "id,text\na,é\n".encode(encoding))
    assert "is not UTF-8" in refusal(path)
    path = written(tmp_path, '{"id": 1}'.encode(encoding), "t.jsonl")
    found = refusal(path)
    assert "is not UTF-8" in found or "no JSON" in found


def test_what_is_no_file_or_no_table_is_refused(tmp_path):
    (tmp_path / "d.csv").mkdir()
    assert refusal(tmp_path / "d.csv") == "a folder, not a catalog file"
    assert refusal(tmp_path / "x.csv") == "no such catalog file"
    kinds = "expected a table ending in .csv, .tsv, .jsonl, .ndjson, .parquet"
    assert refusal(tmp_path / "x.xlsx") == kinds
    assert refusal(tmp_path) == kinds


def test_an_unreadable_file_is_one_line(tmp_path, monkeypatch):
    path = written(tmp_path, "id\na\n")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert refusal(path) == "cannot be read: Permission denied"


# --------------------------------------------------------------------- Parquet


def test_null_and_nan_in_parquet_are_missing(tmp_path):
    path = tmp_path / "t.parquet"
    columns = {
        "id": pa.array(["a", "b"]),
        "text": pa.array(["x", None]),
        "price": pa.array([1.5, float("nan")]),
        "none": pa.array([None, None]),
        "labels": pa.array([["u", "v"], None]),
    }
    pq.write_table(pa.table(columns), path)
    table = tables.read(path)
    assert table.column("text") == ["x", ""]
    assert table.text_column("price") == ["1.5", ""]
    assert table.text_column("none") == ["", ""]
    assert table.column("labels") == [["u", "v"], ""]


def test_a_parquet_file_cut_off_or_overwritten_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [f"p{i}" for i in range(1_000)]}), path)
    whole = path.read_bytes()
    for damaged in (b"", b"id\na\n", whole[:-9], whole[:20] + b"\xff" * 380):
        path.write_bytes(damaged + whole[400:] if len(damaged) == 400 else damaged)
        assert refusal(path).startswith("not a whole Parquet file: ")


def test_parquet_without_rows_or_with_a_column_twice_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), path)
    assert refusal(path) == "the file holds no products"
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, path)
    assert refusal(path) == "the column 'a' is there twice"


def test_parquet_text_that_is_not_utf_8_is_refused_with_its_row(tmp_path):
    path = tmp_path / "t.parquet"
    buffers = [
        None,
        pa.py_buffer(b"\0\0\0\0\1\0\0\0\5\0\0\0"),
        pa.py_buffer(b"acaf\xe9"),
    ]
    pq.write_table(
        pa.table({"id": pa.Array.from_buffers(pa.string(), 2, buffers)}), path
    )
    assert refusal(path) == "2: 'id' is not UTF-8. Received: b'caf\\xe9'"


# --------------------------------------------------------------------- columns


def test_a_missing_column_is_answered_with_the_nearest(tmp_path):
    path = written(tmp_path, "id,title\na,b\n")
    with pytest.raises(CatalogError) as caught:
        tables.read(path).column("titel")
    assert str(caught.value) == f"{path}: no column 'titel'; did you mean 'title'?"


def test_numbers_are_text_as_written_and_lists_are_no_text(tmp_path):
    lines = '{"id": 7, "x": 1.5}\n{"id": true, "x": null}\n{"id": "a", "x": ["b"]}\n'
    path = written(tmp_path, lines, "t.jsonl")
    table = tables.read(path)
    assert table.text_column("id") == ["7", "True", "a"]
    with pytest.raises(CatalogError) as caught:
        table.text_column("x")
    assert str(caught.value) == f"{path}:3: 'x' must be text. Received: ['b']"


def test_a_key_that_some_json_lines_leave_out_is_empty_there(tmp_path):
    path = written(tmp_path, '{"id": "a"}\n{"id": "b", "image": "b.jpg"}', "t.jsonl")
    for table in (tables.read(path), next(tables.read_chunks(path, 1))):
        assert list(table.columns) == ["id", "image"]
    assert tables.read(path).columns["image"] == ["", "b.jpg"]
