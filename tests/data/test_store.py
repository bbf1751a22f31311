"""The store: round trips, append-only votes, transactions, one owner, and what a killed process leaves."""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from palate.config import UserError
from palate.data.columns import batches, record_table
from palate.data.records import (
    Annotator,
    Assignment,
    Comparison,
    Completion,
    Feature,
    Prompt,
    Run,
    Score,
    Vote,
)
from palate.data.store import Store

PROMPT = Prompt(
    ({"role": "user", "content": "Name a fruit, ☕."},), "test", tags=("a", "b"), meta={"group": "food"}
)
PEAR = Completion(
    PROMPT.id, "A pear.", "m", {"temperature": 0.7}, 3, "stop", meta={"x": [1, None]}, run_id="sample-1"
)
BRICK = Completion(PROMPT.id, "A brick.")
PAIR = Comparison(PROMPT.id, (PEAR.id, BRICK.id), "random", 0.25, "random", 2, 7)
ANN = Annotator("ann", role="lead", meta={"team": "x"})
SHOWN = Assignment(PAIR.id, ANN.id, (BRICK.id, PEAR.id), leased_until=datetime(2025, 1, 1))
VOTE = Vote(
    SHOWN.id, "ranked", ((PEAR.id,), (BRICK.id,)), 2, {"helpful": 1}, "edible", ("odd",), "A pear!", 4.5, 3.25, 1,
    created_at=datetime(2025, 1, 2, 3, 4, 5, 678901), id="v1",
)  # fmt: skip
ALL: list[Any] = [PROMPT, PEAR, BRICK, PAIR, ANN, SHOWN, VOTE]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


def fill(store: Store) -> None:
    for record in ALL:
        store.add([record])


def test_every_record_comes_back_as_it_went_in(store: Store) -> None:
    fill(store)
    store.add([Score(PEAR.id, "reward-1", 0.5, 0.1)])
    store.add([Feature(PEAR.id, "features-1", (0.5, -2.0))])
    prompt, pear = (
        store.rows("SELECT * EXCLUDE created_at FROM prompt")[0],
        store.rows("SELECT * EXCLUDE created_at FROM completion WHERE seed = 3")[0],
    )
    assert prompt == {
        "id": PROMPT.id, "messages": '[{"content":"Name a fruit, ☕.","role":"user"}]', "source": "test",
        "split": PROMPT.split, "tags": ["a", "b"], "meta": '{"group":"food"}', "run_id": None,
    }  # fmt: skip
    assert pear == {
        "id": PEAR.id, "prompt_id": PROMPT.id, "text": "A pear.", "model": "m", "sampling": '{"temperature":0.7}',
        "seed": 3, "finish_reason": "stop", "role": "sample", "meta": '{"x":[1,null]}', "run_id": "sample-1",
    }  # fmt: skip
    assert store.rows("SELECT * EXCLUDE created_at FROM comparison") == [
        {
            "id": PAIR.id, "prompt_id": PROMPT.id, "completion_ids": [PEAR.id, BRICK.id], "strategy": "random",
            "propensity": 0.25, "purpose": "random", "overlap": 2, "priority": 7, "run_id": None,
            "reserved_for": None, "repeats": None,
        }
    ]  # fmt: skip
    assert store.rows("SELECT * EXCLUDE created_at FROM annotator") == [
        {"id": ANN.id, "name": "ann", "kind": "human", "role": "lead", "meta": '{"team":"x"}'}
    ]
    assert store.rows("SELECT * EXCLUDE created_at FROM assignment") == [
        {
            "id": SHOWN.id, "comparison_id": PAIR.id, "annotator_id": ANN.id, "display_order": [BRICK.id, PEAR.id],
            "state": "done", "leased_until": datetime(2025, 1, 1),  # by the vote
        }
    ]  # fmt: skip
    assert store.rows("SELECT * FROM vote") == [
        {
            "id": "v1", "assignment_id": SHOWN.id, "verdict": "ranked", "ranking": [[PEAR.id], [BRICK.id]],
            "strength": 2, "criteria": '{"helpful":1}', "rationale": "edible", "flags": ["odd"],
            "edited_text": "A pear!", "seconds_visible": 4.5, "seconds_active": 3.25, "guideline_version": 1,
            "supersedes": None, "run_id": None, "created_at": datetime(2025, 1, 2, 3, 4, 5, 678901),
            "reason": None,
            "adjudicated": False,
        }
    ]  # fmt: skip
    assert store.rows("SELECT * FROM score") == [
        {"completion_id": PEAR.id, "run_id": "reward-1", "mean": 0.5, "std": 0.1}
    ]
    assert store.rows("SELECT * FROM feature") == [
        {"completion_id": PEAR.id, "run_id": "features-1", "vector": [0.5, -2.0]}
    ]
    assert store.counts() == {
        "prompt": 1, "completion": 2, "comparison": 1, "annotator": 1, "assignment": 1, "vote": 1, "score": 1,
        "feature": 1,
    }  # fmt: skip


def test_known_ids_stay_as_they_are(store: Store) -> None:
    assert store.add_prompts([PROMPT]) == 1
    assert store.add_prompts([Prompt(PROMPT.messages, "other"), PROMPT]) == 0
    assert store.value("SELECT source FROM prompt") == "test"
    assert store.add_completions([PEAR, BRICK, PEAR]) == 2
    assert store.add([]) == 0


def test_a_vote_is_appended_never_changed(store: Store) -> None:
    fill(store)
    retry = Vote(SHOWN.id, "tie", ((PEAR.id, BRICK.id),), id="v1")
    assert store.add_votes([retry]) == 0
    assert store.value("SELECT verdict FROM vote") == "ranked"
    assert store.value("SELECT state FROM assignment") == "done"

    undo = Vote(SHOWN.id, "skip", supersedes="v1", id="v2")
    again = Vote(SHOWN.id, "ranked", ((BRICK.id,), (PEAR.id,)), supersedes="v2", id="v3")
    assert store.add_votes([undo, again]) == 2
    assert store.value("SELECT count(*) FROM vote") == 3
    assert [row["id"] for row in store.rows("SELECT id FROM current_vote")] == ["v3"]
    assert store.rows("SELECT vote_id, winner, tie FROM preference") == [
        {"vote_id": "v3", "winner": BRICK.id, "tie": False}
    ]


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.add_prompts([PROMPT])
        with store.transaction():  # nested: nothing is committed here
            store.add_completions([PEAR])
        assert store.counts()["completion"] == 1  # own uncommitted rows are seen
        raise ZeroDivisionError
    assert store.counts()["prompt"] == store.counts()["completion"] == 0
    with store.transaction():
        store.add_prompts([PROMPT])
        store.add_completions([PEAR])
    assert store.counts()["completion"] == 1


def test_other_threads_see_committed_rows_only(store: Store) -> None:
    seen: list[int] = []
    with store.transaction():
        store.add_prompts([PROMPT])
        reader = threading.Thread(target=lambda: seen.append(store.counts()["prompt"]))
        reader.start()
        reader.join()
    seen.append(store.counts()["prompt"])
    assert seen == [0, 1]


def test_threads_may_share_a_store(store: Store) -> None:
    store.add([PROMPT])

    def work(number: int) -> None:
        for i in range(20):
            store.add_completions([Completion(PROMPT.id, f"{number}/{i}")])
            assert store.counts()["prompt"] == 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counts()["completion"] == 120


def test_parquet_files_are_inserted_like_tables(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "it's"
    folder.mkdir()
    pq.write_table(record_table([PEAR, BRICK]), folder / "a.parquet")
    assert store.add_table("completion", folder / "a.parquet") == 2
    assert store.add_table("completion", folder / "a.parquet") == 0


def test_batches() -> None:
    assert [len(chunk) for chunk in batches((PROMPT for _ in range(7)), 3)] == [3, 3, 1]


def test_reading(store: Store) -> None:
    fill(store)
    assert store.table("SELECT text FROM completion WHERE text LIKE ?", ["A p%"]).to_pylist() == [
        {"text": "A pear."}
    ]
    assert store.value("SELECT text FROM completion WHERE text = ?", ["nothing"]) is None


def test_runs_are_mirrored(store: Store) -> None:
    store.put_run(Run("sft-1", "sft", path="/somewhere"))
    store.put_run(Run("sft-1", "sft", status="done", metrics={"loss": 1.5}))
    assert store.rows("SELECT id, status, record ->> '$.metrics.loss' AS loss FROM run") == [
        {"id": "sft-1", "status": "done", "loss": "1.5"}
    ]


def test_what_is_closed_is_on_disk(tmp_path: Path) -> None:
    with Store(tmp_path / "x.duckdb") as store:
        fill(store)
    with Store(tmp_path / "x.duckdb") as store:
        assert store.value("SELECT id FROM vote") == "v1"


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_second_process_is_told_who_owns_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    with Store(path):
        other = python("import sys; from palate.data.store import Store; Store(sys.argv[1])", str(path))
        _, error = other.communicate(timeout=60)
    last = error.strip().splitlines()[-1]
    assert "FileInUse" in last
    assert f"{path} is open in another process" in last
    with Store(path) as store:  # and free again
        assert store.counts()["vote"] == 0


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.duckdb").write_text("a letter to grandmother, of some length, no database at all")
    with pytest.raises(UserError, match="x.duckdb") as error:
        Store(tmp_path / "x.duckdb")
    assert "\n" not in str(error.value)


_VOTER = """
import sys
from palate.data.records import Vote
from palate.data.store import Store
store = Store(sys.argv[1])
for number in range(100_000):
    store.add_votes([Vote("a", "skip", id=str(number))])
    print(number, flush=True)  # acknowledged
"""


def test_acknowledged_votes_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    voter = python(_VOTER, str(path))
    assert voter.stdout is not None
    acknowledged = [voter.stdout.readline() for _ in range(30)]
    os.kill(voter.pid, signal.SIGKILL)
    acknowledged += voter.stdout.readlines()
    voter.wait()
    numbers = {line.strip() for line in acknowledged if line.endswith("\n")}
    assert len(numbers) >= 30
    with Store(path) as store:
        assert numbers <= {row["id"] for row in store.rows("SELECT id FROM vote")}
        assert store.add_votes([Vote("a", "skip", id="after")]) == 1


_IMPORTER = """
import sys
from pathlib import Path
from palate import importing
from palate.config import ImportConfig
from palate.project import Project
importing.run(Project.open(Path(sys.argv[1])), ImportConfig((Path(sys.argv[2]),)))
"""


@pytest.mark.slow
def test_an_import_killed_at_any_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    from palate import importing
    from palate.config import ImportConfig
    from palate.project import Project

    project = Project.create(tmp_path / "project")
    path = tmp_path / "pairs.jsonl"
    rows = 20_000
    with path.open("w") as file:
        for i in range(rows):
            file.write(f'{{"prompt": "question {i}", "chosen": "good {i}", "rejected": "bad {i}"}}\n')
    for seconds in (1.5, 3.0, 4.5):
        killed = python(_IMPORTER, str(project.folder), str(path))
        time.sleep(seconds)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        with project.store() as store:
            assert store.counts()["vote"] in (0, rows)
            assert store.counts()["prompt"] == store.counts()["vote"]
    importing.run(project, ImportConfig((path,)))
    with project.store() as store:
        assert store.counts()["vote"] == rows


def test_memory_limit_is_the_databases(tmp_path: Path) -> None:
    with Store(tmp_path / "x.duckdb", "300MB") as store:
        assert store.value("SELECT current_setting('memory_limit')") == "286.1 MiB"
    assert duckdb.__version__ >= "2"


def test_files_are_added_while_others_write(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [PROMPT, Prompt(({"role": "user", "content": "another"},))]
    pq.write_table(record_table(rows), path)
    seen: list[int] = []

    def check(cursor: duckdb.DuckDBPyConnection) -> None:
        seen.append(int(cursor.execute("SELECT count(*) FROM prompt").fetchall()[0][0]))
        if len(seen) == 1:
            assert store.counts()["prompt"] == 0  # nobody sees it before it is committed
            store.add_prompts([PROMPT])  # nobody waits, and one that was at the same row wins

    assert store.add_files({"prompt": [path]}, check) == {"prompt": 1}
    assert seen == [2, 2] and store.counts()["prompt"] == 2

    def refuse(_: duckdb.DuckDBPyConnection) -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        store.add_files({"completion": [_parquet(tmp_path, [PEAR])]}, refuse)
    assert store.counts()["completion"] == 0


def _parquet(folder: Path, records: list[Completion]) -> Path:
    pq.write_table(record_table(records), folder / "records.parquet")
    return folder / "records.parquet"
