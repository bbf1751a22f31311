"""Wilson's interval and shares of clusters against published and hand-worked figures."""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from palate.labeling.statistics.measures import Share, clustered_share, wilson


def test_wilson_against_a_published_interval() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (55, 100), (9_999, 10_000)])
def test_wilson_against_statsmodels(successes: int, n: int) -> None:
    assert wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-12)


def test_one_pair_per_vote_is_plain_wilson() -> None:
    share = clustered_share([(1.0, 1)] * 8 + [(0.0, 1)] * 2, "")
    assert (share.low, share.high) == pytest.approx(wilson(8, 10))
    assert (share.value, share.n) == (0.8, 10)


def test_pairs_of_one_ranking_do_not_count_as_independent() -> None:
    # ten rankings of four, each all one way: six pairs say no more than one
    share = clustered_share([(6.0, 6)] * 7 + [(0.0, 6)] * 3, "")
    assert (share.value, share.n) == (0.7, 60)
    assert (share.low, share.high) == pytest.approx(wilson(7, 10))
    all_one_way = clustered_share([(6.0, 6)] * 10, "")
    assert (all_one_way.low, all_one_way.high) == pytest.approx(wilson(10, 10))


def test_an_array_is_as_good_as_a_list() -> None:
    assert clustered_share(np.array([[6.0, 6], [0, 6]]), "") == clustered_share([(6.0, 6), (0.0, 6)], "")


def test_nothing_to_share_says_why() -> None:
    assert clustered_share([], "no vote yet") == Share(None, None, None, 0, "no vote yet")
    assert clustered_share(np.zeros((0, 2)), "no vote yet") == Share(None, None, None, 0, "no vote yet")
