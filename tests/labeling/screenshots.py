"""Takes the pictures of docs/screens.md: every screen of `palate label`, light and dark, from real servers. Not a test.

make screenshots                                              # all of them, into docs/screenshots
.venv/bin/python -m tests.labeling.screenshots rank- /tmp/x   # those whose name begins so, into another folder
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import yaml
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from palate.config import SimulateConfig
from palate.data.records import Comparison, Completion, Message, Prompt
from palate.data.store import Store
from palate.labeling.simulate import run as simulate
from palate.project import Project
from tests.labeling.conftest import CHROMIUM, ROOT, Server, end, login, start
from tests.labeling.endpoint_server import EndpointServer
from tests.labeling.pages import DESKTOP, PHONE, saved, settled
from tests.labeling.voted import ask, vote

TALL = {**PHONE, "viewport": {"width": 375, "height": 812}}
HIGH = {"viewport": {"width": 1440, "height": 1600}}
CRITERIA = ("helpful", "honest", "harmless")
TEXTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
TALK: list[Message] = TEXTS["talk"]
PAIR, EDITED, LIGHTHOUSES, HARBOUR = (tuple(TEXTS[n]) for n in ("pair", "edited", "lighthouses", "harbour"))
REASONS: list[str] = TEXTS["reasons"]
GUIDELINES: str = TEXTS["guidelines"]
IDEA: Message = {"role": "user", "content": "a lighthouse at the edge of town, in any style you like"}


def add(project: Project, texts: tuple[str, ...], *messages: Message, priority: float = 0) -> None:
    """One comparison of these answers."""
    prompt = Prompt(messages or (IDEA,))
    group = [Completion(prompt.id, text, model=f"model-{i % 2}") for i, text in enumerate(texts)]
    with project.store() as store:
        store.add_prompts([prompt])
        store.add_completions(group)
        store.add_comparisons([Comparison(prompt.id, tuple(c.id for c in group), priority=priority)])


def ideas(project: Project, number: int) -> None:
    """Comparisons that wait."""
    for i in range(number):
        add(
            project,
            LIGHTHOUSES[i % 5 : i % 5 + 3],
            {"role": "user", "content": f"a lighthouse, sketch {i + 1}"},
            priority=-9,
        )


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """A running `palate label`."""
    server = start(folder, *flags)
    try:
        yield server
    finally:
        end(server)


class Album:
    """Opens screens in both colours and keeps their pictures."""

    def __init__(self, browser: Browser, folder: Path, wanted: str) -> None:
        self.browser, self.folder, self.wanted = browser, folder, wanted
        folder.mkdir(parents=True, exist_ok=True)

    def take(
        self,
        name: str,
        server: Server,
        go: Callable[[Page], None],
        who: str = "anna",
        path: str = "",
        **how: Any,
    ) -> None:
        """`go` leads from the page at `path` to what is to be seen; the picture is NAME.png and NAME-dark.png."""
        if not name.startswith(self.wanted):
            return
        for scheme in ("light", "dark"):
            context = self._context(server, who, **{**DESKTOP, "color_scheme": scheme, **how})
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.goto(server.url + path)
            if not path:
                settled(page)
            go(page)
            page.wait_for_timeout(400)  # transitions, fonts of formulas
            self._keep(page.screenshot(), f"{name}{'-dark' if scheme == 'dark' else ''}.png")
            context.close()

    def _context(self, server: Server, who: str, new: bool = False, **how: Any) -> BrowserContext:
        if not who:
            return self.browser.new_context(**how)
        state = login(server, who).storage
        return self.browser.new_context(
            **{**how, "storage_state": {**state, "origins": []} if new else state}
        )

    def _keep(self, picture: bytes, name: str) -> None:
        """A palette of 256 colours is enough for a page, and a third of the size."""
        Image.open(BytesIO(picture)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            self.folder / name, optimize=True
        )
        print(name, flush=True)


def keys(*pressed: str) -> Callable[[Page], None]:
    """Press these; what is longer than a key's name is typed."""

    def go(page: Page) -> None:
        for key in pressed:
            page.keyboard.type(key) if " " in key.strip() else page.keyboard.press(key)

    return go


def nothing(_: Page) -> None:
    """The screen as it opens."""


def ranking(album: Album, place: Path) -> None:
    """The ranking page in its states; a server of its own each, so that the item is the first one."""

    def shot(
        name: str, texts: tuple[str, ...], go: Callable[[Page], None], *talk: Message, **how: Any
    ) -> None:
        if not name.startswith(album.wanted):
            return
        project = Project.create(place / name, name="image prompts, round 2")
        add(project, texts, *talk)
        ideas(project, 12)
        with serving(project.folder, "--criteria", *CRITERIA) as server:
            album.take(name, server, go, **how)

    rated = ("t", "4", "3", "5", "5", "5", "4", "Escape")
    four = LIGHTHOUSES[:4]
    shot("rank", PAIR, keys(*rated, "6"), *TALK)
    shot("rank-phone", PAIR, keys(*rated, "6"), *TALK, **TALL)
    shot("rank-four", four, keys("c", "a", "=", "d"))
    shot("rank-four-phone", four, keys("c", "a", "=", "d", "b"), **TALL)
    shot("rank-rating-phone", four, keys("c", "t"), **TALL)
    shot("rank-nine", LIGHTHOUSES, keys("h", "b", "=", "4", "i", "f"))
    shot("rank-nine-phone", LIGHTHOUSES, keys("h", "b", "=", "4", "i"), **PHONE)
    shot("rank-differences", EDITED, keys("d", "2"))
    shot("rank-edit", EDITED, keys("2", "e", "A whole lot better. "))
    shot("rank-skip", EDITED, keys("s"))
    shot("rank-flags", EDITED, keys("f", "2", "p"))
    shot("rank-flags-phone", four, keys("f", "2", "p"), **TALL)
    shot("first-visit", PAIR, nothing, *TALK, new=True)
    shot("practice", PAIR, keys("Enter"), *TALK, new=True)
    shot("help", PAIR, keys("?"), *TALK)
    shot("help-phone", PAIR, keys("?"), *TALK, **TALL)
    shot(
        "help-german", PAIR, lambda page: (settled(page), page.keyboard.press("?"))[0], *TALK, locale="de-DE"
    )


def room(album: Album, place: Path) -> None:
    """What a team meets around the ranking: guidelines, own votes, people, log in."""
    project = Project.create(place / "room", name="image prompts, round 2")
    for i in range(40):
        add(
            project, LIGHTHOUSES[i % 4 : i % 4 + 4], {"role": "user", "content": f"idea {i + 1}"}, priority=-5
        )
    simulate(project, SimulateConfig(annotators=4, overlap=0.3))
    add(project, EDITED, {"role": "user", "content": "a lighthouse at dusk"}, priority=3)
    add(project, PAIR, *TALK, priority=2)
    add(project, LIGHTHOUSES[:4], priority=1)
    with serving(project.folder, "--criteria", *CRITERIA) as server:
        login(server, "lena", "lead")
        login(server, "olga", "admin")
        for name in ("anna", "bert", "clara"):
            login(server, name)
        admin = server.admin
        assert admin is not None
        admin.put("api/v1/guidelines", json={"text": GUIDELINES.replace("Length is no merit. ", "")})
        admin.put("api/v1/guidelines", json={"text": GUIDELINES})
        voted = login(server, "anna")
        page = album.browser.new_context(**DESKTOP, storage_state=voted.storage).new_page()
        page.goto(server.url)
        settled(page)
        page.wait_for_selector("#p-guidelines[open]")
        for number, pressed in enumerate(
            (("Escape", "2"), ("6", "r", "keeps the light"), ("b", "c", "a", "d")), 1
        ):
            keys(*pressed)(page)
            page.keyboard.press("Enter")
            saved(page, number)
        page.context.close()

        def panel(key: str, ready: str) -> Callable[[Page], None]:
            def go(page: Page) -> None:
                page.wait_for_selector("dialog[open], #p-empty")
                page.keyboard.press("Escape")
                page.keyboard.press(key)
                page.wait_for_selector(ready)

            return go

        album.take("empty", server, panel("Escape", "#p-empty"))
        album.take("guidelines", server, panel("g", "#p-guidelines[open]"))
        album.take("my-votes", server, panel("v", "#p-votes[open] .p-vote"))
        album.take("my-votes-phone", server, panel("v", "#p-votes[open] .p-vote"), **TALL)
        album.take("guidelines-edit", server, nothing, "lena", "guidelines")
        album.take("people", server, nothing, "olga", "people")
        album.take("people-phone", server, nothing, "olga", "people", **TALL)
        album.take("account", server, nothing, "anna", "account")
        album.take("login", server, nothing, "", "login")
        album.take("login-phone", server, nothing, "", "login", **TALL)


def reviewed(album: Album, place: Path) -> None:
    """Review, with the votes of six people of whom one looks at the place only, on answers of four models."""
    if not ("review".startswith(album.wanted) or album.wanted.startswith("review")):
        return
    project = Project.create(place / "review", name="image prompts, round 2")
    with project.store() as store:
        assert isinstance(store, Store)
        judged(store)

    def there(page: Page) -> None:
        page.wait_for_selector("h1")
        page.wait_for_selector("[data-late]", state="detached", timeout=60_000)

    def decide(page: Page) -> None:
        page.wait_for_selector("form.decide")
        if page.locator(".scale").count():
            page.keyboard.press("2")
        else:
            keys("b", "a", "=")(page)

    with serving(project.folder) as server:
        login(server, "lena", "lead")
        album.take("review", server, there, "lena", "review")
        album.take("review-phone", server, there, "lena", "review", **TALL)
        for section in ("progress", "agreement", "annotators", "models", "training"):
            album.take(f"review-{section}", server, there, "lena", f"review/{section}", **HIGH)
        album.take("review-models-phone", server, there, "lena", "review/models", **TALL)
        album.take("review-data", server, there, "lena", "review/data?q=lighthouse&sort=disagreement")
        album.take(
            "review-data-phone", server, there, "lena", "review/data?q=lighthouse&sort=disagreement", **TALL
        )
        album.take("review-item", server, first_item, "lena", "review/data?rationale=yes&sort=disagreement")
        album.take("review-adjudicate", server, decide, "lena", "review/adjudicate")
        album.take("review-adjudicate-phone", server, decide, "lena", "review/adjudicate", **TALL)


def first_item(page: Page) -> None:
    """Open the first item of a list."""
    page.wait_for_selector("[data-late]", state="detached")
    page.locator("td.key a").first.click()
    page.wait_for_selector(".case")


def judged(store: Store) -> None:
    """240 items of two lighthouses each, voted on by three of six people."""
    random, models = Random(1), ("lantern-1", "lantern-2", "beacon", "foghorn")
    for i in range(240):
        first, second = random.sample(range(4), 2)
        texts = [f"{LIGHTHOUSES[j]} Sketch {i + 1}." for j in random.sample((0, 1, 2, 3, 5), 2)]
        item = ask(store, f"a lighthouse, idea {i + 1}", (texts[0], texts[1]), (models[first], models[second]),
                   source=("sketches", "letters")[i % 2], tags=(("sea", "night", "town")[i % 3],), overlap=4)  # fmt: skip
        for person in random.sample(("anna", "bert", "clara", "dora", "emil", "fritz"), 3):
            better = random.random() < (0.5 if person == "fritz" else 0.5 + 0.13 * (second - first))
            said = "tie" if random.random() < 0.07 else "1>0" if better else "0>1"
            reason = random.choice(REASONS) if random.random() < 0.3 else None
            vote(store, item, person, said, day=i / 12 + random.random() / 3, rationale=reason,
                 seconds_visible=random.lognormvariate(3.6, 0.5), seconds_active=random.lognormvariate(3.3, 0.5),
                 strength=None if said == "tie" else random.randint(1, 3))  # fmt: skip


def live(album: Album, place: Path) -> None:
    """The live screen: answers arriving, all there, going on."""
    with EndpointServer() as endpoints:
        models = ("fast", "slow", "plain", "strict")
        for model, text in zip(models, HARBOUR, strict=True):
            endpoints.texts[model] = text
        project = Project.create(place / "live", name="Harbour texts")
        entries = [{"name": f"endpoint {m}", "url": endpoints.url, "model": m} for m in models]
        (project.folder / "endpoints.yaml").write_text(yaml.safe_dump(entries))

        def asked(until: str) -> Callable[[Page], None]:
            def go(page: Page) -> None:
                page.wait_for_selector("body[data-state=resting]")
                page.fill("#text", "Describe a harbour in winter, in a few sentences.")
                page.keyboard.press("Enter")
                page.wait_for_selector(f"body[data-state={until}]")
                if until == "asking":  # the page's policy allows no code of ours to wait for it
                    page.locator("#answers p").first.filter(
                        has_text=re.compile(".{40}", re.DOTALL)
                    ).wait_for()

            return go

        def on(page: Page) -> None:
            asked("ready")(page)
            page.keyboard.press("Enter")
            page.wait_for_selector("body[data-kind=many]")
            settled(page)
            keys("b", "a", "c", "d", "Enter")(page)
            page.wait_for_selector("body[data-state=resting]")

        with serving(project.folder) as server:
            album.take("live", server, asked("ready"), "anna", "live")
            album.take("live-phone", server, asked("ready"), "bert", "live", **TALL)
            album.take("live-arriving", server, asked("asking"), "clara", "live")
            album.take("live-continue", server, on, "dora", "live")


def main(wanted: str = "", folder: str = str(ROOT / "docs/screenshots")) -> None:
    """Take those whose name begins with `wanted`."""
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        album = Album(browser, Path(folder), wanted)
        for part in (ranking, room, reviewed, live):
            part(album, Path(place))
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
