"""All sections together: the scope as it is asked for, and sections as plain values and back."""

import ast
import datetime
import json
from pathlib import Path

import numpy as np
import pytest

from palate.config import UserError
from palate.labeling.statistics.panels import Column, Figure, Lines, Panel, Section, Table
from palate.labeling.statistics.plain import as_plain, sections_of
from palate.labeling.statistics.report import asked_of, query_of, scope_of, scope_text
from palate.labeling.statistics.scope import Scope
from tests.labeling.sample_panels import EVIL, SECTIONS

ROOT = Path(__file__).parents[3]
FULL = Scope("rule", "hh & co", "a/b", datetime.date(2026, 8, 1), datetime.date(2026, 8, 31))


def test_a_scope_is_read_and_written() -> None:
    assert scope_of({}) == scope_of({"kind": "", "since": "", "source": None}) == Scope()
    asked: dict[str, str | None] = {
        "kind": "rule",
        "source": "hh & co",
        "tag": "a/b",
        "since": "2026-08-01",
        "until": "2026-08-31",
    }
    assert scope_of(asked) == FULL
    assert asked_of(FULL) == asked
    assert (query_of(Scope()), query_of(Scope("model"))) == ("", "?kind=model")
    assert query_of(FULL) == "?kind=rule&source=hh+%26+co&tag=a%2Fb&since=2026-08-01&until=2026-08-31"
    assert scope_text(Scope()) == "votes of people"
    assert scope_text(FULL) == "votes of rules, source hh & co, tag a/b, since 2026-08-01, until 2026-08-31"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"kind": "robot"}, "kind is one of human, rule, model, got 'robot'"),
        ({"since": "31.8.2026"}, "since is a day like 2026-08-31, got '31.8.2026'"),
        ({"until": EVIL}, "until is a day like"),
        ({"since": "2026-08-02", "until": "2026-08-01"}, "since (2026-08-02) is after until (2026-08-01)"),
    ],
)
def test_a_wrong_scope_is_told_in_one_line(asked: dict[str, str | None], said: str) -> None:
    with pytest.raises(UserError) as found:
        scope_of(asked)
    assert (
        str(found.value).startswith(said) and "\n" not in str(found.value) and "\x1b" not in str(found.value)
    )


def test_what_is_remembered_has_a_name_of_its_own() -> None:
    """Two modules that remember different things under one name would get each other's."""
    owners: dict[str, set[str]] = {}
    for path in (*(ROOT / "labeling").rglob("*.py"), *(ROOT / "data").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "remember" and node.args:
                key = node.args[0]
                if isinstance(key, ast.Tuple) and isinstance(key.elts[0], ast.Constant):
                    owners.setdefault(str(key.elts[0].value), set()).add(path.name)
    assert len(owners) > 10 and not {name: files for name, files in owners.items() if len(files) > 1}


def test_sections_are_json_and_back() -> None:
    text = json.dumps(as_plain(FULL, SECTIONS), allow_nan=False)
    found = json.loads(text)
    assert found["scope"] == asked_of(FULL)
    assert [one["id"] for one in found["sections"]] == [one.id for one in SECTIONS]
    assert [plot["type"] for plot in found["sections"][0]["panels"][0]["plots"]] == [
        "histogram",
        "lines",
        "lines",
    ]
    assert as_plain(FULL, sections_of(found)) == found


def test_numbers_of_numpy_are_numbers() -> None:
    panel = Panel(
        "p",
        "q",
        figures=(Figure("f", np.float64(0.5), n=np.int64(3)),),  # type: ignore[arg-type]
        tables=(Table((Column("a", "a"),), [{"a": np.int32(1)}]),),  # type: ignore[dict-item]
        plots=(Lines(np.arange(2.0), {"s": np.array([1.5, 2.5])}, "x"),),  # type: ignore[arg-type,dict-item]
    )
    found = as_plain(Scope(), [Section("s", "S", (panel,))])["sections"][0]["panels"][0]
    assert found["figures"][0]["value"] == 0.5 and type(found["figures"][0]["n"]) is int
    assert found["tables"][0]["rows"] == [{"a": 1}]
    assert (found["plots"][0]["x"], found["plots"][0]["series"]) == ([0.0, 1.0], {"s": [1.5, 2.5]})
    json.dumps(found, allow_nan=False)
