"""The ranking screen: its layout, and what each press sends and gets back.

The annotator ranks in the browser (`ranking.js`); one call per answer stores it and brings the next item.
Gradio draws the prompt and the answers as sanitised Markdown. Everything in `gr.HTML` is constant: text of
prompts, answers and people never goes there, because that component evaluates what it is given. The handlers
ask the request who is voting, never the page, and send no model names and no completion ids.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from random import SystemRandom
from typing import Any

import gradio as gr

from palate.config import UserError
from palate.data.records import Message
from palate.data.store import Store
from palate.labeling import voting
from palate.labeling.voting import LETTERS, Ballot, Item

Outputs = dict[Any, Any]
WhoIs = Callable[[gr.Request], str]  # the annotator's id, from the signed cookie

BAR = """
<header class="p-bar">
  <b id="p-project"></b>
  <span id="p-progress"></span><span id="p-status" role="status" aria-live="polite"></span>
  <span class="p-space"></span>
  <a id="p-name" href="/login" title="Someone else is ranking"></a>
  <a href="/statistics/">Statistics</a>
  <button type="button" data-do="help" aria-label="Keys and help" aria-keyshortcuts="?">?</button>
  <button type="button" data-do="theme" aria-label="Dark or light">&#9680;</button>
</header>
"""

CARD_HEAD = """<div class="p-head"><b>{letter}</b><span class="p-place"></span></div>"""

CONTROLS = """
<div class="p-controls">
  <div class="p-scale" role="group" aria-label="Which answer is better, and by how much">
    <button type="button" data-choice="1" aria-keyshortcuts="1"><span>A much better</span><kbd>1</kbd></button>
    <button type="button" data-choice="2" aria-keyshortcuts="2"><span>A better</span><kbd>2</kbd></button>
    <button type="button" data-choice="3" aria-keyshortcuts="3"><span>A slightly</span><kbd>3</kbd></button>
    <button type="button" data-choice="4" aria-keyshortcuts="4"><span>Tie</span><kbd>4</kbd></button>
    <button type="button" data-choice="5" aria-keyshortcuts="5"><span>B slightly</span><kbd>5</kbd></button>
    <button type="button" data-choice="6" aria-keyshortcuts="6"><span>B better</span><kbd>6</kbd></button>
    <button type="button" data-choice="7" aria-keyshortcuts="7"><span>B much better</span><kbd>7</kbd></button>
  </div>
  <div class="p-strip">
    <span class="p-letters" role="group" aria-label="Answers, best first"></span>
    <button type="button" data-do="tie" aria-keyshortcuts="=" title="The next letter is equal to the last">
      <span>equal</span><kbd>=</kbd></button>
    <button type="button" data-do="back" aria-keyshortcuts="Backspace" title="Take the last letter back">
      <span>back</span><kbd>&#9003;</kbd></button>
    <output id="p-ranking" aria-live="polite"></output>
  </div>
  <div class="p-more">
    <button type="button" data-do="all_bad" aria-keyshortcuts="X"><span>All bad</span><kbd>X</kbd></button>
    <button type="button" data-do="skip" aria-keyshortcuts="S"><span>Skip</span><kbd>S</kbd></button>
    <input id="p-why" type="text" maxlength="2000" autocomplete="off" placeholder="Why? (optional)  R" aria-label="Why, optional">
  </div>
</div>
"""

OVERLAYS = """
<section id="p-empty" hidden>
  <h2>Nothing to rank right now</h2>
  <p>You have answered everything that is open. New answers to rank come from <code>palate sample</code>,
  new prompts from <code>palate import</code>; stop this server first, start it again after.</p>
  <p><a href="/statistics/">See what the votes say</a></p>
</section>
<section id="p-help" role="dialog" aria-label="Keys and help" hidden>
  <h2>How to rank</h2>
  <p>Read the prompt, read every answer, then say which one serves the prompt better. Judge what is written,
  not how long it is or where it stands: the order is drawn at random.</p>
  <table>
    <tr class="p-two"><td><kbd>1</kbd> &hellip; <kbd>7</kbd></td><td>from &ldquo;A much better&rdquo; to
      &ldquo;B much better&rdquo;; <kbd>4</kbd> is a tie</td></tr>
    <tr class="p-many"><td><kbd>A</kbd> <kbd>B</kbd> &hellip;</td><td>the answers in order, best first;
      or click the cards</td></tr>
    <tr class="p-many"><td><kbd>=</kbd></td><td>the next letter is equal to the last one</td></tr>
    <tr class="p-many"><td><kbd>Backspace</kbd></td><td>take the last letter back</td></tr>
    <tr><td><kbd>X</kbd></td><td>all answers are bad</td></tr>
    <tr><td><kbd>S</kbd></td><td>skip: you can't judge this one; somebody else will get it</td></tr>
    <tr><td><kbd>R</kbd></td><td>write why; <kbd>Esc</kbd> leaves the field</td></tr>
    <tr><td><kbd>Enter</kbd></td><td>submit, next item</td></tr>
    <tr><td><kbd>U</kbd></td><td>take your last vote back and change it, as often as you like</td></tr>
    <tr><td><kbd>?</kbd></td><td>this page</td></tr>
  </table>
  <button type="button" data-do="help">Close <kbd>Esc</kbd></button>
</section>
"""


@dataclass(frozen=True)
class Parts:
    """The components that change or are pressed."""

    history: gr.Markdown
    prompt: gr.Markdown
    answers: list[gr.Markdown]
    undo: gr.Button
    submit: gr.Button
    ballot: gr.JSON  # browser -> server, filled by the script at the moment of submitting
    state: gr.JSON  # server -> browser


def _draw() -> Parts:
    """Lay out the screen in the open Blocks."""
    gr.HTML(BAR, elem_id="bar", apply_default_css=False)
    with gr.Column(elem_id="question"):
        history = gr.Markdown(elem_id="history", line_breaks=True)
        prompt = gr.Markdown(elem_id="prompt", line_breaks=True)
    answers = []
    with gr.Row(elem_id="cards"):
        for letter in LETTERS:
            with gr.Column(elem_id=f"card-{letter}", elem_classes="p-card", min_width=0):
                gr.HTML(CARD_HEAD.format(letter=letter), apply_default_css=False)
                answers.append(gr.Markdown(elem_classes="p-answer", line_breaks=True))
    with gr.Row(elem_id="foot"):
        gr.HTML(CONTROLS, elem_id="controls", apply_default_css=False)
        undo = gr.Button("Undo  U", elem_id="undo", size="md")
        submit = gr.Button("Submit  ⏎", elem_id="submit", size="md", variant="primary")
    gr.HTML(OVERLAYS, elem_id="overlays", apply_default_css=False)
    return Parts(history, prompt, answers, undo, submit, gr.JSON(visible="hidden"), gr.JSON(visible="hidden"))


def ranking_screen(store: Store, project: str, who: WhoIs) -> gr.Blocks:
    """The Blocks of the ranking screen; it holds no data until a browser with an annotator's cookie loads it."""
    with gr.Blocks(title="Palate", analytics_enabled=False, fill_width=True) as blocks:
        parts = _draw()
        outputs: list[Any] = [parts.history, parts.prompt, *parts.answers, parts.state]

        def page(person: str, item: Item | None, **notes: Any) -> Outputs:
            done, left = voting.progress(store, person)
            name = store.value("SELECT name FROM annotator WHERE id = ?", [person])
            found = {"project": project, "annotator": name, "done": done, "left": left, **notes}
            texts = [as_markdown(text) for _, text in item.answers] if item else []
            texts += [""] * (len(LETTERS) - len(texts))
            past, last = split_turns(item.messages if item else ())
            filled = dict(zip(parts.answers, texts, strict=True))
            return {
                parts.history: past,
                parts.prompt: last,
                **filled,
                parts.state: {**found, **describe(item)},
            }

        def load(request: gr.Request) -> Outputs:
            person = who(request)
            return page(person, voting.next_item(store, person, SystemRandom()))

        def vote(content: Any, request: gr.Request) -> Outputs:
            person = who(request)
            try:
                voting.cast(store, person, parse_ballot(content))
                notes: dict[str, Any] = {"saved": True}
            except UserError as error:
                notes = {"refused": str(error)}
            return page(person, voting.next_item(store, person, SystemRandom()), **notes)

        def take_back(request: gr.Request) -> Outputs:
            person = who(request)
            item = voting.undo(store, person)
            if item is None:
                item = voting.next_item(store, person, SystemRandom())
                return page(person, item, refused="there is no vote of yours to take back")
            return page(person, item)

        show = "(found) => { window.palate.show(found); }"
        failed = "() => { window.palate.failed(); }"
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        for event in (
            blocks.load(load, None, outputs, **quiet),
            # `multiple`: after a lost connection Gradio would wait for ever; the script lets one press through
            parts.submit.click(
                vote,
                parts.ballot,
                outputs,
                js="() => [window.palate.ballot()]",
                trigger_mode="multiple",
                **quiet,
            ),
            parts.undo.click(take_back, None, outputs, **quiet),
        ):
            event.success(None, parts.state, None, js=show, **quiet)
            event.failure(None, None, None, js=failed, **quiet)
    return blocks


def describe(item: Item | None) -> dict[str, Any]:
    """What the browser's script needs to know of an item; None when nothing is open."""
    if item is None:
        return {"assignment": None, "letters": []}
    earlier = item.earlier and {
        "verdict": item.earlier.verdict,
        "ranking": [list(tier) for tier in item.earlier.ranking],
        "strength": item.earlier.strength,
    }
    return {
        "assignment": item.assignment_id,
        "letters": [letter for letter, _ in item.answers],
        "earlier": earlier,
        "turns": len(item.messages) - 1,
    }


def parse_ballot(content: Any) -> Ballot:
    """The ballot in what a browser sent, which may be anything; whether it is valid, `voting.cast` decides."""
    try:
        strength, why = content.get("strength"), content.get("rationale")
        return Ballot(
            verdict=content["verdict"],
            ranking=tuple(tuple(str(letter) for letter in tier) for tier in content.get("ranking") or ()),
            strength=None if strength is None else int(strength),
            vote_id=str(content["vote_id"]),
            assignment_id=str(content["assignment"]),
            rationale=None if why is None else str(why),
            seconds_visible=float(content.get("seconds_visible") or 0.0),
            seconds_active=float(content.get("seconds_active") or 0.0),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the page sent no valid ballot ({json.dumps(content, default=str)[:120]})"
        ) from error


def split_turns(messages: tuple[Message, ...]) -> tuple[str, str]:
    """(earlier turns, last turn) as Markdown."""
    if not messages:
        return "", ""
    past = [f"**{m['role'].capitalize()}**\n\n{as_markdown(m['content'])}" for m in messages[:-1]]
    return "\n\n---\n\n".join(past), as_markdown(messages[-1]["content"])


_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)


def as_markdown(text: str) -> str:
    """Text for `gr.Markdown` that shows tags and images as written instead of dropping or fetching them.

    The component's sanitiser is what keeps the page safe; this keeps it honest: an annotator must see the
    `<lora:x>` or `![](...)` that a model wrote. Code is left alone, Markdown shows it literally anyway.
    """
    parts = _CODE.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("&", "&amp;").replace("<", "&lt;").replace("![", "!\\[")
    return "".join(parts)


def script() -> str:
    """The behaviour of the screen, to stand in the page's head."""
    return (
        f"<script>\n{files('palate.labeling').joinpath('ranking.js').read_text(encoding='utf-8')}\n</script>"
    )


def style() -> str:
    """The looks of all pages."""
    return files("palate.labeling").joinpath("ranking.css").read_text(encoding="utf-8")
