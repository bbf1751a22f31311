"""The requests of the ranking page, over HTTP against the whole app: what they give, and what they never tell."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from palate.config import LabelConfig
from palate.data.records import new_id
from palate.data.store import Store
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import MODELS, enter, fill

HOST = "http://localhost"


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    """The app on five comparisons of two answers and one of four; nobody is logged in."""
    store = project.store()
    fill(store, n=5, k=2)
    fill(store, n=1, k=4)
    config = LabelConfig(project=project.folder, criteria=("helpful", "honest"))
    with TestClient(make_app(store, project, config), base_url=HOST) as opened:
        opened.store = store  # type: ignore[attr-defined]
        yield opened


def store_of(client: TestClient) -> Store:
    found: Store = client.store  # type: ignore[attr-defined]
    return found


def following(client: TestClient, have: tuple[str, ...] = ()) -> dict[str, Any]:
    response = client.post("/api/v1/next", json={"have": have})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def ballot(item: dict[str, Any], **fields: Any) -> dict[str, Any]:
    letters = [answer["letter"] for answer in item["answers"]]
    return {
        "vote_id": new_id(),
        "assignment": item["assignment"],
        "verdict": "ranked",
        "ranking": [[letter] for letter in letters],
        **fields,
    }


def error(response: Any) -> tuple[int, str]:
    assert set(response.json()) == {"error"}, response.text
    return response.status_code, response.json()["error"]["code"]


def test_a_page_gets_an_item_and_the_next_one_ahead(client: TestClient) -> None:
    enter(client, "anna")
    found = following(client)
    first, ahead = found["items"]
    assert set(first) == {"assignment", "messages", "answers", "earlier", "lease_seconds"}
    assert found["progress"] == {"done": 0, "today": 0, "left": 6, "median_seconds": None}
    again = following(client, (first["assignment"],))
    assert again["items"] == [{"assignment": first["assignment"]}, ahead]


def test_a_vote_brings_the_next_items(client: TestClient) -> None:
    enter(client, "anna")
    first, ahead = following(client)["items"]
    sent = ballot(first, seconds_active=3.5, have=[ahead["assignment"]])
    response = client.post("/api/v1/votes", json=sent).json()
    assert response["saved"] == sent["vote_id"]
    assert response["items"][0] == {"assignment": ahead["assignment"]}
    assert len(response["items"][1]["answers"]) in (2, 4)
    assert response["progress"] == {"done": 1, "today": 1, "left": 5, "median_seconds": 3.5}
    assert client.post("/api/v1/votes", json=sent).json()["saved"] == sent["vote_id"]
    assert store_of(client).value("SELECT count(*) FROM vote") == 1


def test_all_that_a_ballot_may_say_comes_back_on_undo(client: TestClient) -> None:
    enter(client, "anna")
    item = following(client)["items"][0]
    said = {
        "verdict": "tie",
        "ranking": [[answer["letter"] for answer in item["answers"]]],
        "flags": [{"flag": "unsafe", "letter": "B"}],
        "criteria": {"helpful": {"A": 3}},
        "rationale": "both are fine",
        "edit": {"letter": "A", "text": "a better text"},
        "guideline_version": 2,
    }
    vote_id = client.post("/api/v1/votes", json=ballot(item, **said)).json()["saved"]
    back = client.post("/api/v1/undo").json()
    assert back["item"]["assignment"] == item["assignment"]
    assert back["items"][0] == {"assignment": item["assignment"]}
    expected = {key: said[key] for key in ("verdict", "flags", "criteria", "rationale", "edit")}
    assert {key: back["item"]["earlier"][key] for key in expected} == expected
    assert back["item"]["earlier"]["vote_id"] == vote_id
    skipped = ballot(item, verdict="skip", ranking=[], reason="language")
    client.post("/api/v1/votes", json=skipped)
    mine = client.get("/api/v1/votes/mine").json()["votes"]
    assert [(vote["id"], vote["verdict"], vote["reason"]) for vote in mine] == [
        (skipped["vote_id"], "skip", "language")
    ]
    again = client.post(f"/api/v1/votes/{skipped['vote_id']}/reopen").json()
    assert again["item"]["earlier"]["reason"] == "language"
    assert store_of(client).value("SELECT count(*) FROM completion WHERE role = 'edit'") == 1


def test_own_votes_come_in_pages(client: TestClient) -> None:
    enter(client, "anna")
    sent = []
    while items := following(client)["items"]:
        sent.append(client.post("/api/v1/votes", json=ballot(items[0])).json()["saved"])
    first = client.get("/api/v1/votes/mine", params={"limit": 4}).json()["votes"]
    rest = client.get("/api/v1/votes/mine", params={"before": first[-1]["created_at"]}).json()["votes"]
    assert [vote["id"] for vote in first + rest] == sent[::-1]
    enter(client, "ben")
    assert client.get("/api/v1/votes/mine").json() == {"votes": []}
    assert error(client.post(f"/api/v1/votes/{sent[0]}/reopen")) == (409, "not_yours")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ranking": [["A"]]}, (400, "invalid")),
        ({"ranking": [["A"], ["Z"]]}, (400, "invalid")),
        ({"vote_id": "x"}, (400, "invalid")),
        ({"criteria": {"funny": {"A": 1}}}, (400, "invalid")),
        ({"assignment": "somebody-elses"}, (409, "not_yours")),
        ({"verdict": "best"}, (422, "invalid")),
        ({"ranking": "AB"}, (422, "invalid")),
        ({"annotator": "anna"}, (422, "invalid")),
        ({"guideline_version": 2**40}, (422, "invalid")),
    ],
)
def test_bad_ballots_are_refused(
    client: TestClient, change: dict[str, Any], expected: tuple[int, str]
) -> None:
    enter(client, "anna")
    item = following(client)["items"][0]
    assert error(client.post("/api/v1/votes", json=ballot(item) | change)) == expected
    assert store_of(client).value("SELECT count(*) FROM vote") == 0
    assert following(client)["items"][0] == item


def test_nobody_answers_for_somebody_else(client: TestClient) -> None:
    enter(client, "anna")
    item = following(client)["items"][0]
    enter(client, "ben")
    assert error(client.post("/api/v1/votes", json=ballot(item))) == (409, "not_yours")
    assert client.post("/api/v1/heartbeat", json={"assignments": [item["assignment"]]}).json()["lost"] == [
        item["assignment"]
    ]
    client.cookies.clear()
    assert error(client.post("/api/v1/votes", json=ballot(item))) == (401, "login")
    assert error(client.post("/api/v1/next", json={})) == (401, "login")


def test_guidelines_are_the_leads_to_write(client: TestClient) -> None:
    def in_force() -> tuple[int | None, str]:
        found = client.get("/api/v1/guidelines").json()
        return found["version"], found["text"]

    def write(text: str) -> int:
        made: int = client.put("/api/v1/guidelines", json={"text": text}).json()["version"]
        return made

    enter(client, "anna")
    assert in_force() == (None, "")
    assert error(client.put("/api/v1/guidelines", json={"text": "Be fair."})) == (403, "forbidden")
    enter(client, "lea", "lead")
    assert [write(text) for text in ("Be fair.", "Be fair. ", "Be kind.")] == [1, 1, 2]
    enter(client, "anna")
    assert in_force() == (2, "Be kind.")
    assert client.get("/api/v1/me").json()["guideline_version"] == 2


def test_no_response_tells_where_an_answer_comes_from(client: TestClient) -> None:
    enter(client, "anna")
    store = store_of(client)
    secrets = {*MODELS, *(row["id"] for row in store.rows("SELECT id FROM completion"))}
    secrets |= {row["id"] for row in store.rows("SELECT id FROM comparison")}
    heard = [client.get("/api/v1/me").text]
    while items := following(client)["items"]:
        heard.append(json.dumps(items))
        heard.append(client.post("/api/v1/votes", json=ballot(items[0])).text)
    heard += [client.post("/api/v1/undo").text, client.get("/api/v1/votes/mine").text]
    assert not [secret for secret in secrets if secret in " ".join(heard)]
    assert not [word for word in ("purpose", "strategy", "propensity") if word in " ".join(heard)]
