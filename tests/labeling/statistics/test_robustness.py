"""The smallest removal that flips the top: by hand, against all removals there are, and confirmed by refitting."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from palate.labeling.statistics.bradley_terry import Strengths, bradley_terry, davidson
from palate.labeling.statistics.model_votes import Counts, by_pair
from palate.labeling.statistics.robustness import Dropped, Flip, smallest_flip
from tests.labeling.statistics.model_simulation import met, single_votes, strengths


def counts(models: int, *rows: tuple[int, int, float, float, float]) -> Counts:
    """From (a, b, a wins, b wins, ties)."""
    a, b, won, lost, ties = np.array(rows, dtype=float).T
    return Counts(models, a.astype(int), b.astype(int), won, lost, ties)


def test_two_models_by_hand() -> None:
    votes = counts(2, (0, 1, 105, 100, 0))
    # at 100 to 100 nobody is first: the sixth vote does it
    expected = Flip(0, 1, 6, 6 / 205, (Dropped(0, 1, False, 6),))
    assert smallest_flip(bradley_terry(votes), votes) == expected
    assert smallest_flip(davidson(votes), votes) == expected


def test_a_clear_winner_does_not_fall() -> None:
    votes = counts(2, (0, 1, 90, 10, 0))
    assert smallest_flip(bradley_terry(votes), votes) is None
    assert smallest_flip(bradley_terry(counts(1, (0, 0, 3, 1, 0))), counts(1, (0, 0, 3, 1, 0))) is None


def fewest_of_all(votes: Counts, fit: Callable[[Counts], Strengths], most: int) -> int:
    """The fewest votes whose removal changes the top, by trying every removal of up to `most`."""
    top = int(fit(votes).beta.argmax())
    table = np.stack([votes.a_wins, votes.b_wins, votes.ties])
    kinds = np.argwhere(table > 0)
    best = most + 1
    for taken in product(range(most + 1), repeat=len(kinds)):
        number = sum(taken)
        if not 0 < number < best:
            continue
        left = table.copy()
        left[tuple(kinds.T)] -= taken
        if (left < 0).any():
            continue
        beta = fit(Counts(votes.models, votes.a, votes.b, *left)).beta
        if beta.max() > beta[top] + 1e-9:
            best = number
    return best


@pytest.mark.parametrize("rows", [
    ((0, 1, 14, 12, 0), (1, 2, 15, 13, 0), (0, 2, 14, 13, 0)),
    ((0, 1, 12, 12, 0), (1, 2, 10, 14, 0), (0, 2, 15, 13, 0)),
    ((0, 1, 14, 11, 0), (1, 2, 25, 5, 0), (0, 2, 20, 10, 0)),
])  # fmt: skip
def test_against_all_removals(rows: tuple[tuple[int, int, float, float, float], ...]) -> None:
    votes = counts(3, *rows)
    found = smallest_flip(bradley_terry(votes), votes)
    assert found is not None
    assert found.votes == fewest_of_all(votes, bradley_terry, 3)


@pytest.mark.parametrize("nu", [0.0, 0.6])
def test_the_removal_found_does_flip_and_one_vote_less_does_not(nu: float) -> None:
    rng = np.random.default_rng(19)
    votes = by_pair(single_votes(strengths(6, rng, sd=0.1), *met(6, 4000, rng), rng, nu))
    fit = davidson(votes)
    found = smallest_flip(fit, votes)
    assert found is not None
    assert found.top == fit.beta.argmax()
    assert sum(kind.votes for kind in found.dropped) == found.votes
    assert found.share == pytest.approx(found.votes / votes.votes.sum())
    left = taken_out(votes, found.dropped)
    assert davidson(left).beta.argmax() == found.other != found.top
    fewer = (
        *found.dropped[:-1],
        Dropped(**{**vars(found.dropped[-1]), "votes": found.dropped[-1].votes - 1}),
    )
    assert davidson(taken_out(votes, fewer)).beta.argmax() == found.top


def taken_out(votes: Counts, dropped: tuple[Dropped, ...]) -> Counts:
    won, lost, ties = votes.a_wins.copy(), votes.b_wins.copy(), votes.ties.copy()
    for kind in dropped:
        row = np.flatnonzero(
            (votes.a == min(kind.winner, kind.loser)) & (votes.b == max(kind.winner, kind.loser))
        )
        (ties if kind.tie else won if kind.winner < kind.loser else lost)[row] -= kind.votes
    assert min(won.min(), lost.min(), ties.min()) >= 0
    return Counts(votes.models, votes.a, votes.b, won, lost, ties)


def test_unscored_models_are_not_counted() -> None:
    votes = counts(4, (0, 1, 105, 100, 0), (2, 3, 4, 1, 0))
    found = smallest_flip(davidson(votes), votes)
    assert found is not None
    assert (found.votes, found.share) == (6, 6 / 205)
