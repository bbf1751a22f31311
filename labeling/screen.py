"""The ranking screen: its layout. What happens on it is in `assets/*.js`, which talk to `/api/v1`.

Everything in `gr.HTML` is constant: text of prompts, answers and people never goes there, because that
component evaluates what it is given. Gradio draws prompt and answers as sanitised Markdown; the page's script
hands it their texts. No event of this page calls the server through Gradio, so there is nothing to forge.
"""

import re
from importlib.resources import files
from typing import Any

import gradio as gr

from palate.labeling import strings
from palate.labeling.ballots import LETTERS

# in the order in which they build on each other
SCRIPTS = ("core", "keys", "ballot", "texts", "outbox", "items", "ranking", "drag", "differences", "cards",
           "ratings", "menus", "start", "panels", "practice", "panels_help", "panels_votes", "panels_guidelines", "notes", "live_link")  # fmt: skip
STYLES = ("ranking", "controls", "panels")
# Formulas come between characters of the private use area (assets/texts.js finds them); no text contains those
FORMULAS = [
    {"left": "\ue000", "right": "\ue001", "display": False},
    {"left": "\ue002", "right": "\ue003", "display": True},
]

_ICON = '<svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true"><path d="{}"/></svg>'
_TOOLS = {
    "differences": "M4 7h12M4 13h12M13 3 7 17",
    "copy": "M7 7h9v10H7zM13 7V3H4v10h3",
    "edit": "M4 16l1-4 8-8 3 3-8 8zM11 6l3 3",
    "flags": "M5 18V3h10l-2 4 2 4H5",
    "alone": "M3 8V3h5M17 12v5h-5M3 3l6 6M17 17l-6-6",
}
TOOLS = "".join(
    f'<button type="button" data-tool="{name}" data-t-title="tool.{name}" data-t-label="tool.{name}">'
    f'{_ICON.format(path)}<span data-t="tool.{name}.short"></span></button>'
    for name, path in _TOOLS.items()
)

BAR = """
<header class="p-bar">
  <h1 id="p-project"></h1>
  <span id="p-progress"></span><span id="p-status" role="status"></span>
  <button type="button" id="p-offer" data-do="offer" hidden></button>
  <a id="p-login" href="login" target="_blank" data-t="login.again" hidden></a>
  <span class="p-space"></span>
  <button type="button" data-do="menu" data-t-label="bar.menu">&#9776;</button>
  <nav class="p-nav" data-t-label="bar.menu">
    <button type="button" data-do="guidelines" data-t="bar.guidelines" aria-keyshortcuts="G"></button>
    <button type="button" data-do="votes" data-t="bar.votes" aria-keyshortcuts="V"></button>
    <a href="review" data-t="bar.review"></a>
    <a id="p-name" href="login" data-t-title="bar.name"></a>
    <button type="button" data-do="fast" data-t="bar.fast" data-t-title="bar.fast.hint" aria-pressed="false"></button>
    <button type="button" data-do="theme" data-t-label="bar.theme" data-t-title="bar.theme">&#9680;</button>
    <button type="button" data-do="help" data-t-label="bar.help" data-t-title="bar.help" aria-keyshortcuts="?">?</button>
  </nav>
</header>
"""

TABS = f"""<div class="p-tabbar"><div id="p-tabs" role="group" data-t-label="tabs.label"></div><div class="p-tools">{TOOLS}</div></div>"""

CARD_HEAD = f"""<div class="p-head"><b>{{letter}}</b><span class="p-place"></span><span class="p-marks"></span>
<span class="p-space"></span><div class="p-tools">{TOOLS}</div></div>"""

CARD_FOOT = """
<button type="button" class="p-whole" data-tool="whole" hidden></button>
<div class="p-edit"><textarea spellcheck="true" dir="auto"></textarea><div>
  <span data-t="edit.hint"></span><span class="p-space"></span>
  <button type="button" data-tool="discard" data-t="edit.discard"></button>
  <button type="button" data-tool="done" data-t="edit.done"></button></div></div>
<div class="p-criteria"></div>
"""

SCALE = "".join(
    f'<button type="button" data-choice="{n}" aria-keyshortcuts="{n}" data-t-label="scale.{n}" aria-pressed="false">'
    f'<span class="p-full" data-t="scale.{n}"></span><b class="p-side">{side}</b>'
    f'<span class="p-short" data-t="scale.{n}.short"></span><kbd>{n}</kbd></button>'
    for n, side in enumerate("AAA=BBB", start=1)
)

REASONS = "".join(
    f'<button type="button" data-reason="{name}" aria-keyshortcuts="{name[0].upper()}"><span data-t="reason.{name}">'
    f"</span><kbd>{name[0].upper()}</kbd></button>"
    for name in ("unclear", "language", "expertise", "broken", "other")
)

FLAGS = "".join(
    f'<button type="button" data-flag="{name}" aria-keyshortcuts="{name[0].upper()}" aria-pressed="false">'
    f'<span data-t="flag.{name}"></span><kbd>{name[0].upper()}</kbd></button>'
    for name in ("unsafe", "broken", "personal", "language", "identical")
)

CONTROLS = f"""
<div class="p-controls">
  <div class="p-menu" id="p-skip" role="dialog" tabindex="-1" data-modal data-t-label="skip.title" hidden>
    <p data-t="skip.title"></p><div>{REASONS}</div></div>
  <div class="p-menu" id="p-flags" role="dialog" tabindex="-1" data-modal data-t-label="flag.title" hidden>
    <p data-t="flag.title"></p><div id="p-scopes" role="group" data-t-label="flag.scope"></div><div>{FLAGS}</div></div>
  <div class="p-scale" role="group" data-t-label="scale.label">{SCALE}</div>
  <div class="p-strip">
    <span class="p-letters" role="group" data-t-label="letters.label"></span>
    <span class="p-steps">
      <button type="button" data-do="tie" aria-keyshortcuts="=" data-t-title="help.tie" aria-pressed="false">
        <span data-t="strip.tie"></span><kbd>=</kbd></button>
      <button type="button" data-do="back" aria-keyshortcuts="Backspace" data-t-title="help.back">
        <span data-t="strip.back"></span><kbd>&#9003;</kbd></button>
    </span>
    <span id="p-ranking" role="group" data-t-label="ranking.label"></span>
  </div>
  <div class="p-more">
    <button type="button" data-do="all_bad" aria-keyshortcuts="X" aria-pressed="false">
      <span data-t="foot.all_bad"></span><kbd>X</kbd></button>
    <button type="button" data-do="skip" aria-keyshortcuts="S" aria-haspopup="dialog" aria-pressed="false">
      <span data-t="foot.skip"></span><i id="p-skip-reason"></i><kbd>S</kbd></button>
    <button type="button" data-do="flags" aria-keyshortcuts="F" aria-haspopup="dialog" aria-pressed="false">
      <span data-t="foot.flag"></span><i id="p-flag-count"></i><kbd>F</kbd></button>
    <input id="p-why" type="text" maxlength="2000" autocomplete="off" dir="auto" data-t-hint="foot.why" data-t-label="foot.why.label">
    <button type="button" id="undo" data-do="undo" aria-keyshortcuts="U"><span data-t="foot.undo"></span><kbd>U</kbd></button>
    <button type="button" id="submit" data-do="submit" aria-keyshortcuts="Enter"><span data-t="foot.submit"></span><kbd>&#9166;</kbd></button>
  </div>
</div>
"""

PANELS = """
<p id="p-waiting" data-t="waiting"></p>
<div id="p-live" class="p-unseen" aria-live="polite"></div>
<section id="p-panels"></section>
"""


def ranking_screen() -> gr.Blocks:
    """The Blocks of the ranking screen; it holds no data until a browser with an annotator's cookie fills it."""
    text: dict[str, Any] = {"line_breaks": True, "latex_delimiters": FORMULAS}
    with gr.Blocks(title="Palate", analytics_enabled=False, fill_width=True) as blocks:
        _html(BAR, elem_id="bar")
        with gr.Column(elem_id="question"):
            shown = [gr.Markdown(elem_id="history", **text), gr.Markdown(elem_id="prompt", **text)]
        _html(TABS, elem_id="tabs")
        with gr.Row(elem_id="cards"):
            for letter in LETTERS:
                with gr.Column(elem_id=f"card-{letter}", elem_classes="p-card", min_width=0):
                    _html(CARD_HEAD.format(letter=letter))
                    shown.append(gr.Markdown(elem_classes="p-answer", **text))
                    _html(CARD_FOOT, elem_classes="p-foot")
        _html(CONTROLS, elem_id="foot")
        _html(PANELS, elem_id="panels")
        render = gr.Button(elem_id="p-render", visible="hidden")
        render.click(
            None,
            None,
            shown,
            js="() => window.palate.texts()",
            queue=False,
            show_progress="hidden",
            trigger_mode="multiple",
            api_visibility="private",
        )
    return blocks


def _html(constant: str, **settings: Any) -> None:
    gr.HTML(constant, apply_default_css=False, **settings)


def script(language: str = "en") -> str:
    """The behaviour of the screen and its words, to stand in the page's head."""
    parts = [strings.as_script(language), *(_asset(f"{name}.js") for name in SCRIPTS)]
    return "".join(f"<script>\n{part}\n</script>\n" for part in parts)


def style() -> str:
    """The looks of all pages."""
    return "\n".join(_asset(f"{name}.css") for name in STYLES)


_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)


def as_markdown(text: str) -> str:
    """Text for a Markdown component of another page: tags and images are shown as written, code is left alone."""
    parts = _CODE.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = parts[i].replace("&", "&amp;").replace("<", "&lt;").replace("![", "!\\[")
    return "".join(parts)


def _asset(name: str) -> str:
    return files("palate.labeling").joinpath(f"assets/{name}").read_text(encoding="utf-8")
