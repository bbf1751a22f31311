"""The routes of Review's data: who may, what they answer, and that a decision is as safe as a vote."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from palate.config import LabelConfig
from palate.data.records import Comparison, new_id
from palate.data.store import Store
from palate.labeling import review_service
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import enter
from tests.labeling.voted import ask, vote


@pytest.fixture
def store(project: Project) -> Iterator[Store]:
    with project.own_store() as opened:
        yield opened


@pytest.fixture
def item(store: Store) -> Comparison:
    """An item on which two people differ, beside one without a vote."""
    split = ask(store, "Which refund?", ("yes", "no"), ("model-x", "model-y"), tags=("billing",))
    vote(store, split, "anna", "0>1", rationale="=polite")
    vote(store, split, "ben", "1>0", day=1)
    ask(store, "another")
    return split


@pytest.fixture
def client(store: Store, project: Project, item: Comparison) -> Iterator[TestClient]:
    app = make_app(store, project, LabelConfig(project.folder, browser=False))
    with TestClient(app, base_url="http://localhost") as opened:
        enter(opened, "the lead", "lead")
        yield opened


def get(client: TestClient, path: str, **asked: Any) -> httpx.Response:
    return client.get(f"/api/v1/review/{path}", params=asked)


def test_only_leads(client: TestClient, item: Comparison) -> None:
    decision = {"vote_id": new_id(), "verdict": "tie"}
    calls = [
        lambda: get(client, "data"),
        lambda: get(client, "export.csv"),
        lambda: get(client, "export.parquet"),
        lambda: get(client, f"items/{item.id}"),
        lambda: client.post("/api/v1/review/tags", json={"query": "", "add": ["x"]}),
        lambda: client.post(f"/api/v1/review/items/{item.id}/decision", json=decision),
    ]
    assert [call().status_code for call in calls] == [200] * 6
    enter(client, "anna", "annotator")
    assert [call().status_code for call in calls] == [403] * 6
    client.cookies.clear()
    assert [call().status_code for call in calls] == [401] * 6


def test_search(client: TestClient, item: Comparison) -> None:
    found = get(client, "data", q="REFUND yes", disagreement="0.3").json()
    assert (found["total"], found["page"], found["pages"], found["query"]) == (
        1,
        1,
        1,
        "?q=REFUND+yes&disagreement=0.3",
    )
    assert [column["key"] for column in found["columns"]][:3] == ["prompt", "source", "tags"]
    row = found["rows"][0]
    assert (row["item"], row["split"], row["models"], row["found"]) == (
        item.id,
        "1 : 0 : 1",
        "model-x, model-y",
        "answers",
    )
    assert set(row) == {column["key"] for column in found["columns"]}
    assert get(client, "data", page=2).json()["rows"] == []
    votes = get(client, "data", rows="votes", annotator="anna").json()["rows"]
    assert [(row["annotator"], row["ranking"]) for row in votes] == [("anna", "model-x > model-y")]


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"verdict": "x"}, 400, "verdict is one of"),
        ({"colour": "red"}, 400, "there is no field 'colour'"),
        ({"page": "0"}, 422, "query.page"),
        ({"since": "2026-13-01"}, 400, "since is a day like"),
        ({"q": "x" * 700}, 422, "query.q"),
    ],
)
def test_a_bad_question_is_named(client: TestClient, asked: dict[str, str], status: int, says: str) -> None:
    answer = get(client, "data", **asked)
    assert answer.status_code == status and says in answer.json()["error"]["message"]


def test_exports(client: TestClient, item: Comparison) -> None:
    text = get(client, "export.csv", rows="votes", tag="billing")
    assert (
        text.headers["content-type"].startswith("text/csv")
        and 'filename="votes.csv"' in text.headers["content-disposition"]
    )
    first, *rest = text.text.splitlines()
    assert first == "# query: ?tag=billing&rows=votes"
    assert sorted(row["rationale"] for row in csv.DictReader(io.StringIO("\n".join(rest)))) == [
        "",
        "'=polite",
    ]
    file = get(client, "export.parquet", q="refund")
    table = pq.read_table(io.BytesIO(file.content))
    assert table["item"].to_pylist() == [item.id] and table.schema.metadata[b"query"] == b"?q=refund"


def test_tags_of_what_is_found_and_by_id(client: TestClient, store: Store, item: Comparison) -> None:
    change = lambda **body: client.post("/api/v1/review/tags", json=body)
    assert change(query="?q=refund", add=["seen"]).json() == {"prompts": 1, "changed": 1}
    assert get(client, "data", tag="seen").json()["total"] == 1
    assert change(prompts=[item.prompt_id, "unknown"], remove=["seen"], add=["b"]).json() == {
        "prompts": 2,
        "changed": 1,
    }
    assert get(client, "data", tag="seen").json()["total"] == 0  # at once, not when the figures are made next
    assert store.value("SELECT tags FROM prompt WHERE id = ?", [item.prompt_id]) == ["b", "billing"]
    for body, says in (
        ({"add": ["x"]}, "name either a query or prompts"),
        ({"query": "", "prompts": [], "add": ["x"]}, "name either"),
        ({"query": "?x=1", "add": ["x"]}, "there is no field 'x'"),
        ({"query": ""}, "name a tag"),
        ({"query": "", "add": ["\x07"]}, "visible characters"),
    ):
        answer = change(**body)
        assert answer.status_code == 400 and says in answer.json()["error"]["message"]


def test_a_decision(client: TestClient, store: Store, item: Comparison) -> None:
    case = get(client, f"items/{item.id}").json()
    letters = {answer["text"]: answer["letter"] for answer in case["answers"]}
    assert (case["tags"], case["decision"], [one["annotator"] for one in case["votes"]]) == (
        ["billing"],
        None,
        ["anna", "ben"],
    )
    assert case["votes"][0]["answer"]["ranking"] == [[letters["yes"]], [letters["no"]]]
    assert "model-x" not in str(case)
    body = {
        "vote_id": new_id(),
        "verdict": "ranked",
        "ranking": [[letters["no"]], [letters["yes"]]],
        "rationale": "so",
    }
    decide = lambda **changed: client.post(
        f"/api/v1/review/items/{item.id}/decision", json={**body, **changed}
    )
    for _ in range(2):
        assert decide().json() == {"saved": body["vote_id"]}
    assert store.rows("SELECT id, ranking FROM vote WHERE adjudicated") == [
        {"id": body["vote_id"], "ranking": [[item.completion_ids[1]], [item.completion_ids[0]]]}
    ]
    refused = decide(vote_id=new_id())
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "answered")
    assert decide(vote_id=new_id(), replaces=body["vote_id"], verdict="tie", ranking=[]).status_code == 200
    assert get(client, f"items/{item.id}").json()["decision"]["answer"]["verdict"] == "tie"
    assert decide(vote_id=new_id(), verdict="nonsense").status_code == 422
    assert get(client, "items/unknown").status_code == 404
    assert client.post("/api/v1/review/items/unknown/decision", json=body).status_code == 404


def test_decided_items_leave_the_queue_with_the_next_figures(
    client: TestClient, item: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_service, "YOUNG", 0.0)  # as if some seconds lay between the requests
    monkeypatch.setattr(review_service, "REST", 0)
    queue = {"disagreement": "0.3", "adjudicated": "no", "sort": "disagreement"}
    assert [row["item"] for row in get(client, "data", **queue).json()["rows"]] == [item.id]
    body = {"vote_id": new_id(), "verdict": "tie"}
    assert client.post(f"/api/v1/review/items/{item.id}/decision", json=body).status_code == 200
    assert get(client, "data", **queue).json()["rows"] == []
