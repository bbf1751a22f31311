"""Out of one project, into another: the same preferences, the same votes."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from trl.data_utils import is_conversational

from palate import exporting, importing
from palate.config import ExportConfig, ImportConfig, UserError
from palate.project import Project

ROWS: list[dict[str, Any]] = [
    {
        "prompt": "Name a fruit.",
        "responses": [{"id": "x", "text": "A pear.", "model": "new"}, {"id": "y", "text": "A brick."}, {"id": "z", "text": "A fig."}],
        "group": "food", "split": "train",
        "judgements": [
            {"annotator": "ann", "ranking": ["x", ["y", "z"]], "time": "2025-03-01T12:00:00Z", "seconds": 9.5,
             "reason": "it's “edible”\nsurely", "strength": 2, "flags": ["unsafe"], "criteria": {"helpful": 3}},
            {"annotator": "bob", "choice": "tie", "time": "2025-03-02T12:00:00Z"},
            {"annotator": "cy", "kind": "rule", "ranking": ["z", "x"], "time": "2025-03-03T12:00:00Z"},
        ],
    },
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And a tool?"}],
        "responses": ["A saw.", ""], "split": "test",
        "judgements": [
            {"annotator": "ann", "choice": "a", "vote_id": "v1", "time": "2025-03-04T12:00:00Z"},
            {"annotator": "ann", "choice": "b", "vote_id": "v2", "supersedes": "v1", "time": "2025-03-05T12:00:00Z"},
            {"annotator": "bob", "choice": "skip", "time": "2025-03-06T12:00:00Z"},
            {"annotator": "dee", "choice": "both bad", "time": "2025-03-07T12:00:00Z"},
        ],
    },
    {
        "prompt": "An exam question", "responses": ["yes", "no"], "purpose": "gold",
        "judgements": [{"annotator": "ann", "choice": "b", "time": "2025-03-08T12:00:00Z"}],
    },
    {"prompt": "Name a tree.", "chosen": "An oak.", "rejected": "A brick.", "time": "2025-03-09T12:00:00Z"},
]  # fmt: skip

# a preference by its content: ids of comparisons and votes may differ when rankings are cut into pairs
BY_CONTENT = """
SELECT q.messages, q.split, q.source, w.text AS winner, l.text AS loser, w.model, n.name, n.kind, v.strength,
       v.rationale, v.seconds_visible, v.created_at
FROM preference p JOIN prompt q ON q.id = p.prompt_id JOIN completion w ON w.id = p.winner
JOIN completion l ON l.id = p.loser JOIN vote v ON v.id = p.vote_id JOIN annotator n ON n.id = p.annotator_id
WHERE NOT p.tie AND p.purpose = 'train' ORDER BY ALL
"""
VOTES = "SELECT * EXCLUDE run_id FROM vote ORDER BY id"
WHERE_GIVEN = "SELECT * EXCLUDE (created_at) FROM assignment ORDER BY id"
COMPARISONS = "SELECT * EXCLUDE (created_at, run_id) FROM comparison ORDER BY id"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.create(tmp_path / "one")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    importing.run(made, ImportConfig((path,)))
    return made


def fresh(tmp_path: Path, file: Path) -> Project:
    other = Project.create(tmp_path / "two")
    importing.run(other, ImportConfig((file,)))
    return other


def rows(project: Project, sql: str) -> list[dict[str, Any]]:
    with project.store() as store:
        return store.rows(sql)


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz", "p.parquet"])
def test_preferences_there_and_back(project: Project, tmp_path: Path, name: str) -> None:
    assert exporting.run_export(project, ExportConfig(tmp_path / name)) == 5
    before = rows(project, BY_CONTENT)
    assert len(before) == 5
    assert rows(fresh(tmp_path, tmp_path / name), BY_CONTENT) == before


@pytest.mark.parametrize("name", ["v.jsonl", "v.jsonl.gz", "v.parquet"])
def test_votes_there_and_back(project: Project, tmp_path: Path, name: str) -> None:
    assert exporting.run_export(project, ExportConfig(tmp_path / name, "votes")) == 9
    other = fresh(tmp_path, tmp_path / name)
    for sql in (VOTES, WHERE_GIVEN, COMPARISONS, BY_CONTENT):
        assert rows(other, sql) == rows(project, sql)
    assert [row["id"] for row in rows(other, "SELECT id FROM current_vote") if row["id"].startswith("v")] == [
        "v2"
    ]


def test_preferences_are_what_trl_reads(project: Project, tmp_path: Path) -> None:
    exporting.run_export(project, ExportConfig(tmp_path / "p.jsonl"))
    data = Dataset.from_list([json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()])
    first = data[0]
    assert is_conversational(first)
    assert first["prompt"] == [{"role": "user", "content": "Name a fruit."}]
    assert first["chosen"] == [{"role": "assistant", "content": "A pear."}]
    assert {row["rejected"][0]["content"] for row in data if row["annotator"] == "ann"} == {
        "A brick.",
        "A fig.",
        "A saw.",
    }
    assert first["chosen_shown_first"] is True


def test_kinds_of_annotators(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exporting.run_export(project, ExportConfig(tmp_path / "p.jsonl", annotators="rule")) == 1
    assert json.loads((tmp_path / "p.jsonl").read_text())["annotator"] == "cy"
    assert (
        exporting.run_export(project, ExportConfig(tmp_path / "v.parquet", "votes", annotators="human")) == 8
    )
    assert pq.read_metadata(tmp_path / "v.parquet").num_rows == 8
    capsys.readouterr()
    exporting.run_export(project, ExportConfig(tmp_path / "p.jsonl"))
    assert capsys.readouterr().out.splitlines() == [
        f"wrote 5 preferences to {tmp_path / 'p.jsonl'}",
        "left out: ties (1), which have no chosen and rejected; `--what votes` keeps them",
    ]


def test_errors(project: Project, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for name, says in (
        ("p.xlsx", "use .jsonl, .jsonl.gz or .parquet"),
        ("folder.jsonl", "it is a folder"),
        ("no/where.jsonl", "no such folder"),
    ):
        with pytest.raises(UserError, match=says):
            exporting.run_export(project, ExportConfig(tmp_path / name))
    with pytest.raises(UserError, match="there are no model preferences"):
        exporting.run_export(project, ExportConfig(tmp_path / "p.jsonl", annotators="model"))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["rows.jsonl"]
