"""Delimited files of every shape are read as they were meant, and what had to be decided is said."""

import bz2
import csv
import gzip
import io
import lzma
import os
import re
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trainflat.core.errors import InputError
from trainflat.tasks.opening import Shape
from trainflat.tasks.tables import read_table

TWO = {"text": ["good", "bad"], "label": ["1", "0"]}
SPLIT = {"text": ['"Loved it from the start', "Dull", 'Not for me"', "Fine"], "label": ["1", "0", "0", "1"]}

# name: (content, options, columns, what the notes say)
SHAPES = {
    "spreadsheet.csv": (
        "v1,v2,,,\nham,hello,,,\nspam,win,,,\n",
        {},
        {"v1": ["ham", "spam"], "v2": ["hello", "win"]},
        "",
    ),
    "spilled.csv": (
        "v1,v2,\nham,hello,\nspam,win,now\n",
        {},
        {"v1": ["ham", "spam"], "v2": ["hello", "win"]},
        "1 fields .*line 3: 'now'",
    ),
    "index.csv": (",text,label\n0,good,1\n1,bad,0\n", {}, TWO, "column 1 has no name and is not read"),
    "trailing.csv": ("text,label\ngood,1,\nbad,0,,\n", {}, TWO, ""),
    "spaced.csv": (" text , label\ngood,1\nbad,0\n", {}, TWO, ""),
    "behind.csv": (
        'text, label\n"good, very", 1\nbad, "0"\n',
        {},
        {"text": ["good, very", "bad"], "label": ["1", "0"]},
        "spaces before fields are left out, since some stand before quotation marks",
    ),
    "meant.csv": ('text,label\n" ""good""",1\n bad,0\n', {}, {"text": [' "good"', " bad"], "label": ["1", "0"]}, ""),
    "semicolon.csv": ("text;label\ngood;1\nbad;0\n", {}, TWO, "separated by a semicolon, as found"),
    "commas.csv": (
        "text;label\ngood, very;1\nbad, so;0\n",
        {},
        {"text": ["good, very", "bad, so"], "label": ["1", "0"]},
        "semicolon",
    ),
    "tab.csv": ("text\tlabel\ngood\t1\nbad\t0\n", {}, TWO, "separated by a tab, as found"),
    "bar.tsv": ("text|label\ngood|1\nbad|0\n", {}, TWO, "separated by a bar, as found"),
    "comma.tsv": ("text,label\ngood,1\nbad,0\n", {}, TWO, "separated by a comma, as found"),
    "excel.csv": ("sep=;\r\ntext;label\r\ngood;1\r\nbad;0\r\n", {}, TWO, ""),
    "given.csv": ("text^label\ngood^1\nbad^0\n", {"separator": "^"}, TWO, ""),
    "named.txt": ("text\tlabel\ngood\t1\nbad\t0\n", {"separator": "tab"}, TWO, ""),
    "headless.tsv": (
        "gj04\t1\t\tgood\nbc01\t0\t*\tbad\n",
        {"columns": ("", "label", "", "text")},
        TWO,
        "column 1, 3 has no name",
    ),
    "one.csv": ("text\ngood\nbad\n", {}, {"text": ["good", "bad"]}, ""),
    "comments.csv": ("# made by hand\n# see above\ntext,label\ngood,1\nbad,0\n", {}, TWO, "2 comment lines"),
    "hash.csv": ("#text,label\n#good,1\nbad,0\n", {}, {"#text": ["#good", "bad"], "label": ["1", "0"]}, ""),
    "cr.csv": ("text,label\rgood,1\rbad,0\r", {}, TWO, ""),
    "blank.csv": ("\n\ntext,label\n\ngood,1\n\nbad,0\n\n", {}, TWO, ""),
    "doubled.csv": (
        'text,label\n"say ""no"", now",1\nbad,0\n',
        {},
        {"text": ['say "no", now', "bad"], "label": ["1", "0"]},
        "",
    ),
    "backslash.csv": (
        'text,label\n"say \\"no\\", now",1\nbad,0\n',
        {},
        {"text": ['say "no", now', "bad"], "label": ["1", "0"]},
        "backslashes",
    ),
    "lines.csv": (
        'text,label\n"two\nlines",1\nbad,0\n',
        {},
        {"text": ["two\nlines", "bad"], "label": ["1", "0"]},
        "1 row with lines inside .* lines 2 to 3",
    ),
    "comma in lines.csv": (
        'text,label\n"Good, but\nnot",1\nbad,0\na,1\nb,0\n',
        {},
        {"text": ["Good, but\nnot", "bad", "a", "b"], "label": ["1", "0", "1", "0"]},
        "with lines inside",
    ),
    "swallowed.csv": (
        'text,label\n"Loved it from the start,1\nDull,0\nNot for me",0\nFine,1\n',
        {},
        SPLIT,
        "do not close on their line .*line 2",
    ),
    "swallowed.tsv": (
        'text\tlabel\n"Loved it from the start\t1\nDull\t0\nNot for me"\t0\nFine\t1\n',
        {},
        SPLIT,
        "do not close",
    ),
    "and doubled.tsv": (
        'text\tlabel\n"Loved it from the start\t1\nDull\t0\nNot for me"\t0\nCalled it ""art"" twice\t1\n',
        {},
        {"text": [*SPLIT["text"][:3], 'Called it ""art"" twice'], "label": SPLIT["label"]},
        "do not close",
    ),
    "swallowed and quoted.csv": (
        'text;label\n"Loved it;1\nNot for me";0\n"a; b";1\n',
        {},
        {"text": ['"Loved it', 'Not for me"', "a; b"], "label": ["1", "0", "1"]},
        "do not close",
    ),
    "never closed.csv": (
        'text,label\ngood,1\n"bad,0\n',
        {},
        {"text": ["good", '"bad'], "label": ["1", "0"]},
        "do not close",
    ),
    "all quoted.tsv": (
        '"text"\t"label"\n"two\nlines"\t"1"\n',
        {},
        {"text": ["two\nlines"], "label": ["1"]},
        "with lines inside",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_read_and_what_was_decided_is_said(tmp_path, name):
    content, options, columns, note = SHAPES[name]
    (tmp_path / name).write_bytes(content.encode())
    table = read_table(tmp_path / name, Shape(**options))
    assert table.columns == columns
    assert bool(table.notes) == bool(note)
    assert re.search(note, " ".join(table.notes))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text;label\ngood;1\nbad\n", {}, "line 3 has 1 fields, the header has 2"),
        ('"text","label"\n"1","a",1\n"2","b",0\n', {}, "line 2 has 3 fields, the header has 2.*row.names = FALSE"),
        ("a,1\nb,0\n", {"columns": ("text",)}, "line 1 has 2 fields, `columns` names 1"),
        ("text,label\na,1\n", {"columns": ("text", "label")}, "line 1 is the header, so leave `columns` out"),
        ("text,label\na,1\n", {"separator": ";;"}, "separator is one character"),
        ("text,text\na,1\n", {}, "the column 'text' twice. Rename one; if there is no header, name"),
        ("text,label\ncaf\u00e9,1\n", {"encoding": "ascii"}, "line 2 is not ASCII .byte 0xc3.. Name another"),
        ("text,label\na,1\n", {"encoding": "rot13"}, "'rot13' is no text encoding"),
        ("text,label\na,1\n", {"encoding": "no such"}, "'no such' is no text encoding"),
        ("sep=;\n", {}, "only blank lines"),
        ("# nothing but this\n", {}, "has no rows, at most a header"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, content, options, message):
    (tmp_path / "x.csv").write_bytes(content.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / "x.csv", Shape(**options))
    assert "\n" not in str(caught.value)


def test_options_of_delimited_files_are_refused_elsewhere(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n', encoding="utf8")
    for options in ({"columns": ("a",)}, {"separator": ";"}):
        with pytest.raises(InputError, match="is for delimited files"):
            read_table(tmp_path / "x.jsonl", Shape(**options))


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


INSIDE = {
    "x.csv": b"text,label\ngood,1\nbad,0\n",
    "x.tsv": b"text\tlabel\ngood\t1\nbad\t0\n",
    "x.jsonl": b'{"text": "good", "label": "1"}\n{"text": "bad", "label": "0"}\n',
    "x.ndjson": b'{"text": "good", "label": "1"}\n{"text": "bad", "label": "0"}\n',
    "x.json": b'[{"text": "good", "label": "1"}, {"text": "bad", "label": "0"}]',
}


@pytest.mark.parametrize("name", INSIDE)
def test_packed_files_are_read(tmp_path, name):
    for suffix, pack in PACKERS.items():
        (tmp_path / (name + suffix)).write_bytes(pack(INSIDE[name]))
        assert read_table(tmp_path / (name + suffix)).columns == TWO
    (tmp_path / "any.zip").write_bytes(zipped({name: INSIDE[name], "__MACOSX/._x": b"?"}))
    assert read_table(tmp_path / "any.zip").columns == TWO
    (tmp_path / name).write_bytes(gzip.compress(INSIDE[name]))  # named as if it were not packed
    assert read_table(tmp_path / name).columns == TWO


BOMBS = {
    "x.csv.gz": lambda: gzip.compress(b"text,label\n" + b"a,1\n" * 2**25),
    "x.csv.xz": lambda: lzma.compress(b"text,label\n" + b"a,1\n" * 2**25, preset=0),
    "x.zip": lambda: zipped({"x.csv": b"text,label\n" + b"a,1\n" * 2**25}),
}
DAMAGED = {
    "cut.csv.gz": (gzip.compress(bytes(range(256)) * 40)[:-200], "cannot be unpacked"),
    "cut.csv.bz2": (bz2.compress(b"text,label\n" * 99)[:30], "cannot be unpacked"),
    "cut.csv.xz": (lzma.compress(b"text,label\n" * 99)[:30], "cannot be unpacked"),
    "cut.zip": (zipped({"x.csv": b"text"})[:40], "cannot be unpacked"),
    "two.zip": (zipped({"a.csv": b"", "b.csv": b""}), "holds 2 files .a.csv, b.csv.. Unpack the one"),
    "book.csv": (zipped({"[Content_Types].xml": b"", "xl/x": b""}), "is an Excel workbook. Save it as CSV"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_fill_the_memory(tmp_path, name):
    (tmp_path / name).write_bytes(BOMBS[name]())
    with pytest.raises(InputError, match=r"unpacks to more than 6. MB.*`large: true`"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_and_other_archives_are_one_line(tmp_path, name):
    content, message = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / name)


def test_what_is_unpacked_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("trainflat.tasks.opening._BOMB", 10)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"text\n" + b"a\n" * 50_000))
    with pytest.raises(InputError, match="large: true"):
        read_table(tmp_path / "x.csv.gz")
    assert len(read_table(tmp_path / "x.csv.gz", Shape(large=True))) == 50_000


def test_a_small_parquet_of_many_rows_is_refused_and_read_if_asked(tmp_path, monkeypatch):
    pq.write_table(pa.table({"label": pa.array([1]).take(pa.array([0] * 6000))}), tmp_path / "x.parquet")
    for limit, message in (("MOST_ROWS", "has 6,000 rows"), ("MOST_BYTES", "more than 0 MB once unpacked")):
        with monkeypatch.context() as patch:
            patch.setattr(f"trainflat.tasks.tables.{limit}", 5000)
            with pytest.raises(InputError, match=f"{message}.*`large: true`"):
                read_table(tmp_path / "x.parquet")
            assert len(read_table(tmp_path / "x.parquet", Shape(large=True))) == 6000


def test_twenty_million_rows_are_refused_at_once(tmp_path):
    pq.write_table(
        pa.table(
            {
                "label": pa.array([1], pa.int8()).take(pa.array([0] * 10)),
            }
        ),
        tmp_path / "x.parquet",
    )
    with pq.ParquetWriter(tmp_path / "x.parquet", pa.schema({"label": pa.int8()})) as writer:
        part = pa.record_batch([pa.repeat(pa.scalar(1, pa.int8()), 5_000_001)], names=["label"])
        writer.write_batch(part)
    assert (tmp_path / "x.parquet").stat().st_size < 10**5
    with pytest.raises(InputError, match="has 5,000,001 rows"):
        read_table(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["good", "bad"]).dictionary_encode(),
        pa.array(["good", "bad"], pa.large_string()),
        pa.array(["good", "bad"], pa.string_view()),
    ],
    ids=str,
)
def test_parquet_strings_of_every_type(tmp_path, column):
    pq.write_table(pa.table({"text": column}), tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet").texts("text") == ["good", "bad"]


@pytest.mark.parametrize("value", [b"good", ["good"], {"a": "good"}, 3, None], ids=str)
def test_parquet_and_json_values_that_are_no_texts_are_named(tmp_path, value):
    pq.write_table(pa.table({"text": [value]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="row 1, column 'text'"):
        read_table(tmp_path / "x.parquet").texts("text")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, encoding):
    (tmp_path / "x.csv").write_bytes("text,label\ncaf\u00e9,1\n".encode(encoding))
    assert read_table(tmp_path / "x.csv").columns["text"] == ["caf\u00e9"]


def test_an_encoding_is_asked_for_and_taken(tmp_path):
    (tmp_path / "x.csv").write_bytes("text,label\n\u20ac 5,1\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"line 2 is not UTF-8 .byte 0x80.. Name it, such as `encoding: cp1252`"):
        read_table(tmp_path / "x.csv")
    assert read_table(tmp_path / "x.csv", Shape(encoding="cp1252")).columns["text"] == ["\u20ac 5"]


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", tmp_path / "link.csv", tmp_path / "x" / "..", "/dev/zero"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="is not a file"):
            read_table(tmp_path / path)
    for name, reason in (("a" * 300, "File name too long"), ("nul\0", "null"), ("x\udcff.csv", "not UTF-8")):
        with pytest.raises(InputError, match=reason):
            read_table(tmp_path / name)


@pytest.mark.parametrize("row", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000])
def test_json_that_is_too_deep_or_too_long_is_one_line(tmp_path, row):
    for name in ("x.jsonl", "x.json"):
        (tmp_path / name).write_text(f'{{"text": "a"}}\n{row}\n', encoding="utf8")
        with pytest.raises(InputError, match="line 2 is not JSON"):
            read_table(tmp_path / name)


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]


@pytest.mark.long
@settings(deadline=None, max_examples=100)
@given(st.data())
def test_what_a_writer_writes_is_read_back(tmp_path_factory, data):
    """With any separator, quoting, line end and encoding; without quotes a writer leaves foreign line ends bare."""
    encoding = data.draw(st.sampled_from(ENCODINGS))
    separator = data.draw(st.sampled_from([",", ";", "\t", "|", "^", " ", "\u00a7"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    ends = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    letters = st.one_of(
        st.sampled_from(['"', "\n", "\r", *",;|\t\\# ", separator]),
        st.characters(codec=encoding.removesuffix("-sig"), exclude_characters="\0", exclude_categories=["Cs"]),
    )
    width = data.draw(st.integers(1, 3))
    cells = st.text(letters, max_size=8).map(
        lambda text: text if quoting else text.translate({ord(one): "" for one in {*"\r\n"} - {*ends}})
    )
    rows = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=5))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator=ends)
    names = [f"c{i}" for i in range(width)]
    writer.writerows([names, *rows])
    text = buffer.getvalue()
    if quoting == csv.QUOTE_MINIMAL:  # a tab-separated file may have marks that are text, as may fields of many lines
        assume(
            separator != "\t" and not any(set(cell) & set("\r\n") and separator in cell for row in rows for cell in row)
        )
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_bytes(text.encode(encoding))
    marked = encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32")
    shape = Shape(separator=separator, encoding=None if marked else encoding)
    assert read_table(path, shape).columns == {n: list(c) for n, c in zip(names, zip(*rows, strict=True), strict=True)}
