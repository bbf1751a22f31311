"""How models stand by the votes of a scope: what the panels of Models share, computed once until a vote comes in."""

from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.bradley_terry import Strengths, clustered, davidson, elo, ranks
from palate.labeling.statistics.formatting import number
from palate.labeling.statistics.model_votes import Bools, Counts, Floats, Ints, by_pair
from palate.labeling.statistics.panels import Cell
from palate.labeling.statistics.resampling import LEAST
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.tallies import tallies
from palate.labeling.statistics.win_rates import WinRates, win_rates

MOST = 400  # models that are compared: those with most votes


@dataclass(frozen=True)
class Standing:
    """Models that have votes, numbered from 0. M = models, R = judged pairs of completions."""

    names: tuple[str, ...]  # (M,)
    code: Ints  # (M,) codes in the facts
    votes: Counts  # (R,) by pair of completions, those of one model too
    item: Ints  # (R,) codes
    style: Floats  # (R, 4) of a against b: length, headers, lists, bold
    pairs: Counts  # by pair of models
    fit: Strengths  # Davidson's; the votes on one item hang together
    won: WinRates
    left_out: int  # models beyond MOST

    @property
    def order(self) -> list[int]:
        """The scored models, best first."""
        return [int(model) for model in np.argsort(-self.fit.beta, kind="stable") if self.fit.scored[model]]

    @property
    def sure(self) -> Bools:
        """(M,) scored, and with votes on enough items for an interval."""
        return self.fit.scored & (self.won.items >= LEAST)

    @property
    def between(self) -> int:
        """Votes between two different models."""
        return int(self.pairs.votes.sum())

    def href(self, model: int) -> str:
        """The query of Data that lists a model's items."""
        return "?" + urlencode({"model": self.names[model]})

    def named(self, model: int) -> str:
        """A model's name, also where it has none."""
        return self.names[model] or "(no name)"


_PAIRS = """
SELECT j.model_a, j.model_b, count(*) FILTER (grade > 0)::DOUBLE AS a_wins,
       count(*) FILTER (grade < 0)::DOUBLE AS b_wins, count(*) FILTER (grade = 0)::DOUBLE AS ties
FROM judgement j WHERE {where} AND NOT again AND NOT adjudicated GROUP BY ALL
"""


def strengths(facts: Facts, scope: Scope) -> Strengths:
    """Of all models, by their codes in the facts, each vote on its own: straight from the judgements."""
    where, params = scope.where("j")
    found = facts.columns(_PAIRS.format(where=where), params)
    models = int(facts.value("SELECT count(*) FROM model"))
    a, b = (np.asarray(found[end]).astype(np.int64) for end in ("model_a", "model_b"))
    wins = [np.asarray(found[of]) for of in ("a_wins", "b_wins", "ties")]
    return davidson(Counts(models, a, b, *wins))


def standing(facts: Facts, scope: Scope) -> Standing:
    """Of the votes of a scope."""
    return facts.remember(("standing", scope), lambda: _standing(facts, scope))


def _standing(facts: Facts, scope: Scope) -> Standing:
    found = tallies(facts, scope)
    every = [str(row["name"]) for row in facts.rows("SELECT name FROM model ORDER BY code")]
    a, b = found.model_a.astype(np.int64), found.model_b.astype(np.int64)
    size = found.counts.sum(1)
    of_model = np.bincount(a, size, len(every)) + np.bincount(b, size, len(every))
    present = np.flatnonzero(of_model)
    code = np.sort(present[np.argsort(-of_model[present], kind="stable")][:MOST])
    at = np.full(len(every), -1)
    at[code] = np.arange(len(code))
    keep = (at[a] >= 0) & (at[b] >= 0)
    wins = [of[keep].astype(np.float64) for of in (found.a_wins, found.b_wins, found.ties)]
    votes = Counts(len(code), at[a[keep]], at[b[keep]], *wins)
    item, pairs = found.item[keep].astype(np.int64), by_pair(votes)
    return Standing(
        tuple(every[one] for one in code),
        code,
        votes,
        item,
        found.style[keep],
        pairs,
        clustered(davidson(pairs), votes, item),
        win_rates(votes, item),
        len(present) - len(code),
    )


# -- figures as cells ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """beta in points, with intervals and the ranks that they leave open; None where there is no interval."""

    value: list[float]  # (M,)
    low: list[float | None]
    high: list[float | None]
    best: list[int | None]
    worst: list[int | None]

    def cells(self, model: int, key: str = "score") -> dict[str, Cell]:
        """The score and its interval under `key`."""
        return {key: self.value[model], f"{key}_low": self.low[model], f"{key}_high": self.high[model]}

    def ranks(self, model: int, key: str = "rank") -> dict[str, Cell]:
        """The ends of the range of ranks."""
        return {f"{key}_best": self.best[model], f"{key}_worst": self.worst[model]}


def scores(beta: Floats, low: Floats, high: Floats, scored: Bools, sure: Bools) -> Scores:
    """In points. A model without an interval may stand anywhere, so it leaves all ranks open."""
    ends = np.where(sure, low, -np.inf)[scored], np.where(sure, high, np.inf)[scored]
    places = np.zeros((2, len(beta)), dtype=np.int64)
    places[:, scored] = ranks(*ends)
    value, under, over = (elo(part) for part in (beta, low, high))
    return Scores(
        [float(x) for x in value],
        [float(x) if s else None for x, s in zip(under, sure, strict=True)],
        [float(x) if s else None for x, s in zip(over, sure, strict=True)],
        [int(x) if s else None for x, s in zip(places[0], sure, strict=True)],
        [int(x) if s else None for x, s in zip(places[1], sure, strict=True)],
    )


def of_fit(found: Standing) -> Scores:
    """The scores of the fit itself."""
    return scores(found.fit.beta, found.fit.low, found.fit.high, found.fit.scored, found.sure)


# -- words -----------------------------------------------------------------------------------------------------


def missing(found: Standing) -> str:
    """What is needed before models can be compared; empty when they can."""
    models = len(found.names)
    if not models:
        return f"No vote on a pair of answers yet: votes on {LEAST} items with answers of two models give a first order."
    if models == 1:
        which = f"one model ({found.names[0]})" if found.names[0] else "one model without a name"
        return (
            f"All answers that were voted on come from {which}, so there is nothing to compare. Items with answers of two "
            "models or more change that."
        )
    if not found.between:
        return f"No vote compares answers of two of the {models} models yet."
    if not found.fit.scored.any():
        return "Every vote between two models is a tie, so nothing orders them yet."
    return ""


def listed(names: list[str], most: int = 3) -> str:
    """`a, b and c`, or `a, b, c and 4 more`."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {number(len(names) - most)} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
