"""The panels of the ranking page in Chromium: help, guidelines, own votes, practice, notes, the language switch."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from palate.project import Project
from tests.labeling.conftest import Server, fill, login
from tests.labeling.pages import DESKTOP, PATIENCE, PHONE, leave, saved, settled, visit, votes

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]
SCREENS = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]


def first_visit(browser: Browser, server: Server, name: str, **screen: Any) -> Page:
    """The ranking page in a browser in which this person has never been."""
    state = {**login(server, name).storage, "origins": []}
    page = browser.new_context(**{**DESKTOP, "storage_state": state, **screen}).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server.url)
    return settled(page)


def answer(page: Page, key: str, number: int) -> None:
    """Answer the pair on the screen; `number` votes are then stored."""
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    saved(page, number)


def choice(page: Page) -> Any:
    return page.evaluate("palate.page.ballot.choice")


def opened(page: Page) -> list[str]:
    """Ids of the panels that are open."""
    found: list[str] = page.evaluate("[...document.querySelectorAll('dialog[open]')].map(one => one.id)")
    return found


def test_help_lists_every_key_and_holds_the_keyboard(
    browser: Browser, project: Project, serve: Serve
) -> None:
    with project.store() as store:
        fill(store, n=2)
    page = visit(browser, serve(project.folder))
    button = page.locator("[data-do=help]")
    button.focus()
    page.keyboard.press("Enter")
    assert opened(page) == ["p-help"]
    told = page.inner_text("#p-help .p-keys")
    for string in page.evaluate("palate.keys.list().map(key => palate.t(key.string))"):
        assert string in told
    for key in ("1", "Enter", "x", "u", "s", "f", "r", "e", "h"):  # nothing behind reacts
        page.evaluate("document.querySelector('#p-help .p-body').focus()")
        page.keyboard.press(key)
    assert page.evaluate(
        "[palate.page.ballot.choice, palate.page.ballot.verdict, palate.state().progress.done]"
    ) == [
        None,
        None,
        0,
    ]
    for _ in range(14):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || document.activeElement.closest('dialog')?.id === 'p-help'")  # fmt: skip
    page.keyboard.press("Escape")
    assert opened(page) == []
    assert page.evaluate("document.activeElement.dataset.do") == "help"  # the focus is back
    page.keyboard.press("?")
    page.keyboard.press("v")  # from one panel to the next
    assert opened(page) == ["p-votes"]
    page.keyboard.press("v")
    page.keyboard.press("3")
    assert opened(page) == [] and choice(page) == 3
    leave(page)


@pytest.mark.parametrize("screen", SCREENS)
def test_settings_in_the_help(
    browser: Browser, project: Project, serve: Serve, screen: dict[str, Any]
) -> None:
    with project.store() as store:
        fill(store, n=2)
    page = visit(browser, serve(project.folder), **screen)
    if screen is PHONE:
        page.click("[data-do=menu]")
    page.click("[data-do=help]")
    page.get_by_label("Dark colours").check()
    page.get_by_label("Fast mode").check()
    assert page.get_by_label("Remind me of a break").is_checked()
    page.get_by_label("Remind me of a break").uncheck()
    assert page.evaluate("document.body.classList.contains('dark')")
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    page.click("#p-help .p-shut")
    page.keyboard.press("5")  # fast mode: a choice is a vote
    saved(page, 1)
    page.reload()
    settled(page)
    assert page.evaluate("palate.state().settings") == {"theme": "dark", "fast": True, "breaks": False}
    leave(page)


def test_guidelines_open_once_for_each_version(
    browser: Browser, project: Project, serve: Serve, tmp_path: Path
) -> None:
    with project.store() as store:
        fill(store, n=3)
    file = tmp_path / "guidelines.md"
    file.write_text("# Look at\n\n- what serves the prompt\n- <img src=x onerror=\"window.hit='md'\">\n")
    server = serve(project.folder, "--guidelines", str(file))
    page = visit(browser, server)
    page.wait_for_selector("#p-guidelines[open] .p-guidelines h3")
    assert "Version 1," in page.inner_text("#p-guidelines .p-soft")
    assert page.locator("#p-guidelines a").count() == 0  # annotators can't edit
    page.keyboard.press("2")  # held back
    page.keyboard.press("Escape")
    assert choice(page) is None
    answer(page, "2", 1)
    page.reload()
    settled(page)
    answer(page, "2", 2)
    assert opened(page) == []  # once is enough

    assert server.admin is not None
    server.admin.put("api/v1/guidelines", json={"text": "# Look at\n\n- what serves the reader"})
    page.reload()
    settled(page)
    page.wait_for_selector("#p-guidelines[open] .p-changes")
    assert page.locator("#p-guidelines del").all_inner_texts()[0] == "- what serves the prompt"
    assert page.locator("#p-guidelines ins").all_inner_texts() == ["- what serves the reader"]
    page.click("#p-guidelines .p-buttons button")
    answer(page, "2", 3)
    assert page.evaluate("window.hit") is None
    leave(page)
    server.stop()
    assert [vote["guideline_version"] for vote in votes(project)] == [1, 1, 2]


def test_own_votes_are_found_and_changed(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=3)
    server = serve(project.folder)
    page = visit(browser, server)
    for number, key in enumerate("162", start=1):
        page.fill("#p-why", f"reason{number} <b>")
        page.locator("#p-why").blur()
        answer(page, key, number)
    page.wait_for_selector("#p-empty")
    page.keyboard.press("v")
    page.wait_for_selector(".p-vote")
    assert page.locator(".p-vote-answer b").all_inner_texts() == ["A better", "B better", "A much better"]
    assert page.locator(".p-vote-why").all_inner_texts() == [f"reason{n} <b>" for n in (3, 2, 1)]
    assert page.inner_text("#p-votes-pace dl").split("\n")[:4] == ["3", "today", "3", "in all"]
    page.fill("#p-votes-search", "reason2 better")
    assert page.inner_text("#p-votes-line") == "1 vote"
    page.fill("#p-votes-search", "no such words")
    assert page.inner_text("#p-votes-line") == "No vote holds these words."
    page.fill("#p-votes-search", "REASON1")
    page.click(".p-vote")
    page.wait_for_selector("[data-choice='1'][aria-pressed=true]")
    assert opened(page) == [] and page.input_value("#p-why") == "reason1 <b>"
    page.keyboard.press("7")
    page.keyboard.press("Enter")
    saved(page, 3)
    leave(page)
    server.stop()
    assert {(vote["rationale"][6], vote["strength"]) for vote in votes(project)} == {
        ("1", 3),
        ("2", 2),
        ("3", 2),
    }
    with project.store() as store:
        assert store.value("SELECT count(*) FROM vote") == 4


VOTE_ALL = """async () => {
  for (;;) {
    const { items } = await palate.api("next", { have: [] });
    if (!items.length) return;
    await palate.api("votes", { vote_id: palate.newId(), assignment: items[0].assignment, verdict: "tie", ranking: [["A", "B"]] });
  }
}"""


def test_many_own_votes_come_in_pages(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=57)
    page = visit(browser, serve(project.folder))
    page.evaluate(VOTE_ALL)
    page.keyboard.press("v")
    page.wait_for_selector(".p-vote")
    assert page.locator(".p-vote").count() == 50
    assert page.inner_text("#p-votes-line") == "57 votes"
    page.click("#p-votes-more")
    assert page.locator(".p-vote").count() == 57 and page.locator("#p-votes-more").is_hidden()
    leave(page)


@pytest.mark.parametrize("screen", SCREENS)
def test_the_first_visit(browser: Browser, project: Project, serve: Serve, screen: dict[str, Any]) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder)
    page = first_visit(browser, server, "bea", **screen)
    page.wait_for_selector("#p-welcome[open]")
    assert page.inner_text("#p-welcome h2") == "Welcome, bea"
    assert page.locator(".p-welcome li").count() == 3
    page.click("#p-welcome .p-go")

    def step(number: int) -> None:
        page.wait_for_selector(f".p-note b:text('step {number} of 5')")

    step(1)
    page.wait_for_function("document.querySelector('#card-B .p-answer .md').textContent.includes('555')")
    assert page.locator("#submit").evaluate("e => e.getBoundingClientRect().bottom <= window.innerHeight")
    page.click("[data-choice='1']")
    step(2)
    page.click("[data-do=flags]")
    page.click("[data-flag=personal]")
    page.keyboard.press("Escape")
    step(3)
    page.click("#submit")
    step(4)
    page.click("#undo")
    step(5)
    assert choice(page) == 1
    page.click(".p-note .p-go")
    page.wait_for_function("palate.state().item && !palate.state().item.practice")
    assert page.locator(".p-note").count() == 0
    page.reload()
    settled(page)
    assert opened(page) == []  # once
    answer(page, "4", 1)
    leave(page)
    server.stop()
    with project.store() as store:
        assert store.value("SELECT count(*) FROM vote") == 1  # nothing of the practice


def test_practice_can_be_skipped_and_taken_again(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder)
    page = first_visit(browser, server, "bea")
    page.wait_for_selector("#p-welcome[open]")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    assert choice(page) == 2
    page.keyboard.press("?")
    page.get_by_role("button", name="Try it with a practice item").click()
    page.wait_for_selector("#p-note-practice")
    page.click("#p-note-practice button")
    page.wait_for_function("palate.state().item && !palate.state().item.practice")
    assert choice(page) == 2  # the draft is back
    leave(page)


def test_nothing_to_rank(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder)
    page = visit(browser, server)
    answer(page, "2", 1)
    page.wait_for_selector("#p-empty")
    told = page.inner_text("#p-empty")
    assert "Done for now" in told and "1 vote today, 1 in all." in told
    assert "Whoever runs this project can do that." in told
    page.keyboard.press("u")
    page.wait_for_selector("[data-choice='2'][aria-pressed=true]")
    assert page.locator("#p-empty").count() == 0
    leave(page)
    lead = visit(browser, server, "lena")
    lead.wait_for_selector("#p-empty")
    assert "Nothing to rank yet" in lead.inner_text("#p-empty")
    lead.click("#p-empty button")  # look again
    lead.wait_for_selector("#p-empty")
    leave(lead)


def test_the_server_is_away(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=2)
    server = serve(project.folder)
    page = visit(browser, server)
    server.stop(signal.SIGKILL)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.wait_for_selector("#p-note-offline")
    assert "kept in this browser" in page.inner_text("#p-note-offline")
    page.get_by_role("button", name="Close").click()
    assert page.locator(".p-note").count() == 0
    page.context.close()


def test_a_break_is_suggested_once(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder)
    context = browser.new_context(storage_state=login(server, "anna").storage)  # type: ignore[arg-type]
    page = context.new_page()
    page.clock.install()
    page.goto(server.url)
    page.wait_for_function("window.palate?.state().progress")

    def work(minutes: int) -> None:
        for _ in range(minutes):
            page.keyboard.press("Shift")
            page.clock.run_for(60_000)

    work(88)
    assert page.locator("#p-note-break").count() == 0
    work(3)
    assert "A short break helps" in page.inner_text("#p-note-break")
    page.locator("#p-note-break button").first.click()
    work(5)
    assert page.locator("#p-note-break").count() == 0
    context.close()


def test_the_language_can_be_switched(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder, "--language", "de")
    page = visit(browser, server)
    assert page.get_attribute("html", "lang") == "de"
    assert page.inner_text("#submit span") == "Abgeben"
    page.keyboard.press("2")
    page.keyboard.press("?")
    with page.expect_navigation():
        page.select_option("#p-language", "en")
    settled(page)
    assert page.get_attribute("html", "lang") == "en"
    assert page.inner_text("#submit span") == "Submit"
    assert choice(page) == 2  # the draft came along
    page.reload()
    settled(page)
    assert page.inner_text("#submit span") == "Submit"
    leave(page)


def test_review_is_reached_by_leads_only(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder)
    page = visit(browser, server, **PHONE)
    page.click("[data-do=menu]")
    assert page.get_by_role("link", name="Review").count() == 0
    leave(page)
    login(server, "lena", "lead")
    page = visit(browser, server, "lena", **PHONE)
    page.click("[data-do=menu]")
    page.get_by_role("link", name="Review").click()
    page.wait_for_selector("h1:text-is('Review')")
    leave(page)
