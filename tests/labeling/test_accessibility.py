"""Every screen against axe-core: nothing serious or critical, light and dark, on a desktop and on a phone; and a
whole vote by keyboard alone, with the focus in sight."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from palate.project import Project
from tests.labeling.conftest import Server, fill, login
from tests.labeling.pages import DESKTOP, PHONE, leave, saved, settled, visit

pytestmark = pytest.mark.slow
Serve = Callable[..., Server]
LOOKS = [
    pytest.param({**DESKTOP, "color_scheme": "light"}, id="desktop-light"),
    pytest.param({**PHONE, "color_scheme": "dark"}, id="phone-dark"),
    pytest.param({**DESKTOP, "color_scheme": "dark"}, id="desktop-dark"),
    pytest.param({**PHONE, "color_scheme": "light"}, id="phone-light"),
]
GUIDELINES = "# Look at\n\n- [what](https://serves.example) the *prompt*\n- `code`, | a |\n\n> so\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"


def check(page: Page, where: str) -> None:
    """No serious or critical violation on the screen as it is now."""
    page.wait_for_function("document.getAnimations().every(one => one.playState !== 'running')")
    found = [
        f"{where}: {one['id']}: {node['html'][:200]}"
        for one in Axe().run(page).response["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("looks", LOOKS)
def test_screens_of_annotators(
    browser: Browser, project: Project, serve: Serve, looks: dict[str, Any]
) -> None:
    with project.store() as store:
        for n, k in enumerate((2, 4, 9)):
            fill(
                store,
                n=1,
                k=k,
                texts=("**one**", "two `words`", "[three](https://a.example)", "# four\n\n> b"),
            )
            store.write("UPDATE comparison SET priority = ? WHERE len(completion_ids) = ?", [-n, k])
    server = serve(project.folder, "--criteria", "helpful")
    login(server, "anna")
    assert server.admin is not None
    server.admin.put("api/v1/guidelines", json={"text": GUIDELINES})
    page = visit(browser, server, **looks)
    page.wait_for_selector("#p-guidelines[open] .p-guidelines h3")
    check(page, "guidelines")
    page.keyboard.press("Escape")
    for number, (keys, k) in enumerate((("2", 2), ("bcad", 4), ("bcadefghi", 9)), start=1):
        page.wait_for_function(
            f"palate.letters().length === {k} && document.querySelector('#card-A .md').textContent.trim()"
        )
        check(page, f"{k} answers")
        page.keyboard.press("f")
        check(page, f"{k} answers, flags")
        page.keyboard.press("Escape")
        for key in keys:
            page.keyboard.press(key)
        check(page, f"{k} answers, ranked")
        page.keyboard.press("Enter")
        saved(page, number)
    page.wait_for_selector("#p-empty")
    check(page, "nothing to rank")
    for key, panel in (("?", "help"), ("v", "votes")):
        page.keyboard.press(key)
        page.wait_for_selector(f"#p-{panel}[open] :is(.p-vote, .p-keys)")
        check(page, panel)
        page.keyboard.press("Escape")
    page.evaluate("palate.practise()")
    page.wait_for_selector("#p-note-practice")
    check(page, "practice")
    for path in ("live", "account"):
        page.goto(server.url + path)
        check(page, path)
    page.context.clear_cookies()
    page.goto(f"{server.url}login")
    check(page, "login")
    leave(page)


@pytest.mark.parametrize("looks", LOOKS)
def test_screens_of_leads(browser: Browser, project: Project, serve: Serve, looks: dict[str, Any]) -> None:
    with project.store() as store:
        fill(store, n=1)
    server = serve(project.folder)
    login(server, "lena", "lead")
    page = visit(browser, server, "lena", **looks)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    saved(page, 1)
    page.goto(f"{server.url}guidelines")
    page.fill("#text", GUIDELINES)
    page.click("[value=preview]")
    check(page, "guidelines, preview")
    page.click("[value=save]")
    page.click("summary")
    check(page, "guidelines, history")
    page.goto(f"{server.url}people")
    check(page, "people")
    leave(page)


FOCUS = """() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return { name: element.dataset.choice || element.id, seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
           inside: box.bottom <= window.innerHeight && box.top >= 0 && box.width > 0 };
}"""


def test_a_vote_by_keyboard_alone_with_the_focus_in_sight(
    browser: Browser, project: Project, serve: Serve
) -> None:
    with project.store() as store:
        fill(store, n=1)
    page = visit(browser, serve(project.folder))

    def walk(to: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            at = page.evaluate(FOCUS)
            if at["name"] == to:
                assert at["seen"] and at["inside"], at
                return
        raise AssertionError(f"Tab does not reach {to}")

    walk("3")
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="A slightly better").get_attribute("aria-pressed") == "true"
    walk("p-why")
    page.keyboard.type("because")
    walk("submit")
    page.keyboard.press("Enter")
    saved(page, 1)
    leave(page)


def test_roles_and_names(browser: Browser, project: Project, serve: Serve) -> None:
    with project.store() as store:
        fill(store, n=1, k=4)
    page = settled(visit(browser, serve(project.folder)))
    assert page.get_by_role("region", name="Prompt").count() == 1
    assert page.get_by_role("group", name="Answer D").count() == 1
    for name in ("Submit", "Undo", "All bad", "Skip", "Flag"):
        assert page.locator("#foot").get_by_role("button", name=name).count() == 1
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys and help").count() == 1
    assert page.get_by_role("checkbox", name="Fast mode").count() == 1
    assert page.get_by_role("combobox", name="Language").count() == 1
    leave(page)
