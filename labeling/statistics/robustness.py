"""How few votes hold the top model up: the smallest share found whose removal puts another model first.

By influence: leaving vote v out moves beta_top - beta_other by -c' H^-1 s_v (Broderick, Giordano and Meager 2020,
arXiv:2011.14999; for rankings of models Huang et al. 2025, arXiv:2508.11847). Votes are left out in the order of
their influence, and each number is confirmed by fitting what remains; so the answer is a number that does flip the
top, and at most slightly above the smallest one.
"""

from dataclasses import dataclass

import numpy as np

from palate.labeling.statistics.bradley_terry import Strengths, chances, refit
from palate.labeling.statistics.model_votes import Counts, Floats, Ints, by_pair, restrict

MOST = 0.1  # the largest share of votes that is tried
_NEAR = 8  # challengers whose influences are worked out, those that are fewest standard errors away
_OTHERS = 3  # challengers whose number is confirmed, those that influence foretells to be quickest
_FINE = 200  # the number is exact to a part in this


@dataclass(frozen=True)
class Dropped:
    """Votes of one kind that were left out."""

    winner: int  # model; of a tie either
    loser: int
    tie: bool
    votes: int


@dataclass(frozen=True)
class Flip:
    """A removal that changes the top."""

    top: int  # model
    other: int  # the model that comes first instead
    votes: int  # left out
    share: float  # of all votes between scored models
    dropped: tuple[Dropped, ...]  # most first


def smallest_flip(fit: Strengths, counts: Counts) -> Flip | None:
    """The smallest removal found of at most `MOST` of the votes that were fitted; None if none changes the top."""
    scored = np.flatnonzero(fit.scored)
    if len(scored) < 2:
        return None
    pairs = restrict(by_pair(counts), fit.scored)
    beta, total = fit.beta[scored], float(pairs.votes.sum())
    top = int(beta.argmax())
    inverse = fit.inverse[np.ix_(np.append(scored, len(fit.beta)), np.append(scored, len(fit.beta)))]
    gaps = [fit.difference(int(scored[top]), int(other)) for other in scored]
    by_errors = np.argsort([gap / max(se, 1e-12) for gap, se in gaps], kind="stable")
    others = [int(other) for other in by_errors if other != top][:_NEAR]
    plans = [_plan(pairs, beta, fit.nu, inverse, top, other) for other in others]
    plans = sorted(plans, key=lambda plan: plan.needed)[:_OTHERS]
    best: Flip | None = None
    for plan in plans:
        if best and plan.needed > 2 * best.votes:
            continue
        most = int(MOST * total) if best is None else best.votes - 1
        votes = _fewest(fit, pairs, top, plan, most)
        if votes is not None:
            first = int(scored[refit(fit, plan.without(pairs, votes)).argmax()])
            best = Flip(
                int(scored[top]), first, votes, votes / total, _named(pairs, scored, plan.taken(votes))
            )
    return best


@dataclass(frozen=True)
class _Plan:
    """Kinds of votes (pair and outcome) in the order in which they are left out."""

    order: Ints  # (kinds,) 3 * pair + outcome
    room: Ints  # (kinds,) votes of the kind
    needed: float  # votes that influence foretells are needed

    def taken(self, votes: int) -> dict[int, int]:
        """kind -> votes left out."""
        before = np.cumsum(self.room) - self.room
        some = np.clip(votes - before, 0, self.room)
        return {int(kind): int(n) for kind, n in zip(self.order, some, strict=True) if n}

    def without(self, pairs: Counts, votes: int) -> Counts:
        """What remains."""
        table = np.stack([pairs.a_wins, pairs.b_wins, pairs.ties], axis=1)
        before = np.cumsum(self.room) - self.room
        table.ravel()[self.order] -= np.clip(votes - before, 0, self.room)
        rest = Counts(pairs.models, pairs.a, pairs.b, *table.T.copy())
        return rest.rows(rest.votes > 0)


def _plan(pairs: Counts, beta: Floats, nu: float, inverse: Floats, top: int, other: int) -> _Plan:
    lead, tie = chances(beta[pairs.a] - beta[pairs.b], nu)
    pull = inverse[top] - inverse[other]  # c' H^-1
    across = (pull[pairs.a] - pull[pairs.b])[:, None] / 2
    scores = np.stack([1 - lead, -1 - lead, -lead], axis=1)
    of_ties = np.stack([-tie, -tie, 1 - tie], axis=1) if nu else np.zeros_like(scores)
    influence = (across * scores + pull[-1] * of_ties).ravel()
    room = np.stack([pairs.a_wins, pairs.b_wins, pairs.ties], axis=1).ravel().astype(np.int64)
    useful = np.flatnonzero((influence > 0) & (room > 0))
    order = useful[np.argsort(-influence[useful], kind="stable")]
    falls = np.cumsum(influence[order] * room[order])
    gap = beta[top] - beta[other]
    at = int(np.searchsorted(falls, gap))
    if at == len(order):
        return _Plan(order, room[order], np.inf)
    rest = gap - (falls[at - 1] if at else 0.0)
    return _Plan(order, room[order], float(room[order][:at].sum() + rest / influence[order[at]]))


def _fewest(fit: Strengths, pairs: Counts, top: int, plan: _Plan, most: int) -> int | None:
    """The fewest votes, in the plan's order, without which `top` isn't first; None if `most` are not enough."""
    most = min(most, int(plan.room.sum()))

    def flips(votes: int) -> bool:
        beta = refit(fit, plan.without(pairs, votes), tolerance=1e-5)  # Newton's error is its square
        return bool(beta.max() > beta[top] + 1e-9)

    low, high = 0, max(1, int(min(plan.needed, most)))  # `low` doesn't flip, `high` has to be tried
    while high <= most and not flips(high):
        low, high = high, most if 2 * high > most > high else 2 * high
    if high > most:
        return None
    while high - low > max(1, high // _FINE):
        # influence foretells well, so look near it first
        near = int(0.95 * high)
        middle = near if low < near and low == 0 else (low + high) // 2
        low, high = (low, middle) if flips(middle) else (middle, high)
    return high


def _named(pairs: Counts, scored: Ints, taken: dict[int, int]) -> tuple[Dropped, ...]:
    found = []
    for kind, votes in taken.items():
        pair, outcome = divmod(kind, 3)
        ends = int(scored[pairs.a[pair]]), int(scored[pairs.b[pair]])
        winner, loser = ends[::-1] if outcome == 1 else ends
        found.append(Dropped(winner, loser, outcome == 2, votes))
    return tuple(sorted(found, key=lambda kind: -kind.votes))
