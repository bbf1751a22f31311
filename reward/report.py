"""What a reward run found, as figures for its record, lines for the terminal, a short report and a page.

    findings.metrics(); findings.summary(); report(run, findings); page(About(...), findings)

Parts that are None are left out, and the page says so in a sentence. Texts are untrusted: the template escapes all but
our own plots, and the page's content security policy forbids scripts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from palate.plots import MUTED, RULE, SERIES, WIDTH, as_svg, style
from palate.reward.accuracy import Accuracy, Estimate
from palate.reward.calibration import Bin
from palate.reward.learning_curve import MORE, LearningCurve
from palate.reward.mistakes import Leans, Mistake


class Part(Protocol):
    """What calibration, breakdown, annotator model and learning curve say of themselves."""

    def record(self) -> dict[str, Any]:
        """Plain values."""

    def lines(self) -> list[str]:
        """For the terminal and the page."""


@dataclass(frozen=True)
class About:
    """What the page says of the run itself."""

    run: str
    project: str
    created: str
    settings: Mapping[str, Any]
    lineage: str  # plain text


@dataclass(frozen=True)
class Findings:
    """How a reward model was made and how far to trust it. Accuracies are None where no vote decides a pair."""

    base: str
    trained_on: int  # rankings
    held_out: int  # rankings
    held_out_by: str
    loss: tuple[float, float]  # first and last step
    votes: Accuracy | None  # against each vote on held-out prompts
    majority: Accuracy | None  # against the majority of each pair's votes
    folds: Accuracy | None  # cross-validated, against each vote
    length_correlation: float | None  # of rewards with characters
    reload_error: float  # largest change of a reward by saving and loading
    used: Mapping[str, Any] | None = None  # what it learned from: votes, annotators, view, cut prompts ...
    baseline: Accuracy | None = (
        None  # the n-gram baseline (lexical.py), against each vote on held-out prompts
    )
    ceiling: tuple[Estimate, int] | None = None  # mistakes.majority_rule of held-out votes
    leans: Leans | None = None
    mistakes: Sequence[Mistake] = ()
    reliability: Sequence[Bin] = ()
    calibration: Part | None = None
    uncertainty: Part | None = None
    breakdown: Part | None = None
    annotators: Part | None = None
    # a linear head that learned from all votes alike, and from votes as annotators are believed, on held-out votes
    told_apart: tuple[Accuracy, Accuracy] | None = None
    learning_curve: Part | None = None

    def metrics(self) -> dict[str, Any]:
        """Plain values for the run's record."""
        found = {"votes": self.votes, "majority": self.majority, "cross_validated": self.folds}
        return {
            "loss": self.loss[1],
            "rankings": self.trained_on,
            "held_out_rankings": self.held_out,
            "held_out_by": self.held_out_by,
            **{name: value.metrics() if value else None for name, value in found.items()},
            "length_correlation": self.length_correlation,
            "reload_error": self.reload_error,
            "baseline": self.baseline.metrics() if self.baseline else None,
            "ceiling": self.ceiling[0].value if self.ceiling else None,
            "told_apart": [one.scores.value for one in self.told_apart] if self.told_apart else None,
            **{name: part.record() for name, part in self._parts().items() if part},
        }

    def summary(self) -> str:
        """The figures for the terminal, accuracy beside its control."""
        lines = [
            f"  {self.trained_on} rankings to learn from, {self.held_out} held out by {self.held_out_by}",
            f"  loss {self.loss[0]:.3f} -> {self.loss[1]:.3f}",
        ]
        for label, value in self._accuracies():
            lines.append(f"  accuracy against {label}: {value}")
        if self.votes and self.votes.difference.low <= 0:
            lines.append(
                "  warning: not surely better than length alone; collect more votes before trusting it"
            )
        if self.baseline and self.beaten_by_words():
            lines.append(f"  warning: not better than a bag of words, which reaches {self.baseline.scores}")
        if self.ceiling:
            lines.append(f"  a vote agrees with the others on its pair: {self.ceiling[0]}")
        if self.told_apart:
            lines.append(f"  {self.told_apart_line()}")
        for part in (self.calibration, self.learning_curve):
            lines += [f"  {line}" for line in part.lines()[:1]] if part else []
        if self.length_correlation is not None:
            lines.append(f"  correlation of reward and length: {self.length_correlation:+.2f}")
        return "\n".join(lines)

    def told_apart_line(self) -> str:
        """What telling annotators apart does to held-out votes, in a sentence; empty where nobody is told apart."""
        if self.told_apart is None:
            return ""
        alike, believed = (one.scores for one in self.told_apart)
        return f"a linear head agrees with {alike} of held-out votes when all votes count alike, {believed} as believed"

    def beaten_by_words(self) -> bool:
        """Whether the n-gram baseline is at least as good on held-out votes."""
        return bool(self.votes and self.baseline and self.baseline.scores.value >= self.votes.scores.value)

    def _parts(self) -> dict[str, Part | None]:
        return {
            "calibration": self.calibration,
            "uncertainty": self.uncertainty,
            "breakdown": self.breakdown,
            "annotators": self.annotators,
            "learning_curve": self.learning_curve,
        }

    def _accuracies(self) -> list[tuple[str, Accuracy | str]]:
        missing = "no decided pair on held-out prompts"
        found: list[tuple[str, Accuracy | str]] = [
            ("votes on held-out prompts", self.votes or missing),
            ("majorities on held-out prompts", self.majority or missing),
        ]
        return [*found, ("votes, cross-validated", self.folds)] if self.folds else found


def report(run_id: str, found: Findings) -> str:
    """Markdown, to be read on its own."""
    lines = [
        f"# Reward model {run_id}",
        "",
        f"On `{found.base}`: {found.trained_on} rankings to learn from, {found.held_out} held out by {found.held_out_by}.",
        "Ties and equal scores count by half. Brackets hold 95 % intervals over whole groups of prompts",
        "(or comparisons, where groups are few).",
        "",
        "| Accuracy against | Reward | The longer one wins | Difference | Pairs | Clusters |",
        "|---|---|---|---|---|---|",
    ]
    for label, value in found._accuracies():
        if isinstance(value, str):
            lines.append(f"| {label} | {value} | | | 0 | |")
        else:
            lines.append(
                f"| {label} | {value.scores} | {value.longer} | {value.difference} | {value.pairs} "
                f"| {value.clusters} {value.clustered_by} |"
            )
    correlation = "not defined" if found.length_correlation is None else f"{found.length_correlation:+.2f}"
    lines += [
        "",
        f"- Correlation of reward and length (characters): {correlation}",
        f"- Largest change of a reward by saving and loading: {found.reload_error:.1e}",
        f"- Training loss, first and last step: {found.loss[0]:.3f}, {found.loss[1]:.3f}",
        *(
            f"- {line}"
            for part in (found.calibration, found.uncertainty, found.learning_curve)
            if part
            for line in part.lines()
        ),
        *([f"- {found.told_apart_line()}"] if found.told_apart else []),
        "- Rewards are scaled to mean 0 and standard deviation 1 over the training completions.",
        "",
    ]
    return "\n".join(lines)


def page(about: About, found: Findings) -> str:
    """One HTML page without scripts or external files."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    bars = _bars(found)
    return environment.get_template("reward.html.jinja").render(
        about=about,
        found=found,
        verdict=_verdict(found),
        accuracies=found._accuracies(),
        bars=Markup(_accuracy_plot(bars)) if bars else "",
        diagram=Markup(_reliability_plot(found.reliability)) if found.reliability else "",
        curve=Markup(_curve_plot(found.learning_curve))
        if isinstance(found.learning_curve, LearningCurve)
        else "",
    )


def _verdict(found: Findings) -> tuple[str, str]:
    """(class, sentence) for the top of the page."""
    if found.votes is None:
        return "undecided", "Not judged: no held-out vote prefers one answer to another"
    if found.votes.difference.low <= 0:
        return "undecided", "Not surely better than taking the longer answer"
    if found.beaten_by_words():
        return "undecided", "Better than length alone, but a bag of words does as well"
    return (
        "better",
        f"Agrees with {100 * found.votes.scores.value:.0f} % of held-out votes, length alone with less",
    )


def _bars(found: Findings) -> list[tuple[str, Estimate]]:
    if found.votes is None:
        return []
    bars = [("the longer one wins", found.votes.longer)]
    bars += [("n-gram baseline", found.baseline.scores)] if found.baseline else []
    bars += [("this reward", found.votes.scores)]
    return [*bars, ("the other votes on the pair", found.ceiling[0])] if found.ceiling else bars


def _accuracy_plot(bars: Sequence[tuple[str, Estimate]]) -> str:
    """One line per predictor: agreement with held-out votes and its interval."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH, 0.75 + 0.62 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for place, (name, rate) in enumerate(bars):
            colour = SERIES[1] if name == "this reward" else SERIES[0]
            axes.plot([40, 100], [place, place], color=RULE, linewidth=1)
            axes.plot([100 * rate.low, 100 * rate.high], [place, place], color=colour, linewidth=4)
            axes.plot(100 * rate.value, place, "o", color=colour, markersize=8)
            axes.text(40, place - 0.28, name, va="bottom")
            axes.text(100, place - 0.28, f"{100 * rate.value:.1f} %", va="bottom", ha="right", weight="bold")
            axes.plot([50, 50], [place - 0.2, place + 0.2], color=MUTED, linewidth=1.5, zorder=1)
        axes.set_yticks([])
        axes.set_ylim(len(bars) - 0.6, -0.75)
        axes.set_xlim(38, 102)
        axes.set_xticks([50, 75, 100], ["50 %", "75 %", "100 %"])
        axes.set_xlabel("held-out votes foretold")
        axes.spines[["left", "bottom"]].set_visible(False)
        return as_svg(figure, "accuracy")


def _reliability_plot(bins: Sequence[Bin]) -> str:
    """Predicted against observed; points are larger where there are more pairs."""
    from matplotlib.figure import Figure

    most = max(one.pairs for one in bins)
    with style():
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([50, 100], [50, 100], color=MUTED, linewidth=1.2)
        sizes = [20 + 130 * one.pairs / most for one in bins]
        x, y = [100 * one.predicted for one in bins], [100 * one.right for one in bins]
        axes.plot(x, y, color=SERIES[1], linewidth=1.5)
        axes.scatter(x, y, s=sizes, color=SERIES[1], zorder=3)
        axes.set_xlabel("how sure the reward is, %")
        axes.set_ylabel("how often it is right, %")
        return as_svg(figure, "reliability")


def _curve_plot(found: LearningCurve) -> str:
    """What was measured, the curve through it, and where it leads; what is beyond the votes there are is dashed."""
    from matplotlib.figure import Figure

    end = found.total + MORE
    seen, beyond = (
        [first + (last - first) * i / 40 for i in range(41)]
        for first, last in ((found.votes[0], found.total), (found.total, end))
    )
    with style():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        for votes, line in ((seen, "-"), (beyond, "--")):
            axes.plot(votes, [100 * one for one in found.ahead(votes)], line, color=SERIES[1], linewidth=1.5)
        axes.plot(found.votes, [100 * one for one in found.accuracy], "o", color=SERIES[1], markersize=7)
        here, there = (100 * one for one in found.ahead([found.total, end]))
        low, high = (min(max(here + one, 0.0), 100.0) for one in (found.low, found.high))
        axes.plot([end, end], [low, high], color=SERIES[0], linewidth=4)
        axes.plot(end, there, "o", color=SERIES[0], markersize=8)
        axes.axvline(found.total, color=RULE, linewidth=1)
        axes.set_xlabel("votes to learn from (the line: as many as there are)")
        axes.set_ylabel("held-out votes foretold, %")
        return as_svg(figure, "curve")
