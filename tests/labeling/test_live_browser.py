"""The live screen in a real Chromium against a real server and real HTTP endpoints: ask, watch, stop, rank, go on."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from palate.project import Project
from tests.labeling.conftest import ROOT, Server, login
from tests.labeling.endpoint_server import EndpointServer, prose
from tests.labeling.pages import DESKTOP, PATIENCE, PHONE, settled

pytestmark = pytest.mark.slow
MODEL = str(ROOT / "src/palate/builtin")
NAMES = ("endpoint-of-ours", "endpoint-of-theirs", "fast", "slow")


@pytest.fixture
def endpoints() -> Iterator[EndpointServer]:
    with EndpointServer() as running:
        yield running


@pytest.fixture
def live(project: Project, serve: Callable[..., Server], endpoints: EndpointServer) -> Callable[..., Server]:
    """A label server whose endpoints run these models, started by `serve` or `by` something else."""

    def start(*models: str, by: Callable[..., Server] = serve, **settings: Any) -> Server:
        entries = [
            {
                "name": NAMES[i % 2] if i < 2 else f"endpoint {i}",
                "url": endpoints.url,
                "model": model,
                **settings,
            }
            for i, model in enumerate(models)
        ]
        (project.folder / "endpoints.yaml").write_text(yaml.safe_dump(entries))
        return by(project.folder)

    return start


def visit(browser: Browser, server: Server, path: str = "live", name: str = "anna", **settings: Any) -> Page:
    context = browser.new_context(**{**DESKTOP, "storage_state": login(server, name).storage, **settings})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url + path)
    return page


def ask(page: Page, text: str) -> None:
    page.fill("#text", text)
    page.keyboard.press("Enter")


def asked(page: Page, endpoints: EndpointServer, number: int) -> None:
    """Wait until the endpoints have been asked so often; the cards are there before that."""
    state(page, "asking")
    expect(page.locator("#answers .card")).to_have_count(2)
    for _ in range(100):
        if len(endpoints.asked) == number:
            break
        page.wait_for_timeout(50)
    assert len(endpoints.asked) == number


def state(page: Page, name: str) -> None:
    page.wait_for_selector(f"body[data-state={name}]")


def ranking(page: Page, server: Server) -> Page:
    """Wait until the ranking page has taken over."""
    page.wait_for_url(server.url)
    return settled(page)


def rows(project: Project, sql: str) -> list[dict[str, Any]]:
    with project.store() as store:
        return store.rows(sql)


def test_ask_rank_by_keyboard_and_go_on(
    browser: Browser, project: Project, live: Callable[..., Server], endpoints: EndpointServer
) -> None:
    server = live("fast", "slow")
    page = visit(browser, server, "")
    ranking(page, server)
    page.get_by_role("link", name="Live").click()
    state(page, "resting")
    ask(page, "Describe a harbour in winter.")
    state(page, "ready")
    shown = page.locator("#answers .card p").all_inner_texts()
    assert [head for head in page.locator("#answers .card h2").all_inner_texts()] == ["A", "B"]
    page.keyboard.press("Enter")  # the button that leads to the ranking has the focus
    ranking(page, server)
    assert page.evaluate("palate.state().item.answers.map(answer => answer.text)") == shown
    page.keyboard.press("6")
    page.keyboard.press("r")
    page.keyboard.type("warmer")
    page.keyboard.press("Enter")
    state(page, "resting")  # back by itself
    assert page.inner_text(".turn.preferred p") == shown[1]
    assert "Your ranking is saved" in page.inner_text("#note")
    ask(page, "Now in summer.")
    state(page, "ready")
    page.keyboard.press("Enter")
    ranking(page, server)
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    state(page, "resting")
    assert "No answer was preferred" in page.inner_text("#note")
    page.click("#change")
    ranking(page, server)
    page.wait_for_selector("[data-do=all_bad][aria-pressed=true]")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    state(page, "resting")
    assert page.locator(".turn").count() == 4
    page.click("#afresh")
    expect(page.locator(".turn")).to_have_count(0)
    page.context.close()
    server.stop()

    votes = rows(project, "SELECT * FROM current_vote ORDER BY created_at")
    assert [(v["strategy"], v["purpose"], v["verdict"], v["strength"]) for v in votes] == [
        ("live", "train", "ranked", 2)
    ] * 2
    assert (votes[0]["rationale"], votes[0]["annotator_name"]) == ("warmer", "anna")
    texts = {row["id"]: row["text"] for row in rows(project, "SELECT id, text FROM completion")}
    assert [texts[tier[0]] for tier in votes[0]["ranking"]] == shown[::-1]
    assert len(rows(project, "SELECT id FROM vote")) == 3
    assert [len(body["messages"]) for body in endpoints.asked] == [1, 1, 3, 3]
    assert {p["source"] for p in rows(project, "SELECT source FROM prompt")} == {"live"}


def test_the_ranking_comes_before_what_was_open(
    browser: Browser, project: Project, live: Callable[..., Server]
) -> None:
    from tests.labeling.conftest import fill

    with project.store() as store:
        fill(store, n=6)
    server = live("fast", "slow")
    page = visit(browser, server, "")
    ranking(page, server)
    assert "idea" in page.inner_text("#prompt")
    page.goto(server.url + "live")
    ask(page, "A question of mine?")
    state(page, "ready")
    page.click("#rank")
    ranking(page, server)
    assert page.inner_text("#prompt").strip() == "A question of mine?"
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    state(page, "resting")
    page.goto(server.url)
    ranking(page, server)
    assert "idea" in page.inner_text("#prompt")
    page.context.close()


def test_stop_keeps_the_prompt_and_ends_the_requests(
    browser: Browser, project: Project, live: Callable[..., Server], endpoints: EndpointServer
) -> None:
    server = live("stalls", "stalls")
    page = visit(browser, server)
    ask(page, "Will it ever come?")
    asked(page, endpoints, 2)
    page.keyboard.press("Escape")
    state(page, "resting")
    assert page.input_value("#text") == "Will it ever come?"
    assert page.inner_text("#status").startswith("Stopped; nothing was stored")
    for _ in range(100):
        if endpoints.gone == 2:
            break
        page.wait_for_timeout(50)
    assert endpoints.gone == 2
    ask(page, "And now?")  # the place is free again
    asked(page, endpoints, 4)
    page.goto(server.url + "healthz")  # the page goes away
    for _ in range(100):
        if endpoints.gone == 4:
            break
        page.wait_for_timeout(50)
    assert endpoints.gone == 4
    page.goto(server.url + "live")
    state(page, "resting")
    page.context.close()
    server.stop()
    assert rows(project, "SELECT id FROM prompt") == []


def test_failures_are_told_without_names(
    browser: Browser, live: Callable[..., Server], endpoints: EndpointServer
) -> None:
    server = live("fast", "down", "plain")
    page = visit(browser, server)
    ask(page, "Describe a harbour.")
    state(page, "ready")
    assert page.inner_text("#status") == "All answers are here; left out: 1"
    assert page.locator("#answers .card h2").all_inner_texts() == ["A", "B"]
    page.context.close()


def test_two_tabs_and_a_lost_session(browser: Browser, live: Callable[..., Server]) -> None:
    server = live("stalls", "stalls")
    page = visit(browser, server)
    ask(page, "First tab?")
    expect(page.locator("#answers .card")).to_have_count(2)
    other = page.context.new_page()
    other.set_default_timeout(PATIENCE)
    other.goto(server.url + "live")
    ask(other, "Second tab?")
    expect(other.locator("#status")).to_contain_text("your last question is still being answered")
    assert other.input_value("#text") == "Second tab?"
    page.context.clear_cookies()
    ask(other, "Who am I?")
    expect(other.locator("#status")).to_contain_text("You are logged out")
    assert other.input_value("#text") == "Who am I?"
    page.context.close()


def test_nothing_the_browser_gets_names_an_endpoint(
    browser: Browser, live: Callable[..., Server], endpoints: EndpointServer
) -> None:
    hidden = [
        "endpoint-of-ours",
        "endpoint-of-theirs",
        "model-of-ours",
        "model-of-theirs",
        "down-there",
        endpoints.url,
    ]
    endpoints.texts = {name: prose(name, 400) for name in hidden}
    hidden += [str(endpoints._server.server_port), "endpoint 2", "secret-stack-trace"]
    server = live("model-of-ours", "model-of-theirs", "down")
    who = httpx.Client(base_url=server.url, cookies=login(server, "ben").cookies, timeout=60)
    got: list[str] = []
    with who.stream("POST", "api/v1/live", json={"text": "Describe a harbour."}) as response:
        assert response.status_code == 200
        got += [json.dumps(dict(response.headers)), response.read().decode()]
    assert [json.loads(line)["event"] for line in got[1].splitlines()][-1] == "done"
    assert "withdrawn" in got[1]
    for path in ("api/v1/live", "live", "live.js", "api/v1/me"):
        found = who.get(path)
        assert found.status_code == 200
        got += [json.dumps(dict(found.headers)), found.text]
    following = who.post("api/v1/next", json={"have": []})
    assert len(following.json()["items"][0]["answers"]) == 2
    got.append(following.text)
    page = visit(browser, server)
    page.on(
        "response", lambda r: got.append(json.dumps(r.all_headers()) + r.text()) if r.status == 200 else None
    )
    ask(page, "Describe a lighthouse.")
    state(page, "ready")
    got.append(page.content())
    page.context.close()
    assert len(got) > 10
    assert [word for word in hidden for text in got if word in text] == []


def test_the_labeling_process_has_no_torch(
    live: Callable[..., Server], launch: Callable[..., Server]
) -> None:
    server = live("fast", "slow", by=launch)
    who = httpx.Client(base_url=server.url, cookies=login(server, "ben").cookies, timeout=60)
    with who.stream("POST", "api/v1/live", json={"text": "Describe a harbour."}) as response:
        assert b'"done"' in response.read()
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "duckdb" in mapped
    assert "torch" not in mapped


JSON = {"content-type": "application/json"}
REFUSED: tuple[tuple[dict[str, Any], int], ...] = (
    ({"headers": {"origin": "https://elsewhere.example"}, "json": {"text": "x"}}, 403),
    ({"content": b'{"text": "x"}', "headers": {"content-type": "text/plain"}}, 422),
    ({"json": {"text": "x", "model": "mine"}}, 422),
    ({"json": {"text": ""}}, 422),
    ({"content": rb'{"text": "\ud83d"}', "headers": JSON}, 422),
    ({"content": b'{"text": ', "headers": JSON}, 422),
    ({"json": {"text": "x", "answers": 9}}, 422),
    ({"json": {"text": "x", "after": "nothing"}}, 404),
)


def test_requests_that_are_refused(live: Callable[..., Server], endpoints: EndpointServer) -> None:
    server = live("fast", "slow")
    who = httpx.Client(base_url=server.url, cookies=login(server, "ben").cookies, timeout=60)
    for how, status in REFUSED:
        answer = who.post("api/v1/live", **how)
        assert (answer.status_code, list(answer.json())) == (status, ["error"]), how
    nobody = httpx.post(f"{server.url}api/v1/live", json={"text": "x"})
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "login")
    assert endpoints.asked == []


def test_without_endpoints_there_is_no_link(
    browser: Browser, project: Project, serve: Callable[..., Server]
) -> None:
    server = serve(project.folder)
    page = visit(browser, server, "")
    ranking(page, server)
    assert page.get_by_role("link", name="Live").count() == 0
    page.goto(server.url + "live")
    expect(page.locator("#intro")).to_contain_text("There are no models to ask")
    assert page.is_disabled("#send")
    page.context.close()


HOSTILE = (
    "<img src=x onerror=\"window.hit='img'\"><script>window.hit='script'</script> ${window.hit='template'}"
)


def test_hostile_text_is_text(
    browser: Browser, live: Callable[..., Server], endpoints: EndpointServer
) -> None:
    endpoints.texts = {"one": HOSTILE + " one", "two": HOSTILE + " and two more words"}
    server = live("one", "two")
    page = visit(browser, server)
    ask(page, HOSTILE)
    state(page, "ready")
    assert HOSTILE in page.inner_text("#talk")
    assert HOSTILE in page.inner_text("#answers")
    assert page.locator("main :is(img, script)").count() == 0
    page.click("#rank")
    ranking(page, server)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    state(page, "resting")
    assert page.evaluate("window.hit") is None
    page.context.close()


@pytest.fixture
def transformers(unused_port: int) -> Iterator[str]:
    """`transformers serve` on the built-in model; its address."""
    command = [
        Path(sys.executable).with_name("transformers"),
        "serve",
        MODEL,
        "--port",
        str(unused_port),
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, (
                "transformers serve did not start; it needs the dev dependency openai"
            )
            try:
                httpx.get(f"http://localhost:{unused_port}/health").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield f"http://localhost:{unused_port}/v1"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def test_a_real_model_server(
    browser: Browser, project: Project, serve: Callable[..., Server], transformers: str
) -> None:
    entries = [
        {
            "name": f"at {heat}",
            "url": transformers,
            "model": MODEL,
            "samples": 2,
            "temperature": heat,
            "max_tokens": 60,
        }
        for heat in (0.8, 1.2)
    ]
    (project.folder / "endpoints.yaml").write_text(yaml.safe_dump(entries))
    server = serve(project.folder)
    page = visit(browser, server)
    for turn in ("a lighthouse at the edge of town", "the same at night"):
        ask(page, turn)
        state(page, "ready")
        number = page.locator("#answers .card").count()
        assert 2 <= number <= 4  # answers that stay the same are left out
        page.keyboard.press("Enter")
        ranking(page, server)
        page.keyboard.type("6" if number == 2 else "dcba"[-number:])
        page.keyboard.press("Enter")
        state(page, "resting")
    page.context.close()
    server.stop()
    votes = rows(project, "SELECT * FROM current_vote ORDER BY created_at")
    assert [(vote["strategy"], vote["verdict"]) for vote in votes] == [("live", "ranked")] * 2
    stored = rows(project, "SELECT model, sampling, finish_reason FROM completion")
    assert {row["model"] for row in stored} == {MODEL}
    assert {json.loads(row["sampling"])["temperature"] for row in stored} == {0.8, 1.2}
    assert {row["finish_reason"] for row in stored} <= {"stop", "length"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
@pytest.mark.parametrize("count", [2, 9])
def test_everything_fits(
    browser: Browser,
    live: Callable[..., Server],
    endpoints: EndpointServer,
    scheme: str,
    device: str,
    count: int,
) -> None:
    models = [f"model {i}" for i in range(count)]
    rng = random.Random(0)
    endpoints.texts = {model: prose(model, rng.choice((300, 3000))) + "x" * 200 for model in models}
    endpoints.piece = 10_000  # complete before it is shown, so it is shown at once, not in 16 s
    server = live(*models)
    page = visit(browser, server, color_scheme=scheme, **(PHONE if device == "phone" else DESKTOP))
    ask(page, "A long question. " * 40)
    state(page, "ready")
    size = page.viewport_size
    assert size is not None
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")
    box = page.locator("#rank").bounding_box()
    assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= size["height"]
    assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    heights = page.evaluate("[...document.querySelectorAll('.card')].map(card => card.offsetHeight)")
    assert min(heights) > 100 and max(heights) - min(heights) <= 1  # whatever the length of the answers
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) < 200) == (scheme == "dark")
    page.context.close()
