"""Exports: all rows with the columns of the screen, the query in the file, and nothing that a spreadsheet would run."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from palate.data.facts import Facts
from palate.data.store import Store
from palate.labeling import review_exports
from palate.labeling.review_data import Finder, columns_of
from palate.labeling.review_exports import Export, guarded
from palate.labeling.review_query import Query, read
from tests.labeling.test_review_data import whole, world
from tests.labeling.voted import ask, vote


@pytest.fixture
def facts(store: Store) -> Iterator[Facts]:
    with Facts(store) as opened:
        yield opened


@pytest.mark.parametrize("rows", ["items", "votes"])
@pytest.mark.parametrize("sort", ["newest", "disagreement"])
def test_a_file_holds_what_the_pages_hold(
    store: Store, facts: Facts, tmp_path: Path, rows: str, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_exports, "PART", 30)
    world(store, seed=3)
    facts.refresh()
    finder, query = Finder(store), read({"rows": rows, "sort": sort, "source": "s1"})
    export = Export.of(finder, facts, query)
    key = "item" if rows == "items" else "vote"
    file = tmp_path / "rows.parquet"
    with file.open("wb") as out:
        assert export.parquet(out) == export.wanted.n > 30
    table = pq.read_table(file)
    assert table[key].to_pylist() == whole(finder, facts, query)
    assert table.column_names == [column.key for column in columns_of(query)]
    assert table.schema.metadata[b"query"].decode() == "?source=s1" + (
        ("&rows=votes" if rows == "votes" else "") + ("&sort=disagreement" if sort == "disagreement" else "")
    )
    first, *lines = b"".join(export.csv()).decode().splitlines()
    assert first == f"# query: {table.schema.metadata[b'query'].decode()}"
    read_back = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert [row[key] for row in read_back] == table[key].to_pylist()
    page = finder.page(facts, query).rows[0]
    assert {name: table[name][0].as_py() for name in table.column_names} == {
        name: page[name] for name in table.column_names
    }


def test_nothing_found_is_a_file_too(store: Store, facts: Facts, tmp_path: Path) -> None:
    export = Export.of(Finder(store), facts, Query())
    with (tmp_path / "none.parquet").open("wb") as out:
        assert export.parquet(out) == 0
    found = pq.read_table(tmp_path / "none.parquet")
    assert (found.num_rows, found.schema.metadata[b"query"]) == (0, b"?")
    lines = b"".join(export.csv()).decode().splitlines()
    assert lines == ["# query: ?", ",".join(column.key for column in columns_of(Query()))]


def test_no_spreadsheet_runs_a_cell(store: Store, facts: Facts) -> None:
    evil = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]
    for i, text in enumerate(evil):
        vote(
            store,
            ask(store, f"{text} {i}", models=("=cmd|' /C calc'!A0", "m")),
            "=anna",
            "0>1",
            rationale=text,
        )
    facts.refresh()
    for rows in ("items", "votes"):
        export = Export.of(Finder(store), facts, read({"rows": rows, "source": "s"}))
        text = b"".join(export.csv()).decode()
        for row in list(csv.reader(io.StringIO(text)))[2:]:
            assert not [cell for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r")]
    assert [guarded(cell) for cell in ("=1", "a=1", "", None, -1.5, "-", "\n=1")] == [  # numbers are no text
        "'=1", "a=1", "", None, -1.5, "'-", "'\n=1",
    ]  # fmt: skip


def test_the_query_of_a_file_can_not_break_its_first_line(store: Store, facts: Facts) -> None:
    query = read({"q": "a\nb,c\r=1"})
    first = b"".join(Export.of(Finder(store), facts, query).csv()).decode().split("\r\n")[0]
    assert first == "# query: ?q=a%0Ab%2Cc%0D%3D1"
