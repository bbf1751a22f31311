"""Dawid and Skene's model: by hand, beside crowd-kit, and whether its intervals hold what they promise."""

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene
from numpy.typing import NDArray

from palate.labeling.statistics.dawid_skene import A_WINS, B_WINS, TIE, Votes, dawid_skene

SHARES = (0.45, 0.1, 0.45)


def habits(rng: np.random.Generator, annotators: int) -> NDArray[np.float64]:
    """(K, 3, 3) confusion matrices that treat a and b alike; most people are right."""
    right, tie = rng.beta(8, 2, annotators), rng.uniform(0.02, 0.4, annotators)
    both = rng.uniform(0.3, 0.9, annotators)
    rows = np.zeros((annotators, 3, 3))
    rows[:, A_WINS, A_WINS] = rows[:, B_WINS, B_WINS] = right
    rows[:, A_WINS, TIE] = rows[:, B_WINS, TIE] = (1 - right) * tie
    rows[:, A_WINS, B_WINS] = rows[:, B_WINS, A_WINS] = (1 - right) * (1 - tie)
    rows[:, TIE, TIE], rows[:, TIE, A_WINS], rows[:, TIE, B_WINS] = both, (1 - both) / 2, (1 - both) / 2
    return rows


def cast(
    rng: np.random.Generator, confusion: NDArray[np.float64], units: int, overlap: int
) -> tuple[Votes, NDArray[np.int64]]:
    """Votes of `overlap` annotators on each pair, and what is true."""
    annotators = len(confusion)
    truth = rng.choice(3, units, p=SHARES)
    person = rng.permuted(np.tile(np.arange(annotators), (units, 1)), axis=1)[:, :overlap].ravel()
    unit = np.repeat(np.arange(units), overlap)
    chance = confusion[person, truth[unit]].cumsum(1)
    label = (rng.random((len(unit), 1)) > chance[:, :2]).sum(1)
    return Votes(unit, person, label, np.ones(len(unit)), units, annotators), truth


def test_one_iteration_by_hand() -> None:
    # x says a twice; y says a, then b. The shares of votes make the pairs a, and half a, half b
    votes = Votes(
        np.array([0, 0, 1, 1]),
        np.array([0, 1, 0, 1]),
        np.array([A_WINS, A_WINS, A_WINS, B_WINS]),
        np.ones(4),
        2,
        2,
    )
    found = dawid_skene(votes, symmetric=False, shrink=0, tolerance=0, most=1)
    np.testing.assert_allclose(found.shares, [0.25, 0, 0.75], atol=1e-9)
    # of x's two votes, both "a", 1.5 are on consensus a and 0.5 on b; y calls consensus a "a" in 1 of 1.5 cases
    np.testing.assert_allclose(found.confusion[0, A_WINS], [0, 0, 1], atol=1e-8)
    np.testing.assert_allclose(found.confusion[0, B_WINS], [0, 0, 1], atol=1e-8)
    np.testing.assert_allclose(found.confusion[1, A_WINS], [1 / 3, 0, 2 / 3], atol=1e-8)
    np.testing.assert_allclose(found.confusion[1, B_WINS], [1, 0, 0], atol=1e-8)
    # second pair: 0.75 * 1 * 1/3 for a against 0.25 * 1 * 1 for b
    np.testing.assert_allclose(found.posterior, [[0, 0, 1], [0.5, 0, 0.5]], atol=1e-8)


@pytest.mark.filterwarnings("ignore")  # of crowd-kit, about pandas
@pytest.mark.parametrize("seed", range(2))
def test_the_same_as_crowdkit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    votes, _ = cast(rng, habits(rng, 12), 100, 4)
    ours = dawid_skene(votes, symmetric=False, shrink=0, tolerance=0, most=25)
    table = pd.DataFrame({"task": votes.unit, "worker": votes.annotator, "label": votes.label})
    theirs = DawidSkene(n_iter=25, tol=-np.inf).fit(table)
    np.testing.assert_allclose(ours.posterior, theirs.probas_.sort_index()[[0, 1, 2]], atol=1e-6)
    errors = theirs.errors_.reindex(pd.MultiIndex.from_product([range(12), range(3)]), fill_value=0)
    then = dawid_skene(votes, symmetric=False, shrink=0, tolerance=0, most=26)  # matrices of that posterior
    np.testing.assert_allclose(then.shares, theirs.priors_[[0, 1, 2]], atol=1e-6)
    np.testing.assert_allclose(
        then.confusion, errors[[0, 1, 2]].to_numpy().reshape(12, 3, 3).transpose(0, 2, 1), atol=1e-6
    )


def test_which_completion_is_called_a_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    votes, _ = cast(rng, habits(rng, 10), 200, 3)
    turned = rng.random(200) < 0.5
    label = np.where(turned[votes.unit], 2 - votes.label, votes.label)
    one = dawid_skene(votes, tolerance=1e-10, most=500)
    other = dawid_skene(
        Votes(votes.unit, votes.annotator, label, votes.weight, 200, 10), tolerance=1e-10, most=500
    )
    np.testing.assert_allclose(one.named, other.named, atol=1e-7)
    np.testing.assert_allclose(one.confusion, other.confusion, atol=1e-6)
    np.testing.assert_allclose(
        np.where(turned[:, None], one.posterior[:, ::-1], one.posterior), other.posterior, atol=1e-6
    )


def test_holding_a_and_b_alike_knows_more() -> None:
    """The reason why it is the default: a smaller error of the matrices from the same votes."""
    errors = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        confusion = habits(rng, 10)
        votes, _ = cast(rng, confusion, 100, 3)
        errors.append(
            [np.abs(dawid_skene(votes, kind).confusion - confusion).mean() for kind in (True, False)]
        )
    symmetric, free = np.mean(errors, axis=0)
    assert symmetric < 0.9 * free


def test_thin_annotators_look_like_everybody() -> None:
    rng = np.random.default_rng(1)
    votes, _ = cast(rng, habits(rng, 8), 300, 4)
    one = votes.unit[votes.annotator == 0][0]
    kept = (votes.annotator != 0) | (votes.unit == one)
    thin = Votes(votes.unit[kept], votes.annotator[kept], votes.label[kept], votes.weight[kept], 300, 8)
    found = dawid_skene(thin)
    everybody = np.average(found.confusion[1:], axis=0, weights=found.votes[1:])
    assert np.abs(found.confusion[0] - everybody).max() < 0.25
    assert found.votes[0] == 1 and found.high[0] - found.low[0] > 0.5
    free = dawid_skene(thin, shrink=0)
    assert np.abs(free.confusion[0] - everybody).max() > 0.25


def test_half_a_vote_tells_half_as_much() -> None:
    rng = np.random.default_rng(2)
    votes, _ = cast(rng, habits(rng, 8), 300, 4)
    whole = dawid_skene(votes)
    half = dawid_skene(Votes(votes.unit, votes.annotator, votes.label, np.full(len(votes.unit), 0.5), 300, 8))
    np.testing.assert_allclose(half.votes, whole.votes / 2)
    assert (half.high - half.low > 1.1 * (whole.high - whole.low)).all()


@pytest.mark.slow
@pytest.mark.parametrize(("units", "overlap"), [(100, 3), (400, 4)])
def test_intervals_hold_what_they_promise(units: int, overlap: int) -> None:
    inside = []
    for seed in range(100):  # of 10 annotators each: 1,000 intervals
        rng = np.random.default_rng(seed)
        confusion = habits(rng, 10)
        found = dawid_skene(cast(rng, confusion, units, overlap)[0])
        true = np.einsum("z,kzz->k", SHARES, confusion)
        inside.append((found.low <= true) & (true <= found.high))
    assert 0.93 <= np.mean(inside) <= 0.97
