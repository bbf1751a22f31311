"""Where the keys go: after a mouse click, a drag, a menu, a rating, a rationale; and what must not happen by accident."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser

from palate.project import Project
from tests.labeling.conftest import Server, login
from tests.labeling.pages import (
    DESKTOP,
    drag,
    form,
    leave,
    open_items,
    press,
    saved,
    settled,
    status,
    tap,
    visit,
)

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]


def test_ratings_take_digits_for_themselves(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 2)
    page = visit(browser, serve(project.folder, "--criteria", "helpful", "honest"))
    press(page, "t 4 6 7 9 0")  # a slip of the finger is no vote
    assert (form(page)["choice"], form(page)["criteria"]) == (None, {"helpful": {"A": 4}})
    press(page, "3 2 5")
    rated = {"helpful": {"A": 4, "B": 2}, "honest": {"A": 3, "B": 5}}
    assert form(page)["criteria"] == rated
    press(page, "t 4 3 2 5")  # the same once more
    assert form(page)["criteria"] == rated
    press(page, "t")
    page.keyboard.down("1")
    for _ in range(5):
        page.keyboard.down("1")  # held down: the first one counts
    page.keyboard.up("1")
    assert form(page)["criteria"] == {**rated, "helpful": {"A": 1, "B": 2}}
    press(page, "Escape 6 Enter")
    saved(page, 1)
    leave(page)


def test_a_rating_by_tab_and_enter_keeps_the_focus(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 4)
    page = visit(browser, serve(project.folder, "--criteria", "helpful", "honest", "harmless", "brief"))
    button = page.locator("#card-B [data-name=honest] .p-rating")
    assert button.is_visible()
    button.focus()
    press(page, "Enter Tab Tab Tab Enter")
    assert form(page)["criteria"] == {"honest": {"B": 2}}
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "honest, answer B: 2"
    assert page.locator(".p-five:visible").count() == 0
    leave(page)


def test_enter_submits_after_a_drag(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 3, 3)
    page = visit(browser, serve(project.folder))
    for number in (1, 2):
        for letter in "CAB":
            drag(page, f"[data-letter={letter}]", "#p-ranking", 0.9)
        assert form(page)["tiers"] == [["C"], ["A"], ["B"]]
        if number == 2:
            tap(page, "[data-chip=A]")
        press(page, "Enter")
        saved(page, number)
    leave(page)


def test_a_click_that_closes_does_nothing_else(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 4)
    page = visit(browser, serve(project.folder, "--criteria", "helpful", "honest", "harmless", "brief"))
    for opener in ("#card-A [data-name=helpful] .p-rating", "[data-do=flags]", "[data-do=skip]"):
        tap(page, opener)
        page.locator("#card-C > .p-answer").click()
        assert page.locator(".p-five:visible, .p-menu:visible").count() == 0
        assert form(page)["tiers"] == []
    page.locator("#card-C > .p-answer").click()
    assert form(page)["tiers"] == [["C"]]
    leave(page)


def test_keys_go_on_in_a_menu_after_the_mouse(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 2)
    page = visit(browser, serve(project.folder))
    press(page, "f")
    tap(page, "[data-flag=broken]")
    press(page, "2")
    tap(page, "[data-scope=A]")
    press(page, "p Enter")
    assert page.locator("#p-flags").is_hidden()
    assert form(page)["flags"] == [{"flag": "broken", "letter": None}, {"flag": "personal", "letter": "A"}]
    press(page, "1 Enter")
    saved(page, 1)
    leave(page)


def test_enter_in_the_rationale_gives_the_keys_back(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 2, 2)
    page = visit(browser, serve(project.folder))
    press(page, "r")
    page.keyboard.type("because")
    press(page, "Enter")
    status(page, "Choose first")
    press(page, "2 Enter")
    saved(page, 1)
    page.evaluate("palate.practise()")
    page.wait_for_selector("#p-note-practice")
    press(page, "2 r")
    page.keyboard.type("so")
    press(page, "Enter")
    assert page.evaluate("document.activeElement.id") != "p-why"
    leave(page)


@pytest.mark.parametrize("size", [DESKTOP, {"viewport": {"width": 900, "height": 700}}], ids=["wide", "half"])
def test_arrows_scroll_what_has_the_focus_and_the_front_is_in_sight(
    browser: Browser, project: Project, serve: Serve, size: dict[str, Any]
) -> None:
    open_items(project, 9, words=300)
    page = visit(browser, serve(project.folder, "--criteria", "helpful"), **size)
    top = "letter => document.querySelector(`#card-${letter} > .p-answer`).scrollTop"
    page.locator("#card-C > .p-answer").focus()
    press(page, "ArrowDown ArrowDown")
    assert page.evaluate(top, "C") > 50 and page.evaluate(top, "A") == 0
    page.locator("#card-B > .p-answer").click()  # a click is no wish to scroll it; it ranks
    for _ in range(6):
        press(page, "ArrowRight")
    box = page.locator("#card-H").bounding_box()
    foot = page.locator("#foot").bounding_box()
    assert page.evaluate("palate.current()") == "H" and box is not None and foot is not None
    press(page, "ArrowDown")
    assert page.evaluate(top, "H") > 0 and page.evaluate(top, "B") == 0
    assert box["y"] >= 0 and box["y"] + box["height"] <= foot["y"] + 1
    leave(page)


def test_new_guidelines_wait_for_who_is_typing(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 2, 2, 2)
    server = serve(project.folder)
    login(server, "anna")
    assert server.admin is not None
    page = visit(browser, server)
    page.clock.install()
    server.admin.put("api/v1/guidelines", json={"text": "# New"})
    page.clock.fast_forward("06:00")  # a vote is a reason to ask after five minutes
    page.route("**/api/v1/me", lambda route: (page.wait_for_timeout(300), route.continue_()))
    press(page, "2 Enter r")
    page.keyboard.type("still typing")
    saved(page, 1)
    page.wait_for_timeout(800)
    assert page.locator("#p-guidelines[open]").count() == 0
    assert form(page)["why"] == "still typing"
    page.unroute("**/api/v1/me")
    assert page.evaluate("palate.page.me.guideline_version") is None  # not seen, so no vote says it
    press(page, "Escape 2 Enter")
    page.wait_for_selector("#p-guidelines[open]")
    page.wait_for_selector("#p-guidelines .p-guidelines")
    press(page, "Escape")
    page.wait_for_function("palate.page.me.guideline_version === 1")  # a dialog says later that it was closed
    settled(page)
    leave(page)
