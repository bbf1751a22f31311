"""What the ranking page does when things go wrong: no network, no server, no session, no lease, two tabs."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Route

from palate.project import Project
from tests.labeling.conftest import Server, fill, login
from tests.labeling.pages import form, leave, open_items, press, saved, settled, shown, status, visit, votes

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]


def again(serve: Serve, project: Project, before: Server, *flags: str) -> Server:
    """The same server after a restart, on the same port."""
    return serve(project.folder, "--port", str(urlsplit(before.url).port), *flags)


def test_the_next_item_is_there_at_once(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=8)
    server = serve(project.folder)
    page = visit(browser, server)
    page.wait_for_timeout(1200)  # reading the first: none of this time belongs to the second
    held: list[Route] = []
    page.route("**/api/v1/votes", lambda route: held.append(route))
    prompts = [page.inner_text("#prompt .md")]
    took = []
    for _ in range(3):
        page.keyboard.press("2")
        took.append(
            page.evaluate(
                """async (before) => {
                const start = performance.now();
                document.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
                const text = () => document.querySelector("#prompt .md").textContent;
                while (text() === before || !text().trim()) await new Promise(requestAnimationFrame);
                return performance.now() - start;
            }""",
                prompts[-1],
            )
        )
        status(page, "saving")
        prompts.append(page.inner_text("#prompt .md"))
        while not held:  # the request is on its way to this side
            page.wait_for_timeout(5)
        held.pop().continue_()
        page.wait_for_function(
            "n => palate.state().progress.done === n && palate.page.queue.length > 1", arg=len(took)
        )
    assert len(set(prompts)) == 4
    assert min(took) < 100, took  # ms, without any answer of the server; the machine may be crowded
    leave(page)
    server.stop()
    times = [vote["seconds_visible"] for vote in votes(project)]
    assert times[0] > 1.2 and all(0 < seconds < times[0] for seconds in times[1:])


def test_drafts_outlive_reload_restart_and_login(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=3, k=4)
    server = serve(project.folder, "--criteria", "helpful")
    page = visit(browser, server)
    before = shown(page)
    press(page, "c a = t 4 5 Escape f u Escape e")
    page.keyboard.type("my better words ")
    press(page, "Escape r")
    page.keyboard.type("sux1 better?")  # letters of shortcuts, in a text field
    press(page, "Escape")
    made = form(page)
    assert made["tiers"] == [["C"], ["A"]] and made["joining"] and made["why"] == "sux1 better?"
    assert made["criteria"] == {"helpful": {"A": 4, "B": 5}} and made["edit"]["text"].startswith("my better")
    said = ("tiers", "joining", "criteria", "flags", "edit", "why")
    page.reload()
    settled(page)
    assert shown(page) == before and [form(page)[name] for name in said] == [made[name] for name in said]
    server.stop()
    restarted = again(serve, project, server, "--criteria", "helpful")
    page.reload()
    settled(page)
    assert [form(page)[name] for name in said] == [made[name] for name in said]
    page.context.clear_cookies()
    page.goto(f"{restarted.url}login")
    page.fill("[name=name]", "anna")
    page.fill("[name=password]", "four plain words here")
    page.keyboard.press("Enter")
    page.wait_for_function("window.palate?.state().item")
    assert [form(page)[name] for name in said] == [made[name] for name in said]
    assert form(page)["visible"] >= made["visible"]
    leave(page)


def test_ballots_wait_for_a_server_that_is_away(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=5)
    server = serve(project.folder)
    page = visit(browser, server)
    server.stop()
    press(page, "2 Enter")
    status(page, "kept here, will be sent (1)")
    page.wait_for_function("palate.state().item")  # the next one was there already
    press(page, "6 Enter")
    status(page, "kept here, will be sent (2)")
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.evaluate("setTimeout(() => window.location.reload())")
    page.wait_for_timeout(500)
    assert asked == ["beforeunload"]  # and the page is still there
    server = again(serve, project, server)
    saved(page, 2)
    settled(page)
    server.stop()
    press(page, "4 Enter")
    status(page, "kept here, will be sent (1)")
    context = page.context
    page.close()  # with a ballot in it
    server = again(serve, project, server)
    page = context.new_page()
    page.goto(server.url)
    settled(page)
    page.wait_for_function("palate.state().progress.done === 3")
    leave(page)
    server.stop()
    found = votes(project)
    assert [vote["strength"] for vote in found] == [2, 2, 0]
    with project.store() as store:
        assert store.value("SELECT count(*) FROM vote") == 3


def test_logged_out_meanwhile(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=2)
    server = serve(project.folder)
    page = visit(browser, server)
    cookies = page.context.cookies()
    page.context.clear_cookies()
    press(page, "2 Enter")
    status(page, "log in again; 1 kept here")
    assert (
        page.locator("#p-login").is_visible() and page.locator("#p-login").get_attribute("target") == "_blank"
    )
    page.evaluate("document.getElementById('p-note-login').marked = true")
    page.wait_for_timeout(4000)  # it looks again every 3 s, and says nothing new
    assert page.evaluate("document.getElementById('p-note-login').marked")
    page.click("#p-note-login button")
    page.wait_for_timeout(4000)
    assert page.locator("#p-note-login").count() == 0  # closed is closed
    page.context.add_cookies(cookies)  # type: ignore[arg-type]
    saved(page, 1)  # by itself
    assert page.locator("#p-login").is_hidden()
    leave(page)


def test_undo_before_the_server_has_answered(browser: Browser, project: Project, serve: Serve) -> None:
    """The first ballot arrives, its answer does not; the annotator changes their mind: one standing vote."""
    with project.store() as store:
        fill(store, n=3)
    server = serve(project.folder)
    page = visit(browser, server)

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/api/v1/votes", lose, times=1)
    press(page, "2 Enter")
    status(page, "kept here")
    page.evaluate("palate.undo()")
    page.wait_for_selector("[data-choice='2'][aria-pressed=true]")
    press(page, "7 Enter")
    saved(page, 1)
    leave(page)
    server.stop()
    (vote,) = votes(project)
    a, b = vote["shown"]
    assert (vote["ranking"], vote["strength"]) == ([[b], [a]], 3)
    with project.store() as store:
        assert store.value("SELECT count(*) FROM vote") == 2  # the second supersedes the first


def test_undo_twice_before_the_server_has_answered(browser: Browser, project: Project, serve: Serve) -> None:
    """The first ballot arrives, its answer does not; the second does not arrive; the third is what stands."""
    with project.store() as store:
        fill(store, n=3)
    server = serve(project.folder)
    page = visit(browser, server)
    answers = ["arrives", "is lost", "is lost"]  # the third is the second one's try after the reopening

    def lose(route: Route) -> None:
        if answers and answers.pop(0) == "arrives":
            route.fetch()
        route.abort()

    page.route("**/api/v1/votes", lose)
    for key, unsent in (("2", 1), ("3", 1)):
        press(page, f"{key} Enter")
        status(page, f"kept here, will be sent ({unsent})")
        page.evaluate("palate.undo()")
        page.wait_for_selector(f"[data-choice='{key}'][aria-pressed=true]")
    page.unroute("**/api/v1/votes")
    broken: list[str] = []

    def away(route: Route) -> None:  # and the way back to the first one flickers, too
        broken.append(route.request.url)
        route.abort()

    page.route("**/reopen", away, times=1)
    press(page, "7 Enter")
    saved(page, 1)
    assert len(broken) == 1
    leave(page)
    server.stop()
    (vote,) = votes(project)
    assert (vote["ranking"], vote["strength"]) == ([[text] for text in vote["shown"][::-1]], 3)
    with project.store() as store:
        assert store.value("SELECT count(*) FROM vote") == 2


def test_a_reply_without_its_body_is_no_reply(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=3)
    server = serve(project.folder)
    page = visit(browser, server)

    def cut_off(route: Route) -> None:
        route.fetch()
        route.fulfill(status=200, body='{"saved": ')

    page.route("**/api/v1/votes", cut_off, times=1)
    press(page, "2 Enter")
    saved(page, 1)
    leave(page)
    server.stop()
    assert [vote["strength"] for vote in votes(project)] == [2]
    with project.store() as store:
        assert store.value("SELECT count(*) FROM vote") == 1


def test_ratings_that_are_not_asked_for_any_more(browser: Browser, project: Project, serve: Serve) -> None:
    open_items(project, 2, 2, 2)
    server = serve(project.folder, "--criteria", "helpful", "honest")
    page = visit(browser, server)
    press(page, "t 4 3 2 5 2")  # a draft with ratings
    server.stop()
    server = again(serve, project, server, "--criteria", "honest")
    page.reload()
    settled(page)
    assert form(page)["criteria"] == {"helpful": {"A": 4, "B": 2}, "honest": {"A": 3, "B": 5}}
    press(page, "Enter")
    saved(page, 1)
    server.stop()
    again(serve, project, server)  # the page is open, and does not know
    press(page, "t 1 2 6 Enter")
    status(page, "Not stored:")
    page.wait_for_function("palate.page.me.criteria.length === 0 && palate.state().item")
    if page.locator("#p-offer").is_visible():  # where another item was there to go on with
        page.click("#p-offer")
    assert form(page)["choice"] == 6
    press(page, "Enter")
    saved(page, 2)
    leave(page)


def test_a_tab_leaves_another_ones_draft_alone(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=2)
    server = serve(project.folder)
    page = visit(browser, server)
    other = page.context.new_page()
    other.goto(server.url)
    settled(other)
    press(page, "2 r")
    page.keyboard.type("what I wrote here")
    press(page, "Escape")
    page.close()
    other.reload()  # shows the same item, untouched
    settled(other)
    assert (form(other)["choice"], form(other)["why"]) == (2, "what I wrote here")
    leave(other)


def test_refused_and_the_way_back(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=2)
    page = visit(browser, serve(project.folder))
    before = shown(page)
    page.evaluate("palate.page.ballot.flags = [{flag: 'nonsense', letter: null}]")
    press(page, "2 Enter")
    status(page, "Not stored: a flag is one of")
    page.click("#p-offer")
    assert shown(page) == before and form(page)["choice"] == 2
    page.evaluate("palate.page.ballot.flags = []")
    press(page, "Enter")
    saved(page, 1)
    leave(page)


def test_two_tabs(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=4)
    server = serve(project.folder)
    page = visit(browser, server)
    other = page.context.new_page()
    other.goto(server.url)
    settled(other)
    assert shown(page) == shown(other)
    press(page, "2 Enter")
    saved(page, 1)
    status(other, "Answered in another tab")
    settled(other)
    press(other, "2 Enter")
    saved(other, 2)
    leave(page)
    server.stop()
    assert len(votes(project)) == 2


def test_a_lease_that_ran_out(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder, "--lease-minutes", "0.02")
    page = visit(browser, server)
    press(page, "2 r")
    page.keyboard.type("slow")
    press(page, "Escape")
    with httpx.Client(base_url=server.url, cookies=login(server, "bert").cookies) as bert:
        item = None
        for _ in range(100):
            if items := bert.post("api/v1/next", json={"have": []}).json()["items"]:
                item = items[0]
                break
            time.sleep(0.1)
        assert item is not None
        ballot = {"vote_id": "bert-votes-first", "assignment": item["assignment"], "verdict": "all_bad"}
        assert bert.post("api/v1/votes", json=ballot).status_code == 200
    page.evaluate("palate.beat()")
    status(page, "Someone else has this item now; your draft is kept")
    assert form(page)["why"] == "slow"
    press(page, "Enter")
    status(page, "Not stored:")
    page.wait_for_function("document.body.dataset.kind === 'none'")
    leave(page)
    server.stop()
    assert [vote["annotator_name"] for vote in votes(project)] == ["bert"]


def test_people_on_one_computer_do_not_mix(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=2, overlap=2)
    server = serve(project.folder)
    page = visit(browser, server)
    press(page, "2 r")
    page.keyboard.type("mine")
    press(page, "Escape")
    page.context.clear_cookies()
    page.context.add_cookies(login(server, "bert").storage["cookies"])
    page.reload()
    settled(page)
    assert page.inner_text("#p-name") == "bert"
    assert (form(page)["choice"], form(page)["why"]) == (None, "")
    for cookies in (False, True):  # anna logs in in another tab; bert's page, still open, submits
        press(page, "6")
        page.context.clear_cookies()
        if cookies:
            page.context.add_cookies(login(server, "anna").storage["cookies"])
            press(page, "Enter")
        else:
            press(page, "Enter")
            status(page, "log in again")
            page.context.add_cookies(login(server, "anna").storage["cookies"])
        page.wait_for_function("window.palate?.state().me?.name === 'anna'")
        settled(page)
        assert (form(page)["choice"], form(page)["why"]) == (2, "mine")
        page.context.clear_cookies()
        page.context.add_cookies(login(server, "bert").storage["cookies"])
        page.reload()
        page.wait_for_function("window.palate?.state().me?.name === 'bert' && palate.state().progress")
        page.wait_for_function(
            "n => palate.state().progress.done === n", arg=1 + cookies
        )  # sent under his name
        if not cookies:
            settled(page)
    leave(page)
    server.stop()
    assert {vote["annotator_name"] for vote in votes(project)} == {"bert"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_until_chosen(
    browser: Browser, project: Project, serve: Serve, scheme: str
) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder)
    page = visit(browser, server, color_scheme=scheme)
    dark = "document.body.classList.contains('dark') && document.documentElement.classList.contains('dark')"
    assert page.evaluate(dark) == (scheme == "dark")
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    page.wait_for_function(f"({dark}) === {str(scheme == 'light').lower()}")
    page.click("[data-do=theme]")
    page.wait_for_function(f"({dark}) === {str(scheme == 'dark').lower()}")
    seen = "new MutationObserver(() => { if (document.body) (window.seen ||= []).push(document.documentElement.className); })"
    page.context.add_init_script(f"{seen}.observe(document, {{ childList: true, subtree: true }})")
    page.reload()
    settled(page)
    classes = page.evaluate("window.seen")
    assert {"dark" in name for name in classes} == {scheme == "dark"}, classes  # from the first moment on
    leave(page)
