"""Review in a real Chromium: every screen with no votes, with one, and with 100,000; by keyboard, in the dark, on a
phone, and without scripts."""

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from palate.data.store import Store
from palate.labeling import review
from palate.labeling.people import People
from palate.labeling.statistics import report
from palate.labeling.statistics.panels import Panel
from palate.labeling.statistics.report import MODULES
from palate.project import Project
from tests.labeling.conftest import Server, login
from tests.labeling.crowd_votes import crowd
from tests.labeling.data_app import serving
from tests.labeling.pages import DESKTOP, PATIENCE, PHONE, leave
from tests.labeling.review_app import review_app
from tests.labeling.sample_panels import STAND_IN, STRENGTH, WHOLE
from tests.labeling.test_accessibility import check
from tests.labeling.voted import ask, vote

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]
SCREENS = ("review", *(f"review/{id}" for id in MODULES), "review/data?rows=votes", "review/adjudicate")
MANY = 100_000
AT_MOST = 60_000  # ms until everything on a screen is there; the machine may be crowded


def come(browser: Browser, server: Server, path: str = "review", **settings: Any) -> tuple[Page, list[str]]:
    """A lead's page, and what its console complains about."""
    context = browser.new_context(**{**DESKTOP, **settings})
    context.add_cookies(login(server, "lena", "lead").storage["cookies"])
    context.set_default_timeout(PATIENCE)
    page, complaints = context.new_page(), list[str]()
    page.on(
        "console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url + path)
    return page, complaints


def complete(page: Page) -> None:
    """Wait until nothing on the page is still being computed."""
    page.wait_for_selector("[data-late]", state="detached", timeout=AT_MOST)
    assert page.locator(".failed").count() == 0, page.locator(".failed").all_inner_texts()


def fits(page: Page, where: str) -> None:
    wide = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide[0] <= wide[1], f"{where} is {wide[0]} px wide on a screen of {wide[1]}"


def fill(store: Store, votes: int) -> None:
    if votes == 1:
        vote(store, ask(store, "a lighthouse"), "anna", "0>1", rationale="short", seconds_active=9.0)
    elif votes:
        crowd(store, votes)


LIGHT, DARK = {**DESKTOP, "color_scheme": "light"}, {**PHONE, "color_scheme": "dark"}


@pytest.mark.parametrize(("votes", "looks"), [(0, [LIGHT]), (1, [DARK]), (MANY, [LIGHT, DARK])])
def test_every_screen(
    browser: Browser, project: Project, serve: Serve, votes: int, looks: list[dict[str, Any]]
) -> None:
    with project.store() as store:
        assert isinstance(store, Store)
        fill(store, votes)
    server = serve(project.folder)
    for look in looks:
        page, complaints = come(browser, server, **look)
        for path in SCREENS:
            page.goto(server.url + path)
            page.wait_for_selector("h1")
            complete(page)
            where = f"{path}, {votes} votes, {look['color_scheme']}"
            fits(page, where)
            check(page, where)
            assert "NaN" not in page.inner_text("main")
        assert not complaints
        leave(page)


@pytest.fixture
def server(project: Project, serve: Serve) -> Server:
    """With 400 votes of people."""
    with project.store() as store:
        assert isinstance(store, Store)
        crowd(store, 400, people=8)
    return serve(project.folder)


def test_the_bar_says_which_votes_count(browser: Browser, server: Server) -> None:
    page, complaints = come(browser, server, "review/progress")
    complete(page)
    assert "400 votes" in page.inner_text("main")
    while not page.locator("#f-source option", has_text="source 1").count():
        page.reload()  # a page that stands before the sources are known leaves them out
        complete(page)
    page.select_option("#f-source", "source 1")
    page.fill("#f-since", "2026-03-02")
    page.click("text=Show")
    page.wait_for_url(re.compile(r"source=source\+1.*since=2026-03-02"))
    complete(page)
    assert "400 votes" not in page.inner_text("main")
    page.click(".sections >> text=Models")
    page.wait_for_url(re.compile(r"review/models\?source=source\+1&since=2026-03-02"))
    page.get_by_role("link", name="All", exact=True).click()
    page.wait_for_url(re.compile(r"review/models$"))
    assert not complaints
    leave(page)


def test_tables_are_sorted_in_place_and_reached_by_keyboard(browser: Browser, server: Server) -> None:
    page, complaints = come(browser, server, "review/models")
    complete(page)
    table = page.locator("table[data-complete]", has_text="model 7").first
    names = lambda: table.locator("td.key").all_inner_texts()
    address, before = page.url, names()
    head = table.locator("th a").filter(has_text=re.compile("^model")).first
    head.click()
    assert names() == sorted(before) and table.locator("[aria-sort=ascending]").count() == 1
    head.press("Enter")
    assert names() == sorted(before, reverse=True) and page.url == address
    votes = table.locator("th.n a").last
    votes.click()
    at = votes.evaluate("a => a.closest('th').cellIndex")
    shown = table.locator(f"tbody td:nth-child({at + 1})").evaluate_all(
        "all => all.map(one => Number(one.dataset.v))"
    )
    assert shown == sorted(shown, reverse=True)
    region = table.locator("xpath=..")
    assert region.get_attribute("tabindex") == "0" and region.get_attribute("aria-label")
    region.focus()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert region.evaluate(
        "one => one === document.activeElement && getComputedStyle(one).outlineStyle !== 'none'"
    )
    with page.expect_download() as download:
        page.locator("text=CSV").first.click()
    assert download.value.suggested_filename.startswith("models-")
    assert not complaints
    leave(page)


def test_plots_follow_the_page_into_the_dark(browser: Browser, server: Server) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page, _ = come(browser, server, "review/models", color_scheme=scheme)
        complete(page)
        text = page.locator(".plot svg text").first
        colours.append(text.evaluate("one => getComputedStyle(one).fill"))
        assert page.locator(".plot svg[role=img][aria-label]").count() == page.locator(".plot svg").count()
        leave(page)
    assert colours[0] != colours[1]


def test_without_scripts_everything_is_there(browser: Browser, server: Server) -> None:
    page, _ = come(browser, server, "review/annotators", java_script_enabled=False)
    for _ in range(60):
        if not page.locator("text=Look again").count():
            break
        page.wait_for_timeout(500)
        page.click("text=Look again")
    assert "Whom should I talk to?" in page.inner_text("main")
    page.locator("th a").first.click()
    page.wait_for_selector("[aria-sort]")
    leave(page)


def test_what_takes_longer_follows_by_itself(
    browser: Browser, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()

    def whole(*_: Any) -> Panel:
        assert go.wait(60)
        return WHOLE

    def broken(*_: Any) -> Panel:
        raise ZeroDivisionError

    panels = [STRENGTH, STAND_IN, replace(STAND_IN, id="broken", question="What breaks?")]
    made = SimpleNamespace(panels=lambda *_: panels, LATE={"bootstrap": whole, "broken": broken})
    monkeypatch.setattr(report, "_module", lambda _: made)
    monkeypatch.setattr(review, "LONG", 0.2)
    with project.store() as store:
        assert isinstance(store, Store)
        app = review_app(store, project)
        people: People = app.state.people
        person = people.create("lena", "lead")
        secret = people.open_session(person.id)
        with serving(app) as address:
            cookie = {"name": people.cookie, "value": secret, "url": address}
            page = browser.new_context(**DESKTOP, reduced_motion="reduce").new_page()
            page.context.add_cookies([cookie])
            page.goto(f"{address}/review/models")
            late = page.locator("#models-bootstrap .late")
            late.filter(has_text="Computing").wait_for()
            assert late.get_attribute("role") == "status"
            page.locator("th a").first.focus()
            assert "97.2" not in page.inner_text("main")
            check(page, "while it computes")
            go.set()
            page.wait_for_selector("#models-bootstrap >> text=97.2 % of 1,000 resamples")
            assert page.locator("#said").inner_text() == f"There: {WHOLE.question}"
            page.wait_for_selector("#models-broken .failed")
            assert page.inner_text("#models-broken .failed").startswith(
                "Not computed: the figures can't be computed"
            )
            assert "alert(1)" in page.inner_text("main") and page.locator("main img").count() == 0
            page.context.close()
            page = browser.new_context(**DESKTOP, java_script_enabled=False).new_page()
            page.context.add_cookies([cookie])
            page.goto(f"{address}/review/models")
            page.click("#models-bootstrap .late a")
            page.wait_for_selector("#models-bootstrap >> text=97.2 % of 1,000 resamples")
            page.context.close()


def test_adjudication_by_keys(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        assert isinstance(store, Store)
        for texts in (("one", "two"), ("one", "two", "three")):
            item = ask(store, f"idea of {len(texts)}", texts)
            vote(store, item, "anna", ">".join(str(i) for i in range(len(texts))), rationale="a reason")
            vote(store, item, "bert", ">".join(str(i) for i in reversed(range(len(texts)))))
    page, complaints = come(browser, serve(project.folder), "review/data?disagreement=0.3")
    complete(page)
    page.click("text=Adjudicate what people differ on")
    for _ in range(2):
        page.wait_for_selector("form.decide")
        if page.locator(".scale").count():
            page.keyboard.press("2")
            assert page.locator("[name=choice][value='2']").is_checked()
        else:
            for key in ("c", "b", "Backspace", "a", "=", "b"):
                page.keyboard.press(key)
            assert page.input_value("#ranking") == "C > A = B"
        page.keyboard.press("r")
        page.keyboard.type("because")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=Look at it again")
    assert "Nothing is left to decide" in page.inner_text("main")
    page.click("text=Look at it again")
    assert "Decided by lena (you)" in page.inner_text("main") and "because" in page.inner_text("main")
    with project.store() as store:
        rows = store.rows(
            "SELECT strength, ranking FROM current_vote WHERE adjudicated ORDER BY len(completion_ids)"
        )
    assert (rows[0]["strength"], [len(tier) for tier in rows[1]["ranking"]]) == (2, [1, 2])
    assert not complaints
    leave(page)
