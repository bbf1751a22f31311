"""How sure strengths are if other people had voted: intervals that let all votes of one annotator hang together.

Annotators who share a taste make votes that resemble each other beyond the items they are on. So the sandwich sums
scores by annotator here (Liang and Zeger 1986), over votes in chunks, as ten million need not be held at once.
"""

from dataclasses import replace

import numpy as np

from palate.data.facts import Facts
from palate.labeling.statistics.bradley_terry import Strengths, chances
from palate.labeling.statistics.model_votes import Floats, Ints
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.standing import Standing
from palate.labeling.statistics.tallies import tallies

_CHUNK = 1_000_000  # votes

_VOTES = """
SELECT j.annotator, j.unit, sign(j.grade)::TINYINT AS won FROM judgement j
WHERE {where} AND NOT j.again AND NOT j.adjudicated
"""


def by_annotator(facts: Facts, scope: Scope, found: Standing) -> tuple[Strengths, int]:
    """(the same fit with intervals by annotator, how many annotators there are)."""
    pairs = tallies(facts, scope)
    at = np.full(max(int(pairs.unit.max(initial=0)), 0) + 1, -1)
    at[pairs.unit] = np.arange(len(pairs.unit))
    code = np.full(int(max(pairs.model_a.max(initial=0), pairs.model_b.max(initial=0))) + 1, -1)
    code[found.code] = np.where(found.fit.scored, np.arange(len(found.code)), -1)
    a, b = code[pairs.model_a], code[pairs.model_b]
    where, params = scope.where("j")
    votes = facts.columns(_VOTES.format(where=where), params)
    annotator = np.asarray(votes["annotator"])
    people = np.bincount(annotator)  # those without a vote add nothing
    sums = np.zeros((len(people), len(found.code) + 1))
    for start in range(0, len(annotator), _CHUNK):
        cut = slice(start, start + _CHUNK)
        row = at[np.asarray(votes["unit"][cut])]
        known = (a[row] >= 0) & (b[row] >= 0) & (a[row] != b[row])
        row, won = row[known], np.asarray(votes["won"][cut])[known].astype(np.float64)
        sums += _scores(found.fit, a[row], b[row], won, annotator[cut][known], len(people))
    number = int((people > 0).sum())
    return _with_clusters(found.fit, sums, number), number


def _scores(fit: Strengths, a: Ints, b: Ints, won: Floats, annotator: Ints, people: int) -> Floats:
    """(people, M + 1) sums of the votes' scores; won: 1 for a, -1 for b, 0 for neither."""
    models = len(fit.beta)
    lead, tie = chances(fit.beta[a] - fit.beta[b], fit.nu)
    score = (won - lead) / 2
    sums = np.zeros((people, models + 1))
    for end, sign in ((a, 1), (b, -1)):
        added = np.bincount(annotator * models + end, sign * score, people * models)
        sums[:, :models] += added.reshape(people, models)
    if fit.nu:
        sums[:, models] = np.bincount(annotator, (won == 0) - tie, people)
    return sums


def _with_clusters(fit: Strengths, sums: Floats, number: int) -> Strengths:
    """The fit with the sandwich of so many clusters' sums of scores, (C, M + 1)."""
    cov = fit.inverse @ (sums.T @ sums * (number / max(number - 1, 1)) + fit.floor) @ fit.inverse
    variance = max(float(cov[-1, -1]), 0.0)
    return replace(fit, cov=cov[:-1, :-1], log_nu_se=variance**0.5 if fit.nu else None)
