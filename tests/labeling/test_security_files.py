"""Nothing of the project's folder can be fetched, by any route, and what is secret belongs to its owner alone."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from palate.config import LabelConfig
from palate.data.address import publish
from palate.labeling.aliases import KEY_FILE, key_of
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import Server, enter, fill, login

MARK = "a-secret-of-the-project-folder"
FILES = ("palate.yaml", "palate.duckdb", "palate.duckdb.wal", "label.key", "server.json", "endpoints.yaml", "webhooks.yaml",
         "votes.journal/000001.jsonl", "runs/sft-1/run.json", "exports/votes-secret.parquet", "backups/one.duckdb",
         ".env", "secret.txt")  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.create(tmp_path_factory.mktemp("files") / "project")


@pytest.fixture(scope="module")
def client(project: Project) -> Iterator[TestClient]:
    store = project.own_store()
    fill(store, n=2)
    config = LabelConfig(project=project.folder, browser=False, backup_minutes=0)
    with TestClient(
        make_app(store, project, config), base_url="http://localhost", raise_server_exceptions=False
    ) as opened:
        enter(opened, "anna", "admin")
        for name in FILES:
            path = project.folder / name
            path.parent.mkdir(exist_ok=True, parents=True)
            if not path.exists():
                path.write_text(MARK)
        with (project.folder / "palate.yaml").open("a") as file:
            file.write(f"# {MARK}\n")
        yield opened


def ways(folder: Path, name: str) -> Iterator[str]:
    """How somebody would try to get at a file of the folder."""
    full = str(folder / name)
    ups = (
        "../" * 12,
        "..%2f" * 12,
        "%2e%2e/" * 12,
        "..%5c" * 12,
        "....//" * 12,
        "..%252f" * 12,
        "..;/" * 12,
        "/",
    )
    bases = ("/", "/static/", "/assets/", "/svelte/", "/file=", "/file/", "/gradio_api/file=", "/gradio_api/file/", "/review/",
             "/review/models/late/", "/review/models/", "/gradio_api/proxy=file://", "/gradio_api/stream/",
             "/gradio_api/custom_component/", "/api/v1/exports/", "/api/v1/backups/", "/api/v1/runs/", "/live/", "/pwa_icon/",
             "/gradio_api/upload_progress?upload_id=", "/api/v1/")  # fmt: skip
    for base in bases:
        yield f"{base}{name}"
        yield f"{base}{quote(full, safe='')}"
        yield f"{base}{full}"
        for up in ups:
            yield f"{base}{up}{full.lstrip('/')}"


@pytest.mark.parametrize("name", FILES)
def test_no_route_serves_a_file_of_the_project(client: TestClient, project: Project, name: str) -> None:
    secrets = [MARK.encode(), (project.folder / KEY_FILE).read_bytes(), b"DUCK"]
    for path in ways(project.folder, name):
        for method in ("GET", "HEAD"):
            response = client.request(method, path, follow_redirects=False)
            assert response.status_code not in (200, 206) or "/gradio_api/" not in path, path
            assert not [secret for secret in secrets if secret in response.content], path


def test_queries_read_no_files(client: TestClient, project: Project) -> None:
    file = str(project.folder / "secret.txt")
    asked = (f"SELECT * FROM read_text('{file}')", f"SELECT * FROM '{file}'", f"SELECT content FROM read_blob('{file}')",
             f"COPY vote TO '{file}'", f"ATTACH '{file}' AS x", "INSTALL httpfs", "SELECT getenv('HOME')", "SELECT * FROM account",
             "SELECT * FROM login_session", "SELECT * FROM access_token", "SELECT * FROM invitation", "SELECT * FROM duckdb_settings()",
             "SELECT * FROM information_schema.tables", "SELECT * FROM prompt, (SELECT * FROM main.account)", "PRAGMA database_list",
             f"SELECT 1; SELECT * FROM read_text('{file}')", "SELECT current_setting('home_directory')", "FROM glob('/*')",
             "WITH account AS (SELECT * FROM account) SELECT * FROM account", "SELECT * FROM query('SELECT * FROM account')",
             "SELECT (SELECT password FROM account LIMIT 1)", "DELETE FROM vote", "SELECT * FROM query_table('account')")  # fmt: skip
    for sql in asked:
        response = client.post("/api/v1/query", json={"sql": sql})
        assert response.status_code == 400, (sql, response.text[:200])
        assert MARK not in response.text and "scrypt" not in response.text


def test_secret_files_belong_to_their_owner(client: TestClient, project: Project) -> None:
    key = project.folder / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key_of(project.folder) == key.read_bytes()  # made once


def test_a_server_keeps_its_files_to_its_owner(project: Project, launch: Callable[..., Server]) -> None:
    """What `palate label` makes or owns, once it has run; other users of the machine see nothing of it."""
    other = Project.create(project.folder.parent / "other")
    server = launch(other.folder)
    login(server, "anna")
    assert server.admin is not None
    assert server.admin.post("api/v1/backups").status_code == 200
    assert server.admin.post("api/v1/exports", json={"what": "votes"}).status_code == 200
    found = {path.relative_to(other.folder): path for path in other.folder.rglob("*")}
    mine = [name for name in found if str(name) not in ("palate.yaml", "runs")]
    assert {"palate.duckdb", "label.key", "server.json"} <= {str(name) for name in mine}
    assert [str(name) for name in mine if found[name].stat().st_mode & 0o077] == []
    server.stop()


def test_the_address_that_commands_read_belongs_to_its_owner(tmp_path: Path) -> None:
    publish(tmp_path, "http://127.0.0.1:1", "palate_token")
    (made,) = tmp_path.iterdir()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
