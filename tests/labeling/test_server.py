"""The web app over HTTP: who may do what, what is closed, what is never said."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from palate.config import LabelConfig, UserError
from palate.data.records import new_id
from palate.data.store import Store
from palate.labeling import voting
from palate.labeling.screen import as_markdown, parse_ballot, split_turns
from palate.labeling.server import make_app
from palate.labeling.voting import Ballot
from palate.project import Project
from tests.labeling.conftest import ENV, MODELS, fill

HOME = "http://localhost"
HTML = {"accept": "text/html"}


@pytest.fixture
def opened(project: Project) -> Iterator[Store]:
    with project.store() as store:
        fill(store, n=3)
        yield store


def app(store: Store, project: Project, annotator: str | None = None) -> TestClient:
    config = LabelConfig(project.folder, annotator=annotator, browser=False)
    return TestClient(make_app(store, project, config), base_url=HOME, follow_redirects=False)


def log_in(client: TestClient, name: str) -> None:
    assert client.post("/login", data={"name": name}).status_code == 303


def event(client: TestClient, button: str, *data: Any) -> dict[str, Any]:
    """Call the handler behind a button (or the page's load) as the browser does; returns the last output."""
    config = client.get("/config").json()
    ids = {c["id"] for c in config["components"] if c["props"].get("elem_id") == button}
    handlers = [
        index
        for index, handler in enumerate(config["dependencies"])
        if handler["backend_fn"] and any(t[0] in ids or t[1] == button for t in handler["targets"])
    ]
    index = handlers[0]
    answer = client.post("/gradio_api/run/predict", json={"fn_index": index, "data": list(data)})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"][-1]
    return found


def test_the_app_never_imports_torch() -> None:
    code = "import sys, palate.labeling.server, palate.labeling.simulate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_browser_without_a_cookie_is_asked_for_a_name(opened: Store, project: Project) -> None:
    client = app(opened, project)
    answer = client.get("/", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    page = client.get("/login").text
    assert "Small &lt;b&gt;project&lt;/b&gt;" in page
    assert client.post("/login", data={"name": "  "}).status_code == 400
    log_in(client, "Anna")
    assert client.get("/", headers=HTML).status_code == 200
    cookie = client.post("/login", data={"name": "Anna"}).headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie


def test_the_annotator_flag_lets_a_browser_in(opened: Store, project: Project) -> None:
    client = app(opened, project, annotator="anna")
    answer = client.get("/", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert event(client, "load")["annotator"] == "anna"


def test_nothing_is_served_without_a_cookie_or_with_a_forged_one(opened: Store, project: Project) -> None:
    client = app(opened, project)
    paths = ("/config", "/gradio_api/startup-events", "/statistics/config")
    assert [client.get(path).status_code for path in paths] == [401] * 3
    anna = voting.annotator(opened, "anna").id
    log_in(client, "ben")
    assert [client.get(path).status_code for path in paths] == [200] * 3
    ((name, value),) = client.cookies.items()
    client.cookies.clear()
    client.cookies.set(name, f"{anna}.{value.partition('.')[2]}")
    assert [client.get(path).status_code for path in paths] == [401] * 3


CLOSED = (
    "/gradio_api/upload", "/gradio_api/file=palate.yaml", "/gradio_api/file/palate.yaml", "/file=palate.yaml",
    "/gradio_api/proxy=http://example.org", "/gradio_api/runs", "/gradio_api/info", "/monitoring",
    "/gradio_api/vibe-code", "/statistics/gradio_api/upload", "/docs", "/openapi.json",
)  # fmt: skip


def test_routes_that_the_app_does_not_need_are_closed(opened: Store, project: Project) -> None:
    client = app(opened, project)
    log_in(client, "anna")
    assert {path: client.get(path).status_code for path in CLOSED} == dict.fromkeys(CLOSED, 404)
    assert {client.post(path).status_code for path in CLOSED} <= {404, 405}


def test_other_sites_are_refused(opened: Store, project: Project) -> None:
    client = app(opened, project)
    assert (
        client.post("/login", data={"name": "x"}, headers={"origin": "http://evil.example"}).status_code
        == 403
    )
    assert client.get("/login", headers={"host": "evil.example"}).status_code == 400
    answer = client.get("/login", headers={"origin": HOME})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    policy = answer.headers["content-security-policy"]
    assert "img-src 'self' data:" in policy and "frame-ancestors 'none'" in policy


def test_a_page_cannot_vote_for_somebody_else(opened: Store, project: Project) -> None:
    anna, ben = app(opened, project), app(opened, project)
    log_in(anna, "anna")
    log_in(ben, "ben")
    item = event(anna, "load")
    ballot = {"verdict": "ranked", "ranking": [["A"], ["B"]], "strength": 1, "vote_id": new_id(),
              "assignment": item["assignment"], "annotator": "anna"}  # fmt: skip
    assert "not given to you" in event(ben, "submit", ballot)["refused"]
    assert opened.value("SELECT count(*) FROM vote") == 0
    after = event(anna, "submit", ballot)
    assert (after["saved"], after["done"]) == (True, 1)
    assert opened.value("SELECT annotator_name FROM current_vote") == "anna"
    assert event(anna, "submit", ballot)["saved"] is True  # the same vote again
    assert opened.value("SELECT count(*) FROM vote") == 1
    assert event(anna, "undo")["earlier"] == {"verdict": "ranked", "ranking": [["A"], ["B"]], "strength": 1}


NONSENSE: tuple[Any, ...] = (
    None, "x", 7, [], {}, {"verdict": "ranked"},
    {"vote_id": "1" * 16, "assignment": "a", "verdict": "tie", "strength": "much"},
    {"vote_id": "1" * 16, "assignment": "a", "verdict": "ranked", "ranking": 5},
    {"vote_id": "1" * 16, "assignment": {"a": 1}, "verdict": ["tie"], "seconds_active": "1e400"},
)  # fmt: skip


def test_nonsense_from_the_page_is_refused(opened: Store, project: Project) -> None:
    client = app(opened, project)
    log_in(client, "anna")
    for ballot in NONSENSE:
        found = event(client, "submit", ballot)
        assert found["refused"] and found["assignment"], ballot
    assert opened.value("SELECT count(*) FROM vote") == 0


def test_no_response_names_a_model_or_a_completion(opened: Store, project: Project) -> None:
    client = app(opened, project)
    log_in(client, "anna")
    hidden = [*MODELS, *(row["id"] for row in opened.rows("SELECT id FROM completion"))]
    config = client.get("/config").json()
    said = [client.get("/", headers=HTML).text, client.get("/config").text]
    said += [client.get("/statistics/", headers=HTML).text, client.get("/statistics/config").text]
    for index, dependency in enumerate(config["dependencies"]):
        if dependency["backend_fn"]:
            data = [None] * len(dependency["inputs"])
            said.append(client.post("/gradio_api/run/predict", json={"fn_index": index, "data": data}).text)
    assert "idea" in said[-1]
    assert not [word for word in hidden for text in said if word in text]


def test_healthz(opened: Store, project: Project) -> None:
    client = app(opened, project)
    assert client.get("/healthz").json() == {"status": "ok", "votes": 0}
    opened.close()
    assert client.get("/healthz").status_code == 503


def test_the_signing_key_is_private_and_stays(opened: Store, project: Project) -> None:
    client = app(opened, project)
    log_in(client, "anna")
    again = app(opened, project)  # a restarted server
    again.cookies = client.cookies
    assert again.get("/config").status_code == 200
    assert (project.folder / "label.key").stat().st_mode & 0o077 == 0


def test_a_cookie_that_outlives_the_database_is_no_annotator(opened: Store, project: Project) -> None:
    log_in(client := app(opened, project), "anna")
    opened.write("DELETE FROM annotator")
    again = app(opened, project)
    again.cookies = client.cookies
    assert again.get("/", headers=HTML).headers["location"] == "/login"


def test_text_is_shown_as_written() -> None:
    assert as_markdown("<lora:x:0.8> & ![a](http://b)") == "&lt;lora:x:0.8> &amp; !\\[a](http://b)"
    assert as_markdown("`a < b` and a < b") == "`a < b` and a &lt; b"
    assert as_markdown("```\n<i>\n```\n<i>") == "```\n<i>\n```\n&lt;i>"
    assert as_markdown("```\nnever closed <i>") == "```\nnever closed <i>"
    turns = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<b>"},
        {"role": "user", "content": "c"},
    )
    assert split_turns(turns) == ("**User**\n\na\n\n---\n\n**Assistant**\n\n&lt;b>", "c")


def test_parse_ballot_takes_what_the_script_sends() -> None:
    sent = {"verdict": "ranked", "ranking": [["B"], ["A"]], "strength": 2, "vote_id": "v", "assignment": "a",
            "rationale": None, "seconds_visible": 3.5, "seconds_active": 2}  # fmt: skip
    assert parse_ballot(sent) == Ballot("ranked", (("B",), ("A",)), 2, "v", "a", None, 3.5, 2.0)
    with pytest.raises(UserError, match="no valid ballot"):
        parse_ballot({"verdict": "tie"})


@pytest.mark.slow
def test_two_servers_on_one_project(project: Project, tmp_path: Path, serve: Any) -> None:
    server = serve(project.folder)
    command = [sys.executable, "-m", "palate", "label", "--project", str(project.folder), "--no-browser"]
    second = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "open in another process" in second.stderr and len(second.stderr.splitlines()) == 1
    other = Project.create(tmp_path / "other")
    port = server.url.split(":")[2].strip("/")
    assert serve(other.folder, "--port", port).url != server.url  # taken: the next free one
    assert server.stop() < 5  # under 1 s on a free core; the bound is for a crowded machine
    assert server.process.returncode == 0
