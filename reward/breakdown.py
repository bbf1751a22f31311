"""Where a reward is better and worse: accuracy by source, difference of length, annotator and strength.

Works on rows of data.preferences and scores per row, as accuracy.py does. `leave_out` asks, on frozen features, whether
votes of some annotators are foretold by the votes of all others.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.linear_head import LinearHead
from palate.reward.accuracy import Accuracy, accuracy

FEWEST = 10  # pairs, below which a cell says nothing
MOST_CELLS = 8  # of one kind, the largest; the others are one
FOLDS = 5
Row = dict[str, Any]
Pair = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """Pairs of one kind; `found` is None where they are fewer than FEWEST."""

    by: str
    name: str
    pairs: int
    found: Accuracy | None


@dataclass(frozen=True)
class Outsider:
    """How often a linear head foretells some annotators' votes, 0..1; both heads have seen equally many votes."""

    name: str
    votes: int  # judged
    without: float  # learned from everybody else
    among: float  # learned from everybody


@dataclass(frozen=True)
class Breakdown:
    """Cells and, where there are several annotators, what each is like to the others."""

    cells: tuple[Cell, ...]
    outsiders: tuple[Outsider, ...] = ()

    def record(self) -> dict[str, Any]:
        """Plain values for a run's record."""
        return {
            "cells": [asdict(cell) for cell in self.cells],
            "outsiders": [asdict(one) for one in self.outsiders],
        }

    def lines(self) -> list[str]:
        """For the page and the report."""
        made, wide = [], max((len(cell.name) for cell in self.cells), default=0)
        for place, cell in enumerate(self.cells):
            if place == 0 or self.cells[place - 1].by != cell.by:
                made.append(f"by {cell.by}")
            said = f"too few pairs ({cell.pairs})" if cell.found is None else (
                f"{cell.found.scores}; the longer one wins: {cell.found.longer} ({cell.pairs} pairs)"
            )  # fmt: skip
            made.append(f"  {cell.name:<{wide}}  {said}")
        if self.outsiders:
            made.append(
                "foretold by a linear head that learned from all others, or from as many votes of everybody"
            )
            wide = max(len(one.name) for one in self.outsiders)
            made += [
                f"  {one.name:<{wide}}  {100 * one.without:.1f} %, {100 * one.among:.1f} % ({one.votes} votes)"
                for one in self.outsiders
            ]
        return made


def breakdown(
    rows: Sequence[Row],
    scores: Sequence[Sequence[float]],
    sources: Mapping[str, str],
    outsiders: Sequence[Outsider] = (),
    sorts: Mapping[str, str] | None = None,
) -> Breakdown | None:
    """None where nothing divides the decided pairs. `sources` by prompt id, a missing one is "unknown"; `sorts` (human,
    rule, model) by annotator id, a missing one is "several" (a view's majority); annotators go by their ids, since the
    run's files name nobody."""
    kinds: dict[str, Callable[[Row, Pair], str]] = {
        "source": lambda row, _: sources.get(row["prompt_id"], "") or "unknown",
        "length of the preferred answer": _length_bucket,
        "kind of annotator": lambda _, pair: (sorts or {}).get(str(pair["annotator_id"]), "several"),
        "annotator": lambda _, pair: str(pair["annotator_id"]),
        "strength": lambda _, pair: (
            "not said" if pair["strength"] is None else _STRENGTHS[min(pair["strength"], 3)]
        ),
    }
    cells = [cell for by, name_of in kinds.items() for cell in _cells(rows, scores, by, name_of)]
    return Breakdown(tuple(cells), tuple(outsiders)) if cells else None


def leave_out(rows: Sequence[Row], features: Mapping[str, NDArray[np.floating]]) -> tuple[Outsider, ...]:
    """For each annotator (the largest MOST_CELLS - 1, the others together) with FEWEST votes or more: how well votes
    of all others foretell theirs, on prompts that were not learned from, in FOLDS folds of groups. Empty where there is
    nobody to compare with."""
    pairs = [
        (row, pair) for row in rows for pair in row["pairs"]
        if not pair["tie"] and all(one in features for one in row["completion_ids"])
    ]  # fmt: skip
    if not pairs:
        return ()
    who = _merged([pair["annotator_id"] for _, pair in pairs])
    z = np.array([
        np.asarray(features[row["completion_ids"][pair["winner"]]], np.float64)
        - features[row["completion_ids"][pair["loser"]]]
        for row, pair in pairs
    ])  # fmt: skip
    weight = np.array([pair["weight"] for _, pair in pairs])
    fold = np.array([hashlib.sha256(f"fold:{row['group']}".encode()).digest()[0] % FOLDS for row, _ in pairs])
    found = []
    for name in sorted(set(who)):
        mine = np.array([one == name for one in who])
        if mine.sum() < FEWEST or mine.all() or (~mine).sum() < FEWEST:
            continue
        right, judged = np.zeros(2), 0
        for part in range(FOLDS):
            test, others, everybody = mine & (fold == part), ~mine & (fold != part), fold != part
            if test.any() and others.any():
                right += (
                    _right(z, weight, others, test),
                    _right(z, weight, _as_many(everybody, int(others.sum())), test),
                )
                judged += int(test.sum())
        if judged < FEWEST:  # their prompts are nearly all in one fold: no other votes to learn from
            continue
        without, among = right / judged
        shown = "the others" if name == _OTHERS else name
        found.append(Outsider(shown, judged, float(without), float(among)))
    return tuple(sorted(found, key=lambda one: one.without - one.among))


_STRENGTHS = ("hardly better", "a little better", "better", "much better")
_OTHERS = "\0others"


def _length_bucket(row: Row, pair: Pair) -> str:
    winner, loser = (len(row["completions"][pair[side]]) for side in ("winner", "loser"))
    ratio = (winner + 1) / (loser + 1)
    if ratio > 1.5:
        return "much longer (over 1.5 times)"
    if ratio > 1.1:
        return "longer"
    if ratio >= 1 / 1.1:
        return "about as long"
    return "shorter" if ratio >= 1 / 1.5 else "much shorter"


def _cells(
    rows: Sequence[Row], scores: Sequence[Sequence[float]], by: str, name_of: Callable[[Row, Pair], str]
) -> list[Cell]:
    decided = [name_of(row, pair) for row in rows for pair in row["pairs"] if not pair["tie"]]
    merged = dict(zip(decided, _merged(decided), strict=True))
    order = {
        name: None
        for name in sorted(merged.values(), key=lambda one: (one == _OTHERS, -decided.count(one), one))
    }
    if len(order) < 2:
        return []
    made = []
    for name in order:
        kept = [
            {**row, "pairs": [p for p in row["pairs"] if not p["tie"] and merged[name_of(row, p)] == name]}
            for row in rows
        ]
        some = [i for i, row in enumerate(kept) if row["pairs"]]
        count = sum(len(kept[i]["pairs"]) for i in some)
        found = accuracy([kept[i] for i in some], [scores[i] for i in some]) if count >= FEWEST else None
        made.append(Cell(by, "all others" if name == _OTHERS else name, count, found))
    return made


def _merged(names: Sequence[str]) -> list[str]:
    """The same, but where there are more than MOST_CELLS the smaller ones have one name."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    if len(counts) <= MOST_CELLS:
        return list(names)
    kept = set(sorted(counts, key=lambda name: (-counts[name], name))[: MOST_CELLS - 1])
    return [name if name in kept else _OTHERS for name in names]


def _as_many(among: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """`count` of those that are true, by chance."""
    places = np.flatnonzero(among)
    chosen = np.zeros(len(among), dtype=bool)
    chosen[np.random.default_rng(0).choice(places, min(count, len(places)), replace=False)] = True
    return chosen


def _right(
    z: NDArray[np.float64], weight: NDArray[np.float64], learned: NDArray[np.bool_], test: NDArray[np.bool_]
) -> float:
    """How many of `test` a head that learned from `learned` gets right."""
    head = LinearHead.by_evidence(z[learned], np.ones(int(learned.sum())), weight[learned])
    margin = z[test] @ head.mean
    return float(((margin > 0) + 0.5 * (margin == 0)).sum())
