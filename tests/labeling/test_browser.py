"""The ranking screen in a real browser against a real server: durability, blindness, hostile text, room on the screen."""

import random
import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Response

from palate.data.records import Comparison, Completion, Prompt
from palate.labeling.desk import Desk, annotator
from palate.project import Project
from tests.labeling.conftest import MODELS, Server, fill
from tests.labeling.pages import DESKTOP, PHONE, leave, press, saved, settled, status, visit, votes

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]


def test_an_acknowledged_vote_survives_kill_9(browser: Browser, project: Project, launch: Serve) -> None:
    with project.store() as store:
        fill(store, n=3)
    server = launch(project.folder)
    page = visit(browser, server)
    for number in range(2):
        press(page, "2 Enter")
        saved(page, number + 1)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    leave(page)
    assert len(votes(project)) == 2


def test_votes_after_undo(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=2)
    server = serve(project.folder)
    page = visit(browser, server)
    for key, number in (("2", 1), ("5", 2)):
        press(page, f"{key} Enter")
        saved(page, number)
    press(page, "u")
    page.wait_for_selector("[data-choice='5'][aria-pressed=true]")
    press(page, "7 Enter")
    saved(page, 2)
    press(page, "u u")
    page.wait_for_selector("[data-choice='2'][aria-pressed=true]")
    leave(page)
    server.stop()
    assert [vote["strength"] for vote in votes(project)] == [2, 3]
    with project.store() as store:
        assert store.value("SELECT count(*) FROM vote") == 3


PAYLOADS = (
    "<img src=x onerror=\"window.hit='img'\">",
    "${window.hit='template'} {{constructor}} `${window.hit=1}`",
    "<script>window.hit='script'</script><svg onload=\"window.hit='svg'\">",
    "[link](javascript:window.hit='link') ![pixel](https://example.org/pixel.png)",
    "$\\href{javascript:window.hit='tex'}{x}$ $$\\includegraphics{https://example.org/p.png}$$ ```$<img src=x onerror=window.hit=2>$```",
)


def test_hostile_text_is_text(
    browser: Browser, project: Project, tmp_path_factory: pytest.TempPathFactory, serve: Serve
) -> None:
    project = Project.create(tmp_path_factory.mktemp("hostile") / "p", name=PAYLOADS[0])
    turns = [{"role": "user", "content": PAYLOADS[2]}, {"role": "assistant", "content": PAYLOADS[0]}]
    prompt = Prompt((*turns, {"role": "user", "content": "${window.hit='prompt'} <b>bold</b>"}))  # type: ignore[arg-type]
    group = [Completion(prompt.id, text) for text in PAYLOADS]
    with project.store() as store:
        store.add_prompts([prompt])
        store.add_completions(group)
        store.add_comparisons([Comparison(prompt.id, tuple(c.id for c in group))])
    page = visit(browser, serve(project.folder), name="<img src=x onerror=window.hit='name'>")
    elsewhere: list[str] = []
    page.on("request", lambda sent: elsewhere.append(sent.url) if "localhost" not in sent.url else None)
    page.click("#history")
    page.wait_for_selector("#cards .katex")
    for selector in ("#history", "#prompt", "#cards"):
        assert page.locator(f"{selector} .md :is(img, script, b, [onload], [onerror])").count() == 0
    text = page.inner_text("#cards")
    for written in (PAYLOADS[0], "${window.hit='template'} {{constructor}}", PAYLOADS[2], "![pixel]("):
        assert written in text
    assert page.locator("#cards a[href^=javascript]").count() == 0
    assert page.inner_text("#p-project") == PAYLOADS[0]
    page.keyboard.press("Shift+D")
    page.keyboard.type("abced")
    page.keyboard.press("Enter")
    saved(page, 1)
    assert page.evaluate("window.hit") is None
    assert elsewhere == []
    leave(page)


def test_nothing_the_browser_gets_names_a_model(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=3, k=3)
        hidden = [*MODELS, *(row["id"] for row in store.rows("SELECT id FROM completion"))]
    server = serve(project.folder)
    page = visit(browser, server)
    got: list[str] = []

    def keep(response: Response) -> None:
        if "text/event-stream" not in response.headers.get("content-type", "") and response.status == 200:
            got.append(response.text())

    page.on("response", keep)
    page.reload()
    settled(page)
    for number in range(2):
        page.keyboard.type("bca")
        page.keyboard.press("Enter")
        saved(page, number + 1)
    got += [page.content(), page.request.get(f"{server.url}config").text()]
    page.remove_listener("response", keep)
    leave(page)
    assert any("idea" in text for text in got)
    assert not [word for word in hidden for text in got if word in text]


LONG = ("word " * 4000, "x" * 3000, "short", "`code` " * 60, "# a\n" * 99, "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 80,
        "شيء " * 500, "$x^2$ " * 200, "- item\n" * 300)  # fmt: skip
INSIDE = ("#submit", "#undo", "#p-why", "[data-do=skip]", "[data-do=flags]", "[data-do=all_bad]", ".p-rate:visible >> nth=0",
          "[data-tool=edit]:visible >> nth=0", "[data-tool=flags]:visible >> nth=0", "[data-tool=differences]:visible >> nth=0")  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height", "scheme", "language"),
    [
        (1440, 900, "light", "en"),
        (1440, 900, "dark", "de"),
        (900, 700, "light", "de"),
        (375, 667, "dark", "de"),
        (375, 812, "light", "en"),
    ],
)
def test_everything_fits(
    browser: Browser, project: Project, serve: Serve, width: int, height: int, scheme: str, language: str
) -> None:
    with project.store() as store:
        for n, k in enumerate((2, 4, 9)):
            prompt = Prompt(({"role": "user", "content": f"{n} " + "a long question " * 300},))
            group = [Completion(prompt.id, text) for text in LONG[:k]]
            store.add_prompts([prompt])
            store.add_completions(group)
            store.add_comparisons([Comparison(prompt.id, tuple(c.id for c in group), priority=-n)])
    settings = DESKTOP if width > 400 else PHONE
    size = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    server = serve(project.folder, "--criteria", "helpful", "honest", "harmless", "--language", language)
    page = visit(browser, server, **{**settings, **size})
    for number in range(3):
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")
        controls = (
            *INSIDE,
            *(("[data-choice='1']", "[data-choice='7']") if not number else ("#p-ranking", "[data-do=back]")),
        )
        letters = (
            [] if not number else [f"[data-letter={letter}]" for letter in page.evaluate("palate.letters()")]
        )
        for selector in (*controls, *letters):
            box = page.locator(selector).bounding_box()
            assert box is not None, selector
            assert box["x"] >= 0 and box["x"] + min(box["width"], 300) <= width, selector
            assert box["y"] >= 0 and box["y"] + box["height"] <= height, selector
        everywhere = page.locator(".p-rate:visible, [data-tab]:visible").all()
        assert len(everywhere) >= 3  # every criterion, and on a phone every answer's letter
        for control in everywhere if width != 900 else ():  # there the cards of many answers scroll
            box = control.bounding_box()
            assert box is not None and box["width"] >= 20 and box["height"] >= 26
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            assert box["y"] >= 0 and box["y"] + box["height"] <= height
        for letter in page.evaluate("palate.letters()"):
            page.evaluate("letter => palate.cards.bring(letter)", letter)
            text = page.locator(f"#card-{letter} > .p-answer").bounding_box()
            assert text is not None and text["height"] > 70, letter
        page.evaluate("palate.cards.bring('A')")
        before = page.locator("#submit").bounding_box()
        press(page, "x Enter")
        page.wait_for_function("n => palate.state().progress.done === n", arg=number + 1)
        if number < 2:
            settled(page)
            assert page.locator("#submit").bounding_box() == before  # nothing moves under the hand
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) < 200) == (scheme == "dark")
    leave(page)


def test_ctrl_c_with_an_open_page(browser: Browser, project: Project, launch: Serve) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = launch(project.folder)
    page = visit(browser, server)
    assert server.stop() < 6  # under 2 s on a free core; the bound is for a crowded machine
    assert server.process.returncode == 0
    press(page, "2 Enter")
    status(page, "kept here, will be sent (1)")
    leave(page)
    with (
        project.store() as store,
        Desk(store) as desk,
    ):  # closed properly: the file opens, and the item is still anna's
        assert desk.next_items(annotator(store, "anna").id, random.Random(0))
