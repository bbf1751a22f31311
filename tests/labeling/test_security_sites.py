"""Requests that pages of other sites could cause, and what every response carries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from palate.config import LabelConfig
from palate.labeling import credentials
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import PASSWORD, enter, fill
from tests.labeling.test_security_calls import OWN, address, everything, routes_of

HEADERS = ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy",
           "cross-origin-opener-policy", "cross-origin-resource-policy", "cache-control")  # fmt: skip
FOREIGN: tuple[dict[str, str], ...] = (
    {"origin": "http://evil.example"},
    {"origin": "https://localhost.evil.example"},
    {"origin": "http://localhost:9999"},
    {"origin": "http://localhost@evil.example"},
    {"origin": "null"},
    {"origin": "file://"},
    {"origin": ""},
    {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    {"referer": "http://evil.example/page"},
    {"host": "evil.example"},
    {"host": "localhost.evil.example"},
    {"host": "evil.example", "origin": "http://evil.example"},
    {"host": ""},
)
SIMPLE = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """An app with an admin logged in."""
    folder = tmp_path_factory.mktemp("sites") / "project"
    store = Project.create(folder).own_store()
    fill(store, n=5)
    app = make_app(store, Project.open(folder), LabelConfig(project=folder, browser=False, backup_minutes=0))
    http = {"base_url": "http://localhost", "follow_redirects": False, "raise_server_exceptions": False}
    with TestClient(app, **http) as opened:
        opened.store = store
        enter(opened, "anna", "admin")
        yield opened


def unsafe(client: TestClient) -> list[tuple[str, str, str]]:
    """(method, path, route) of all that could change something."""
    found = {(*address(mount, route), route) for mount, route in routes_of(client.app.routes)}  # type: ignore[attr-defined]
    return sorted(one for one in found if one[0] not in ("GET", "HEAD", "OPTIONS"))


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_requests_from_other_sites_are_refused_and_change_nothing(
    client: TestClient, headers: dict[str, str]
) -> None:
    store = client.store  # type: ignore[attr-defined]
    before, wrong = everything(store), []
    for method, path, route in unsafe(client):
        response = client.request(method, path, json=OWN.get(route, ("", None))[1], headers=headers)
        if response.status_code not in (400, 403):
            wrong.append((method, path, response.status_code))
        assert not [name for name in response.headers if name.startswith("access-control-")]
        assert "set-cookie" not in response.headers
    assert not wrong
    assert everything(store) == before


@pytest.mark.parametrize("kind", SIMPLE)
def test_json_routes_take_nothing_else(client: TestClient, kind: str) -> None:
    """What a form of another site could send without being asked; a browser that names no origin sent it."""
    store = client.store  # type: ignore[attr-defined]
    before, wrong = everything(store), []
    for method, path, route in unsafe(client):
        body = OWN.get(route, ("", None))[1]
        if not path.startswith("/api/v1/") or not body or "{rest" in route:
            continue
        content = client.build_request("POST", "/", json=body).content
        response = client.request(method, path, content=content, headers={"content-type": kind})
        if response.status_code not in (400, 422):
            wrong.append((method, path, response.status_code))
    assert not wrong
    assert everything(store) == before


def test_nobody_is_allowed_to_read_across_origins(client: TestClient) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST",
             "access-control-request-headers": "content-type,authorization"}  # fmt: skip
    for path in (
        "/",
        "/api/v1/me",
        "/api/v1/votes",
        "/review",
        "/config",
        "/login",
        "/healthz",
        "/nowhere",
    ):
        for method in ("OPTIONS", "GET", "POST"):
            for headers in (asked, {**asked, "origin": "http://localhost"}, {**asked, "origin": "null"}):
                response = client.request(method, path, headers=headers)
                assert not [name for name in response.headers if name.startswith("access-control-allow")], (
                    path
                )


def test_every_response_carries_the_policy(client: TestClient) -> None:
    missing: list[Any] = []
    routes = {address(mount, route) for mount, route in routes_of(client.app.routes)}  # type: ignore[attr-defined]
    others = {("GET", "/nowhere"), ("GET", "/api/v1/nowhere"), ("POST", "/api/v1/votes"), ("BREW", "/"),
              ("GET", "/gradio_api/file=palate.yaml"), ("GET", "/%00"), ("GET", "/start?code=x"),
              ("GET", "/api/v1/votes/mine?limit=x")}  # fmt: skip
    cookies = dict(client.cookies)
    for known in (True, False):
        for method, path in sorted(routes | others):
            client.cookies.clear()
            client.cookies.update(cookies if known else {})
            if path == "/logout" and known:
                continue
            response = client.request(method, path, headers={"accept": "text/html"})
            assert response.status_code != 500, path
            lacking = [name for name in HEADERS if name not in response.headers]
            policy = response.headers.get("content-security-policy", "")
            if (
                lacking
                or "frame-ancestors 'none'" not in policy
                or "default-src" not in policy
                or "*" in policy
            ):
                missing.append((method, path, response.status_code, lacking))
    client.cookies.update(cookies)
    assert not missing


def test_a_body_that_is_too_large_still_carries_the_policy(client: TestClient) -> None:
    for content in (b"x" * (2 * 2**20 + 1), iter([b"x" * 2**20] * 3)):
        response = client.post("/api/v1/votes", content=content, headers={"content-type": "application/json"})
        assert response.status_code in (413, 422, 400), response.text
        assert response.headers["x-content-type-options"] == "nosniff"


def test_cookies_are_for_this_server_and_for_no_script(client: TestClient) -> None:
    kept = dict(client.cookies)
    client.app.state.people.set_password(  # type: ignore[attr-defined]
        client.app.state.people.create("ben").id,  # type: ignore[attr-defined]
        credentials.hashed(PASSWORD),
    )
    sent = client.post("/login", data={"name": "ben", "password": PASSWORD})
    (cookie,) = sent.headers.get_list("set-cookie")
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Domain" not in cookie and "Path=/" in cookie
    assert "Secure" not in cookie  # over http on localhost
    client.cookies.clear()
    client.cookies.update(kept)


def test_behind_a_proxy_with_tls_cookies_are_secure(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p")
    store = project.own_store()
    config = LabelConfig(
        project=project.folder, proxies=("10.0.0.0/8",), trusted_hosts=("label.example",), root_path="/palate"
    )
    app = make_app(store, project, config)
    code = app.state.entrance.start.secret
    for address_, flag in (("10.1.2.3", True), ("192.0.2.1", False)):
        app.state.entrance.start.used = False
        with_tls = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"}
        http = TestClient(app, base_url="http://label.example", client=(address_, 5), follow_redirects=False)
        sent = http.post("/palate/start", data={"code": code, "name": f"admin {flag}"}, headers=with_tls)
        assert sent.status_code == 303
        assert ("Secure" in sent.headers["set-cookie"]) is flag  # only a named proxy is believed
        assert "Path=/palate" in sent.headers["set-cookie"]
    app.state.desk.close()
    store.close()


@pytest.mark.parametrize(
    "there",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", "/\t/evil.example",
     "%2F%2Fevil.example", "http:evil.example", "///evil.example", "/%0d%0aset-cookie: x=y", "/\r\nx: y", " //evil.example"],
)  # fmt: skip
def test_logging_in_leads_nowhere_else(client: TestClient, there: str) -> None:
    kept = dict(client.cookies)
    form = client.get("/login", params={"next": there})
    assert "evil.example" not in form.text.split('name="next"')[1].split(">")[0] or 'value="/' in form.text
    people = client.app.state.people  # type: ignore[attr-defined]
    if people.find("carla") is None:
        hashed = credentials.hashed(PASSWORD)
        people.set_password(people.create("carla").id, hashed)
    sent = client.post("/login", data={"name": "carla", "password": PASSWORD, "next": there})
    location = sent.headers["location"]
    assert location.startswith("/") and location[1:2] not in ("/", "\\") and "\n" not in location, location
    client.cookies.clear()
    client.cookies.update(kept)
