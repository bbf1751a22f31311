"""A project folder: palate.yaml (name, base model, defaults), palate.duckdb, runs/.

project = Project.open(Path("my-project"))
with project.store() as store: ...
with project.start("sft", config, parents=()) as run: ...
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from palate.config import BUILTIN, UserError, read_yaml
from palate.data.records import Run
from palate.data.store import Store
from palate.runs import ActiveRun, begin, read_runs


@dataclass(frozen=True)
class Project:
    """Where a project lives and what it is built on."""

    folder: Path
    name: str
    base: str
    settings: dict[str, dict[str, Any]]  # defaults per command, from palate.yaml

    @classmethod
    def create(cls, folder: Path, base: str = BUILTIN, name: str | None = None) -> "Project":
        """Make the folder, or return the project that is there already."""
        marker = folder / "palate.yaml"
        if marker.exists():
            raise UserError(f"{folder} already holds a project ({marker}); choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "runs").mkdir(exist_ok=True)
        name = name or folder.resolve().name
        if base != BUILTIN and Path(base).expanduser().is_dir():
            base = str(Path(base).expanduser().resolve())  # a relative folder would break in another cwd
        header = "# A Palate project. A section named after a command (sft:, dpo:, ...) sets its defaults.\n"
        marker.write_text(header + yaml.safe_dump({"name": name, "base": base}, sort_keys=False), "utf-8")
        project = cls.open(folder)
        project.store().close()
        return project

    @classmethod
    def open(cls, folder: Path) -> "Project":
        """The project in `folder`."""
        marker = folder / "palate.yaml"
        if not marker.exists():
            raise UserError(
                f"{folder.resolve()} is no Palate project (no palate.yaml): run `palate init {folder}` first"
            )
        content = read_yaml(marker)
        name, base = content.pop("name", folder.resolve().name), content.pop("base", BUILTIN)
        for key, value in content.items():
            if not isinstance(value, dict):
                raise UserError(f"{marker}: '{key}' must be a section of settings, it is {value!r}")
        return cls(folder.resolve(), str(name), str(base), content)

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return self.folder / "palate.duckdb"

    def store(self, memory_limit: str | None = None) -> Store:
        """Open the database; close it before long work, so that others can use it."""
        return Store(self.database, memory_limit)

    def runs(self) -> list[Run]:
        """All runs, oldest first."""
        return read_runs(self.folder / "runs")

    def run(self, run_id: str) -> Run:
        """One run by its id."""
        for run in self.runs():
            if run.id == run_id:
                return run
        known = ", ".join(r.id for r in self.runs()[-8:]) or "none yet"
        raise UserError(f"there is no run '{run_id}' in {self.folder}; the latest are: {known}")

    def latest(self, *stages: str) -> Run | None:
        """The newest finished run of these stages, or None."""
        done = [run for run in self.runs() if run.stage in stages and run.status == "done"]
        return done[-1] if done else None

    @contextmanager
    def start(
        self, stage: str, config: dict[str, Any], parents: Sequence[str] = (), seed: int | None = None
    ) -> Iterator[ActiveRun]:
        """A run that ends as done, failed or stopped whatever happens; mirrored into the database."""
        run = begin(self.folder / "runs", stage, config, tuple(parents), seed)
        try:
            yield run
        except KeyboardInterrupt:
            run.end("stopped", "stopped by Ctrl-C")
            raise
        except BaseException as error:
            run.end("failed", f"{type(error).__name__}: {error}")
            raise
        else:
            run.end("done")
        finally:
            self._mirror(run.record)

    def _mirror(self, run: Run) -> None:
        """Copy the record into the database; when another process owns it, the next open catches up."""
        try:
            with self.store() as store:
                known = {row["id"] for row in store.rows("SELECT id FROM run")}
                for record in self.runs():
                    if record.id == run.id or record.id not in known:
                        store.put_run(record)
        except UserError:
            return

    def read_json(self, run_id: str, name: str) -> Any:
        """A JSON file of a run."""
        return json.loads((self.folder / "runs" / run_id / name).read_text(encoding="utf-8"))
