"""Style control against statsmodels, by hand, in odd corners, and by simulation."""

import numpy as np
import pytest
import statsmodels.api as sm

from palate.labeling.statistics.bradley_terry import bradley_terry, clustered
from palate.labeling.statistics.model_votes import Counts
from palate.labeling.statistics.style import CONFOUNDED, ENDLESS, FEW, SAME, style_control
from tests.labeling.statistics.model_simulation import design, inside, met, single_votes, strengths


def styled(
    beta: np.ndarray, gamma: np.ndarray, rows: int, rng: np.random.Generator
) -> tuple[Counts, np.ndarray]:
    """(single votes, (R, F) differences of style): gamma is per unit of difference, which is uniform in -1..1."""
    a, b = met(len(beta), rows, rng)
    style = rng.uniform(-1, 1, (rows, len(gamma)))
    won = rng.random(rows) < 1 / (1 + np.exp(-(beta[a] - beta[b] + style @ gamma)))
    return Counts(len(beta), a, b, won * 1.0, ~won * 1.0, np.zeros(rows)), style


def test_one_model_by_hand() -> None:
    # 70 of 100 votes go to the longer answer, always by the same difference: gamma is the logit of .7
    longer = np.tile([True, False], 10)
    nothing = np.zeros(20)
    won, lost = np.where(longer, 4.0, 1.0), np.where(longer, 2.0, 3.0)
    votes = Counts(1, np.zeros(20, dtype=int), np.zeros(20, dtype=int), won, lost, nothing)
    found = style_control(bradley_terry(votes), votes, np.where(longer, 0.5, -0.5)[:, None], np.arange(20))
    assert found.gamma == pytest.approx([np.log(7 / 3)], abs=1e-10)
    # residuals: items of 6 votes won by 4 - 4.2, items of 4 by 1 - 1.2, so S = 20 * .04 * 20 / 19; H = 100 * .7 * .3
    assert found.gamma_se == pytest.approx([np.sqrt(20 * 0.04 * 20 / 19) / 21], abs=1e-10)
    assert (found.scale.tolist(), found.differs.tolist(), found.known) == ([0.5], [1.0], [0])
    assert found.scored.tolist() == [False]


def test_style_that_explains_all_leaves_models_equal() -> None:
    # model 0 is longer in every pair and wins 60 of 100; longer answers of equal models win as often
    a, b = np.tile([0, 0, 1], 10), np.tile([1, 0, 1], 10)
    votes = Counts(2, a, b, np.full(30, 6.0), np.full(30, 4.0), np.zeros(30))
    found = style_control(bradley_terry(votes), votes, np.full((30, 1), 0.4), np.arange(30))
    assert found.gamma == pytest.approx([np.log(1.5)], abs=1e-10)
    assert found.beta == pytest.approx([0, 0], abs=1e-10)


@pytest.mark.parametrize("ties", [0.0, 0.8])
def test_against_statsmodels(ties: float) -> None:
    rng = np.random.default_rng(8)
    a, b = met(5, 1500, rng)
    votes = single_votes(strengths(5, rng), a, b, rng, nu=ties)
    style, cluster = rng.uniform(-1, 1, (1500, 4)), np.arange(1500) // 2
    z = style / np.sqrt((style**2).mean(0))
    outcome, matrix = votes.a_wins + votes.ties / 2, np.hstack([design(votes), z])
    theirs = sm.GLM(outcome, matrix, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}, tol=1e-12
    )
    found = style_control(bradley_terry(votes), votes, style, cluster)
    beta = np.append(theirs.params[:4], 0)
    correction = np.sqrt(750 / 749)
    assert found.gamma == pytest.approx(theirs.params[4:], abs=1e-8)
    assert found.gamma_se == pytest.approx(theirs.bse[4:] * correction, abs=1e-8)
    assert found.beta == pytest.approx(beta - beta.mean(), abs=1e-8)
    turn = np.vstack([np.eye(4), np.zeros(4)]) - 1 / 5
    cov = turn @ theirs.cov_params()[:4, :4] @ turn.T
    assert found.se == pytest.approx(np.sqrt(np.diag(cov)) * correction, abs=1e-8)


def test_swapping_a_and_b_changes_nothing() -> None:
    rng = np.random.default_rng(9)
    votes, style = styled(strengths(4, rng), np.array([0.5, -0.2]), 400, rng)
    swap = rng.random(400) < 0.5
    other = Counts(
        4,
        np.where(swap, votes.b, votes.a),
        np.where(swap, votes.a, votes.b),
        np.where(swap, votes.b_wins, votes.a_wins),
        np.where(swap, votes.a_wins, votes.b_wins),
        votes.ties,
    )
    one = style_control(bradley_terry(votes), votes, style, np.arange(400))
    two = style_control(bradley_terry(other), other, np.where(swap[:, None], -style, style), np.arange(400))
    assert one.gamma == pytest.approx(two.gamma, abs=1e-10)
    assert one.gamma_se == pytest.approx(two.gamma_se, abs=1e-10)


def test_features_that_cannot_be_told_apart_are_left_out() -> None:
    rng = np.random.default_rng(10)
    votes, style = styled(strengths(3, rng), np.array([0.5]), 300, rng)
    of_models = (votes.a - votes.b)[:, None] / 10.0  # differs only as the models do
    features = np.hstack([style, np.zeros((300, 1)), 0.5 * style, of_models])
    found = style_control(bradley_terry(votes), votes, features, np.arange(300))
    assert found.reasons == ("", SAME, CONFOUNDED, CONFOUNDED)
    alone = style_control(bradley_terry(votes), votes, style, np.arange(300))
    assert found.gamma == pytest.approx([alone.gamma[0], 0, 0, 0], abs=1e-10)
    assert found.scale[1] == 0


def test_a_feature_that_every_vote_goes_with_leaves_the_others() -> None:
    rng = np.random.default_rng(20)
    votes, style = styled(strengths(3, rng), np.array([0.5]), 300, rng)
    rare = np.where(np.arange(300) < 40, 0.5 * np.where(votes.a_wins > 0, 1, -1), 0)
    once = np.where(np.arange(300) < 9, 0.5, 0)
    features = np.stack([style[:, 0], rare, once], axis=1)
    found = style_control(bradley_terry(votes), votes, features, np.arange(300))
    assert found.reasons == ("", ENDLESS, FEW)
    assert found.differs == pytest.approx([1, 40 / 300, 9 / 300])
    assert found.gamma[0] == pytest.approx(
        style_control(bradley_terry(votes), votes, style, np.arange(300)).gamma[0], abs=1e-10
    )


def test_nothing_to_tell_says_why() -> None:
    none = Counts(2, *(np.zeros(0, dtype=int),) * 2, *(np.zeros(0),) * 3)
    found = style_control(bradley_terry(none), none, np.zeros((0, 4)), np.zeros(0, dtype=int))
    assert (found.reasons, found.known, found.gamma.tolist()) == ((SAME,) * 4, [], [0, 0, 0, 0])
    rows = np.arange(20)
    longer = Counts(2, rows % 2, 1 - rows % 2, (rows < 10) * 1.0, (rows >= 10) * 1.0, np.zeros(20))
    style = np.where(rows < 10, 0.5, -0.5)[:, None]
    found = style_control(bradley_terry(longer), longer, style, rows)
    assert (found.reasons, found.known) == ((ENDLESS,), [])
    assert found.beta == pytest.approx(bradley_terry(longer).beta, abs=1e-8)


def test_models_that_style_lets_win_everything_stay_finite() -> None:
    # model 0 wins where it is no longer, so at equal style it would win for ever
    won, style = np.tile([1.0, 0.0], 20), np.tile([0.0, -0.5], 20)[:, None]
    votes = Counts(2, np.zeros(40, dtype=int), np.ones(40, dtype=int), won, 1 - won, np.zeros(40))
    found = style_control(bradley_terry(votes), votes, style, np.arange(40))
    assert np.isfinite(found.beta).all() and np.isfinite(found.se).all()


def test_a_model_that_won_everything_stays_finite() -> None:
    rng = np.random.default_rng(11)
    votes, style = styled(strengths(3, rng), np.array([0.5]), 300, rng)
    won = votes.a == 0
    votes = Counts(
        3, votes.a, votes.b, np.where(won, 1.0, votes.a_wins), np.where(won, 0.0, votes.b_wins), votes.ties
    )
    lost = votes.b == 0
    votes = Counts(
        3, votes.a, votes.b, np.where(lost, 0.0, votes.a_wins), np.where(lost, 1.0, votes.b_wins), votes.ties
    )
    found = style_control(bradley_terry(votes), votes, style, np.arange(300))
    assert np.isfinite(found.beta).all() and np.isfinite(found.se).all() and found.known == [0]
    assert found.beta.argmax() == 0


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(12)
    beta, gamma = strengths(5, rng), np.array([0.6, -0.3])
    effects, models = [], []
    for _ in range(1000):
        votes, style = styled(beta, gamma, 1500, rng)
        rows = np.arange(1500)
        found = style_control(clustered(bradley_terry(votes), votes, rows), votes, style, rows)
        effects.append(inside(found.gamma_low, gamma * found.scale, found.gamma_high))
        models.append(inside(found.beta - 1.96 * found.se, beta, found.beta + 1.96 * found.se))
    assert all(0.93 <= share <= 0.97 for share in np.mean(effects, axis=0))
    assert all(0.93 <= share <= 0.97 for share in np.mean(models, axis=0))
