"""Every control of the ranking screen, by mouse and by keyboard, on a desktop and on a phone, against a real server."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from palate.data.records import Comparison, Completion, Prompt
from palate.project import Project
from tests.labeling.conftest import Server, fill
from tests.labeling.pages import (
    DESKTOP,
    PHONE,
    drag,
    form,
    leave,
    middle,
    open_items,
    press,
    saved,
    settled,
    shown,
    status,
    tap,
    visit,
    votes,
)

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]
SCREENS = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]
RATED = ("--criteria", "helpful", "honest")


def rate(page: Page, letter: str, name: str, value: int) -> None:
    """Rate an answer; where there is no room for a line of steps, they open on a button."""
    group = f"#card-{letter} [data-name={name}]"
    if page.locator(f"{group} .p-rating").is_visible():
        tap(page, f"{group} .p-rating")
    tap(page, f"{group} [data-rate='{value}']")


@pytest.mark.parametrize("screen", SCREENS)
def test_pair_by_keyboard(browser: Browser, project: Project, serve: Serve, screen: dict[str, Any]) -> None:
    open_items(project, 2, 2, 2)
    server = serve(project.folder, *RATED)
    page = visit(browser, server, **screen)
    press(page, "t 4 3 2 5")  # helpful and honest of A, then of B
    press(page, "f u 2 p f")  # the item is unsafe, B holds personal data
    press(page, "r")
    page.keyboard.type("Because 1x2 sux")
    press(page, "Escape 1 e")
    page.keyboard.type("Better: ")
    press(page, "Escape d Enter")
    saved(page, 1)
    press(page, "r")
    page.keyboard.type("no idea")
    press(page, "Escape s u r Enter")  # from inside the field; the next item has the keys
    saved(page, 2)
    press(page, "x Enter")
    saved(page, 3)
    leave(page)
    server.stop()
    first, second, third = votes(project)
    a, b = first["shown"]
    assert (first["ranking"], first["strength"]) == ([[a], [b]], 3)
    assert sorted(flag.split(":")[0] for flag in first["flags"]) == ["personal", "unsafe"]
    assert first["rationale"] == "Because 1x2 sux"
    assert first["edited_text"] == f"Better: {a}"
    assert (second["verdict"], second["reason"], second["rationale"]) == ("skip", "unclear", "no idea")
    assert (third["verdict"], third["rationale"]) == ("all_bad", None)
    with project.store() as store:
        assert store.value("SELECT count(*) FROM completion WHERE role = 'edit'") == 1
        ratings = store.value("SELECT criteria FROM current_vote WHERE edited_text IS NOT NULL")
    assert all(f'"{name}"' in str(ratings).replace("'", '"') for name in ("helpful", "honest"))


@pytest.mark.parametrize("screen", SCREENS)
def test_pair_by_mouse(browser: Browser, project: Project, serve: Serve, screen: dict[str, Any]) -> None:
    open_items(project, 2, 2, 2)
    page = visit(browser, serve(project.folder, *RATED), **screen)
    phone = screen is PHONE
    rate(page, "A", "helpful", 4)
    if phone:
        tap(page, "[data-tab=B]")
    rate(page, "B", "honest", 2)
    tap(page, "#tabs [data-tool=flags]" if phone else "#card-B [data-tool=flags]", "[data-flag=broken]")
    tap(page, "[data-scope='']", "[data-flag=language]", "#question")
    assert page.locator("#p-flags").is_hidden()
    tap(page, "#tabs [data-tool=edit]" if phone else "#card-B [data-tool=edit]")
    page.locator("#card-B textarea").fill("a better one")
    tap(page, "#card-B [data-tool=done]", "[data-choice='5']")
    page.locator("#p-why").fill("clear")
    b = form(page)
    assert b["criteria"] == {"helpful": {"A": 4}, "honest": {"B": 2}}
    assert b["flags"] == [{"flag": "broken", "letter": "B"}, {"flag": "language", "letter": None}]
    assert (b["edit"], b["choice"], b["why"]) == ({"letter": "B", "text": "a better one"}, 5, "clear")
    tap(page, "#submit")
    saved(page, 1)
    tap(page, "[data-do=skip]", "[data-reason=expertise]", "#submit")
    saved(page, 2)
    tap(page, "[data-do=all_bad]", "#submit")
    saved(page, 3)
    tap(page, "#undo")
    page.wait_for_selector("[data-do=all_bad][aria-pressed=true]")
    tap(page, "#undo")
    page.wait_for_selector("[data-do=skip][aria-pressed=true]")
    tap(page, "#undo")
    page.wait_for_selector("[data-choice='5'][aria-pressed=true]")
    again = form(page)
    for name in ("criteria", "flags", "edit", "choice", "why"):
        assert again[name] == b[name], name
    leave(page)


def test_ratings_without_room_for_a_line(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 4)
    page = visit(browser, serve(project.folder, *RATED, "harmless"), **PHONE)
    opened = page.locator(".p-five:visible")
    buttons = [f"#card-A [data-name={name}] .p-rating" for name in ("helpful", "honest", "harmless")]
    assert opened.count() == 0
    before = page.locator("#card-A > .p-answer").bounding_box()
    tap(page, buttons[0])
    assert opened.count() == 1 and page.locator(buttons[0]).get_attribute("aria-expanded") == "true"
    assert page.locator("#card-A > .p-answer").bounding_box() == before  # over the text, nothing moves
    tap(page, buttons[0])
    assert opened.count() == 0
    tap(page, buttons[0], buttons[1])
    assert opened.count() == 1 and page.locator(buttons[0]).get_attribute("aria-expanded") == "false"
    tap(page, "#prompt")
    assert opened.count() == 0
    tap(page, buttons[2])
    press(page, "3")  # the keyboard is with what was opened, and goes on to the next answer
    assert page.evaluate("palate.current()") == "B" and opened.count() == 1
    press(page, "5 Escape")
    assert opened.count() == 0
    tap(page, "[data-tab=A]")
    rate(page, "A", "honest", 2)
    assert opened.count() == 0
    assert form(page)["criteria"] == {"harmless": {"A": 3}, "helpful": {"B": 5}, "honest": {"A": 2}}
    assert [page.inner_text(f"{button} b") for button in buttons] == ["–", "2", "3"]
    press(page, "a b c d Enter Enter")
    saved(page, 1)
    leave(page)


@pytest.mark.parametrize("screen", SCREENS)
def test_ranking_by_keyboard_and_mouse(
    browser: Browser, project: Project, serve: Serve, screen: dict[str, Any]
) -> None:
    open_items(project, 4, 9, 4, 4)
    server = serve(project.folder)
    page = visit(browser, server, **screen)
    orders = [shown(page)]
    press(page, "c 1 = d b Backspace b Enter")  # letters and numbers alike
    saved(page, 1)
    orders.append(shown(page))
    press(page, "i d = 5 a")
    assert page.inner_text("#p-ranking").startswith("I\n>\nD\n=\nE\n>\nA")
    press(page, "Enter")
    status(page, "B, C, F, G, H not ranked")  # asked once
    press(page, "Enter")
    saved(page, 2)
    orders.append(shown(page))
    tap(page, "[data-letter=D]", "[data-do=tie]", "[data-letter=A]", "[data-letter=C]", "[data-do=back]")
    tap(page, "[data-letter=B]", "[data-letter=C]", "#submit")
    saved(page, 3)
    orders.append(shown(page))
    tap(page, "[data-letter=A]", "[data-letter=B]", "[data-letter=C]", "[data-letter=D]", "#submit")
    status(page, "This is the order as shown")
    tap(page, "#submit")
    saved(page, 4)
    leave(page)
    server.stop()
    found = votes(project)
    assert [vote["shown"] for vote in found] == orders
    a, b, c, d = orders[0]
    assert [set(tier) for tier in found[0]["ranking"]] == [{c}, {a, d}, {b}]
    nine = orders[1]
    assert [set(tier) for tier in found[1]["ranking"]] == [{nine[8]}, {nine[3], nine[4]}, {nine[0]}]
    a, b, c, d = orders[2]
    assert [set(tier) for tier in found[2]["ranking"]] == [{d, a}, {b}, {c}]
    assert found[3]["ranking"] == [[text] for text in orders[3]]
    assert all(0 < vote["seconds_active"] <= vote["seconds_visible"] < 600 for vote in found)


@pytest.mark.parametrize("screen", SCREENS)
def test_ranking_by_dragging(
    browser: Browser, project: Project, serve: Serve, screen: dict[str, Any]
) -> None:
    open_items(project, 4)
    page = visit(browser, serve(project.folder), **screen)
    drag(page, "[data-letter=B]", "#p-ranking")
    assert form(page)["tiers"] == [["B"]]
    source = "[data-letter=D]" if screen is PHONE else "#card-D .p-head b"  # a card, by its head
    drag(page, source, "[data-chip=B]", 0.05)
    assert form(page)["tiers"] == [["D"], ["B"]]
    drag(page, "[data-letter=A]", "[data-chip=B]")
    assert form(page)["tiers"] == [["D"], ["B", "A"]]
    drag(page, "[data-chip=D]", "[data-chip=A]", 0.95)
    assert form(page)["tiers"] == [["B", "A"], ["D"]]
    drag(page, "[data-chip=A]", "[data-chip=D]", 0.95)
    assert form(page)["tiers"] == [["B"], ["D"], ["A"]]
    drag(page, "[data-chip=B]", "[data-letter=C]")  # back where the letters are: out of the ranking
    assert form(page)["tiers"] == [["D"], ["A"]]
    drag(page, "[data-letter=C]", "#prompt")  # dropped elsewhere: nothing
    assert form(page)["tiers"] == [["D"], ["A"]]
    page.locator("[data-chip=A]").focus()
    press(page, "ArrowLeft")
    assert form(page)["tiers"] == [["A"], ["D"]]
    press(page, "ArrowRight =")
    assert form(page)["tiers"] == [["D", "A"]]
    press(page, "Delete")
    assert form(page)["tiers"] == [["D"]]
    leave(page)


def test_one_card(browser: Browser, project: Project, serve: Serve) -> None:
    """Reading alone, the card in front, copying, differences, earlier turns, fast mode."""
    turns = [{"role": r, "content": f"{r} says this"} for r in ("user", "assistant", "user")]
    prompt = Prompt(tuple(turns))  # type: ignore[arg-type]
    texts = ("# Title\n\n" + "same words here " * 400 + "left\n\n", "same words here " * 1500 + "right")
    group = [Completion(prompt.id, text) for text in texts]
    with project.store() as store:
        store.add_prompts([prompt])
        store.add_completions(group)
        store.add_comparisons([Comparison(prompt.id, tuple(c.id for c in group), priority=9)])
    open_items(project, 2, 4)
    server = serve(project.folder)
    page = visit(browser, server, permissions=["clipboard-read", "clipboard-write"])
    assert page.locator("#history .md").is_hidden()
    press(page, "h")
    assert "assistant says this" in page.inner_text("#history")
    long = "A" if len(shown(page)[0]) > len(shown(page)[1]) else "B"
    length = f"document.querySelector('#card-{long} .p-answer .md').textContent.length"
    assert page.evaluate(length) < 13_000
    tap(page, f"#card-{long} [data-tool=whole]")
    page.wait_for_function(f"{length} > 20000")
    press(page, "ArrowRight")
    assert page.evaluate("palate.current()") == "B"
    press(page, "PageDown")
    assert page.evaluate("document.querySelector('#card-B > .p-answer').scrollTop") > 100
    press(page, "c")
    status(page, "B copied")
    assert page.evaluate("navigator.clipboard.readText()") == shown(page)[1]
    press(page, "Space")
    assert page.locator("#card-A").is_hidden() and page.locator("#card-B").is_visible()
    press(page, "ArrowLeft")
    assert page.locator("#card-A").is_visible() and page.locator("#card-B").is_hidden()
    press(page, "Escape d")
    marked = "[...CSS.highlights.get('p-differs')].map(range => range.toString()).join(' ')"
    page.wait_for_function("CSS.highlights.get('p-differs')?.size")
    assert "Title" in page.evaluate(marked) and len(page.evaluate(marked)) < 30_000
    press(page, "d")
    assert page.evaluate("CSS.highlights.has('p-differs')") is False
    tap(page, "[data-do=fast]")
    press(page, "6")
    saved(page, 1)
    press(page, "2")
    saved(page, 2)
    press(page, "b c d a")
    saved(page, 3)
    page.wait_for_function("document.body.dataset.kind === 'none'")
    leave(page)


def test_keys_that_must_do_nothing(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 2)
    page = visit(browser, serve(project.folder))
    press(page, "Control+x Alt+2 Meta+1")
    page.evaluate(
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: '2', isComposing: true, bubbles: true}))"
    )
    page.evaluate(
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: '2', repeat: true, bubbles: true}))"
    )
    assert form(page)["choice"] is None
    press(page, "Enter")
    status(page, "Choose first")
    press(page, "s 3")  # a menu is open: 3 is a reason, not a choice
    assert (form(page)["choice"], form(page)["reason"]) == (None, "expertise")
    page.locator("[data-choice='7']").focus()
    press(page, "Enter")  # reached with Tab: Enter presses the button, it does not submit
    assert form(page)["choice"] == 7 and page.evaluate("palate.state().progress.done") == 0
    leave(page)


@pytest.mark.parametrize("height", [667, 812])
def test_swipe_and_touch_targets(browser: Browser, project: Project, serve: Serve, height: int) -> None:
    open_items(project, 2)
    page = visit(
        browser, serve(project.folder, *RATED), **{**PHONE, "viewport": {"width": 375, "height": height}}
    )
    assert page.locator("#card-A").is_visible() and page.locator("#card-B").is_hidden()
    touch = page.context.new_cdp_session(page)
    x, y = middle(page, "#card-A > .p-answer")
    for kind, at in (("touchStart", x + 100), ("touchMove", x), ("touchMove", x - 100), ("touchEnd", 0)):
        points = [] if kind == "touchEnd" else [{"x": at, "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("palate.current() === 'B'")
    assert page.locator("#card-B").is_visible() and page.locator("#card-A").is_hidden()
    small = page.evaluate(
        """[...document.querySelectorAll("button, input")].filter((e) => e.offsetParent && getComputedStyle(e).visibility !== "hidden")
        .map((e) => [e.dataset.do || e.dataset.tool || e.dataset.choice || e.dataset.rate || e.id, e.getBoundingClientRect()])
        .filter(([_, box]) => box.width < 44 || box.height < 44).map(([name, box]) => `${name} ${box.width}x${box.height}`)"""
    )
    assert small == []
    leave(page)


def test_settled_page_asks_nothing_of_gradio(browser: Browser, project: Project, serve: Serve) -> None:
    """Voting goes through /api/v1 alone."""
    with project.store() as store:
        fill(store, n=3)
    page = visit(browser, serve(project.folder))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {request.url.partition('/api/')[2]}"))
    press(page, "2 Enter")
    saved(page, 1)
    press(page, "u")
    status(page, "taken back")
    press(page, "Enter")
    status(page, "saved")
    assert asked == ["POST v1/votes", "POST v1/undo", "POST v1/votes"]
    page.reload()
    settled(page)
    leave(page)
