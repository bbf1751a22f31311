"""Runs: folders of their own, records that are never half written, hashes over content."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palate.config import UserError
from palate.runs import begin, content_hash, file_hash, read_runs, versions

TABLE = pa.table({"prompt": ["a", "b"], "n": [1, None]})


def test_a_run_from_begin_to_end(tmp_path: Path) -> None:
    run = begin(tmp_path / "runs", "sft", {"epochs": 2.0}, ("import-1",), 7)
    path = run.freeze("train", TABLE)
    run.log(1, loss=2.5)
    run.log(2, loss=1.5)
    run.metrics(loss=1.5)
    run.metrics(rows=2)
    run.update(artefact={"kind": "model"})
    run.end("done")

    assert path == tmp_path / "runs/sft-1/data/train.parquet"
    assert pq.read_table(path) == TABLE
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 1.5}]
    assert list((run.path / "tensorboard").glob("events.*"))

    (record,) = read_runs(tmp_path / "runs")
    assert record == run.record
    assert (record.id, record.stage, record.parents, record.seed, record.status) == (
        "sft-1", "sft", ("import-1",), 7, "done",
    )  # fmt: skip
    assert (record.config, record.metrics) == ({"epochs": 2.0}, {"loss": 1.5, "rows": 2})
    assert record.files == {"train": {"rows": 2, "sha256": content_hash(TABLE)}}
    assert record.dataset_hash is not None
    assert record.created_at < str(record.finished_at)
    assert record.versions["python"] == versions()["python"]
    assert not list(run.path.glob("*.tmp"))


def test_numbers_go_up_per_stage(tmp_path: Path) -> None:
    ids = [begin(tmp_path, stage, {}, (), None).id for stage in ("sft", "sft", "dpo", "sft", "sft-long")]
    assert ids == ["sft-1", "sft-2", "dpo-1", "sft-3", "sft-long-1"]
    (tmp_path / "sft-2/run.json").unlink()
    (tmp_path / "sft-2/metrics.jsonl").unlink()
    (tmp_path / "sft-2").rmdir()
    assert begin(tmp_path, "sft", {}, (), None).id == "sft-4"  # a removed number is not used again


def test_runs_started_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(begin(tmp_path, "x", {}, (), None).id)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids) == [f"x-{number}" for number in range(1, 9)]


def test_content_hash_is_of_rows_not_of_bytes(tmp_path: Path) -> None:
    chunked = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    assert content_hash(chunked) == content_hash(TABLE)
    pq.write_table(TABLE, tmp_path / "a.parquet", compression="zstd")
    assert content_hash(pq.read_table(tmp_path / "a.parquet")) == content_hash(TABLE)
    assert content_hash(TABLE.select(["n", "prompt"])) == content_hash(
        TABLE
    )  # columns have names, not places
    assert content_hash(TABLE.slice(0, 1)) != content_hash(TABLE)
    assert content_hash(TABLE.take([1, 0])) != content_hash(TABLE)
    assert content_hash(pa.table({"x": ["half \u00e9", "\U0001f350"]})) == content_hash(
        pa.table({"x": ["half é", "🍐"]})
    )


def test_file_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"pear")
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"pear").hexdigest()


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from palate.runs import begin; begin(Path(sys.argv[1]), 'sft', {}, (), None)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    begin(tmp_path, "sft", {}, (), None)  # this process lives
    assert [(run.id, run.status) for run in read_runs(tmp_path)] == [
        ("sft-1", "interrupted"),
        ("sft-2", "running"),
    ]


def test_a_moved_project_stays_valid(tmp_path: Path) -> None:
    begin(tmp_path / "old", "sft", {}, (), None).end("done")
    (tmp_path / "old").rename(tmp_path / "new")
    assert [run.path for run in read_runs(tmp_path / "new")] == [str(tmp_path / "new/sft-1")]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    begin(tmp_path, "sft", {}, (), None).end("done")
    (tmp_path / "sft-1/run.json").write_text('{"id": "sft-')
    with pytest.raises(UserError, match=r"sft-1/run.json is not readable.*restore or remove"):
        read_runs(tmp_path)
    (tmp_path / "stray").mkdir()
    (tmp_path / "sft-1/run.json").unlink()
    assert read_runs(tmp_path) == []
