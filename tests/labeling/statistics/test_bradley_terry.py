"""Bradley-Terry and Davidson against evalica, choix, statsmodels and scipy, by hand, and by simulation."""

import choix
import evalica
import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize
from statsmodels.tools.numdiff import approx_fprime_cs, approx_hess_cs

from palate.labeling.statistics.bradley_terry import (
    Strengths,
    bradley_terry,
    clustered,
    davidson,
    elo,
    ranks,
    refit,
)
from palate.labeling.statistics.model_votes import Counts, by_pair, restrict
from tests.labeling.statistics.model_simulation import centred, design, inside, met, single_votes, strengths


def counts(models: int, *rows: tuple[int, int, float, float, float]) -> Counts:
    """From (a, b, a wins, b wins, ties)."""
    a, b, won, lost, ties = np.array(rows, dtype=float).T
    return Counts(models, a.astype(int), b.astype(int), won, lost, ties)


@pytest.fixture(scope="module")
def votes() -> Counts:
    """3,000 single votes between 7 models, one in five a tie."""
    rng = np.random.default_rng(1)
    return single_votes(strengths(7, rng), *met(7, 3000, rng), rng, nu=0.5)


# -- by hand --------------------------------------------------------------------------------------------------


def test_two_models_by_hand() -> None:
    fit = bradley_terry(counts(2, (0, 1, 60, 40, 0)))
    assert fit.beta == pytest.approx([np.log(1.5) / 2, -np.log(1.5) / 2], abs=1e-12)
    # the difference is a logit of a share, whose variance is 1 / (n p (1 - p)); robust and plain agree here
    assert fit.difference(0, 1) == pytest.approx((np.log(1.5), np.sqrt(1 / (100 * 0.6 * 0.4))), abs=1e-12)
    assert fit.se == pytest.approx([np.sqrt(1 / 24) / 2] * 2)
    assert (fit.nu, fit.log_nu_se, fit.apart.any(), fit.scored.all(), fit.why) == (0.0, None, False, True, "")


def test_a_tie_is_half_a_win_each() -> None:
    half = bradley_terry(counts(2, (0, 1, 50, 30, 20)))
    assert half.beta == pytest.approx(bradley_terry(counts(2, (0, 1, 60, 40, 0))).beta, abs=1e-12)
    # residuals .4 (50 times), -.6 (30), -.1 (20): S = 19, H = 24
    assert half.difference(0, 1)[1] == pytest.approx(np.sqrt(50 * 0.16 + 30 * 0.36 + 20 * 0.01) / 24)


def test_davidson_two_models_by_hand() -> None:
    # three outcomes, two parameters: the fit is exact, so odds 50 : 30 and nu = 20 / sqrt(50 * 30)
    fit = davidson(counts(2, (0, 1, 50, 30, 20)))
    assert fit.difference(0, 1)[0] == pytest.approx(np.log(50 / 30), abs=1e-10)
    assert fit.nu == pytest.approx(20 / np.sqrt(50 * 30), abs=1e-10)
    # the delta method on multinomial shares: var ln(p1 / p2) = 1 / n1 + 1 / n2
    assert fit.difference(0, 1)[1] == pytest.approx(np.sqrt(1 / 50 + 1 / 30), abs=1e-10)
    assert fit.log_nu_se == pytest.approx(np.sqrt(1 / 20 + 1 / (4 * 50) + 1 / (4 * 30)), abs=1e-10)


def test_elo_scale_and_ranks() -> None:
    assert elo(np.array([0.0, np.log(10)])) == pytest.approx([1000, 1400])
    best, worst = ranks(np.array([3.0, 2.0, 0.0]), np.array([4.0, 3.5, 1.0]))
    assert best.tolist() == [1, 1, 3]
    assert worst.tolist() == [2, 2, 3]


def test_votes_add_up_by_pair_whatever_the_side() -> None:
    added = by_pair(counts(3, (2, 0, 1, 2, 3), (0, 2, 10, 20, 30), (1, 1, 5, 5, 5), (0, 1, 0, 0, 4)))
    assert (added.a.tolist(), added.b.tolist()) == ([0, 0], [1, 2])
    assert (added.a_wins.tolist(), added.b_wins.tolist(), added.ties.tolist()) == ([0, 12], [0, 21], [4, 33])


def test_the_aggregate_gives_the_fit_of_the_votes(votes: Counts) -> None:
    one, other = davidson(votes), davidson(by_pair(votes))
    assert one.beta == pytest.approx(other.beta, abs=1e-10)
    assert one.cov == pytest.approx(other.cov, abs=1e-12)


# -- against other implementations ----------------------------------------------------------------------------


def winners(votes: Counts) -> list[evalica.Winner]:
    names = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw]
    return [names[k] for k in np.argmax([votes.a_wins, votes.b_wins, votes.ties], axis=0)]


def test_bradley_terry_against_evalica(votes: Counts) -> None:
    found = evalica.bradley_terry(
        votes.a.tolist(), votes.b.tolist(), winners(votes), tolerance=1e-14, limit=100_000
    )
    theirs = np.log(found.scores.sort_index().to_numpy())
    assert bradley_terry(votes).beta == pytest.approx(theirs - theirs.mean(), abs=1e-8)


def test_davidson_against_evalica(votes: Counts) -> None:
    found = evalica.newman(votes.a.tolist(), votes.b.tolist(), winners(votes), tolerance=1e-14, limit=100_000)
    theirs, fit = np.log(found.scores.sort_index().to_numpy()), davidson(votes)
    assert fit.beta == pytest.approx(theirs - theirs.mean(), abs=1e-6)
    assert fit.nu == pytest.approx(2 * found.v, abs=1e-6)  # Newman's v is half of Davidson's nu


def test_bradley_terry_against_choix(votes: Counts) -> None:
    decisive = votes.rows(votes.ties == 0)
    won = decisive.a_wins > 0
    pairs = list(
        zip(np.where(won, decisive.a, decisive.b), np.where(won, decisive.b, decisive.a), strict=True)
    )
    fit = bradley_terry(decisive)
    for theirs in (choix.ilsr_pairwise(7, pairs), choix.opt_pairwise(7, pairs, alpha=0)):
        assert fit.beta == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_sandwich_against_statsmodels(votes: Counts) -> None:
    model = sm.GLM(votes.a_wins + votes.ties / 2, design(votes), family=sm.families.Binomial())
    theirs = model.fit(cov_type="HC0", tol=1e-12)
    beta, cov = centred(theirs.params, theirs.cov_params())
    fit = bradley_terry(votes)
    assert fit.beta == pytest.approx(beta, abs=1e-8)
    assert fit.cov == pytest.approx(cov, abs=1e-8)


@pytest.mark.parametrize("size", [1, 3])
def test_clustered_sandwich_against_statsmodels(votes: Counts, size: int) -> None:
    cluster = np.random.default_rng(2).permutation(len(votes.a)) // size
    cluster[:5] = 0  # clusters of several sizes
    model = sm.GLM(votes.a_wins + votes.ties / 2, design(votes), family=sm.families.Binomial())
    theirs = model.fit(cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}, tol=1e-12)
    groups = len(np.unique(cluster))
    cov = centred(theirs.params, theirs.cov_params())[1] * groups / (groups - 1)
    assert clustered(bradley_terry(votes), votes, cluster).cov == pytest.approx(cov, abs=1e-8)


def davidson_log_chance(point: np.ndarray, votes: Counts) -> np.ndarray:
    """(R,) log-probability of each single vote, as in the paper; point: M - 1 strengths and ln nu."""
    beta, nu = np.append(point[:-1], 0), np.exp(point[-1])
    strong, weak = np.exp(beta[votes.a]), np.exp(beta[votes.b])
    tie = nu * np.sqrt(strong * weak)
    return np.log((votes.a_wins * strong + votes.b_wins * weak + votes.ties * tie) / (strong + weak + tie))


def test_davidson_and_its_sandwich_against_a_plain_likelihood(votes: Counts) -> None:
    start = np.zeros(7)
    found = minimize(
        lambda point: -davidson_log_chance(point, votes).sum(), start, method="BFGS", options={"gtol": 1e-7}
    )
    fit = davidson(votes)
    beta = np.append(found.x[:-1], 0)
    assert fit.beta == pytest.approx(beta - beta.mean(), abs=1e-6)
    assert np.log(fit.nu) == pytest.approx(found.x[-1], abs=1e-6)
    point = np.append((fit.beta - fit.beta[-1])[:-1], np.log(fit.nu))
    scores = approx_fprime_cs(point, davidson_log_chance, args=(votes,))
    inverse = np.linalg.inv(-approx_hess_cs(point, lambda x: davidson_log_chance(x, votes).sum()))
    cov = inverse @ scores.T @ scores @ inverse
    assert fit.cov == pytest.approx(centred(point[:-1], cov[:-1, :-1])[1], abs=1e-6)
    assert fit.log_nu_se == pytest.approx(np.sqrt(cov[-1, -1]), abs=1e-6)
    cluster = np.arange(len(votes.a)) // 4
    sums = np.stack([np.bincount(cluster, column) for column in scores.T], axis=1)
    cov = inverse @ sums.T @ sums @ inverse * len(sums) / (len(sums) - 1)
    robust = clustered(fit, votes, cluster)
    assert robust.cov == pytest.approx(centred(point[:-1], cov[:-1, :-1])[1], abs=1e-6)
    assert robust.log_nu_se == pytest.approx(np.sqrt(cov[-1, -1]), abs=1e-6)


# -- where there is no finite maximum -------------------------------------------------------------------------


def all_finite(fit: Strengths) -> bool:
    return all(
        np.isfinite(value).all() for value in (fit.beta, fit.cov, fit.low, fit.high, fit.inverse, fit.floor)
    )


def test_no_vote_between_models_says_why() -> None:
    for empty in (counts(2, (0, 0, 5, 5, 5)), counts(3, (0, 1, 0, 0, 0))):
        fit = davidson(empty)
        assert (fit.why, fit.scored.any()) == ("no vote on answers of two different models", False)
        assert all_finite(fit)


def test_only_ties_say_why() -> None:
    for fit in (davidson(counts(2, (0, 1, 0, 0, 9))), bradley_terry(counts(2, (0, 1, 0, 0, 9)))):
        assert (fit.why, fit.scored.any()) == ("every vote is a tie", False)


def test_a_model_that_won_everything_by_hand() -> None:
    fit = bradley_terry(counts(2, (0, 1, 12, 0, 0)))
    assert fit.apart.sum() == 1
    # 12 wins beside half a win and half a loss of each against the average: with beta = (x, -x),
    # 12 (1 - s(2 x)) = s(x) - 1/2 for each of the two together
    x = fit.beta[0]
    share = 1 / (1 + np.exp(-2 * x))
    assert 12 * (1 - share) == pytest.approx(1 / (1 + np.exp(-x)) - 0.5, abs=1e-8)
    # the variance is the model's, as one-way votes show none: nearly 1 / information
    even = 1 / (1 + np.exp(-x))
    information = 12 * share * (1 - share) + even * (1 - even) / 2
    assert fit.difference(0, 1)[1] >= np.sqrt(1 / information)
    assert fit.difference(0, 1)[1] == pytest.approx(np.sqrt(1 / information), rel=0.2)
    few = bradley_terry(counts(2, (0, 1, 3, 0, 0)))  # three votes to none may be chance: 1 in 4
    assert few.low[0] < few.high[1]


def test_a_newcomer_that_lost_everything_leaves_the_others_alone(votes: Counts) -> None:
    with_newcomer = Counts(
        8,
        np.append(votes.a, 7),
        np.append(votes.b, 0),
        np.append(votes.a_wins, 0),
        np.append(votes.b_wins, 3),
        np.append(votes.ties, 0),
    )
    fit, before = davidson(with_newcomer), davidson(votes)
    assert fit.apart.tolist() == [False] * 7 + [True]
    differences = fit.beta[:7] - fit.beta[:7].mean()
    assert differences == pytest.approx(before.beta, abs=0.01)
    assert fit.difference(0, 1)[1] == pytest.approx(before.difference(0, 1)[1], rel=0.01)
    assert fit.se[7] > 5 * before.se.max()
    assert all_finite(fit)


def test_models_that_never_met_the_rest_have_no_score() -> None:
    fit = davidson(counts(5, (0, 1, 6, 4, 0), (1, 2, 5, 5, 0), (3, 4, 2, 1, 0)))
    assert fit.scored.tolist() == [True, True, True, False, False]
    assert fit.beta[:3].sum() == pytest.approx(0, abs=1e-12)
    assert fit.beta[3:].tolist() == [0, 0]


def test_ties_alone_do_not_bound_davidson() -> None:
    # 5 wins, 3 ties, no loss: the plain likelihood rises for ever, as nu grows with the difference
    fit = davidson(counts(2, (0, 1, 5, 0, 3)))
    assert fit.apart.any()
    assert all_finite(fit)
    assert 0 < fit.beta[0] < 10
    assert not bradley_terry(counts(2, (0, 1, 5, 0, 3))).apart.any()


@pytest.mark.parametrize("wins", [1e6, 1e9])
def test_huge_and_lopsided_counts_stay_finite(wins: float) -> None:
    for fit in (
        davidson(counts(3, (0, 1, wins, 1, 5), (1, 2, wins, 1, 0))),
        bradley_terry(counts(3, (0, 1, wins, 0, 0), (1, 2, wins, 0, 0))),
    ):
        assert all_finite(fit)
        assert fit.beta[0] > fit.beta[1] > fit.beta[2]


def test_refit_finds_the_fit_of_other_votes(votes: Counts) -> None:
    other = votes.rows(np.arange(len(votes.a)) % 2 == 0)
    fit = davidson(votes)
    assert refit(fit, restrict(by_pair(other), fit.scored)) == pytest.approx(davidson(other).beta, abs=1e-9)
    assert refit(fit, by_pair(other.rows(np.zeros(0, dtype=int)))).tolist() == [0] * 7


# -- coverage -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(3)
    beta = strengths(5, rng)
    plain, tied, nu = [], [], []
    for _ in range(1000):
        a, b = met(5, 500, rng)
        fit = bradley_terry(single_votes(beta, a, b, rng))
        plain.append(inside(fit.low, beta, fit.high))
        fit = davidson(single_votes(beta, a, b, rng, nu=0.6))
        tied.append(inside(fit.low, beta, fit.high))
        assert fit.log_nu_se is not None
        nu.append(abs(np.log(fit.nu / 0.6)) <= 1.96 * fit.log_nu_se)
    for covered in (plain, tied):
        assert all(0.93 <= share <= 0.97 for share in np.mean(covered, axis=0))
    assert 0.93 <= np.mean(nu) <= 0.97
