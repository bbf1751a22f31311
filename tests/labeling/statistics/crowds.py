"""Simulated annotators: who votes on which pair of completions, and how; and their votes as facts.

Of each pair one completion is the better one, a with the probability that the models' (or the completions') strengths
give: 1 / (1 + exp(-margin)). An annotator names it with probability eta. 4 of the 10 in `BAD` are no good.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import rankdata

from palate.data.facts import Facts
from palate.labeling.statistics.reliability import Decisions

GOOD, NOISY, SPAMMER, ADVERSARY = 0.95, 0.75, 0.5, 0.05
BAD = np.array([GOOD] * 6 + [NOISY, NOISY, SPAMMER, ADVERSARY])
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Crowd:
    """Who sees what. U = pairs, V = votes."""

    unit: Ints  # (V,)
    annotator: Ints  # (V,)
    model_a: Ints  # (U,)
    model_b: Ints  # (U,)
    margin: Floats  # (U,) log-odds that a is better
    annotators: int

    def decisions(self, a_wins: NDArray[np.bool_]) -> Decisions:
        """Votes as `reliability` takes them."""
        ones = np.ones(len(self.unit))
        return Decisions(self.unit, self.annotator, a_wins, ones, len(self.margin), self.annotators)


def crowd(
    rng: np.random.Generator,
    annotators: int,
    votes: int,
    overlap: int,
    spread: float,
    models: int = 8,
    rewards: bool = False,
) -> Crowd:
    """`votes` each (about), `overlap` on each pair. Models' strengths have the standard deviation `spread`; with
    `rewards` each completion has its own."""
    units = annotators * votes // overlap
    a = rng.integers(0, models, units)
    b = (a + rng.integers(1, models, units)) % models
    strength = rng.normal(0, spread, models)
    margin = rng.normal(0, spread * np.sqrt(2), units) if rewards else strength[a] - strength[b]
    turns = np.concatenate([rng.permutation(annotators) for _ in range(votes + 2)])[: units * overlap]
    unit = np.repeat(np.arange(units), overlap)
    # where one shuffled round of annotators meets the next, the same one may come twice
    first = np.unique(unit * annotators + turns, return_index=True)[1]
    return Crowd(unit[first], turns[first], a, b, margin, annotators)


def votes(rng: np.random.Generator, who: Crowd, eta: Floats) -> NDArray[np.bool_]:
    """(V,) whether a is voted for."""
    better = rng.random(len(who.margin)) < expit(who.margin)
    right = rng.random(len(who.unit)) < eta[who.annotator]
    return np.asarray(better[who.unit] == right)


def auc(score: Floats, bad: NDArray[np.bool_]) -> float:
    """How probably a bad annotator has a higher score than a good one."""
    ranks, n = rankdata(score), int(bad.sum())
    return float((ranks[bad].sum() - n * (n + 1) / 2) / (n * (~bad).sum()))


def put(facts: Facts, who: Crowd, won: Ints, **ballots: object) -> None:
    """Votes (V,) 1 for a, 0 tie, -1 for b, as the only facts; `ballots` gives columns of ballot and judgement, each
    (V,) or one value, e.g. seconds as `active`."""
    people, units, n = who.annotators, len(who.margin), len(won)
    models = int(max(who.model_a.max(initial=0), who.model_b.max(initial=0))) + 1
    shared = {
        "vote": np.random.default_rng(n).integers(0, 2**64, n, dtype=np.uint64),
        "annotator": who.annotator,
        "item": who.unit,
        "kind": 0,
        "source": 0,
        "purpose": 0,
        "selected": False,
        "again": False,
        "adjudicated": False,
        "day": np.datetime64("2026-08-01"),
    }
    moment = np.datetime64("2026-08-01T00:00:00") + np.arange(n).astype("timedelta64[s]")
    at = np.arange(units)
    tables = {
        "annotator": {
            "code": np.arange(people),
            "id": np.array([f"id {k}" for k in range(people)]),
            "name": np.array([f"Person {k}" for k in range(people)]),
            "kind": "human",
            "role": "annotator",
        },
        "model": {"code": np.arange(models), "name": np.array([f"model {m}" for m in range(models)])},
        "source": {"code": np.arange(1), "name": "here"},
        "item": {
            "code": at,
            "id": np.array([f"item {u}" for u in at]),
            "prompt": np.array([f"prompt {u}" for u in at]),
            "source": 0,
            "purpose": "train",
            "strategy": "random",
            "answers": 2,
        },
        "unit": {
            "code": at,
            "item": at,
            "model_a": who.model_a,
            "model_b": who.model_b,
            "log_length": np.random.default_rng(units).normal(0, 0.5, units),
        },
        "ballot": {
            **shared,
            "verdict": np.where(won == 0, 1, 0),
            "answers": 2,
            "visible": 30.0,
            "active": np.random.default_rng(n + 1).lognormal(3, 0.5, n),
            "rationale": False,
            "flagged": False,
            "moment": moment,
        },
        "judgement": {
            **shared,
            "unit": who.unit,
            "grade": 2 * won,
            "a_first": np.random.default_rng(n + 2).random(n) < 0.5,
            "of": 1,
        },
    }
    for name, columns in tables.items():
        if name in ("ballot", "judgement"):
            known = {row["column_name"] for row in facts.rows(f"DESCRIBE {name}")}
            columns = columns | {key: value for key, value in ballots.items() if key in known}
        rows = len(next(value for value in columns.values() if np.ndim(value)))
        filled = {key: value if np.ndim(value) else np.full(rows, value) for key, value in columns.items()}
        facts._con.execute(f"DELETE FROM {name}")
        facts._con.register("rows", pa.table({key: pa.array(value) for key, value in filled.items()}))
        facts._con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM rows")
        facts._con.unregister("rows")
    facts.version += "+"
