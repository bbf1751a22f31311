"""The parts of the ranking screen by themselves: no way into the server through Gradio, words in both languages,
and the page's scripts in Chromium without a server."""

import difflib
import random
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page

from palate.labeling import screen
from palate.labeling.ballots import FLAGS, REASONS


def test_no_event_of_the_page_reaches_the_server() -> None:
    blocks = screen.ranking_screen()
    assert [function.fn for function in blocks.fns.values()] == [None]
    (only,) = blocks.config["dependencies"]
    assert only["backend_fn"] is False and only["inputs"] == []


def test_every_word_of_the_page_exists_in_both_languages() -> None:
    sources = [screen.__file__, *(files("palate.labeling") / "assets" / f"{n}.js" for n in screen.SCRIPTS)]
    text = "\n".join(Path(str(source)).read_text(encoding="utf-8") for source in sources)
    wanted = set(re.findall(r'\bdata-t(?:-label|-title|-hint)?="([a-z_.0-9]+)"', text))
    wanted |= set(re.findall(r'\bt\("([a-z_.]+)"', text)) | set(
        re.findall(r'add\("[^"]+", "(help\.\w+)"', text)
    )
    wanted |= {f"reason.{name}" for name in REASONS} | {f"flag.{name}" for name in FLAGS}
    wanted |= {f"scale.{n}{end}" for n in range(1, 8) for end in ("", ".short")}
    for language in ("en", "de"):
        words = yaml.safe_load(screen._asset(f"../strings/{language}.yaml"))
        there = set(words) | {key.removesuffix(".one") for key in words}
        assert wanted <= there, sorted(wanted - there)
        assert all(isinstance(value, str) for value in words.values())


def test_words_in_the_head_cannot_end_their_script() -> None:
    assert screen.script().count("</script>") == 1 + len(screen.SCRIPTS)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """The page's scripts, on an empty page."""
    context = browser.new_context()
    opened = context.new_page()
    opened.set_content(f"<html><head>{screen.script()}</head><body></body></html>")
    yield opened
    context.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<lora:x:0.8> & ![a](http://b)", "&lt;lora:x:0.8> &amp; !&#91;a](http://b)"),
        ("`a < b` and a < b", "`a < b` and a &lt; b"),
        ("``a ` < b`` <i>", "``a ` < b`` &lt;i>"),
        ("`never closed <i>", "`never closed &lt;i>"),
        ("```\n<i>\n```\n<i>", "```\n<i>\n```\n&lt;i>"),
        ("~~~~\n```\n<i>\n~~~~\n<i>", "~~~~\n```\n<i>\n~~~~\n&lt;i>"),
        ("```\nnever closed <i>", "```\nnever closed <i>\n```"),
        ("```mermaid\ngraph TD\n```", "```text\ngraph TD\n```"),
        ("a\n\n    <i>\n\n<i>", "a\n\n    <\u2060i>\n\n&lt;i>"),
        ("costs $5 and $10", "costs $5 and $10"),
        ("${a} and ${b}${c} `$d`", "${a} and ${b}${c} `$d`"),
        ("so $a<b$ holds", "so \ue000a&lt;b\ue001 holds"),
        ("$$x$$ and \\(y\\) and \\[z\\]", "\ue002x\ue003 and \ue000y\ue001 and \ue002z\ue003"),
        ("`$x$` and \\$5 and \\$6", "`$x$` and \\$5 and \\$6"),
        ("```\n$$x$$\n```", "```\n$$x$$\n```"),
        ("\ue000x\ue001 %%%LATEX_BLOCK_0%%%", "x %%\u2060%LATEX_BLOCK_0%%%"),
    ],
)
def test_texts_are_shown_as_written(page: Page, text: str, expected: str) -> None:
    assert page.evaluate("text => palate.drawing.asMarkdown(text)", text) == expected


@pytest.mark.parametrize(
    "text", ["$" * 100_000, "`" * 50_000 + " ` " * 20_000, "\\(" * 50_000, "<" * 100_000]
)
def test_odd_texts_are_read_quickly(page: Page, text: str) -> None:
    took = page.evaluate(
        "text => { const start = performance.now(); palate.drawing.asMarkdown(text); return performance.now() - start; }",
        text,
    )
    assert took < 2000


def test_differences_are_a_shortest_edit_script(page: Page) -> None:
    rng = random.Random(0)
    pairs = [
        [[rng.choice("abcd") for _ in range(rng.randrange(0, 14))] for _ in range(2)] for _ in range(200)
    ]
    found = page.evaluate("pairs => pairs.map(([a, b]) => palate.differences.differing(a, b))", pairs)
    for (a, b), (gone, added) in zip(pairs, found, strict=True):
        kept_a = [word for i, word in enumerate(a) if i not in gone]
        assert kept_a == [word for i, word in enumerate(b) if i not in added]
        assert len(kept_a) == _common(a, b)


def _common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by the textbook table."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = row[:]
        for j, y in enumerate(b):
            row[j + 1] = before[j] + 1 if x == y else max(before[j + 1], row[j])
    return row[-1]


def test_differences_of_long_texts_are_bounded(page: Page) -> None:
    a = [f"a{i}" for i in range(6000)]
    b = [f"b{i}" for i in range(6000)]
    b[:500] = a[:500]
    start = "const start = performance.now(); const [gone, added] = palate.differences.differing(a, b);"
    took, gone = page.evaluate(
        f"([a, b]) => {{ {start} return [performance.now() - start, gone.length]; }}", [a, b]
    )
    assert gone == 5500 and took < 2000
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    assert matcher.find_longest_match().size == 500


def test_steps_of_a_ranking(page: Page) -> None:
    """Any sequence of steps keeps every letter at most once and no tier empty; some sequences, exactly."""
    run = """(steps) => {
        const b = palate.ballots.fresh();
        const letters = ["A", "B", "C", "D"];
        for (const [name, ...rest] of steps) palate.ballots[name](b, ...rest.map((x) => x === "letters" ? letters : x));
        return b.tiers;
    }"""
    for steps, expected in (
        ([["pick", "C"], ["pick", "A"], ["tie", "letters"], ["pick", "D"], ["pick", "B"]], "C A=D B"),
        ([["pick", "C"], ["pick", "A"], ["place", "B", {"at": 0}]], "B C A"),
        ([["pick", "C"], ["pick", "A"], ["place", "C", {"at": 2}]], "A C"),
        ([["pick", "C"], ["pick", "A"], ["place", "A", {"tie": "C"}]], "C=A"),
        ([["pick", "C"], ["pick", "A"], ["place", "A", {"at": 1}]], "C A"),
        ([["pick", "C"], ["pick", "A"], ["place", "C", {"out": True}]], "A"),
        ([["pick", "C"], ["pick", "A"], ["step", "A", -1]], "A C"),
        ([["pick", "C"], ["pick", "A"], ["step", "C", 1]], "A C"),
        ([["pick", "C"], ["pick", "A"], ["joinLeft", "A"], ["step", "A", 1]], "C A"),
        ([["pick", "C"], ["pick", "A"], ["joinLeft", "A"], ["step", "A", -1]], "A C"),
    ):
        assert " ".join("=".join(tier) for tier in page.evaluate(run, steps)) == expected, steps
    rng = random.Random(1)
    for _ in range(100):
        steps = []
        for _ in range(12):
            letter = rng.choice("ABCD")
            where = rng.choice([{"at": rng.randrange(5)}, {"tie": rng.choice("ABCD")}, {"out": True}])
            steps.append(
                rng.choice(
                    [["pick", letter], ["place", letter, where], ["step", letter, rng.choice([-1, 1])],
                     ["joinLeft", letter], ["tie", "letters"], ["back"]]
                )
            )  # fmt: skip
        tiers = page.evaluate(run, steps)
        flat = [letter for tier in tiers for letter in tier]
        assert len(flat) == len(set(flat)) and all(tiers), steps


@pytest.mark.parametrize(
    ("tiers", "partial", "expected"),
    [
        ([["B"], ["A"]], True, {"verdict": "ranked", "ranking": [["B"], ["A"]]}),
        ([["B"], ["A"]], False, {"verdict": "ranked", "ranking": [["B"], ["A"], ["C"]]}),
        ([["B", "A", "C"]], True, {"verdict": "tie", "ranking": [["B", "A", "C"]]}),
        ([["B", "A"]], True, None),
        ([["B"]], False, None),
        ([], True, None),
    ],
)
def test_what_is_sent(page: Page, tiers: list[list[str]], partial: bool, expected: object) -> None:
    assert (
        page.evaluate(
            "([tiers, partial]) => palate.ballots.answer({...palate.ballots.fresh(), tiers}, ['A','B','C'], partial)"
            ".answer ?? null",
            [tiers, partial],
        )
        == expected
    )
