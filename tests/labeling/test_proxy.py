"""The app behind a reverse proxy that mounts it under /palate: redirects, cookies, links and Gradio keep the prefix."""

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser

from palate.project import Project
from tests.labeling.conftest import Server, fill

pytestmark = pytest.mark.slow
ROOT = "/palate"


class Proxy(BaseHTTPRequestHandler):
    """Takes the prefix off, says who asked, passes everything on; other paths are not there."""

    target = 0
    keep = False  # leave the prefix on, as some proxies do

    def pass_on(self) -> None:
        """One request."""
        if not self.path.startswith(ROOT):
            self.send_error(404)
            return
        path = self.path if self.keep else self.path[len(ROOT) :] or "/"
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        headers |= {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "Connection": "close"}
        upstream = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        upstream.request(self.command, path, body, headers)
        answer = upstream.getresponse()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while chunk := answer.read1(65536):
            self.wfile.write(chunk)
        upstream.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def proxied(
    project: Project, serve: Callable[..., Server]
) -> Iterator[tuple[Server, str, ThreadingHTTPServer]]:
    with project.store() as store:
        fill(store, n=2)
    server = serve(
        project.folder, "--root-path", ROOT, "--proxies", "127.0.0.1", "--trusted-hosts", "palate.example"
    )
    Proxy.target, Proxy.keep = urlsplit(server.url).port or 0, False
    front = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=front.serve_forever, args=(0.05,), daemon=True).start()
    yield server, f"http://localhost:{front.server_address[1]}", front
    front.shutdown()
    front.server_close()


@pytest.mark.parametrize("keep", [False, True])
def test_everything_stays_under_the_prefix(
    proxied: tuple[Server, str, ThreadingHTTPServer], keep: bool
) -> None:
    server, outside, _ = proxied
    Proxy.keep = keep
    code = server.start.partition("code=")[2]
    assert f"{ROOT}/start?code=" in server.start
    with httpx.Client(base_url=outside, headers={"accept": "text/html"}) as client:
        assert client.get(f"{ROOT}/people").headers["location"] == f"{ROOT}/login?next=/people"
        page = client.get(f"{ROOT}/start?code={code}").text
        assert f'action="{ROOT}/start"' in page and f'href="{ROOT}/people.css"' in page
        entered = client.post(f"{ROOT}/start", data={"code": code, "name": "Ada"})
        assert entered.headers["location"] == f"{ROOT}/"
        cookie = entered.headers["set-cookie"]
        assert f"Path={ROOT}; HttpOnly; SameSite=Lax; Secure" in cookie
        who = {"cookie": cookie.partition(";")[0]}  # httpx keeps a Secure cookie from http to itself
        assert client.get(f"{ROOT}/statistics", headers=who).headers["location"] == f"{ROOT}/review"
        made = client.post(f"{ROOT}/api/v1/invitations", json={}, headers=who).json()
        assert made["url"].startswith(outside.replace("http://", "https://") + f"{ROOT}/invite?code=")
        config = client.get(f"{ROOT}/config", headers=who).json()
        assert urlsplit(config["root"]).path == ROOT
        assert client.get(f"{ROOT}/login", headers={"host": "evil.example"}).status_code == 400
        assert client.get(f"{ROOT}/login", headers={"host": "palate.example"}).status_code == 200


def test_the_ranking_page_works_behind_the_proxy(
    proxied: tuple[Server, str, ThreadingHTTPServer], browser: Browser
) -> None:
    server, outside, _ = proxied
    code = server.start.partition("code=")[2]
    local = httpx.Client(base_url=f"http://127.0.0.1:{Proxy.target}", follow_redirects=False)
    entered = local.post("/start", data={"code": code, "name": "Ada"})
    name, _, value = entered.headers["set-cookie"].partition(";")[0].partition("=")
    context = browser.new_context()
    context.add_cookies([{"name": name, "value": value, "url": f"{outside}{ROOT}/"}])
    page, failed = context.new_page(), []
    page.on("response", lambda r: failed.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.goto(f"{outside}{ROOT}/")
    page.wait_for_selector(".p-answer .md >> text=one", timeout=20_000)
    page.goto(f"{outside}{ROOT}/people")
    assert page.inner_text("h1") == "People"
    context.close()
    assert not failed
