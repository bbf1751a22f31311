"""What tests do with the ranking page in a real Chromium."""

import json
from typing import Any

from playwright.sync_api import Browser, Page

from palate.data.records import Comparison, Completion, Prompt
from palate.project import Project
from tests.labeling.conftest import Server, login

PATIENCE = 20_000  # ms; the machine may be crowded
DESKTOP = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}


def visit(browser: Browser, server: Server, name: str = "anna", **settings: Any) -> Page:
    """The ranking page of somebody who is logged in, with an item on it or the word that there is none.

    The welcome of a first visit is taken as seen.
    """
    context = browser.new_context(**{**DESKTOP, "storage_state": login(server, name).storage, **settings})
    context.add_init_script(
        f"try {{ localStorage.setItem('palate:met', '{json.dumps([name, 'anna', 'bert'])}') }} catch {{}}"
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(server.url)
    return settled(page)


def settled(page: Page) -> Page:
    """Wait until the page has asked for its first item and drawn it, each text by itself; "1." has none to read."""
    page.wait_for_function("window.palate?.state().progress && document.body.dataset.kind")
    page.wait_for_function(
        "palate.state().item === null"
        " || ['#prompt .md', '#card-A .p-answer .md'].every(text => document.querySelector(text).childElementCount)"
    )
    return page


def open_items(project: Project, *sizes: int, words: int = 4) -> None:
    """Items with so many answers, to be answered in this order; of about so many words each."""
    with project.store() as store:
        for n, k in enumerate(sizes):
            prompt = Prompt(({"role": "user", "content": f"idea {n} of {k}"},))
            group = [
                Completion(prompt.id, f"answer {n}-{j}" + f" word-{j}" * (words - 2), model=f"m{j}")
                for j in range(k)
            ]
            store.add_prompts([prompt])
            store.add_completions(group)
            ids = tuple(completion.id for completion in group)
            store.add_comparisons([Comparison(prompt.id, ids, priority=-n)])


def press(page: Page, keys: str) -> None:
    """Press these keys one after the other, as `Playwright` names them."""
    for key in keys.split():
        page.keyboard.press(key)


def tap(page: Page, *selectors: str) -> None:
    """Click them one after the other; on a phone, touch them."""
    for selector in selectors:
        page.locator(selector).locator("visible=true").first.click()


def middle(page: Page, selector: str, share: float = 0.5) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["x"] + box["width"] * share, box["y"] + box["height"] / 2


def drag(page: Page, source: str, target: str, share: float = 0.5) -> None:
    """Drag one element onto a place in another; with a finger where the page has touch."""
    start, end = middle(page, source), middle(page, target, share)
    if not page.evaluate("navigator.maxTouchPoints > 0"):
        page.mouse.move(*start)
        page.mouse.down()
        page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, steps=4)
        page.mouse.move(*end, steps=4)
        page.mouse.up()
        return
    touch = page.context.new_cdp_session(page)
    for kind, (x, y) in (
        ("touchStart", start),
        ("touchMove", ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)),
        ("touchMove", end),
        ("touchEnd", end),
    ):
        points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def saved(page: Page, number: int) -> None:
    """Wait until the server has acknowledged `number` answers of this person and nothing is on its way."""
    page.wait_for_function(
        "n => palate.state().unsent === 0 && palate.state().progress.done === n"
        " && document.getElementById('p-status').textContent.startsWith('saved')",
        arg=number,
    )


def form(page: Page) -> dict[str, Any]:
    """What is filled in on the page."""
    found: dict[str, Any] = page.evaluate("structuredClone(palate.page.ballot)")
    return found


def shown(page: Page) -> list[str]:
    """The answers in the order on the screen."""
    found: list[str] = page.evaluate("palate.state().item.answers.map(answer => answer.text)")
    return found


def status(page: Page, beginning: str) -> None:
    """Wait until the line in the bar begins so."""
    page.wait_for_function(
        "text => document.getElementById('p-status').textContent.startsWith(text)", arg=beginning
    )


def leave(page: Page) -> None:
    """Close the page and its storage."""
    page.context.close()


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
