"""Nothing that a browser receives before a vote says which model wrote what, or which items are checks."""

import json
import random
from collections.abc import Callable, Iterator
from itertools import pairwise, permutations
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Route

from palate.config import LabelConfig
from palate.data.records import Assignment, Comparison, Completion, Prompt, Run
from palate.data.store import Store
from palate.labeling.aliases import Aliases
from palate.labeling.claims import RECOUNT
from palate.labeling.desk import Desk
from palate.labeling.opening import Plan
from palate.labeling.server import make_app
from palate.project import Project
from tests.labeling.conftest import MODELS, Server, enter, fill, login
from tests.labeling.endpoint_server import EndpointServer
from tests.labeling.pages import DESKTOP, PATIENCE, saved, settled

NAMES = (
    "secret-strategy",
    "secret-source",
    "secret-tag",
    "secret-run",
    "secret-endpoint",
    "secret-live-model",
)
WORDS = ('"purpose"', '"strategy"', '"propensity"', '"overlap"', '"gold"', '"repeats"', '"reserved_for"', '"completion',
         '"comparison', '"run_id"', '"prompt_id"', '"model"', '"seed"', '"sampling"', "display_order")  # fmt: skip


def secrets(store: Store) -> set[str]:
    """Every name and every id that would tell, or let somebody check a guess."""
    found = {*MODELS, *NAMES}
    for table in ("completion", "comparison", "assignment", "prompt", "run"):
        found |= {row["id"] for row in store.rows(f"SELECT id FROM {table}")}
    return found


def checks(store: Store, n: int = 12, gold: int = 0) -> None:
    """Items of two and of four answers with tell-tale names around them, some of them gold questions."""
    for k in (2, 4):
        fill(store, n, k)
    store.put_run(Run("secret-run", "sft", created_at="2026-01-01T00:00:00", status="done"))
    for i in range(max(gold, 1)):
        prompt = Prompt(
            ({"role": "user", "content": f"question {i}"},), source="secret-source", tags=("secret-tag",)
        )
        answers = [
            Completion(prompt.id, text, model=m, run_id="secret-run")
            for text, m in zip("xy", MODELS, strict=True)
        ]
        store.add_prompts([prompt])
        store.add_completions(answers)
        purpose = "gold" if i < gold else "train"
        store.add_comparisons(
            [Comparison(prompt.id, tuple(a.id for a in answers), "secret-strategy", purpose=purpose)]
        )  # type: ignore[arg-type]


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    """An app that mixes in gold questions and repeats."""
    store = project.own_store()
    checks(store, n=30, gold=20)
    config = LabelConfig(project=project.folder, gold_share=0.3, repeat_share=0.3)
    with TestClient(make_app(store, project, config), base_url="http://localhost") as opened:
        opened.store = store  # type: ignore[attr-defined]
        yield opened


def tie(item: dict[str, Any], **fields: Any) -> dict[str, Any]:
    letters = [[answer["letter"] for answer in item["answers"]]]
    vote_id = f"vote-{random.getrandbits(60)}"
    return {
        "vote_id": vote_id,
        "assignment": item["assignment"],
        "verdict": "tie",
        "ranking": letters,
        **fields,
    }


def test_gold_questions_and_repeats_look_like_all_others(client: TestClient) -> None:
    store: Store = client.store  # type: ignore[attr-defined]
    anna = enter(client, "anna")
    found = client.post("/api/v1/next", json={}).json()
    shapes, left, kinds = set(), [], set()
    for _ in range(60):
        item = found["items"][0]
        shapes.add((tuple(item), tuple(item["answers"][0]), tuple(item["messages"][0]), len(item["assignment"]),
                    item["lease_seconds"], json.dumps(item["earlier"])))  # fmt: skip
        left.append(found["progress"]["left"])
        found = client.post("/api/v1/votes", json=tie(item)).json()
        assert tuple(found) == ("saved", "items", "progress")
    kinds = {row["purpose"]: row["n"] for row in store.rows(
        "SELECT purpose, count(*) AS n FROM vote v JOIN assignment a ON a.id = v.assignment_id "
        "JOIN comparison c ON c.id = a.comparison_id GROUP BY ALL")}  # fmt: skip
    assert kinds["gold"] > 5 and kinds["repeat"] > 3 and kinds["train"] > 20, kinds
    assert len(shapes) == 1
    steps = [after - before for before, after in pairwise(left)]
    odd = [n for n, step in enumerate(steps) if step != -1]
    assert len(odd) <= len(steps) // RECOUNT + 1, left  # only where it was put right, not at every check
    said = client.get("/api/v1/votes/mine?limit=200").text + client.post("/api/v1/undo", json={}).text
    assert not [word for word in (*WORDS, *NAMES) if word in said]
    assert len({tuple(vote) for vote in client.get("/api/v1/votes/mine?limit=200").json()["votes"]}) == 1
    assert anna.id not in said


def test_no_id_lets_anybody_check_a_guess(client: TestClient) -> None:
    """Ids of ours are digests: who knows the texts and guesses the models could compute them."""
    anna = enter(client, "anna")
    item = client.post("/api/v1/next", json={}).json()["items"][0]
    prompt = Prompt(tuple(item["messages"]))
    guesses = set()
    for models in permutations(MODELS):
        answers = [
            Completion(prompt.id, a["text"], model=m)
            for a, m in zip(item["answers"], models * 4, strict=False)
        ]
        for purpose in ("train", "random", "gold", "repeat"):
            for reserved in (None, anna.id):
                ids = tuple(answer.id for answer in answers)
                made = Comparison(prompt.id, ids, purpose=purpose, reserved_for=reserved)  # type: ignore[arg-type]
                guesses |= {made.id, Assignment(made.id, anna.id, ids).id}
    store: Store = client.store  # type: ignore[attr-defined]
    real = {row["id"] for row in store.rows("SELECT id FROM assignment")}
    assert guesses & real or len(item["answers"]) > 2  # the guess was right, and
    assert item["assignment"] not in guesses
    for guess in guesses | real:  # no route tells whether it was
        assert client.post("/api/v1/heartbeat", json={"assignments": [guess]}).json()["lost"] == [guess]
        refused = client.post("/api/v1/votes", json=tie(item, assignment=guess))
        assert refused.json()["error"]["code"] == "not_yours"
        again = client.post("/api/v1/next", json={"have": [guess]}).json()["items"]
        assert "answers" in again[0]


def test_aliases_are_opened_by_the_key_that_sealed_them_alone() -> None:
    mine, other = Aliases(b"k" * 32), Aliases(b"o" * 32)
    for name in ("0123456789abcdef0123", "ä", "x" * 40):
        alias = mine.of(name)
        assert mine.opened(alias) == name and mine.of(name) == alias and len(alias) <= 64
        assert other.opened(alias) == "" and name not in alias
        changed = [
            alias[:i] + ("A" if alias[i] != "A" else "B") + alias[i + 1 :] for i in range(len(alias) - 1)
        ]
        assert {mine.opened(one) for one in changed} == {""}
    for forged in ("", "x", "0123456789abcdef0123", "ä", "=" * 9, "A" * 64, "\0", "-_-_-_-_-_-_-_-_"):
        assert mine.opened(forged) == ""


def test_what_is_left_is_exact_without_checks_and_comes_right_with_them(store: Store) -> None:
    fill(store, n=60)
    with Desk(store, plan=Plan(gold_share=0.1)) as desk:
        rng = random.Random(0)
        assert desk.progress("anna").left == 60
        first = desk.next_items("anna", rng)
        assert (len(first), desk.progress("anna").left) == (1, 60)
    with Desk(store) as desk:
        assert desk.progress("anna").left == 60
        desk.next_items("ben", rng)
        assert desk.progress("anna").left == 59


@pytest.mark.slow
def test_nothing_a_browser_receives_tells(
    browser: Browser, project: Project, serve: Callable[..., Server]
) -> None:
    with EndpointServer() as models, project.own_store() as store:
        checks(store)
        entries = [{"name": name, "url": models.url, "model": name} for name in NAMES[-2:]]
        (project.folder / "endpoints.yaml").write_text(yaml.safe_dump(entries))
        store.close()
        heard = _session(browser, serve(project.folder))
        address = models.url
    with project.store() as store:
        hidden = {*secrets(store), address, address.removeprefix("http://").rstrip("/v1")}  # type: ignore[arg-type]
    assert len(heard) > 30 and any("/api/v1/live" in url for url, _ in heard)
    told = [(url, secret) for url, text in heard for secret in hidden if secret in text]
    assert not told
    ours = [(url, text) for url, text in heard if "/api/v1/" in url]
    assert not [(url, word) for url, text in ours for word in WORDS if word in text]


def _session(browser: Browser, server: Server) -> list[tuple[str, str]]:
    """Log in, rank, undo, look at own votes and guidelines, ask live: (url, headers and body) of every response."""
    heard: list[tuple[str, str]] = []

    def through(route: Route) -> None:
        response = route.fetch()
        heard.append(
            (route.request.url, json.dumps(response.headers) + response.body().decode("utf-8", "replace"))
        )
        route.fulfill(response=response)

    who = login(server, "anna")
    context = browser.new_context(**DESKTOP)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    context.route("**/*", through)
    page = context.new_page()
    page.goto(server.url)  # the way in
    context.add_cookies([{"name": k, "value": v, "url": server.url} for k, v in who.cookies.items()])
    context.add_init_script("localStorage.setItem('palate:met', '[\"anna\"]')")
    page.goto(server.url)
    settled(page)
    for number in range(1, 9):
        page.keyboard.press("x")
        page.keyboard.press("Enter")
        saved(page, number)
    page.keyboard.press("u")
    page.wait_for_function("palate.state().item.earlier")
    page.keyboard.press("Enter")
    for key in "vg?":
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        page.keyboard.press("Escape")
    page.evaluate("palate.api('heartbeat', {assignments: [palate.state().item.assignment]})")
    page.goto(f"{server.url}config")
    page.goto(f"{server.url}live")
    page.fill("#text", "Tell me something.")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-state=ready]")
    page.click("#rank")
    page.wait_for_url(server.url)
    settled(page)
    heard.append(("dom", page.content()))
    context.unroute_all(behavior="wait")
    context.close()
    return heard
