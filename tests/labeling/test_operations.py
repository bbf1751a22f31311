"""What machines ask a running server, over HTTP."""

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from palate.config import LabelConfig
from palate.data.records import new_id
from palate.data.store import Store
from palate.labeling import operations
from palate.labeling.operations import Stopwatch
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import enter, fill

HOME = "http://localhost"


@pytest.fixture
def opened(project: Project) -> Iterator[Store]:
    with project.own_store() as store:
        fill(store, n=3)
        yield store


def client(store: Store, project: Project, address: str = "127.0.0.1", **settings: Any) -> TestClient:
    app = make_app(store, project, LabelConfig(project.folder, browser=False, **settings))
    return TestClient(app, base_url=HOME, follow_redirects=False, client=(address, 4711))


def figures(text: str) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_healthz_needs_no_database(opened: Store, project: Project) -> None:
    asked = client(opened, project)
    opened.close()
    assert (asked.get("/healthz").status_code, asked.get("/healthz").json()) == (200, {"status": "ok"})


def test_readyz_says_why_not(opened: Store, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = client(opened, project)
    assert asked.get("/readyz").json() == {"ready": True, "reasons": []}
    monkeypatch.setattr(operations, "FREE_BYTES", 2**62)  # more than any disk has
    answer = asked.get("/readyz")
    assert answer.status_code == 503
    assert "are free on the disk" in answer.json()["reasons"][0]
    opened.close()
    assert "the database does not answer" in asked.get("/readyz").json()["reasons"]


def test_metrics_count_votes_and_requests(opened: Store, project: Project) -> None:
    asked = client(opened, project)
    enter(asked, "Anna Secretname")
    item = asked.post("/api/v1/next", json={"have": []}).json()["items"][0]
    ballot = {"vote_id": new_id(), "assignment": item["assignment"], "verdict": "tie"}
    assert asked.post("/api/v1/votes", json=ballot).status_code == 200
    assert asked.get("/api/v1/nothing-of-the-kind").status_code == 404
    assert asked.get(f"/api/v1/votes/{new_id()}/nonsense").status_code == 404
    text = asked.get("/metrics").text
    found = figures(text)
    assert found["palate_votes_total", "human", "tie"] == 1
    assert found["palate_comparisons", "answered"] == 1
    assert found["palate_journal_lag",] == 0
    assert found["palate_journal_bytes",] > 0
    assert found["palate_request_seconds_count", "POST", "/api/v1/votes", "200"] == 1
    assert found["palate_request_seconds_count", "GET", "other", "404"] == 2
    assert found["palate_sessions",] == 1
    assert found["process_resident_memory_bytes",] > 0
    assert "Secretname" not in text and item["assignment"] not in text


def test_metrics_are_for_this_machine_and_for_leads(opened: Store, project: Project) -> None:
    here, away = client(opened, project), client(opened, project, "203.0.113.9")
    assert here.get("/metrics").status_code == 200
    passed_on = {"x-forwarded-for": "203.0.113.9"}  # a proxy on this machine, which nobody has named
    assert here.get("/metrics", headers=passed_on).status_code == 403
    assert away.get("/metrics").json()["error"]["code"] == "forbidden"
    people = away.app.state.people  # type: ignore[attr-defined]
    for role, status in (("annotator", 403), ("lead", 200)):
        token, _ = people.make_token(people.create(role, role).id, "prometheus")
        sent = away.get("/metrics", headers={"Authorization": f"Bearer {token}"})
        assert sent.status_code == status, role
    enter(away, "lead")
    assert away.get("/metrics").status_code == 403  # a page that a lead has open is no reason


def test_routes_are_named_by_their_templates_behind_a_root_path(opened: Store, project: Project) -> None:
    asked = client(opened, project, root_path="/palate")
    enter(asked, "anna")
    asked.post(f"/palate/api/v1/votes/{new_id()}/reopen")
    names = {
        name[2]
        for name in figures(asked.get("/palate/metrics").text)
        if name[0] == "palate_request_seconds_count"
    }
    assert "/api/v1/votes/{vote_id}/reopen" in names


def test_age_of_the_latest_backup(opened: Store, project: Project) -> None:
    asked = client(opened, project)
    assert "palate_backup_age_seconds" not in asked.get("/metrics").text
    folder = Path(project.folder) / "backups"
    folder.mkdir(exist_ok=True)
    (folder / "2026-11-21T04-30-00.duckdb").touch()
    assert 0 <= figures(asked.get("/metrics").text)["palate_backup_age_seconds",] < 60


def test_the_stopwatch_costs_microseconds() -> None:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def sink(message: Any) -> None:
        return

    watch = Stopwatch(
        nothing, lambda: ["/api/v1/votes", "/api/v1/votes/{id}/reopen"], CollectorRegistry(), ""
    )
    headers = [
        (b"host", b"localhost"),
        (b"cookie", b"x" * 60),
        (b"accept", b"*/*"),
        (b"origin", b"http://localhost"),
    ]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/votes",
        "headers": headers,
        "client": ("::1", 1),
    }

    def seconds(app: Any, n: int = 2000) -> float:
        began = time.process_time()
        for _ in range(n):
            coroutine = app(dict(scope), sink, sink)
            with pytest.raises(StopIteration):
                coroutine.send(None)
        return (time.process_time() - began) / n

    cost = min(seconds(watch) - seconds(nothing) for _ in range(3))
    assert timedelta(seconds=cost) < timedelta(microseconds=50)
