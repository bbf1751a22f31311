"""The page stands alone, shows what models wrote as text, and fits a phone."""

import os
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.evaluation.report import Answer, Report, Shown, render
from palate.evaluation.summary import Judge, Judged, summarise

HOSTILE = '<script>alert(1)</script><img src="http://evil.example/x.png"> {{ 7 * 7 }} $x_1$ </article>'
NAMES = ("builtin", "sft-1", "org/$x$<b>model")


def report(**changes: Any) -> Report:
    rng = np.random.default_rng(0)
    judges = (Judge("reward-1", "reward"), Judge("vivid", "taste"))
    models = [
        Judged(
            name=name,
            texts=[["a text", "another"]] * 40,
            tokens=np.full((40, 2), 20.0),
            characters=rng.normal(100, 10, (40, 2)),
            finished=np.ones((40, 2)),
            scores={judge.name: rng.normal(level, 1, (40, 2)) for judge in judges},
            logprobs=np.zeros((40, 2)),
            baseline_logprobs=np.full((40, 2), -float(level)),
        )
        for level, name in enumerate(NAMES)
    ]
    summary = summarise(models, "sft-1", judges, 0)
    answer = Answer(HOSTILE, 20, False, {"reward-1": 0.5, "vivid": -1.0})
    values: dict[str, Any] = {
        "run": "eval-1",
        "project": "A & B",
        "created": "2026-01-01 10:00 UTC",
        "summary": {**summary, "reward_on_votes": None},
        "prompts": [
            Shown(
                ({"role": "system", "content": "Be brief"}, {"role": "user", "content": f"{HOSTILE} {p}"}),
                {name: [answer, Answer("", 1, True, answer.scores)] for name in NAMES},
            )
            for p in range(6)
        ],
        "settings": {"temperature": 1.0},
        "versions": {"torch": "2.13"},
        "lineage": "dpo-1\n└─ sft-1",
    }
    return Report(**{**values, **changes})


class Page(HTMLParser):
    """The tags and ids of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id" and value:
                self.ids[value] += 1
            if name in ("src", "href", "xlink:href", "srcset", "action") and value:
                self.links.append(value)


def test_nothing_external_and_no_script() -> None:
    page = Page(render(report()))
    assert page.tags["script"] == page.tags["img"] == page.tags["iframe"] == 0
    assert all(link.startswith(("#", "data:,")) for link in page.links), page.links
    assert [name for name, count in page.ids.items() if count > 1] == []
    assert page.tags["svg"] == 3  # win rates, and each judge against KL


def test_what_models_wrote_is_shown_as_text() -> None:
    html = render(report())
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html  # not evaluated
    assert "<b>model" not in html
    assert "(nothing)" in html  # an empty answer is visible as such
    assert "cut at the limit" in html


def test_verdict_stands_first_and_figures_are_there() -> None:
    html = render(report())
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", html)
    assert heading is not None
    assert heading.group(1).startswith("$x$&lt;b&gt;model is better than sft-1: it wins")
    assert html.index("<h1") < html.index("<svg") < html.index("Side by side") < html.index("Lineage")


def test_one_model_alone_is_still_a_page() -> None:
    full = report()
    alone = {**full.summary, "models": full.summary["models"][1:2], "candidate": None}
    html = render(report(summary=alone))
    assert "Nothing was compared" in html
    assert Page(html).tags["svg"] == 2  # no win rates


def test_same_figures_same_bytes() -> None:
    assert render(report()) == render(report())


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(375, "light"), (1440, "dark")])
def test_in_a_browser(tmp_path: Path, width: int, scheme: Any) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        assert not os.environ.get("CI"), "under CI chromium must be there"
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    (tmp_path / "report.html").write_text(render(report()), encoding="utf-8")
    asked: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((tmp_path / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # no sideways scrolling
        first_plot = page.locator("figure svg").first.bounding_box()
        muted = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
        browser.close()
    assert (len(asked), complaints) == (1, [])
    assert first_plot is not None and first_plot["width"] > min(300, width * 0.8) and first_plot["y"] < 900
    assert muted == ("rgb(98, 101, 110)" if scheme == "light" else "rgb(162, 165, 174)")
