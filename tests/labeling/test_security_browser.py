"""Hostile texts on every screen in a real Chromium: nothing runs, nothing is fetched from elsewhere, text is shown as
text. Meanwhile neither the browser nor the server's process talks to anybody else.
"""

import json
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
import yaml
from playwright.sync_api import Browser, BrowserContext, Page

from palate.data.records import Comparison, Completion, Prompt
from palate.data.store import Store
from palate.evaluation.report import Answer, Shown, render
from palate.labeling import guidelines
from palate.labeling.people import People
from palate.project import Project
from tests.evaluation.test_report import report
from tests.labeling.conftest import ENV, Server, end, login, start
from tests.labeling.endpoint_server import EndpointServer
from tests.labeling.pages import saved, settled, visit
from tests.labeling.payloads import ELEMENTS, ELSEWHERE, HANDLERS, IMAGES, LINKS, PAYLOADS, SCRIPTS, SHORT

pytestmark = pytest.mark.slow

TURNS = 9
ACTIVE = set("`*_[]|~$\\#{}&=")  # these mean something in Markdown
# In the server's process: which names are looked up, which addresses spoken to. Python sees all of it when the
# event loop is Python's own.
GUARD = """
import os, sys
sys.modules["uvloop"] = None
def hook(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(args[1], tuple):
        said = args[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        said = args[0]
    else:
        return
    with open(os.environ["SOCKETS"], "a") as file:
        print(said, file=file)
sys.addaudithook(hook)
"""


@dataclass
class World:
    """A server full of hostile texts."""

    server: Server
    folder: Path
    sockets: Path
    models: EndpointServer
    tokens: dict[str, str] = field(default_factory=dict)


def chunks(texts: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    """Parts of at most `size`, at least two in each."""
    found = [texts[i : i + size] for i in range(0, len(texts), size)]
    return found if len(found[-1]) > 1 else [*found[:-1], (*found[-1], "one more")]


def fill(store: Store) -> dict[str, str]:
    """Every payload as a turn, an answer, a model, a source, a tag, a name, a token and in the guidelines."""
    for n, part in enumerate(chunks(PAYLOADS, TURNS)):
        roles = ("system", *("user", "assistant") * 4)[-len(part) :] if len(part) % 2 else None
        roles = roles or ("user", "assistant") * (len(part) // 2)
        turns = [{"role": role, "content": text} for role, text in zip(roles, part, strict=True)]
        turns = turns if turns[-1]["role"] == "user" else [*turns, {"role": "user", "content": f"turn {n}"}]
        prompt = Prompt(tuple(turns), source=part[0], tags=part[:3], meta={part[0]: part[1]})
        answers = [Completion(prompt.id, text, model=part[0][:100]) for text in part]
        store.add_prompts([prompt])
        store.add_completions(answers)
        store.add_comparisons(
            [Comparison(prompt.id, tuple(a.id for a in answers), strategy=part[0], overlap=9)]
        )
    guidelines.add(store, "\n\n".join(PAYLOADS), None)
    people = People(store)
    for name in dict.fromkeys(" ".join(text.split()) for text in SHORT):
        people.find(name) or people.create(name)
    lea, mark = people.create("lea", "admin"), people.create("mark")
    for name in SHORT:
        people.make_token(lea.id, name)
    return {"lea": people.make_token(lea.id, "script")[0], "mark": people.make_token(mark.id, "script")[0]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.mktemp("hostile")
    name = PAYLOADS[0] + SHORT[9] + "</title>'\"${window.__pwned=1}"
    project = Project.create(base / "project", name=name)
    with project.own_store() as store:
        tokens = fill(store)
    (base / "guard").mkdir()
    (base / "guard" / "sitecustomize.py").write_text(GUARD)
    env = {
        **ENV,
        "PYTHONPATH": f"{base / 'guard'}{os.pathsep}{ENV['PYTHONPATH']}",
        "SOCKETS": str(base / "sockets"),
    }
    with EndpointServer() as models:
        halves = len(PAYLOADS) // 2
        models.texts = {"m1": "\n\n".join(PAYLOADS[:halves]), "m2": "\n\n".join(PAYLOADS[halves:])}
        entries = [{"name": f"e{m}", "url": models.url, "model": m} for m in models.texts]
        (project.folder / "endpoints.yaml").write_text(yaml.safe_dump(entries))
        server = start(project.folder, "--criteria", SHORT[8], "${window.__pwned=1}", env=env)
        yield World(server, project.folder, base / "sockets", models, tokens)
        end(server)


class Watch:
    """All that must not happen in a browser context."""

    def __init__(self, context: BrowserContext, server: Server) -> None:
        self.home = urlsplit(server.url).netloc
        self.seen: list[str] = []
        context.on("request", self._request)
        context.on("dialog", lambda dialog: self.seen.append(f"dialog {dialog.message}"))
        context.on("console", self._console)
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', (e) => { (window.__broken ??= []).push(e.blockedURI + ' ' + e.violatedDirective); });"
        )

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != self.home:
            self.seen.append(f"request {request.url}")

    def _console(self, message: Any) -> None:
        if "Content Security Policy" in message.text or ELSEWHERE in message.text or "pwned" in message.text:
            self.seen.append(f"console {message.text}")

    def harmless(self, page: Page, shown: str = "body") -> str:
        """Nothing ran, nothing that could run is there; returns the text that is shown."""
        found = page.evaluate(LOOK, shown)
        assert found["pwned"] is None, "something ran"
        assert not found["broken"], found["broken"]
        assert not found["handlers"] and not found["links"] and not found["elements"], found
        assert not self.seen, self.seen
        return str(found["text"])


LOOK = r"""(shown) => {
  const all = [...document.querySelectorAll('*')];
  const inside = [...document.querySelectorAll(shown)].flatMap((one) => [one, ...one.querySelectorAll('*')]);
  for (const element of inside) for (const name of ['mouseover', 'focus', 'toggle', 'load', 'error', 'animationstart', 'begin'])
    element.dispatchEvent(new Event(name));
  const risky = 'script, iframe, object, embed, base, meta, link, style, form[action*=":"], frame, applet, portal, use, animate, image, foreignObject, video, audio, source, template';
  const ours = (one) => one.localName === 'use' && /^#[\w-]+$/.test(one.getAttribute('xlink:href') ?? ''); // a plot's marks, drawn once in it
  return {
    pwned: window.__pwned ?? null,
    broken: window.__broken ?? null,
    handlers: all.flatMap((one) => [...one.attributes].filter((a) => /^on/i.test(a.name)).map((a) => `${one.tagName} ${a.name}=${a.value}`)),
    links: all.flatMap((one) => ['href', 'src', 'action', 'formaction', 'xlink:href', 'srcset', 'poster', 'data'].map((name) => one.getAttribute(name)))
      .filter((url) => {
        if (!url) return false;
        let made = null;
        try { made = new URL(url, document.baseURI); } catch { return false; } // leads nowhere
        return !['http:', 'https:', 'mailto:', 'file:', 'about:'].includes(made.protocol) && !/^data:(image\/png|,$)/.test(url);
      }),
    elements: inside.filter((one) => one !== document.body && one !== document.documentElement && one.matches(risky) && !ours(one) && !['HEAD', 'BODY'].includes(one.parentElement?.tagName ?? '') )
      .map((one) => one.outerHTML.slice(0, 200)),
    text: inside.length ? [...document.querySelectorAll(shown)].map((one) => one.innerText).join('\n') : '',
  };
}"""


def squeezed(text: str) -> str:
    """Without what layout may change."""
    return re.sub(r"[\s\u2060\u200b\ufeff\u202c\u202e]", "", text)


def plain(texts: tuple[str, ...]) -> list[str]:
    """Those in which Markdown has nothing to say."""
    return [
        text for text in texts if not set(text) & ACTIVE and text.isprintable() and not text.startswith(" ")
    ]


@pytest.fixture
def anna(world: World, browser: Browser) -> Iterator[tuple[Page, Watch]]:
    """The ranking page of an annotator, watched from its first request on."""
    page = visit(browser, world.server, "anna")
    watch = Watch(page.context, world.server)
    page.reload()
    yield settled(page), watch
    page.context.close()


@pytest.mark.parametrize(
    "text", [SCRIPTS[0], HANDLERS[0], HANDLERS[7], LINKS[0], IMAGES[6], ELEMENTS[0], ELEMENTS[6]]
)
def test_the_watch_sees_what_is_not_harmless(world: World, browser: Browser, text: str) -> None:
    context = browser.new_context()
    watch, page = Watch(context, world.server), context.new_page()
    watch.seen.clear()
    page.set_content(f"<div id=shown>{text}</div>")
    with pytest.raises(AssertionError):
        watch.harmless(page, "#shown")
    context.close()


def test_ranking(anna: tuple[Page, Watch], world: World) -> None:
    page, watch = anna
    for number, part in enumerate(chunks(PAYLOADS, TURNS), start=1):
        page.keyboard.press("Escape")
        text = squeezed(watch.harmless(page, "#question, .p-answer"))
        item = page.evaluate("palate.state().item")
        answers = tuple(answer["text"] for answer in item["answers"])
        assert not [one for one in plain(answers) if squeezed(one) not in text], part
        page.evaluate("palate.drawing.start()")
        page.keyboard.press("d")  # differences are drawn by another piece of code
        watch.harmless(page, "#question, .p-answer, .p-bar, .p-criteria")
        page.keyboard.press("d")
        page.fill("#p-why", PAYLOADS[number])
        page.keyboard.press("Escape")
        page.keyboard.press("x")
        page.keyboard.press("Enter")
        saved(page, number)
    watch.harmless(page)


def test_panels(world: World, browser: Browser) -> None:
    """Own votes with hostile prompts and rationales, and the guidelines."""
    headers = {"Authorization": f"Bearer {world.tokens['mark']}"}
    with httpx.Client(base_url=world.server.url, headers=headers, timeout=60) as http:
        texts = list(PAYLOADS)
        items = http.post("api/v1/next", json={}).json()["items"]
        for n in range(len(chunks(PAYLOADS, TURNS))):
            better = {"letter": "A", "text": texts[-1 - n]}
            vote = {"vote_id": f"mark-vote-{n}", "assignment": items[0]["assignment"], "verdict": "all_bad",
                    "rationale": "\n".join(texts[n * 9 : n * 9 + 9]), "edit": better}  # fmt: skip
            sent = http.post("api/v1/votes", json=vote)
            assert sent.status_code == 200, sent.text
            items = sent.json()["items"]
    page = watched(world, browser, "mark", "")
    page[0].keyboard.press("v")
    page[0].wait_for_selector("#p-votes-list li")
    text = squeezed(page[1].harmless(page[0], "#p-panels"))
    assert not [one for one in plain(tuple(texts[:100])) if squeezed(one) not in text]
    page[0].keyboard.press("Escape")
    page[0].keyboard.press("g")
    page[0].wait_for_selector(".p-guidelines")
    text = squeezed(page[1].harmless(page[0], "#p-panels"))
    assert squeezed(PAYLOADS[0]) in text
    page[0].evaluate("id => palate.reopen(id)", "mark-vote-3")
    page[0].keyboard.press("Escape")
    settled(page[0])
    page[1].harmless(page[0])
    page[0].context.close()


def watched(world: World, browser: Browser, name: str, path: str) -> tuple[Page, Watch]:
    """A page of somebody whose account has no password: they come by a session of their own making."""
    http = world.server.admin or _admin(world.server)
    found = next(one for one in http.get("api/v1/people").json()["people"] if one["name"] == name)
    link = http.post(f"api/v1/people/{found['id']}/password-link").json()["url"]
    code = link.partition("code=")[2]
    sent = httpx.post(
        f"{world.server.url}invite",
        data={"code": code, "password": "some plain words", "again": "some plain words"},
    )
    assert sent.status_code == 303, sent.text
    cookies = [{"name": k, "value": v, "url": world.server.url} for k, v in sent.cookies.items()]
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_cookies(cookies)  # type: ignore[arg-type]
    context.add_init_script(f"localStorage.setItem('palate:met', '{json.dumps([name])}')")
    page = context.new_page()
    watch = Watch(context, world.server)
    page.goto(world.server.url + path)
    return (settled(page) if not path else page), watch


def _admin(server: Server) -> httpx.Client:
    login(server, "anna")
    assert server.admin is not None
    return server.admin


PAGES = ("people", "account", "guidelines", "review", "review/annotators", "review/models", "live", "login",
         "api/v1/docs")  # fmt: skip
DOCUMENTS = ("prompts", "completions", "comparisons", "votes", "votes/mine", "people", "tokens", "invitations", "statistics",
             "guidelines", "guidelines/history?", "me", "openapi.json", "runs", "live")  # fmt: skip


def test_pages_and_answers_opened_as_documents(world: World, browser: Browser) -> None:
    admin = world.server.admin or _admin(world.server)
    for name in SHORT[:20]:
        admin.post("api/v1/invitations", json={"name": f"{name[:58]}.", "days": 1})
    page, watch = watched(world, browser, "lea", "people")
    for path in PAGES:
        page.goto(world.server.url + path)
        if path.startswith("review"):
            page.wait_for_selector(".panel:not(.waiting), .questions")
            page.wait_for_selector("[data-late]", state="detached")
        text = squeezed(watch.harmless(page, "main, .shown, .changes"))
        if path == "people":
            text = unicodedata.normalize("NFKC", text)  # as names are stored
            assert not [name for name in SHORT if squeezed(unicodedata.normalize("NFKC", name)) not in text]
    for kind in ("preview", "save"):
        page.goto(f"{world.server.url}guidelines")
        page.fill("#text", "\n\n".join(PAYLOADS) + kind)
        page.click(f"button[value={kind}]")
        watch.harmless(page, "main")
    for path in DOCUMENTS:
        page.goto(f"{world.server.url}api/v1/{path}")
        watch.harmless(page)
    for text in PAYLOADS:
        for path in (f"api/v1/{quote(text, safe='')}", f"api/v1/votes/mine?limit={quote(text)}", f"login?next={quote(text)}",
                     f"invite?code={quote(text)}", f"people/{quote(text, safe='')}", f"{quote(text)}")[hash(text) % 6 :][:2]:  # fmt: skip
            answer = page.context.request.get(world.server.url + path, headers={"accept": "text/html"})
            kind = answer.headers.get("content-type", "")
            assert answer.status < 500 and "nosniff" in answer.headers.get("x-content-type-options", ""), path
            if "html" in kind:
                page.set_content(answer.text())  # without the policy's protection
                watch.harmless(page)
    page.context.close()


def test_live(world: World, browser: Browser) -> None:
    page, watch = watched(world, browser, "lea", "live")
    page.fill("#text", "\n\n".join(PAYLOADS)[:7900])
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-state=ready]", timeout=60_000)
    text = squeezed(watch.harmless(page, "main"))
    assert squeezed(PAYLOADS[0]) in text
    page.click("#rank")
    page.wait_for_url(world.server.url)
    watch.harmless(settled(page), "#question, .p-answer")
    page.context.close()


def test_an_evaluation_report(world: World, browser: Browser, tmp_path: Path) -> None:
    answer = Answer("\n".join(PAYLOADS), 9, True, {"reward-1": 0.5, "vivid": -1.0})
    turns = tuple({"role": "user", "content": text} for text in PAYLOADS)
    names = list(report().prompts[0].answers)
    made = render(report(
        project=PAYLOADS[0], run=PAYLOADS[1], lineage="\n".join(PAYLOADS), created=PAYLOADS[2],
        settings={**report().settings, **{text: text for text in PAYLOADS}}, versions={text: text for text in PAYLOADS},
        prompts=[Shown(turns, {name: [answer] for name in names})] * 3,
    ))  # fmt: skip
    context = browser.new_context()
    watch = Watch(context, world.server)
    page = context.new_page()
    (tmp_path / "report.html").write_text(made, encoding="utf-8")
    page.goto((tmp_path / "report.html").as_uri())
    watch.seen = [one for one in watch.seen if not one.startswith("request file:")]
    text = squeezed(watch.harmless(page, "section.prompt"))
    assert squeezed(PAYLOADS[0]) in text
    page.set_content(made.replace("Content-Security-Policy", "x-nothing"))  # what if it were not there
    watch.seen = [one for one in watch.seen if not one.startswith("request file:")]
    watch.harmless(page, "section.prompt")
    context.close()


def test_the_server_talks_to_nobody_but_its_endpoints(world: World) -> None:
    """Runs last: what the process did all the while. Endpoints of this test are on this machine."""
    headers = {"Authorization": f"Bearer {world.tokens['mark']}"}
    world.models.piece = 100_000  # complete before it is shown, so it is shown at once, not in 16 s
    asked = httpx.post(
        f"{world.server.url}api/v1/live", json={"text": "One more"}, headers=headers, timeout=60
    )
    assert '"event": "done"' in asked.text, asked.text
    noted = set(world.sockets.read_text().split()) if world.sockets.exists() else set()
    assert noted <= {"127.0.0.1", "::1", "localhost", "None", "0.0.0.0"}, json.dumps(sorted(noted))
    assert "127.0.0.1" in noted or "localhost" in noted  # the guard was there
