"""The page of a reward run: all parts, none of them, and texts that would break it."""

from dataclasses import replace
from typing import Any

import pytest

from palate.reward.accuracy import Accuracy, Estimate
from palate.reward.calibration import Bin
from palate.reward.learning_curve import LearningCurve
from palate.reward.mistakes import Leans, Mistake
from palate.reward.report import About, Findings, page, report

ABOUT = About("reward-1", "<b>demo</b>", "2026-01-02 03:04 UTC", {"method": "lora"}, "reward-1 <- sft-1")
BARE = Findings("builtin", 20, 0, "nothing", (0.7, 0.5), None, None, None, None, 0.0)
GOOD = Accuracy(Estimate(0.8, 0.7, 0.9), Estimate(0.6, 0.5, 0.7), Estimate(0.2, 0.1, 0.3), 100, 12, "groups")


class Lines:
    """A part that says one thing."""

    def __init__(self, line: str) -> None:
        self.line = line

    def record(self) -> dict[str, Any]:
        return {"line": self.line}

    def lines(self) -> list[str]:
        return [self.line]


FULL = replace(
    BARE,
    votes=GOOD,
    majority=GOOD,
    length_correlation=-0.25,
    used={"votes": 300, "cut_prompts": 2},
    baseline=replace(GOOD, scores=Estimate(0.7, 0.6, 0.8)),
    ceiling=(Estimate(0.85, 0.8, 0.9), 240),
    leans=Leans(-0.25, 0.6, 0.7, 0.52, None),
    mistakes=[Mistake("<script>alert(1)</script>", "x" * 5000, "", 1.5, 3, 1)],
    reliability=[Bin(0.6, 0.58, 40), Bin(0.9, 0.8, 60)],
    calibration=Lines("ECE 0.031"),
    uncertainty=Lines("surer than that"),
    breakdown=Lines("by source"),
    annotators=Lines("anna 91 %"),
    learning_curve=Lines("500 more votes"),
)


def test_a_bare_run_explains_every_missing_part() -> None:
    made = page(ABOUT, BARE)
    for sentence in (
        "Not judged: no held-out vote prefers one answer to another",
        "no decided pair on held-out prompts",
        "No annotators’ ceiling",
        "Not measured: it takes 30 held-out pairs",
        "Not measured: it takes 30 held-out decided pairs",
        "No breakdown",
        "Annotators are not told apart",
        "No learning curve",
        "not defined, as one of them never varies",
        "None: no held-out pair is ordered against",
    ):
        assert sentence in made
    assert "<svg" not in made


def test_a_full_run_shows_every_part_and_escapes_texts() -> None:
    made = page(ABOUT, FULL)
    for shown in (
        "ECE 0.031",
        "surer than that",
        "by source",
        "anna 91 %",
        "500 more votes",
        "85.0 %",
        "−0.25",
        "cut prompts",
    ):
        assert shown in made
    assert made.count("<svg") == 2
    assert made.count("How to read this.") == 2
    assert "<script" not in made and "&lt;script&gt;alert(1)&lt;/script&gt;" in made
    assert "&lt;b&gt;demo&lt;/b&gt;" in made
    assert "the whole text, 5000 characters" in made and "(nothing)" in made


def test_the_curve_is_drawn_where_there_is_one() -> None:
    for low in (0.3, -5.0):
        found = LearningCurve((20, 40, 80, 160), (0.6, 0.65, 0.69, 0.72), 3.0, low, 5.7, 1.2, 200)
        made = page(ABOUT, replace(FULL, learning_curve=found))
        assert (
            made.count("<svg") == 3 and "as many as there are" in made and made.count("Dashed: a guess") == 1
        )


def test_the_same_findings_give_the_same_bytes() -> None:
    assert page(ABOUT, FULL) == page(ABOUT, FULL)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "Agrees with 80 % of held-out votes"),
        ({"votes": replace(GOOD, difference=Estimate(0.2, -0.1, 0.3))}, "Not surely better than taking"),
        ({"baseline": GOOD}, "a bag of words does as well"),
    ],
)
def test_the_heading_says_what_a_lead_must_know(changed: dict[str, Any], sentence: str) -> None:
    assert sentence in page(ABOUT, replace(FULL, **changed))


def test_record_and_terminal() -> None:
    metrics = FULL.metrics()
    assert (metrics["calibration"], metrics["ceiling"]) == ({"line": "ECE 0.031"}, 0.85)
    assert "bag of words" not in FULL.summary()
    assert "not better than a bag of words" in replace(FULL, baseline=GOOD).summary()
    assert len(FULL.summary().splitlines()) <= 15
    assert "| votes on held-out prompts | 80.0 %" in report("reward-1", FULL)
