"""/api/v1/views over HTTP: save, read, preview and forget; who may, and what is refused in one line."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from palate.data.facts import Facts
from palate.data.records import Annotator
from palate.data.store import Store
from palate.data.training_views import Definition, view
from palate.labeling.api_views import asking
from palate.labeling.desk import Desk
from palate.labeling.review_service import Review
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.weights import save_view
from palate.project import Project
from tests.data.test_training_views import Ballots, fill
from tests.labeling.data_app import data_app, token

VIEWS = "/api/v1/views"
PLAIN: dict[str, Any] = {
    "aggregation": "vote", "min_strength": None, "unknown_strength": False, "ties": True, "min_agreement": None,
    "keep_single": False, "exclude": [], "kinds": [], "source": None, "tag": None,
    "purposes": ["train", "random", "repeat"], "since": None, "until": None,
}  # fmt: skip
ALL = {
    "comparisons": 5, "pairs": 13, "votes": 11, "agreement": 3 / 8, "agreed_on": 8, "longer": None, "longer_of": 0
}  # fmt: skip
CAREFUL = {
    "comparisons": 2, "pairs": 2, "votes": 4, "agreement": 1.0, "agreed_on": 2, "longer": None, "longer_of": 0
}  # fmt: skip


@pytest.fixture
def store(project: Project) -> Iterator[Store]:
    with project.own_store() as opened:
        fill(Ballots(opened))
        yield opened


@pytest.fixture
def app(store: Store, project: Project) -> Iterator[FastAPI]:
    with Desk(store) as desk, Facts(store) as facts:
        yield data_app(store, project.folder, desk, facts)


def client(app: FastAPI, role: Any = "lead") -> TestClient:
    return TestClient(
        app, base_url="http://localhost", headers={"authorization": f"Bearer {token(app, role)}"}
    )


@pytest.fixture
def lead(app: FastAPI) -> TestClient:
    return client(app)


def error(answer: Any, status: int) -> str:
    assert answer.status_code == status, (answer.status_code, answer.text)
    found = answer.json()["error"]
    assert "\n" not in found["message"]
    return f"{found['code']}: {found['message']}"


def test_save_read_and_forget(lead: TestClient, store: Store) -> None:
    assert lead.get(VIEWS).json() == {"views": []}
    asked = {"aggregation": "majority", "ties": False, "min_agreement": 0.6, "exclude": ["cy"]}
    saved = lead.put(f"{VIEWS}/careful", json=asked)
    assert saved.status_code == 200, saved.text
    known = view(store, "careful")
    assert known.definition == Definition(
        "majority", ties=False, min_agreement=0.6, exclude=(Annotator("cy").id,)
    )
    plain = {
        **PLAIN, **asked, "exclude": [Annotator("cy").id], "name": "careful", "created_by": known.created_by,
        "saved_at": f"{known.created_at:%Y-%m-%dT%H:%M:%S}Z",
    }  # fmt: skip
    assert known.created_by == Annotator("lead").id
    whole = {**plain, "weights": None, "before": ALL, "after": CAREFUL}
    assert saved.json() == whole == lead.get(f"{VIEWS}/careful").json()
    assert lead.get(VIEWS).json() == {"views": [plain]}
    assert lead.put(f"{VIEWS}/careful", json={}).json()["after"] == ALL
    assert lead.delete(f"{VIEWS}/careful").json() == {"deleted": "careful"}
    assert lead.get(VIEWS).json() == {"views": []}


def test_preview_saves_nothing(lead: TestClient, store: Store) -> None:
    asked = {"aggregation": "majority", "ties": False, "min_agreement": 0.6, "exclude": [Annotator("cy").id]}
    assert lead.post(f"{VIEWS}/preview", json=asked).json() == {"before": ALL, "after": CAREFUL}
    assert lead.post(f"{VIEWS}/preview", json={"aggregation": "reliability"}).json()["before"] == ALL
    assert store.value("SELECT count(*) FROM training_view") == 0


def test_the_figures_and_the_weights_are_of_now(lead: TestClient, store: Store) -> None:
    saved = lead.put(f"{VIEWS}/trusted", json={"aggregation": "reliability"}).json()
    assert set(saved["weights"]) == {Annotator(name).id for name in ("ann", "bob", "cy")}
    ballots = Ballots(store)
    ballots.votes = 100
    ballots.vote(ballots.compare("new"), "0>1", "dan")
    later = lead.get(f"{VIEWS}/trusted").json()
    assert (later["before"]["votes"], later["weights"]) == (12, saved["weights"])
    renewed = lead.put(f"{VIEWS}/trusted", json={"aggregation": "reliability"}).json()
    assert set(renewed["weights"]) - set(saved["weights"]) == {Annotator("dan").id}


def test_leads_only(app: FastAPI) -> None:
    nobody = TestClient(app, base_url="http://localhost")
    anna = client(app, "annotator")
    for one, status in ((nobody, 401), (anna, 403)):
        for method, path in (
            ("GET", ""), ("GET", "/a"), ("PUT", "/a"), ("DELETE", "/a"), ("POST", "/preview")
        ):  # fmt: skip
            body = {} if method in ("PUT", "POST") else None
            error(one.request(method, VIEWS + path, json=body), status)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"aggregation": "mean"}, 422, "Input should be 'vote', 'majority' or 'reliability'"),
        ({"min_agreement": 60}, 422, "less than or equal to 1, got 60"),
        ({"strength": 2}, 422, "body.strength: Extra inputs are not permitted"),
        ({"purposes": ["eval"]}, 422, "Input should be 'train', 'random', 'repeat' or 'gold'"),
        ({"since": "yesterday"}, 422, "body.since"),
        ({"exclude": ["nobody"]}, 400, "invalid: there is no annotator 'nobody'"),
        ({"keep_single": True}, 400, "invalid: keep_single goes with min_agreement, which is not set"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, 400, "no day is both since 2026-02-01 and until"),
    ],
)
def test_refusals(lead: TestClient, store: Store, body: dict[str, Any], status: int, says: str) -> None:
    assert says in error(lead.put(f"{VIEWS}/a", json=body), status)
    assert says in error(lead.post(f"{VIEWS}/preview", json=body), status)
    assert store.value("SELECT count(*) FROM training_view") == 0


def test_names(lead: TestClient) -> None:
    assert "no view 'other'; GET /api/v1/views lists them" in error(lead.get(f"{VIEWS}/other"), 404)
    error(lead.delete(f"{VIEWS}/other"), 404)
    for name in ("-a", "a.b", "x" * 65, "%20"):
        error(lead.put(f"{VIEWS}/{name}", json={}), 422)
    assert lead.put(f"{VIEWS}/preview", json={}).json()["name"] == "preview"  # a name like any other


def test_the_screens_show_a_view_as_soon_as_it_is_saved(store: Store) -> None:
    """Through the threads that compute for Review, which remembers what it has shown."""
    review = Review(store)
    try:
        ask = asking(review)
        assert ask(("k",), lambda facts: facts.value("SELECT count(*) FROM judgement")) == 13

        def shown() -> list[str]:
            section = review.whole("training", Scope()).result(60).shown
            return [str(row["view"]) for row in section.panels[0].tables[0].rows]

        assert shown() == ["without a view"]
        ask(("save",), lambda facts: save_view(store, facts, "m", Definition("majority")))
        assert shown() == ["without a view"]
        review.forget()
        assert shown() == ["without a view", "m"]
    finally:
        review.close()
