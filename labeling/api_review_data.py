"""What scripts and pages of leads ask of Review's data: search, exports, tags, adjudication.

GET  /api/v1/review/data?q=refund&disagreement=0.4&page=2      {"total": 431, "rows": [...], ...}
GET  /api/v1/review/export.csv?q=refund                        all of them, with the query in the first line
POST /api/v1/review/tags        {"query": "?q=refund", "add": ["billing"]}
GET  /api/v1/review/items/5f2c...                              one item, blind, with its votes
POST /api/v1/review/items/5f2c.../decision                     {"vote_id", "verdict", "ranking", "replaces"}
"""

import asyncio
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import asdict
from typing import IO, Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi import Query as Asked
from fastapi.responses import StreamingResponse
from pydantic import Field

from palate.config import UserError
from palate.data.store import Store
from palate.labeling import tags
from palate.labeling.adjudication import Adjudicator, Case, Cast, NoSuchItem
from palate.labeling.api import Body
from palate.labeling.api_rank import AnswerBody, Id
from palate.labeling.ballots import answer_json
from palate.labeling.login import Refused, require
from palate.labeling.review_data import Finder, Listing
from palate.labeling.review_exports import Export
from palate.labeling.review_query import Query, read, written
from palate.labeling.review_service import Answer, Review, ready

LONGEST = 60.0  # seconds that a search is waited for
IN_MEMORY = 8 << 20  # bytes of a Parquet file that never see the disk
CHUNK = 1 << 20
PARQUET = "application/vnd.apache.parquet"
Text = Annotated[str | None, Asked(max_length=600)]
Tag = Annotated[str, Field(min_length=1, max_length=200)]


class DataPage(Body):
    """One page of what was found: rows by the columns' keys."""

    query: str = Field(description="What was asked, as a query string")
    total: int
    page: int
    pages: int
    columns: list[dict[str, Any]]
    rows: list[dict[str, Any]]


class TagChange(Body):
    """Tags for the prompts of everything that a query finds, or for these prompts."""

    query: str | None = Field(
        None, max_length=4000, description="As in /api/v1/review/data, with or without ?"
    )
    prompts: list[Annotated[str, Field(min_length=1, max_length=200)]] | None = Field(None, max_length=10_000)
    add: list[Tag] = Field([], max_length=tags.MOST)
    remove: list[Tag] = Field([], max_length=tags.MOST)


class TagsChanged(Body):
    """How many prompts were meant, and how many of them were not like that before."""

    prompts: int
    changed: int


class Decision(AnswerBody):
    """A lead's decision on an item, in the letters of the item as this lead sees it. Sent again under the same
    `vote_id` it is the same decision."""

    replaces: Id | None = Field(None, description="The id of the decision that stood when the item was read")


class Decided(Body):
    """The id of the vote that holds the decision; it is on the disk and in the journal."""

    saved: str


def _asked(
    request: Request,
    kind: Text = None,
    source: Text = None,
    tag: Text = None,
    since: Annotated[str | None, Asked(max_length=600, description="The first day (UTC) of votes")] = None,
    until: Annotated[str | None, Asked(max_length=600, description="The last day (UTC) of votes")] = None,
    q: Annotated[str | None, Asked(max_length=600, description='Words, or "a phrase"')] = None,
    model: Text = None,
    annotator: Text = None,
    verdict: Text = None,
    flag: Annotated[str | None, Asked(max_length=600, description="A flag's name, or any")] = None,
    purpose: Text = None,
    disagreement: Annotated[str | None, Asked(max_length=600, description="At least so much, 0 to 1")] = None,
    rationale: Annotated[str | None, Asked(max_length=600, description="yes or no")] = None,
    adjudicated: Annotated[str | None, Asked(max_length=600, description="yes or no")] = None,
    answered: Annotated[str | None, Asked(max_length=600, description="yes or no")] = None,
    item: Text = None,
    prompt: Text = None,
    rows: Annotated[str | None, Asked(max_length=600, description="items or votes")] = None,
    sort: Annotated[str | None, Asked(max_length=600, description="newest, disagreement or match")] = None,
) -> Query:
    """The query in the query string; the parameters are named here for the description."""
    require(request, "lead")
    return read({name: value for name, value in request.query_params.items() if name != "page"})


AskedQuery = Annotated[Query, Depends(_asked)]


def add_review_data(
    app: FastAPI, store: Store, review: Review, finder: Finder, adjudicator: Adjudicator
) -> None:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/review", tags=["review"])

    @routes.get("/data")
    async def data(
        request: Request, query: AskedQuery, page: Annotated[int, Asked(ge=1, le=10**6)] = 1
    ) -> DataPage:
        """What a query finds, 50 rows a page: items or votes, with the models of the answers; for leads."""
        require(request, "lead")
        key = ("data", query, page)
        found: Listing = await _asked_for(review.quick(key, lambda facts: finder.page(facts, query, page)))
        columns = [{"key": one.key, "label": one.label, "unit": one.unit} for one in found.columns]
        keys = [column["key"] for column in columns]
        rows = [{name: row.get(name) for name in keys} for row in found.rows]
        return DataPage(
            query=written(query),
            total=found.total,
            page=found.page,
            pages=found.pages,
            columns=columns,
            rows=rows,
        )

    @routes.get("/export.csv", response_class=StreamingResponse, responses=_file("text/csv"))
    async def csv(request: Request, query: AskedQuery) -> StreamingResponse:
        """All rows of a query as CSV; the first line is a comment with the query. For leads."""
        require(request, "lead")
        export = await _export(review, finder, query)
        headers = {"Content-Disposition": f'attachment; filename="{query.rows}.csv"'}
        return StreamingResponse(export.csv(), media_type="text/csv; charset=utf-8", headers=headers)

    @routes.get("/export.parquet", response_class=StreamingResponse, responses=_file(PARQUET))
    async def parquet(request: Request, query: AskedQuery) -> StreamingResponse:
        """All rows of a query as Parquet; its key-value metadata hold the query. For leads."""
        require(request, "lead")
        export = await _export(review, finder, query)
        file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - the response closes it
        try:
            await asyncio.to_thread(export.parquet, file)
        except BaseException:
            file.close()
            raise
        size = file.tell()
        file.seek(0)
        headers = {
            "Content-Disposition": f'attachment; filename="{query.rows}.parquet"',
            "content-length": str(size),
        }
        return StreamingResponse(_chunks(file), media_type=PARQUET, headers=headers)

    @routes.post("/tags")
    async def change_tags(request: Request, body: TagChange) -> TagsChanged:
        """Add and remove tags on the prompts of everything that a query finds, or on prompts by id; for leads."""
        require(request, "lead")
        if (body.query is None) == (body.prompts is None):
            raise UserError("name either a query or prompts")
        if body.query is not None:
            asked = read(dict(parse_qsl(body.query.removeprefix("?"), keep_blank_values=True)))
            codes = await _asked_for(review.gather(lambda facts: finder.prompts(facts, asked)))
        else:
            sql = "SELECT DISTINCT hash(name) AS code FROM unnest(?::VARCHAR[]) AS t(name)"
            codes = store.table(sql, [body.prompts])["code"].to_numpy()
        done = await asyncio.to_thread(tags.change, store, codes, body.add, body.remove)
        finder.forget()
        review.forget()
        return TagsChanged(prompts=done.prompts, changed=done.changed)

    _add_items(routes, adjudicator)
    app.include_router(routes)


def _add_items(routes: APIRouter, adjudicator: Adjudicator) -> None:
    @routes.get("/items/{comparison_id}")
    def item(request: Request, comparison_id: str) -> dict[str, Any]:
        """One item as this lead decides it: conversation and answers under letters, nothing about which model wrote
        what, every standing vote in these letters, and the decision that stands, if there is one. For leads."""
        lead = require(request, "lead")
        try:
            return case_json(adjudicator.case(comparison_id, lead.id))
        except NoSuchItem as error:
            raise Refused(404, "not_found", str(error)) from error

    @routes.post("/items/{comparison_id}/decision")
    def decide(request: Request, comparison_id: str, body: Decision) -> Decided:
        """Decide an item that people are split on: a vote of its own kind, which never counts as agreement. For
        leads. Refused with 409 when somebody decided it since `replaces` was read."""
        lead = require(request, "lead")
        try:
            vote = adjudicator.decide(lead.id, comparison_id, body.ballot(), body.replaces)
        except NoSuchItem as error:
            raise Refused(404, "not_found", str(error)) from error
        return Decided(saved=vote.id)


def _file(kind: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {kind: {"schema": {"type": "string"}}}, "description": "The file"}}


async def _asked_for(future: "Future[Answer]") -> Any:
    """What Review has computed."""
    answer = await ready(future, LONGEST)
    if answer is None:
        raise Refused(503, "busy", "the votes are still being read; ask again in a minute")
    return answer.shown


async def _export(review: Review, finder: Finder, query: Query) -> Export:
    found: Export = await _asked_for(review.gather(lambda facts: Export.of(finder, facts, query)))
    return found


def case_json(case: Case) -> dict[str, Any]:
    """A case as JSON values."""
    return {
        "comparison": case.comparison_id,
        "prompt": case.prompt_id,
        "messages": list(case.messages),
        "answers": [{"letter": letter, "text": text} for letter, text in case.answers],
        "source": case.source,
        "tags": list(case.tags),
        "purpose": case.purpose,
        "votes": [_cast(vote) for vote in case.votes],
        "decision": _cast(case.decision) if case.decision else None,
    }


def _cast(vote: Cast) -> dict[str, Any]:
    found = {name: value for name, value in asdict(vote).items() if name != "answer"}
    return {**found, "at": vote.at.isoformat() + "Z", "answer": answer_json(vote.answer)}


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk
