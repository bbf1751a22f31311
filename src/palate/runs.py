"""A run: one execution of one stage, in a folder of its own.

    runs/sft-1/run.json         the record: parents, settings, hashes, versions, metrics, status
    runs/sft-1/metrics.jsonl    one line per logged step
    runs/sft-1/data/*.parquet   the rows it used, frozen, with a content hash in run.json
    runs/sft-1/tensorboard/     the same metrics as events
    runs/sft-1/model|adapter/   what it made

`run.json` is written to a temporary file and renamed, so a reader never sees half of it. A run whose process
is gone without a word is shown as `interrupted`.
"""

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Collection
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from palate.config import UserError
from palate.data.address import alive
from palate.data.records import Run, RunStatus

CHECKPOINT = "checkpoint.pt"  # in a run's folder, while it trains
CHECKPOINTS = "checkpoints"  # the same, of a stage that needs a folder
_PACKAGES = ("palate", "torch", "transformers", "trl", "peft", "duckdb", "gradio", "datasets", "pyarrow")


class ActiveRun:
    """A run that is under way: freeze its inputs, log its steps, note what it made."""

    def __init__(self, record: Run) -> None:
        self.record = record
        self.path = Path(record.path)
        self._log = (self.path / "metrics.jsonl").open("a", encoding="utf-8")
        self._events: Any = None
        self._purge: int | None = None  # the step from which on events of an earlier attempt don't count

    @property
    def id(self) -> str:
        """E.g. `sft-1`."""
        return self.record.id

    def freeze(self, name: str, table: pa.Table) -> Path:
        """Write the rows this run uses to data/NAME.parquet and note their content hash."""
        path = self.path / "data" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, path)
        files = {**self.record.files, name: {"rows": table.num_rows, "sha256": content_hash(table)}}
        joined = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        self.update(files=files, dataset_hash=joined)
        return path

    def log(self, step: int, **metrics: float) -> None:
        """One line of metrics.jsonl and one TensorBoard point per value."""
        self._log.write(json.dumps({"step": step, **metrics}) + "\n")
        self._log.flush()
        if self._events is None:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(str(self.path / "tensorboard"), purge_step=self._purge)
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)

    def last(self) -> dict[str, float]:
        """The last line of the log; empty when there is none."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return dict(json.loads(lines[-1])) if lines else {}

    def rewind(self, step: int) -> None:
        """Forget what was logged from `step` on: it is about to happen again."""
        self._log.close()
        path = self.path / "metrics.jsonl"
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) < step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        partial.replace(path)
        self._log = path.open("a", encoding="utf-8")
        self._purge = step

    def update(self, **changes: Any) -> None:
        """Change fields of the record and write run.json."""
        self.record = replace(self.record, **changes)
        _write_record(self.record)

    def metrics(self, **values: Any) -> None:
        """Add to the run's final figures."""
        self.update(metrics={**self.record.metrics, **values})

    def end(self, status: RunStatus, error: str | None = None) -> None:
        """Close the files and write the last word; a run that is done can't be resumed."""
        self._log.close()
        if self._events is not None:
            self._events.close()
        if status == "done":
            (self.path / CHECKPOINT).unlink(missing_ok=True)
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)
        self.update(status=status, error=error, finished_at=_utc())


def begin(
    runs: Path,
    stage: str,
    config: dict[str, Any],
    parents: tuple[str, ...],
    seed: int | None,
    taken: Collection[str] = (),
) -> ActiveRun:
    """Make the next free folder `runs/STAGE-N` and its record; `taken` are ids of runs on other machines."""
    runs.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in runs.glob(f"{stage}-*")} | set(taken)
    number = 1 + max((_number(name, stage) for name in names), default=0)
    while True:
        path = runs / f"{stage}-{number}"
        try:
            path.mkdir()
            break
        except FileExistsError:  # another process took it
            number += 1
    record = Run(
        id=path.name, stage=stage, parents=parents, config=config, seed=seed, versions=versions(),
        pid=os.getpid(), created_at=_utc(), path=str(path),
    )  # fmt: skip
    _write_record(record)
    return ActiveRun(record)


def reopen(record: Run) -> ActiveRun:
    """Go on with a run that was stopped, failed or interrupted; a UserError where there is nothing to go on with."""
    if record.status == "done":
        raise UserError(f"{record.id} is done: there is nothing to resume")
    if record.status == "running":
        raise UserError(f"{record.id} is still running (process {record.pid}): stop it first")
    active = ActiveRun(record)
    active.update(status="running", pid=os.getpid(), error=None, finished_at=None)
    return active


def read_runs(runs: Path) -> list[Run]:
    """Every run of a project, oldest first; a running one whose process is gone is `interrupted`."""
    found = []
    for path in runs.glob("*/run.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} is not readable: {error}; restore or remove its folder") from error
        record = {**record, "parents": tuple(record["parents"]), "path": str(path.parent)}
        if record["status"] == "running" and not alive(record["pid"]):
            record["status"] = "interrupted"
        found.append(Run(**record))
    return sorted(found, key=lambda run: (run.created_at, run.id))


def content_hash(table: pa.Table) -> str:
    """SHA-256 over the rows as canonical JSON lines: the same rows give the same hash in any file format."""
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=5_000):
        for row in batch.to_pylist():
            digest.update(
                json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode("utf-8", "replace")
            )
            digest.update(b"\n")
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """The versions a run depends on."""
    found = {"python": platform.python_version(), "platform": f"{sys.platform}-{platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _step_of(line: str) -> float:
    """The step of a line of metrics.jsonl; a line that was cut off by a kill is beyond any step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _number(name: str, stage: str) -> int:
    """N of `STAGE-N`, 0 for any other name."""
    kind, _, number = name.rpartition("-")
    return int(number) if kind == stage and number.isdigit() else 0


def _write_record(record: Run) -> None:
    content = {k: v for k, v in asdict(record).items() if k != "path"}  # a moved project stays valid
    path = Path(record.path) / "run.json"
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(
        json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8"
    )
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(path)


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
