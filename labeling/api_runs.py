"""Runs, and frozen exports over HTTP; for leads.

A run's home is its folder, on whichever machine it ran; here is its record. An export is a Parquet file that
never changes, named after its rows: who trains on it can say exactly on what.
"""

import json
import re
import threading
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
from fastapi import APIRouter, FastAPI, Request
from fastapi import Path as PathValue
from fastapi import Query as QueryValue
from fastapi.responses import FileResponse
from pydantic import Field

from palate.data.export import export_preferences, export_votes
from palate.data.preferences import Annotators, rankings
from palate.data.records import Run, RunStatus, new_id
from palate.data.store import Store
from palate.labeling.api import Body, JsonObject
from palate.labeling.login import Refused, require
from palate.runs import content_hash

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,99}$")]
RunId = Annotated[str, PathValue(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,99}$")]
ExportId = Annotated[str, PathValue(pattern=r"^(rankings|preferences|votes)-[0-9a-f]{20}$")]
PARQUET = "application/vnd.apache.parquet"


class RunBody(Body):
    """A run's record, as it stands in its run.json."""

    id: Name
    stage: Name
    parents: list[str] = Field([], max_length=10_000)
    config: JsonObject = Field({})
    dataset_hash: str | None = None
    template_hash: str | None = None
    versions: dict[str, str] = Field({})
    seed: int | None = None
    metrics: JsonObject = Field({})
    status: RunStatus = "running"
    artefact: JsonObject = Field({})
    files: dict[str, JsonObject] = Field({})
    error: str | None = None
    pid: int | None = None
    created_at: str = Field(max_length=64)
    finished_at: str | None = None
    path: str = ""


class Stored(Body):
    """What was stored."""

    id: str
    status: RunStatus


class Runs(Body):
    """Records of runs, oldest first."""

    runs: list[dict[str, Any]]


class Wanted(Body):
    """What to freeze: `rankings` are the rows that reward training and DPO take, `preferences` one row per pair,
    `votes` one row per vote."""

    what: Literal["rankings", "preferences", "votes"]
    annotators: Annotators = "all"
    source: str | None = Field(None, max_length=400, description="Rankings only: on prompts from this source")


class Export(Body):
    """A frozen export: `sha256` is over its rows, as in a run's record."""

    id: str
    sha256: str
    rows: int


def add_runs(app: FastAPI, store: Store, folder: Path) -> None:
    """The routes; `folder` is the project's."""
    routes = APIRouter(prefix="/api/v1")
    registering = threading.Lock()

    @routes.get("/runs", tags=["runs"])
    def runs(
        request: Request,
        stage: Annotated[str | None, QueryValue(max_length=100)] = None,
        limit: Annotated[int, QueryValue(ge=1, le=1000)] = 1000,
    ) -> Runs:
        """The latest runs of all machines; for leads."""
        require(request, "lead")
        rows = store.rows(
            "SELECT record FROM (SELECT * FROM run WHERE ? IS NULL OR stage = ? ORDER BY created_at DESC, id DESC "
            "LIMIT ?) ORDER BY created_at, id",
            [stage, stage, limit],
        )
        return Runs(runs=[json.loads(row["record"]) for row in rows])

    @routes.get("/runs/{run_id}", tags=["runs"])
    def run(request: Request, run_id: RunId) -> dict[str, Any]:
        """One run's record; for leads."""
        require(request, "lead")
        found = _record(store, run_id)
        if found is None:
            raise Refused(404, "not_found", f"there is no run '{run_id}'; GET /api/v1/runs lists them")
        return found

    @routes.put("/runs/{run_id}", tags=["runs"])
    def put(request: Request, run_id: RunId, body: RunBody) -> Stored:
        """Register a run, or bring its record up to date. 409 when another run has this id; for leads."""
        require(request, "lead")
        if body.id != run_id:
            raise Refused(400, "invalid", f"the record is of run '{body.id}', the address of '{run_id}'")
        with registering:
            known = _record(store, run_id)
            if known is not None and known.get("created_at") != body.created_at:
                raise Refused(409, "taken", f"another run is called '{run_id}'; take the next number")
            store.put_run(Run(**{**body.model_dump(), "parents": tuple(body.parents)}))
        return Stored(id=run_id, status=body.status)

    _add_exports(routes, store, folder / "exports")
    app.include_router(routes)


def _add_exports(routes: APIRouter, store: Store, folder: Path) -> None:
    @routes.post("/exports", tags=["exports"])
    def freeze(request: Request, body: Wanted) -> Export:
        """Freeze rows as they are now. The same rows again are the same export; for leads."""
        require(request, "lead")
        if body.source is not None and body.what != "rankings":
            raise Refused(400, "invalid", "source goes with rankings only")
        folder.mkdir(mode=0o700, exist_ok=True)
        part = folder / f".{new_id()}.parquet"
        try:
            if body.what == "rankings":
                pq.write_table(rankings(store, body.annotators, body.source), part)
            else:
                write = export_preferences if body.what == "preferences" else export_votes
                write(store, part, body.annotators)
            table = pq.read_table(part)
            sha = content_hash(table)
            name = f"{body.what}-{sha[:20]}"
            part.replace(folder / f"{name}.parquet")
        finally:
            part.unlink(missing_ok=True)
        return Export(id=name, sha256=sha, rows=table.num_rows)

    @routes.get(
        "/exports/{export_id}",
        tags=["exports"],
        response_class=FileResponse,
        responses={200: {"content": {PARQUET: {}}, "description": "The frozen rows"}},
    )
    def download(request: Request, export_id: ExportId) -> FileResponse:
        """The Parquet file of an export; for leads."""
        require(request, "lead")
        path = folder / f"{export_id}.parquet"  # the pattern lets no other folder be named
        if not re.fullmatch(r"[a-z]+-[0-9a-f]{20}", export_id) or not path.is_file():
            raise Refused(
                404, "not_found", f"there is no export '{export_id}'; POST /api/v1/exports makes one"
            )
        return FileResponse(path, media_type=PARQUET, filename=path.name)


def _record(store: Store, run_id: str) -> dict[str, Any] | None:
    found = store.value("SELECT record FROM run WHERE id = ?", [run_id])
    return None if found is None else dict(json.loads(found))


assert {f.name for f in fields(Run)} == set(RunBody.model_fields), "a run's record has changed"
