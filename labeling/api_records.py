"""Records as JSON: page through them, add a few. For many rows there are /query and /tables (api_data.py).

    GET  /api/v1/prompts?split=test&limit=100      {"items": [...], "next": "5f2c..."}    then &after=5f2c...
    POST /api/v1/completions                       {"completions": [{"prompt_id", "text", "model"}]}

For leads: rows name models and people.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from pydantic import Field

from palate.config import UserError
from palate.data.columns import TABLE, Record, record_table
from palate.data.records import Comparison, Completion, CompletionRole, Prompt, Purpose, Score, Split
from palate.data.store import Store
from palate.labeling.api import Body, JsonObject
from palate.labeling.desk import Desk
from palate.labeling.login import require
from palate.labeling.uploads import store_tables, write_parquet

MOST = 1000  # rows of one page, and of one addition
_JSON = ("messages", "meta", "sampling", "criteria")

Id = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=200_000)]
Limit = Annotated[int, Query(ge=1, le=MOST)]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before")]
Filter = Annotated[str | None, Query(max_length=400)]


Condition = tuple[str, Any]  # (SQL with a question mark, the value; None: not asked)


def _of_prompt(source: Filter = None, split: Split | None = None, tag: Filter = None) -> list[Condition]:
    """Conditions on the prompt that a row belongs to."""
    asked = (("source = ?", source), ("split = ?", split), ("list_contains(tags, ?)", tag))
    return [(f"prompt_id IN (SELECT id FROM prompt WHERE {condition})", value) for condition, value in asked]


OfPrompt = Annotated[list[Condition], Depends(_of_prompt)]


class Turn(Body):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class NewPrompt(Body):
    """A conversation that awaits an answer; its id is a digest of the messages."""

    messages: list[Turn] = Field(min_length=1, max_length=1000)
    source: str = Field("api", max_length=400)
    split: Split | None = Field(None, description="train or test; by the hash of the prompt when left out")
    tags: list[Annotated[str, Field(max_length=200)]] = Field([], max_length=100)
    meta: JsonObject = Field({})


class NewCompletion(Body):
    """An answer to a prompt."""

    prompt_id: Id
    text: Text
    model: str = Field("", max_length=400)
    role: CompletionRole = "sample"
    sampling: JsonObject = Field({})
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    finish_reason: Literal["stop", "length"] | None = None
    meta: JsonObject = Field({})


class NewComparison(Body):
    """Answers that somebody is to rank."""

    prompt_id: Id
    completion_ids: list[Id] = Field(min_length=2, max_length=9)
    purpose: Purpose = "train"
    strategy: str = Field("api", max_length=200)
    propensity: float = Field(1.0, gt=0, le=1)
    overlap: int = Field(1, ge=1, le=1000)
    priority: int = Field(0, ge=-(2**31), lt=2**31)


class NewScore(Body):
    """What a reward run thinks of a completion."""

    completion_id: Id
    run_id: Id
    mean: float = Field(allow_inf_nan=False)
    std: float | None = Field(None, ge=0, allow_inf_nan=False)


class Prompts(Body):
    """Prompts to add."""

    prompts: list[NewPrompt] = Field(min_length=1, max_length=MOST)


class Completions(Body):
    """Completions to add."""

    completions: list[NewCompletion] = Field(min_length=1, max_length=MOST)


class Comparisons(Body):
    """Comparisons to add."""

    comparisons: list[NewComparison] = Field(min_length=1, max_length=MOST)


class Scores(Body):
    """Scores to add."""

    scores: list[NewScore] = Field(min_length=1, max_length=MOST)


class Added(Body):
    """The ids of what was sent, in its order, and how many of them were not known before."""

    ids: list[str]
    new: int


class Page(Body):
    """Rows in the order of their ids; `next` is where to go on, null at the end."""

    items: list[dict[str, Any]]
    next: str | None


def add_records(app: FastAPI, store: Store, desk: Desk) -> None:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["records"])

    @routes.get("/prompts")
    def prompts(request: Request, source: Filter = None, split: Split | None = None, tag: Filter = None,
                run_id: Filter = None, limit: Limit = 100, after: Cursor = None) -> Page:  # fmt: skip
        """Prompts; for leads."""
        require(request, "lead")
        tagged = ("list_contains(tags, ?)", tag)
        wanted = [("source = ?", source), ("split = ?", split), tagged, ("run_id = ?", run_id)]
        return _page(store, "SELECT * FROM prompt", wanted, limit, after)

    @routes.get("/completions")
    def completions(request: Request, of: OfPrompt, prompt_id: Filter = None, model: Filter = None,
                    role: CompletionRole | None = None, run_id: Filter = None, limit: Limit = 100,
                    after: Cursor = None) -> Page:  # fmt: skip
        """Completions, with the models they come from; for leads."""
        require(request, "lead")
        wanted = [
            ("prompt_id = ?", prompt_id),
            ("model = ?", model),
            ("role = ?", role),
            ("run_id = ?", run_id),
        ]
        return _page(store, "SELECT * FROM completion", [*wanted, *of], limit, after)

    @routes.get("/comparisons")
    def comparisons(request: Request, of: OfPrompt, prompt_id: Filter = None, purpose: Purpose | None = None,
                    run_id: Filter = None, limit: Limit = 100, after: Cursor = None) -> Page:  # fmt: skip
        """Comparisons; for leads."""
        require(request, "lead")
        wanted = [("prompt_id = ?", prompt_id), ("purpose = ?", purpose), ("run_id = ?", run_id)]
        return _page(store, "SELECT * FROM comparison", [*wanted, *of], limit, after)

    @routes.get("/votes")
    def votes(request: Request, of: OfPrompt, comparison_id: Filter = None, run_id: Filter = None,
              kind: Literal["human", "model", "rule"] | None = None, limit: Limit = 100,
              after: Cursor = None) -> Page:  # fmt: skip
        """Votes that count now, with who gave them on what; for leads."""
        require(request, "lead")
        wanted = [("comparison_id = ?", comparison_id), ("run_id = ?", run_id), ("annotator_kind = ?", kind)]
        return _page(store, "SELECT * FROM current_vote", [*wanted, *of], limit, after)

    @routes.get("/scores")
    def scores(request: Request, completion_id: Filter = None, run_id: Filter = None, limit: Limit = 100,
               after: Cursor = None) -> Page:  # fmt: skip
        """Scores of reward runs; for leads."""
        require(request, "lead")
        # one completion has a score of each run, so both make the place in the list
        rows = "SELECT *, completion_id || ' ' || run_id AS id FROM score"
        return _page(
            store, rows, [("completion_id = ?", completion_id), ("run_id = ?", run_id)], limit, after
        )

    _add_routes(routes, store, desk)
    app.include_router(routes)


def _add_routes(routes: APIRouter, store: Store, desk: Desk) -> None:
    """What adds rows."""

    @routes.post("/prompts")
    def add_prompts(request: Request, body: Prompts) -> Added:
        """Add prompts; for leads."""
        require(request, "lead")
        given = [one.model_dump() for one in body.prompts]
        made = [
            Prompt(**{**one, "messages": tuple(one["messages"]), "tags": tuple(one["tags"])}) for one in given
        ]
        return _add(store, desk, made, [one.id for one in made])

    @routes.post("/completions")
    def add_completions(request: Request, body: Completions) -> Added:
        """Add completions of known prompts; for leads."""
        require(request, "lead")
        made = [Completion(**one.model_dump()) for one in body.completions]
        return _add(store, desk, made, [one.id for one in made])

    @routes.post("/comparisons")
    def add_comparisons(request: Request, body: Comparisons) -> Added:
        """Add comparisons of known completions; annotators are asked at once. For leads."""
        require(request, "lead")
        given = [one.model_dump() for one in body.comparisons]
        try:
            made = [Comparison(**{**one, "completion_ids": tuple(one["completion_ids"])}) for one in given]
        except ValueError as error:
            raise UserError(str(error)) from error
        return _add(store, desk, made, [one.id for one in made])

    @routes.post("/scores")
    def add_scores(request: Request, body: Scores) -> Added:
        """Add scores of known completions; for leads."""
        require(request, "lead")
        made = [Score(**one.model_dump()) for one in body.scores]
        return _add(store, desk, made, [f"{one.completion_id} {one.run_id}" for one in made])


def _add(store: Store, desk: Desk, records: Sequence[Record], ids: list[str]) -> Added:
    table = TABLE[type(records[0])]
    with tempfile.TemporaryDirectory(prefix="palate-upload-") as folder:
        path = write_parquet(record_table(records), Path(folder) / "rows.parquet")
        new = store_tables(store, {table: [path]})[table]
    if table == "comparison":  # also where none is new: this may be the second try
        desk.admit(ids)
    return Added(ids=ids, new=new)


def _page(store: Store, rows: str, wanted: Sequence[Condition], limit: int, after: str | None) -> Page:
    given = [(condition, value) for condition, value in wanted if value is not None]
    if after is not None:
        given.append(("id > ?", after))
    where = " AND ".join(condition for condition, _ in given) or "true"
    found = store.rows(
        f"SELECT * FROM ({rows}) WHERE {where} ORDER BY id LIMIT ?",
        [*(value for _, value in given), limit + 1],
    )
    more = len(found) > limit
    items = [_plain(row) for row in found[:limit]]
    return Page(items=items, next=items[-1]["id"] if more else None)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON values: what is stored as JSON text is JSON again."""
    return {name: json.loads(value) if name in _JSON and value else value for name, value in row.items()}
