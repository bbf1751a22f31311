"""The report: one HTML file without scripts or external files, made from the figures and the samples.

    html = render(Report(title, ..., summary, prompts))

What models wrote is untrusted: the template escapes everything but our own plots, and the page's content
security policy forbids scripts.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from palate.data.records import Message
from palate.evaluation import plots, verdict

FIRST = 4  # prompts on the first screen
MORE = 40  # more of them, folded; all are in the frozen samples


@dataclass(frozen=True)
class Answer:
    """One sample as the report shows it."""

    text: str
    tokens: int
    finished: bool
    scores: dict[str, float]  # by judge


@dataclass(frozen=True)
class Shown:
    """One prompt and what each model answered."""

    messages: tuple[Message, ...]
    answers: dict[str, list[Answer]]  # by model


@dataclass(frozen=True)
class Report:
    """Everything on the page."""

    run: str
    project: str
    created: str
    summary: dict[str, Any]
    prompts: list[Shown]
    settings: dict[str, Any]
    versions: dict[str, str]
    lineage: str  # plain text


def render(report: Report) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": verdict.percent, "number": verdict.number, "unbroken": _unbroken}
    outcome, sentence = verdict.verdict(report.summary)
    return environment.get_template("report.html.jinja").render(
        report=report,
        summary=report.summary,
        outcome=outcome,
        sentence=sentence,
        cautions=verdict.cautions(report.summary),
        win_rate_plot=Markup(plots.win_rate_plot(report.summary)) if outcome != "nothing to compare" else "",
        frontier_plots=[
            (judge, Markup(plots.frontier_plot(report.summary, judge))) for judge in report.summary["judges"]
        ],
        first=report.prompts[:FIRST],
        more=report.prompts[FIRST : FIRST + MORE],
    )


def _unbroken(sentence: str) -> str:
    """No line break between a number and its percent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")
