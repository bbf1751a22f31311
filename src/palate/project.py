"""A project folder: palate.yaml (name, base model, defaults), palate.duckdb, runs/.

project = Project.open(Path("my-project"))
with project.store() as store: ...
with project.start("sft", config, parents=()) as run: ...

While `palate label` owns the database, here or on another machine (`store:` in palate.yaml), `store()` gives the
same interface over HTTP. Runs stay in the folder in which they ran; their records are mirrored into the store.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from palate.config import BUILTIN, Paused, UserError, read_yaml
from palate.data.address import running, token_for
from palate.data.any_store import AnyStore
from palate.data.records import Run
from palate.data.remote import RemoteStore, RunTaken
from palate.data.store import FileInUse, Store
from palate.runs import CHECKPOINT, CHECKPOINTS, ActiveRun, begin, read_runs, reopen

WAIT_FILE, WAIT_SERVER = 1.0, 8.0  # seconds for another command to finish, for a server to be up
_STEP = 0.25
HERE = "the running `palate label`"


@dataclass(frozen=True)
class Project:
    """Where a project lives and what it is built on."""

    folder: Path
    name: str
    base: str
    settings: dict[str, dict[str, Any]]  # defaults per command, from palate.yaml
    server: str | None = None  # the address of the store, when it is on another machine

    @classmethod
    def create(
        cls, folder: Path, base: str = BUILTIN, name: str | None = None, store: str | None = None
    ) -> "Project":
        """Make the folder; a UserError when it holds a project already."""
        marker = folder / "palate.yaml"
        if marker.exists():
            raise UserError(f"{folder} already holds a project ({marker}); choose another folder")
        if store is not None and not store.startswith(("http://", "https://")):
            raise UserError(f"--store takes an address like https://label.example.org, got {store!r}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "runs").mkdir(exist_ok=True)
        name = name or folder.resolve().name
        if base != BUILTIN and Path(base).expanduser().is_dir():
            base = str(Path(base).expanduser().resolve())  # a relative folder would break in another cwd
        header = "# A Palate project. A section named after a command (sft:, dpo:, ...) sets its defaults.\n"
        content = {"name": name, "base": base} | ({"store": store.rstrip("/")} if store else {})
        marker.write_text(header + yaml.safe_dump(content, sort_keys=False), "utf-8")
        project = cls.open(folder)
        if store is None:
            project.own_store().close()
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
        server = os.environ.get("PALATE_STORE") or content.pop("store", None)
        content.pop("store", None)
        for key, value in content.items():
            if not isinstance(value, dict):
                raise UserError(f"{marker}: '{key}' must be a section of settings, it is {value!r}")
        return cls(folder.resolve(), str(name), str(base), content, str(server) if server else None)

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return self.folder / "palate.duckdb"

    def store(self, memory_limit: str | None = None) -> AnyStore:
        """The store: the database, or the server that owns it. Close it before long work."""
        if self.server is not None:
            return RemoteStore(self.server, token_for(self.server, self.folder))
        waited = 0.0
        while True:
            try:
                return Store(self.database, memory_limit)
            except FileInUse as error:
                in_use = error
            address = running(self.folder)
            if address is not None:
                remote = RemoteStore(address.url, address.token, HERE)
                if remote.answers():
                    return remote
                remote.close()
            if waited >= (WAIT_SERVER if address else WAIT_FILE):
                raise in_use
            time.sleep(_STEP)
            waited += _STEP

    def own_store(self, opened: Callable[[Path], Store] = Store) -> Store:
        """The database itself, for who owns it from now on; a UserError when another process does."""
        return opened(self.own_database())

    def own_database(self) -> Path:
        """The DuckDB file of a project whose records are here; a UserError when they are elsewhere."""
        if self.server is not None:
            raise UserError(f"the records of this project are at {self.server}: run this there")
        return self.database

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

    def known(self, run_ids: Sequence[str]) -> list[Run]:
        """Those of these runs that are in this project's folder."""
        return [run for run in self.runs() if run.id in run_ids]

    def latest(self, *stages: str) -> Run | None:
        """The newest finished run of these stages, or None."""
        done = [run for run in self.runs() if run.stage in stages and run.status == "done"]
        return done[-1] if done else None

    @contextmanager
    def start(
        self, stage: str, config: dict[str, Any], parents: Sequence[str] = (), seed: int | None = None
    ) -> Iterator[ActiveRun]:
        """A run that ends as done, failed or stopped whatever happens; mirrored into the database."""
        with self._ending(self._begin(stage, config, tuple(parents), seed)) as run:
            yield run

    @contextmanager
    def resume(self, run_id: str, stage: str) -> Iterator[ActiveRun]:
        """Go on with a run of this stage that was stopped, failed or interrupted; it ends as with `start`."""
        record = self.run(run_id)
        if record.stage != stage:
            raise UserError(f"{run_id} is a run of {record.stage}: palate {record.stage} --resume {run_id}")
        with self._ending(reopen(record)) as run:
            yield run

    @contextmanager
    def _ending(self, run: ActiveRun) -> Iterator[ActiveRun]:
        try:
            yield run
        except KeyboardInterrupt:
            run.end("stopped", "stopped by Ctrl-C")
            if (run.path / CHECKPOINT).exists() or (run.path / CHECKPOINTS).exists():
                print(f"{run.id} is stopped; go on with: palate {run.record.stage} --resume {run.id}")
            raise
        except Paused as pause:
            run.end("stopped", str(pause))
            raise
        except BaseException as error:
            run.end("failed", f"{type(error).__name__}: {error}")
            raise
        else:
            run.end("done")
        finally:
            self._mirror(run.record)

    def _begin(
        self, stage: str, config: dict[str, Any], parents: tuple[str, ...], seed: int | None
    ) -> ActiveRun:
        """A run under an id that no other machine has. One that runs elsewhere than its store is registered now."""
        taken: set[str] = set()
        with suppress(UserError), self.store() as store:
            taken = {row["id"] for row in store.rows("SELECT id FROM run WHERE stage = ?", [stage])}
        while True:
            run = begin(self.folder / "runs", stage, config, parents, seed, taken)
            if self.server is None:
                return run
            try:
                with self.store() as store:
                    store.put_run(run.record)
            except RunTaken:  # another machine was quicker
                taken.add(run.id)
            except UserError as error:
                run.end("failed", str(error))
                raise
            else:
                return run
            run.end("failed")
            shutil.rmtree(run.path)

    def _mirror(self, run: Run) -> None:
        """Copy the record into the store; when it can't be reached, the next run catches up."""
        with suppress(UserError), self.store() as store:
            store.put_run(run)
            known = {row["id"] for row in store.rows("SELECT id FROM run")}
            for record in self.runs():
                if record.id not in known:
                    store.put_run(record)

    def read_json(self, run_id: str, name: str) -> Any:
        """A JSON file of a run."""
        return json.loads((self.folder / "runs" / run_id / name).read_text(encoding="utf-8"))
