"""Forged calls: every route of the app, by nobody, an annotator, a lead, an admin and somebody who was disabled a
moment ago, with a cookie and with a token. Who may what stands here as data; a route that is not here fails.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from fastapi.testclient import TestClient
from starlette.routing import Mount

from palate.config import LabelConfig
from palate.data.records import Annotator
from palate.data.store import Store
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import enter, fill

Least = Literal["open", "annotator", "lead", "admin", "machine", "shut"]
RANK = {"nobody": 0, "disabled": 0, "annotator": 1, "lead": 2, "admin": 3}
NEEDED = {"open": 0, "annotator": 1, "lead": 2, "admin": 3, "shut": 9}
PEOPLE = tuple(RANK)
HTML = {"accept": "text/html"}

RUN = {"id": "sft-9", "stage": "sft", "created_at": "2026-01-01T00:00:00"}
BALLOT = {"vote_id": "forged-vote", "assignment": "x", "verdict": "all_bad"}
# route -> (the least role, a body that is valid, or would be if it named what there is)
OWN: dict[str, tuple[Least, Any]] = {
    "GET /healthz": ("open", None),
    "GET /readyz": ("open", None),
    "GET /metrics": ("machine", None),
    "GET /login": ("open", None),
    "POST /login": ("open", None),
    "POST /logout": ("annotator", None),
    "GET /start": ("open", None),
    "POST /start": ("open", None),
    "GET /invite": ("open", None),
    "POST /invite": ("open", None),
    "GET /people.css": ("open", None),
    "GET /live": ("annotator", None),
    "GET /live.js": ("annotator", None),
    "GET /live.css": ("annotator", None),
    "GET /guidelines": ("lead", None),
    "POST /guidelines": ("lead", None),
    "GET /guidelines.css": ("annotator", None),
    "GET /statistics": ("lead", None),
    "GET /statistics/": ("lead", None),
    "GET /review.css": ("annotator", None),
    "GET /review.js": ("annotator", None),
    "GET /review": ("lead", None),
    "GET /review/": ("lead", None),
    "GET /review/part/{id}": ("lead", None),
    "GET /review/{id}": ("lead", None),
    "GET /review/data": ("lead", None),
    "POST /review/data/tags": ("lead", None),
    "GET /review/item": ("lead", None),
    "GET /review/adjudicate": ("lead", None),
    "POST /review/adjudicate": ("lead", None),
    "GET /adjudicate.js": ("annotator", None),
    "GET /review/{id}/late/{panel}": ("lead", None),
    "GET /review/{id}/{panel}/{index}.csv": ("lead", None),
    "GET /api/v1/me": ("annotator", None),
    "POST /api/v1/next": ("annotator", {}),
    "POST /api/v1/votes": ("annotator", BALLOT),
    "POST /api/v1/undo": ("annotator", {}),
    "POST /api/v1/votes/{vote_id}/reopen": ("annotator", {}),
    "GET /api/v1/votes/mine": ("annotator", None),
    "POST /api/v1/heartbeat": ("annotator", {"assignments": ["x"]}),
    "GET /api/v1/guidelines": ("annotator", None),
    "PUT /api/v1/guidelines": ("lead", {"text": "Forged guidelines."}),
    "GET /api/v1/guidelines/history": ("lead", None),
    "GET /api/v1/live": ("annotator", None),
    "POST /api/v1/live": ("annotator", {"text": "Who are you?"}),
    "GET /people": ("lead", None),
    "POST /people/{action}": ("lead", None),
    "GET /account": ("annotator", None),
    "POST /account/{action}": ("annotator", None),
    "GET /api/v1/people": ("lead", None),
    "POST /api/v1/people": ("admin", {"name": "forged", "role": "admin"}),
    "PATCH /api/v1/people/{annotator_id}": ("admin", {"active": False}),
    "POST /api/v1/people/{annotator_id}/password-link": ("admin", None),
    "GET /api/v1/invitations": ("lead", None),
    "POST /api/v1/invitations": ("lead", {}),
    "DELETE /api/v1/invitations/{link_id}": ("lead", None),
    "GET /api/v1/tokens": ("annotator", None),
    "POST /api/v1/tokens": ("annotator", {"name": "forged"}),
    "DELETE /api/v1/tokens/{token_id}": ("annotator", None),
    "POST /api/v1/query": ("lead", {"sql": "SELECT * FROM vote"}),
    "POST /api/v1/tables": ("lead", None),
    "POST /api/v1/comparisons/overlap": ("lead", {"ids": ["x"], "overlap": 2}),
    "POST /api/v1/comparisons/priority": ("lead", {"ids": ["x"], "priority": 2}),
    "GET /api/v1/prompts": ("lead", None),
    "GET /api/v1/completions": ("lead", None),
    "GET /api/v1/comparisons": ("lead", None),
    "GET /api/v1/votes": ("lead", None),
    "GET /api/v1/scores": ("lead", None),
    "POST /api/v1/prompts": ("lead", {"prompts": [{"messages": [{"role": "user", "content": "forged"}]}]}),
    "POST /api/v1/completions": ("lead", {"completions": [{"prompt_id": "x", "text": "forged", "model": "m"}]}),
    "POST /api/v1/comparisons": ("lead", {"comparisons": [{"prompt_id": "x", "completion_ids": ["a", "b"]}]}),
    "POST /api/v1/scores": ("lead", {"scores": [{"completion_id": "x", "run_id": "r-1", "mean": 1.0}]}),
    "GET /api/v1/runs": ("lead", None),
    "GET /api/v1/selection": ("lead", None),
    "GET /api/v1/runs/{run_id}": ("lead", None),
    "PUT /api/v1/runs/{run_id}": ("lead", RUN),
    "GET /api/v1/statistics": ("lead", None),
    "GET /api/v1/review/data": ("lead", None),
    "GET /api/v1/review/export.csv": ("lead", None),
    "GET /api/v1/review/export.parquet": ("lead", None),
    "POST /api/v1/review/tags": ("lead", {"query": "", "add": ["forged"]}),
    "GET /api/v1/review/items/{comparison_id}": ("lead", None),
    "POST /api/v1/review/items/{comparison_id}/decision": ("lead", {"vote_id": "forged-vote", "verdict": "tie"}),
    "GET /api/v1/views": ("lead", None),
    "POST /api/v1/views/preview": ("lead", {"aggregation": "majority"}),
    "GET /api/v1/views/{name}": ("lead", None),
    "PUT /api/v1/views/{name}": ("lead", {"aggregation": "majority"}),
    "DELETE /api/v1/views/{name}": ("lead", None),
    "POST /api/v1/exports": ("lead", {"what": "votes"}),
    "GET /api/v1/exports/{export_id}": ("lead", None),
    "POST /api/v1/rule-annotators/{annotator_id}/next": ("lead", {"limit": 1}),
    "POST /api/v1/rule-annotators/{annotator_id}/votes": ("lead", {"run_id": "r-1", "ballots": [BALLOT]}),
    "GET /api/v1/webhooks": ("admin", None),
    "POST /api/v1/backups": ("admin", None),
    "GET /api/v1/backups": ("admin", None),
    "GET /api/v1/openapi.json": ("annotator", None),
    "GET /api/v1/docs": ("lead", None),
    **{f"{method} /api/v1/{{rest:path}}": ("annotator", None)
       for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")},
}  # fmt: skip
VALUES = {"vote_id": "nothing", "run_id": "sft-9", "export_id": "votes-" + "0" * 20, "annotator_id": "rule", "link_id": "0" * 16, "token_id": "0" * 16, "action": "invite",
          "rest:path": "no/such/thing", "path:path": "nothing.js", "size": "192", "key": "x", "name": "forged", "comparison_id": "nothing", "id": "models", "panel": "nothing", "index": "0"}  # fmt: skip

# what Gradio brings along on the ranking page
SERVED = ("GET /", "HEAD /", "GET /config", "GET /config/", "GET /theme.css", "GET /static/{path:path}",
          "GET /assets/{path:path}", "GET /svelte/{path:path}", "GET /favicon.ico", "GET /robots.txt",
          "GET /manifest.json")  # fmt: skip
FREE = (
    "GET /favicon.ico",
    "GET /robots.txt",
    "GET /manifest.json",
)  # browsers and crawlers ask without a cookie
CLOSED = ("POST /login/", "POST /login", "GET /logout", "GET /pwa_icon/{size}", "GET /pwa_icon", "GET /monitoring",
          "GET /monitoring/summary", "GET /monitoring/{key}")  # fmt: skip


def routes_of(routes: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(mount, "METHOD /path") of every route, those of mounted apps and of included routers too."""
    for route in routes:
        if isinstance(route, Mount):
            assert route.path == "", f"what is mounted at {route.path}?"
            yield from routes_of(route.routes, route.path or "/")
        elif hasattr(route, "original_router"):
            yield from routes_of(route.original_router.routes, prefix)
        else:
            yield from ((prefix, f"{method} {route.path}") for method in sorted(route.methods))


def least(mount: str, route: str) -> Least:
    """Who may call a route; a route that is written nowhere in this file fails."""
    if not mount:
        assert route in OWN, f"write down in OWN who may call {route}"
        return OWN[route][0]
    if "/gradio_api/" in route:
        return "shut"
    if f"{route.split()[0]} {route.split()[1]}" == "POST /login" and mount == "/":
        return "open"  # the app's own stands before it
    assert route in SERVED + CLOSED, f"write down in SERVED or CLOSED what becomes of Gradio's {route}"
    if route in CLOSED:
        return "shut"
    return "open" if route in FREE else "annotator"


def address(mount: str, route: str) -> tuple[str, str]:
    method, path = route.split()
    path = (mount.rstrip("/") if mount else "") + path
    for name, value in VALUES.items():
        path = path.replace(f"{{{name}}}", value)
    return method, path.replace("{api_name}", "predict")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("security") / "project"


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    """Closed by the app."""
    opened = Project.create(folder).own_store()
    fill(opened, n=30)
    opened.add_annotators([Annotator("rule", kind="rule", id="rule")])
    return opened


@pytest.fixture(scope="module")
def client(store: Store, folder: Path) -> Iterator[TestClient]:
    """One app for all tests here: they compare what was before and after."""
    app = make_app(store, Project.open(folder), LabelConfig(project=folder, browser=False, backup_minutes=0))
    http = {"base_url": "http://localhost", "follow_redirects": False, "raise_server_exceptions": False}
    with TestClient(app, **http) as opened:
        app.state.people.create("first", "admin")
        yield opened


def come(client: TestClient, who: str, via: str) -> dict[str, str]:
    """Be somebody; returns the headers to send. A disabled person brings what was good a moment ago."""
    client.cookies.clear()
    if who == "nobody":
        return {}
    people = client.app.state.people  # type: ignore[attr-defined]
    person = enter(client, f"the {who}", "admin" if who == "disabled" else who)  # type: ignore[arg-type]
    people.set_active(person.id, True)
    enter(client, person.name)
    headers = {}
    if via == "token":
        client.cookies.clear()
        headers = {"authorization": f"Bearer {people.make_token(person.id, 'test')[0]}"}
    if who == "disabled":
        assert client.get("/api/v1/me", headers=headers).status_code == 200
        people.set_active(person.id, False)
    return headers


def everything(store: Store) -> dict[str, list[Any]]:
    """All rows that a request could change, but not when somebody was last seen."""
    columns = {"account": "annotator_id, password, active", "access_token": "id, annotator_id, name, expires_at",
               "login_session": "id, annotator_id"}  # fmt: skip
    tables = ("prompt", "completion", "comparison", "assignment", "vote", "run", "score", "guideline", "invitation",
              "annotator", "withheld", *columns)  # fmt: skip
    return {name: store.rows(f"SELECT {columns.get(name, '*')} FROM {name} ORDER BY ALL") for name in tables}


def allowed(who: str, via: str, mount: str, route: str) -> bool:
    needed, path = least(mount, route), address(mount, route)[1]
    rank = RANK[who]
    if via == "token" and not path.startswith(("/api/v1/", "/metrics")):
        rank = 0  # a token counts where programs ask
    if needed == "machine":  # tests come from elsewhere
        return via == "token" and rank >= RANK["lead"]
    return rank >= NEEDED[needed]


@pytest.mark.parametrize("via", ["session", "token"])
@pytest.mark.parametrize("who", PEOPLE)
def test_every_route_gives_what_the_role_allows(
    client: TestClient, store: Store, folder: Path, who: str, via: str
) -> None:
    headers = come(client, who, via)
    routes = sorted(set(routes_of(client.app.routes)))  # type: ignore[attr-defined]
    assert len(routes) > 150
    refused = [one for one in routes if not allowed(who, via, *one)]
    before, exports = everything(store), list((folder / "exports").glob("*"))
    wrong = []
    if via == "token":
        assert client.post("/api/v1/tokens", json={"name": "child"}, headers=headers).status_code in (
            401,
            403,
        )
    for mount, route in refused:
        method, path = address(mount, route)
        body = OWN[route][1] if not mount else {"fn_index": 0, "data": [], "session_hash": "x"}
        response = client.request(method, path, json=body, headers=headers)
        expected = {403} if RANK[who] and via == "session" else {401, 403}
        if least(mount, route) == "shut":
            expected = {401, 404}
        if response.status_code not in expected:
            wrong.append((method, path, response.status_code, response.text[:80]))
    assert not wrong
    assert everything(store) == before
    assert list((folder / "exports").glob("*")) == exports
    for mount, route in [one for one in routes if allowed(who, via, *one)]:
        method, path = address(mount, route)
        if path == "/logout" or (via, route) == ("token", "POST /api/v1/tokens"):
            continue  # tested by itself: it would end what the next calls need; tokens make no tokens
        response = client.request(method, path, json=OWN.get(route, ("", None))[1], headers=headers)
        if response.status_code in (401, 403, 500, 502) and path not in ("/login", "/start", "/invite"):
            wrong.append((method, path, response.status_code, response.text[:80]))
    assert not wrong


def test_the_matrix_holds_no_route_that_is_gone(client: TestClient) -> None:
    known = {route for mount, route in routes_of(client.app.routes) if not mount}  # type: ignore[attr-defined]
    assert sorted(set(OWN) - known) == []


def test_logging_out_ends_the_session_and_nobody_elses(client: TestClient) -> None:
    enter(client, "ben")
    other = dict(client.cookies)
    enter(client, "anna")
    mine = dict(client.cookies)
    assert client.post("/logout").status_code == 303
    for cookies, status in ((mine, 401), (other, 200)):
        client.cookies.clear()
        client.cookies.update(cookies)
        assert client.get("/api/v1/me").status_code == status


@pytest.mark.parametrize("who", ["annotator", "lead", "admin"])
def test_no_function_of_the_page_can_be_called(
    client: TestClient, capfd: pytest.CaptureFixture[str], who: str
) -> None:
    come(client, who, "session")
    functions = client.get("/config").json()["dependencies"]
    assert not [one for one in functions if one["backend_fn"]]
    indices = [*(one["id"] for one in functions), -1, 99, "x", None, True, {"a": 1}]
    for index in indices:
        body = {"fn_index": index, "data": ["x"] * 12, "session_hash": "y", "event_data": {}, "trigger_id": 1}
        for path in ("run/predict", "run/0", f"run/{index}", "run/lambda", "api/predict", "call/predict", "queue/join",
                     "call/v2/lambda", "component_server", "reset", "cancel", "upload"):  # fmt: skip
            sent = client.post(f"/gradio_api/{path}", json=body)
            assert sent.status_code in (403, 404), (path, index, sent.status_code, sent.text[:200])
            assert "secret-model" not in sent.text
    for path in ("queue/data?session_hash=x", "queue/status", "heartbeat/x", "startup-events", "app_id", "token",
                 "user", "info", "runs", "dev/reload", "upload_progress?upload_id=x", "login_check"):  # fmt: skip
        assert client.get(f"/gradio_api/{path}").status_code in (403, 404), path
    assert "Traceback" not in capfd.readouterr().err


def following(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.post("/api/v1/next", json={}).json()["items"][0]
    return found


def test_ids_of_others_in_bodies_change_nothing(client: TestClient, store: Store) -> None:
    ben = enter(client, "ben")
    his = following(client)
    vote = {
        "vote_id": "bens-vote",
        "assignment": his["assignment"],
        "verdict": "all_bad",
        "rationale": "his words",
    }
    assert client.post("/api/v1/votes", json=vote).status_code == 200
    open_item = following(client)
    kept = store.rows("SELECT * FROM vote ORDER BY id")
    enter(client, "anna")
    theirs = [his["assignment"], open_item["assignment"]]
    for name in theirs:
        forged = {
            "vote_id": "forged-vote",
            "assignment": name,
            "verdict": "tie",
            "ranking": [["A", "B"]],
        }
        assert client.post("/api/v1/votes", json=forged).status_code == 409
        assert client.post("/api/v1/votes", json={**forged, "vote_id": "bens-vote"}).status_code == 409
    assert client.post("/api/v1/votes/bens-vote/reopen", json={}).status_code == 409
    assert client.post("/api/v1/undo", json={}).status_code == 409
    assert client.post("/api/v1/heartbeat", json={"assignments": theirs}).json()["lost"] == theirs
    assert client.get("/api/v1/votes/mine").json() == {"votes": []}
    asked = client.post("/api/v1/live", json={"text": "more", "after": his["assignment"]})
    assert asked.status_code in (404, 409)
    for field in ("annotator_id", "annotator", "person", "role", "run_id"):
        mine = {
            "vote_id": "annas",
            "assignment": following(client)["assignment"],
            "verdict": "tie",
            field: ben.id,
        }
        assert client.post("/api/v1/votes", json=mine).status_code == 422
        assert client.post("/api/v1/next", json={field: ben.id}).status_code == 422
    assert store.rows("SELECT * FROM vote ORDER BY id") == kept


def test_a_role_that_was_taken_away_is_gone_with_the_next_request(client: TestClient) -> None:
    enter(client, "carl", "admin")
    people = client.app.state.people  # type: ignore[attr-defined]
    assert client.get("/api/v1/backups").status_code == 200
    people.set_role(people.find("carl").person.id, "lead")
    assert client.get("/api/v1/backups").status_code == 403
    assert client.get("/api/v1/statistics").status_code == 200
    people.set_role(people.find("carl").person.id, "annotator")
    assert client.get("/api/v1/statistics").status_code == 403
    assert client.get("/review", headers=HTML).status_code == 403


LEAD_MAY_NOT: dict[str, dict[str, str]] = {
    "role": {"id": "{id}", "role": "admin"},
    "active": {"id": "{id}", "active": "no"},
    "password": {"id": "{id}"},
    "invite": {"role": "admin"},
}


@pytest.mark.parametrize("action", LEAD_MAY_NOT)
@pytest.mark.parametrize("who", ["annotator", "lead"])
def test_forms_of_the_people_page_do_nothing_that_takes_an_admin(
    client: TestClient, store: Store, who: str, action: str
) -> None:
    people = client.app.state.people  # type: ignore[attr-defined]
    target = people.find("first").person.id
    come(client, who, "session")
    before = everything(store)
    for target_id in (target, people.find(f"the {who}").person.id):  # others, and oneself
        sent = {name: value.replace("{id}", target_id) for name, value in LEAD_MAY_NOT[action].items()}
        assert client.post(f"/people/{action}", data=sent).status_code == 403
    assert client.post("/api/v1/invitations", json={"role": "lead"}).status_code == 403
    assert everything(store) == before


def test_tokens_and_links_of_others_stay_theirs(client: TestClient, store: Store) -> None:
    people = client.app.state.people  # type: ignore[attr-defined]
    first = people.find("first").person
    _, token = people.make_token(first.id, "of the admin")
    client.app.state.entrance.invitations.invite(first, "admin")  # type: ignore[attr-defined]
    (link,) = (row["id"] for row in store.rows("SELECT id FROM invitation WHERE role = 'admin'"))
    come(client, "lead", "session")
    before = everything(store)
    assert client.delete(f"/api/v1/tokens/{token.id}").status_code == 404
    assert client.post("/account/revoke", data={"id": token.id}).status_code == 404
    assert client.delete(f"/api/v1/invitations/{link}").status_code == 403
    assert client.post("/people/revoke", data={"id": link}).status_code == 403
    assert token.id[:16] not in client.get("/api/v1/tokens").text + client.get("/account").text
    assert everything(store) == before
