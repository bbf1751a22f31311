"""The door over HTTP: who gets in, what is refused, what each role may do, and the pages people come in by."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from palate.config import LabelConfig, UserError
from palate.data.records import Annotator
from palate.data.store import Store
from palate.labeling import credentials
from palate.labeling.login import clean_root, local_path, networks
from palate.labeling.people import ROLES, People
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import PASSWORD, enter, fill

HOME = "http://localhost"
HTML = {"accept": "text/html"}
PROXY = ("10.0.0.5", 4000)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Passwords at a cost for tests; test_people.py has the real one."""
    monkeypatch.setattr(credentials, "COST", (16, 8, 1))
    credentials._nobody.cache_clear()
    yield
    credentials._nobody.cache_clear()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Project]]:
    project = Project.create(tmp_path_factory.mktemp("login") / "project", name="Small <b>project</b>")
    with project.own_store() as store:
        fill(store, n=2)
        yield store, project


@pytest.fixture
def client(opened: tuple[Store, Project]) -> TestClient:
    return client_of(opened)


def client_of(opened: tuple[Store, Project], at: tuple[str, int] = PROXY, **settings: Any) -> TestClient:
    """A browser without a cookie before the app on an empty table of accounts."""
    store, project = opened
    for table in ("account", "login_session", "access_token", "invitation"):
        store.write(f"DELETE FROM {table}")
    app = make_app(store, project, LabelConfig(project.folder, browser=False, **settings))
    return TestClient(app, base_url=HOME, follow_redirects=False, client=at)


def people_of(client: TestClient) -> People:
    found: People = client.app.state.people  # type: ignore[attr-defined]
    return found


def start_of(client: TestClient) -> str:
    path: str = client.app.state.entrance.start.path  # type: ignore[attr-defined]
    return path


def anew(client: TestClient) -> TestClient:
    """Another browser at the same app."""
    return TestClient(client.app, base_url=HOME, follow_redirects=False, client=PROXY)


# -- coming in -----------------------------------------------------------------------------------------------


def test_the_start_link_makes_the_admin_once(client: TestClient) -> None:
    answer = client.get("/people", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/people")
    page = client.get(start_of(client), headers=HTML)
    assert page.status_code == 200 and "Small &lt;b&gt;project&lt;/b&gt;" in page.text
    code = start_of(client).partition("=")[2]
    assert client.post("/start", data={"code": code, "name": "a\x00b"}).status_code == 400
    entered = client.post("/start", data={"code": code, "name": "Ada"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "HttpOnly; SameSite=Lax" in entered.headers["set-cookie"]
    assert "Secure" not in entered.headers["set-cookie"]
    assert client.get("/api/v1/me").json()["role"] == "admin"
    other = anew(client)
    assert other.get(start_of(client), headers=HTML).status_code == 403
    assert other.post("/start", data={"code": code, "name": "Eve"}).status_code == 403
    assert other.get("/start?code=", headers=HTML).status_code == 403


def test_a_named_start_link_asks_nothing(opened: tuple[Store, Project]) -> None:
    client = client_of(opened, annotator="anna")
    assert client.get(start_of(client), headers=HTML).headers["location"] == "/"
    assert (
        client.get("/api/v1/me").json() | {"role": "admin", "name": "anna"} == client.get("/api/v1/me").json()
    )
    assert anew(client).get(start_of(client), headers=HTML).status_code == 403


def test_the_start_link_is_gone_once_an_admin_has_a_password(opened: tuple[Store, Project]) -> None:
    client = client_of(opened)
    people_of(client).create("Ada", "admin", "scrypt$hash")
    store, project = opened
    app = make_app(store, project, LabelConfig(project.folder, browser=False))
    assert app.state.entrance.start is None
    again = make_app(store, project, LabelConfig(project.folder, browser=False, annotator="Ada"))
    assert again.state.entrance.start is not None  # the way back for a forgotten password


def test_log_in_and_out(client: TestClient) -> None:
    people_of(client).create("Anna", "annotator", credentials.hashed(PASSWORD))
    sent = {"name": "anna", "password": PASSWORD, "next": "/account"}
    wrong = client.post("/login", data={**sent, "password": "something else"})
    unknown = client.post("/login", data={**sent, "name": "nobody"})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace("anna", "nobody") == unknown.text
    answer = client.post("/login", data=sent)
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    cookie = dict(client.cookies)
    assert client.get("/account", headers=HTML).status_code == 200
    assert client.post("/logout").headers["location"] == "/login"
    other = anew(client)
    other.cookies.update(cookie)  # the session is over, not only the cookie
    assert other.get("/account").status_code == 401


def test_a_disabled_account_is_a_wrong_password_and_is_out_at_once(client: TestClient) -> None:
    people = people_of(client)
    people.create("Ada", "admin")
    anna = people.create("Anna", "annotator", credentials.hashed(PASSWORD))
    enter(client, "Anna")
    assert client.get("/api/v1/me").status_code == 200
    people.set_active(anna.id, False)
    assert client.get("/api/v1/me").status_code == 401
    assert client.post("/login", data={"name": "Anna", "password": PASSWORD}).status_code == 401


def test_lockout(client: TestClient) -> None:
    people_of(client).create("Anna", "annotator", credentials.hashed(PASSWORD))
    people_of(client).create("Ben", "annotator", credentials.hashed(PASSWORD))
    wrong, right = {"name": "Anna", "password": "x" * 12}, {"name": "ANNA", "password": PASSWORD}
    assert {client.post("/login", data=wrong).status_code for _ in range(10)} == {401}
    locked = client.post("/login", data=right)
    assert locked.status_code == 429 and "try again in 15 min" in locked.text
    elsewhere = TestClient(client.app, base_url=HOME, follow_redirects=False, client=("192.0.2.9", 1))
    assert elsewhere.post("/login", data=right).status_code == 429  # the account, from everywhere
    assert client.post("/login", data={**right, "name": "Ben"}).status_code == 303  # the others are not
    entrance = client.app.state.entrance  # type: ignore[attr-defined]
    entrance.failures.clear(people_of(client).account(Annotator("Anna").id).person.id)
    assert client.post("/login", data=right).status_code == 303


def test_one_address_cannot_try_everybody(client: TestClient) -> None:
    for number in range(50):
        sent = {"name": f"nobody {number}", "password": "x" * 12}
        assert client.post("/login", data=sent).status_code == 401
    assert client.post("/login", data={"name": "fresh", "password": "x" * 12}).status_code == 429
    codes = [client.get("/invite?code=x", headers=HTML).status_code for _ in range(20)]
    assert codes[0] == 403 and codes[-1] == 429  # and not every invitation


@pytest.mark.parametrize(
    ("text", "path"),
    [("/people?a=1", "/people?a=1"), ("//evil.example", "/"), ("https://evil.example", "/"), ("/\\evil.example", "/"),
     ("/a\\b", "/"), ("javascript:alert(1)", "/"), ("/\t/evil.example", "/"), ("", "/"), (None, "/"), ("people", "/")],
)  # fmt: skip
def test_no_open_redirect(text: str | None, path: str) -> None:
    assert local_path(text) == path


# -- what is refused -----------------------------------------------------------------------------------------


def test_forged_and_foreign_cookies_open_nothing(client: TestClient) -> None:
    enter(client, "Anna")
    ((name, value),) = client.cookies.items()
    for forged in (value[:-1] + ("A" if value[-1] != "A" else "B"), "", Annotator("Anna").id, "é"):
        answer = anew(client).get("/config", headers={"cookie": f"{name}={forged}".encode()})
        assert answer.status_code == 401, forged
    assert anew(client).get("/config", headers={"cookie": f"palate-0123456789={value}"}).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": HOME}, 201),
        ({}, 201),
        ({"origin": "http://localhost:80"}, 201),
        ({"sec-fetch-site": "same-origin"}, 201),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:8888"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}, 403),
        ({"referer": "http://evil.example/page"}, 403),
        ({"host": "evil.example"}, 400),
        ({"host": "localhost.evil.example"}, 400),
    ],
)
def test_other_sites_are_refused(shared: TestClient, headers: dict[str, str], status: int) -> None:
    enter(shared, "Lea", "lead")
    answer = shared.post("/api/v1/invitations", json={}, headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_a_link_from_elsewhere_may_be_followed_but_nothing_embedded(shared: TestClient) -> None:
    site = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert shared.get("/login", headers={**site, "sec-fetch-dest": "document"}).status_code == 200
    assert shared.get("/login", headers={**site, "sec-fetch-dest": "iframe"}).status_code == 403
    assert shared.get("/login", headers={**site, "sec-fetch-mode": "no-cors"}).status_code == 403
    page = shared.get("/login")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY" and page.headers["cache-control"] == "no-store"


def test_large_bodies_are_refused(shared: TestClient) -> None:
    enter(shared, "Anna")
    assert shared.post("/api/v1/next", content=b"x" * (2 * 2**20 + 1)).status_code == 413
    parts = (b"x" * 2**20 for _ in range(4))  # no length is announced
    answer = shared.post("/api/v1/next", content=parts, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_forwarding_headers_count_from_named_proxies_only(opened: tuple[Store, Project]) -> None:
    forwarded = {"x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https", "accept": "text/html"}
    plain, behind = client_of(opened), client_of(opened, proxies=("10.0.0.0/8",))
    for client, secure in ((plain, False), (behind, True)):
        code = start_of(client).partition("=")[2]
        people_of(client)
        answer = client.post("/start", data={"code": code, "name": f"admin {secure}"}, headers=forwarded)
        assert ("; Secure" in answer.headers["set-cookie"]) == secure
    for spoofed in range(51):  # a sender can't choose the address that its failures count for
        chain = {"x-forwarded-for": f"198.51.100.{spoofed}, 203.0.113.7"}
        last = behind.post("/login", data={"name": f"n{spoofed}", "password": ""}, headers=chain)
    assert last.status_code == 429
    other = {"x-forwarded-for": "203.0.113.8"}
    assert behind.post("/login", data={"name": "n", "password": ""}, headers=other).status_code == 401


def test_tokens_open_the_api_alone(shared: TestClient) -> None:
    lea = enter(shared, "Lea", "lead")
    made = shared.post("/api/v1/tokens", json={"name": "laptop", "days": 1}).json()
    script, bearer = anew(shared), {"authorization": f"Bearer {made['token']}"}
    assert script.get("/api/v1/me", headers=bearer).json()["name"] == "Lea"
    assert script.get("/api/v1/me", headers={**bearer, "origin": "http://evil.example"}).status_code == 200
    assert script.get("/account", headers=bearer).status_code == 401
    assert script.get("/config", headers=bearer).status_code == 401
    assert shared.get("/api/v1/me", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert script.post("/api/v1/tokens", json={"name": "child"}, headers=bearer).status_code == 403
    assert shared.delete(f"/api/v1/tokens/{made['id']}").json() == {"revoked": made["id"]}
    assert script.get("/api/v1/me", headers=bearer).status_code == 401
    assert lea.via == "session"


# -- roles ---------------------------------------------------------------------------------------------------

ALLOWED = [  # method, path, body, then the status for nobody, annotator, lead, admin
    ("GET", "/account", None, (401, 200, 200, 200)),
    ("GET", "/people", None, (401, 403, 200, 200)),
    ("GET", "/review", None, (401, 403, 200, 200)),
    ("GET", "/review/models", None, (401, 403, 200, 200)),
    ("POST", "/account/tokens", {"name": "t"}, (401, 200, 200, 200)),
    ("POST", "/account/nothing", {}, (401, 404, 404, 404)),
    ("POST", "/people/invite", {"role": "annotator"}, (401, 403, 200, 200)),
    ("POST", "/people/invite", {"role": "admin"}, (401, 403, 403, 200)),
    ("POST", "/people/role", {"id": "ANNA", "role": "annotator"}, (401, 403, 403, 200)),
    ("POST", "/people/active", {"id": "ANNA", "active": "yes"}, (401, 403, 403, 200)),
    ("POST", "/people/password", {"id": "ANNA"}, (401, 403, 403, 200)),
    ("POST", "/people/nothing", {"id": "ANNA"}, (401, 403, 403, 404)),
    ("GET", "/api/v1/people", None, (401, 403, 200, 200)),
    ("PATCH", "/api/v1/people/ANNA", {}, (401, 403, 403, 200)),
    ("PATCH", "/api/v1/people/nobody", {"active": True}, (401, 403, 403, 404)),
    ("POST", "/api/v1/people/ANNA/password-link", {}, (401, 403, 403, 201)),
    ("POST", "/api/v1/people", {"name": "x", "password": "short"}, (401, 422, 422, 422)),
    ("GET", "/api/v1/invitations", None, (401, 403, 200, 200)),
    ("POST", "/api/v1/invitations", {}, (401, 403, 201, 201)),
    ("POST", "/api/v1/invitations", {"role": "lead"}, (401, 403, 403, 201)),
    ("DELETE", "/api/v1/invitations/0123456789abcdef", None, (401, 403, 404, 404)),
    ("GET", "/api/v1/tokens", None, (401, 200, 200, 200)),
    ("POST", "/api/v1/tokens", {"name": "t"}, (401, 201, 201, 201)),
    ("DELETE", "/api/v1/tokens/0123456789abcdef", None, (401, 404, 404, 404)),
]


@pytest.fixture(scope="module")
def shared(opened: tuple[Store, Project]) -> TestClient:
    """One app for the tests that leave nothing behind which others trip over."""
    client = client_of(opened)
    people_of(client).create("the last admin", "admin")
    return client


@pytest.mark.parametrize(("method", "path", "body", "expected"), ALLOWED)
def test_what_each_role_may_do(
    shared: TestClient, method: str, path: str, body: dict[str, str] | None, expected: tuple[int, ...]
) -> None:
    anna = enter(shared, "Anna")
    found = []
    for role in (None, *ROLES):
        shared.cookies.clear()
        if role is not None:
            enter(shared, f"a {role}", role)
        filled = {k: v.replace("ANNA", anna.id) if isinstance(v, str) else v for k, v in (body or {}).items()}
        sent = {"json": filled} if path.startswith("/api/") else {"data": filled}
        given = {} if body is None else sent
        answer = shared.request(method, path.replace("ANNA", anna.id), **given)  # type: ignore[arg-type]
        found.append(answer.status_code)
    assert tuple(found) == expected


def test_scripts_can_do_what_the_pages_do(shared: TestClient) -> None:
    enter(shared, "a root", "admin")
    name = "<img src=x onerror=alert(1)>"
    made = shared.post("/api/v1/people", json={"name": name, "role": "lead", "password": PASSWORD}).json()
    assert (made["name"], made["role"], made["has_password"], made["votes"]) == (name, "lead", True, 0)
    again = shared.post("/api/v1/people", json={"name": name.upper()})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "taken")
    changed = shared.patch(f"/api/v1/people/{made['id']}", json={"active": False, "role": "annotator"}).json()
    assert (changed["active"], changed["role"]) == (False, "annotator")
    page = shared.get("/people", headers=HTML).text
    assert "&lt;img src=x" in page and "<img" not in page and "<script" not in page


def test_the_last_admin_is_told_so_on_the_page(client: TestClient) -> None:
    ada = enter(client, "Ada", "admin")
    page = client.post("/people/role", data={"id": ada.id, "role": "annotator"})
    assert page.status_code == 409 and "Ada is the last admin" in page.text
    assert client.post("/people/role", data={"id": ada.id, "role": "king"}).status_code == 400


# -- invitations and the account page ----------------------------------------------------------------------


def test_an_invitation_from_the_page_to_the_first_visit(client: TestClient) -> None:
    enter(client, "Lea", "lead")
    page = client.post(
        "/people/invite", data={"role": "annotator", "uses": "1", "days": "7", "name": ""}
    ).text
    found = re.search(r'value="http://localhost(/invite\?code=[\w-]+)"', page)
    assert found is not None
    assert found[1] not in client.get("/people", headers=HTML).text  # shown once
    guest, code = anew(client), found[1].partition("=")[2]
    assert guest.get(found[1], headers=HTML).status_code == 200
    sent = {"code": code, "name": "Mia", "password": PASSWORD, "again": PASSWORD}
    for wrong, status, text in (
        ({"name": "lea"}, 400, "is taken"),
        ({"password": "short", "again": "short"}, 400, "10 to 1000"),
        ({"again": "something else"}, 400, "differ"),
        ({"name": "\u202e"}, 400, "visible characters"),
        ({"code": "x"}, 403, "was used"),
    ):
        answer = guest.post("/invite", data={**sent, **wrong}, headers=HTML)
        assert answer.status_code == status and text in answer.text, wrong
    assert guest.post("/invite", data=sent).headers["location"] == "/"
    assert guest.get("/api/v1/me").json()["name"] == "Mia"
    assert anew(client).post("/invite", data={**sent, "name": "Noa"}, headers=HTML).status_code == 403
    assert anew(client).post("/login", data={"name": "Mia", "password": PASSWORD}).status_code == 303


def test_passwords_and_tokens_on_the_account_page(client: TestClient) -> None:
    enter(client, "Anna")
    elsewhere = anew(client)
    elsewhere.cookies.update(dict(client.cookies))
    new = {"password": PASSWORD, "again": PASSWORD}
    assert client.post("/account/password", data=new).status_code == 200  # had none: asked for none
    assert client.get("/account", headers=HTML).status_code == 200
    assert elsewhere.get("/account").status_code == 401
    wrong = client.post("/account/password", data={**new, "current": "wrong words"})
    assert wrong.status_code == 403 and "current password is wrong" in wrong.text
    assert client.post("/account/password", data={**new, "current": PASSWORD}).status_code == 200
    page = client.post("/account/tokens", data={"name": "<i>laptop</i>", "days": "30"}).text
    token = re.search(r'value="(palate_[\w-]+)"', page)
    assert token is not None and "&lt;i&gt;laptop" in page
    bearer = {"authorization": f"Bearer {token[1]}"}
    assert anew(client).get("/api/v1/me", headers=bearer).status_code == 200
    page = client.get("/account", headers=HTML).text
    assert token[1] not in page
    id = re.search(r'name="id" value="(\w+)"', page)
    assert id is not None and "revoked" in client.post("/account/revoke", data={"id": id[1]}).text
    assert anew(client).get("/api/v1/me", headers=bearer).status_code == 401
    assert client.post("/account/tokens", data={"name": "x", "days": "-1"}).status_code == 400
    assert client.post("/account/logout").headers["location"] == "/login"
    assert client.get("/account").status_code == 401


def test_settings_that_make_no_sense_are_told(opened: tuple[Store, Project]) -> None:
    with pytest.raises(UserError, match="--proxies takes addresses"):
        networks(["nginx"])
    assert [clean_root(path) for path in ("", "/", "palate", "/a/b/")] == ["", "", "/palate", "/a/b"]
    for path in ("/a//b", "/../etc", "a\x00"):
        with pytest.raises(UserError, match="--root-path"):
            clean_root(path)


def test_a_session_survives_a_restart(opened: tuple[Store, Project]) -> None:
    client = client_of(opened)
    enter(client, "Anna")
    store, project = opened
    again = TestClient(make_app(store, project, LabelConfig(project.folder, browser=False)), base_url=HOME)
    again.cookies.update(dict(client.cookies))
    assert again.get("/api/v1/me").json()["name"] == "Anna"


def test_a_cookie_that_is_due_is_not_renewed_over_a_new_one(opened: tuple[Store, Project]) -> None:
    client = client_of(opened)
    people = people_of(client)
    enter(client, "Anna")
    people.create("Ben", password=credentials.hashed("four plain words"))
    store, project = opened
    store.write("UPDATE login_session SET expires_at = expires_at - INTERVAL 2 DAY")
    app = make_app(store, project, LabelConfig(project.folder, browser=False))
    later = TestClient(app, base_url=HOME, follow_redirects=False)
    later.cookies.update(dict(client.cookies))
    sent = later.post("/login", data={"name": "Ben", "password": "four plain words"})
    assert (sent.status_code, len(sent.headers.get_list("set-cookie"))) == (303, 1)
    assert later.get("/api/v1/me").json()["name"] == "Ben"


def test_a_proxy_on_a_socket_for_both_kinds_of_addresses_is_known(opened: tuple[Store, Project]) -> None:
    client = client_of(opened, ("::ffff:10.0.0.5", 4000), proxies=("10.0.0.0/8",))
    code = start_of(client).partition("=")[2]
    answer = client.post(
        "/start", data={"code": code, "name": "admin"}, headers={"x-forwarded-proto": "https"}
    )
    assert "; Secure" in answer.headers["set-cookie"]
