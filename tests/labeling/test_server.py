"""The web app over HTTP: who may do what, what is closed, what is never said."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from palate.config import LabelConfig, UserError
from palate.data.store import Store
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import ENV, MODELS, enter, fill

HOME = "http://localhost"
HTML = {"accept": "text/html"}


@pytest.fixture
def opened(project: Project) -> Iterator[Store]:
    with project.store() as store:
        fill(store, n=3)
        yield store


def app(store: Store, project: Project, annotator: str | None = None) -> TestClient:
    config = LabelConfig(project=project.folder, annotator=annotator, browser=False)
    return TestClient(make_app(store, project, config), base_url=HOME, follow_redirects=False)


def test_the_app_never_imports_torch() -> None:
    code = "import sys, palate.labeling.server, palate.labeling.simulate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_is_served_to_strangers(opened: Store, project: Project) -> None:
    client = app(opened, project)
    paths = ("/config", "/review", "/review.js", "/api/v1/me")
    assert [client.get(path).status_code for path in paths] == [401] * 4
    enter(client, "ben", "lead")
    assert [client.get(path).status_code for path in paths] == [200] * 4


CLOSED = (
    "/gradio_api/upload", "/gradio_api/file=palate.yaml", "/gradio_api/file/palate.yaml", "/file=palate.yaml",
    "/gradio_api/proxy=http://example.org", "/gradio_api/runs", "/gradio_api/info", "/monitoring",
    "/gradio_api/vibe-code", "/review/gradio_api/upload", "/docs", "/openapi.json",
)  # fmt: skip


def test_routes_that_the_app_does_not_need_are_closed(opened: Store, project: Project) -> None:
    client = app(opened, project)
    enter(client, "anna")
    assert {path: client.get(path).status_code for path in CLOSED} == dict.fromkeys(CLOSED, 404)
    assert {client.post(path).status_code for path in CLOSED} <= {404, 405}


def test_the_ranking_page_has_no_handler_that_could_be_called(opened: Store, project: Project) -> None:
    config = LabelConfig(project=project.folder, browser=False)
    client = TestClient(make_app(opened, project, config), base_url=HOME, raise_server_exceptions=False)
    enter(client, "anna")
    dependencies = client.get("/config").json()["dependencies"]
    assert dependencies
    assert not [d for d in dependencies if d["backend_fn"]]
    for index in range(len(dependencies) + 1):
        sent = client.post("/gradio_api/run/predict", json={"fn_index": index, "data": [None] * 12})
        assert sent.status_code != 200, sent.text


def test_no_page_names_a_model_or_a_completion(opened: Store, project: Project) -> None:
    client = app(opened, project)
    enter(client, "anna")
    hidden = [*MODELS, *(row["id"] for row in opened.rows("SELECT id FROM completion"))]
    pages = [client.get(path, headers=HTML) for path in ("/", "/config", "/people", "/review")]
    assert [page.status_code for page in pages[:2]] == [200] * 2
    said = [page.text for page in pages]
    assert not [word for word in hidden for text in said if word in text]


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"overlap": 0}, "--overlap takes 1 to 1000, got 0"),
        ({"overlap_share": 1.5}, "--overlap-share takes 0 to 1, got 1.5"),
        ({"repeat_share": 0.9}, "--repeat-share takes 0 to 0.5"),
        ({"gold_share": -1.0}, "--gold-share takes"),
        ({"lease_minutes": 0.0}, "--lease-minutes takes"),
        ({"guidelines": Path("nowhere.md")}, "nowhere.md can't be read"),
    ],
)
def test_settings_are_checked(opened: Store, project: Project, setting: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        make_app(opened, project, LabelConfig(project=project.folder, **setting))


@pytest.mark.slow
def test_two_servers_on_one_project(project: Project, tmp_path: Path, launch: Any) -> None:
    server = launch(project.folder)
    command = [sys.executable, "-m", "palate", "label", "--project", str(project.folder), "--no-browser"]
    second = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "open in another process" in second.stderr and len(second.stderr.splitlines()) == 1
    other = Project.create(tmp_path / "other")
    port = server.url.split(":")[2].strip("/")
    assert launch(other.folder, "--port", port).url != server.url  # taken: the next free one
    assert server.stop() < 5  # under 1 s on a free core; the bound is for a crowded machine
    assert server.process.returncode == 0
