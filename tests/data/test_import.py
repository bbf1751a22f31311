"""`palate import` as a whole: files into a project, all or nothing, the same thing twice adds nothing."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate import importing
from palate.config import ImportConfig, UserError
from palate.data.importing import Source, stage_files
from palate.data.records import Completion, Prompt, Run, digest, split_of
from palate.data.store import Store
from palate.project import Project

NOTHING = {
    "prompt": 0,
    "completion": 0,
    "comparison": 0,
    "annotator": 0,
    "assignment": 0,
    "vote": 0,
    "score": 0,
    "feature": 0,
}
PAIRS = [
    {"prompt": f"Name fruit {i}.", "chosen": f"A pear, {i}.", "rejected": f"A brick, {i}."} for i in range(5)
]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project")


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(project: Project, *files: Path, **settings: Any) -> Run:
    return importing.run(project, ImportConfig(files, project=project.folder, **settings))


def counts(project: Project) -> dict[str, int]:
    with project.store() as store:
        return store.counts()


def rows(project: Project, sql: str) -> list[dict[str, Any]]:
    with project.store() as store:
        return store.rows(sql)


def test_preferences_become_records(project: Project, tmp_path: Path) -> None:
    done = run(project, jsonl(tmp_path / "pairs.jsonl", PAIRS))
    assert counts(project) == {
        **NOTHING, "prompt": 5, "completion": 10, "comparison": 5, "annotator": 1, "assignment": 5, "vote": 5,
    }  # fmt: skip
    expected = Prompt(({"role": "user", "content": "Name fruit 3."},))
    (prompt,) = rows(project, f"SELECT * EXCLUDE created_at FROM prompt WHERE id = '{expected.id}'")
    assert prompt == {
        "id": expected.id,
        "messages": '[{"content":"Name fruit 3.","role":"user"}]',
        "source": "pairs.jsonl",
        "split": expected.split,
        "tags": [],
        "meta": "{}",
        "run_id": "import-1",
    }
    pear, brick = (Completion(expected.id, text) for text in ("A pear, 3.", "A brick, 3."))
    (vote,) = rows(project, f"SELECT * FROM current_vote WHERE prompt_id = '{expected.id}'")
    assert (vote["verdict"], vote["ranking"]) == ("ranked", [[pear.id], [brick.id]])
    assert (vote["annotator_kind"], vote["annotator_name"]) == ("human", "import:pairs.jsonl")
    assert (vote["display_order"], vote["run_id"]) == ([], "import-1")  # nobody knows how they were shown
    assert rows(project, "SELECT role, meta FROM annotator") == [
        {"role": "annotator", "meta": '{"imported":true}'}
    ]
    assert rows(project, "SELECT DISTINCT state FROM assignment") == [{"state": "done"}]
    assert rows(project, "SELECT DISTINCT winner_shown_first AS first FROM preference") == [{"first": None}]

    assert (done.id, done.status, done.parents) == ("import-1", "done", ())
    ((name, file),) = done.files.items()
    assert name == str(tmp_path / "pairs.jsonl")
    assert (file["rows"], file["rejected"], file["source"]) == (5, 0, "pairs.jsonl")
    assert file["sha256"] == file["content"]
    assert (done.metrics["vote_new"], done.metrics["vote_known"], done.metrics["rows"]) == (5, 0, 5)
    assert sorted(path.name for path in Path(done.path).iterdir()) == ["metrics.jsonl", "run.json"]


def test_the_same_file_again_adds_nothing(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", PAIRS)
    run(project, path)
    before = counts(project)
    again = run(project, path)
    renamed = run(project, Path(shutil.copy(path, tmp_path / "other.jsonl")))
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    unpacked = run(project, packed)
    assert counts(project) == before
    for done in (again, renamed, unpacked):
        assert [
            done.metrics[f"{t}_new"] for t in ("prompt", "completion", "comparison", "annotator", "vote")
        ] == [0] * 5
        assert done.metrics["vote_known"] == 5
    assert "votes                      0               5" in capsys.readouterr().out


def test_a_file_that_grew_adds_what_is_new(project: Project, tmp_path: Path) -> None:
    run(project, jsonl(tmp_path / "pairs.jsonl", PAIRS[:3]))
    done = run(project, jsonl(tmp_path / "pairs.jsonl", PAIRS))
    assert (done.metrics["vote_new"], done.metrics["vote_known"]) == (2, 3)


def test_two_people_in_two_files_are_two_votes(project: Project, tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "bob").mkdir()
    one = jsonl(tmp_path / "ann/votes.jsonl", PAIRS)
    other = jsonl(tmp_path / "bob/votes.jsonl", PAIRS[::-1])
    run(project, one, other)
    assert counts(project)["comparison"] == 5
    assert counts(project)["vote"] == 10
    names = rows(project, "SELECT name FROM annotator ORDER BY name")
    assert names == [{"name": "import:ann/votes.jsonl"}, {"name": "import:bob/votes.jsonl"}]


def test_the_same_judgement_twice_in_a_file_is_two_votes(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", [PAIRS[0], *PAIRS, PAIRS[0]])
    assert run(project, path).metrics["vote_new"] == 7
    assert counts(project)["comparison"] == 5
    assert run(project, path).metrics["vote_new"] == 0


def test_duplicate_prompts_keep_the_first_meta(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("palate.data.importing.CHUNK", 2)  # duplicates meet only when the chunks do
    path = jsonl(tmp_path / "p.jsonl", [{"prompt": f"Fruit {i % 3}?", "place": i} for i in range(9)])
    assert run(project, path).metrics["prompt_new"] == 3
    found = rows(project, "SELECT meta FROM prompt ORDER BY meta")
    assert [json.loads(row["meta"]) for row in found] == [{"place": 0}, {"place": 1}, {"place": 2}]


def test_bad_rows_are_set_aside(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mixed.jsonl"
    good = [json.dumps(row) for row in PAIRS]
    path.write_text(
        "\n".join([good[0], "not json", *good[1:], '{"prompt": "x", "chosen": "y", "rejected": "y"}'])
    )
    done = run(project, path)
    assert (done.metrics["vote_new"], done.metrics["rejected"], done.metrics["rows"]) == (5, 2, 7)
    rejects = [json.loads(line) for line in (Path(done.path) / "rejects.jsonl").read_text().splitlines()]
    assert [(r["file"], r["line"]) for r in rejects] == [(str(path), 2), (str(path), 7)]
    assert rejects[0]["row"] == "not json"
    assert rejects[1]["reason"] == "answers 1 and 2 are the same text: nothing to prefer"
    assert rejects[1]["row"] == {"prompt": "x", "chosen": "y", "rejected": "y"}
    out = capsys.readouterr().out
    assert "2 rejected, e.g. line 2: not JSON" in out
    assert str(Path(done.path) / "rejects.jsonl") in out


def test_nothing_usable_is_an_error_and_nothing_is_imported(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "odd.jsonl", [{"text": "a"}, {"text": "b"}])
    with pytest.raises(UserError, match=r"nothing usable in 1 file.*odd.jsonl, line 1: no known shape: text"):
        run(project, path)
    assert counts(project) == NOTHING
    (failed,) = project.runs()
    assert failed.status == "failed"
    assert len((Path(failed.path) / "rejects.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("damage", [b"\x1f\x8b broken", b'[{"prompt": "cut"'])
def test_one_damaged_file_stops_all_of_them(project: Project, tmp_path: Path, damage: bytes) -> None:
    good = jsonl(tmp_path / "good.jsonl", PAIRS)
    bad = tmp_path / "bad.json"
    bad.write_bytes(damage)
    with pytest.raises(UserError, match=r"bad\.json"):
        run(project, good, bad)
    assert counts(project) == NOTHING


def test_an_error_while_saving_leaves_nothing_half_imported(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", PAIRS)
    insert = Store._insert

    def full(self: Store, cursor: object, table: str, found: pa.Table | Path) -> int:
        if table == "vote":
            raise OSError("No space left on device")
        return insert(self, cursor, table, found)

    monkeypatch.setattr(Store, "_insert", full)
    with pytest.raises(OSError, match="No space left"):
        run(project, path)
    monkeypatch.undo()
    assert counts(project) == NOTHING
    (failed,) = project.runs()
    assert not (Path(failed.path) / "staging").exists()
    assert run(project, path).metrics["vote_new"] == 5


def test_errors_before_anything_starts_leave_no_run(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        run(project, tmp_path / "nowhere.jsonl")
    with pytest.raises(UserError, match="--group-by"):
        run(project, jsonl(tmp_path / "p.jsonl", PAIRS), group_by="(")
    with (
        project.store(),
        pytest.raises(UserError, match="open in another process|already open|can't be opened"),
    ):
        _import_in_another_process(project, tmp_path / "p.jsonl")
    assert project.runs() == []


def _import_in_another_process(project: Project, path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "palate", "import", str(path), "--project", str(project.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    raise UserError(done.stderr)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}


def test_sources(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", [{"prompt": "one"}, {"prompt": "two", "source": "orchard"}])
    run(project, path)
    assert rows(project, "SELECT source FROM prompt ORDER BY source") == [
        {"source": "orchard"},
        {"source": "p.jsonl"},
    ]
    more = jsonl(tmp_path / "q.jsonl", [{"prompt": "three", "source": "orchard"}])
    run(project, more, source="mine")
    assert rows(project, "SELECT source FROM prompt WHERE source = 'mine'") == [{"source": "mine"}]


def test_groups_and_splits(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = [{"prompt": f"Topic {i % 4}: point {i}", "group": f"g{i % 4}"} for i in range(40)]
    run(project, jsonl(tmp_path / "named.jsonl", named))
    found = rows(project, "SELECT split, meta ->> '$.group' AS \"group\" FROM prompt")
    assert {(r["group"], r["split"]) for r in found} == {(f"g{i}", split_of(f"g{i}")) for i in range(4)}

    other = [{"prompt": f"Topic {i % 4}; remark {i}", "group": "unused"} for i in range(8)] + [
        {"prompt": "No t."}
    ]
    run(project, jsonl(tmp_path / "regex.jsonl", other), group_by=r"Topic (\d+)")
    found = rows(
        project, "SELECT split, meta ->> '$.group' AS \"group\" FROM prompt WHERE source = 'regex.jsonl'"
    )
    assert {(r["group"], r["split"]) for r in found if r["group"]} == {
        (str(i), split_of(str(i))) for i in range(4)
    }
    assert "not matched by --group-by, so each a group of its own: 1" in capsys.readouterr().out

    said = jsonl(tmp_path / "said.jsonl", [{"prompt": f"said {i}", "split": "test"} for i in range(20)])
    run(project, said)
    assert rows(project, "SELECT DISTINCT split FROM prompt WHERE source = 'said.jsonl'") == [
        {"split": "test"}
    ]


def test_as(project: Project, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", PAIRS)
    run(project, path, kind="prompts")
    assert counts(project) == {**NOTHING, "prompt": 5}
    with pytest.raises(
        UserError, match="--as demonstrations, but the columns look like preferences: prompt, chosen"
    ):
        run(project, path, kind="demonstrations")
    assert run(project, path, kind="rankings").metrics["vote_new"] == 5


def test_one_file_may_hold_several_shapes(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = [PAIRS[0], {"prompt": "Say hi.", "response": "Hi."}, {"prompt": "Say ho.", "response": None}]
    run(project, jsonl(tmp_path / "mixed.jsonl", mixed))
    assert counts(project) == {
        **NOTHING, "prompt": 3, "completion": 3, "comparison": 1, "annotator": 1, "assignment": 1, "vote": 1,
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "looks like preferences: prompt, chosen, rejected (1 rows)" in out
    assert "looks like demonstrations: prompt, response (2 rows)" in out


def test_csv_and_parquet_give_the_same_records(project: Project, tmp_path: Path) -> None:
    table = [
        {"prompt": "Name a fruit, please.", "a": "A pear.", "b": "A brick.", "choice": "b", "seconds": 4}
    ]
    (tmp_path / "a.csv").write_text(
        'prompt,a,b,choice,seconds\n"Name a fruit, please.",A pear.,A brick.,b,4\n'
    )
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    run(project, tmp_path / "a.csv", source="s")
    before = rows(project, "SELECT id, seconds_visible FROM vote")
    assert before[0]["seconds_visible"] == 4.0
    assert run(project, tmp_path / "a.parquet", source="s").metrics["vote_new"] == 0
    assert rows(project, "SELECT id, seconds_visible FROM vote") == before


def test_candidates_await_a_vote(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        project,
        jsonl(
            tmp_path / "c.jsonl", [{"prompt": "Name a fruit.", "responses": ["A pear.", "A plum.", "A fig."]}]
        ),
    )
    assert counts(project) == {**NOTHING, "prompt": 1, "completion": 3, "comparison": 1}
    assert "next: palate label" in capsys.readouterr().out


def test_imported_votes_close_an_open_assignment(project: Project, tmp_path: Path) -> None:
    said = {
        "prompt": "Name a fruit.",
        "responses": ["A pear.", "A plum."],
        "judgements": [{"annotator": "ann", "choice": "a", "vote_id": "v"}],
    }
    path = jsonl(tmp_path / "v.jsonl", [said])
    run(project, path)
    with project.store() as store:
        store.write("UPDATE assignment SET state = 'open'")
    run(project, path)
    assert rows(project, "SELECT state FROM assignment") == [{"state": "done"}]


def test_unusual_text_survives(project: Project, tmp_path: Path) -> None:
    texts = ["🍐 pear\u2028line", "zero\x00byte", "'; DROP TABLE vote; --", "  spaces  ", "a" * 300_000]
    path = jsonl(
        tmp_path / "t.jsonl", [{"prompt": f"p{i}", "response": text} for i, text in enumerate(texts)]
    )
    assert run(project, path).metrics["completion_new"] == len(texts)
    assert {row["text"] for row in rows(project, "SELECT text FROM completion")} == set(texts)


@pytest.mark.parametrize("folder", ["it's here", "a[1]b", "star*", "ümlaut {x}"])
def test_awkward_folders(tmp_path: Path, folder: str) -> None:
    project = Project.create(tmp_path / folder / "project")
    path = jsonl(tmp_path / folder / "pairs.jsonl", [*PAIRS, PAIRS[0]])
    assert run(project, path).metrics["vote_new"] == 6


def test_staging_alone_needs_no_project(tmp_path: Path) -> None:
    """The pure part: files in, Parquet files out."""
    path = jsonl(tmp_path / "pairs.jsonl", PAIRS)
    (outcome,) = stage_files([Source(path, "mine")], tmp_path, "import-9")
    assert (outcome.rows, outcome.rejected, dict(outcome.shapes)) == (
        5, 0, {("preferences", "prompt, chosen, rejected"): 5},
    )  # fmt: skip
    prompts = pq.read_table(next(tmp_path.glob("prompt-*.parquet")))
    assert prompts["source"].to_pylist() == ["mine"] * 5
    assert prompts["id"][0].as_py() == digest("prompt", [{"role": "user", "content": "Name fruit 0."}])


def test_one_person_sees_a_pair_in_both_orders(project: Project, tmp_path: Path) -> None:
    there = {"prompt": "Name a fruit.", "a": "A pear.", "b": "A plum.", "choice": "a", "annotator": "ann"}
    back = {"prompt": "Name a fruit.", "a": "A plum.", "b": "A pear.", "choice": "a", "annotator": "ann"}
    run(project, jsonl(tmp_path / "v.jsonl", [there, back]))
    assert counts(project)["comparison"] == 1
    found = rows(project, "SELECT count(*) AS votes, bool_and(winner_shown_first) AS first FROM preference")
    assert found == [{"votes": 2, "first": True}]


def test_workers_give_the_same_as_one_process(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [
        {"prompt": f"Fruit {i % 37}?", "chosen": f"pear {i % 53}", "rejected": f"brick {i % 41}"}
        for i in range(400)
    ]
    path = jsonl(tmp_path / "many.jsonl", [*many, {"text": "odd"}])
    alone = run(project, path)
    other = Project.create(tmp_path / "other")
    monkeypatch.setattr("palate.data.importing.BIG", 0)
    monkeypatch.setattr("palate.data.importing.CHUNK", 30)
    monkeypatch.setattr("palate.data.importing.cores", lambda: 3)
    together = importing.run(other, ImportConfig((path,)))
    assert together.metrics == alone.metrics
    for table in ("prompt", "completion", "comparison", "assignment"):
        query = f"SELECT * EXCLUDE created_at FROM {table} ORDER BY id"
        assert rows(other, query) == rows(project, query)
    assert rows(other, "SELECT id, ranking FROM vote ORDER BY id") == rows(
        project, "SELECT id, ranking FROM vote ORDER BY id"
    )


def test_a_worker_that_is_gone_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", PAIRS)
    monkeypatch.setattr("palate.data.importing.BIG", 0)
    monkeypatch.setattr("palate.data.importing.cores", lambda: 2)
    monkeypatch.setattr("palate.data.workers._LOOP", "raise SystemExit")
    with pytest.raises(UserError, match="a worker process of the import was ended"):
        stage_files([Source(path, "mine")], tmp_path, "import-9")
