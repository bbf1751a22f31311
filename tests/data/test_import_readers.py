"""Reading files: what a file holds is seen from its content; damage is told in one line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.config import UserError
from palate.data import readers
from palate.data.readers import Unreadable, check_files, parse_line, rows, sniff

ROWS: list[dict[str, Any]] = [{"prompt": "Name a bird.", "n": 1}, {"prompt": "Nenne eine Blüte.", "n": None}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def read(path: Path) -> list[tuple[int, dict[str, Any] | Unreadable]]:
    return [(line, parse_line(payload)) for line, payload in rows(path)]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES),
        ("crlf.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("blank.jsonl", b"\n" + LINES.replace(b"\n", b"\n  \n", 1)),
        ("unended.jsonl", LINES.rstrip(b"\n")),
        ("array.json", json.dumps(ROWS).encode()),
        ("pretty.json", json.dumps(ROWS, indent=4).encode()),
        ("bom.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("inside.json", json.dumps({"version": 2, "data": ROWS}).encode()),
        ("inside_pretty.json", json.dumps({"version": 2, "data": ROWS}, indent=1).encode()),
        ("lines.json", LINES),  # many a .json file is JSONL
        ("array.jsonl", json.dumps(ROWS).encode()),
        ("wrong.csv", LINES),
        ("packed.jsonl.gz", gzip.compress(LINES)),
        ("packed_without_saying.jsonl", gzip.compress(LINES)),
        ("packed.json.gz", gzip.compress(json.dumps(ROWS).encode())),
    ],
)
def test_json_in_all_its_dresses(tmp_path: Path, name: str, content: bytes) -> None:
    assert [row for _, row in read(write(tmp_path / name, content))] == ROWS


@pytest.mark.parametrize("packed", [False, True])
def test_parquet(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    if packed:
        path = write(tmp_path / "rows.parquet.gz", gzip.compress(path.read_bytes()))
    assert read(path) == [(1, ROWS[0]), (2, ROWS[1])]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv(tmp_path: Path, delimiter: str) -> None:
    text = 'prompt,choice\r\n"Two\nlines, with ""quotes""",a\r\n\r\n7,\r\n'.replace(",", delimiter)
    path = write(tmp_path / "rows.csv", b"\xef\xbb\xbf" + text.encode())
    expected = 'Two\nlines, with "quotes"'.replace(",", delimiter)
    assert read(path) == [(3, {"prompt": expected, "choice": "a"}), (5, {"prompt": "7", "choice": None})]


def test_csv_rows_that_do_not_fit_are_handed_on(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", b"prompt,choice\nx\nx,y,z\ncaf\xe9,a\ngood,b\n")
    found = read(path)
    assert [line for line, _ in found] == [2, 3, 4, 5]
    assert [type(row) for _, row in found] == [Unreadable, Unreadable, Unreadable, dict]
    reasons = [row.reason for _, row in found if isinstance(row, Unreadable)]
    assert reasons == [
        "1 cells, but the header names 2 columns",
        "3 cells, but the header names 2 columns",
        "not UTF-8 (byte 0xe9): save the file as UTF-8",
    ]


def test_bad_lines_are_handed_on_with_their_number(tmp_path: Path) -> None:
    content = b'{"prompt": "ok"}\n{"prompt": \n[1, 2]\n"text"\n{"prompt": "caf\xe9"}\n{"prompt": "ok"}\n'
    found = read(write(tmp_path / "a.jsonl", content))
    assert [line for line, _ in found] == [1, 2, 3, 4, 5, 6]
    assert [isinstance(row, Unreadable) for _, row in found] == [False, True, True, True, True, False]
    reasons = [row.reason for _, row in found if isinstance(row, Unreadable)]
    assert reasons[0].startswith("not JSON (Expecting value")
    assert reasons[1] == "a JSON list, not an object with columns"
    assert reasons[2] == "a JSON str, not an object with columns"
    assert reasons[3] == "not UTF-8 (byte 0xe9 at column 16): save the file as UTF-8"


def test_a_damaged_first_line_does_not_condemn_a_jsonl_file(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.jsonl", b"oops\n" + LINES))
    assert [isinstance(row, Unreadable) for _, row in found] == [True, False, False]


def test_a_huge_line_is_skipped_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_ROW", 1000)
    huge = json.dumps({"prompt": "x" * 5000}).encode() + b"\n"
    found = read(write(tmp_path / "a.jsonl", huge + LINES))
    assert [(line, isinstance(row, Unreadable)) for line, row in found] == [(1, True), (2, False), (3, False)]
    assert isinstance(found[0][1], Unreadable)
    assert found[0][1].reason.startswith("longer than")


def test_an_array_is_read_in_small_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_BLOCK", 7)  # every value is cut by blocks, also inside a character
    many = [{"prompt": f"Blüte {i} " + "x" * (i % 40), "n": i / 3} for i in range(200)]
    path = write(tmp_path / "a.json", json.dumps(many, ensure_ascii=False, indent=1).encode())
    found = read(path)
    assert [row for _, row in found] == many
    assert [line for line, _ in found[:3]] == [2, 6, 10]


def test_deeply_nested_json_is_a_bad_row(tmp_path: Path) -> None:
    deep = b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}\n"
    found = read(write(tmp_path / "a.jsonl", deep + LINES))
    assert [isinstance(row, Unreadable) for _, row in found] == [True, False, False]


def array(text: bytes) -> bytes:
    return json.dumps(ROWS).encode()[:-1] + text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("blank.jsonl", b" \n\n", "only blank lines"),
        ("a.xlsx", b"PK\x03\x04rest", "Excel file: save its table as CSV"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfdrest", "zstd"),
        ("a.jsonl.xz", b"\xfd7zXZ\x00rest", "xz"),
        ("utf16.jsonl", '{"prompt": "x"}'.encode("utf-16"), "UTF-16 text: save it as UTF-8"),
        ("binary.bin", b"\x00\x01\x02", "binary data"),
        ("notes.txt", b"Dear all,\nplease rank.", "begins with 'Dear all,'"),
        ("cut.json", json.dumps(ROWS).encode()[:-1], "not closed, the file may be cut"),
        ("cut_row.json", json.dumps(ROWS).encode()[:-8], "not valid JSON"),
        ("comma.json", array(b' {"prompt": "no comma before"}]'), "expected ',' or ']'"),
        ("bad.json", array(b', {"prompt": nope, "x": "and a long rest of the row"}]'), "not valid JSON"),
        ("latin.json", b'[{"prompt": "caf\xe9 au lait"}]', "not UTF-8"),
        ("header.csv", b"prompt,,choice\n1,2,3\n", "must name each column once"),
        ("twice.csv", b"prompt,prompt\n1,2\n", "must name each column once"),
        ("cut.jsonl.gz", gzip.compress(LINES * 50)[:-20], "damaged gzip file"),
        ("bad.jsonl.gz", b"\x1f\x8bnot gzip at all", "damaged gzip file"),
        ("bad.parquet", b"PAR1 and then nonsense", "damaged Parquet file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=name) as error:
        read(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder: name its files"),
        (lambda path: path.touch(), "is empty"),
    ],
)
def test_files_that_are_no_files(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    path = tmp_path / "here.jsonl"
    make(path)
    with pytest.raises(UserError, match=says):
        check_files((path,))


def test_progress_counts_every_byte_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(LINES * 5000))
    taken: list[int] = []
    assert len(list(rows(path, taken.append))) == 10_000
    assert sum(taken) == path.stat().st_size
    assert sniff(path) == "jsonl"
