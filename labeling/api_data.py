"""What stages on other machines (and on this one, while the server owns the database) ask: queries and tables.

`palate.data.remote.RemoteStore` is the other end. Leads only: rows name models and people. Queries run on
worker threads with cursors of their own, two at a time, so that voting stays quick.

    POST /api/v1/query    {"sql": "SELECT id FROM prompt WHERE split = ?", "params": ["test"]}   -> an Arrow stream
    POST /api/v1/tables   multipart, a field per table with Parquet files                 -> {"new": {"prompt": 3}}
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated, Any

import pyarrow.parquet as pq
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.datastructures import UploadFile

from palate.data.store import Store
from palate.labeling import queries
from palate.labeling.api import Body
from palate.labeling.desk import Desk
from palate.labeling.login import Refused, require
from palate.labeling.uploads import ORDER, store_tables

ARROW = "application/vnd.apache.arrow.stream"
AT_ONCE = 2  # queries
FILES = 2_000  # of one upload; a staged import has one for every few thousand rows
CHUNK = 1 << 20
ANSWERS = ("assignment", "vote")  # what changes how many answers an item awaits
IN_MEMORY = 8 << 20  # bytes of a result that never see the disk

Value = None | bool | int | float | str
Ids = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100_000)]


class Query(Body):
    """One SELECT over the records; `params` stand for its question marks."""

    sql: str = Field(max_length=queries.LONGEST)
    params: list[Value | list[Value]] = Field([], max_length=1000)


class Overlap(Body):
    """How many annotators' answers these comparisons await, at least."""

    ids: Ids
    overlap: int = Field(ge=1, le=1000)


class Priority(Body):
    """Which comparisons come before others."""

    ids: Ids
    priority: int = Field(ge=-(2**31), lt=2**31, description="The highest is asked about first; 0 by default")


class New(Body):
    """How many rows of each table were not known before."""

    new: dict[str, int]


class Changed(Body):
    """How many there were to change."""

    changed: int


def add_data(app: FastAPI, store: Store, desk: Desk) -> None:
    """The routes."""
    turns = asyncio.Semaphore(AT_ONCE)

    @app.post("/api/v1/query", tags=["data"], response_class=StreamingResponse,
              responses={200: {"content": {ARROW: {}}, "description": "The rows, as an Arrow IPC stream"}})  # fmt: skip
    async def query(request: Request, body: Query) -> Response:
        """The rows of one SELECT over prompt, completion, comparison, annotator, assignment, vote, run, score,
        feature, guideline, withheld, training_view and the views current_vote and preference; for leads."""
        require(request, "lead")
        file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the response closes it
        try:
            async with turns:
                rows = await asyncio.to_thread(queries.run, store, body.sql, body.params, file)
        except BaseException:
            file.close()
            raise
        size = file.tell()
        file.seek(0)
        headers = {"content-length": str(size), "x-rows": str(rows)}
        return StreamingResponse(_chunks(file), media_type=ARROW, headers=headers)

    @app.post("/api/v1/tables", tags=["data"], openapi_extra=_UPLOAD)
    async def tables(request: Request) -> New:
        """Add rows to several tables, all or nothing; rows whose id is known stay as they are. Each field is a
        table, each file in it Parquet with the columns of that table. For leads."""
        require(request, "lead")
        async with request.form(max_files=FILES, max_fields=FILES) as form:
            parts = [(name, part) for name, part in form.multi_items() if isinstance(part, UploadFile)]
            if not parts:
                raise Refused(400, "invalid", f"send Parquet files in fields named {', '.join(ORDER)}")
            return New(new=await asyncio.to_thread(_store, store, desk, parts))

    @app.post("/api/v1/comparisons/overlap", tags=["data"])
    def overlap(request: Request, body: Overlap) -> Changed:
        """Ask for at least so many annotators' answers on these comparisons; for leads."""
        require(request, "lead")
        store.raise_overlap(body.ids, body.overlap)
        desk.refresh()
        return Changed(changed=len(body.ids))

    @app.post("/api/v1/comparisons/priority", tags=["data"])
    def priority(request: Request, body: Priority) -> Changed:
        """Have these comparisons answered before, or after, the others; for leads."""
        require(request, "lead")
        store.write(
            "UPDATE comparison SET priority = ? WHERE id IN (SELECT unnest(?::VARCHAR[]))",
            [body.priority, body.ids],
        )
        desk.prioritise(body.ids, body.priority)
        return Changed(changed=len(body.ids))


def _store(store: Store, desk: Desk, parts: list[tuple[str, Any]]) -> dict[str, int]:
    """Put the uploaded files where the database can read them, and store their rows."""
    with tempfile.TemporaryDirectory(prefix="palate-upload-") as folder:
        files: dict[str, list[Path]] = {}
        for number, (table, part) in enumerate(parts):
            path = Path(folder) / f"{number:05d}.parquet"
            with path.open("wb") as target:
                shutil.copyfileobj(part.file, target, CHUNK)
            files.setdefault(table, []).append(path)
        new = store_tables(store, files)
        # also where nothing is new: an upload that is sent again may have failed between storing and this
        if any(table in files for table in ANSWERS):
            desk.refresh()
        elif "comparison" in files:
            desk.admit([name for path in files["comparison"] for name in _ids(path)])
    return new


def _ids(path: Path) -> list[str]:
    found: list[str] = pq.read_table(path, columns=["id"])["id"].to_pylist()
    return found


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        table: {"type": "array", "items": {"type": "string", "format": "binary"}}
                        for table in ORDER
                    },
                }
            }
        },
    }
}
