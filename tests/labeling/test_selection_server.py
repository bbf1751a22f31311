"""`palate label --select`: over HTTP, on Review, for Prometheus; `palate simulate --select` and its refusals."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from palate.config import LabelConfig, SimulateConfig, UserError
from palate.data import features
from palate.data.records import Run, new_id
from palate.data.store import Store
from palate.labeling import simulate
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import enter, fill
from tests.labeling.selection.world import world
from tests.labeling.test_operations import HOME, figures
from tests.labeling.test_simulate import demo_project

WAITING = "Comparisons come by chance: no completion has features yet (palate reward features)."


@pytest.fixture
def opened(project: Project) -> Iterator[Store]:
    with project.own_store() as store:
        yield store


def client(store: Store, project: Project, **settings: Any) -> TestClient:
    app = make_app(store, project, LabelConfig(project.folder, browser=False, **settings))
    return TestClient(app, base_url=HOME, follow_redirects=False, client=("127.0.0.1", 4711))


def state_when(asked: TestClient, what: str, value: object) -> dict[str, Any]:
    for _ in range(200):
        found: dict[str, Any] = asked.get("/api/v1/selection").json()
        if found.get(what) == value:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_a_server_that_chooses(opened: Store, project: Project) -> None:
    given = world(opened, n=30)
    with client(opened, project, select="information", random_share=0.05, control=False) as asked:
        enter(asked, "lea", "lead")
        state_when(asked, "choosing", True)
        for _ in range(12):
            item = asked.post("/api/v1/next", json={"have": []}).json()["items"][0]
            assert set(item) == {
                "assignment",
                "messages",
                "answers",
                "earlier",
                "lease_seconds",
            }  # nothing of the choice
            order = sorted(item["answers"], key=lambda answer: -given.score[answer["text"]])
            ballot = {"vote_id": new_id(), "assignment": item["assignment"], "verdict": "ranked",
                      "ranking": [[answer["letter"]] for answer in order]}  # fmt: skip
            assert asked.post("/api/v1/votes", json=ballot).status_code == 200
        found = state_when(asked, "votes", 12)
        assert found["rule"] == "information" and found["reason"] == ""
        notice = "Choosing what a reward model learns most from; 5 % come by chance."
        assert found["notice"] == notice and notice in asked.get("/review").text
        measured = figures(asked.get("/metrics").text)
        assert measured["palate_selection_on",] == 1
        assert measured["palate_selection_random_share",] == 0.05
        assert 0 < measured["palate_selection_seconds", "0.95"] < 1
        chosen = opened.value(
            "SELECT count(*) FROM comparison WHERE strategy = 'information' AND propensity > 0.9"
        )
        assert chosen >= 8


def test_it_says_what_is_missing_and_who_may_know(opened: Store, project: Project) -> None:
    fill(opened, n=3)
    with client(opened, project, select="dpo") as asked:
        assert asked.get("/api/v1/selection").status_code == 401
        enter(asked, "anna")
        assert asked.get("/api/v1/selection").status_code == 403
        assert len(asked.post("/api/v1/next", json={"have": []}).json()["items"]) >= 1
        enter(asked, "lea", "lead")
        found = state_when(asked, "notice", WAITING)
        assert (found["choosing"], found["share_by_chance"]) == (False, 1.0)
        assert WAITING in asked.get("/review/progress").text


def test_by_default_it_is_chance(opened: Store, project: Project) -> None:
    fill(opened, n=3)
    asked = client(opened, project)
    enter(asked, "lea", "lead")
    assert (
        asked.get("/api/v1/selection").json()["notice"]
        == "Comparisons come by chance (palate label --select)."
    )
    assert 'class="selection"' not in asked.get("/review").text
    assert "palate_selection" not in asked.get("/metrics").text


def test_settings_are_checked_at_the_start(opened: Store, project: Project) -> None:
    with pytest.raises(UserError, match=r"--random-share takes 0.05 to 1, got 0"):
        make_app(opened, project, LabelConfig(project.folder, select="information", random_share=0))


def test_rules_answer_what_is_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = demo_project(tmp_path / "p", n=60, k=2)
    chosen = SimulateConfig(project.folder, annotators=2, overlap=0, select="information", control=False)
    with pytest.raises(UserError, match="no completion has features yet"):
        simulate.run(project, chosen)
    with project.store() as store:
        texts = store.rows("SELECT id, text FROM completion ORDER BY id")
        matrix = [
            [len(row["text"]) / 50, row["text"].count("light"), row["text"].count("quality")] for row in texts
        ]
        store.put_run(Run("features-1", "features", created_at="2026-01-01"))
        features.add(store, "features-1", [row["id"] for row in texts], np.array(matrix, dtype=np.float32))
    run = simulate.run(project, chosen)
    assert run.metrics["votes"] == 60
    assert "Choosing what a reward model learns most from; 15 % come by chance." in capsys.readouterr().out
    with project.store() as store:
        marked = store.rows("SELECT strategy, count(*) AS n FROM comparison GROUP BY 1 ORDER BY 1")
    assert [row["strategy"] for row in marked] == ["information", "random"] and marked[0]["n"] > 40
