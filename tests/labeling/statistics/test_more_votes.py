"""What more votes buy: by hand, and against fits of so many more votes."""

import numpy as np
import pytest

from palate.labeling.statistics.bradley_terry import bradley_terry, davidson
from palate.labeling.statistics.model_votes import Counts, by_pair
from palate.labeling.statistics.more_votes import doubt, open_order
from tests.labeling.statistics.model_simulation import met, single_votes, strengths


def counts(models: int, *rows: tuple[int, int, float, float, float]) -> Counts:
    """From (a, b, a wins, b wins, ties)."""
    a, b, won, lost, ties = np.array(rows, dtype=float).T
    return Counts(models, a.astype(int), b.astype(int), won, lost, ties)


def test_two_models_by_hand() -> None:
    # 52 to 48: the logit is .080 with standard error .200; twice the votes, half the variance, wherever they go
    found = doubt(bradley_terry(counts(2, (0, 1, 52, 48, 0))), 0, 1, 100)
    se = 1 / np.sqrt(100 * 0.52 * 0.48)
    assert (found.difference, found.se) == pytest.approx((np.log(52 / 48), se))
    for half in (found.spread, found.focused):
        assert (half(0), half(100)) == pytest.approx((1.959964 * se, 1.959964 * se / np.sqrt(2)))
    assert not found.settled
    needed = 100 * ((1.959964 * se / np.log(52 / 48)) ** 2 - 1)
    assert (found.needed_spread, found.needed_focused) == (np.ceil(needed), np.ceil(needed))


def test_more_votes_against_the_fit_of_more_votes() -> None:
    rng = np.random.default_rng(23)
    votes = by_pair(single_votes(strengths(6, rng), *met(6, 3000, rng), rng, nu=0.4))
    fit = davidson(votes)
    found = doubt(fit, 0, 1, 3000)
    twice = Counts(6, votes.a, votes.b, 2 * votes.a_wins, 2 * votes.b_wins, 2 * votes.ties)
    assert found.spread(3000) == pytest.approx(1.959964 * davidson(twice).difference(0, 1)[1], rel=1e-6)
    # as many more between the two as there are, in the proportions that the fit expects
    d, nu = fit.beta[0] - fit.beta[1], fit.nu
    shares = np.array([np.exp(d / 2), np.exp(-d / 2), nu]) / (np.exp(d / 2) + np.exp(-d / 2) + nu)
    more = np.append(votes.votes * 0, 3000)[:, None] * shares
    focused = Counts(
        6,
        np.append(votes.a, 0),
        np.append(votes.b, 1),
        np.append(votes.a_wins, 0) + more[:, 0],
        np.append(votes.b_wins, 0) + more[:, 1],
        np.append(votes.ties, 0) + more[:, 2],
    )
    assert found.focused(3000) == pytest.approx(1.959964 * davidson(focused).difference(0, 1)[1], rel=0.05)
    assert found.focused(3000) < found.spread(3000)


def test_the_first_open_question_from_the_top() -> None:
    votes = counts(4, (0, 1, 900, 300, 0), (1, 2, 310, 300, 0), (2, 3, 500, 490, 0), (0, 3, 800, 200, 0))
    fit = bradley_terry(votes)
    found = open_order(fit, [0, 1, 2, 3], 3800)
    assert found is not None
    assert (found.better, found.worse, found.settled) == (1, 2, False)
    assert open_order(fit, [0, 1], 3800) is None
    assert open_order(fit, [0], 3800) is None


def test_equal_models_are_never_settled() -> None:
    found = doubt(bradley_terry(counts(2, (0, 1, 50, 50, 0))), 0, 1, 100)
    assert (found.needed_spread, found.needed_focused, found.settled) == (None, None, False)
