"""Panels made by hand, one of each shape and with names that try to break out, for tests of what shows them."""

import math

from palate.labeling.statistics.panels import (
    Column,
    Figure,
    Heat,
    Histogram,
    Intervals,
    Lines,
    Panel,
    Section,
    Table,
)

EVIL = "<img src=x onerror=alert(1)>\"'`{{7*7}}$x$\x1b[31m"
MODELS = ["gpt-large", "claude-mid", "qwen-7b-chat-instruct-very-long-name", EVIL, "llama", "大模型", "tiny"]

STRENGTH = Panel(
    id="strength",
    question="Which model is better, how sure?",
    answer="gpt-large leads with 1,112 (95 %: 1,080 to 1,144); its interval is clear of all but claude-mid.",
    read="Intervals that don't overlap differ; 100 points are about 64 % of the comparisons won.",
    figures=(
        Figure("models", 7, of="models", unit="count"),
        Figure(
            "advantage of being shown first", 0.521, 0.502, 0.540, 12_345, unit="share", note="50 % is none"
        ),
        Figure("tie rate", None, why="no vote allowed a tie"),
    ),
    tables=(
        Table(
            (
                Column("rank", "rank", "count"),
                Column("model", "model"),
                Column("score", "score", "number", "low", "high", "1,000 is the mean of all models."),
                Column("won", "won", "share", "won_low", "won_high"),
                Column("votes", "votes", "count"),
            ),
            [
                {
                    "rank": i + 1,
                    "model": name,
                    "score": 1112.4 - 40.3 * i,
                    "low": 1080.0 - 40.3 * i,
                    "high": 1144.2 - 40.3 * i,
                    "won": 0.71 - 0.06 * i if i < 6 else None,
                    "won_low": 0.69 - 0.06 * i if i < 6 else None,
                    "won_high": 0.73 - 0.06 * i if i < 6 else None,
                    "votes": 12_345 - 1000 * i,
                    "href": f"?model={i}",
                }
                for i, name in enumerate(MODELS)
            ],
            caption="All models, best first",
        ),
    ),
    plots=(
        Intervals(
            MODELS,
            [1112.4 - 40.3 * i for i in range(7)],
            [1080.0 - 40.3 * i for i in range(6)] + [None],
            [1144.2 - 40.3 * i for i in range(6)] + [None],
            "score (1,000 is the mean)",
            reference=1000.0,
            reference_label="mean",
        ),
        Heat(
            MODELS,
            MODELS,
            [
                [None if i == j else min(1.0, max(0.0, 0.5 + 0.07 * (j - i))) for j in range(7)]
                for i in range(7)
            ],
            "won by the row against the column",
        ),
    ),
    notes=("Models of rules and people are never mixed.",),
    href="?verdict=ranked",
)
PACE = Panel(
    id="pace",
    question="How long does an answer take?",
    answer="Half of the answers take less than 41 s.",
    read="The axis is logarithmic: each mark is about three times the one before.",
    figures=(Figure("median", 41.3, 39.0, 44.1, 1234, unit="seconds"),),
    plots=(
        Histogram(
            [0.5 * 1.35**i for i in range(31)],
            {
                "visible": [1000 * math.exp(-(((i - 16) / 5) ** 2)) for i in range(30)],
                "active": [800 * math.exp(-(((i - 14) / 4) ** 2)) for i in range(30)],
            },
            "time per answer",
            "seconds",
            log=True,
            mark=41.3,
            mark_label="median 41 s",
        ),
        Lines(
            [f"2026-0{m}-{d:02d}" for m in (7, 8) for d in range(1, 29)],
            {
                "anna": [40 + 20 * math.sin(i / 5) for i in range(56)],
                "bert": [30 + (i % 7) for i in range(56)],
            },
            "votes per day",
            bars=True,
        ),
        Lines([1.0, 2.0, 3.0, 4.0], {"share": [0.5, None, 0.7, 0.75]}, "agreement", "share"),
    ),
)
WAITING = Panel(
    id="alpha",
    question="Do people agree, more than chance?",
    missing="No item was answered by two people: 12 more items that two people answer would give a first figure.",
)
STAND_IN = Panel(
    id="bootstrap",
    question="Would the same models lead with other prompts?",
    answer="gpt-large leads in most resamples.",
    late=True,
)
WHOLE = Panel(
    id="bootstrap",
    question="Would the same models lead with other prompts?",
    answer="gpt-large leads in 97.2 % of 1,000 resamples of the items.",
    figures=(Figure("leads in", 0.972, 0.96, 0.98, 1000, "resamples", "share"),),
    read="Items are drawn anew, with all their votes; what changes the order then is too few items.",
)
LONG = Panel(
    id="people",
    question="Whom should I talk to?",
    answer="2 of 45 people stand out.",
    tables=(
        Table(
            (
                Column("name", "annotator", help="The name they log in with."),
                *(Column(f"c{i}", f"figure {i}", "share") for i in range(9)),
            ),
            [
                {"name": f"person {i}", **{f"c{j}": (i * 7 + j) % 10 / 10 for j in range(9)}}
                for i in range(45)
            ],
            total=5000,
        ),
    ),
)
SECTIONS = [
    Section("progress", "Progress", (PACE,)),
    Section("agreement", "Agreement", (WAITING,)),
    Section("annotators", "Annotators", (LONG,)),
    Section("models", "Models", (STRENGTH, STAND_IN)),
]
