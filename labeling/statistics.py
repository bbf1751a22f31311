"""What the votes say: progress, verdicts, time, side and length bias, agreement, win rates. Never mixed kinds.

Votes of people, rules and models stand apart in every figure. All figures count current votes only: a vote
that was taken back and given again counts once. Agreement is computed on completions, not on sides, so the
order on the screen does not matter; with two labels, guessing would agree half of the time.

    palate stats            tables
    palate stats --json     the same as JSON
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from palate.config import StatsConfig
from palate.data.store import Store
from palate.labeling.measures import Agreement, Share, agreement, clustered_share
from palate.project import Project

KINDS = ("human", "rule", "model")
VERDICTS = ("ranked", "tie", "all_bad", "skip")


@dataclass(frozen=True)
class AnnotatorRow:
    """One annotator's votes; `seconds` is the median of active seconds, None when not measured."""

    name: str
    votes: int
    verdicts: dict[str, int]
    seconds: float | None
    first_wins: Share
    longer_wins: Share


@dataclass(frozen=True)
class KindReport:
    """Everything about the votes of one kind of annotator."""

    kind: str
    votes: int
    verdicts: dict[str, int]
    seconds: float | None
    days: list[tuple[str, int]]  # (UTC day, votes), in order
    annotators: list[AnnotatorRow]
    first_wins: Share  # share of decisive pairs won by the answer shown first; 50 % is no bias
    longer_wins: (
        Share  # share of decisive pairs won by the longer answer (characters; equal lengths left out)
    )
    agreement: Agreement
    models: list[tuple[str, Share]]  # win rate against the other models; ties count half


SHOWN = 20  # annotators that `palate stats` prints one by one

_VOTES = """
SELECT annotator_kind AS kind, annotator_id, annotator_name AS name, id, verdict,
       coalesce(seconds_active, seconds_visible) AS seconds,
       strftime(created_at, '%Y-%m-%d') AS day
FROM current_vote ORDER BY created_at, id
"""

_PAIRS = """
SELECT p.vote_id, p.annotator_kind AS kind, p.annotator_id, p.comparison_id, p.winner, p.loser, p.tie,
       p.winner_shown_first AS first, length(w.text) - length(l.text) AS longer, w.model AS winner_model,
       l.model AS loser_model
FROM preference p JOIN completion w ON w.id = p.winner JOIN completion l ON l.id = p.loser
ORDER BY p.vote_id, p.winner, p.loser
"""


def report(store: Store) -> dict[str, Any]:
    """All figures as plain values: totals, and one entry per kind of annotator that has voted."""
    counts = store.counts()
    votes, pairs = store.rows(_VOTES), store.rows(_PAIRS)
    kinds = []
    for kind in KINDS:
        mine = [vote for vote in votes if vote["kind"] == kind]
        if mine:
            kinds.append(asdict(_kind_report(kind, mine, [pair for pair in pairs if pair["kind"] == kind])))
    answered = store.value("SELECT count(DISTINCT comparison_id) FROM current_vote WHERE verdict <> 'skip'")
    return {
        "comparisons": counts["comparison"],
        "answered": int(answered),
        "votes": len(votes),
        "superseded": counts["vote"] - len(votes),
        "kinds": kinds,
    }


def run_stats(project: Project, config: StatsConfig) -> None:
    """`palate stats`: print the report as tables or as JSON."""
    with project.store() as store:
        found = report(store)
    if config.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_report(found)


def print_report(found: dict[str, Any]) -> None:
    """The report as text for a terminal."""
    print(f"{found['votes']} votes on {found['answered']} of {found['comparisons']} comparisons", end="")
    print(f"; {found['superseded']} earlier votes were changed" if found["superseded"] else "")
    if not found["votes"]:
        print("no votes yet: rank some with `palate label`, or let rules vote with `palate simulate`")
    for kind in found["kinds"]:
        print(f"\n{kind['kind']} votes: {kind['votes']}")
        verdicts = ", ".join(
            f"{name} {share_of(n, kind['votes'])}" for name, n in kind["verdicts"].items() if n
        )
        print(f"  verdicts          {verdicts}")
        if kind["seconds"] is not None:
            print(f"  median time       {kind['seconds']:.0f} s")
        print(f"  shown first wins  {show(kind['first_wins'], 'pairs')}")
        print(f"  longer one wins   {show(kind['longer_wins'], 'pairs')}")
        print(f"  agreement         {show_agreement(kind['agreement'])}")
        print("  annotators")
        for row in kind["annotators"][:SHOWN]:
            pace = f"{row['seconds']:4.0f} s" if row["seconds"] is not None else "   - s"
            bias = show(row["first_wins"], "pairs")
            print(f"    {row['name']:<32.32} {row['votes']:>5} votes  {pace}  first wins {bias}")
        if len(kind["annotators"]) > SHOWN:
            print(
                f"    and {len(kind['annotators']) - SHOWN} more with fewer votes (all: palate stats --json)"
            )
        print("  models (win rate against the others, ties count half)")
        for name, share in kind["models"]:
            print(f"    {name:<20.40} {show(share, 'pairs')}")
        if not kind["models"]:
            print("    all answers come from one model, so there is nothing to compare")


def show(share: dict[str, Any], unit: str) -> str:
    """A share as text: `57.1 % (95 %: 51.0 to 63.0, n = 260 pairs)`, or why there is none."""
    if share["value"] is None:
        return f"not known: {share['why']}"
    if share["low"] is None:
        return f"{share['value']:.1%} (n = {share['n']} {unit}; {share['why']})"
    interval = f"{100 * share['low']:.1f} to {100 * share['high']:.1f}"
    return f"{share['value']:.1%} (95 %: {interval}, n = {share['n']} {unit})"


def show_agreement(found: dict[str, Any]) -> str:
    """Agreement as text: raw percent beside what is left beyond chance."""
    if found["percent"]["value"] is None:
        return f"not known: {found['percent']['why']}"
    alpha = (
        f"alpha {found['alpha']:.2f}"
        if found["alpha"] is not None
        else f"alpha not known: {found['alpha_why']}"
    )
    return f"{show(found['percent'], 'comparisons')}; {alpha}"


def share_of(part: int, whole: int) -> str:
    """`12 %`."""
    return f"{part / whole:.0%}" if whole else "-"


def _kind_report(kind: str, votes: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> KindReport:
    decided_by = _by_annotator(pairs)
    rows = []
    for person, cast in _by_annotator(votes).items():
        decided = decided_by.get(person, [])
        name, seconds = str(cast[0]["name"]), _median_seconds(cast)
        rows.append(
            AnnotatorRow(
                name, len(cast), _verdicts(cast), seconds, _first_wins(decided), _longer_wins(decided)
            )
        )
    days: dict[str, int] = {}
    for vote in votes:
        days[vote["day"]] = days.get(vote["day"], 0) + 1
    return KindReport(
        kind=kind,
        votes=len(votes),
        verdicts=_verdicts(votes),
        seconds=_median_seconds(votes),
        days=sorted(days.items()),
        annotators=sorted(rows, key=lambda row: (-row.votes, row.name)),
        first_wins=_first_wins(pairs),
        longer_wins=_longer_wins(pairs),
        agreement=agreement([_label(pair) for pair in pairs]),
        models=_models(pairs),
    )


def _by_annotator(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    people: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        people.setdefault(row["annotator_id"], []).append(row)
    return people


def _verdicts(votes: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {verdict: sum(vote["verdict"] == verdict for vote in votes) for verdict in VERDICTS}


def _median_seconds(votes: Sequence[dict[str, Any]]) -> float | None:
    measured = [
        vote["seconds"] for vote in votes if vote["seconds"] is not None and vote["verdict"] != "skip"
    ]
    return round(median(measured), 1) if measured else None


def _label(pair: dict[str, Any]) -> tuple[str, str, str, str]:
    """(comparison, pair, annotator, label): the label names a completion or says tie, never a side."""
    key = " ".join(sorted((pair["winner"], pair["loser"])))
    return pair["comparison_id"], key, pair["annotator_id"], "tie" if pair["tie"] else _place(pair, key)


def _place(pair: dict[str, Any], key: str) -> str:
    # ids are digests, so "first by id" says nothing about what is in it and chance is 1/2
    return "first" if key.startswith(pair["winner"]) else "second"


def _by_vote(hits: Sequence[tuple[str, float]], nothing: str) -> Share:
    clusters: dict[str, tuple[float, int]] = {}
    for vote, hit in hits:
        k, m = clusters.get(vote, (0.0, 0))
        clusters[vote] = (k + hit, m + 1)
    return clustered_share(list(clusters.values()), nothing)


def _first_wins(pairs: Sequence[dict[str, Any]]) -> Share:
    # an imported vote whose file did not say what was shown first has no side
    hits = [
        (pair["vote_id"], float(pair["first"]))
        for pair in pairs
        if not pair["tie"] and pair["first"] is not None
    ]
    return _by_vote(hits, "no decisive vote whose display order is known yet")


def _longer_wins(pairs: Sequence[dict[str, Any]]) -> Share:
    hits = [
        (pair["vote_id"], float(pair["longer"] > 0)) for pair in pairs if not pair["tie"] and pair["longer"]
    ]
    return _by_vote(hits, "no decisive vote on answers of different length yet")


def _models(pairs: Sequence[dict[str, Any]]) -> list[tuple[str, Share]]:
    hits: dict[str, list[tuple[str, float]]] = {}
    for pair in pairs:
        won, lost = pair["winner_model"], pair["loser_model"]
        if won != lost:
            hits.setdefault(won, []).append((pair["vote_id"], 0.5 if pair["tie"] else 1.0))
            hits.setdefault(lost, []).append((pair["vote_id"], 0.5 if pair["tie"] else 0.0))
    shares = [(name or "(no name)", _by_vote(rows, "")) for name, rows in hits.items()]
    return sorted(shares, key=lambda row: (-(row[1].value or 0.0), row[0]))
