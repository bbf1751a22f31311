"""The ranking screen in a real browser against a real server: keys, mouse, durability, blindness, hostile text."""

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Response, sync_playwright

from palate.data.records import Comparison, Completion, Prompt
from palate.data.store import Store
from palate.labeling import voting
from palate.project import Project
from tests.labeling.conftest import MODELS, Server, fill

pytestmark = pytest.mark.slow
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
PATIENCE = 20_000  # ms; the machine may be crowded


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        assert not os.environ.get("CI"), "under CI chromium must be there"
        pytest.skip("no chromium on this machine (make test installs one)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def visit(browser: Browser, server: Server, name: str = "anna", **settings: Any) -> Page:
    """A fresh visitor who says their name."""
    page = browser.new_context(**settings).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('p-project')?.textContent")
    return page


def done(page: Page, number: int) -> None:
    """Wait until the server has acknowledged `number` answers."""
    page.wait_for_function(f"document.getElementById('p-progress').textContent.startsWith('{number} done')")
    assert page.inner_text("#p-status") == "saved ✓"


def shown(page: Page) -> list[str]:
    """The answers in the order on the screen."""
    return [text.strip() for text in page.locator(".p-card:visible .p-answer .md").all_inner_texts()]


def overflows(page: Page) -> bool:
    found: bool = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    return found


def votes(project: Project) -> list[dict[str, Any]]:
    """Current votes in order, completions as texts."""
    with project.store() as store:
        text = {row["id"]: row["text"] for row in store.rows("SELECT id, text FROM completion")}
        rows = store.rows("SELECT * FROM current_vote ORDER BY created_at")
    return [
        {
            **row,
            "shown": [text[c] for c in row["display_order"]],
            "ranking": [[text[c] for c in tier] for tier in row["ranking"]],
        }
        for row in rows
    ]


def test_three_by_keyboard_and_three_by_mouse(
    browser: Browser, project: Project, serve: Callable[..., Server]
) -> None:
    with project.store() as store:
        fill(store, n=3, k=2)
        fill(store, n=3, k=4)
        store.write("UPDATE comparison SET priority = 3 - len(completion_ids)")  # pairs first
    server = serve(project.folder)
    page = visit(browser, server)
    orders = []
    for number, key in enumerate(("1", "6", "4")):
        orders.append(shown(page))
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        done(page, number + 1)
    for number, letters in enumerate(("CADB", "BDAC")):
        orders.append(shown(page))
        for letter in letters:
            page.click(f"#card-{letter}")
        page.click("#submit")
        done(page, number + 4)
    orders.append(shown(page))
    page.click("[data-letter=D]")
    page.click("[data-do=tie]")
    page.click("[data-letter=A]")
    page.click("[data-letter=C]")
    page.click("[data-do=back]")
    page.click("[data-letter=B]")
    assert page.inner_text("#p-ranking") == "D = A > B > (C)"
    page.click("#submit")
    done(page, 6)
    page.wait_for_selector("#p-empty:visible")
    page.close()
    server.stop()

    found = votes(project)
    assert [vote["shown"] for vote in found] == orders
    assert [vote["annotator_name"] for vote in found] == ["anna"] * 6
    a, b = orders[0]
    assert (found[0]["ranking"], found[0]["strength"]) == ([[a], [b]], 3)
    a, b = orders[1]
    assert (found[1]["ranking"], found[1]["strength"]) == ([[b], [a]], 2)
    assert (found[2]["verdict"], found[2]["strength"]) == ("tie", 0)
    a, b, c, d = orders[3]
    assert found[3]["ranking"] == [[c], [a], [d], [b]]
    a, b, c, d = orders[4]
    assert found[4]["ranking"] == [[b], [d], [a], [c]]
    a, b, c, d = orders[5]
    assert [sorted(tier) for tier in found[5]["ranking"]] == [sorted([d, a]), [b], [c]]
    assert all(0 < vote["seconds_active"] <= vote["seconds_visible"] < 600 for vote in found)


def test_an_acknowledged_vote_survives_kill_9(
    browser: Browser, project: Project, serve: Callable[..., Server]
) -> None:
    with project.store() as store:
        fill(store, n=3)
    server = serve(project.folder)
    page = visit(browser, server)
    for number in range(2):
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        done(page, number + 1)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    page.close()
    assert len(votes(project)) == 2


def test_keys_undo_skip_and_reload(browser: Browser, project: Project, serve: Callable[..., Server]) -> None:
    with project.store() as store:
        fill(store, n=3)
    page = visit(browser, serve(project.folder))
    before = shown(page)
    page.keyboard.press("3")
    page.keyboard.press("r")
    page.keyboard.type("sux1 better?")  # letters of shortcuts, in a text field
    page.reload()
    page.wait_for_function("document.getElementById('p-project')?.textContent")
    page.wait_for_selector("[data-choice='3'][aria-pressed=true]")  # the draft came back
    assert (shown(page), page.input_value("#p-why")) == (before, "sux1 better?")
    page.keyboard.press("Enter")
    done(page, 1)
    page.keyboard.press("Control+x")
    page.keyboard.press("Enter")  # nothing chosen: nothing sent
    assert "choose first" in page.inner_text("#p-status")
    page.keyboard.press("u")
    page.wait_for_selector("[data-choice='3'][aria-pressed=true]")
    assert shown(page) == before
    page.keyboard.press("x")
    page.keyboard.press("Enter")
    done(page, 1)
    page.keyboard.press("?")
    page.wait_for_selector("#p-help:visible")
    page.keyboard.press("1")  # the help is open: no choice behind it
    page.keyboard.press("Escape")
    assert page.locator("[data-choice][aria-pressed=true]").count() == 0
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    done(page, 2)
    page.locator("[data-choice='7']").focus()
    page.keyboard.press("Enter")  # reached with Tab: Enter presses the button, it does not submit
    assert page.locator("[data-choice='7'][aria-pressed=true]").count() == 1
    url = page.url
    page.close()
    assert url.startswith("http://localhost")


def test_votes_after_undo(browser: Browser, project: Project, serve: Callable[..., Server]) -> None:
    with project.store() as store:
        fill(store, n=2)
    server = serve(project.folder)
    page = visit(browser, server)
    for keys, number in (("2", 1), ("5", 2)):
        page.keyboard.press(keys)
        page.keyboard.press("Enter")
        done(page, number)
    page.keyboard.press("u")
    page.wait_for_selector("[data-choice='5'][aria-pressed=true]")
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    done(page, 2)
    page.close()
    server.stop()
    assert [vote["strength"] for vote in votes(project)] == [2, 3]
    with project.store() as store:
        assert store.value("SELECT count(*) FROM vote") == 3


PAYLOADS = (
    "<img src=x onerror=\"window.hit='img'\">",
    "${window.hit='template'} {{constructor}} `${window.hit=1}`",
    "<script>window.hit='script'</script><svg onload=\"window.hit='svg'\">",
    "[link](javascript:window.hit='link') ![pixel](https://example.org/pixel.png)",
)


def test_hostile_text_is_text(browser: Browser, tmp_path: Path, serve: Callable[..., Server]) -> None:
    project = Project.create(tmp_path / "hostile", name=PAYLOADS[0])
    turns = [{"role": "user", "content": PAYLOADS[2]}, {"role": "assistant", "content": PAYLOADS[0]}]
    prompt = Prompt((*turns, {"role": "user", "content": "${window.hit='prompt'} <b>bold</b>"}))
    group = [Completion(prompt.id, text) for text in PAYLOADS]
    with project.store() as store:
        store.add_prompts([prompt])
        store.add_completions(group)
        store.add_comparisons([Comparison(prompt.id, tuple(c.id for c in group))])
    page = visit(browser, serve(project.folder), name="<img src=x onerror=window.hit='name'>")
    elsewhere: list[str] = []
    page.on(
        "request", lambda request: elsewhere.append(request.url) if "localhost" not in request.url else None
    )
    page.click("#history")
    for selector in ("#history", "#prompt", "#cards"):
        assert page.locator(f"{selector} :is(.prose, .md) :is(img, script, svg, b)").count() == 0
    text = page.inner_text("#cards")
    assert "<img src=x onerror=\"window.hit='img'\">" in text
    assert "${window.hit='template'} {{constructor}}" in text
    assert "![pixel](" in text or "pixel.png" in text
    assert page.locator("#cards a[href^=javascript]").count() == 0
    assert page.inner_text("#p-project") == PAYLOADS[0]
    page.keyboard.type("abc")
    page.keyboard.press("Enter")
    done(page, 1)
    page.goto(page.url + "statistics")
    page.wait_for_selector("#statistics h1")
    assert page.evaluate("window.hit") is None
    assert elsewhere == []
    page.close()


def test_nothing_the_browser_gets_names_a_model(
    browser: Browser, project: Project, serve: Callable[..., Server]
) -> None:
    with project.store() as store:
        fill(store, n=3, k=3)
        hidden = [*MODELS, *(row["id"] for row in store.rows("SELECT id FROM completion"))]
    server = serve(project.folder)
    page = browser.new_context().new_page()
    page.set_default_timeout(PATIENCE)
    got: list[str] = []

    def keep(response: Response) -> None:
        if "text/event-stream" not in response.headers.get("content-type", "") and response.status == 200:
            got.append(response.text())

    page.on("response", keep)
    page.goto(server.url)
    page.fill("#name", "anna")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('p-project')?.textContent")
    for number in range(2):
        page.keyboard.type("bca")
        page.keyboard.press("Enter")
        done(page, number + 1)
    got += [page.content(), page.request.get(f"{server.url}config").text()]
    page.remove_listener("response", keep)
    page.close()
    assert any("idea" in text for text in got)
    assert not [word for word in hidden for text in got if word in text]


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1440, 900, "light"), (1440, 900, "dark"), (375, 740, "dark")]
)
def test_everything_fits(
    browser: Browser, project: Project, serve: Callable[..., Server], width: int, height: int, scheme: str
) -> None:
    long = ("word " * 400, "x" * 3000, "short", "`code` " * 60)
    with project.store() as store:
        fill(store, n=1, k=2, texts=long)
        fill(store, n=1, k=9, texts=long)
        store.write("UPDATE comparison SET priority = -len(completion_ids)")
    page = visit(
        browser, serve(project.folder), viewport={"width": width, "height": height}, color_scheme=scheme
    )
    for number in range(2):
        assert not overflows(page)
        assert page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")
        for selector in ("#submit", "#undo", "[data-do=skip]", "#card-A"):
            box = page.locator(selector).bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
            assert box["y"] >= 0 and (selector == "#card-A" or box["y"] + box["height"] <= height)
        if not number:
            page.keyboard.press("x")
            page.keyboard.press("Enter")
            done(page, 1)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) < 200) == (scheme == "dark")
    page.goto(page.url + "statistics")
    page.wait_for_selector("#statistics h1")
    assert not overflows(page)
    page.close()


def test_ctrl_c_with_an_open_page(browser: Browser, project: Project, serve: Callable[..., Server]) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder)
    page = visit(browser, server)
    assert server.stop() < 6  # under 2 s on a free core; the bound is for a crowded machine
    assert server.process.returncode == 0
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('p-status').textContent.startsWith('not saved')")
    page.close()
    with project.store() as store:  # closed properly: the file opens, and the item is still anna's
        assert voting.next_item(store, voting.annotator(store, "anna").id, random.Random()) is not None
        assert isinstance(store, Store)
