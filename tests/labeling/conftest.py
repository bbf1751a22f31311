"""Small stores and projects with comparisons to vote on, a label server as its user starts it, and ways in.

`login(server, "anna")` lets a person into a running server (a role other than annotator is the third argument):

    who = login(server, "anna")
    client = httpx.Client(base_url=server.url, cookies=who.cookies)          # over HTTP
    page = browser.new_context(storage_state=who.storage).new_page()         # in Chromium
    page.goto(server.url)

`enter(client, "anna")` does the same for a TestClient of `make_app`.

`serve` starts servers quickly, by forking (forks.py); `launch` starts the command as its user does.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, sync_playwright

from palate.data.records import AnnotatorRole, Comparison, Completion, Prompt
from palate.data.store import Store
from palate.labeling.people import Person
from palate.project import Project
from tests.labeling.annotator_client import TLS
from tests.labeling.forks import Forked, Forks, palate

ROOT = Path(__file__).parents[2]
TEXTS = ("one", "two words", "three words here", "and four words here")
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "src")}  # of a process that a test starts
MODELS = ("secret-model-a", "secret-model-b")


def fill(
    store: Store, n: int = 3, k: int = 2, overlap: int = 1, texts: tuple[str, ...] = ()
) -> list[Comparison]:
    """`n` comparisons of `k` answers each, by two models in turn."""
    prompts = [Prompt(({"role": "user", "content": f"idea {i} of {k}"},)) for i in range(n)]
    completions = [
        [Completion(p.id, (texts or TEXTS)[j % 4] + " ." * (j // 4), model=MODELS[j % 2]) for j in range(k)]
        for p in prompts
    ]
    comparisons = [
        Comparison(p.id, tuple(c.id for c in group), overlap=overlap)
        for p, group in zip(prompts, completions, strict=True)
    ]
    store.add_prompts(prompts)
    store.add_completions([c for group in completions for c in group])
    store.add_comparisons(comparisons)
    return comparisons


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project", name="Small <b>project</b>")


@dataclass
class Server:
    """A running `palate label`."""

    url: str
    process: subprocess.Popen[str] | Forked
    start: str = ""  # the one-time link for the admin, when there is one
    admin: httpx.Client | None = field(default=None, repr=False)  # logged in by it, made by `login`

    def stop(self, sign: int = signal.SIGINT) -> float:
        """Send the signal; returns the seconds until the process was gone."""
        start = time.monotonic()
        self.process.send_signal(sign)
        self.process.wait(20)
        return time.monotonic() - start


def start(folder: Path, *flags: str, env: dict[str, str] = ENV, forks: Forks | None = None) -> Server:
    """Start `palate label` on a free port and wait until it answers; `end` it.

    A fork has the environment of its parent; with another one the command itself is started.
    """
    arguments = ["label", "--project", str(folder), "--no-browser", *flags]
    if "--port" not in flags:
        arguments += ["--port", "0"]
    process = forks.palate(arguments) if forks and env == ENV else palate(arguments, env)
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"(http://\S+?/)(start\?code=\S+)?\s", line):
            break
    else:
        raise AssertionError(f"the server did not start, status {process.wait()}")
    url = found.group(1)
    local = f"http://localhost:{urlsplit(url).port}/"
    for _ in range(300):
        try:
            httpx.get(f"{local}healthz", verify=TLS)
            break
        except httpx.TransportError:
            time.sleep(0.1)
    return Server(url, process, found.group(0).strip() if found.group(2) else "")


def end(server: Server) -> None:
    """Kill it if it still runs."""
    if server.process.poll() is None:
        server.process.kill()
    server.process.wait()
    assert server.process.stdout is not None
    server.process.stdout.close()


@contextmanager
def starting(forks: Forks | None) -> Iterator[Callable[..., Server]]:
    """`start`; what still runs afterwards is killed."""
    running: list[Server] = []

    def started(folder: Path, *flags: str, env: dict[str, str] = ENV) -> Server:
        running.append(start(folder, *flags, env=env, forks=forks))
        return running[-1]

    yield started
    for server in running:
        end(server)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """The process that forks servers, one for all tests."""
    with Forks(ENV) as forking:
        yield forking


@pytest.fixture
def serve(forks: Forks) -> Iterator[Callable[..., Server]]:
    """`start` by a fork, in a fraction of the time; what still runs at the end of the test is killed."""
    with starting(forks) as started:
        yield started


@pytest.fixture
def launch() -> Iterator[Callable[..., Server]]:
    """`start` as the user does, for tests of that; what still runs at the end of the test is killed."""
    with starting(None) as started:
        yield started


PASSWORD = "four plain words here"


@dataclass(frozen=True)
class Login:
    """A session in a server: what a client needs to be somebody."""

    url: str
    name: str
    cookies: dict[str, str]

    @property
    def storage(self) -> dict[str, Any]:
        """`storage_state` of a Playwright context; the welcome of the first visit is behind them."""
        host = urlsplit(self.url).hostname
        met = {"name": "palate:met", "value": json.dumps([self.name])}
        return {
            "cookies": [
                {"name": name, "value": value, "domain": host, "path": "/", "expires": -1, "httpOnly": True,
                 "secure": False, "sameSite": "Lax"}
                for name, value in self.cookies.items()
            ],
            "origins": [{"origin": self.url.rstrip("/"), "localStorage": [met]}],
        }  # fmt: skip


def login(server: Server, name: str, role: AnnotatorRole = "annotator") -> Login:
    """A session for this person, whose account is made when it is not there yet.

    Needs a server that was started without --annotator and has printed its start link.
    """
    if server.admin is None:
        server.admin = httpx.Client(base_url=server.url, timeout=60, verify=TLS)
        code = server.start.partition("code=")[2]
        server.admin.post("start", data={"code": code, "name": "the starter"})
        assert server.admin.cookies, "the start link did not let anybody in"
    made = server.admin.post("api/v1/people", json={"name": name, "role": role, "password": PASSWORD})
    assert made.status_code == 201 or "taken" in made.text, made.text
    sent = httpx.post(f"{server.url}login", data={"name": name, "password": PASSWORD}, timeout=60, verify=TLS)
    assert sent.status_code == 303, sent.text
    return Login(server.url, name, dict(sent.cookies))


def enter(client: TestClient, name: str, role: AnnotatorRole = "annotator") -> Person:
    """Log a TestClient in as this person, whose account is made when it is not there yet."""
    people = client.app.state.people  # type: ignore[attr-defined]
    account = people.find(name)
    person: Person = account.person if account else people.create(name, role)
    client.cookies.clear()
    client.cookies.set(people.cookie, people.open_session(person.id))
    return person


CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; a test opens contexts of its own."""
    if not CHROMIUM:
        assert not os.environ.get("CI"), "under CI chromium must be there"
        pytest.skip("no chromium on this machine (make test installs one)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()
