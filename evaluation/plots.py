"""The report's two plots."""

import re
from typing import Any

from palate.plots import MUTED, RULE, SERIES, WIDTH, as_svg, style


def win_rate_plot(summary: dict[str, Any]) -> str:
    """One line per model and judge: the win rate against the baseline with its interval, and the line at 50 %."""
    from matplotlib.figure import Figure

    rows = [
        (model["label"], index, judge["label"], model["against_baseline"][judge["name"]]["win_rate"])
        for index, model in enumerate(summary["models"])
        if model["against_baseline"]
        for judge in summary["judges"]
    ]
    with style():
        figure = Figure(figsize=(WIDTH, 0.75 + 0.62 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for place, (name, series, label, rate) in enumerate(rows):
            colour, mean = SERIES[series % len(SERIES)], 100 * rate["value"]
            axes.plot([0, 100], [place, place], color=RULE, linewidth=1)
            axes.plot([100 * rate["low"], 100 * rate["high"]], [place, place], color=colour, linewidth=4)
            axes.plot(mean, place, "o", color=colour, markersize=8)
            axes.text(0, place - 0.28, f"{name}, {label}", va="bottom")
            axes.text(100, place - 0.28, f"{mean:.0f} %", va="bottom", ha="right", weight="bold")
            axes.plot([50, 50], [place - 0.2, place + 0.2], color=MUTED, linewidth=1.5, zorder=1)
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.6, -0.75)
        axes.set_xlim(-2, 102)
        axes.set_xticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.set_xlabel(f"comparisons won against {_baseline(summary)['label']}")
        axes.spines[["left", "bottom"]].set_visible(False)
        return as_svg(figure, "win")


def frontier_plot(summary: dict[str, Any], judge: dict[str, Any]) -> str:
    """A judge's mean score against the square root of the KL: what a model gained, and how far it went for it.

    The best-of-n line is what the baseline reaches by sampling more often; its KL is known exactly enough. The
    horizontal axis is sqrt(KL) because reward is about linear in it (Bai et al. 2022, section 4.3).
    """
    from matplotlib.figure import Figure

    name = judge["name"]
    with style():
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        axes = figure.subplots()
        bar = [(b["kl"] ** 0.5, b["scores"][name]["value"], b["n"]) for b in summary["best_of_n"]]
        if len(bar) > 1:
            axes.plot([x for x, _, _ in bar], [y for _, y, _ in bar], "-", color=MUTED, linewidth=1.5)
            axes.plot([x for x, _, _ in bar], [y for _, y, _ in bar], ".", color=MUTED, markersize=7)
            x, y, n = bar[-1]
            axes.annotate(
                f"best of {n}",
                (x, y),
                (-6, 5),
                textcoords="offset points",
                ha="right",
                color=MUTED,
                fontsize=10,
            )
        reach = [x for x, _, _ in bar]
        for index, model in enumerate(summary["models"]):
            if model["name"] != summary["baseline"] and model["kl"] is None:
                continue
            x = max(0.0, model["kl"]["value"]) ** 0.5 if model["kl"] else 0.0
            score, colour = model["scores"][name], SERIES[index % len(SERIES)]
            axes.plot([x, x], [score["low"], score["high"]], color=colour, linewidth=3)
            axes.plot(x, score["value"], "o", color=colour, markersize=7)
            above = (
                model["name"] != summary["baseline"]
            )  # the best-of-n line starts at the baseline and rises
            at, shift = (score["high"], 7) if above else (score["low"], -17)
            axes.annotate(
                model["label"], (x, at), (0, shift), textcoords="offset points", ha="center", weight="bold"
            )
            reach.append(x)
        axes.set_xlim(-0.15 * (max(reach) or 1), 1.15 * (max(reach) or 1))
        axes.margins(y=0.2)
        axes.set_xlabel(f"√KL from {_baseline(summary)['label']} (√nats per answer)")
        axes.set_ylabel(judge["label"])
        axes.tick_params(axis="y", labelcolor=MUTED)
        return as_svg(figure, f"kl-{re.sub('[^a-z0-9]', '', name.lower())}")


def _baseline(summary: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in summary["models"] if m["name"] == summary["baseline"])
    return found
