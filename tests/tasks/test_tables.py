"""Files of rows: what goes in comes out, and whatever is wrong is said in one line with its place."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainflat.core.errors import InputError
from trainflat.tasks.tables import Table, read_table

# Every character that UTF-8 can hold but NUL.
cell = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
tables = st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(cell, min_size=n, max_size=n), min_size=1, max_size=6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


def columns_of(rows):
    return {f"c{i}": list(column) for i, column in enumerate(zip(*rows, strict=True))}


def write_csv(path: Path, rows, **options):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, **options)
    writer.writerow([f"c{i}" for i in range(len(rows[0]))])
    writer.writerows(rows)
    path.write_bytes(buffer.getvalue().encode())


@settings(deadline=None)
@given(tables, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), st.sampled_from(["\n", "\r\n"]))
def test_csv_round_trip(folder, rows, quoting, ends):
    if (
        quoting == csv.QUOTE_MINIMAL and ends == "\n"
    ):  # the writer leaves \r bare there, which ends a line for any reader
        rows = [[value.replace("\r", "") for value in row] for row in rows]
    path = folder / "x.csv"
    write_csv(path, rows, quoting=quoting, lineterminator=ends)
    assert read_table(path).columns == columns_of(rows)


@settings(deadline=None)
@given(tables)
def test_tsv_round_trip_with_quotes(folder, rows):
    path = folder / "x.tsv"
    write_csv(path, rows, delimiter="\t", quoting=csv.QUOTE_ALL)
    assert read_table(path).columns == columns_of(rows)


@settings(deadline=None)
@given(tables)
def test_tsv_round_trip_without_quotes(folder, rows):
    # As GLUE's own files: marks are part of the text; tabs and line ends cannot occur, nor can a line without anything.
    # One mark that nothing closes shows any reader that quoting is not meant.
    clean = [["".join(c for c in value if c not in "\t\r\n") + "." for value in row] for row in rows]
    clean.append(['"Open, he said'] * len(rows[0]))
    path = folder / "plain.tsv"
    lines = [[f"c{i}" for i in range(len(rows[0]))], *clean]
    path.write_bytes("".join("\t".join(line) + "\n" for line in lines).encode())
    assert read_table(path).columns == columns_of(clean)


@settings(deadline=None)
@given(tables)
def test_json_and_parquet_round_trip(folder, rows):
    columns = columns_of(rows)
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    (folder / "x.jsonl").write_text("\n".join(json.dumps(o, ensure_ascii=False) for o in objects), encoding="utf8")
    (folder / "list.json").write_text(json.dumps(objects), encoding="utf8")
    (folder / "lines.json").write_text("\n".join(map(json.dumps, objects)), encoding="utf8")
    pq.write_table(pa.table(columns), folder / "x.parquet")
    for name in ("x.jsonl", "list.json", "lines.json", "x.parquet"):
        assert read_table(folder / name).columns == columns


@pytest.mark.parametrize(
    "text", ['"Yes."\t1\n"No," she said.\t0\n', 'He said "yes"\t1\n"No."\t0\n', '"Yes."\t1\n"No."\t0\n']
)
def test_quotation_marks_in_tsv_are_text(tmp_path, text):
    (tmp_path / "x.tsv").write_text("sentence\tlabel\n" + text, encoding="utf8")
    assert read_table(tmp_path / "x.tsv").columns["sentence"] == [line.split("\t")[0] for line in text.splitlines()]


def test_what_pandas_writes_as_tsv(tmp_path):
    (tmp_path / "x.tsv").write_text('text\tlabel\n"a\tb"\t1\n"say ""no"""\t0\n', encoding="utf8")
    assert read_table(tmp_path / "x.tsv").columns["text"] == ["a\tb", 'say "no"']


def test_byte_order_mark_blank_lines_and_long_texts(tmp_path):
    long = "x" * 200_000
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbftext,label\r\n\r\n" + long.encode() + b",1\r\n\r\n")
    limit = csv.field_size_limit()
    assert read_table(tmp_path / "x.csv").columns == {"text": [long], "label": ["1"]}
    assert csv.field_size_limit() == limit


def test_folder_names_are_no_columns(tmp_path):
    path = tmp_path / "lang=en" / "x.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"text": ["a"]}), path)
    assert list(read_table(path).columns) == ["text"]


BROKEN = {
    "empty.csv": (b"", "is empty"),
    "empty.parquet": (b"", "is empty"),
    "header.csv": (b"text,label\n", "has no rows"),
    "blank.csv": (b"\n\n", "only blank lines"),
    "nothing.json": (b"[]", "has no rows"),
    "latin.csv": ("text,label\nok,1\ncafé,0\n".encode("latin1"), "line 3 is not UTF-8 .byte 0xe9."),
    "wide.csv": ("text,label\nok,1\n".encode("utf-16-le"), "line 1 holds a NUL byte.*encoding: utf-16-le"),
    "nul.csv": (b"text,label\na\0b,1\n", "line 2 holds a NUL byte"),
    "ragged.csv": (b"text,label\nok,1\nwell, then,0\n", "line 3 has 3 fields, the header has 2"),
    "ragged.tsv": (b"text\tlabel\nok\n", "line 2 has 1 fields, the header has 2"),
    "later.csv": (b'text,label\n"two\nlines",1\nbad\n', "line 4 has 1 fields"),
    "open.csv": (b'text,label\nok,1\n"never closed, never,0\nx,1\n', "line 3: unexpected end of data"),
    "inner.csv": (b'text,label\n"a"b, c,1\n', "line 2: ',' expected"),
    "twice.csv": (b"text,text\na,b\n", "the column 'text' twice"),
    "key.jsonl": (b'{"text": "a"}\n{"text": "a", "label": 1, "label": 2}\n', "line 2 has the key 'label' twice"),
    "key.json": (b'[{"text": "a"}, {"text": "a", "text": "a"}]', "entry 2 has the key 'text' twice"),
    "bad.jsonl": (b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    "scalar.jsonl": (b'{"text": "a"}\n3\n', "line 2 is 3, not an object"),
    "bad.json": (b'[{"text": "a"},', "is not JSON"),
    "scalars.json": (b"[1, 2]", "entry 1 is 1, not an object"),
    "deep.json": (b"[" * 100_000, "is not JSON"),
    "bad.parquet": (b"PAR1 and then something else", "is not a whole parquet file"),
    "pointer.parquet": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
        "Git LFS pointer.*git lfs pull",
    ),
    "x.xlsx": (b"PK", "files that end in '.xlsx' cannot be read. Use one of .parquet, .csv"),
    "noending": (b"text", "files that end in '' cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_files_get_one_line_that_names_them(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_parquet_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["a" * 100] * 100}), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a whole parquet file"):
        read_table(tmp_path / "x.parquet")


def test_a_column_twice_in_parquet_is_refused(tmp_path):
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["text", "label", "label"])
    pq.write_table(twice, tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet has the column 'label' twice"):
        read_table(tmp_path / "x.parquet")


def test_a_key_twice_in_what_is_no_row_disturbs_nobody(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a", "meta": {"k": 1, "k": 2}}\n', encoding="utf8")
    assert read_table(tmp_path / "x.jsonl").columns["text"] == ["a"]


def test_a_name_that_no_file_can_have_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read: File name too long") as caught:
        read_table(tmp_path / ("a" * 5000 + ".csv"))
    assert len(str(caught.value)) < 300


def test_a_folder_and_nothing_are_no_files(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        read_table(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "row 2, column 'text': the text is missing"),
        (3, "row 2, column 'text': 3 is not a text"),
        (b"bytes", "is not a text"),
        (" \t", "row 2, column 'text': the text is empty"),
        ("a\0b", "row 2, column 'text': the text holds a NUL byte"),
        ("a\ud800", "half of a surrogate pair"),
    ],
)
def test_bad_texts_are_named(value, message):
    with pytest.raises(InputError, match=f"^x.csv: .*{message}"):
        Table("x.csv", {"text": ["fine", value]}, "file:x.csv").texts("text")


def test_a_missing_column_names_the_nearest():
    with pytest.raises(
        InputError, match=r"^x.csv: no column is called 'txt'. Did you mean 'text'\? Columns: text, label."
    ):
        Table("x.csv", {"text": [], "label": []}, "file:x.csv").column("txt")
